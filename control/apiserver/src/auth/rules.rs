//! One RBAC rule: what it matches, and whether rules that somebody holds cover rules that he hands out.
//!
//! Pure. Who holds which rules is in `policy`.

use serde_json::Value;

use crate::attributes::Attributes;

/// A `PolicyRule` of rbac.authorization.k8s.io/v1.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// `get`, `list`, .. or `*`.
    pub verbs: Vec<String>,
    /// API groups; `""` is core, `*` all.
    pub api_groups: Vec<String>,
    /// `pods`, `pods/log`, `*/scale`, `*`.
    pub resources: Vec<String>,
    /// Object names; empty means all.
    pub resource_names: Vec<String>,
    /// Paths, exact or with a trailing `*`.
    pub non_resource_urls: Vec<String>,
}

const ALL: &str = "*";

impl Rule {
    /// Reads a rule from its JSON form; what has another type counts as absent.
    pub fn from_json(rule: &Value) -> Self {
        Self {
            verbs: strings(&rule["verbs"]),
            api_groups: strings(&rule["apiGroups"]),
            resources: strings(&rule["resources"]),
            resource_names: strings(&rule["resourceNames"]),
            non_resource_urls: strings(&rule["nonResourceURLs"]),
        }
    }

    /// Reads the `rules` of a Role or ClusterRole.
    pub fn list_from_json(rules: &Value) -> Vec<Self> {
        rules.as_array().map(|rules| rules.iter().map(Self::from_json).collect()).unwrap_or_default()
    }

    /// Whether the rule permits what is asked.
    pub fn allows(&self, asked: &Attributes) -> bool {
        if !has(&self.verbs, &asked.verb) {
            return false;
        }
        if !asked.resource_request {
            return self.non_resource_urls.iter().any(|pattern| url_matches(pattern, &asked.path));
        }
        has(&self.api_groups, &asked.group)
            && self.resources.iter().any(|held| resource_matches(held, &asked.resource, &asked.subresource))
            && (self.resource_names.is_empty() || self.resource_names.contains(&asked.name))
    }

    /// The rule as single grants: one verb on one resource of one group (and name), or on one path.
    fn single_grants(&self) -> Vec<Self> {
        let mut grants = Vec::new();
        for verb in &self.verbs {
            let verbs = vec![verb.clone()];
            for url in &self.non_resource_urls {
                grants.push(Self {
                    verbs: verbs.clone(),
                    non_resource_urls: vec![url.clone()],
                    ..Self::default()
                });
            }
            for (group, resource) in
                self.api_groups.iter().flat_map(|g| self.resources.iter().map(move |r| (g, r)))
            {
                let grant = Self {
                    verbs: verbs.clone(),
                    api_groups: vec![group.clone()],
                    resources: vec![resource.clone()],
                    ..Self::default()
                };
                if self.resource_names.is_empty() {
                    grants.push(grant);
                    continue;
                }
                grants.extend(
                    self.resource_names
                        .iter()
                        .map(|name| Self { resource_names: vec![name.clone()], ..grant.clone() }),
                );
            }
        }
        grants
    }

    /// Whether whoever holds `self` holds the single grant `asked`.
    fn covers(&self, asked: &Self) -> bool {
        let all_in = |asked: &[String], held: &[String]| asked.iter().all(|item| has(held, item));
        if !all_in(&asked.verbs, &self.verbs) {
            return false;
        }
        if !asked.non_resource_urls.is_empty() {
            return asked
                .non_resource_urls
                .iter()
                .all(|url| self.non_resource_urls.iter().any(|held| held == url || url_matches(held, url)));
        }
        let names_covered = self.resource_names.is_empty()
            || (!asked.resource_names.is_empty()
                && asked.resource_names.iter().all(|n| self.resource_names.contains(n)));
        let resources_covered = asked.resources.iter().all(|asked| {
            let (resource, subresource) = asked.split_once('/').unwrap_or((asked, ""));
            self.resources.iter().any(|held| resource_matches(held, resource, subresource))
        });
        names_covered && all_in(&asked.api_groups, &self.api_groups) && resources_covered
    }

    /// Upstream's one-line form, as the escalation message shows it.
    fn compact(&self) -> String {
        let parts = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ];
        let shown: Vec<String> = parts
            .iter()
            .filter(|(_, items)| !items.is_empty())
            .map(|(name, items)| format!("{name}:{}", quoted_list(items)))
            .collect();
        format!("{{{}}}", shown.join(", "))
    }
}

/// The grants in `given` that `held` does not cover, in upstream's one-line form, sorted, verbs of one resource
/// on one line. Empty means nothing is escalated.
pub fn uncovered(held: &[Rule], given: &[Rule]) -> Vec<String> {
    let mut missing: Vec<Rule> = Vec::new();
    for grant in given.iter().flat_map(Rule::single_grants) {
        if held.iter().any(|rule| rule.covers(&grant)) {
            continue;
        }
        let mut verbs = grant.verbs.clone();
        let same_target = missing.iter_mut().find(|rule| {
            (&rule.api_groups, &rule.resources, &rule.resource_names, &rule.non_resource_urls)
                == (&grant.api_groups, &grant.resources, &grant.resource_names, &grant.non_resource_urls)
        });
        match same_target {
            Some(rule) => {
                verbs.retain(|verb| !rule.verbs.contains(verb));
                rule.verbs.extend(verbs);
            }
            None => missing.push(grant),
        }
    }
    let mut lines: Vec<String> = missing.iter().map(Rule::compact).collect();
    lines.sort();
    lines
}

/// Go's `%q` of a list of strings: `["a" "b"]`.
pub fn quoted_list(items: &[String]) -> String {
    let quoted: Vec<String> = items.iter().map(|item| api::status::quote(item)).collect();
    format!("[{}]", quoted.join(" "))
}

fn has(held: &[String], asked: &str) -> bool {
    held.iter().any(|item| item == ALL || item == asked)
}

fn resource_matches(held: &str, resource: &str, subresource: &str) -> bool {
    if held == ALL {
        return true;
    }
    match held.split_once('/') {
        None => subresource.is_empty() && held == resource,
        Some((held_resource, held_subresource)) => {
            !subresource.is_empty()
                && held_subresource == subresource
                && (held_resource == ALL || held_resource == resource)
        }
    }
}

fn url_matches(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => pattern == path,
    }
}

fn strings(list: &Value) -> Vec<String> {
    let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A rule from `verbs groups resources [names]`, lists separated by commas; `core` is the group "".
    fn rule(text: &str) -> Rule {
        let list = |part: Option<&str>| -> Vec<String> {
            part.map(|p| {
                p.split(',').map(|s| if s == "core" { String::new() } else { s.to_owned() }).collect()
            })
            .unwrap_or_default()
        };
        let mut parts = text.split(' ');
        let verbs = list(parts.next());
        let second = list(parts.next());
        if second.first().is_some_and(|s| s.starts_with('/')) {
            return Rule { verbs, non_resource_urls: second, ..Rule::default() };
        }
        Rule {
            verbs,
            api_groups: second,
            resources: list(parts.next()),
            resource_names: list(parts.next()),
            ..Rule::default()
        }
    }

    /// What is asked, from `verb group resource[/sub] [name]` or `verb /path`.
    fn asked(text: &str) -> Attributes {
        let parts: Vec<&str> = text.split(' ').collect();
        let verb = parts[0].to_owned();
        if parts[1].starts_with('/') {
            return Attributes { verb, path: parts[1].to_owned(), ..Attributes::default() };
        }
        let (resource, subresource) = parts[2].split_once('/').unwrap_or((parts[2], ""));
        Attributes {
            verb,
            group: if parts[1] == "core" { String::new() } else { parts[1].to_owned() },
            resource: resource.to_owned(),
            subresource: subresource.to_owned(),
            name: parts.get(3).unwrap_or(&"").to_string(),
            resource_request: true,
            ..Attributes::default()
        }
    }

    #[test]
    fn a_rule_allows_what_it_names_and_nothing_else() {
        let table: &[(&str, &[&str], &[&str])] = &[
            (
                "get,list core pods",
                &["get core pods", "list core pods x"],
                &["watch core pods", "get apps pods", "get core pods/log", "get /pods"],
            ),
            ("get core pods/log", &["get core pods/log x"], &["get core pods x", "get core pods/exec x"]),
            ("* * *", &["delete apps deployments/scale x", "get core pods"], &["get /metrics"]),
            (
                "update * */scale",
                &["update apps deployments/scale x"],
                &["update apps deployments x", "update apps deployments/status x"],
            ),
            ("get core secrets a,b", &["get core secrets a"], &["get core secrets c", "list core secrets"]),
            (
                "get /healthz,/api/*",
                &["get /healthz", "get /api/v1", "get /api/"],
                &["get /healthz/x", "get /api", "post /healthz"],
            ),
            ("* /*", &["get /", "put /x/y"], &["get core pods"]),
        ];
        for (held, allowed, refused) in table {
            let held = rule(held);
            for text in *allowed {
                assert!(held.allows(&asked(text)), "{held:?} should allow {text}");
            }
            for text in *refused {
                assert!(!held.allows(&asked(text)), "{held:?} should not allow {text}");
            }
        }
    }

    #[track_caller]
    fn check_uncovered(held: &[&str], given: &str, expected: &[&str]) {
        let held: Vec<Rule> = held.iter().map(|text| rule(text)).collect();
        assert_eq!(uncovered(&held, &[rule(given)]), expected);
    }

    #[test]
    fn giving_more_than_one_holds_is_listed_and_the_rest_is_not() {
        check_uncovered(&["* * *"], "get,list core pods", &[]);
        check_uncovered(&["get core pods", "list core pods"], "get,list core pods", &[]);
        check_uncovered(
            &["get core pods"],
            "get,list,watch core pods",
            &[r#"{APIGroups:[""], Resources:["pods"], Verbs:["list" "watch"]}"#],
        );
        check_uncovered(
            &["get core secrets a"],
            "get core secrets",
            &[r#"{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}"#],
        );
        check_uncovered(
            &["get core secrets a"],
            "get core secrets a,b",
            &[r#"{APIGroups:[""], Resources:["secrets"], ResourceNames:["b"], Verbs:["get"]}"#],
        );
        check_uncovered(&["* * */scale"], "get apps deployments/scale", &[]);
        check_uncovered(
            &["get core pods"],
            "get core *",
            &[r#"{APIGroups:[""], Resources:["*"], Verbs:["get"]}"#],
        );
        check_uncovered(
            &["get /api/*"],
            "get /api/v1,/metrics",
            &[r#"{NonResourceURLs:["/metrics"], Verbs:["get"]}"#],
        );
        check_uncovered(&["get /api/*"], "get /api/*", &[]);
    }
}
