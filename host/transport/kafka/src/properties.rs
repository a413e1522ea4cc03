//! What librdkafka says of one property: is there one of this name, is this value acceptable. Invariant: the library
//! that the host is linked with is asked, no client is made for it, and no text has the value of a secret or of a name
//! that is not known.

use std::{collections::BTreeMap, ptr, sync::LazyLock};

use rdkafka::{ClientConfig, bindings::rd_kafka_conf_properties_show, error::KafkaError};
use sagahost_manifest::report::nearest;

use crate::is_secret;

/// Longer values are cut in messages.
const VALUE_CHARS_MAX: usize = 60;

/// What a property may be, by its name: `true, false`, `0 .. 900000`; empty where librdkafka names no range.
static RANGES: LazyLock<BTreeMap<String, String>> = LazyLock::new(|| ranges(&reference()));

/// It refuses the names of some properties of Java clients by a text of their own; those are not known.
pub fn is_known(name: &str) -> bool {
    RANGES.contains_key(name)
}

pub fn nearest_name(name: &str) -> Option<&'static str> {
    nearest(name, RANGES.keys().map(String::as_str))
}

/// Of a property that is known: what is wrong with the value.
pub fn value_fault(name: &str, value: &str) -> Option<String> {
    let range = RANGES.get(name).map_or("", String::as_str);
    let said = refusal(name, value);
    if said.is_none() && !is_half_a_number(range, value) {
        return None;
    }
    let shown = match is_secret(name) {
        true => "the value".to_owned(),
        false => format!("`{}`", value.chars().take(VALUE_CHARS_MAX).collect::<String>()),
    };
    let within = range.split(", ").any(|word| word.eq_ignore_ascii_case(value));
    Some(match (range.split_once(" .. "), said) {
        (Some((from, to)), _) => format!("{shown} is not a number from {from} to {to}"),
        (None, _) if !range.is_empty() && !within => format!("{shown} is not one of {range}"),
        (None, Some(why)) if !is_secret(name) => format!("librdkafka refuses {shown}: {why}"),
        (None, _) => format!("librdkafka refuses {shown}"),
    })
}

/// librdkafka reads `5s` as 5.
fn is_half_a_number(range: &str, value: &str) -> bool {
    let value = value.trim();
    let begins = value.trim_start_matches(['-', '+']).starts_with(|c: char| c.is_ascii_digit());
    range.contains(" .. ") && begins && !value.starts_with("0x") && value.parse::<f64>().is_err()
}

fn refusal(name: &str, value: &str) -> Option<String> {
    let mut config = ClientConfig::new();
    config.set(name, value);
    match config.create_native_config() {
        Ok(_) => None,
        Err(KafkaError::ClientConfig(_, why, ..)) => Some(why.trim().to_owned()),
        Err(error) => Some(error.to_string()),
    }
}

/// Lines such as `linger.ms | P | 0 .. 900000 | 5 | high | Delay in … <br>*Type: float*`.
fn ranges(reference: &str) -> BTreeMap<String, String> {
    let columns = |line: &str| {
        let mut columns = line.splitn(6, '|').map(str::trim);
        let (name, range) = (columns.next()?, columns.nth(1)?);
        let is_name = name.contains('.') || name.starts_with(|c: char| c.is_ascii_lowercase());
        (is_name && columns.next().is_some()).then(|| (name.to_owned(), range.to_owned()))
    };
    reference.lines().filter_map(columns).collect()
}

/// Everything that librdkafka knows, as in its `CONFIGURATION.md`. Empty only where memory is exhausted.
#[expect(unsafe_code, reason = "librdkafka writes its reference to a C stream only")]
fn reference() -> String {
    let (mut text, mut length) = (ptr::null_mut(), 0);
    // SAFETY: `text` and `length` outlive the stream, which is closed before they are read; then `text` has `length`
    // bytes that are ours until they are freed.
    unsafe {
        let stream = libc::open_memstream(&mut text, &mut length);
        if stream.is_null() {
            return String::new();
        }
        rd_kafka_conf_properties_show(stream);
        libc::fclose(stream);
        if text.is_null() {
            return String::new();
        }
        let bytes = std::slice::from_raw_parts(text.cast::<u8>(), length);
        let reference = String::from_utf8_lossy(bytes).into_owned();
        libc::free(text.cast());
        reference
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_librdkafka_says_of_a_property() {
        assert!(is_known("linger.ms") && is_known("sasl.password") && is_known("compression.type"));
        assert!(!is_known("linger.sm"));
        assert_eq!(nearest_name("linger.sm"), Some("linger.ms"));
        assert_eq!(nearest_name("sasl.pasword"), Some("sasl.password"));
        for (name, value, fault) in [
            ("linger.ms", "2", None),
            ("linger.ms", "0.5", None),
            ("linger.ms", "abc", Some("`abc` is not a number from 0 to 900000")),
            ("linger.ms", "5s", Some("`5s` is not a number from 0 to 900000")),
            ("linger.ms", "-1", Some("`-1` is not a number from 0 to 900000")),
            ("fetch.min.bytes", "1k", Some("`1k` is not a number from 1 to 100000000")),
            ("compression.type", "zstd", None),
            ("compression.type", "brotli", Some("`brotli` is not one of none, gzip, snappy, lz4, zstd")),
            ("security.protocol", "SSL", None),
            ("security.protocol", "tls", Some("`tls` is not one of plaintext, ssl, sasl_plaintext, sasl_ssl")),
            ("socket.keepalive.enable", "yes", Some("`yes` is not one of true, false")),
        ] {
            assert_eq!(value_fault(name, value).as_deref(), fault, "{name} = {value}");
        }
    }
}
