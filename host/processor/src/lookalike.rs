//! Kinds that were probably meant. Invariant: this is for messages to people; an event is only ever of the kind that its
//! record says.

use sagahost_manifest::report::nearest;

/// The known kind that was probably meant by `kind`: the same letters in other case, in quotes, with blanks
/// or `_`, as a part of a qualified name (`com.acme.OrderCreated.v1`), else one that differs in a few letters.
pub fn meant<'k>(kind: &str, known: impl IntoIterator<Item = &'k str> + Clone) -> Option<&'k str> {
    let alike = |name: &str| {
        let name = folded(name);
        let same = |known: &&str| folded(known) == name || folded(parts(known).last().unwrap_or(known)) == name;
        known.clone().into_iter().find(same).filter(|_| !name.is_empty())
    };
    alike(kind)
        .or_else(|| parts(kind).rev().find_map(alike))
        .or_else(|| nearest(kind.trim(), known.clone()))
        .filter(|known| *known != kind)
}

/// `did you mean OrderCreated?`
pub fn hint(meant: &str) -> String {
    format!("did you mean {meant}?")
}

fn parts(name: &str) -> impl DoubleEndedIterator<Item = &str> {
    name.split(['.', '/', ':']).filter(|part| !part.trim().is_empty())
}

fn folded(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_meant() {
        let known = ["OrderCreated", "PaymentFailed", "com.acme.StockTaken"];
        for (kind, expected) in [
            ("orderCreated", Some("OrderCreated")),
            ("ORDER_CREATED", Some("OrderCreated")),
            ("order-created", Some("OrderCreated")),
            ("\"OrderCreated\"", Some("OrderCreated")),
            (" OrderCreated\n", Some("OrderCreated")),
            ("com.acme.OrderCreated", Some("OrderCreated")),
            ("com.acme.orders/OrderCreated.v1", Some("OrderCreated")),
            ("OrderCreatd", Some("OrderCreated")),
            ("StockTaken", Some("com.acme.StockTaken")),
            ("payment.failed", Some("PaymentFailed")),
            ("OrderCreated", None),
            ("Unrelated", None),
            ("", None),
            ("...", None),
        ] {
            assert_eq!(meant(kind, known), expected, "{kind:?}");
        }
    }
}
