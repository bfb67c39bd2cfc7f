//! Numbers as exact decimals. They are written as in RFC 8785, but with all their digits.
//!
//! Invariant: two numbers are written alike if and only if they are equal. The output is at most
//! some forty digits longer than the input. An integer that fits 128 bits is written without an
//! exponent.

/// The most digits before the decimal point; a larger number is written with an exponent.
const WHOLE_DIGITS_MAX: i64 = 39;
/// The most zeros between the decimal point and the first other digit of a number below 1.
const ZEROS_MAX: i64 = 5;
/// The most digits of an exponent, without leading zeros.
pub(super) const EXPONENT_DIGITS_MAX: usize = 15;

pub(super) enum NumberError {
    /// The text is not a JSON number.
    Syntax,
    /// The exponent has more than [`EXPONENT_DIGITS_MAX`] digits.
    Exponent,
}

pub(super) fn write(text: &[u8], written: &mut Vec<u8>) -> Result<(), NumberError> {
    let is_short = text.len() < 20 && text != b"-0";
    if is_short && is_whole(text.strip_prefix(b"-").unwrap_or(text)) {
        written.extend_from_slice(text);
        return Ok(());
    }
    let number = Decimal::read(text)?;
    number.write(written);
    Ok(())
}

/// Whether these are the digits of an integer as JSON writes it: no leading zeros.
fn is_whole(digits: &[u8]) -> bool {
    let is_one = digits.len() == 1 || digits.first() != Some(&b'0');
    !digits.is_empty() && is_one && digits.iter().all(u8::is_ascii_digit)
}

/// A number as `0.digits × 10^point`. The first and the last digit are not 0; the number 0 has no
/// digits.
struct Decimal<'a> {
    is_negative: bool,
    /// The digits before and after the decimal point of the text.
    digits: [&'a [u8]; 2],
    point: i64,
}

impl<'a> Decimal<'a> {
    fn read(text: &'a [u8]) -> Result<Self, NumberError> {
        let (is_negative, text) = match text.strip_prefix(b"-") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let split = |text: &'a [u8], at: &[u8]| match text.iter().position(|b| at.contains(b)) {
            Some(place) => (&text[..place], Some(&text[place + 1..])),
            None => (text, None),
        };
        let (mantissa, exponent) = split(text, b"eE");
        let (whole, fraction) = split(mantissa, b".");
        let is_fraction =
            |digits: &[u8]| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
        if !is_whole(whole) || !fraction.is_none_or(is_fraction) {
            return Err(NumberError::Syntax);
        }
        let (is_below, exponent) = match exponent {
            None => (false, &b"0"[..]),
            Some([b'-', digits @ ..]) => (true, digits),
            Some([b'+', digits @ ..]) => (false, digits),
            Some(digits) => (false, digits),
        };
        if !is_fraction(exponent) {
            return Err(NumberError::Syntax);
        }
        let number = Self::placed(is_negative, whole, fraction.unwrap_or_default());
        if number.count() == 0 {
            return Ok(number);
        }
        let exponent = without_first_zeros(exponent);
        if exponent.len() > EXPONENT_DIGITS_MAX {
            return Err(NumberError::Exponent);
        }
        let exponent = exponent
            .iter()
            .fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'));
        let point = match is_below {
            true => number.point - exponent,
            false => number.point + exponent,
        };
        Ok(Self { point, ..number })
    }

    /// The number with these digits before and after its decimal point.
    fn placed(is_negative: bool, whole: &'a [u8], fraction: &'a [u8]) -> Self {
        let whole = without_first_zeros(whole);
        let (fraction, point) = match whole.is_empty() {
            false => (fraction, count_of(whole)),
            true => {
                let digits = without_first_zeros(fraction);
                (digits, count_of(digits) - count_of(fraction))
            }
        };
        let fraction = without_last_zeros(fraction);
        let whole = match fraction.is_empty() {
            true => without_last_zeros(whole),
            false => whole,
        };
        let digits = [whole, fraction];
        Self {
            is_negative,
            digits,
            point,
        }
    }

    fn count(&self) -> usize {
        self.digits[0].len() + self.digits[1].len()
    }

    fn write(&self, written: &mut Vec<u8>) {
        let count = i64::try_from(self.count()).expect("a text is shorter");
        if count == 0 {
            written.push(b'0');
            return;
        }
        if self.is_negative {
            written.push(b'-');
        }
        let start = written.len();
        let digits = |written: &mut Vec<u8>| {
            written.extend_from_slice(self.digits[0]);
            written.extend_from_slice(self.digits[1]);
        };
        let zeros = |written: &mut Vec<u8>, count: i64| {
            written.extend((0..count).map(|_| b'0'));
        };
        // `before` is the number of digits before the decimal point.
        let point_behind = |written: &mut Vec<u8>, before: i64| {
            let place = start + usize::try_from(before).expect("within the digits");
            written.insert(place, b'.');
        };
        match self.point {
            point if count <= point && point <= WHOLE_DIGITS_MAX => {
                digits(written);
                zeros(written, point - count);
            }
            point @ 1..=WHOLE_DIGITS_MAX => {
                digits(written);
                point_behind(written, point);
            }
            point if (-ZEROS_MAX..=0).contains(&point) => {
                written.extend_from_slice(b"0.");
                zeros(written, -point);
                digits(written);
            }
            point => {
                digits(written);
                if count > 1 {
                    point_behind(written, 1);
                }
                let exponent = format!("e{:+}", point - 1);
                written.extend_from_slice(exponent.as_bytes());
            }
        }
    }
}

fn count_of(digits: &[u8]) -> i64 {
    i64::try_from(digits.len()).expect("a text is shorter")
}

fn without_first_zeros(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    &digits[zeros..]
}

fn without_last_zeros(digits: &[u8]) -> &[u8] {
    let zeros = digits
        .iter()
        .rev()
        .take_while(|digit| **digit == b'0')
        .count();
    &digits[..digits.len() - zeros]
}
