//! Numbers, times and sizes as people read them.
//!
//! Invariant: a time is UTC, with its seconds; how long ago it was stands beside it and never alone.
//! Deliberately absent: the reader's time zone and language, which a server does not know.

use chrono::{DateTime, SecondsFormat, Utc};
use maud::{Markup, html};

/// A whole number in groups of three digits: `1,234,567`.
#[must_use]
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number that was measured, with three digits that matter: `0.42`, `17.3`, `1,204`, `12.3 k`.
#[must_use]
pub(crate) fn measured(number: f64) -> String {
    match number {
        n if !n.is_finite() => "–".to_owned(),
        0.0 => "0".to_owned(),
        n if n.abs() < 0.01 => "< 0.01".to_owned(),
        n if n.abs() < 1.0 => trimmed(&format!("{n:.2}")),
        n if n.abs() < 100.0 => trimmed(&format!("{n:.1}")),
        n if n.abs() < 10_000.0 => grouped(whole(n)),
        n if n.abs() < 1e6 => trimmed(&format!("{:.1}", n / 1e3)) + " k",
        n if n.abs() < 1e9 => trimmed(&format!("{:.2}", n / 1e6)) + " M",
        n => trimmed(&format!("{:.2}", n / 1e9)) + " G",
    }
}

fn trimmed(text: &str) -> String {
    if !text.contains('.') {
        return text.to_owned();
    }
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

// Bounded by the callers; a saturated number is still the largest one.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(number: f64) -> u64 {
    number.round().max(0.0) as u64
}

/// A number of seconds that was measured: `0.4 ms`, `1.7 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`.
#[must_use]
pub(crate) fn seconds(seconds: f64) -> String {
    match seconds {
        s if !s.is_finite() => "–".to_owned(),
        s if s <= 0.0 => "0 s".to_owned(),
        s if s < 0.001 => format!("{} ms", trimmed(&format!("{:.2}", s * 1e3))),
        s if s < 1.0 => format!("{} ms", measured(s * 1e3)),
        s if s < 60.0 => format!("{} s", measured(s)),
        s => {
            let whole = whole(s);
            let pair = |large: u64, unit: &str, small: u64, rest: &str| match small {
                0 => format!("{large} {unit}"),
                small => format!("{large} {unit} {small} {rest}"),
            };
            match whole {
                s if s < 3_600 => pair(s / 60, "min", s % 60, "s"),
                s if s < 86_400 => pair(s / 3_600, "h", s % 3_600 / 60, "min"),
                s => pair(s / 86_400, "d", s % 86_400 / 3_600, "h"),
            }
        }
    }
}

/// A size in bytes: `640 B`, `12.4 MiB`.
#[must_use]
pub(crate) fn bytes(size: f64) -> String {
    let (mut size, mut unit) = (size, "B");
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if size < 1_024.0 {
            break;
        }
        (size, unit) = (size / 1_024.0, larger);
    }
    format!("{} {unit}", measured(size))
}

/// A moment, from text as the node's routes write it; other text stays as it is.
#[must_use]
pub(crate) fn moment(text: &str) -> Markup {
    let Ok(at) = DateTime::parse_from_rfc3339(text) else {
        return html! { (text) };
    };
    let at = at.with_timezone(&Utc);
    let exact = at.to_rfc3339_opts(SecondsFormat::AutoSi, true);
    let title = format!("{} · {exact}", relative(at, Utc::now()));
    let shown = at.format("%Y-%m-%d %H:%M:%S");
    html! { time datetime=(exact) title=(title) { (shown) span.utc { "Z" } } }
}

/// How long ago a moment was, or how long it is until then.
fn relative(at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let away = now.signed_duration_since(at).num_seconds();
    let unit = |number: i64, name: &str| match number {
        1 => format!("1 {name}"),
        number => format!("{number} {name}s"),
    };
    let text = match away.abs() {
        0..=1 => return "just now".to_owned(),
        s if s < 120 => unit(s, "second"),
        s if s < 7_200 => unit(s / 60, "minute"),
        s if s < 172_800 => unit(s / 3_600, "hour"),
        s => unit(s / 86_400, "day"),
    };
    if away > 0 {
        format!("{text} ago")
    } else {
        format!("in {text}")
    }
}

/// The time of now, as the foot of a page says it.
#[must_use]
pub(crate) fn now() -> String {
    Utc::now().format("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// A number with its noun: `1 stream`, `2 streams`.
#[must_use]
pub(crate) fn counted(number: u64, noun: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{} {noun}{ending}", grouped(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_read_at_a_glance() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(grouped(number), text);
        }
        for (number, text) in [
            (0.0, "0"),
            (0.004, "< 0.01"),
            (0.5, "0.5"),
            (17.25, "17.2"),
            (100.0, "100"),
            (1_204.4, "1,204"),
            (12_340.0, "12.3 k"),
            (5e6, "5 M"),
            (f64::NAN, "–"),
        ] {
            assert_eq!(measured(number), text);
        }
    }

    #[test]
    fn a_duration_has_two_units_at_most() {
        for (number, text) in [
            (0.0, "0 s"),
            (0.000_42, "0.42 ms"),
            (0.25, "250 ms"),
            (1.7, "1.7 s"),
            (60.0, "1 min"),
            (200.0, "3 min 20 s"),
            (7_500.0, "2 h 5 min"),
            (273_600.0, "3 d 4 h"),
        ] {
            assert_eq!(seconds(number), text);
        }
        assert_eq!(bytes(640.0), "640 B");
        assert_eq!(bytes(13_000_000.0), "12.4 MiB");
    }

    #[test]
    fn a_moment_says_its_seconds_and_how_long_ago_it_was() {
        let shown = moment("2026-11-30T09:59:51.697138Z").into_string();
        assert!(shown.contains(">2026-11-30 09:59:51<"), "{shown}");
        assert!(
            shown.contains("datetime=\"2026-11-30T09:59:51.697138Z\""),
            "{shown}"
        );
        assert_eq!(moment("<never>").into_string(), "&lt;never&gt;");
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let now = at("2026-11-30T12:00:00Z");
        for (then, text) in [
            ("2026-11-30T12:00:00Z", "just now"),
            ("2026-11-30T11:59:00Z", "60 seconds ago"),
            ("2026-11-30T10:00:00Z", "2 hours ago"),
            ("2026-11-20T12:00:00Z", "10 days ago"),
            ("2026-11-30T12:05:00Z", "in 5 minutes"),
        ] {
            assert_eq!(relative(at(then), now), text);
        }
    }
}
