//! Numbers compared by their digits, without rounding and without a greatest exponent.

use std::cmp::Ordering;

/// The value of a legal JSON number: equal for all texts of one number, and ordered as numbers. Reading is linear in
/// the text; comparing is linear in the shorter text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Number {
    /// -1, 0 or 1.
    sign: i8,
    /// The number is 0.`digits` times ten to this power; zero for zero.
    exponent: Exponent,
    /// Without zeros at either end; empty for zero.
    digits: Vec<u8>,
}

impl Number {
    /// Reads a legal JSON number.
    pub(super) fn read(text: &[u8]) -> Self {
        let (is_negative, text) = match text.strip_prefix(b"-") {
            Some(text) => (true, text),
            None => (false, text),
        };
        let end = text.iter().position(|byte| matches!(byte, b'e' | b'E'));
        let (written, exponent) = text.split_at(end.unwrap_or(text.len()));
        let point = written.iter().position(|byte| *byte == b'.');
        let (whole, fraction) = written.split_at(point.unwrap_or(written.len()));
        let fraction = fraction.get(1..).unwrap_or_default();
        let whole = without_zeros(whole);
        let (shift, fraction) = match whole {
            [] => {
                let rest = without_zeros(fraction);
                (0 - count(fraction.len() - rest.len()), rest)
            }
            _ => (count(whole.len()), fraction),
        };
        let mut digits = [whole, fraction].concat();
        let zeros = digits.iter().rev().take_while(|digit| **digit == b'0');
        digits.truncate(digits.len() - zeros.count());
        if digits.is_empty() {
            return Self {
                sign: 0,
                exponent: Exponent::read(b"", 0),
                digits,
            };
        }
        Self {
            sign: if is_negative { -1 } else { 1 },
            exponent: Exponent::read(exponent.get(1..).unwrap_or_default(), shift),
            digits,
        }
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        // Digits stand after the decimal point, so of two numbers with a common start the one with more digits is
        // greater.
        let magnitude = |left: &Self, right: &Self| {
            let by_exponent = left.exponent.cmp(&right.exponent);
            by_exponent.then_with(|| left.digits.cmp(&right.digits))
        };
        self.sign.cmp(&other.sign).then_with(|| match self.sign {
            -1 => magnitude(other, self),
            _ => magnitude(self, other),
        })
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

fn count(len: usize) -> i64 {
    i64::try_from(len).unwrap_or(i64::MAX)
}

fn without_zeros(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    &digits[zeros..]
}

/// A whole number of any length.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Exponent {
    is_negative: bool,
    /// Without zeros in front; empty for zero, which is not negative.
    digits: Vec<u8>,
}

impl Exponent {
    /// Reads an optional sign and digits, and adds `shift`.
    fn read(text: &[u8], shift: i64) -> Self {
        let (is_negative, text) = match text {
            [b'-', text @ ..] => (true, text),
            [b'+', text @ ..] => (false, text),
            text => (false, text),
        };
        let digits = without_zeros(text);
        // Short texts use machine integers: 18 digits and a length fit into an i64 each.
        let short = match digits {
            [] => Some(0),
            _ if digits.len() <= 18 => std::str::from_utf8(digits)
                .ok()
                .and_then(|text| text.parse::<i64>().ok()),
            _ => None,
        };
        if let Some(short) = short {
            let sum = if is_negative {
                i128::from(shift) - i128::from(short)
            } else {
                i128::from(shift) + i128::from(short)
            };
            return Self {
                is_negative: sum < 0,
                digits: match sum {
                    0 => Vec::new(),
                    _ => sum.unsigned_abs().to_string().into_bytes(),
                },
            };
        }
        // The exponent is 10^18 or more, so adding a length cannot change its sign.
        let mut digits = digits.to_vec();
        let mut carry = if is_negative {
            0 - i128::from(shift)
        } else {
            i128::from(shift)
        };
        for digit in digits.iter_mut().rev() {
            if carry == 0 {
                break;
            }
            let sum = i128::from(*digit - b'0') + carry;
            *digit = b'0' + u8::try_from(sum.rem_euclid(10)).unwrap_or_default();
            carry = sum.div_euclid(10);
        }
        if carry > 0 {
            digits.splice(0..0, carry.to_string().into_bytes());
        }
        Self {
            is_negative,
            digits: without_zeros(&digits).to_vec(),
        }
    }
}

impl Ord for Exponent {
    fn cmp(&self, other: &Self) -> Ordering {
        let magnitude = |left: &Self, right: &Self| {
            let by_len = left.digits.len().cmp(&right.digits.len());
            by_len.then_with(|| left.digits.cmp(&right.digits))
        };
        match (self.is_negative, other.is_negative) {
            (false, false) => magnitude(self, other),
            (true, true) => magnitude(other, self),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
        }
    }
}

impl PartialOrd for Exponent {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn compare(left: &[u8], right: &[u8]) -> Ordering {
        let (left, right) = (Number::read(left), Number::read(right));
        let ordering = left.cmp(&right);
        assert_eq!(ordering == Ordering::Equal, left == right);
        ordering
    }

    #[test]
    fn numbers_are_in_their_order_and_forms_of_one_number_are_equal() {
        let huge = format!("1e{}", "9".repeat(50));
        let huge_too = format!("10e{}8", "9".repeat(49));
        let more = format!("1e1{}", "0".repeat(50));
        let more_too = format!("0.01e1{}2", "0".repeat(49));
        let tiny = format!("1e-{}", "9".repeat(50));
        let ordered: [&[&str]; 15] = [
            &["-1e999999999", "-10e999999998"],
            &["-2", "-2.0", "-20e-1", "-0.2E+1"],
            &["-1.5"],
            &["-1e-999999999"],
            &["0", "-0", "0.000", "0e999999999999999999999999", "-0e-5"],
            &[&tiny],
            &["1e-999999999"],
            &["0.1", "1e-1", "0.10", "0.001e2"],
            &["0.30000000000000004"],
            &["9007199254740992", "9007199254740992.000"],
            &["9007199254740993", "9.007199254740993e15"],
            &["1e999999999"],
            &["2e999999999"],
            &[&huge, &huge_too],
            &[&more, &more_too],
        ];
        for (i, left) in ordered.iter().enumerate() {
            for (j, right) in ordered.iter().enumerate() {
                for (left, right) in left.iter().flat_map(|l| right.iter().map(move |r| (l, r))) {
                    assert_eq!(
                        compare(left.as_bytes(), right.as_bytes()),
                        i.cmp(&j),
                        "{left} {right}"
                    );
                }
            }
        }
    }

    proptest! {
        #[test]
        fn numbers_compare_as_whole_numbers_of_one_unit(left in -10_000_i64..10_000, right in -10_000_i64..10_000, zeros in 0_usize..4, places in 0..6, huge: bool) {
            // The point moved by `places`, which the exponent undoes; a large offset must change nothing.
            let text = |number: i64| {
                let digits = format!("{:07}", number.abs());
                let (whole, fraction) = digits.split_at(7 - usize::try_from(places).unwrap());
                let whole = whole.trim_start_matches('0');
                let whole = if whole.is_empty() { "0" } else { whole };
                let sign = if number < 0 { "-" } else { "" };
                let base = if huge { 1_000_000_000_000_000_000_000_i128 } else { 0 };
                format!("{sign}{whole}.{fraction}{}0e{}", "0".repeat(zeros), base + i128::from(places))
            };
            prop_assert_eq!(compare(text(left).as_bytes(), text(right).as_bytes()), left.cmp(&right));
            prop_assert_eq!(compare(text(left).as_bytes(), format!("{left}{}", if huge { "e1000000000000000000000" } else { "" }).as_bytes()), Ordering::Equal);
        }
    }
}
