//! JSON numbers read exactly, as decimals: no detour over floats for what must be whole.

/// A quantity of 10¹⁹ or more is none: with 18 decimals it would not fit 128 bits many times over.
const MAGNITUDE_DIGITS_MAX: i64 = 19;

/// The most decimals of a quantity: 10¹⁸ is the last power of ten that fits 63 bits.
pub const DECIMALS_MAX: u32 = 18;

/// 10^`decimals`: what one of a quantity is in its smallest units.
pub fn unit(decimals: u32) -> i128 {
    10_i128.saturating_pow(decimals)
}

/// A JSON number taken apart: value = 0.d₁d₂d₃… × 10^point, digits without leading zeros.
pub struct Decimal<'a> {
    pub negative: bool,
    int: &'a [u8],
    frac: &'a [u8],
    /// Power of ten above the first digit; `None` when the number is zero.
    point: Option<i64>,
}

/// Whether `text` is a number of the JSON grammar, whole.
pub fn is_number(text: &[u8]) -> bool {
    Decimal::parse(text).is_some()
}

fn digits(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, &[]))
}

fn without_leading_zeros(text: &[u8]) -> &[u8] {
    let zeros = text.iter().take_while(|b| **b == b'0').count();
    text.get(zeros..).unwrap_or(&[])
}

impl<'a> Decimal<'a> {
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        let (negative, rest) = match text.split_first()? {
            (b'-', rest) => (true, rest),
            _ => (false, text),
        };
        let (int, rest) = digits(rest);
        if int.is_empty() || (int.len() > 1 && int.first() == Some(&b'0')) {
            return None;
        }
        let (frac, rest) = match rest.split_first() {
            Some((b'.', tail)) => {
                let (frac, rest) = digits(tail);
                if frac.is_empty() {
                    return None;
                }
                (frac, rest)
            }
            _ => (&[][..], rest),
        };
        let exponent = match rest.split_first() {
            None => 0,
            Some((b'e' | b'E', tail)) => exponent(tail)?,
            Some(_) => return None,
        };
        let int = without_leading_zeros(int);
        let point = if int.is_empty() {
            let significant = without_leading_zeros(frac);
            let zeros = i64::try_from(frac.len() - significant.len()).ok()?;
            (!significant.is_empty()).then(|| exponent.saturating_sub(zeros))
        } else {
            Some(exponent.saturating_add(i64::try_from(int.len()).ok()?))
        };
        Some(Self { negative, int, frac, point })
    }

    pub fn is_zero(&self) -> bool {
        self.point.is_none()
    }

    /// Power of ten above the first digit: 3 for 123.4. Zero has none.
    pub fn point(&self) -> Option<i64> {
        self.point
    }

    fn significant(&self) -> impl Iterator<Item = u8> + '_ {
        self.int.iter().chain(self.frac.iter()).map(|b| b - b'0').skip_while(|d| *d == 0)
    }

    /// The first `count` digits as one number, zeros where the text has no more; `None` above 18 digits.
    pub fn leading(&self, count: i64) -> Option<i64> {
        if count <= 0 {
            return Some(0);
        }
        let count = usize::try_from(count).ok().filter(|c| *c <= 18)?;
        let digits = self.significant().chain(std::iter::repeat(0)).take(count);
        Some(digits.fold(0_i64, |sum, d| sum * 10 + i64::from(d)))
    }

    /// The size of the value in units of 10^-`decimals`, rounded half away from zero; `None` at 10¹⁹ and above.
    pub fn rounded(&self, decimals: u32) -> Option<i128> {
        let Some(point) = self.point else { return Some(0) };
        if point > MAGNITUDE_DIGITS_MAX {
            return None;
        }
        let Ok(kept) = usize::try_from(point.saturating_add(i64::from(decimals))) else { return Some(0) };
        let mut digits = self.significant().chain(std::iter::repeat(0));
        let whole = digits.by_ref().take(kept).fold(0_i128, |sum, d| sum * 10 + i128::from(d));
        Some(whole + i128::from(digits.next().is_some_and(|next| next >= 5)))
    }

    /// The value where it is an integer 0 … 2⁶³−1.
    pub fn whole(&self) -> Option<i64> {
        let Some(point) = self.point else { return Some(0) };
        if self.negative {
            return None;
        }
        let length = usize::try_from(point).ok().filter(|l| (1..=19).contains(l))?;
        if self.significant().skip(length).any(|d| d != 0) {
            return None;
        }
        let digits = self.significant().chain(std::iter::repeat(0)).take(length);
        let value = digits.fold(0_u128, |sum, d| sum * 10 + u128::from(d));
        i64::try_from(value).ok()
    }
}

/// Digits after `e`, saturated far outside of what any caller tells apart.
fn exponent(text: &[u8]) -> Option<i64> {
    let (negative, rest) = match text.split_first()? {
        (b'-', rest) => (true, rest),
        (b'+', rest) => (false, rest),
        _ => (false, text),
    };
    if rest.is_empty() || !rest.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let size = rest.iter().fold(0_i64, |sum, b| sum.saturating_mul(10).saturating_add(i64::from(b - b'0')));
    Some(if negative { -size } else { size })
}

/// An unsigned run of 1 to 18 digits, the common case of every integer field.
pub fn plain_integer(text: &[u8]) -> Option<i64> {
    if text.is_empty() || text.len() > 18 || (text.len() > 1 && text.first() == Some(&b'0')) {
        return None;
    }
    text.iter().try_fold(0_i64, |sum, b| b.is_ascii_digit().then(|| sum * 10 + i64::from(b - b'0')))
}

/// An integer 0 … 2⁶³−1, read from any JSON number.
pub fn integer(text: &[u8]) -> Option<i64> {
    plain_integer(text).or_else(|| Decimal::parse(text)?.whole())
}

/// The size of a quantity in units of 10^-`decimals` and whether it is below zero; `None` where it is none.
pub fn quantity(text: &[u8], decimals: u32) -> Option<(i128, bool)> {
    if let Some(value) = plain_integer(text) {
        return Some((i128::from(value) * unit(decimals), false));
    }
    let decimal = Decimal::parse(text)?;
    Some((decimal.rounded(decimals)?, decimal.negative && !decimal.is_zero()))
}

/// The nearest float to a number of the JSON grammar.
pub fn float(text: &[u8]) -> Option<f64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_exact() {
        assert_eq!(integer(b"9223372036854775807"), Some(i64::MAX));
        assert_eq!(integer(b"9223372036854775808"), None);
        assert_eq!(integer(b"5.0"), Some(5));
        assert_eq!(integer(b"50e-1"), Some(5));
        assert_eq!(integer(b"0.05e2"), Some(5));
        assert_eq!(integer(b"5.5"), None);
        assert_eq!(integer(b"-0"), Some(0));
        assert_eq!(integer(b"0e999999999999999999999999"), Some(0));
        assert_eq!(integer(b"1e999999999999999999999999"), None);
        assert_eq!(integer(b"1e-999999999999999999999999"), None);
        assert_eq!(integer(b"01"), None);
        assert_eq!(integer(b""), None);
        assert_eq!(integer(b"1."), None);
        assert_eq!(integer(b"-1"), None);
    }

    #[test]
    fn quantities_are_rounded_half_away_from_zero() {
        let read = |text: &str, decimals| quantity(text.as_bytes(), decimals);
        assert_eq!(read("3.6", 8), Some((360_000_000, false)));
        assert_eq!(read("-3.6", 1), Some((36, true)));
        assert_eq!(read("0.5", 0), Some((1, false)));
        assert_eq!(read("0.49", 0), Some((0, false)));
        assert_eq!(read("2.5", 0), Some((3, false)));
        assert_eq!(read("1e-400", 18), Some((0, false)));
        assert_eq!(read("0.05", 1), Some((1, false)));
        assert_eq!(read("0.005", 1), Some((0, false)));
        assert_eq!(read("-0", 8), Some((0, false)));
        assert_eq!(read("9999999999999999999", 18), Some((9_999_999_999_999_999_999 * 10_i128.pow(18), false)));
        assert_eq!(read("1e19", 0), None);
        assert_eq!(read("1e999999999999999999999", 0), None);
        assert_eq!(read("0xff", 0), None);
    }
}
