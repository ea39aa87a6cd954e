//! Values of options: times and sizes.

use std::time::Duration;

use crate::util::table_bounds::LEAST_MEMORY;

/// `30s`, `5m`, `1h 30m`, `500ms`; a bare number is seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("\"{text}\" is not a time: give one such as 30s, 5m or 500ms");
    let seconds = text
        .trim()
        .parse::<f64>()
        .ok()
        .map(Duration::try_from_secs_f64);
    let duration = match seconds {
        Some(seconds) => seconds.map_err(|_| wrong())?,
        None => {
            let days = text.trim().trim_end_matches(['s', 'y', 'a']);
            if let Some(days) = days
                .strip_suffix('d')
                .and_then(|n| n.trim().parse::<u32>().ok())
            {
                let hours = u64::from(days) * 24;
                return Err(format!("\"{text}\": days are not taken, give {hours}h"));
            }
            let friendly: jiff::SignedDuration = text.trim().parse().map_err(|_| wrong())?;
            Duration::try_from(friendly).map_err(|_| wrong())?
        }
    };
    if duration.is_zero() {
        return Err(format!(
            "\"{text}\" is too short: give a time such as 30s, 5m or 500ms"
        ));
    }
    Ok(duration)
}

/// A whole number from 1 on.
pub(super) fn count(text: &str) -> Result<u64, String> {
    match text.trim().parse() {
        Ok(0) | Err(_) => Err(format!("\"{text}\" is not a whole number of 1 or more")),
        Ok(count) => Ok(count),
    }
}

/// As [`count`], at most 2^32 − 1.
pub(super) fn small_count(text: &str) -> Result<u32, String> {
    u32::try_from(count(text)?)
        .map_err(|_| format!("\"{text}\" is too large: at most {}", u32::MAX))
}

/// As [`duration`], within the range that the kernel side supports.
pub(super) fn slow(text: &str) -> Result<Duration, String> {
    let slow = duration(text)?;
    match slow.as_micros() {
        1_000..=3_600_000_000 => Ok(slow),
        _ => Err(format!("\"{text}\" is not between 1ms and 1h")),
    }
}

/// As [`duration`], from 1 s to 1 h.
#[cfg(any(feature = "serve", feature = "top"))]
pub(super) fn window(text: &str) -> Result<Duration, String> {
    let window = duration(text)?;
    match window.as_millis() {
        1_000..=3_600_000 => Ok(window),
        _ => Err(format!("\"{text}\" is not between 1s and 1h")),
    }
}

/// `1048576`, `256K`, `8M`, `1G`, with or without `iB`; at most 1G.
pub(super) fn bytes(text: &str) -> Result<u32, String> {
    let wrong = || format!("\"{text}\" is not a size: give one such as 256K or 8M, at most 1G");
    match size(text) {
        Ok(size @ 1..=0x4000_0000) => u32::try_from(size).map_err(|_| wrong()),
        _ => Err(wrong()),
    }
}

/// As [`bytes`], as much as the process needs at least.
pub(super) fn memory(text: &str) -> Result<u64, String> {
    let size = size(text)?;
    if size < LEAST_MEMORY {
        return Err(format!(
            "\"{text}\" is too little: synprobe needs {}M",
            LEAST_MEMORY >> 20
        ));
    }
    Ok(size)
}

/// As [`bytes`], without a limit.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("\"{text}\" is not a size: give one such as 256K, 8M or 1G");
    let upper = text.trim().to_ascii_uppercase();
    let digits = upper.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &upper[digits.len()..] {
        "" | "B" => 1,
        "K" | "KB" | "KIB" => 1 << 10,
        "M" | "MB" | "MIB" => 1 << 20,
        "G" | "GB" | "GIB" => 1 << 30,
        _ => return Err(wrong()),
    };
    let number: u64 = digits.trim().parse().map_err(|_| wrong())?;
    number
        .checked_mul(unit)
        .filter(|size| *size > 0)
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(duration("1.5"), Ok(Duration::from_millis(1500)));
        assert!(duration("0").is_err() && duration("-1s").is_err() && duration("soon").is_err());
        assert!(duration("0s").unwrap_err().contains("too short"));
        assert_eq!(
            duration("2d"),
            Err("\"2d\": days are not taken, give 48h".to_owned())
        );
        assert_eq!(duration("48h"), Ok(Duration::from_secs(172_800)));
        assert_eq!(count("7"), Ok(7));
        assert!(count("0").is_err() && count("ten").is_err() && small_count("4294967296").is_err());
        assert_eq!(bytes("8M"), Ok(8 << 20));
        assert_eq!(bytes("1048576"), Ok(1 << 20));
        assert!(bytes("0").is_err() && bytes("2G").is_err() && bytes("8X").is_err());
    }
}
