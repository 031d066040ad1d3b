//! networking.k8s.io/v1 ServiceCIDR: ranges from which cluster IPs are taken.

use jiff::Timestamp;
use serde_json::Value;

use super::{address, cell, field, metadata};
use crate::status::FieldError;
use crate::strategy::{Column, Strategy};

/// networking.k8s.io/v1 ServiceCIDR.
#[derive(Debug, Clone, Copy)]
pub struct ServiceCidr;

impl Strategy for ServiceCidr {
    fn namespaced(&self) -> bool {
        false
    }

    fn has_status(&self) -> bool {
        true
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        const PATH: &str = "spec.cidrs";
        let spec = || object.get("spec").cloned().unwrap_or_default();
        let cidrs: Vec<&str> = field::items(object, "/spec/cidrs").collect();
        match cidrs.as_slice() {
            [] => return vec![FieldError::required(PATH, "at least one CIDR required")],
            [_] => {}
            [first, second] => {
                let is_v4 = |cidr: &str| address::parse_cidr(cidr).map(|(address, _)| address.is_ipv4());
                if let (Some(first), Some(second)) = (is_v4(first), is_v4(second))
                    && first == second
                {
                    let message = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/96";
                    return vec![FieldError::invalid(PATH, spec(), message)];
                }
            }
            _ => return vec![FieldError::invalid(PATH, spec(), "may only hold up to 2 values")],
        }
        cidrs
            .iter()
            .enumerate()
            .filter_map(|(index, cidr)| address::invalid_cidr(&format!("{PATH}[{index}]"), cidr))
            .collect()
    }

    fn validate_transition(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let [now, before] = [new, old].map(|object| field::list(object, "/spec/cidrs"));
        if now.len() < before.len() || (now.len() > before.len() && (before.len(), now.len()) != (1, 2)) {
            return vec![FieldError::invalid("spec.cidrs", Value::from(now.to_vec()), metadata::IMMUTABLE)];
        }
        // One range may become two, to go dual stack; a range never changes.
        let changed = before.iter().zip(now).enumerate().filter(|(_, (before, now))| before != now);
        changed
            .map(|(index, (_, now))| {
                FieldError::invalid(format!("spec.cidrs[{index}]"), now.clone(), metadata::IMMUTABLE)
            })
            .collect()
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] =
            &[Column::NAME, Column::text("CIDRs", "Ranges, one of each family."), Column::AGE];
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let cidrs = field::items(object, "/spec/cidrs").collect::<Vec<_>>().join(",");
        vec![cell::name(object), cidrs.into(), cell::age(object, now)]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cidrs(list: &[&str]) -> Value {
        json!({"metadata": {"name": "c"}, "spec": {"cidrs": list}})
    }

    #[track_caller]
    fn check(errors: &[FieldError], expected: &[&str]) {
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn one_range_of_each_family() {
        check(&ServiceCidr.validate(&cidrs(&["10.96.0.0/16", "fd00::/112"])), &[]);
        check(
            &ServiceCidr.validate(&cidrs(&[])),
            &["spec.cidrs: Required value: at least one CIDR required"],
        );
        check(
            &ServiceCidr.validate(&cidrs(&["10.96.0.0"])),
            &[
                "spec.cidrs[0]: Invalid value: \"10.96.0.0\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            ],
        );
        check(
            &ServiceCidr.validate(&cidrs(&["10.96.0.0/16", "10.97.0.0/16"])),
            &[
                "spec.cidrs: Invalid value: {\"cidrs\":[\"10.96.0.0/16\",\"10.97.0.0/16\"]}: may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/96",
            ],
        );
    }

    #[test]
    fn ranges_only_grow_to_dual_stack() {
        let old = cidrs(&["10.96.0.0/16"]);
        check(&ServiceCidr.validate_transition(&cidrs(&["10.96.0.0/16", "fd00::/112"]), &old), &[]);
        check(
            &ServiceCidr.validate_transition(&cidrs(&["10.97.0.0/16"]), &old),
            &["spec.cidrs[0]: Invalid value: \"10.97.0.0/16\": field is immutable"],
        );
        check(
            &ServiceCidr.validate_transition(&cidrs(&[]), &old),
            &["spec.cidrs: Invalid value: []: field is immutable"],
        );
    }
}
