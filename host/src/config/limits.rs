//! Table `[limits]`: the sandbox's bounds, under its own names. Invariant: a field added there is known here at once.

use serde_json::{Map, Value as Json};
use toml::de::DeValue;

use super::{
    Limits,
    reader::{Table, integer},
};

pub fn read(mut table: Table<'_, '_>) -> Limits {
    let mut fields = defaults();
    let names: Vec<String> = fields.keys().cloned().collect();
    let mut spans = Vec::new();
    for name in &names {
        let Some(value) = table.value(name) else { continue };
        spans.push((name.as_str(), value.span()));
        match integer(value.get_ref()).and_then(|number| u64::try_from(number).ok()) {
            Some(number) if fits(name, number) => {
                fields.insert(name.clone(), Json::from(number));
            }
            Some(_) => table.fault(name, value.span(), "is too large"),
            None if matches!(value.get_ref(), DeValue::Integer(_)) => {
                table.fault(name, value.span(), "must not be negative");
            }
            None => {
                table.wrong_type::<()>(name, value.span(), "a whole number", value.get_ref());
            }
        }
    }
    let limits: Limits = serde_json::from_value(Json::Object(fields)).unwrap_or_default();
    for (field, why) in limits.faults() {
        match spans.iter().find(|(name, _)| *name == field) {
            Some((_, at)) => table.fault(field, at.clone(), why),
            None => table.fault_of_table(format_args!("{field}: {why}")),
        }
    }
    table.finish();
    limits
}

pub fn defaults() -> Map<String, Json> {
    fields_of(&Limits::default())
}

pub fn fields_of(limits: &Limits) -> Map<String, Json> {
    match serde_json::to_value(limits) {
        Ok(Json::Object(fields)) => fields,
        _ => Map::new(),
    }
}

/// Some are 32 bits wide.
fn fits(name: &str, number: u64) -> bool {
    let mut fields = Map::new();
    fields.insert(name.to_owned(), Json::from(number));
    serde_json::from_value::<Limits>(Json::Object(fields)).is_ok()
}
