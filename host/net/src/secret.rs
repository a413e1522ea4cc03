//! What is sent and never shown.

use std::{fmt, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue};

/// A text of which neither a message nor a page shows anything.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// For whoever sends it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// A header that is sent with each request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentHeader {
    pub name: HeaderName,
    pub value: Secret,
    /// For people: the value, where it comes from (`(env STOCK_TOKEN)`), or `(hidden)`.
    pub shown: String,
}

impl SentHeader {
    /// Is its value nobody's to see?
    pub fn is_secret(&self) -> bool {
        self.shown != self.value.reveal()
    }

    /// A value that cannot be one of a header is left out: the configuration has refused it.
    pub fn insert_into(&self, headers: &mut HeaderMap) {
        if let Ok(mut value) = HeaderValue::from_str(self.value.reveal()) {
            value.set_sensitive(self.is_secret());
            headers.insert(&self.name, value);
        }
    }
}
