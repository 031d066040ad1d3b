//! Reads resource quantities of a pod spec as integers. The API server has already validated their text;
//! printing and arithmetic in the API's own form are not done here.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// The value in thousandths, rounded up: "100m" is 100, "1" is 1000. `None` when the text is no quantity.
pub fn milli(quantity: &Quantity) -> Option<i128> {
    parse(&quantity.0, 3)
}

/// The value in whole units, rounded up: "1Ki" is 1024, "1500m" is 2.
pub fn units(quantity: &Quantity) -> Option<i64> {
    parse(&quantity.0, 0).and_then(|value| i64::try_from(value).ok())
}

/// Value times 10^`scale`, rounded up.
fn parse(text: &str, scale: u32) -> Option<i128> {
    let end = text.find(|c: char| !matches!(c, '0'..='9' | '.' | '+' | '-')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (negative, number) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let (multiplier, exponent) = suffix_factor(suffix)?;
    let exponent = exponent + i32::try_from(scale).ok()? - i32::try_from(fraction.len()).ok()?;
    let value = digits.checked_mul(multiplier)?;
    let power = 10i128.checked_pow(exponent.unsigned_abs())?;
    let value = if exponent >= 0 { value.checked_mul(power)? } else { (value + power - 1) / power };
    Some(if negative { -value } else { value })
}

/// (binary multiplier, decimal exponent) of a suffix.
fn suffix_factor(suffix: &str) -> Option<(i128, i32)> {
    Some(match suffix {
        "" => (1, 0),
        "n" => (1, -9),
        "u" => (1, -6),
        "m" => (1, -3),
        "k" => (1, 3),
        "M" => (1, 6),
        "G" => (1, 9),
        "T" => (1, 12),
        "P" => (1, 15),
        "E" => (1, 18),
        "Ki" => (1 << 10, 0),
        "Mi" => (1 << 20, 0),
        "Gi" => (1 << 30, 0),
        "Ti" => (1 << 40, 0),
        "Pi" => (1 << 50, 0),
        "Ei" => (1 << 60, 0),
        _ => (1, suffix.strip_prefix(['e', 'E'])?.parse().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_read_as_rounded_up_integers() {
        let table: &[(&str, Option<i128>, Option<i64>)] = &[
            ("100m", Some(100), Some(1)),
            ("1", Some(1000), Some(1)),
            ("1.5", Some(1500), Some(2)),
            (".5", Some(500), Some(1)),
            ("64Mi", Some(64 * 1024 * 1024 * 1000), Some(64 << 20)),
            ("1.5Gi", Some(1_610_612_736_000), Some(1_610_612_736)),
            ("1e3", Some(1_000_000), Some(1000)),
            ("2E", Some(2_000_000_000_000_000_000_000), Some(2_000_000_000_000_000_000)),
            ("1n", Some(1), Some(1)),
            ("0", Some(0), Some(0)),
            ("", None, None),
            ("1x", None, None),
        ];
        for (text, in_milli, in_units) in table {
            let quantity = Quantity((*text).into());
            assert_eq!(milli(&quantity), *in_milli, "milli of {text:?}");
            assert_eq!(units(&quantity), *in_units, "units of {text:?}");
        }
    }
}
