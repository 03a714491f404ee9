//! Reads an event's time: RFC 3339 as far as the contract allows it (capital `T` and `Z`, at most
//! nine digits of a second, no leap second).
//!
//! By hand, because the usual crates take more than the contract does (`t`, a space, `:60`,
//! `+0200`), and what the published schema rejects must not pass here.

const SECONDS_PER_DAY: i64 = 86_400;

/// The longest fraction of a second, in digits.
const FRACTION_DIGITS_MAX: usize = 9;

/// Why a timestamp is none. The sentences follow "`timestamp` ".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BadTimestamp {
    Empty,
    Form,
    Date,
    TimeOfDay,
    Offset,
}

impl BadTimestamp {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "is empty",
            Self::Form => {
                "does not have the form YYYY-MM-DDThh:mm:ss, a fraction of 1 to 9 digits or none, \
                 then Z or +hh:mm or -hh:mm"
            }
            Self::Date => "names a date that does not exist",
            Self::TimeOfDay => "names a time of day beyond 23:59:59",
            Self::Offset => "has an offset beyond 23:59",
        }
    }
}

/// The milliseconds from 1970-01-01T00:00:00Z to this time, rounded towards the past.
pub(super) fn epoch_ms(text: &str) -> Result<i64, BadTimestamp> {
    if text.is_empty() {
        return Err(BadTimestamp::Empty);
    }
    let (clock, rest) = text.as_bytes().split_first_chunk::<19>().ok_or(BadTimestamp::Form)?;
    let &[y3, y2, y1, y0, b'-', m1, m0, b'-', d1, d0, b'T', h1, h0, b':', n1, n0, b':', s1, s0] =
        clock
    else {
        return Err(BadTimestamp::Form);
    };
    let year = two_digits(y3, y2)? * 100 + two_digits(y1, y0)?;
    let (month, day) = (two_digits(m1, m0)?, two_digits(d1, d0)?);
    let (hour, minute, second) = (two_digits(h1, h0)?, two_digits(n1, n0)?, two_digits(s1, s0)?);
    let (fraction_ms, rest) = fraction_ms(rest)?;
    let offset_s = offset_s(rest)?;
    if day < 1 || day > days_in_month(year, month) {
        return Err(BadTimestamp::Date);
    }
    if hour > 23 || minute > 59 || second > 59 {
        return Err(BadTimestamp::TimeOfDay);
    }
    let seconds =
        days_from_epoch(year, month, day) * SECONDS_PER_DAY + hour * 3_600 + minute * 60 + second
            - offset_s;
    Ok(seconds * 1_000 + fraction_ms)
}

fn two_digits(tens: u8, ones: u8) -> Result<i64, BadTimestamp> {
    if tens.is_ascii_digit() && ones.is_ascii_digit() {
        Ok(i64::from(tens - b'0') * 10 + i64::from(ones - b'0'))
    } else {
        Err(BadTimestamp::Form)
    }
}

/// The milliseconds of a fraction if there is one, and what follows it. Cutting digits off rounds
/// towards the past before 1970 too: a fraction always counts forward from its second.
fn fraction_ms(text: &[u8]) -> Result<(i64, &[u8]), BadTimestamp> {
    let Some((b'.', digits)) = text.split_first() else {
        return Ok((0, text));
    };
    let count = digits.iter().take_while(|digit| digit.is_ascii_digit()).count();
    if count == 0 || count > FRACTION_DIGITS_MAX {
        return Err(BadTimestamp::Form);
    }
    let (digits, rest) = digits.split_at(count);
    let ms = (0..3).fold(0, |ms, place| {
        ms * 10 + digits.get(place).map_or(0, |digit| i64::from(digit - b'0'))
    });
    Ok((ms, rest))
}

fn offset_s(text: &[u8]) -> Result<i64, BadTimestamp> {
    let (sign, h1, h0, m1, m0) = match *text {
        [b'Z'] => return Ok(0),
        [b'+', h1, h0, b':', m1, m0] => (1, h1, h0, m1, m0),
        [b'-', h1, h0, b':', m1, m0] => (-1, h1, h0, m1, m0),
        _ => return Err(BadTimestamp::Form),
    };
    let (hours, minutes) = (two_digits(h1, h0)?, two_digits(m1, m0)?);
    if hours > 23 || minutes > 59 {
        return Err(BadTimestamp::Offset);
    }
    Ok(sign * (hours * 3_600 + minutes * 60))
}

/// 0 for a month that does not exist, so that no day fits into it. The calendar is the Gregorian
/// one for all years, 0000 included (RFC 3339, section 1; ISO 8601).
fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        1..=12 => 31,
        _ => 0,
    }
}

/// Days from 1970-01-01, for years from 0 on. Counting years from March puts the leap day at the
/// year's end, where it shifts nothing; 719,468 days lie between 0000-03-01 and 1970-01-01.
fn days_from_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year_from_march = if month > 2 { year } else { year - 1 };
    let month_from_march = (month + 9) % 12;
    let leap_days = year_from_march.div_euclid(4) - year_from_march.div_euclid(100)
        + year_from_march.div_euclid(400);
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    365 * year_from_march + leap_days + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<i64, BadTimestamp>) {
        assert_eq!(epoch_ms(text), expected, "{text:?}");
    }

    #[test]
    fn times_are_milliseconds_of_the_epoch_rounded_towards_the_past() {
        for (text, ms) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01T00:00:00.999999999Z", 999),
            ("1969-12-31T23:59:59.9999Z", -1),
            ("1969-12-31T23:59:59.0001Z", -1_000),
            ("1970-01-01T05:30:00+05:30", 0),
            ("1969-12-31T18:30:00.5-05:30", 500),
            ("1970-01-01T00:00:00-00:00", 0),
            ("1970-01-01T23:59:00+23:59", 0),
            ("2026-01-29T10:30:45.123456Z", 1_769_682_645_123),
            ("2026-01-29T10:30:45.1Z", 1_769_682_645_100),
            ("2026-01-29T10:30:45.12Z", 1_769_682_645_120),
            ("2000-02-29T00:00:00Z", 951_782_400_000),
            ("2024-02-29T12:00:00Z", 1_709_208_000_000),
            ("2024-12-31T00:00:00Z", 1_735_603_200_000),
            ("0000-01-01T00:00:00Z", -62_167_219_200_000),
            ("0000-02-29T00:00:00Z", -62_162_121_600_000),
            ("9999-12-31T23:59:59.999Z", 253_402_300_799_999),
        ] {
            check(text, Ok(ms));
        }
    }

    #[test]
    fn days_count_up_by_one_over_the_whole_calendar() {
        let mut expected = days_from_epoch(0, 1, 1);
        for year in 0..=9_999 {
            for month in 1..=12 {
                for day in 1..=days_in_month(year, month) {
                    assert_eq!(days_from_epoch(year, month, day), expected, "{year}-{month}-{day}");
                    expected += 1;
                }
            }
        }
    }

    #[test]
    fn what_the_contract_does_not_allow_is_refused_for_its_cause() {
        use BadTimestamp::{Date, Empty, Form, Offset, TimeOfDay};
        for (text, cause) in [
            ("", Empty),
            (" ", Form),
            ("2026-01-29", Form),
            ("2026-01-29T10:30:45", Form),
            ("2026-01-29T10:30Z", Form),
            ("2026-01-29 10:30:45Z", Form),
            ("2026-01-29t10:30:45Z", Form),
            ("2026-01-29T10:30:45z", Form),
            ("2026-01-29T10:30:45.Z", Form),
            ("2026-01-29T10:30:45,5Z", Form),
            ("2026-01-29T10:30:45.1234567890Z", Form),
            ("2026-01-29T10:30:45.123456", Form),
            ("2026-01-29T10:30:45+0530", Form),
            ("2026-01-29T10:30:45+05", Form),
            ("2026-01-29T10:30:45+5:30", Form),
            ("2026-01-29T10:30:45\u{2212}05:30", Form),
            ("2026-01-29T10:30:45ZZ", Form),
            ("2026-01-29T10:30:45Z ", Form),
            ("2026-01-29T10:30:45Z\n", Form),
            (" 2026-01-29T10:30:45Z", Form),
            ("2026-01-29T1\u{663}:30:4Z", Form),
            ("+2026-01-29T10:30:45Z", Form),
            ("12026-01-29T10:30:45Z", Form),
            ("-026-01-29T10:30:45Z", Form),
            ("2026-01-29T10:30:45+24:00", Offset),
            ("2026-01-29T10:30:45+23:60", Offset),
            ("2026-00-29T10:30:45Z", Date),
            ("2026-13-29T10:30:45Z", Date),
            ("2026-01-00T10:30:45Z", Date),
            ("2026-01-32T10:30:45Z", Date),
            ("2026-04-31T10:30:45Z", Date),
            ("2023-02-29T10:30:45Z", Date),
            ("1900-02-29T10:30:45Z", Date),
            ("2100-02-29T10:30:45Z", Date),
            ("2026-01-29T24:00:00Z", TimeOfDay),
            ("2026-01-29T10:60:00Z", TimeOfDay),
            ("2016-12-31T23:59:60Z", TimeOfDay),
        ] {
            check(text, Err(cause));
        }
    }
}
