//! Times on the wire: RFC 3339 in UTC, with milliseconds. Invariant: what `format` writes, `parse` reads back as it
//! was.

use sagahost_saga::id::Time;

const DAY_MS: i64 = 86_400_000;
/// 9999-12-31T23:59:59.999Z: RFC 3339 has four digits for a year.
const LAST_MS: u64 = 253_402_300_799_999;

pub fn format(time: Time) -> String {
    let ms = i64::try_from(time.0.min(LAST_MS)).unwrap_or(0);
    let (year, month, day) = date_of(ms.div_euclid(DAY_MS));
    let rest = ms.rem_euclid(DAY_MS);
    let (hour, minute, second) = (rest / 3_600_000, rest / 60_000 % 60, rest / 1000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", rest % 1000)
}

/// None: no RFC 3339 time. Digits below the millisecond are dropped, and times before 1970 become 1970: some clients
/// write the year 1 where they mean nothing.
pub fn parse(text: &str) -> Option<Time> {
    let (date, rest) = text.split_at_checked(10)?;
    let date = date.as_bytes();
    let (year, month, day) = (number(&date[..4])?, number(&date[5..7])?, number(&date[8..10])?);
    let day_exists = date[4] == b'-' && date[7] == b'-' && (1..=12).contains(&month) && day >= 1;
    if !day_exists || day > days_in(year, month) {
        return None;
    }
    let (clock, rest) = rest.strip_prefix(['T', 't', ' '])?.split_at_checked(8)?;
    let clock = clock.as_bytes();
    let (hour, minute, second) = (number(&clock[..2])?, number(&clock[3..5])?, number(&clock[6..8])?);
    // A leap second counts as the last one of its minute.
    if clock[2] != b':' || clock[5] != b':' || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (fraction_ms, zone) = fraction(rest)?;
    let seconds = (hour * 60 + minute - offset_minutes(zone)?) * 60 + second.min(59);
    let ms = days_before(year, month, day) * DAY_MS + seconds * 1000 + fraction_ms;
    Some(Time(u64::try_from(ms).unwrap_or(0)))
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0')))
}

/// Milliseconds, and what follows them.
fn fraction(rest: &str) -> Option<(i64, &str)> {
    let Some(digits) = rest.strip_prefix('.') else {
        return Some((0, rest));
    };
    let count = digits.bytes().take_while(u8::is_ascii_digit).count();
    if count == 0 {
        return None;
    }
    let (digits, zone) = digits.split_at(count);
    let ms = digits.bytes().chain(*b"000").take(3).fold(0, |ms, digit| ms * 10 + i64::from(digit - b'0'));
    Some((ms, zone))
}

fn offset_minutes(zone: &str) -> Option<i64> {
    if zone == "Z" || zone == "z" {
        return Some(0);
    }
    let zone = zone.as_bytes();
    let sign = match zone.first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    if zone.len() != 6 || zone[3] != b':' {
        return None;
    }
    let (hours, minutes) = (number(&zone[1..3])?, number(&zone[4..6])?);
    (hours <= 23 && minutes <= 59).then_some(sign * (hours * 60 + minutes))
}

fn leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01; the year begins in March, so that the leap day comes last.
fn days_before(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The inverse of `days_before`.
fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn times_that_are_read() {
        let texts = [
            "2026-11-22T19:50:08Z",
            "2026-11-22t19:50:08.5z",
            "2026-11-22 19:50:08.123456789Z",
            "2026-11-22T19:50:08.999+02:00",
            "2024-02-29T23:59:60-00:30",
            "1970-01-01T00:00:00Z",
            "0001-01-01T00:00:00Z",
            "9999-12-31T23:59:59.999Z",
        ];
        let lines: Vec<String> =
            texts.iter().map(|text| format!("{text} = {}", parse(text).map_or("-".to_owned(), format))).collect();
        expect![[r#"
            2026-11-22T19:50:08Z = 2026-11-22T19:50:08.000Z
            2026-11-22t19:50:08.5z = 2026-11-22T19:50:08.500Z
            2026-11-22 19:50:08.123456789Z = 2026-11-22T19:50:08.123Z
            2026-11-22T19:50:08.999+02:00 = 2026-11-22T17:50:08.999Z
            2024-02-29T23:59:60-00:30 = 2024-03-01T00:29:59.000Z
            1970-01-01T00:00:00Z = 1970-01-01T00:00:00.000Z
            0001-01-01T00:00:00Z = 1970-01-01T00:00:00.000Z
            9999-12-31T23:59:59.999Z = 9999-12-31T23:59:59.999Z"#]]
        .assert_eq(&lines.join("\n"));
        assert_eq!(parse("2001-09-09T01:46:40Z"), Some(Time(1_000_000_000_000)));
    }

    #[test]
    fn times_that_are_not() {
        let texts = [
            "",
            "now",
            "1700000000",
            "2026-11-22",
            "2026-11-22T19:50:08",
            "2026-11-22T19:50Z",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-11-22T24:00:00Z",
            "2026-11-22T19:50:08.Z",
            "2026-11-22T19:50:08+0200",
            "2026-11-22T19:50:08+2:00",
            "2026-11-22T19:50:08Zz",
            "2026-11-2ä19:50:08Z",
            "+026-11-22T19:50:08Z",
        ];
        let read: Vec<&&str> = texts.iter().filter(|text| parse(text).is_some()).collect();
        assert!(read.is_empty(), "{read:?}");
    }

    #[test]
    fn every_day_survives() {
        for day in (0..LAST_MS / 86_400_000).step_by(13) {
            let time = Time(day * 86_400_000 + day % 86_400_000);
            assert_eq!(parse(&format(time)), Some(time), "{time:?}");
        }
        assert_eq!(format(Time(u64::MAX)), "9999-12-31T23:59:59.999Z");
    }
}
