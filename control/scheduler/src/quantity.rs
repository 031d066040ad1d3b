//! Quantities as the whole numbers that arithmetic on resources needs, rounded up. Their canonical text and exact decimals are
//! the API server's affair.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Suffixes and the power of ten, or of two, by which they multiply.
const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18), ("", 0)];
const BINARY: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];

/// Thousandths, e.g. of a CPU: `250m` is 250, `1.5` is 1500. 0 if the text is no quantity.
pub fn milli(quantity: &Quantity) -> i64 {
    scaled(&quantity.0, 3)
}

/// Whole units, e.g. bytes: `1Ki` is 1024, `100m` is 1. 0 if the text is no quantity.
pub fn units(quantity: &Quantity) -> i64 {
    scaled(&quantity.0, 0)
}

/// The value times 10^`places`, rounded up, saturating.
fn scaled(text: &str, places: i32) -> i64 {
    parse(text.trim(), places).map_or(0, |value| i64::try_from(value).unwrap_or(i64::MAX))
}

fn parse(text: &str, places: i32) -> Option<i128> {
    if let Some((number, shift)) =
        BINARY.iter().find_map(|(suffix, shift)| Some((text.strip_suffix(suffix)?, *shift)))
    {
        let (digits, fraction) = digits(number)?;
        return power(digits.checked_mul(1_i128.checked_shl(shift)?)?, places - fraction);
    }
    let (number, exponent) = match text.find(['e', 'E']).filter(|at| at + 1 < text.len()) {
        Some(at) => (&text[..at], text[at + 1..].parse().ok()?),
        None => {
            DECIMAL.iter().find_map(|(suffix, exponent)| Some((text.strip_suffix(suffix)?, *exponent)))?
        }
    };
    let (digits, fraction) = digits(number)?;
    power(digits, exponent + places - fraction)
}

/// All digits as one number, and how many of them follow the point.
fn digits(number: &str) -> Option<(i128, i32)> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}").parse().ok()?;
    Some((digits, i32::try_from(fraction.len()).ok()?))
}

/// `value` times 10^`exponent`, rounded up.
fn power(value: i128, exponent: i32) -> Option<i128> {
    let factor = 10_i128.checked_pow(exponent.unsigned_abs())?;
    if exponent >= 0 {
        value.checked_mul(factor)
    } else {
        Some(value.div_euclid(factor) + i128::from(value.rem_euclid(factor) != 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_scale_and_fractions_round_up() {
        for (text, want_milli, want_units) in [
            ("1", 1000, 1),
            ("250m", 250, 1),
            ("1.5", 1500, 2),
            ("0", 0, 0),
            ("1Ki", 1_024_000, 1024),
            ("1.5Gi", 1_610_612_736_000, 1_610_612_736),
            ("100n", 1, 1),
            ("2e3", 2_000_000, 2000),
            (
                "1E",
                1_000_000_000_000_000_000_000_i128.try_into().unwrap_or(i64::MAX),
                1_000_000_000_000_000_000,
            ),
            ("none", 0, 0),
        ] {
            let quantity = Quantity(text.into());
            assert_eq!((milli(&quantity), units(&quantity)), (want_milli, want_units), "{text}");
        }
    }
}
