//! `#[participant]` with its `#[on]` and `#[undo]`.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote, quote_spanned};
use syn::{Ident, ImplItem, ImplItemFn, ItemImpl, LitInt, LitStr, Path, Type, spanned::Spanned};

use crate::{
    arguments::{self, Arguments, On, Undo},
    manifest::{Kind, Text},
    shape,
    words::choices,
};

struct Subscription {
    on: On,
    handler: ImplItemFn,
    undoer: Option<ImplItemFn>,
}

impl Subscription {
    fn check(&self) -> syn::Result<()> {
        let kind = path_text(&self.on.kind);
        let compensable = self.on.role() == "compensable";
        if compensable && self.undoer.is_none() {
            return Err(syn::Error::new(
                self.handler.sig.ident.span(),
                format!(
                    "how is this step undone? add `#[undo({kind})] fn …(&self, ctx: &Context, \
                     step: Step<{kind}, UndoData>) -> Compensated`, or say `#[on({kind}, role = nothing_to_undo)]`"
                ),
            ));
        }
        match (&self.undoer, &self.on.role) {
            (Some(undoer), Some(role)) if !compensable => Err(syn::Error::new(
                undoer.sig.ident.span(),
                format!("`{kind}` has the role `{role}`: this function would never be called"),
            )),
            (None, _) => self.check_no_data(),
            _ => Ok(()),
        }
    }

    fn check_no_data(&self) -> syn::Result<()> {
        match shape::handed_over(&self.handler).unwrap_or_default().first() {
            Some(data) if !is_no_undo(data) => Err(syn::Error::new_spanned(
                data,
                format!(
                    "undo data that nobody reads: with the role `{}` there is no `#[undo]`; answer `Handled`",
                    self.on.role()
                ),
            )),
            _ => Ok(()),
        }
    }

    /// Checked by the compiler, which alone knows what a name stands for.
    fn agreements(&self) -> TokenStream {
        let kind = &self.on.kind;
        let event = shape::subject(&self.handler)
            .map(|event| quote_spanned!(event.span()=> ::sagahost_sdk::__private::takes::<#event, #kind>();));
        let step = self.undoer.as_ref().and_then(shape::step).unwrap_or_default();
        let undone = step
            .first()
            .map(|event| quote_spanned!(event.span()=> ::sagahost_sdk::__private::takes::<#event, #kind>();));
        let data = match (shape::handed_over(&self.handler).as_deref(), step.get(1)) {
            (Some([]), Some(read)) => {
                quote_spanned!(read.span()=> ::sagahost_sdk::__private::undoes::<#read, ::sagahost_sdk::NoUndo>();)
            }
            (Some([written]), Some(read)) => {
                quote_spanned!(read.span()=> ::sagahost_sdk::__private::undoes::<#read, #written>();)
            }
            _ => quote!(),
        };
        let answer = shape::answer(&self.handler)
            .map(|answer| quote_spanned!(answer.span()=> ::sagahost_sdk::__private::answers::<#answer>();));
        let undo_answer = self
            .undoer
            .as_ref()
            .and_then(shape::answer)
            .map(|answer| quote_spanned!(answer.span()=> ::sagahost_sdk::__private::answers_undo::<#answer>();));
        quote!(#event #undone #data #answer #undo_answer)
    }
}

fn is_no_undo(data: &Type) -> bool {
    matches!(data, Type::Path(path) if path.path.segments.last().is_some_and(|last| last.ident == "NoUndo"))
}

pub fn participant(arguments: TokenStream, item: TokenStream) -> syn::Result<TokenStream> {
    let arguments: Arguments = syn::parse2(arguments)?;
    let mut item: ItemImpl = syn::parse2(item).map_err(|error| {
        syn::Error::new(error.span(), "`#[participant]` belongs on the `impl` block that holds the handlers")
    })?;
    check_block(&item)?;
    let subscriptions = subscriptions(&mut item)?;
    let this = &item.self_ty;
    let manifest = manifest(&arguments, this, &subscriptions);
    let named = arguments.name.is_none().then(package_name);
    let agreements = subscriptions.iter().map(Subscription::agreements);
    let handle = subscriptions.iter().map(handle_arm);
    let compensate = subscriptions.iter().map(compensate_arm);
    let kinds = subscriptions.iter().map(|s| kind_of(&s.on.kind)).collect::<Vec<_>>();
    let imports = if arguments.http.is_empty() { quote!(Silent) } else { quote!(Sending) };
    Ok(quote! {
        #item

        const _: () = {
            #named
            // Never called: it is enough that it compiles.
            fn _agree() {
                #(#agreements)*
            }
        };

        impl ::sagahost_sdk::Participant for #this {
            const MANIFEST: &'static str = #manifest;

            fn handle_event(
                ctx: &::sagahost_sdk::Context,
            ) -> ::core::result::Result<::sagahost_sdk::contract::Outcome, ::std::string::String> {
                #(#handle)*
                ::sagahost_sdk::__private::unknown_kind(ctx, &[#(#kinds),*])
            }

            fn compensate(
                step: ::sagahost_sdk::contract::Step,
                ctx: &::sagahost_sdk::Context,
            ) -> ::core::result::Result<::sagahost_sdk::contract::UndoOutcome, ::std::string::String> {
                #(#compensate)*
                ::sagahost_sdk::__private::no_undo()
            }
        }

        #[cfg(target_arch = "wasm32")]
        ::sagahost_sdk::__export!(#this, #imports);
    })
}

/// An inherent `impl` block of one concrete type.
fn check_block(item: &ItemImpl) -> syn::Result<()> {
    if let Some((of, _)) = &item.trait_ {
        let text = "`#[participant]` belongs on an `impl` block of the struct itself, not of a trait";
        return Err(syn::Error::new_spanned(of, text));
    }
    if !item.generics.params.is_empty() {
        let text = "a participant has no type parameters: the host makes it from its configuration";
        return Err(syn::Error::new_spanned(&item.generics, text));
    }
    Ok(())
}

fn package_name() -> TokenStream {
    quote! {
        assert!(
            ::sagahost_sdk::__private::is_name(env!("CARGO_PKG_NAME")),
            "the package's name is not a valid name for a participant (lower-case letters, digits and hyphens, a letter \
             first): give it one with `#[participant(name = \"…\")]`"
        );
    }
}

fn kind_of(path: &Path) -> TokenStream {
    quote_spanned!(path.span()=> <#path as ::sagahost_sdk::Event>::KIND)
}

fn handle_arm(Subscription { on, handler, undoer }: &Subscription) -> TokenStream {
    let kind = kind_of(&on.kind);
    let handler = &handler.sig.ident;
    let call = match undoer.as_ref().map(|undoer| &undoer.sig.ident) {
        Some(undoer) => {
            quote_spanned!(undoer.span()=> ::sagahost_sdk::__private::handle(ctx, Self::#handler, Self::#undoer))
        }
        None => {
            quote_spanned!(handler.span()=> ::sagahost_sdk::__private::handle_without_undo(ctx, Self::#handler))
        }
    };
    quote! {
        if ctx.event().kind == #kind {
            return #call;
        }
    }
}

fn compensate_arm(Subscription { on, undoer, .. }: &Subscription) -> TokenStream {
    let Some(undoer) = undoer.as_ref().map(|undoer| &undoer.sig.ident) else {
        return quote!();
    };
    let kind = kind_of(&on.kind);
    let call = quote_spanned!(undoer.span()=> ::sagahost_sdk::__private::compensate(step, ctx, Self::#undoer));
    quote! {
        if step.event.kind == #kind {
            return #call;
        }
    }
}

fn subscriptions(item: &mut ItemImpl) -> syn::Result<Vec<Subscription>> {
    let mut subscriptions: Vec<Subscription> = Vec::new();
    let mut undoers: Vec<(Path, ImplItemFn)> = Vec::new();
    for function in item.items.iter_mut().filter_map(as_function) {
        for attribute in take(function, "on") {
            let on: On = arguments::of(&attribute)?;
            shape::check(function, shape::HANDLER)?;
            if subscriptions.iter().any(|s| path_text(&s.on.kind) == path_text(&on.kind)) {
                return Err(syn::Error::new_spanned(&on.kind, "a second handler for this event; one must do it all"));
            }
            subscriptions.push(Subscription { on, handler: function.clone(), undoer: None });
        }
        for attribute in take(function, "undo") {
            let Undo { kind } = arguments::of(&attribute)?;
            shape::check(function, shape::UNDO)?;
            undoers.push((kind, function.clone()));
        }
    }
    for (kind, undoer) in undoers {
        attach(&mut subscriptions, kind, undoer)?;
    }
    if subscriptions.is_empty() {
        return Err(syn::Error::new_spanned(&item.self_ty, "no handler: mark a function with `#[on(OrderCreated)]`"));
    }
    subscriptions.iter().try_for_each(Subscription::check)?;
    Ok(subscriptions)
}

fn attach(subscriptions: &mut [Subscription], kind: Path, undoer: ImplItemFn) -> syn::Result<()> {
    let name = path_text(&kind);
    match subscriptions.iter_mut().find(|s| path_text(&s.on.kind) == name) {
        Some(subscription) if subscription.undoer.is_none() => {
            subscription.undoer = Some(undoer);
            Ok(())
        }
        Some(_) => Err(syn::Error::new_spanned(kind, "a second `#[undo]` for this event; one must do it all")),
        None => {
            let handled: Vec<String> = subscriptions.iter().map(|s| path_text(&s.on.kind)).collect();
            let handled: Vec<&str> = handled.iter().map(String::as_str).collect();
            let text = match handled.is_empty() {
                true => format!("no `#[on({name})]` does what this undoes"),
                false => format!("no `#[on({name})]` does what this undoes; {}", choices(&name, &handled)),
            };
            Err(syn::Error::new_spanned(kind, text))
        }
    }
}

fn as_function(item: &mut ImplItem) -> Option<&mut ImplItemFn> {
    match item {
        ImplItem::Fn(function) => Some(function),
        _ => None,
    }
}

fn take(function: &mut ImplItemFn, name: &str) -> Vec<syn::Attribute> {
    let (taken, kept) = std::mem::take(&mut function.attrs).into_iter().partition(|a| a.path().is_ident(name));
    function.attrs = kept;
    taken
}

fn path_text(path: &Path) -> String {
    path.to_token_stream().to_string().replace(' ', "")
}

fn manifest(arguments: &Arguments, this: &Type, subscriptions: &[Subscription]) -> TokenStream {
    let mut text = Text::default();
    text.push("{\"name\":");
    match &arguments.name {
        Some(name) => text.push_json(&name.value()),
        None => {
            text.push("\"");
            text.push_const(quote!(env!("CARGO_PKG_NAME")));
            text.push("\"");
        }
    }
    text.push(",\"version\":\"");
    text.push_const(quote!(env!("CARGO_PKG_VERSION")));
    text.push("\",\"contract\":\"");
    text.push_const(quote!(::sagahost_sdk::CONTRACT));
    text.push("\",\"subscriptions\":[");
    for (index, subscription) in subscriptions.iter().enumerate() {
        text.push(if index == 0 { "" } else { "," });
        push_subscription(&mut text, subscription);
    }
    text.push("],");
    text.push_kinds("emits", &arguments.emits);
    text.push_kinds("starts", &arguments.starts);
    text.push_kinds("compensate-on", &arguments.compensate_on);
    text.push_kinds("finish-on", &arguments.finish_on);
    if arguments.finishes {
        text.push("\"finishes\":true,");
    }
    if !arguments.http.is_empty() {
        let grants =
            arguments.http.iter().map(|url| serde_json::Value::from(format!("http:{}", url.value())).to_string());
        text.push(&format!("\"grants\":[{}],", grants.collect::<Vec<_>>().join(",")));
    }
    if let Some(format) = &arguments.data_format {
        text.push(&format!("\"data-format\":{},", format.base10_digits()));
    }
    if !arguments.reads.is_empty() {
        let reads = arguments.reads.iter().map(LitInt::base10_digits).collect::<Vec<_>>().join(",");
        text.push(&format!("\"reads\":[{reads}],"));
    }
    if !arguments.waivers.is_empty() {
        let waiver = |(law, reason): &(Ident, LitStr)| {
            let (law, reason) = (law.to_string().replace('_', "-"), reason.value());
            format!("{}:{}", serde_json::Value::from(law), serde_json::Value::from(reason))
        };
        let waivers = arguments.waivers.iter().map(waiver).collect::<Vec<_>>().join(",");
        text.push(&format!("\"waivers\":{{{waivers}}},"));
    }
    text.push("\"config\":");
    text.push_const(quote!(<#this as ::sagahost_sdk::Config>::KEYS));
    text.push("}");
    text.into_expression()
}

fn push_subscription(text: &mut Text, subscription: &Subscription) {
    let On { kind, after, rest, retry, .. } = &subscription.on;
    text.push("{\"kind\":");
    text.push_kind(&Kind::Type(kind.clone()));
    text.push(&format!(",\"role\":\"{}\",", subscription.on.role().replace('_', "-")));
    text.push_kinds("after", after);
    for (key, json) in rest {
        text.push(&format!("\"{key}\":{json},"));
    }
    if !retry.is_empty() {
        let retry = retry.iter().map(|(key, json)| format!("\"{key}\":{json}")).collect::<Vec<_>>().join(",");
        text.push(&format!("\"retry\":{{{retry}}},"));
    }
    text.push("\"example\":");
    text.push_const(quote!(::sagahost_sdk::__private::example::<#kind>()));
    text.push("}");
}
