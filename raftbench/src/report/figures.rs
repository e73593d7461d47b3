//! Numbers as text: three significant digits or so, thousands apart, units named by the caller.

use crate::judge::summary::Reading;

/// Milliseconds.
pub(crate) fn ms(ms: f64) -> String {
    match ms.abs() {
        below if below < 0.01 => format!("{ms:.3}"),
        below if below < 10.0 => format!("{ms:.2}"),
        below if below < 100.0 => format!("{ms:.1}"),
        _ => count(ms),
    }
}

/// Microseconds, as milliseconds.
pub(crate) fn us(us: f64) -> String {
    ms(us / 1e3)
}

/// Seconds.
pub(crate) fn seconds(seconds: f64) -> String {
    format!("{seconds:.2}")
}

/// A whole number with its thousands apart.
pub(crate) fn count(number: f64) -> String {
    let digits = format!("{:.0}", number.abs());
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    let sign = if number < 0.0 && digits != "0" { "-" } else { "" };
    format!("{sign}{text}")
}

/// A difference, with its sign.
pub(crate) fn signed(text: String) -> String {
    if text.starts_with('-') { text } else { format!("+{text}") }
}

/// Bytes, in the unit that leaves a short number.
pub(crate) fn bytes(bytes: u64) -> String {
    let (mut value, mut unit) = (bytes as f64, "B");
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, larger);
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") }
}

/// A number, or the interval that it lies in.
pub(crate) fn reading(reading: Reading) -> String {
    let short = |value: f64| if value.fract() == 0.0 { count(value) } else { ms(value) };
    match reading {
        Reading::Exact(value) => short(value),
        Reading::Between(0.0, Some(high)) => format!("<= {}", short(high)),
        Reading::Between(low, Some(high)) => format!("{} to {}", short(low), short(high)),
        Reading::Between(low, None) => format!("> {}", short(low)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_short_and_keep_their_sign() {
        let texts = [0.0, 0.0042, 1.234, 12.34, 1234.4, -5.0].map(ms);
        assert_eq!(texts, ["0.000", "0.004", "1.23", "12.3", "1,234", "-5.00"]);
        assert_eq!(
            [0.0, 999.0, 1000.0, 1_234_567.0].map(count),
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!([0, 1023, 1536, 5 << 30].map(bytes), ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]);
        assert_eq!(reading(Reading::Between(0.0, Some(50.0))), "<= 50");
        assert_eq!(reading(Reading::Between(12.5, None)), "> 12.5");
    }
}
