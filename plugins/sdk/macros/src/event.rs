//! `#[event]` and `#[data]`.

use proc_macro2::{Delimiter, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::{
    Attribute, DeriveInput, Ident, LitStr,
    parse::{Parse, ParseStream},
};

use crate::words::{Words, comma, equals, is_kind};

#[derive(Default)]
struct Arguments {
    kind: Option<LitStr>,
    example: Option<String>,
}

const ARGUMENTS: &[&str] = &["kind", "example"];

impl Parse for Arguments {
    fn parse(input: ParseStream) -> syn::Result<Self> {
        let mut arguments = Self::default();
        let mut words = Words::default();
        while !input.is_empty() {
            let name = words.next(input, ARGUMENTS)?;
            if name == "kind" {
                equals(input, &name, "\"OrderCreated\"")?;
                arguments.kind = Some(input.parse()?);
            } else {
                equals(input, &name, "{\"orderId\": \"o-1\"}")?;
                arguments.example = Some(json(input)?);
            }
            comma(input)?;
        }
        Ok(arguments)
    }
}

pub fn event(arguments: TokenStream, item: TokenStream) -> syn::Result<TokenStream> {
    let arguments: Arguments = syn::parse2(arguments)?;
    let item = type_of(item, "event")?;
    let name = &item.ident;
    let kind = arguments.kind.unwrap_or_else(|| LitStr::new(&name.to_string(), name.span()));
    if !is_kind(&kind.value()) {
        let text = "a kind is a name such as `OrderCreated` or `shop.order-created`: letters, digits and `._-/:`";
        return Err(syn::Error::new(kind.span(), text));
    }
    let example = match arguments.example {
        Some(json) => quote!(::core::option::Option::Some(#json)),
        None => quote!(::core::option::Option::None),
    };
    let (generics, arguments, bounds) = item.generics.split_for_impl();
    let implementation = quote! {
        impl #generics ::sagahost_sdk::Event for #name #arguments #bounds {
            const KIND: &'static str = #kind;
            const EXAMPLE: ::core::option::Option<&'static str> = #example;
        }
    };
    let item = with_derives(&item);
    Ok(quote!(#item #implementation))
}

pub fn data(arguments: TokenStream, item: TokenStream) -> syn::Result<TokenStream> {
    if !arguments.is_empty() {
        return Err(syn::Error::new_spanned(arguments, "`#[data]` takes no arguments"));
    }
    Ok(with_derives(&type_of(item, "data")?))
}

fn type_of(item: TokenStream, attribute: &str) -> syn::Result<DeriveInput> {
    syn::parse2(item)
        .map_err(|error| syn::Error::new(error.span(), format!("`#[{attribute}]` belongs on a struct or an enum")))
}

fn with_derives(item: &DeriveInput) -> TokenStream {
    let written: String = item.attrs.iter().filter(|a| a.path().is_ident("derive")).map(text).collect();
    let missing = ["Clone", "Debug", "PartialEq", "Serialize", "Deserialize"]
        .into_iter()
        .filter(|name| !written.split(|c: char| !c.is_alphanumeric()).any(|word| word == *name));
    let derives = missing.map(|name| {
        let ident = Ident::new(name, Span::call_site());
        if name.ends_with("ialize") { quote!(::sagahost_sdk::__private::serde::#ident) } else { quote!(#ident) }
    });
    let serde: String = item.attrs.iter().filter(|a| a.path().is_ident("serde")).map(text).collect();
    let renamed = serde.contains("rename_all");
    let names = match &item.data {
        syn::Data::Enum(_) if !renamed => {
            quote!(, rename_all = "camelCase", rename_all_fields = "camelCase")
        }
        _ if !renamed => quote!(, rename_all = "camelCase"),
        _ => quote!(),
    };
    quote! {
        #[derive(#(#derives),*)]
        #[serde(crate = "::sagahost_sdk::__private::serde" #names)]
        #item
    }
}

fn text(attribute: &Attribute) -> String {
    attribute.to_token_stream().to_string()
}

/// One JSON value, written as JSON or as a string that holds JSON.
fn json(input: ParseStream) -> syn::Result<String> {
    let (text, span) = if input.peek(LitStr) {
        let literal: LitStr = input.parse()?;
        (literal.value(), literal.span())
    } else {
        let value: TokenTree = input.parse()?;
        let span = value.span();
        (json_text(value), span)
    };
    match serde_json::from_str::<serde_json::Value>(&text) {
        Ok(value) => Ok(value.to_string()),
        Err(error) => Err(syn::Error::new(span, format!("the example is not valid JSON: {error}"))),
    }
}

fn json_text(token: TokenTree) -> String {
    match token {
        TokenTree::Group(group) => {
            let inner: String = group.stream().into_iter().map(json_text).collect();
            match group.delimiter() {
                Delimiter::Brace => format!("{{{inner}}}"),
                Delimiter::Bracket => format!("[{inner}]"),
                Delimiter::Parenthesis => format!("({inner})"),
                Delimiter::None => inner,
            }
        }
        TokenTree::Literal(literal) => {
            let text = literal.to_string();
            if text.starts_with('"') { text } else { text.replace('_', "") }
        }
        other => other.to_string(),
    }
}
