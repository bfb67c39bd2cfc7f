//! Canonical JSON is compared with a naive reading of the same text: equal texts have one form, and
//! a form reads as what was written.

use std::cmp::Ordering;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::decode_json;

#[track_caller]
fn refused_at(text: &str, place: &str) {
    match canonical_json(text) {
        Err(ShapeError::Data { pointer, .. }) => assert_eq!(pointer, place, "{text}"),
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn members_and_strings_are_as_in_rfc_8785() {
    // RFC 8785, sections 3.2.2 to 3.2.4, without the numbers.
    let sent = r#" { "literals": [null, true , false], "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
        "numbers": [1E30, 4.50, 2e-3, 0.000000000000000000000000001] } "#;
    let written = concat!(
        r#"{"literals":[null,true,false],"#,
        r#""numbers":[1000000000000000000000000000000,4.5,0.002,1e-27],"#,
        r#""string":"€$\u000f\nA'B\"\\\\\"/"}"#
    );
    assert_eq!(canonical_json(sent).as_deref(), Ok(written));
    let sent = r#"{"\u20ac":"Euro Sign","\r":"Carriage Return","\ufb33":"Hebrew Letter Dalet With Dagesh",
        "1":"One","\ud83d\ude00":"Emoji: Grinning Face","\u0080":"Control","\u00f6":"Latin Small Letter O With Diaeresis"}"#;
    let written = concat!(
        r#"{"\r":"Carriage Return","1":"One","#,
        "\"\u{80}\":\"Control\",\"ö\":\"Latin Small Letter O With Diaeresis\",\"€\":\"Euro Sign\",",
        "\"😀\":\"Emoji: Grinning Face\",\"\u{fb33}\":\"Hebrew Letter Dalet With Dagesh\"}"
    );
    assert_eq!(canonical_json(sent).as_deref(), Ok(written));
}

#[test]
fn numbers_are_exact() {
    for (sent, written) in [
        ("0", "0"),
        ("-0", "0"),
        ("-0.000e99999999999999999999", "0"),
        ("9007199254740991.0", "9007199254740991"),
        ("4503599627370497.2", "4503599627370497.2"),
        ("880194271671.000000", "880194271671"),
        ("1e3", "1000"),
        ("1.0e15", "1000000000000000"),
        ("-12.3400E+2", "-1234"),
        ("120e-1", "12"),
        ("18446744073709551615", "18446744073709551615"),
        ("1e38", "100000000000000000000000000000000000000"),
        ("1e39", "1e+39"),
        (
            "1234567890123456789012345678901234567891",
            "1.234567890123456789012345678901234567891e+39",
        ),
        ("0.00000100", "0.000001"),
        ("0.0000001", "1e-7"),
        ("1.5e-10", "1.5e-10"),
        ("1e999999999999999", "1e+999999999999999"),
        ("-25.5e-000000000000000000000001", "-2.55"),
    ] {
        assert_eq!(canonical_json(sent).as_deref(), Ok(written), "{sent}");
        assert_eq!(canonical_json(written).as_deref(), Ok(written), "{sent}");
    }
    refused_at("[1,2e1000000000000000]", "/1");
}

#[test]
fn ambiguous_json_is_refused_with_its_place() {
    refused_at(r#"{"a":[0,{"b/~":1,"c":2,"b\u002f~":3}]}"#, "/a/1/b~1~0");
    refused_at(r#"{"b":1,"a":2,"a":3}"#, "/a");
    refused_at(r#"{"\n":1,"ä":2,"\u000a":3}"#, "/\n");
    refused_at(r#"{"a":"\ud800"}"#, "/a");
    refused_at(r#"{"a":"\ud800A"}"#, "/a");
    refused_at(r#"{"a":["\udc00\ud800"]}"#, "/a/0");
    for text in [
        "",
        "{",
        "[1,]",
        "{\"a\":1,}",
        "{\"a\" 1}",
        "{a:1}",
        "01",
        "1.",
        ".5",
        "+1",
        "1e",
        "- 1",
        "-",
        "1-2",
        "nul",
        "[1 2]",
        "\"a",
        "\"\u{1}\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u+123\"",
        "1 2",
        "{}{}",
        "\u{feff}{}",
        "'a'",
        "[1}",
        "NaN",
    ] {
        refused_at(text, "");
        assert!(serde_json::from_str::<IgnoredAny>(text).is_err(), "{text}");
    }
    let nested = |depth| ["[".repeat(depth), "]".repeat(depth)].concat();
    assert_eq!(
        canonical_json(&nested(JSON_DEPTH_MAX)),
        Ok(nested(JSON_DEPTH_MAX))
    );
    refused_at(&nested(JSON_DEPTH_MAX + 1), &"/0".repeat(JSON_DEPTH_MAX));
    refused_at(&"[".repeat(100_000), &"/0".repeat(JSON_DEPTH_MAX));
}

/// A number that is read without arithmetic on its digits: sign, digits, and the power of ten to
/// multiply them by.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Exact {
    is_negative: bool,
    digits: String,
    power: i128,
}

impl Exact {
    fn of(text: &str) -> Self {
        let lower = text.to_ascii_lowercase();
        let (mantissa, exponent) = lower.split_once('e').unwrap_or((&lower, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = [whole.trim_start_matches('-'), fraction].concat();
        let digits = all.trim_end_matches('0');
        let cut = all.len() - digits.len();
        let digits = digits.trim_start_matches('0').to_owned();
        if digits.is_empty() {
            return Self {
                is_negative: false,
                digits,
                power: 0,
            };
        }
        let exponent: i128 = exponent.parse().unwrap();
        Self {
            is_negative: text.starts_with('-'),
            power: exponent - fraction.len() as i128 + cut as i128,
            digits,
        }
    }

    /// The number as an integer, if it is whole and fits 64 bits.
    fn whole(&self) -> Option<i64> {
        if self.digits.is_empty() {
            return Some(0);
        }
        let power = u32::try_from(self.power).ok().filter(|power| *power < 20)?;
        let magnitude = self
            .digits
            .parse::<i128>()
            .ok()?
            .checked_mul(10_i128.pow(power))?;
        i64::try_from(if self.is_negative {
            -magnitude
        } else {
            magnitude
        })
        .ok()
    }
}

fn decimal() -> impl Strategy<Value = String> {
    let digits = prop_oneof![
        "[0-9]{1,4}",
        "[0-9]{10,45}",
        "0{1,30}[0-9]{0,20}0{0,30}",
        Just("9007199254740991".to_owned()),
        Just("9223372036854775807".to_owned()),
        Just("9223372036854775808".to_owned()),
    ];
    let whole = digits.clone().prop_map(|digits| {
        let digits = digits.trim_start_matches('0');
        if digits.is_empty() {
            "0".to_owned()
        } else {
            digits.to_owned()
        }
    });
    let fraction = prop_oneof![
        Just(String::new()),
        digits.prop_map(|digits| format!(".{digits}"))
    ];
    let exponent = prop_oneof![
        3 => Just(String::new()),
        3 => "[eE][+-]?0{0,3}[0-9]{1,2}",
        1 => "[eE][+-]?[0-9]{1,15}",
    ];
    let sign = prop_oneof![Just(""), Just("-")];
    (sign, whole, fraction, exponent)
        .prop_map(|(sign, whole, fraction, exponent)| [sign, &whole, &fraction, &exponent].concat())
}

/// Random JSON text with random members, white space and escapes.
fn json() -> impl Strategy<Value = String> {
    let text = prop_oneof![
        "[a-c]{0,2}",
        Just("\u{e000}".to_owned()),
        Just("\u{10000}".to_owned()),
        Just("\n".to_owned()),
        any::<String>(),
    ];
    let string = (text, any::<bool>()).prop_map(|(text, all_escaped)| match all_escaped {
        false => Value::from(text).to_string(),
        true => {
            let units = text.encode_utf16().map(|unit| format!("\\u{unit:04X}"));
            format!("\"{}\"", units.collect::<String>())
        }
    });
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        decimal(),
        string.clone(),
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        let space = prop_oneof![Just(""), Just(" "), Just("\n\t\r")];
        let list = (prop::collection::vec(inner.clone(), 0..6), space.clone()).prop_map(
            |(items, space)| format!("[{space}{}{space}]", items.join(&format!("{space},"))),
        );
        let members = prop::collection::vec((string.clone(), inner), 0..6);
        let object = (members, space).prop_map(|(members, space)| {
            let member = |(name, value)| format!("{space}{name}{space}:{space}{value}");
            let members: Vec<String> = members.into_iter().map(member).collect();
            format!("{{{}{space}}}", members.join(","))
        });
        prop_oneof![list, object]
    })
}

/// Whether two values are equal when numbers are compared as doubles.
fn are_equal(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .zip(other)
                    .all(|(one, other)| are_equal(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            let is_there =
                |(name, value)| other.get(name).is_some_and(|there| are_equal(value, there));
            one.len() == other.len() && one.iter().all(is_there)
        }
        _ => one == other,
    }
}

/// The same object spelled differently: members in reverse order, numbers in another notation,
/// strings as escapes.
fn respelled(text: &str) -> String {
    let mut value = match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(members)) => members,
        _ => return format!(" {text}\n"),
    };
    let names: Vec<String> = value.keys().rev().cloned().collect();
    let members = names.into_iter().map(|name| {
        let units = name.encode_utf16().map(|unit| format!("\\u{unit:04x}"));
        let quoted = format!("\"{}\"", units.collect::<String>());
        let member = value.remove(&name).unwrap();
        format!("{quoted} :\t{}", respelled(&member.to_string()))
    });
    format!("{{{}}}", members.collect::<Vec<_>>().join(" , "))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn a_number_keeps_its_value_and_its_size_is_bounded(text in decimal()) {
        let exact = Exact::of(&text);
        let written = canonical_json(&text);
        let written = written.unwrap();
        prop_assert_eq!(Exact::of(&written), exact.clone());
        prop_assert!(written.len() <= text.len() + 42, "{} {}", text, written);
        prop_assert_eq!(canonical_json(&written), Ok(written.clone()));
        prop_assert_eq!(decode_json::<i64>(&written).ok(), exact.whole(), "{}", text);
    }

    #[test]
    fn equal_numbers_and_no_others_are_written_alike(one in decimal(), other in decimal()) {
        let alike = canonical_json(&one) == canonical_json(&other);
        prop_assert_eq!(alike, Exact::of(&one) == Exact::of(&other), "{} {}", one, other);
    }

    #[test]
    fn the_canonical_form_of_a_canonical_form_is_itself_and_has_the_same_content(text in json()) {
        let Ok(written) = canonical_json(&text) else {
            // A member occurs twice.
            return Ok(());
        };
        prop_assert_eq!(canonical_json(&written), Ok(written.clone()));
        let says = |text: &str| serde_json::from_str::<Value>(text).ok();
        // Values whose numbers do not fit a double are not compared.
        if let (Some(sent), Some(written)) = (says(&text), says(&written)) {
            prop_assert!(are_equal(&sent, &written), "{} {}", sent, written);
        }
    }

    #[test]
    fn the_order_of_members_and_the_spelling_make_no_difference(
        members in prop::collection::btree_map(any::<String>(), 0..9_i64, 0..8),
    ) {
        let text = serde_json::to_string(&members).unwrap();
        let written = canonical_json(&text).unwrap();
        prop_assert_eq!(canonical_json(&respelled(&text)), Ok(written.clone()));
        // The expected order is that of UTF-16 units.
        let mut names: Vec<&String> = members.keys().collect();
        names.sort_by(|one, other| one.encode_utf16().cmp(other.encode_utf16()));
        let by_hand: Vec<String> = names
            .iter()
            .map(|name| format!("{}:{}", Value::from(name.as_str()), members[*name]))
            .collect();
        prop_assert_eq!(written, format!("{{{}}}", by_hand.join(",")));
        prop_assert!(names.windows(2).all(|pair| pair[0].cmp(pair[1]) != Ordering::Equal));
    }

    #[test]
    fn whatever_is_no_json_is_refused_and_nothing_panics(text in any::<String>(), at in any::<prop::sample::Index>(), sample in json()) {
        let mut cut = sample.clone();
        let place = at.index(cut.len() + 1);
        if cut.is_char_boundary(place) {
            cut.insert_str(place, &text);
        }
        for text in [text, cut] {
            let is_json = serde_json::from_str::<IgnoredAny>(&text).is_ok();
            prop_assert!(is_json || canonical_json(&text).is_err(), "{}", text);
        }
    }
}
