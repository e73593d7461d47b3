//! Names and times for people.

/// A text of at most so many letters: the middle of a longer one is left out. On one line.
pub fn shorten(text: &str, longest: usize) -> String {
    let letters: Vec<char> = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if letters.len() <= longest {
        return letters.into_iter().collect();
    }
    let kept = longest.saturating_sub(1);
    let (start, end) = (&letters[..kept.div_ceil(2)], &letters[letters.len() - kept / 2..]);
    start.iter().chain(&['…']).chain(end).collect()
}

/// A length of time with three digits or so, as in "12.3 ms".
pub(crate) fn duration(ns: i64) -> String {
    let (value, unit) = match ns as f64 {
        ns if ns < 1e3 => return format!("{ns} ns"),
        ns if ns < 1e6 => (ns / 1e3, "us"),
        ns if ns < 1e9 => (ns / 1e6, "ms"),
        ns => (ns / 1e9, "s"),
    };
    match value {
        below if below < 10.0 => format!("{value:.2} {unit}"),
        below if below < 100.0 => format!("{value:.1} {unit}"),
        _ => format!("{value:.0} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_lose_their_middle_and_times_keep_three_digits() {
        assert_eq!(shorten("abcdef", 6), "abcdef");
        assert_eq!(shorten("abcdefg", 6), "abc…fg");
        assert_eq!(shorten("é\nü", 5), "é ü");
        assert_eq!(shorten("abc", 0), "…");
        let texts = [7, 1_500, 25_000_000, 997_300_000, 12_345_000_000].map(duration);
        assert_eq!(texts, ["7 ns", "1.50 us", "25.0 ms", "997 ms", "12.3 s"]);
    }
}
