//! Amounts of resources: `100m`, `1.5Gi`, `2e3` (apimachinery `api/resource`), exact and without floating point.
//!
//! Precision is a billionth of the base unit; what is finer is rounded away from zero. Magnitudes stop at 2^63-1 base units, as upstream.

use std::cmp::Ordering;
use std::fmt;

const NANOS: i128 = 1_000_000_000;
const MAX_NANOS: i128 = i64::MAX as i128 * NANOS;

/// How an amount is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `k`, `M`, `G`, .., and `m`, `u`, `n`
    DecimalSi,
    /// `Ki`, `Mi`, `Gi`, ..
    BinarySi,
    /// `e3`
    DecimalExponent,
}

/// An amount and the format in which it was given. Equality and order compare amounts only.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// Why a text is no quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// It has another shape.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// The number is malformed.
    #[error("unable to parse numeric part of quantity")]
    Number,
    /// The suffix is unknown.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self { nanos: 0, format: Format::DecimalSi };

    /// Reads a quantity.
    ///
    /// # Errors
    /// Upstream's words.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        let end = digits.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(digits.len());
        let (number, suffix) = digits.split_at(end);
        let known = |c: char| "eEinumkKMGTP+-".contains(c) || c.is_ascii_digit();
        if number.is_empty() || !suffix.chars().all(known) {
            return Err(ParseError::Format);
        }
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || whole.is_empty() && fraction.is_empty() {
            return Err(ParseError::Number);
        }
        let (format, factor) = parse_suffix(suffix)?;
        let magnitude = magnitude(whole, fraction, factor).min(MAX_NANOS);
        let nanos = if text.starts_with('-') { -magnitude } else { magnitude };
        Ok(Self { nanos, format })
    }

    /// A whole number of base units.
    #[must_use]
    pub fn from_units(units: i64, format: Format) -> Self {
        Self { nanos: i128::from(units) * NANOS, format }
    }

    /// A whole number of thousandths.
    #[must_use]
    pub fn from_millis(millis: i64) -> Self {
        Self {
            nanos: (i128::from(millis) * (NANOS / 1000)).clamp(-MAX_NANOS, MAX_NANOS),
            format: Format::DecimalSi,
        }
    }

    /// Base units (bytes, cores), rounded away from zero.
    #[must_use]
    pub fn value(self) -> i64 {
        saturate(div_away(self.nanos, NANOS))
    }

    /// Thousandths of the base unit (millicores), rounded away from zero.
    #[must_use]
    pub fn milli_value(self) -> i64 {
        saturate(div_away(self.nanos, NANOS / 1000))
    }

    /// The same amount rounded away from zero to whole thousandths: the precision at which resource lists are stored.
    #[must_use]
    pub fn round_up_to_milli(self) -> Self {
        let unit = NANOS / 1000;
        Self { nanos: div_away(self.nanos, unit) * unit, ..self }
    }

    /// A whole number of base units.
    #[must_use]
    pub fn is_integer(self) -> bool {
        self.nanos % NANOS == 0
    }

    /// Zero.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// Below zero.
    #[must_use]
    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }

    /// How it was written.
    #[must_use]
    pub fn format(self) -> Format {
        self.format
    }

    fn with_nanos(self, nanos: i128) -> Self {
        Self { nanos: nanos.clamp(-MAX_NANOS, MAX_NANOS), ..self }
    }
}

/// The amount in nanos, rounded up, saturating far above the maximum.
fn magnitude(whole: &str, fraction: &str, factor: Factor) -> i128 {
    let mut value: i128 = 0;
    let mut places = 0;
    for digit in whole.bytes().chain(fraction.bytes().inspect(|_| places += 1)) {
        value = value.saturating_mul(10).saturating_add(i128::from(digit - b'0'));
    }
    match factor {
        Factor::Binary(bits) => {
            let scaled = value.saturating_mul(1 << bits).saturating_mul(NANOS);
            if scaled == i128::MAX {
                // Too many fraction digits to be exact: scale the digits down first.
                return scale10(value, 9 - places).saturating_mul(1 << bits);
            }
            scale10(scaled, -places)
        }
        Factor::Decimal(exponent) => scale10(value, exponent.saturating_add(9) - places),
    }
}

/// `value * 10^exponent`, rounded up, saturating.
fn scale10(value: i128, exponent: i32) -> i128 {
    match 10_i128.checked_pow(exponent.unsigned_abs()) {
        Some(factor) if exponent >= 0 => value.saturating_mul(factor),
        Some(factor) => div_away(value, factor),
        None if value == 0 => 0,
        None if exponent > 0 => i128::MAX,
        None => 1,
    }
}

#[derive(Clone, Copy)]
enum Factor {
    /// A power of two.
    Binary(u32),
    /// A power of ten.
    Decimal(i32),
}

fn parse_suffix(suffix: &str) -> Result<(Format, Factor), ParseError> {
    if let Some((_, exponent)) = DECIMAL.iter().find(|(s, _)| *s == suffix) {
        return Ok((Format::DecimalSi, Factor::Decimal(*exponent)));
    }
    if let Some((_, bits)) = BINARY.iter().find(|(s, _)| *s == suffix) {
        return Ok((Format::BinarySi, Factor::Binary(*bits)));
    }
    let exponent = suffix.strip_prefix(['e', 'E']).ok_or(ParseError::Suffix)?;
    let exponent = exponent.parse().map_err(|_| ParseError::Suffix)?;
    Ok((Format::DecimalExponent, Factor::Decimal(exponent)))
}

fn div_away(value: i128, by: i128) -> i128 {
    value / by + (value % by).signum()
}

fn saturate(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl std::ops::Add for Quantity {
    type Output = Self;

    /// Keeps the left format, or the right one when the left side is zero.
    fn add(self, other: Self) -> Self {
        let base = if self.is_zero() { other } else { self };
        base.with_nanos(self.nanos + other.nanos)
    }
}

impl std::ops::Sub for Quantity {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        let base = if self.is_zero() { other } else { self };
        base.with_nanos(self.nanos - other.nanos)
    }
}

impl fmt::Display for Quantity {
    /// The canonical form: no fraction, the largest suffix that loses nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let small = self.nanos.abs() < 1024 * NANOS;
        if self.format == Format::BinarySi && !small && self.is_integer() {
            let mut value = self.nanos / NANOS;
            let mut suffix = "";
            for (larger, _) in BINARY {
                if value % 1024 != 0 {
                    break;
                }
                value /= 1024;
                suffix = larger;
            }
            return write!(f, "{value}{suffix}");
        }
        let (mut value, mut index) = (self.nanos, 0);
        while value % 1000 == 0 && index + 1 < DECIMAL.len() {
            value /= 1000;
            index += 1;
        }
        let (suffix, exponent) = DECIMAL[index];
        match self.format {
            Format::DecimalExponent if exponent != 0 => write!(f, "{value}e{exponent}"),
            _ => write!(f, "{value}{suffix}"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn canonical_forms_are_upstreams() {
        for (text, canonical) in [
            ("0", "0"),
            ("0Gi", "0"),
            ("1", "1"),
            ("1000m", "1"),
            ("0.5", "500m"),
            (".5", "500m"),
            ("5.", "5"),
            ("1.5Gi", "1536Mi"),
            ("1024Mi", "1Gi"),
            ("1023Ki", "1023Ki"),
            ("512", "512"),
            ("0.5Ki", "512"),
            ("1000Ki", "1000Ki"),
            ("1000000", "1M"),
            ("1500000", "1500k"),
            ("2e3", "2e3"),
            ("2000e0", "2e3"),
            ("1E", "1E"),
            ("12e6", "12e6"),
            ("1E3", "1e3"),
            ("100n", "100n"),
            ("0.1n", "1n"),
            ("1.23456789123", "1234567892n"),
            ("-1.5", "-1500m"),
            ("+1", "1"),
            ("100E", "9223372036854775807"),
            ("1.1Ki", "1126400m"),
            ("0.0001", "100u"),
        ] {
            assert_eq!(Quantity::parse(text).unwrap().to_string(), canonical, "{text}");
        }
    }

    #[test]
    fn malformed_quantities_say_why() {
        for (text, error) in [
            ("", ParseError::Format),
            ("abc", ParseError::Format),
            ("1 Gi", ParseError::Format),
            ("1Gb", ParseError::Format),
            ("1.2.3", ParseError::Number),
            (".", ParseError::Number),
            ("1KiM", ParseError::Suffix),
            ("1K", ParseError::Suffix),
            ("1e", ParseError::Suffix),
            ("--1", ParseError::Format),
        ] {
            assert_eq!(Quantity::parse(text).unwrap_err(), error, "{text:?}");
        }
    }

    #[test]
    fn values_round_away_from_zero() {
        for (text, value, milli) in [
            ("100m", 1, 100),
            ("1.5", 2, 1500),
            ("1Gi", 1 << 30, (1 << 30) * 1000),
            ("-0.5", -1, -500),
            ("1u", 1, 1),
        ] {
            let quantity = Quantity::parse(text).unwrap();
            assert_eq!((quantity.value(), quantity.milli_value()), (value, milli), "{text}");
        }
        assert_eq!(Quantity::parse("1u").unwrap().round_up_to_milli().to_string(), "1m");
    }

    #[test]
    fn amounts_compare_and_add_across_formats() {
        let q = |text| Quantity::parse(text).unwrap();
        assert_eq!(q("1Gi"), q("1073741824"));
        assert!(q("1G") < q("1Gi"));
        assert_eq!((q("500m") + q("1.5")).to_string(), "2");
        assert_eq!((q("1Gi") - q("512Mi")).to_string(), "512Mi");
        assert_eq!((Quantity::ZERO + q("1Gi")).to_string(), "1Gi");
        assert_eq!((q("9E") + q("9E")).value(), i64::MAX);
    }
}
