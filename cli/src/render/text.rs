//! Words for people: durations, sizes, widths, shell quoting.

use std::time::Duration;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// `4ms`, `0.4s`, `12s`, `1m02s`, `3h05m`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 if duration.as_millis() < 100 => format!("{}ms", duration.as_millis()),
        0..10 => format!("{:.1}s", (duration.as_millis() / 100) as f64 / 10.0),
        10..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

/// `17 B`, `1.2 MB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `17 B`, `61.2 MiB`: memory is counted in powers of two.
pub fn memory(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// The first eight digits of a commit's id.
pub fn short_commit(commit: &str) -> &str {
    commit.get(..8).unwrap_or(commit)
}

/// How many columns a text without control characters takes.
pub fn width(text: &str) -> usize {
    text.width()
}

/// The beginning of a text that fits into so many columns, with `…` where something was cut off.
pub fn fit(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut taken = 0;
    let mut cut: String = text
        .chars()
        .take_while(|c| {
            taken += c.width().unwrap_or(0);
            taken < columns
        })
        .collect();
    if columns > 0 {
        cut.push('…');
    }
    cut
}

/// A word as a shell wants it.
pub fn quote(word: &str) -> String {
    let harmless = |c: char| c.is_ascii_alphanumeric() || "-_./:=@,+%".contains(c);
    if !word.is_empty() && word.chars().all(harmless) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_as_short_as_can_be() {
        for (millis, expected) in [
            (0, "0ms"),
            (99, "99ms"),
            (430, "0.4s"),
            (9_999, "9.9s"),
            (12_700, "12s"),
            (62_000, "1m02s"),
            (11_100_000, "3h05m"),
        ] {
            assert_eq!(duration(Duration::from_millis(millis)), expected);
        }
    }

    #[test]
    fn sizes_have_a_unit() {
        for (size, expected) in
            [(17, "17 B"), (1_234_567, "1.2 MB"), (999_999, "1.0 MB"), (u64::MAX, "18446744.1 TB")]
        {
            assert_eq!(bytes(size), expected);
        }
    }

    #[test]
    fn cut_texts_fit_also_with_wide_characters() {
        assert_eq!(fit("hello", 5), "hello");
        assert_eq!(fit("hello", 4), "hel…");
        assert_eq!(fit("中文字", 5), "中文…");
        assert_eq!(fit("中文字", 4), "中…");
        assert_eq!(fit("x", 0), "");
    }

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(quote("FOO=a-b"), "FOO=a-b");
        assert_eq!(quote("it's $X"), r"'it'\''s $X'");
        assert_eq!(quote(""), "''");
    }
}
