//! Configuration as a Rust type: the participant's own fields. Invariant: the keys in the manifest are the fields.

use std::{fmt, str::FromStr};

use serde::de::DeserializeOwned;

use crate::host::Host;

/// A participant's configuration is its struct: each field is a key that the operator may set, with its doc comment as
/// the description. `#[derive(Config)]` implements it.
///
/// ```
/// use sagahost_sdk::Config;
///
/// #[derive(Config)]
/// struct Payment {
///     /// A larger amount is declined.
///     #[config(default = 100_000)]
///     limit_cents: u64,
///     /// Shown on the customer's statement; without a default it is required.
///     statement_text: String,
///     /// Optional.
///     webhook_name: Option<String>,
/// }
/// ```
///
/// The keys are `limit-cents`, `statement-text` and `webhook-name`. Fields may be numbers, `bool`, `String`, an
/// `Option` of these, or [`Json`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` says nothing about its configuration",
    note = "put `#[derive(Config)]` on the struct; without fields it has none"
)]
pub trait Config: Sized {
    /// The manifest's `config` object.
    const KEYS: &'static str;
    /// Reads it from the host; the error names the key.
    fn read(host: &dyn Host) -> Result<Self, String>;
}

/// A type that a field of a [`Config`] may have.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a type for a configuration key",
    note = "there are numbers, `bool`, `String`, an `Option` of these, and `Json<T>` for lists and tables"
)]
pub trait ConfigValue: Sized {
    /// `string`, `integer`, `float`, `boolean` or `json`.
    const TYPE: &'static str;
    /// Without a value and without a default: an error, unless the type says otherwise.
    const REQUIRED: bool = true;
    /// Parses what the host hands over.
    fn parse(text: &str) -> Result<Self, String>;
    /// What an absent key means.
    fn absent() -> Option<Self> {
        None
    }
}

macro_rules! scalars {
    ($($kind:literal: $($of:ty)*;)*) => {$($(
        impl ConfigValue for $of {
            const TYPE: &'static str = $kind;
            fn parse(text: &str) -> Result<Self, String> {
                <$of>::from_str(text).map_err(|error| format!("`{text}` is not a valid {}: {error}", $kind))
            }
        }
    )*)*};
}

scalars! {
    "string": String;
    "integer": u8 u16 u32 u64 i8 i16 i32 i64;
    "float": f32 f64;
    "boolean": bool;
}

impl<T: ConfigValue> ConfigValue for Option<T> {
    const TYPE: &'static str = T::TYPE;
    const REQUIRED: bool = false;
    fn parse(text: &str) -> Result<Self, String> {
        T::parse(text).map(Some)
    }
    fn absent() -> Option<Self> {
        Some(None)
    }
}

/// A list or a table in the configuration, as any serde type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned> ConfigValue for Json<T> {
    const TYPE: &'static str = "json";
    fn parse(text: &str) -> Result<Self, String> {
        crate::event::decode(text.as_bytes()).map(Json)
    }
}

/// One key, for the derived code.
#[doc(hidden)]
pub fn read<T: ConfigValue>(host: &dyn Host, key: &str, default: Option<&str>) -> Result<T, String> {
    let given = host.config(key);
    let value = match given.as_deref().or(default) {
        Some(text) => T::parse(text),
        None => T::absent().ok_or_else(|| "it is required and has no value".to_owned()),
    };
    value.map_err(|error| Fault { key, error }.to_string())
}

struct Fault<'a> {
    key: &'a str,
    error: String,
}

impl fmt::Display for Fault<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "configuration key `{}`: {}", self.key, self.error)
    }
}
