//! Names of topics: what Kafka accepts, and which topic carries a kind. Invariant: a name made here passes `check`.

/// Kafka's own limit.
const NAME_BYTES_MAX: usize = 249;

/// Kafka's alphabet. The fragment says what is wrong with the name.
pub fn check(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("a topic's name may not be empty".to_owned());
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(format!("a topic's name has at most {NAME_BYTES_MAX} characters, this one {}", name.len()));
    }
    if name == "." || name == ".." {
        return Err(format!("`{name}` cannot be the name of a topic"));
    }
    match name.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))) {
        Some(bad) => {
            Err(format!("`{name}` has {bad:?} in it; a topic's name consists of letters, digits, `.`, `_` and `-`"))
        }
        None => Ok(()),
    }
}

/// `OrderCreated` → `order-created`, `HTTPRequestV2Sent` → `http-request-v2-sent`. What Kafka does not accept becomes a
/// hyphen, so a kind like `com.example/Order Created` has a topic too: `com.example-order-created`.
pub fn of_kind(kind: &str) -> String {
    let chars: Vec<char> = kind.chars().collect();
    let mut name = String::with_capacity(kind.len() + 8);
    for (index, &c) in chars.iter().enumerate() {
        let hyphen = !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_'));
        let begins = c.is_ascii_uppercase() && begins_word(&chars, index);
        if (hyphen || begins) && !name.is_empty() && !name.ends_with(['-', '.', '_']) {
            name.push('-');
        }
        if !hyphen {
            name.push(c.to_ascii_lowercase());
        }
    }
    name.truncate(NAME_BYTES_MAX);
    let name = name.trim_end_matches('-');
    if check(name).is_ok() { name.to_owned() } else { "kind".to_owned() }
}

/// A capital begins a word after a small letter or a digit, and at the end of an acronym (`HTTPRequest`).
fn begins_word(chars: &[char], index: usize) -> bool {
    let Some(before) = index.checked_sub(1).map(|i| chars[i]) else {
        return false;
    };
    let small_follows = chars.get(index + 1).is_some_and(char::is_ascii_lowercase);
    before.is_ascii_lowercase() || before.is_ascii_digit() || (before.is_ascii_uppercase() && small_follows)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn topics_of_kinds() {
        let kinds = [
            "OrderCreated",
            "HTTPRequestSent",
            "OrderV2Created",
            "SKUReserved",
            "PaidByIBAN",
            "order-created",
            "order_created",
            "Order Created",
            "com.example.OrderCreated",
            "com.example/Order Created!",
            "A",
            "ÄrgerGemeldet",
            "..",
            "",
            "日本",
        ];
        let lines: Vec<String> = kinds.iter().map(|kind| format!("{kind} → {}", of_kind(kind))).collect();
        expect![[r#"
            OrderCreated → order-created
            HTTPRequestSent → http-request-sent
            OrderV2Created → order-v2-created
            SKUReserved → sku-reserved
            PaidByIBAN → paid-by-iban
            order-created → order-created
            order_created → order_created
            Order Created → order-created
            com.example.OrderCreated → com.example.order-created
            com.example/Order Created! → com.example-order-created
            A → a
            ÄrgerGemeldet → rger-gemeldet
            .. → kind
             → kind
            日本 → kind"#]]
        .assert_eq(&lines.join("\n"));
        assert!(check(&of_kind(&"Long".repeat(100))).is_ok());
    }

    #[test]
    fn names_that_kafka_refuses() {
        let lines: Vec<String> = ["", "..", "a b", "ä", "a/b"].iter().filter_map(|name| check(name).err()).collect();
        expect![[r#"
            a topic's name may not be empty
            `..` cannot be the name of a topic
            `a b` has ' ' in it; a topic's name consists of letters, digits, `.`, `_` and `-`
            `ä` has 'ä' in it; a topic's name consists of letters, digits, `.`, `_` and `-`
            `a/b` has '/' in it; a topic's name consists of letters, digits, `.`, `_` and `-`"#]]
        .assert_eq(&lines.join("\n"));
        assert!(check(&"a".repeat(250)).is_err());
    }
}
