//! Points of time as people and machines read them: RFC 3339, UTC, milliseconds. Invariant: reading what was written
//! gives the same time.

use std::fmt;

use sagahost_saga::id::Time;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp(pub Time);

impl From<Time> for Stamp {
    fn from(time: Time) -> Self {
        Self(time)
    }
}

/// `2026-07-29T10:03:12.045Z`
impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = date_of(self.0.0 / DAY_MS);
        write!(f, "{year:04}-{month:02}-{day:02}T{}Z", self.time_of_day())
    }
}

impl Stamp {
    /// `2026-07-29 10:03:12`
    pub fn to_second(self) -> String {
        self.to_string().replace('T', " ").chars().take(19).collect()
    }

    /// `10:03:12.045`
    pub fn time_of_day(self) -> String {
        let ms = self.0.0 % DAY_MS;
        let (hours, minutes, seconds) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
        format!("{hours:02}:{minutes:02}:{seconds:02}.{:03}", ms % 1000)
    }

    pub fn parse(text: &str) -> Option<Self> {
        let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
        let date: Vec<u64> = date.split('-').map(str::parse).collect::<Result<_, _>>().ok()?;
        let (time, ms) = time.split_once('.')?;
        let time: Vec<u64> = time.split(':').map(str::parse).collect::<Result<_, _>>().ok()?;
        let ([year, month, day], [hours, minutes, seconds]) = (&date[..], &time[..]) else { return None };
        let days = days_of(*year, *month, *day)?;
        Some(Self(Time(
            days * DAY_MS + hours * 3_600_000 + minutes * 60_000 + seconds * 1000 + ms.parse::<u64>().ok()?,
        )))
    }
}

impl Serialize for Stamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Stamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom(format!("`{text}` is not a valid time")))
    }
}

const DAY_MS: u64 = 86_400_000;
/// Days from 0000-03-01, when a computed year begins, to 1970-01-01.
const EPOCH_DAYS: u64 = 719_468;

/// The calendar with years that begin in March, so that the leap day is a year's last.
fn date_of(days: u64) -> (u64, u64, u64) {
    let days = days + EPOCH_DAYS;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

fn days_of(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year = year - u64::from(month <= 2);
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    Some(era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - EPOCH_DAYS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_they_are_written() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_785_319_392_045, "2026-07-29T10:03:12.045Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(Stamp(Time(ms)).to_string(), text);
            assert_eq!(Stamp::parse(text), Some(Stamp(Time(ms))));
        }
        assert_eq!(Stamp::parse("yesterday"), None);
        assert_eq!(Stamp(Time(1_785_319_392_045)).to_second(), "2026-07-29 10:03:12");
    }
}
