//! What a record says its value is. Invariant: all that is said agrees, or the record is refused.

use super::{
    data::essence,
    headers::{Rules, disagree, not_utf8},
    undecodable::{UNSUPPORTED_MODE, Undecodable},
};

/// A content type and the header that says it.
#[derive(Clone, Copy, Debug)]
struct Said<'r> {
    header: &'r str,
    text: &'r str,
}

#[derive(Debug, Default)]
pub(super) struct ContentTypes<'r> {
    /// `content-type`, which Spring calls `contentType`.
    record: Option<Said<'r>>,
    /// `ce_datacontenttype`: of the event's data, which in binary mode is the record's value.
    data: Option<DataSaid>,
    /// A content type stood in quotes: former rules saw another one.
    pub quoted: bool,
}

/// The binding may have encoded it, so it is a copy.
#[derive(Debug)]
struct DataSaid {
    header: String,
    text: String,
}

impl<'r> ContentTypes<'r> {
    pub fn of_record(&mut self, header: &'r str, value: &'r [u8], rules: Rules) -> Result<(), Undecodable> {
        let raw = std::str::from_utf8(value).map_err(|_| not_utf8(header))?;
        let text = match rules {
            Rules::Current => unquoted(raw),
            Rules::Former => raw,
        };
        self.quoted |= text.len() != raw.len();
        let said = Said { header, text };
        match self.record {
            _ if text.is_empty() && rules == Rules::Current => {}
            Some(earlier) if !agree(earlier.text, text) => return Err(disagree(earlier.header, header)),
            Some(_) => {}
            None => self.record = Some(said),
        }
        Ok(())
    }

    pub fn of_data(&mut self, header: &str, value: &[u8]) -> Result<(), Undecodable> {
        let text = unquoted(std::str::from_utf8(value).map_err(|_| not_utf8(header))?);
        match &self.data {
            _ if text.is_empty() => {}
            Some(earlier) if !agree(&earlier.text, text) => return Err(disagree(&earlier.header, header)),
            Some(_) => {}
            None => self.data = Some(DataSaid { header: header.to_owned(), text: text.to_owned() }),
        }
        Ok(())
    }

    /// Does the record say that its value is a whole event?
    pub fn is_structured(&self) -> Result<bool, Undecodable> {
        let Some(record) = self.record else { return Ok(false) };
        const PREFIX: &str = "application/cloudevents";
        let begins = record.text.get(..PREFIX.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(PREFIX));
        if !begins {
            return Ok(false);
        }
        let essence = essence(record.text).to_ascii_lowercase();
        let way_on = match essence.as_str() {
            "application/cloudevents+json" => return Ok(true),
            batch if batch.starts_with("application/cloudevents-batch") => {
                "a record carries one event: send each event of the batch as a record of its own"
            }
            _ => "CloudEvents are read in binary mode and as application/cloudevents+json",
        };
        Err(Undecodable::new(UNSUPPORTED_MODE, format!("the content type is {}; {way_on}", record.text)))
    }

    /// The content type of the data of a record that is not a structured event.
    pub fn of_value(&self) -> Result<Option<&str>, Undecodable> {
        match (&self.record, &self.data) {
            (Some(record), Some(data)) if !agree(record.text, &data.text) => Err(disagree(record.header, &data.header)),
            (Some(record), _) => Ok(Some(record.text)),
            (None, data) => Ok(data.as_ref().map(|data| data.text.as_str())),
        }
    }
}

/// Parameters, as a charset, may be said or not.
fn agree(one: &str, other: &str) -> bool {
    essence(one).eq_ignore_ascii_case(essence(other))
}

/// Spring's JSON-encoded headers put quotes around it.
fn unquoted(text: &str) -> &str {
    let text = text.trim();
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text).trim()
}
