//! Event time: every spelling that specification §1.5 knows, and the text of a window's bounds.

use crate::number::{Decimal, plain_integer};
use crate::session::{DAY_MS, Schedule};

/// 2000-01-01T00:00:00Z: nothing before it is a time of a tick.
pub const FIRST_MS: i64 = 946_684_800_000;
/// The year 10000: at or after it a time is out of every range.
pub const LIMIT_MS: i64 = 253_402_300_800_000;

/// Days since 1970-01-01 of a date of the Gregorian calendar (Hinnant's algorithm).
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Takes text apart from the left; every step that does not fit ends the reading.
struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn number(&mut self, length: usize) -> Option<i64> {
        let (head, tail) = self.0.split_at_checked(length)?;
        let value = head.iter().try_fold(0_i64, |sum, b| b.is_ascii_digit().then(|| sum * 10 + i64::from(b - b'0')))?;
        self.0 = tail;
        Some(value)
    }

    fn next_is(&mut self, wanted: u8) -> bool {
        match self.0.split_first() {
            Some((first, tail)) if *first == wanted => {
                self.0 = tail;
                true
            }
            _ => false,
        }
    }

    fn literal(&mut self, wanted: u8) -> Option<()> {
        self.next_is(wanted).then_some(())
    }

    fn sign(&mut self) -> Option<i64> {
        if self.next_is(b'+') { Some(1) } else { self.next_is(b'-').then_some(-1) }
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Milliseconds of an epoch number: its size tells the unit. Beyond year 9999: [`LIMIT_MS`]; below zero: 0.
pub fn epoch_number_ms(text: &[u8]) -> Option<i64> {
    // 12 digits are seconds below 1e11 or milliseconds: the common case needs no decimal.
    if let Some(value) = plain_integer(text)
        && (100_000_000_000..100_000_000_000_000).contains(&value)
    {
        return Some(value);
    }
    let decimal = Decimal::parse(text)?;
    if decimal.negative || decimal.is_zero() {
        return Some(0);
    }
    let point = decimal.point()?;
    let shift = match point {
        ..=11 => 3,
        12..=14 => 0,
        15..=17 => -3,
        _ => -6,
    };
    let ms = decimal.leading(point.saturating_add(shift)).unwrap_or(LIMIT_MS);
    Some(ms.min(LIMIT_MS))
}

/// `/Date(ms)/` or `/Date(ms±hhmm)/`: the number is UTC, the offset decoration.
fn slash_date_ms(text: &[u8]) -> Option<i64> {
    let body = text.strip_prefix(b"/Date(")?.strip_suffix(b")/")?;
    let (negative, body) = body.strip_prefix(b"-").map_or((false, body), |tail| (true, tail));
    let length = body.iter().take_while(|b| b.is_ascii_digit()).count();
    let (number, decoration) = body.split_at_checked(length)?;
    if number.is_empty() || number.len() > 19 {
        return None;
    }
    if !decoration.is_empty() {
        let mut cursor = Cursor(decoration);
        cursor.sign()?;
        cursor.number(4)?;
        if !cursor.is_empty() {
            return None;
        }
    }
    let ms = number.iter().fold(0_i64, |sum, b| sum.saturating_mul(10).saturating_add(i64::from(b - b'0')));
    Some(if negative { 0 } else { ms.min(LIMIT_MS) })
}

/// `yyyy-MM-dd HH:mm:ss[.f]` in the exchange's zone, also with a `T`, or ISO 8601 with an offset.
fn calendar_ms(text: &[u8], schedule: &Schedule) -> Option<i64> {
    let mut cursor = Cursor(text);
    let year = cursor.number(4)?;
    cursor.literal(b'-')?;
    let month = cursor.number(2)?;
    cursor.literal(b'-')?;
    let day = cursor.number(2)?;
    if !cursor.next_is(b' ') && !cursor.next_is(b'T') {
        cursor.literal(b't')?;
    }
    let hour = cursor.number(2)?;
    cursor.literal(b':')?;
    let minute = cursor.number(2)?;
    let has_seconds = cursor.next_is(b':');
    let second = if has_seconds { cursor.number(2)? } else { 0 };
    let mut fraction_ms = 0;
    if has_seconds && cursor.next_is(b'.') {
        fraction_ms = 100 * cursor.number(1)?;
        for unit_ms in [10, 1] {
            fraction_ms += unit_ms * cursor.number(1).unwrap_or(0);
        }
        while cursor.number(1).is_some() {}
    }
    let date = days_from_civil(year, month, day);
    let exists = (1..=12).contains(&month) && civil_from_days(date) == (year, month, day);
    if !exists || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let local_ms = date * DAY_MS + ((hour * 60 + minute) * 60 + second) * 1_000 + fraction_ms;
    if cursor.is_empty() {
        return has_seconds.then(|| schedule.to_utc_ms(local_ms));
    }
    offset_ms(&mut cursor).map(|offset_ms| local_ms - offset_ms)
}

/// `Z`, `±hh`, `±hhmm` or `±hh:mm`, to the end of the text.
fn offset_ms(cursor: &mut Cursor) -> Option<i64> {
    if cursor.next_is(b'Z') || cursor.next_is(b'z') {
        return cursor.is_empty().then_some(0);
    }
    let sign = cursor.sign()?;
    let hours = cursor.number(2)?;
    let minutes = if cursor.is_empty() {
        0
    } else {
        cursor.next_is(b':');
        cursor.number(2)?
    };
    (cursor.is_empty() && hours <= 23 && minutes <= 59).then(|| sign * (hours * 60 + minutes) * 60_000)
}

/// A `TickDt` string. `None` where it is unreadable; before 2000 is for the caller to see.
pub fn text_ms(text: &[u8], schedule: &Schedule) -> Option<i64> {
    slash_date_ms(text).or_else(|| calendar_ms(text, schedule)).or_else(|| epoch_number_ms(text))
}

/// `yyyy-MM-dd HH:mm:ss.SSS` of a local time.
pub fn write_local(out: &mut Vec<u8>, local_ms: i64) {
    let (year, month, day) = civil_from_days(local_ms.div_euclid(DAY_MS));
    let ms = local_ms.rem_euclid(DAY_MS);
    let parts =
        [(year, if year > 9_999 { 5 } else { 4 }, b'-'), (month, 2, b'-'), (day, 2, b' '), (ms / 3_600_000, 2, b':')];
    let rest = [(ms / 60_000 % 60, 2, b':'), (ms / 1_000 % 60, 2, b'.'), (ms % 1_000, 3, 0)];
    for (value, width, then) in parts.into_iter().chain(rest) {
        let mut power = 10_i64.pow(width - 1);
        while power > 0 {
            out.push(b'0' + u8::try_from(value / power % 10).unwrap_or(0));
            power /= 10;
        }
        if then != 0 {
            out.push(then);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<i64> {
        text_ms(text.as_bytes(), &Schedule::round_the_clock())
    }

    #[test]
    fn spellings() {
        assert_eq!(read("/Date(1767335675000)/"), Some(1_767_335_675_000));
        assert_eq!(read("/Date(1767335675000+0530)/"), Some(1_767_335_675_000));
        assert_eq!(read("/Date(1767335675000+530)/"), None);
        assert_eq!(read("2026-01-02 06:34:35"), Some(1_767_335_675_000));
        assert_eq!(read("2026-01-02T12:04:35.1239+05:30"), Some(1_767_335_675_123));
        assert_eq!(read("2026-01-02T06:34:35"), Some(1_767_335_675_000));
        assert_eq!(read("2026-01-02T06:34"), None);
        assert_eq!(read("2026-02-29 00:00:00"), None);
        assert_eq!(read("1767335675"), Some(1_767_335_675_000));
        assert_eq!(read("1767335675.1239"), Some(1_767_335_675_123));
        assert_eq!(read("1767335675000000"), Some(1_767_335_675_000));
        assert_eq!(read("1767335675000000000"), Some(1_767_335_675_000));
        assert_eq!(read("1e400"), Some(LIMIT_MS));
        assert_eq!(read("0"), Some(0));
        assert_eq!(read("-5"), Some(0));
        assert_eq!(read("/Date(-62135596800000)/"), Some(0));
        assert_eq!(read("0001-01-01 00:00:00").map(|ms| ms < FIRST_MS), Some(true));
        assert_eq!(read(""), None);
    }

    #[test]
    fn local_text() {
        let mut out = Vec::new();
        write_local(&mut out, 1_767_335_640_000 + 19_800_000);
        assert_eq!(out, b"2026-01-02 12:04:00.000");
    }
}
