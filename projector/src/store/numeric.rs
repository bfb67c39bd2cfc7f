//! Whole numbers as Postgres's `numeric`, in its binary format.
//!
//! Source: `numeric_send` and `numeric_recv` of PostgreSQL's `utils/adt/numeric.c`. Deliberately
//! absent: fractions, and reading; views show sums as `bigint`.

use bytes::BufMut;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo};
use sqlx::{Encode, Postgres, Type};

/// The base of `numeric`'s digits.
const BASE: u128 = 10_000;
/// The most digits in this base that 128 bits need.
const DIGITS_MAX: usize = 10;
const OID: Oid = Oid(1700);
const ARRAY_OID: Oid = Oid(1231);
const POSITIVE: u16 = 0;
const NEGATIVE: u16 = 0x4000;

/// A whole number that is bound as `numeric`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numeric(pub(super) i128);

impl Numeric {
    /// Its digits, the most significant first. The range leaves out the zeros at both ends; with
    /// the zeros at the end there are `DIGITS_MAX - range.start` digits.
    fn digits(self) -> ([u16; DIGITS_MAX], std::ops::Range<usize>) {
        let mut digits = [0; DIGITS_MAX];
        let mut rest = self.0.unsigned_abs();
        let mut first = DIGITS_MAX;
        while rest > 0 {
            first -= 1;
            digits[first] = u16::try_from(rest % BASE).expect("less than the base");
            rest /= BASE;
        }
        let last = digits.iter().rposition(|digit| *digit != 0);
        (digits, first..last.map_or(first, |last| last + 1))
    }

    /// Its size in bytes.
    pub(super) fn size(self) -> usize {
        8 + 2 * self.digits().1.len()
    }

    pub(super) fn put(self, bytes: &mut impl BufMut) {
        let (digits, range) = self.digits();
        let small = |count: usize| i16::try_from(count).expect("there are few digits");
        bytes.put_i16(small(range.len()));
        // The weight: the exponent of the first digit in this base.
        bytes.put_i16(small((DIGITS_MAX - range.start).saturating_sub(1)));
        bytes.put_u16(if self.0 < 0 { NEGATIVE } else { POSITIVE });
        // The scale: no decimal digits after the point.
        bytes.put_u16(0);
        digits[range].iter().for_each(|digit| bytes.put_u16(*digit));
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
            Numeric(number).put(&mut bytes);
            assert_eq!(hex::encode(&bytes), sent, "{number}");
            assert_eq!(bytes.len(), Numeric(number).size());
        }
        for number in [i128::MIN, i128::MAX] {
            let mut bytes = Vec::new();
            Numeric(number).put(&mut bytes);
            assert_eq!(bytes.len(), 28);
        }
    }
}
