//! Address families of a Service: which it gets, from what it asks for, what it had, and what the cluster offers.
//!
//! Pure, on the Service's JSON. Gives no addresses: see `cluster_ip`.
//!
//! # See
//! kubernetes `pkg/registry/core/service/storage/alloc.go`, KEP-563.

use std::net::IpAddr;

use api::status::FieldError;
use serde_json::{Value, json};

use super::cidr::Family;

const SINGLE: &str = "SingleStack";
const PREFER: &str = "PreferDualStack";
const REQUIRE: &str = "RequireDualStack";
/// `clusterIP` of a headless service.
pub const NONE: &str = "None";

/// The fields of a Service's spec that families and addresses depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addressing {
    /// `spec.type`.
    pub kind: String,
    /// `spec.ipFamilyPolicy`.
    pub policy: Option<String>,
    /// `spec.ipFamilies`.
    pub families: Vec<String>,
    /// `spec.clusterIPs`; `clusterIP` alone counts as a list of one.
    pub cluster_ips: Vec<String>,
    /// The service selects pods.
    pub selects: bool,
}

impl Addressing {
    /// Reads the fields of a Service.
    pub fn of(service: &Value) -> Self {
        let spec = &service["spec"];
        let list = |value: &Value| -> Vec<String> {
            let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
            items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
        };
        let mut cluster_ips = list(&spec["clusterIPs"]);
        let primary = spec["clusterIP"].as_str().unwrap_or_default();
        if cluster_ips.is_empty() && !primary.is_empty() {
            cluster_ips.push(primary.to_owned());
        }
        Self {
            kind: spec["type"].as_str().unwrap_or("ClusterIP").to_owned(),
            policy: spec["ipFamilyPolicy"].as_str().map(str::to_owned),
            families: list(&spec["ipFamilies"]),
            cluster_ips,
            selects: spec["selector"].as_object().is_some_and(|selector| !selector.is_empty()),
        }
    }

    /// Writes the fields back.
    pub fn write(&self, service: &mut Value) {
        let spec = &mut service["spec"];
        if self.is_external() {
            for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                if let Some(spec) = spec.as_object_mut() {
                    spec.shift_remove(field);
                }
            }
            return;
        }
        if let Some(primary) = self.cluster_ips.first() {
            spec["clusterIP"] = primary.as_str().into();
            spec["clusterIPs"] = json!(self.cluster_ips);
        }
        spec["ipFamilies"] = json!(self.families);
        if let Some(policy) = &self.policy {
            spec["ipFamilyPolicy"] = policy.as_str().into();
        }
    }

    /// `ExternalName`: neither addresses nor ports.
    pub fn is_external(&self) -> bool {
        self.kind == "ExternalName"
    }

    /// `clusterIP: None`.
    pub fn is_headless(&self) -> bool {
        self.cluster_ips.first().is_some_and(|ip| ip == NONE)
    }

    /// Gets addresses from the service ranges.
    pub fn needs_addresses(&self) -> bool {
        !self.is_external() && !self.is_headless()
    }

    /// Fills in policy and families. `old` is the service before an update; `offered` are the families of the
    /// cluster's service ranges, the default one first.
    pub fn settle(&mut self, old: Option<&Self>, offered: &[Family]) -> Result<(), Vec<FieldError>> {
        if self.is_external() || old.is_some_and(|old| self.keeps_preferred_dual_stack(old)) {
            return Ok(());
        }
        self.infer_policy(old);
        let mut errors = self.check_against_old(old);
        errors.extend(self.check_counts());
        errors.extend(self.infer_families(offered));
        if !errors.is_empty() {
            return Err(errors);
        }
        let default = offered.first().copied().unwrap_or(Family::V4);
        if self.is_headless() && !self.selects {
            // Its endpoints are made by hand, in whatever families they like.
            self.complete_families(default, true);
            return Ok(());
        }
        let errors = self.check_offered(offered);
        if !errors.is_empty() {
            return Err(errors);
        }
        self.complete_families(default, offered.len() == 2);
        Ok(())
    }

    /// An unchanged PreferDualStack service is neither up- nor downgraded because the cluster changed.
    fn keeps_preferred_dual_stack(&self, old: &Self) -> bool {
        let prefers = |policy: &Option<String>| policy.as_deref() == Some(PREFER);
        prefers(&self.policy)
            && (old.policy.is_none() || prefers(&old.policy))
            && self.kind == old.kind
            && self.cluster_ips == old.cluster_ips
            && self.families == old.families
    }

    fn infer_policy(&mut self, old: Option<&Self>) {
        if self.policy.is_some() {
            return;
        }
        self.policy = Some(match old.and_then(|old| old.policy.clone()) {
            Some(before) => before,
            None if self.is_headless() && !self.selects => REQUIRE.to_owned(),
            None => SINGLE.to_owned(),
        });
    }

    fn is_single(&self) -> bool {
        self.policy.as_deref() == Some(SINGLE)
    }

    fn policy_error(&self, detail: &str) -> FieldError {
        FieldError::invalid("spec.ipFamilyPolicy", self.policy.clone().unwrap_or_default(), detail)
    }

    fn check_against_old(&mut self, old: Option<&Self>) -> Vec<FieldError> {
        let Some(old) = old else { return Vec::new() };
        if self.is_single() {
            // Going single-stack with the lists untouched is clear enough: the second of each goes.
            if self.cluster_ips == old.cluster_ips {
                self.cluster_ips.truncate(1);
            }
            if self.families == old.families {
                self.families.truncate(1);
            }
            return Vec::new();
        }
        let reduced = |new: &[String], old: &[String]| !new.is_empty() && new.len() < old.len();
        let mut errors = Vec::new();
        if reduced(&self.cluster_ips, &old.cluster_ips) {
            errors.push(self.policy_error("must be 'SingleStack' to release the secondary cluster IP"));
        }
        if reduced(&self.families, &old.families) {
            errors.push(self.policy_error("must be 'SingleStack' to release the secondary IP family"));
        }
        errors
    }

    fn check_counts(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if self.is_single() && self.cluster_ips.len() == 2 {
            errors.push(self.policy_error(
                "must be 'RequireDualStack' or 'PreferDualStack' when multiple cluster IPs are specified",
            ));
        }
        if self.is_single() && self.families.len() == 2 {
            errors.push(self.policy_error(
                "must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified",
            ));
        }
        errors
    }

    /// Adds the families of addresses that were asked for.
    fn infer_families(&mut self, offered: &[Family]) -> Vec<FieldError> {
        let mut errors = Vec::new();
        for (i, ip) in self.cluster_ips.iter().enumerate().take_while(|(_, ip)| *ip != NONE) {
            let Ok(address) = ip.parse::<IpAddr>() else { continue };
            let family = Family::of(address);
            match self.families.get(i) {
                Some(asked) if asked != family.name() => {
                    let detail = format!("expected an {asked} value as indicated by `ipFamilies[{i}]`");
                    errors.push(FieldError::invalid(format!("spec.clusterIPs[{i}]"), ip.as_str(), detail));
                }
                Some(_) => {}
                None if offered.contains(&family) => self.families.push(family.name().to_owned()),
                None => errors.push(FieldError::invalid(
                    format!("spec.clusterIPs[{i}]"),
                    json!(self.cluster_ips),
                    format!("{} is not configured on this cluster", family.name()),
                )),
            }
        }
        errors
    }

    fn check_offered(&self, offered: &[Family]) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if self.policy.as_deref() == Some(REQUIRE) && offered.len() < 2 {
            errors.push(self.policy_error("this cluster is not configured for dual-stack services"));
        }
        for (i, family) in self.families.iter().enumerate() {
            if !Family::named(family).is_some_and(|family| offered.contains(&family)) {
                let path = format!("spec.ipFamilies[{i}]");
                errors.push(FieldError::invalid(path, family.as_str(), "not configured on this cluster"));
            }
        }
        errors
    }

    fn complete_families(&mut self, default: Family, dual: bool) {
        if self.families.is_empty() {
            self.families.push(default.name().to_owned());
        }
        let second = Family::named(&self.families[0]).map(Family::other);
        if let (false, true, 1, Some(second)) = (self.is_single(), dual, self.families.len(), second) {
            self.families.push(second.name().to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUAL: &[Family] = &[Family::V4, Family::V6];

    fn service(text: &str) -> Addressing {
        let mut service = json!({"spec": {"selector": {"app": "web"}}});
        for word in text.split_whitespace() {
            let (field, value) = word.split_once('=').unwrap_or((word, ""));
            let list = || json!(value.split(',').collect::<Vec<_>>());
            match field {
                "type" => service["spec"]["type"] = value.into(),
                "policy" => service["spec"]["ipFamilyPolicy"] = value.into(),
                "families" => service["spec"]["ipFamilies"] = list(),
                "ips" => service["spec"]["clusterIPs"] = list(),
                "ip" => service["spec"]["clusterIP"] = value.into(),
                "unselecting" => service["spec"]["selector"] = Value::Null,
                _ => panic!("{word}"),
            }
        }
        Addressing::of(&service)
    }

    /// Settles `new` (after `old`, if any) and gives `policy families ips`, or the errors.
    fn settle(new: &str, old: Option<&str>, offered: &[Family]) -> String {
        let (mut new, old) = (service(new), old.map(service));
        match new.settle(old.as_ref(), offered) {
            Ok(()) => {
                let words =
                    [new.policy.unwrap_or_default(), new.families.join(","), new.cluster_ips.join(",")];
                words.join(" ").trim().to_owned()
            }
            Err(errors) => errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        }
    }

    #[test]
    fn new_services_get_the_families_they_ask_for() {
        for (new, offered, expected) in [
            ("", DUAL, "SingleStack IPv4"),
            ("", &[Family::V6], "SingleStack IPv6"),
            ("policy=PreferDualStack", DUAL, "PreferDualStack IPv4,IPv6"),
            ("policy=PreferDualStack", &[Family::V4], "PreferDualStack IPv4"),
            ("policy=RequireDualStack families=IPv6", DUAL, "RequireDualStack IPv6,IPv4"),
            ("families=IPv6", DUAL, "SingleStack IPv6"),
            ("ip=fd00::9", DUAL, "SingleStack IPv6 fd00::9"),
            ("policy=PreferDualStack ips=fd00::9", DUAL, "PreferDualStack IPv6,IPv4 fd00::9"),
            ("ip=None", DUAL, "SingleStack IPv4 None"),
            ("ip=None unselecting", DUAL, "RequireDualStack IPv4,IPv6 None"),
            ("ip=None unselecting", &[Family::V4], "RequireDualStack IPv4,IPv6 None"),
            ("type=ExternalName", DUAL, ""),
        ] {
            assert_eq!(settle(new, None, offered), expected, "{new}");
        }
    }

    #[test]
    fn contradictions_are_refused_in_upstreams_words() {
        for (new, old, offered, expected) in [
            (
                "policy=RequireDualStack",
                None,
                &[Family::V4][..],
                r#"spec.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not configured for dual-stack services"#,
            ),
            (
                "families=IPv6",
                None,
                &[Family::V4],
                r#"spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster"#,
            ),
            (
                "families=IPv4,IPv6",
                None,
                DUAL,
                r#"spec.ipFamilyPolicy: Invalid value: "SingleStack": must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified"#,
            ),
            (
                "ip=fd00::9",
                None,
                &[Family::V4],
                r#"spec.clusterIPs[0]: Invalid value: ["fd00::9"]: IPv6 is not configured on this cluster"#,
            ),
            (
                "policy=PreferDualStack families=IPv4 ips=10.0.0.1",
                Some("policy=RequireDualStack families=IPv4,IPv6 ips=10.0.0.1,fd00::1"),
                DUAL,
                r#"spec.ipFamilyPolicy: Invalid value: "PreferDualStack": must be 'SingleStack' to release the secondary cluster IP; spec.ipFamilyPolicy: Invalid value: "PreferDualStack": must be 'SingleStack' to release the secondary IP family"#,
            ),
        ] {
            assert_eq!(settle(new, old, offered), expected, "{new}");
        }
    }

    #[test]
    fn updates_go_between_one_and_two_families_only_when_told() {
        let single = "policy=SingleStack families=IPv4 ips=10.0.0.1";
        let dual = "policy=PreferDualStack families=IPv4,IPv6 ips=10.0.0.1,fd00::1";
        for (new, old, offered, expected) in [
            (
                "policy=PreferDualStack families=IPv4 ips=10.0.0.1",
                single,
                DUAL,
                "PreferDualStack IPv4,IPv6 10.0.0.1",
            ),
            ("families=IPv4 ips=10.0.0.1", single, DUAL, "SingleStack IPv4 10.0.0.1"),
            (
                "policy=SingleStack families=IPv4,IPv6 ips=10.0.0.1,fd00::1",
                dual,
                DUAL,
                "SingleStack IPv4 10.0.0.1",
            ),
            (dual, dual, &[Family::V4][..], "PreferDualStack IPv4,IPv6 10.0.0.1,fd00::1"),
            ("", "type=ExternalName", DUAL, "SingleStack IPv4"),
        ] {
            assert_eq!(settle(new, Some(old), offered), expected, "{new} after {old}");
        }
    }

    #[test]
    fn becoming_an_external_name_drops_the_fields() {
        let mut object = json!({"spec": {"type": "ExternalName", "externalName": "x", "clusterIP": "10.0.0.1",
            "clusterIPs": ["10.0.0.1"], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"}});
        Addressing::of(&object).write(&mut object);
        assert_eq!(object, json!({"spec": {"type": "ExternalName", "externalName": "x"}}));
    }
}
