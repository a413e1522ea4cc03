//! The header `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header). Invariant: a key is 1 to 255 visible ASCII
//! characters, however it is written.

use http::HeaderMap;

const BYTES_MAX: usize = 255;

/// None: the request has none.
///
/// # Errors
/// What is wrong with it.
pub fn read(headers: &HeaderMap) -> Result<Option<String>, &'static str> {
    let mut all = headers.get_all("idempotency-key").into_iter();
    let Some(value) = all.next() else { return Ok(None) };
    if all.next().is_some() {
        return Err("Idempotency-Key is there more than once");
    }
    const WRONG: &str = "Idempotency-Key must be 1 to 255 visible ASCII characters, plain or as a quoted string";
    let text = value.to_str().map_err(|_| WRONG)?.trim();
    let key = match text.strip_prefix('"') {
        Some(quoted) => unquoted(quoted).ok_or(WRONG)?,
        None => text.to_owned(),
    };
    let fits = (1..=BYTES_MAX).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(Some(key)) } else { Err(WRONG) }
}

/// What follows the first quote of a string (RFC 9651, 3.3.3).
fn unquoted(text: &str) -> Option<String> {
    let mut key = String::new();
    let mut characters = text.chars();
    loop {
        match characters.next()? {
            '"' => return characters.as_str().is_empty().then_some(key),
            '\\' => key.push(characters.next().filter(|next| matches!(next, '"' | '\\'))?),
            other => key.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_and_quoted_keys() {
        let read_all = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("idempotency-key", value.parse().expect("a value"));
            }
            read(&headers).map_err(|_| ())
        };
        let key = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(read_all(&[]), Ok(None));
        assert_eq!(read_all(&["k-1"]), key("k-1"));
        assert_eq!(read_all(&["\"k-1\""]), key("k-1"));
        assert_eq!(read_all(&[r#""a\"b\\""#]), key(r#"a"b\"#));
        assert_eq!(read_all(&[&"k".repeat(255)]), key(&"k".repeat(255)));
        for wrong in ["", "\"\"", "a b", "\"open", "\"a\"b", r#""a\b""#, &"k".repeat(256)] {
            assert_eq!(read_all(&[wrong]), Err(()), "{wrong}");
        }
        assert_eq!(read_all(&["a", "a"]), Err(()));
    }
}
