//! `#[participant]` with its `#[on]` and `#[undo]`.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote, quote_spanned};
use syn::{
    FnArg, Ident, ImplItem, ImplItemFn, ItemImpl, LitInt, LitStr, Path, Token, Type, parenthesized,
    parse::{Parse, ParseStream},
    spanned::Spanned,
};

use crate::manifest::{Kind, Text, list};

const ROLES: &[&str] = &["compensable", "nothing_to_undo", "pivot", "retriable"];

#[derive(Default)]
struct Arguments {
    name: Option<LitStr>,
    emits: Vec<Kind>,
    starts: Vec<Kind>,
    compensate_on: Vec<Kind>,
    finish_on: Vec<Kind>,
    finishes: bool,
    data_format: Option<LitInt>,
    reads: Vec<LitInt>,
    /// Names of laws with the reasons.
    waivers: Vec<(Ident, LitStr)>,
}

impl Parse for Arguments {
    fn parse(input: ParseStream) -> syn::Result<Self> {
        let mut arguments = Self::default();
        while !input.is_empty() {
            let name: Ident = input.parse()?;
            if name == "finishes" {
                arguments.finishes = true;
            } else if name == "waive" {
                arguments.waivers.extend(waivers(input)?);
            } else {
                input.parse::<Token![=]>()?;
                match name.to_string().as_str() {
                    "name" => arguments.name = Some(input.parse()?),
                    "emits" => arguments.emits = list(input)?,
                    "starts" => arguments.starts = list(input)?,
                    "compensate_on" => arguments.compensate_on = list(input)?,
                    "finish_on" => arguments.finish_on = list(input)?,
                    "data_format" => arguments.data_format = Some(input.parse()?),
                    "reads" => arguments.reads = list(input)?,
                    _ => return Err(unknown(&name, ARGUMENTS)),
                }
            }
            comma(input)?;
        }
        Ok(arguments)
    }
}

const ARGUMENTS: &str =
    "`name`, `emits`, `starts`, `compensate_on`, `finish_on`, `finishes`, `data_format`, `reads` and `waive`";

/// `(restores_state = "the reason", …)`
fn waivers(input: ParseStream) -> syn::Result<Vec<(Ident, LitStr)>> {
    let content;
    parenthesized!(content in input);
    let mut waivers = Vec::new();
    while !content.is_empty() {
        let law: Ident = content.parse()?;
        content.parse::<Token![=]>().map_err(|error| {
            syn::Error::new(error.span(), format!("why may it? `waive({law} = \"what remains, and why\")`"))
        })?;
        waivers.push((law, content.parse()?));
        comma(&content)?;
    }
    Ok(waivers)
}

struct On {
    kind: Path,
    role: Option<Ident>,
    after: Vec<Kind>,
    /// Keys of the manifest with their JSON.
    rest: Vec<(&'static str, String)>,
    retry: Vec<(&'static str, String)>,
}

impl Parse for On {
    fn parse(input: ParseStream) -> syn::Result<Self> {
        if input.is_empty() || input.peek(LitStr) {
            return Err(input.error("which event? `#[on(OrderCreated)]` names its type"));
        }
        let mut on = Self { kind: input.parse()?, role: None, after: vec![], rest: vec![], retry: vec![] };
        comma(input)?;
        while !input.is_empty() {
            let name: Ident = input.parse()?;
            input.parse::<Token![=]>()?;
            match name.to_string().as_str() {
                "role" => on.role = Some(one_of(input, ROLES)?),
                "after" => on.after = list(input)?,
                "when" => on.rest.push(("when", word(&one_of(input, &["running", "compensating", "both"])?))),
                "from" => on.rest.push(("from", word(&one_of(input, &["now", "earliest"])?))),
                "deadline_ms" => on.rest.push(("deadline-ms", number(input)?)),
                "park_ttl_ms" => on.rest.push(("park-ttl-ms", number(input)?)),
                "on_dead_letter" => {
                    on.rest.push(("on-dead-letter", word(&one_of(input, &["compensate", "block", "skip"])?)));
                }
                "undo_bytes_max" => on.rest.push(("undo-bytes-max", number(input)?)),
                "attempts" => on.retry.push(("attempts-max", number(input)?)),
                "backoff_ms" => on.retry.push(("base-ms", number(input)?)),
                "backoff_max_ms" => on.retry.push(("cap-ms", number(input)?)),
                _ => return Err(unknown(&name, ON_ARGUMENTS)),
            }
            comma(input)?;
        }
        Ok(on)
    }
}

const ON_ARGUMENTS: &str = "`role`, `after`, `when`, `from`, `attempts`, `backoff_ms`, `backoff_max_ms`, \
    `deadline_ms`, `park_ttl_ms`, `on_dead_letter` and `undo_bytes_max`";

fn unknown(name: &Ident, known: &str) -> syn::Error {
    syn::Error::new(name.span(), format!("unknown argument `{name}`; there are {known}"))
}

fn comma(input: ParseStream) -> syn::Result<()> {
    if input.is_empty() { Ok(()) } else { input.parse::<Token![,]>().map(|_| ()) }
}

fn one_of(input: ParseStream, words: &[&str]) -> syn::Result<Ident> {
    let word: Ident = input.parse()?;
    if words.iter().any(|known| word == known) {
        return Ok(word);
    }
    Err(syn::Error::new(word.span(), format!("`{word}` is none of {}", words.join(", "))))
}

fn word(word: &Ident) -> String {
    format!("\"{}\"", word.to_string().replace('_', "-"))
}

fn number(input: ParseStream) -> syn::Result<String> {
    Ok(input.parse::<LitInt>()?.base10_parse::<u64>()?.to_string())
}

struct Subscription {
    on: On,
    handler: Ident,
    undoer: Option<Ident>,
}

impl Subscription {
    fn role(&self) -> String {
        self.on.role.as_ref().map_or_else(|| "compensable".to_owned(), ToString::to_string)
    }

    fn check(&self) -> syn::Result<()> {
        let kind = path_text(&self.on.kind);
        let compensable = self.role() == "compensable";
        if compensable && self.undoer.is_none() {
            return Err(syn::Error::new(
                self.handler.span(),
                format!(
                    "how is this step undone? add `#[undo({kind})] fn …(&self, ctx: &Context, \
                     step: Step<{kind}, UndoData>) -> Compensated`, or say `#[on({kind}, role = nothing_to_undo)]`"
                ),
            ));
        }
        match (&self.undoer, &self.on.role) {
            (Some(undoer), Some(role)) if !compensable => Err(syn::Error::new(
                undoer.span(),
                format!("`{kind}` has the role `{role}`: this function would never be called"),
            )),
            _ => Ok(()),
        }
    }
}

pub fn participant(arguments: TokenStream, item: TokenStream) -> syn::Result<TokenStream> {
    let arguments: Arguments = syn::parse2(arguments)?;
    let mut item: ItemImpl = syn::parse2(item).map_err(|error| {
        syn::Error::new(error.span(), "`#[participant]` belongs on the `impl` block that holds the handlers")
    })?;
    let subscriptions = subscriptions(&mut item)?;
    let this = &item.self_ty;
    let manifest = manifest(&arguments, this, &subscriptions);
    let handle = subscriptions.iter().map(handle_arm);
    let compensate = subscriptions.iter().map(compensate_arm);
    let kinds = subscriptions.iter().map(|s| kind_of(&s.on.kind)).collect::<Vec<_>>();
    Ok(quote! {
        #item

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
        ::sagahost_sdk::__export!(#this);
    })
}

fn kind_of(path: &Path) -> TokenStream {
    quote_spanned!(path.span()=> <#path as ::sagahost_sdk::Event>::KIND)
}

fn handle_arm(Subscription { on, handler, undoer }: &Subscription) -> TokenStream {
    let kind = kind_of(&on.kind);
    let call = match undoer {
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
    let Some(undoer) = undoer else {
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
    let mut undoers: Vec<(Path, Ident)> = Vec::new();
    for function in item.items.iter_mut().filter_map(as_function) {
        for attribute in take(function, "on") {
            check_shape(function, HANDLER_SHAPE)?;
            let on: On = attribute.parse_args()?;
            if subscriptions.iter().any(|s| path_text(&s.on.kind) == path_text(&on.kind)) {
                return Err(syn::Error::new_spanned(&on.kind, "a second handler for this event; one must do it all"));
            }
            subscriptions.push(Subscription { on, handler: function.sig.ident.clone(), undoer: None });
        }
        for attribute in take(function, "undo") {
            check_shape(function, UNDO_SHAPE)?;
            undoers.push((attribute.parse_args()?, function.sig.ident.clone()));
        }
    }
    for (kind, undoer) in undoers {
        match subscriptions.iter_mut().find(|s| path_text(&s.on.kind) == path_text(&kind)) {
            Some(subscription) if subscription.undoer.is_none() => subscription.undoer = Some(undoer),
            Some(_) => {
                return Err(syn::Error::new_spanned(kind, "a second `#[undo]` for this event"));
            }
            None => {
                return Err(syn::Error::new_spanned(kind, "there is no `#[on]` for this event to undo"));
            }
        }
    }
    if subscriptions.is_empty() {
        return Err(syn::Error::new_spanned(&item.self_ty, "no handler: mark a function with `#[on(OrderCreated)]`"));
    }
    subscriptions.iter().try_for_each(Subscription::check)?;
    Ok(subscriptions)
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

const HANDLER_SHAPE: &str = "a handler looks like `fn charge(&self, ctx: &Context, order: OrderCreated) -> \
    Handled<UndoData>` (without an `#[undo]`: `-> Handled`)";
const UNDO_SHAPE: &str = "an undo function looks like `fn refund(&self, ctx: &Context, \
    step: Step<OrderCreated, UndoData>) -> Compensated`";

fn check_shape(function: &ImplItemFn, shape: &str) -> syn::Result<()> {
    let inputs = &function.sig.inputs;
    let by_reference =
        matches!(inputs.first(), Some(FnArg::Receiver(me)) if me.reference.is_some() && me.mutability.is_none());
    if by_reference && inputs.len() == 3 && function.sig.asyncness.is_none() {
        return Ok(());
    }
    Err(syn::Error::new_spanned(&function.sig, shape))
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
    text.push(&format!(",\"role\":\"{}\",", subscription.role().replace('_', "-")));
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
