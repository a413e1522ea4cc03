//! Reading one table of the file, field by field. Invariant: a field that is wrong leaves a fault with its line and
//! gives its default, so that reading continues and finds the others.

use std::{
    cell::RefCell,
    fmt,
    ops::{Range, RangeInclusive},
    time::Duration,
};

use sagahost_sandbox::report::nearest;
use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue},
};

use super::faults::Fault;

pub type Value<'t> = Spanned<DeValue<'t>>;
type Entries<'t> = DeTable<'t>;

/// The text that is read, with what was found on the way.
pub struct Source<'t> {
    text: &'t str,
    faults: RefCell<Vec<Fault>>,
    /// Lines that are not TOML: what was made of them is not worth a fault of its own.
    broken: RefCell<Vec<usize>>,
    /// Every field that was asked for, as `pipeline.workers`: the reference names them all.
    names: RefCell<Vec<String>>,
}

impl<'t> Source<'t> {
    pub fn new(text: &'t str) -> Self {
        Self { text, faults: RefCell::default(), broken: RefCell::default(), names: RefCell::default() }
    }

    pub fn fault_at(&self, at: Range<usize>, text: impl Into<String>) {
        let line = self.line(&at);
        if !self.broken.borrow().contains(&line) {
            self.faults.borrow_mut().push(Fault { line: Some(line), text: text.into() });
        }
    }

    /// Before anything else is read.
    pub fn syntax_fault(&self, at: Range<usize>, text: &str) {
        self.fault_at(at.clone(), text);
        self.broken.borrow_mut().push(self.line(&at));
    }

    fn line(&self, at: &Range<usize>) -> usize {
        line(self.text, at)
    }

    pub fn fault(&self, text: impl Into<String>) {
        self.faults.borrow_mut().push(Fault { line: None, text: text.into() });
    }

    pub fn names(&self) -> Vec<String> {
        self.names.borrow().clone()
    }

    /// In the order of the file.
    pub fn into_faults(self) -> Vec<Fault> {
        let mut faults = self.faults.into_inner();
        faults.sort();
        faults.dedup();
        faults
    }
}

/// One table, or an absent one: every field has its default then.
pub struct Table<'s, 't> {
    source: &'s Source<'t>,
    /// `pipeline`; empty for the file itself.
    path: String,
    /// The same with placeholders: `plugin.NAME.config`.
    doc_path: String,
    entries: Option<&'s Entries<'t>>,
    known: Vec<String>,
}

impl<'s, 't> Table<'s, 't> {
    pub fn root(source: &'s Source<'t>, entries: &'s Entries<'t>) -> Self {
        Self { source, path: String::new(), doc_path: String::new(), entries: Some(entries), known: Vec::new() }
    }

    fn child(&self, name: &str, doc_name: &str, entries: Option<&'s Entries<'t>>) -> Self {
        Self {
            source: self.source,
            path: join(&self.path, name),
            doc_path: join(&self.doc_path, doc_name),
            entries,
            known: Vec::new(),
        }
    }

    pub fn value(&mut self, name: &str) -> Option<&'s Value<'t>> {
        self.known.push(name.to_owned());
        self.source.names.borrow_mut().push(join(&self.doc_path, name));
        self.entries?.iter().find(|(key, _)| &**key.get_ref() == name).map(|(_, value)| value)
    }

    pub fn table(&mut self, name: &str) -> Self {
        let entries = self.value(name).and_then(|value| self.as_table(&join(&self.path, name), value));
        self.child(name, name, entries)
    }

    pub fn is_present(&self) -> bool {
        self.entries.is_some()
    }

    /// The tables in this one, by names that the operator chose. `placeholder` stands for them in the reference.
    pub fn tables(&self, placeholder: &str) -> Vec<(String, Range<usize>, Self)> {
        let mut found = Vec::new();
        for (key, value) in self.entries.into_iter().flatten() {
            let name = key.get_ref().to_string();
            let path = join(&self.path, &quoted(&name));
            if let Some(entries) = self.as_table(&path, value) {
                found.push((name.clone(), key.span(), self.child(&quoted(&name), placeholder, Some(entries))));
            }
        }
        found
    }

    /// The values in this table, by names that the operator chose.
    pub fn values(&self) -> impl Iterator<Item = (String, Range<usize>, &'s Value<'t>)> {
        self.entries.into_iter().flatten().map(|(key, value)| (key.get_ref().to_string(), key.span(), value))
    }

    /// A table that is not there, to ask for its fields: the reference names them.
    pub fn absent(&self, placeholder: &str) -> Self {
        self.child(placeholder, placeholder, None)
    }

    pub fn fault(&self, name: &str, at: Range<usize>, text: impl fmt::Display) {
        self.source.fault_at(at, format!("{}: {text}", join(&self.path, name)));
    }

    pub fn text(&mut self, name: &str) -> Option<(String, Range<usize>)> {
        let value = self.value(name)?;
        match value.get_ref() {
            DeValue::String(text) => Some((text.to_string(), value.span())),
            other => self.wrong_type(name, value.span(), "text in quotes", other),
        }
    }

    pub fn boolean(&mut self, name: &str, default: bool) -> bool {
        let Some(value) = self.value(name) else { return default };
        match value.get_ref() {
            DeValue::Boolean(is) => *is,
            other => self.wrong_type(name, value.span(), "true or false", other).unwrap_or(default),
        }
    }

    /// Any unsigned type that holds the range.
    pub fn number<T>(&mut self, name: &str, within: RangeInclusive<T>, default: T) -> T
    where
        T: Copy + PartialOrd + fmt::Display + TryFrom<i64>,
    {
        self.number_maybe(name, within).unwrap_or(default)
    }

    pub fn number_maybe<T>(&mut self, name: &str, within: RangeInclusive<T>) -> Option<T>
    where
        T: Copy + PartialOrd + fmt::Display + TryFrom<i64>,
    {
        let value = self.value(name)?;
        let DeValue::Integer(_) = value.get_ref() else {
            return self.wrong_type(name, value.span(), "a whole number", value.get_ref());
        };
        let number = integer(value.get_ref()).and_then(|n| T::try_from(n).ok()).filter(|n| within.contains(n));
        if number.is_none() {
            self.fault(name, value.span(), format_args!("must be from {} to {}", within.start(), within.end()));
        }
        number
    }

    pub fn duration(&mut self, name: &str, within: RangeInclusive<Duration>, default: Duration) -> Duration {
        self.duration_maybe(name, within).unwrap_or(default)
    }

    pub fn duration_maybe(&mut self, name: &str, within: RangeInclusive<Duration>) -> Option<Duration> {
        let (text, at) = self.duration_text(name)?;
        self.in_range(name, &text, at, &within)
    }

    /// With `"off"` for none.
    pub fn duration_or_off(
        &mut self,
        name: &str,
        within: RangeInclusive<Duration>,
        default: Option<Duration>,
    ) -> Option<Duration> {
        match self.duration_text(name) {
            None => default,
            Some((text, _)) if text == "off" => None,
            Some((text, at)) => self.in_range(name, &text, at, &within).or(default),
        }
    }

    fn duration_text(&mut self, name: &str) -> Option<(String, Range<usize>)> {
        let value = self.value(name)?;
        match value.get_ref() {
            DeValue::String(text) => Some((text.to_string(), value.span())),
            DeValue::Integer(number) => {
                let text = format!(
                    "needs a unit: \"{number}ms\", \"{number}s\", \"{number}m\", \"{number}h\" or \"{number}d\""
                );
                self.fault(name, value.span(), text);
                None
            }
            other => self.wrong_type(name, value.span(), "a duration such as \"10s\"", other),
        }
    }

    fn in_range(
        &self,
        name: &str,
        text: &str,
        at: Range<usize>,
        within: &RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let Some(duration) = parse_duration(text) else {
            self.fault(
                name,
                at,
                format_args!("`{text}` is not a duration; write \"500ms\", \"10s\", \"15m\", \"2h\" or \"7d\""),
            );
            return None;
        };
        if !within.contains(&duration) {
            let (from, to) = (format_duration(*within.start()), format_duration(*within.end()));
            self.fault(name, at, format_args!("must be from {from} to {to}"));
            return None;
        }
        Some(duration)
    }

    pub fn choice<T: Copy>(&mut self, name: &str, of: &[(&'static str, T)]) -> Option<T> {
        let (text, at) = self.text(name)?;
        let chosen = of.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if chosen.is_none() {
            let words: Vec<String> = of.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            self.fault(name, at, format_args!("`{text}` is not one of {}", words.join(", ")));
        }
        chosen
    }

    pub fn texts(&mut self, name: &str) -> Vec<(String, Range<usize>)> {
        let Some(value) = self.value(name) else { return Vec::new() };
        let DeValue::Array(array) = value.get_ref() else {
            self.wrong_type::<()>(name, value.span(), "a list of strings, [\"a\", \"b\"]", value.get_ref());
            return Vec::new();
        };
        self.texts_of(name, array)
    }

    pub fn numbers(&mut self, name: &str) -> Vec<(i64, Range<usize>)> {
        let Some(value) = self.value(name) else { return Vec::new() };
        let DeValue::Array(array) = value.get_ref() else {
            self.wrong_type::<()>(name, value.span(), "a list of whole numbers, [1, 2]", value.get_ref());
            return Vec::new();
        };
        let mut numbers = Vec::new();
        for item in array {
            match integer(item.get_ref()) {
                Some(number) => numbers.push((number, item.span())),
                None => drop(self.wrong_type::<()>(name, item.span(), "whole numbers only", item.get_ref())),
            }
        }
        numbers
    }

    fn texts_of(&self, name: &str, array: &DeArray<'t>) -> Vec<(String, Range<usize>)> {
        let mut texts = Vec::new();
        for item in array {
            match item.get_ref() {
                DeValue::String(text) => texts.push((text.to_string(), item.span())),
                other => {
                    self.wrong_type::<()>(name, item.span(), "strings in quotes only", other);
                }
            }
        }
        texts
    }

    /// About a default that another field makes wrong, or a field that is missing.
    pub fn fault_of_table(&self, text: impl fmt::Display) {
        match self.entries.and_then(|entries| entries.iter().next()) {
            _ if self.path.is_empty() => self.source.fault(text.to_string()),
            Some((first, _)) => self.source.fault_at(first.span(), format!("[{}] {text}", self.path)),
            None => self.source.fault(format!("[{}] {text}", self.path)),
        }
    }

    pub fn has(&self, name: &str) -> bool {
        self.entries.into_iter().flatten().any(|(key, _)| &**key.get_ref() == name)
    }

    /// Refuses what was not asked for.
    pub fn finish(self) {
        for (key, _) in self.entries.into_iter().flatten() {
            let name: &str = key.get_ref();
            if self.known.iter().any(|known| known == name) {
                continue;
            }
            let place = if self.path.is_empty() { "the file".to_owned() } else { format!("table [{}]", self.path) };
            let meant = match nearest(name, self.known.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("it has {}", self.known.join(", ")),
            };
            self.source.fault_at(key.span(), format!("unknown field `{name}` in {place}; {meant}"));
        }
    }

    fn as_table(&self, path: &str, value: &'s Value<'t>) -> Option<&'s Entries<'t>> {
        match value.get_ref() {
            DeValue::Table(entries) => Some(entries),
            other => {
                let text = format!("{path}: must be a table, [{path}], and is {}", type_of(other));
                self.source.fault_at(value.span(), text);
                None
            }
        }
    }

    pub fn wrong_type<T>(&self, name: &str, at: Range<usize>, wanted: &str, found: &DeValue<'_>) -> Option<T> {
        self.fault(name, at, format_args!("must be {wanted}, and is {}", type_of(found)));
        None
    }
}

/// Where the table or field of this path begins: names with a dot may be quoted or nested.
pub fn line_of(text: &str, path: &str) -> Option<usize> {
    fn find(entries: &Entries<'_>, path: &str) -> Option<Range<usize>> {
        entries.iter().find_map(|(key, value)| {
            let rest = path.strip_prefix(&**key.get_ref())?;
            match (rest.strip_prefix('.'), value.get_ref()) {
                (None, _) if rest.is_empty() => Some(key.span()),
                (Some(rest), DeValue::Table(inner)) => find(inner, rest).or_else(|| Some(key.span())),
                (_, _) => None,
            }
        })
    }
    let (entries, _) = DeTable::parse_recoverable(text);
    find(entries.get_ref(), path).map(|at| line(text, &at))
}

fn line(text: &str, at: &Range<usize>) -> usize {
    let before = text.get(..at.start).unwrap_or(text);
    before.bytes().filter(|byte| *byte == b'\n').count() + 1
}

pub fn integer(value: &DeValue<'_>) -> Option<i64> {
    let DeValue::Integer(number) = value else { return None };
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

pub fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// As a key of TOML.
pub fn quoted(name: &str) -> String {
    let bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    if bare { name.to_owned() } else { format!("{name:?}") }
}

pub fn type_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

pub fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = UNITS.iter().find(|(name, _)| *name == unit.trim())?.1;
    Some(Duration::from_millis(number.parse::<u64>().ok()?.checked_mul(factor)?))
}

/// In the largest unit that says it exactly.
pub fn format_duration(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let (unit, factor) = UNITS.iter().find(|(_, factor)| ms != 0 && ms.is_multiple_of(*factor)).unwrap_or(&("ms", 1));
    format!("{}{unit}", ms / factor)
}
