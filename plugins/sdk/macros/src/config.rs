//! `#[derive(Config)]`.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::{
    Attribute, Data, DeriveInput, Expr, ExprLit, ExprUnary, Field, Fields, Lit, Meta, UnOp, spanned::Spanned as _,
};

use crate::{manifest::Text, words::choices};

pub fn derive(item: TokenStream) -> syn::Result<TokenStream> {
    let item: DeriveInput = syn::parse2(item)?;
    let Data::Struct(data) = &item.data else {
        return Err(syn::Error::new_spanned(&item.ident, "a configuration is a struct; its fields are the keys"));
    };
    if !item.generics.params.is_empty() {
        return Err(syn::Error::new_spanned(&item.generics, "a configuration has no type parameters"));
    }
    if matches!(data.fields, Fields::Unnamed(_)) {
        return Err(syn::Error::new_spanned(&data.fields, "the fields need names: they are the keys"));
    }
    let keys = data.fields.iter().map(Key::parse).collect::<syn::Result<Vec<_>>>()?;
    let manifest = manifest(&keys);
    let name = &item.ident;
    let fields = keys.iter().map(|Key { field, key, default, .. }| {
        let (name, default) = (&field.ident, option(default.as_ref().map(plain)));
        quote!(#name: ::sagahost_sdk::__private::read(host, #key, #default)?)
    });
    let defaults = keys.iter().filter_map(Key::check_default);
    Ok(quote! {
        const _: () = {
            #(#defaults)*
        };

        impl ::sagahost_sdk::Config for #name {
            const KEYS: &'static str = #manifest;
            fn read(
                host: &dyn ::sagahost_sdk::Host,
            ) -> ::core::result::Result<Self, ::std::string::String> {
                let _ = host;
                ::core::result::Result::Ok(Self { #(#fields),* })
            }
        }
    })
}

struct Key<'a> {
    field: &'a Field,
    key: String,
    default: Option<serde_json::Value>,
    doc: String,
}

impl<'a> Key<'a> {
    fn parse(field: &'a Field) -> syn::Result<Self> {
        let key = field.ident.as_ref().map(|name| name.to_string().replace("r#", "").replace('_', "-"));
        let mut default = None;
        for attribute in field.attrs.iter().filter(|a| a.path().is_ident("config")) {
            attribute.parse_nested_meta(|meta| {
                if !meta.path.is_ident("default") {
                    let typed = meta.path.get_ident().map(ToString::to_string).unwrap_or_default();
                    let known = choices(&typed, &["default"]);
                    return Err(meta.error(format!("unknown argument `{typed}`; {known}")));
                }
                default = Some(json(&meta.value()?.parse()?)?);
                Ok(())
            })?;
        }
        Ok(Self { field, key: key.unwrap_or_default(), default, doc: doc(&field.attrs) })
    }

    /// A default of another type than the field would fail each call.
    fn check_default(&self) -> Option<TokenStream> {
        let (of, default) = (&self.field.ty, self.default.as_ref()?);
        let (is, text) = match default {
            serde_json::Value::String(_) => ("string", "a string"),
            serde_json::Value::Bool(_) => ("boolean", "`true` or `false`"),
            serde_json::Value::Number(number) if number.is_f64() => ("float", "a number with a fraction"),
            _ => ("integer", "an integer"),
        };
        let text = format!("the default of `{}` is {text}, which its type cannot hold", self.key);
        Some(quote_spanned! {of.span()=>
            assert!(::sagahost_sdk::__private::default_fits(<#of as ::sagahost_sdk::ConfigValue>::TYPE, #is), #text);
        })
    }
}

fn manifest(keys: &[Key]) -> TokenStream {
    let mut text = Text::default();
    text.push("{");
    for (index, Key { field, key, default, doc }) in keys.iter().enumerate() {
        let of = &field.ty;
        text.push(if index == 0 { "" } else { "," });
        text.push_json(key);
        text.push(":{\"type\":\"");
        text.push_const(quote!(<#of as ::sagahost_sdk::ConfigValue>::TYPE));
        text.push("\"");
        match default {
            Some(default) => text.push(&format!(",\"default\":{default}")),
            None => {
                text.push(",\"required\":");
                text.push_const(quote!(if <#of as ::sagahost_sdk::ConfigValue>::REQUIRED { "true" } else { "false" }));
            }
        }
        text.push(",\"doc\":");
        text.push_json(doc);
        text.push("}");
    }
    text.push("}");
    text.into_expression()
}

fn option(text: Option<String>) -> TokenStream {
    match text {
        Some(text) => quote!(::core::option::Option::Some(#text)),
        None => quote!(::core::option::Option::None),
    }
}

/// As the host hands it over: strings without quotes.
fn plain(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn json(expression: &Expr) -> syn::Result<serde_json::Value> {
    let wrong = || syn::Error::new_spanned(expression, "a default is a number, a string, `true` or `false`");
    match expression {
        Expr::Lit(ExprLit { lit, .. }) => match lit {
            Lit::Str(text) => Ok(text.value().into()),
            Lit::Bool(flag) => Ok(flag.value.into()),
            Lit::Int(number) => Ok(number.base10_parse::<u64>()?.into()),
            Lit::Float(number) => Ok(number.base10_parse::<f64>()?.into()),
            _ => Err(wrong()),
        },
        Expr::Unary(ExprUnary { op: UnOp::Neg(_), expr, .. }) => match &**expr {
            Expr::Lit(ExprLit { lit: Lit::Int(number), .. }) => Ok((-number.base10_parse::<i64>()?).into()),
            Expr::Lit(ExprLit { lit: Lit::Float(number), .. }) => Ok((-number.base10_parse::<f64>()?).into()),
            _ => Err(wrong()),
        },
        _ => Err(wrong()),
    }
}

fn doc(attributes: &[Attribute]) -> String {
    let lines = attributes.iter().filter_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
            Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text.value().trim().to_owned()),
            _ => None,
        },
        _ => None,
    });
    lines.collect::<Vec<_>>().join(" ")
}
