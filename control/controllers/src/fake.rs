//! An API server's state in memory, for tests: fixtures in one line, plans as text, and a cluster that executes plans until
//! nothing is left to do. It knows no admission, defaulting or finalizers.

use std::collections::BTreeMap;
use std::fmt::Write;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::{
    Container, ContainerPort, Pod, PodCondition, PodIP, PodSpec, PodStatus, PodTemplateSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference, Time};
use serde_json::{Value, json};

use crate::plan::{Action, Context, Controller, PatchStyle, Plan, Settings, kind_of};
use crate::table::Key;
use crate::view::{Kind, View, Watched};

/// The time of tests.
pub const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

pub fn settings() -> Settings {
    Settings { root_ca_pem: "PEM".into(), cluster_cidrs: vec!["10.244.0.0/16".into()] }
}

fn labels() -> BTreeMap<String, String> {
    BTreeMap::from([("app".to_owned(), "web".to_owned())])
}

pub fn metadata(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.into()),
        namespace: Some("default".into()),
        uid: Some(format!("uid-{name}")),
        creation_timestamp: Some(Time(NOW)),
        generation: Some(1),
        ..ObjectMeta::default()
    }
}

/// Objects that many tests begin with; all select `app=web`.
pub struct Fixture;

impl Fixture {
    pub fn template(image: &str) -> PodTemplateSpec {
        PodTemplateSpec {
            metadata: Some(ObjectMeta { labels: Some(labels()), ..ObjectMeta::default() }),
            spec: Some(PodSpec {
                containers: vec![Container {
                    name: "c".into(),
                    image: Some(image.into()),
                    ports: Some(vec![ContainerPort {
                        name: Some("http".into()),
                        container_port: 8080,
                        ..ContainerPort::default()
                    }]),
                    ..Container::default()
                }],
                ..PodSpec::default()
            }),
        }
    }

    pub fn selector() -> LabelSelector {
        LabelSelector { match_labels: Some(labels()), match_expressions: None }
    }

    pub fn replica_set(name: &str, replicas: i32) -> ReplicaSet {
        ReplicaSet {
            metadata: metadata(name),
            spec: Some(ReplicaSetSpec {
                replicas: Some(replicas),
                selector: Self::selector(),
                template: Some(Self::template("v1")),
                min_ready_seconds: None,
            }),
            status: None,
        }
    }

    pub fn deployment(name: &str, replicas: i32, image: &str) -> Deployment {
        Deployment {
            metadata: metadata(name),
            spec: Some(DeploymentSpec {
                replicas: Some(replicas),
                selector: Self::selector(),
                template: Self::template(image),
                revision_history_limit: Some(10),
                progress_deadline_seconds: Some(600),
                ..DeploymentSpec::default()
            }),
            status: None,
        }
    }
}

/// A pod from `name node phase age [terminating]`: phase `Ready` is Running and Ready, `-` as node is none, age as `5m` or `9s`.
pub fn pod_line(line: &str, owner: Option<OwnerReference>) -> Pod {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [name, node, phase, age, flags @ ..] = words.as_slice() else {
        panic!("pod line {line:?}: name node phase age")
    };
    let (count, unit) = age.split_at(age.len() - 1);
    let seconds = count.parse::<i64>().expect("age") * if unit == "m" { 60 } else { 1 };
    let born = NOW - SignedDuration::from_secs(seconds);
    let ready = *phase == "Ready";
    let number = name.bytes().map(u32::from).sum::<u32>() % 250;
    Pod {
        metadata: ObjectMeta {
            labels: Some(labels()),
            owner_references: owner.map(|it| vec![it]),
            creation_timestamp: Some(Time(born)),
            deletion_timestamp: flags.contains(&"terminating").then_some(Time(NOW)),
            ..metadata(name)
        },
        spec: Some(PodSpec {
            node_name: (*node != "-").then(|| (*node).to_owned()),
            ..Fixture::template("v1").spec.expect("the template has a spec")
        }),
        status: Some(PodStatus {
            phase: Some(if ready { "Running" } else { phase }.to_owned()),
            conditions: Some(vec![PodCondition {
                type_: "Ready".into(),
                status: if ready { "True" } else { "False" }.into(),
                last_transition_time: Some(Time(born)),
                ..PodCondition::default()
            }]),
            pod_ips: (*node != "-").then(|| {
                vec![PodIP { ip: format!("10.0.0.{number}") }, PodIP { ip: format!("fd00::{number}") }]
            }),
            ..PodStatus::default()
        }),
    }
}

/// A plan as text, one action a line.
pub fn describe(plan: &Plan) -> String {
    let mut out = String::new();
    for action in plan.actions.iter().chain(&plan.status) {
        let _ = writeln!(out, "{}", line(action));
    }
    if let Some(delay) = plan.requeue {
        let _ = writeln!(out, "requeue after {}s", delay.as_secs());
    }
    out
}

fn name_of(object: &Value) -> String {
    let meta = &object["metadata"];
    meta["name"]
        .as_str()
        .map(Into::into)
        .or_else(|| Some(format!("{}*", meta["generateName"].as_str()?)))
        .unwrap_or_default()
}

fn line(action: &Action) -> String {
    let list = |all: &[Action]| all.iter().map(line).collect::<Vec<_>>().join("; ");
    match action {
        Action::Create { resource, object, .. } => format!("create {} {}", resource.kind, name_of(object)),
        Action::Replace { target, .. } => format!("replace {} {}", target.resource.kind, target.key.name),
        Action::ReplaceSubresource { target, subresource, object } => {
            format!(
                "{subresource} {} {}: {}",
                target.resource.kind,
                target.key.name,
                status_line(&object["status"])
            )
        }
        Action::Patch { target, subresource, patch, .. } => {
            let path = subresource.map(|it| format!("/{it}")).unwrap_or_default();
            format!("patch {}{path} {} {patch}", target.resource.kind, target.key.name)
        }
        Action::Delete { target, .. } => format!("delete {} {}", target.resource.kind, target.key.name),
        Action::SlowStart(all) => format!("slow-start: {}", list(all)),
        Action::Concurrent(all) => format!("concurrent: {}", list(all)),
        Action::Event(it) => format!("event {:?} {} {}", it.kind, it.reason, it.message),
    }
}

/// The counters and conditions of a status, those that are set.
fn status_line(status: &Value) -> String {
    let mut parts = Vec::new();
    for (field, value) in status.as_object().into_iter().flatten() {
        if let Some(short) = field
            .strip_suffix("Replicas")
            .filter(|it| matches!(*it, "ready" | "available" | "updated" | "unavailable"))
        {
            parts.push(format!("{short}={value}"));
        } else if field == "replicas" || field.ends_with("Scheduled") || field.starts_with("number") {
            parts.push(format!("{field}={value}"));
        }
    }
    parts.sort_by_key(|it| {
        ["replicas", "ready", "available", "updated"]
            .iter()
            .position(|known| it.starts_with(known))
            .unwrap_or(9)
    });
    for condition in status["conditions"].as_array().into_iter().flatten() {
        let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
        parts.push(format!("{}={}/{}", text("type"), text("status"), text("reason")));
    }
    parts.join(" ")
}

/// A cluster without processes: tables, a clock, and controllers that are run by hand.
pub struct Cluster {
    pub view: View,
    pub now: Timestamp,
    pub events: Vec<String>,
    settings: Settings,
    version: u64,
}

impl Default for Cluster {
    fn default() -> Self {
        Self { view: View::default(), now: NOW, events: Vec::new(), settings: settings(), version: 1 }
    }
}

impl Cluster {
    /// Runs every controller on every key of its first watched kind, once; true if something was written.
    pub fn round(&mut self, controllers: &[&Controller]) -> bool {
        let mut wrote = false;
        for controller in controllers {
            let kind = controller.watches[0].kind();
            for key in self.keys(kind) {
                let context = Context { since: NOW, ..Context::at(self.now, &self.settings) };
                let plan = (controller.plan)(&self.view, &key, &context);
                wrote |= plan.actions.iter().chain(&plan.status).any(|it| !matches!(it, Action::Event(_)));
                plan.actions.into_iter().chain(plan.status).for_each(|it| self.execute(it));
            }
        }
        wrote
    }

    /// Plans once for default/`name` and carries it out; how many actions that took.
    pub fn run(&mut self, plan: fn(&View, &Key, &Context<'_>) -> Plan, name: &str) -> usize {
        let plan = plan(&self.view, &Key::new("default", name), &Context::at(self.now, &self.settings));
        let writes = plan.actions.len();
        plan.actions.into_iter().for_each(|it| self.execute(it));
        writes
    }

    /// Rounds until nothing is written.
    pub fn settle(&mut self, controllers: &[&Controller]) {
        for _ in 0..200 {
            if !self.round(controllers) {
                return;
            }
        }
        panic!("controllers do not come to rest");
    }

    fn keys(&self, kind: Kind) -> Vec<Key> {
        macro_rules! collect {
            ($name:ident $table:ident) => {
                if kind == Kind::$name {
                    return self.view.$table.all().iter().map(|it| Key::of(&it.metadata)).collect();
                }
            };
        }
        for_each_kind!(collect);
        Vec::new()
    }

    pub fn execute(&mut self, action: Action) {
        match action {
            Action::SlowStart(all) | Action::Concurrent(all) => {
                all.into_iter().for_each(|it| self.execute(it));
            }
            Action::Event(note) => self.events.push(format!("{} {}", note.reason, note.message)),
            Action::Create { resource, mut object, .. } => {
                let number = self.version;
                let meta = &mut object["metadata"];
                if let (Value::Null, Some(prefix)) = (&meta["name"], meta["generateName"].as_str()) {
                    meta["name"] = json!(format!("{prefix}{number}"));
                }
                meta["uid"] = json!(format!("uid-{number}"));
                meta["creationTimestamp"] = json!(Time(self.now));
                meta["generation"] = json!(1);
                self.put(kind_of(&resource).expect("watched"), object);
            }
            Action::Replace { target, object } => {
                self.put(kind_of(&target.resource).expect("watched"), object);
            }
            Action::ReplaceSubresource { target, object, .. } => {
                self.put(kind_of(&target.resource).expect("watched"), object);
            }
            Action::Patch { target, patch, style, subresource } => {
                let kind = kind_of(&target.resource).expect("watched");
                let Some(mut object) = self.object(kind, &target.key) else { return };
                assert_ne!(style, PatchStyle::Json, "not needed so far");
                if let Some(wanted) = patch["metadata"]["resourceVersion"].as_str() {
                    assert_eq!(
                        Some(wanted),
                        object["metadata"]["resourceVersion"].as_str(),
                        "conflict on {}",
                        target.key
                    );
                }
                merge(&mut object, &patch);
                if subresource.is_none() && patch.get("spec").is_some() {
                    object["metadata"]["generation"] =
                        json!(object["metadata"]["generation"].as_i64().unwrap_or(0) + 1);
                }
                self.put(kind, object);
            }
            Action::Delete { target, .. } => {
                self.remove(kind_of(&target.resource).expect("watched"), &target.key);
            }
        }
    }

    fn object(&self, kind: Kind, key: &Key) -> Option<Value> {
        macro_rules! find {
            ($name:ident $table:ident) => {
                if kind == Kind::$name {
                    return self.view.$table.at(key).map(|it| crate::plan::to_value(&*it));
                }
            };
        }
        for_each_kind!(find);
        None
    }

    fn put(&mut self, kind: Kind, mut object: Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        macro_rules! store {
            ($name:ident $table:ident) => {
                if kind == Kind::$name {
                    self.view
                        .$table
                        .apply(serde_json::from_value(object.clone()).expect("a well-formed object"));
                }
            };
        }
        for_each_kind!(store);
    }

    fn remove(&mut self, kind: Kind, key: &Key) {
        macro_rules! remove {
            ($name:ident $table:ident) => {
                if kind == Kind::$name
                    && let Some(object) = self.view.$table.at(key)
                {
                    self.view.$table.remove(&object);
                }
            };
        }
        for_each_kind!(remove);
    }

    /// Puts a typed object in, with a new resourceVersion.
    pub fn add<K: Watched + serde::Serialize>(&mut self, object: &K) {
        self.put(K::WATCHED, crate::plan::to_value(object));
    }
}

/// RFC 7386, with owner references and conditions merged by key as the strategic merge patch does.
fn merge(target: &mut Value, patch: &Value) {
    for (field, value) in patch.as_object().into_iter().flatten() {
        let slot = &mut target[field];
        match (field.as_str(), value) {
            ("ownerReferences" | "conditions", Value::Array(items)) => {
                let by = if field == "conditions" { "type" } else { "uid" };
                let mut all = slot.as_array().cloned().unwrap_or_default();
                for item in items {
                    all.retain(|it| it[by] != item[by]);
                    if item.get("$patch").is_none() {
                        all.push(item.clone());
                    }
                }
                *slot = Value::Array(all);
            }
            (_, Value::Object(_)) => {
                if !slot.is_object() {
                    *slot = json!({});
                }
                merge(slot, value);
            }
            _ => *slot = value.clone(),
        }
    }
}
