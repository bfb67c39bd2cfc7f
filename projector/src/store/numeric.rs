//! Numbers as Postgres's `numeric`, in its binary format.
//!
//! Source: `numeric_send` and `numeric_recv` of PostgreSQL's `utils/adt/numeric.c`. Deliberately
//! absent: reading; views show sums as `bigint`, and decimals are read as text.

use std::ops::Range;

use bytes::BufMut;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo};
use sqlx::{Encode, Postgres, Type};

use crate::declare::column_type::DECIMAL_SCALE_MAX;
use crate::declare::exact::Exact;

/// The base of `numeric`'s digits, and how many decimal digits one of them is.
const BASE: u128 = 10_000;
const DIGIT_LENGTH: u8 = 4;
/// The most digits in this base of 128 bits, and of a fraction.
const WHOLE_DIGITS_MAX: usize = 10;
const FRACTION_DIGITS_MAX: usize = DECIMAL_SCALE_MAX.div_ceil(DIGIT_LENGTH) as usize;
const OID: Oid = Oid(1700);
const ARRAY_OID: Oid = Oid(1231);
const POSITIVE: u16 = 0;
const NEGATIVE: u16 = 0x4000;

/// A number that is bound as `numeric`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numeric {
    is_negative: bool,
    whole: u128,
    fraction: u128,
    scale: u8,
}

impl From<i128> for Numeric {
    fn from(number: i128) -> Self {
        Self {
            is_negative: number < 0,
            whole: number.unsigned_abs(),
            fraction: 0,
            scale: 0,
        }
    }
}

impl From<&Exact> for Numeric {
    fn from(number: &Exact) -> Self {
        let (is_negative, whole, fraction) = number.magnitude();
        Self {
            is_negative,
            whole,
            fraction,
            scale: number.scale(),
        }
    }
}

/// Digits of a number, the most significant first.
struct Digits {
    digits: [u16; WHOLE_DIGITS_MAX + FRACTION_DIGITS_MAX],
    /// Those that are sent: without zeros at both ends.
    range: Range<usize>,
}

impl Numeric {
    fn digits(self) -> Digits {
        let mut digits = [0; WHOLE_DIGITS_MAX + FRACTION_DIGITS_MAX];
        put_digits(&mut digits[..WHOLE_DIGITS_MAX], self.whole);
        if self.fraction > 0 {
            let count = self.scale.div_ceil(DIGIT_LENGTH);
            let padding = count * DIGIT_LENGTH - self.scale;
            let behind = WHOLE_DIGITS_MAX..WHOLE_DIGITS_MAX + usize::from(count);
            let padded = self.fraction * 10_u128.pow(padding.into());
            put_digits(&mut digits[behind], padded);
        }
        let is_sent = |digit: &u16| *digit != 0;
        let first = digits.iter().position(is_sent);
        let last = digits.iter().rposition(is_sent);
        let range = match (first, last) {
            (Some(first), Some(last)) => first..last + 1,
            (None, _) | (_, None) => WHOLE_DIGITS_MAX..WHOLE_DIGITS_MAX,
        };
        Digits { digits, range }
    }

    /// Its size in bytes.
    pub(super) fn size(self) -> usize {
        8 + 2 * self.digits().range.len()
    }

    pub(super) fn put(self, bytes: &mut impl BufMut) {
        let Digits { digits, range } = self.digits();
        let small = |count: usize| i16::try_from(count).expect("there are few digits");
        bytes.put_i16(small(range.len()));
        // The weight: the exponent of the first digit in this base.
        let weight = small(WHOLE_DIGITS_MAX) - 1 - small(range.start);
        bytes.put_i16(if range.is_empty() { 0 } else { weight });
        bytes.put_u16(if self.is_negative { NEGATIVE } else { POSITIVE });
        // The scale: how many decimal digits are shown after the point.
        bytes.put_u16(self.scale.into());
        digits[range].iter().for_each(|digit| bytes.put_u16(*digit));
    }
}

/// Fills `digits` with those of `number`, from the end.
fn put_digits(digits: &mut [u16], mut number: u128) {
    for digit in digits.iter_mut().rev() {
        if number == 0 {
            return;
        }
        *digit = u16::try_from(number % BASE).expect("less than the base");
        number /= BASE;
    }
}

impl Type<Postgres> for Numeric {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(OID)
    }
}

impl PgHasArrayType for Numeric {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(ARRAY_OID)
    }
}

impl Encode<'_, Postgres> for Numeric {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let mut bytes = Vec::with_capacity(self.size());
        self.put(&mut bytes);
        buffer.extend(&bytes);
        Ok(IsNull::No)
    }
}

#[cfg(test)]
mod tests {
    use rust_decimal::Decimal;

    use super::*;

    #[test]
    fn a_number_is_written_as_postgres_sends_it() {
        // Expected values: the output of `SELECT encode(numeric_send(…), 'hex')`.
        for (number, sent) in [
            (0, "0000000000000000"),
            (1, "00010000000000000001"),
            (-1, "00010000400000000001"),
            (10_000, "00010001000000000001"),
            (123_456_789, "0003000200000000000109291a85"),
            (
                -9_223_372_036_854_775_809,
                "0005000440000000039a0d2c0170156516b1",
            ),
        ] {
            let mut bytes = Vec::new();
            Numeric::from(number).put(&mut bytes);
            assert_eq!(hex::encode(&bytes), sent, "{number}");
            assert_eq!(bytes.len(), Numeric::from(number).size());
        }
        for number in [i128::MIN, i128::MAX] {
            let mut bytes = Vec::new();
            Numeric::from(number).put(&mut bytes);
            assert_eq!(bytes.len(), 28);
        }
    }

    #[test]
    fn a_decimal_is_written_as_postgres_sends_it() {
        // Expected values: the output of `SELECT encode(numeric_send(…), 'hex')`.
        for (number, scale, sent) in [
            ("0", 2, "0000000000000002"),
            ("0.5", 1, "0001ffff000000011388"),
            ("-0.05", 2, "0001ffff4000000201f4"),
            ("12.50", 2, "0002000000000002000c1388"),
            ("-12.5", 5, "0002000040000005000c1388"),
            ("0.00001", 5, "0001fffe0000000503e8"),
            ("10000", 2, "00010001000000020001"),
        ] {
            let exact = Exact::from(number.parse::<Decimal>().unwrap()).rounded(scale);
            let mut bytes = Vec::new();
            Numeric::from(&exact).put(&mut bytes);
            assert_eq!(hex::encode(&bytes), sent, "{number}");
            assert_eq!(bytes.len(), Numeric::from(&exact).size());
        }
    }
}
