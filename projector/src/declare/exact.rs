//! Exact decimal numbers with a fixed number of digits after the point, of any size that sums reach.
//!
//! Invariant: equal numbers of one column are equal values, so that it does not matter which of them
//! a merge keeps. Deliberately absent: everything but sums and order; rules calculate with
//! `rust_decimal`.

use std::fmt;

use rust_decimal::Decimal;

use crate::declare::column_type::DECIMAL_SCALE_MAX;

/// A decimal number: `whole + fraction / 10^scale`.
///
/// A sum of 2^31 numbers of `rust_decimal` fits: each part is below 2^97.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Exact {
    /// The greatest whole number that is not above it.
    whole: i128,
    /// What it has above that, in units of the last digit.
    fraction: i128,
    /// How many digits it has after the point.
    scale: u8,
}

const fn power_of_ten(exponent: u8) -> i128 {
    10_i128.pow(exponent as u32)
}

impl Exact {
    /// How many digits it has after the point.
    #[must_use]
    pub fn scale(&self) -> u8 {
        self.scale
    }

    /// The number with this many digits after the point: the nearest one, and the even one if two
    /// are equally near.
    #[must_use]
    pub fn rounded(self, scale: u8) -> Self {
        if scale >= self.scale {
            let fraction = self.fraction * power_of_ten(scale - self.scale);
            return Self {
                fraction,
                scale,
                ..self
            };
        }
        let unit = power_of_ten(self.scale - scale);
        let (mut fraction, rest) = (self.fraction / unit, self.fraction % unit);
        // A whole number's last digit is that of its whole part.
        let last = if scale == 0 { self.whole } else { fraction };
        if 2 * rest > unit || (2 * rest == unit && last % 2 != 0) {
            fraction += 1;
        }
        Self {
            whole: self.whole,
            fraction,
            scale,
        }
        .carried()
    }

    /// The sum of two numbers of one column.
    ///
    /// # Panics
    /// If it does not fit: a batch has fewer contributions than that.
    #[must_use]
    pub fn plus(self, more: Self) -> Self {
        assert_eq!(self.scale, more.scale, "numbers of one column");
        let whole = self.whole.checked_add(more.whole);
        Self {
            whole: whole.expect("memory holds fewer than 2^30"),
            fraction: self.fraction + more.fraction,
            scale: self.scale,
        }
        .carried()
    }

    /// The same number with a fraction below 1.
    fn carried(self) -> Self {
        let one = power_of_ten(self.scale);
        Self {
            whole: self.whole + self.fraction.div_euclid(one),
            fraction: self.fraction.rem_euclid(one),
            ..self
        }
    }

    /// The number that Postgres shows as this text; absent if it is none.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let (is_negative, digits) = match text.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let scale = u8::try_from(fraction.len()).ok();
        let scale = scale.filter(|scale| *scale <= DECIMAL_SCALE_MAX)?;
        let sign = if is_negative { -1 } else { 1 };
        let fraction: i128 = match fraction {
            "" => 0,
            digits => digits.parse().ok()?,
        };
        let read = Self {
            whole: sign * whole.parse::<i128>().ok()?,
            fraction: sign * fraction,
            scale,
        };
        Some(read.carried())
    }

    /// Whether it is negative, and the whole part and the fraction of its magnitude.
    pub(crate) fn magnitude(&self) -> (bool, u128, u128) {
        let (whole, fraction) = (self.whole, self.fraction.unsigned_abs());
        match (whole < 0, fraction) {
            (false, _) | (true, 0) => (whole < 0, whole.unsigned_abs(), fraction),
            (true, _) => {
                let one = power_of_ten(self.scale).unsigned_abs();
                (true, whole.unsigned_abs() - 1, one - fraction)
            }
        }
    }
}

impl From<Decimal> for Exact {
    fn from(number: Decimal) -> Self {
        let scale = u8::try_from(number.scale()).expect("at most 28 digits after the point");
        Self {
            whole: 0,
            fraction: number.mantissa(),
            scale,
        }
        .carried()
    }
}

impl From<i64> for Exact {
    fn from(number: i64) -> Self {
        Self {
            whole: number.into(),
            fraction: 0,
            scale: 0,
        }
    }
}

impl fmt::Display for Exact {
    /// As Postgres shows it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (is_negative, whole, fraction) = self.magnitude();
        let sign = if is_negative { "-" } else { "" };
        write!(f, "{sign}{whole}")?;
        match usize::from(self.scale) {
            0 => Ok(()),
            scale => write!(f, ".{fraction:0scale$}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn exact(text: &str) -> Exact {
        text.parse::<Decimal>().unwrap().into()
    }

    #[test]
    fn a_number_is_read_as_it_is_shown() {
        for text in [
            "0",
            "-1",
            "12.30",
            "-0.05",
            "-12.99",
            "7.000",
            "340282366920.1",
        ] {
            assert_eq!(Exact::read(text).unwrap().to_string(), text);
        }
        for text in ["", "NaN", "1.x", "-", "1e5"] {
            assert_eq!(Exact::read(text), None, "{text}");
        }
    }

    #[test]
    fn numbers_are_rounded_to_the_nearest_and_then_to_the_even() {
        for (given, scale, rounded) in [
            ("1.25", 1, "1.2"),
            ("1.35", 1, "1.4"),
            ("-1.25", 1, "-1.2"),
            ("-1.35", 1, "-1.4"),
            ("0.5", 0, "0"),
            ("1.5", 0, "2"),
            ("-0.5", 0, "0"),
            ("-1.5", 0, "-2"),
            ("-0.51", 0, "-1"),
            ("9.99", 1, "10.0"),
            ("7", 2, "7.00"),
            ("-0.05", 2, "-0.05"),
        ] {
            assert_eq!(exact(given).rounded(scale).to_string(), rounded, "{given}");
        }
    }

    #[test]
    fn a_sum_has_room_for_the_greatest_numbers() {
        let most = Exact::from(Decimal::MAX).rounded(28);
        let sum = (0..9).fold(most, |sum, _| sum.plus(most));
        let expected = format!("{}0.{}", Decimal::MAX, "0".repeat(28));
        assert_eq!(sum.to_string(), expected);
    }

    proptest! {
        #[test]
        fn sums_order_and_rounding_are_those_of_the_library(
            a in (-1_000_000_000_000_i64..1_000_000_000_000, 0_u32..9),
            b in (-1_000_000_000_000_i64..1_000_000_000_000, 0_u32..9),
            scale in 0_u8..9,
        ) {
            let [a, b] = [a, b].map(|(mantissa, scale)| Decimal::new(mantissa, scale));
            let [x, y] = [a, b].map(|number| Exact::from(number).rounded(9));
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
            prop_assert_eq!(x.plus(y).to_string().parse::<Decimal>().unwrap(), a + b);
            let rounded = Exact::from(a).rounded(scale).to_string();
            prop_assert_eq!(rounded.parse::<Decimal>().unwrap(), a.round_dp(scale.into()));
        }
    }
}
