//! JSON put together from what the macro knows (literals) and what only the compiler knows (constants of types).

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{
    LitStr, Path, Token, bracketed,
    parse::{Parse, ParseStream},
    punctuated::Punctuated,
    token,
};

use crate::words::is_kind;

/// Pieces of text and constant expressions, in order.
#[derive(Default)]
pub struct Text {
    pieces: Vec<TokenStream>,
    literal: String,
}

impl Text {
    pub fn push(&mut self, literal: &str) {
        self.literal.push_str(literal);
    }

    /// Text as a JSON string.
    pub fn push_json(&mut self, text: &str) {
        self.literal.push_str(&serde_json::Value::from(text).to_string());
    }

    pub fn push_const(&mut self, expression: TokenStream) {
        self.flush();
        self.pieces.push(expression);
    }

    /// `"key":["A","B"],`
    pub fn push_kinds(&mut self, key: &str, kinds: &[Kind]) {
        if kinds.is_empty() {
            return;
        }
        self.push_json(key);
        self.push(":[");
        for (index, kind) in kinds.iter().enumerate() {
            self.push(if index == 0 { "" } else { "," });
            self.push_kind(kind);
        }
        self.push("],");
    }

    pub fn push_kind(&mut self, kind: &Kind) {
        match kind {
            Kind::Name(name) => self.push_json(&name.value()),
            Kind::Type(path) => {
                self.push("\"");
                self.push_const(quote!(<#path as ::sagahost_sdk::Event>::KIND));
                self.push("\"");
            }
        }
    }

    fn flush(&mut self) {
        if !self.literal.is_empty() {
            let literal = std::mem::take(&mut self.literal);
            self.pieces.push(literal.to_token_stream());
        }
    }

    /// A constant expression of type `&'static str`.
    pub fn into_expression(mut self) -> TokenStream {
        self.flush();
        let pieces = self.pieces;
        quote!(::sagahost_sdk::__join!(#(#pieces),*))
    }
}

/// An event type, or a name in quotes.
pub enum Kind {
    Type(Path),
    Name(LitStr),
}

impl Parse for Kind {
    fn parse(input: ParseStream) -> syn::Result<Self> {
        if !input.peek(LitStr) {
            return input.parse().map(Kind::Type);
        }
        let name: LitStr = input.parse()?;
        if is_kind(&name.value()) {
            return Ok(Self::Name(name));
        }
        let text = "a kind is a name such as `OrderCreated` or `shop.order-created`: letters, digits and `._-/:`";
        Err(syn::Error::new(name.span(), text))
    }
}

/// `[A, "B", …]`
pub fn list<T: Parse>(input: ParseStream) -> syn::Result<Vec<T>> {
    if !input.peek(token::Bracket) {
        return Err(input.error("this is a list, in brackets: `[OrderPaid, \"OrderCancelled\"]`"));
    }
    let content;
    bracketed!(content in input);
    Ok(Punctuated::<T, Token![,]>::parse_terminated_with(&content, T::parse)?.into_iter().collect())
}
