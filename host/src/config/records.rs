//! Table `[topics.records.TOPIC]`: how records are read that are not CloudEvents. Invariant: what is not understood is
//! refused with what to write instead, and that is accepted.

use std::ops::Range;

use sagahost_codec::{EventIdFrom, KeyForm, KindFrom, Locator, RecordMapping};
use sagahost_saga::id::Kind;
use sagahost_sandbox::manifest::is_kind;

use super::reader::Table;

pub fn read(mut table: Table<'_, '_>) -> RecordMapping {
    let mapping = RecordMapping {
        kind: table.text("kind").and_then(|(text, at)| kind(&table, &text, at)),
        saga_id: table.text("saga-id").and_then(|(text, at)| locator(&table, "saga-id", &text, at)),
        event_id: table.text("event-id").and_then(|(text, at)| event_id(&table, &text, at)).unwrap_or_default(),
        data: table.text("data").and_then(|(text, at)| data(&table, text, at)),
        key: table.choice("key", &KeyForm::ALL).unwrap_or_default(),
        structured: table.boolean("structured", false),
    };
    table.finish();
    mapping
}

fn kind(table: &Table<'_, '_>, text: &str, at: Range<usize>) -> Option<KindFrom> {
    if let Some(found) = Locator::parse(text) {
        return Some(KindFrom::At(found));
    }
    // A kind may have a colon in it; `header:` and `headers.` are slips.
    let slip = meant(text);
    if slip.is_none() && is_kind(text) {
        return Some(KindFrom::Fixed(Kind::new(text)));
    }
    let advice = slip.unwrap_or_else(|| "\"OrderCreated\", \"header:NAME\" or a JSON pointer (\"/type\")".to_owned());
    table.fault("kind", at, format_args!("`{text}` is neither a kind nor a place in a record: write {advice}"));
    None
}

fn locator(table: &Table<'_, '_>, name: &str, text: &str, at: Range<usize>) -> Option<Locator> {
    let found = Locator::parse(text);
    if found.is_none() {
        let advice = meant(text).unwrap_or_else(|| format!("\"/{}\" or \"header:{}\"", path(text), plain_name(text)));
        table.fault(name, at, format_args!("`{text}` is neither a JSON pointer nor a header: write {advice}"));
    }
    found
}

fn event_id(table: &Table<'_, '_>, text: &str, at: Range<usize>) -> Option<EventIdFrom> {
    match (text, Locator::parse(text)) {
        ("content", _) => Some(EventIdFrom::Content),
        ("offset", _) => Some(EventIdFrom::Offset),
        (_, Some(Locator::Pointer(pointer))) => Some(EventIdFrom::Pointer(pointer)),
        (_, Some(Locator::Header(name))) => Some(EventIdFrom::Header(name)),
        (_, None) => {
            let place =
                meant(text).unwrap_or_else(|| format!("\"/{}\" or \"header:{}\"", path(text), plain_name(text)));
            let ways = format!("{place}, or \"content\" or \"offset\"");
            table.fault("event-id", at, format_args!("`{text}` does not say where an event's id is: write {ways}"));
            None
        }
    }
}

fn data(table: &Table<'_, '_>, text: String, at: Range<usize>) -> Option<String> {
    if text.is_empty() || text.starts_with('/') {
        return Some(text);
    }
    let advice = format!("\"/{}\", or \"\" for a value that is JSON within a string", path(&text));
    table.fault("data", at, format_args!("`{text}` is not a JSON pointer: write {advice}"));
    None
}

/// What a text that is nearly a place was meant to be, as it has to be written.
fn meant(text: &str) -> Option<String> {
    let lower = text.to_lowercase();
    for prefix in ["header:", "headers:", "header.", "headers.", "header/", "header ", "$header."] {
        if lower.starts_with(prefix) {
            return Some(format!("\"header:{}\"", plain_name(text.get(prefix.len()..).unwrap_or_default())));
        }
    }
    let rest = ["$.", "$/", "pointer:", "jsonpath:", "#/"].iter().find_map(|prefix| text.strip_prefix(prefix))?;
    Some(format!("\"/{}\"", path(rest.trim_start_matches(['$', '.', '/']))))
}

fn plain_name(text: &str) -> String {
    let name: String = text.trim().chars().filter(|c| !matches!(c, '"' | '\\' | '`') && !c.is_control()).collect();
    if name.is_empty() { "NAME".to_owned() } else { name }
}

/// `order.id` as a pointer has it, without the first stroke.
fn path(text: &str) -> String {
    plain_name(text).replace('.', "/").trim_start_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::Config;

    fn faults(field: &str, value: &str) -> Option<String> {
        let text = format!("[topics.records.t]\n{field} = '{value}'\n");
        Config::parse(&text, Path::new("sagahost.toml")).err().map(|faults| faults.to_string())
    }

    #[test]
    fn what_is_not_understood_comes_with_advice_that_is_accepted() {
        for (field, value, advised) in [
            ("kind", "header: ", "header:NAME"),
            ("kind", "headers:eventType", "header:eventType"),
            ("kind", "Header:eventType", "header:eventType"),
            ("kind", "headers.eventType", "header:eventType"),
            ("kind", "$.type", "/type"),
            ("kind", "order created", "OrderCreated"),
            ("kind", "", "OrderCreated"),
            ("saga-id", "order.id", "/order/id"),
            ("saga-id", "orderId", "/orderId"),
            ("saga-id", "header:", "header:NAME"),
            ("saga-id", "$.order.id", "/order/id"),
            ("saga-id", "", "/NAME"),
            ("event-id", "id", "/id"),
            ("event-id", "headers:id", "header:id"),
            ("event-id", "Offset", "/Offset"),
            ("data", "payload", "/payload"),
            ("data", "after.payload", "/after/payload"),
            ("key", "Long", "long"),
            ("key", "string", "text"),
        ] {
            let fault = faults(field, value).unwrap_or_else(|| panic!("{field} = {value:?} is accepted"));
            assert!(fault.contains(&format!("\"{advised}\"")), "{field} = {value:?}: {fault}");
            assert_eq!(faults(field, advised), None, "{field} = {advised:?}");
        }
    }
}
