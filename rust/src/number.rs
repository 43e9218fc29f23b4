//! JSON numbers read exactly, as decimals: no detour over floats for what must be whole.

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

    /// The value times 10^`decimals` where that is an integer 0 … 2⁶³−1.
    pub fn scaled(&self, decimals: u32) -> Option<i64> {
        let Some(point) = self.point else { return Some(0) };
        if self.negative {
            return None;
        }
        let length = point.saturating_add(i64::from(decimals));
        let length = usize::try_from(length).ok().filter(|l| (1..=19).contains(l))?;
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

/// An integer 0 … 2⁶³−1 after scaling by 10^`decimals`, read from any JSON number.
pub fn integer(text: &[u8], decimals: u32) -> Option<i64> {
    if decimals == 0
        && let Some(value) = plain_integer(text)
    {
        return Some(value);
    }
    Decimal::parse(text)?.scaled(decimals)
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
        assert_eq!(integer(b"9223372036854775807", 0), Some(i64::MAX));
        assert_eq!(integer(b"9223372036854775808", 0), None);
        assert_eq!(integer(b"5.0", 0), Some(5));
        assert_eq!(integer(b"50e-1", 0), Some(5));
        assert_eq!(integer(b"0.05e2", 0), Some(5));
        assert_eq!(integer(b"5.5", 0), None);
        assert_eq!(integer(b"5.5", 1), Some(55));
        assert_eq!(integer(b"-0", 0), Some(0));
        assert_eq!(integer(b"0e999999999999999999999999", 0), Some(0));
        assert_eq!(integer(b"1e999999999999999999999999", 0), None);
        assert_eq!(integer(b"1e-999999999999999999999999", 0), None);
        assert_eq!(integer(b"01", 0), None);
        assert_eq!(integer(b"", 0), None);
        assert_eq!(integer(b"1.", 0), None);
        assert_eq!(integer(b"-1", 0), None);
    }
}
