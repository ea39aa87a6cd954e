//! Times of lines.

/// RFC 3339 to nanoseconds since 1970. Times as synprobe writes them are read digit by digit.
pub(super) fn wall_ns(text: &str) -> Option<i64> {
    if let Some(ns) = digits_ns(text.as_bytes()) {
        return Some(ns);
    }
    let time: jiff::Timestamp = text.parse().ok()?;
    i64::try_from(time.as_nanosecond()).ok()
}

/// `2026-01-02T03:04:05.123456Z`
fn digits_ns(text: &[u8]) -> Option<i64> {
    let text: &[u8; 27] = text.try_into().ok()?;
    let marks = (
        text[4], text[7], text[10], text[13], text[16], text[19], text[26],
    );
    if marks != (b'-', b'-', b'T', b':', b':', b'.', b'Z') {
        return None;
    }
    let number = |from: usize, to: usize| {
        text[from..to].iter().try_fold(0_i64, |n, digit| {
            digit
                .is_ascii_digit()
                .then(|| n * 10 + i64::from(digit - b'0'))
        })
    };
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    const DAYS: [i64; 13] = [0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = DAYS.get(usize::try_from(month).ok()?)? + i64::from(is_leap && month == 2);
    if !(1..=last).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    // Days since 1970 in the Gregorian calendar, counted in years that begin in March.
    let year = if month < 3 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    let micros = ((days * 24 + hour) * 60 + minute) * 60 + second;
    Some((micros * 1_000_000 + number(20, 26)?) * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_jiff_reads_them() {
        for text in [
            "1970-01-01T00:00:00.000000Z",
            "2000-02-29T23:59:59.999999Z",
            "2026-11-29T15:11:01.000042Z",
            "2100-03-01T00:00:00.500000Z",
        ] {
            let time: jiff::Timestamp = text.parse().unwrap();
            let due = i64::try_from(time.as_nanosecond()).unwrap();
            assert_eq!(digits_ns(text.as_bytes()), Some(due), "{text}");
        }
        for no_day in [
            "2026-13-29",
            "2026-00-29",
            "2026-11-31",
            "2026-02-29",
            "2100-02-29",
        ] {
            let text = format!("{no_day}T15:11:01.000042Z");
            assert_eq!(wall_ns(&text), None, "{text}");
        }
        assert_eq!(digits_ns(b"2026-11-29T15:11:01Z"), None);
    }
}
