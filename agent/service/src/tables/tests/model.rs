//! The tables as a data plane would hold them, and what feeds them.

use std::collections::{BTreeMap, BTreeSet};

use abi::service::flags;
use expect_test::Expect;
use serde_json::{Value, json};

use super::super::*;
use crate::{Backend, BackendState, Family, Frontend, FrontendKey, LearnedService, ServiceRow};

#[derive(Default, Clone)]
pub struct Model {
    pub backends: BTreeMap<(Family, u32), Backend>,
    pub services: BTreeMap<u32, ServiceRow>,
    pub frontends: BTreeMap<FrontendKey, Frontend>,
    pub vips: BTreeSet<IpAddr>,
    pub ranges: BTreeSet<(u32, IpAddr, u8)>,
    pub health: BTreeMap<ObjectKey, HealthCheck>,
    pub problems: Vec<String>,
    /// Rows of an earlier process may be written once more.
    pub adopted: bool,
}

fn set<K: Ord, V: PartialEq>(map: &mut BTreeMap<K, V>, key: K, row: Option<V>) {
    match row {
        Some(row) => drop(map.insert(key, row)),
        None => assert!(map.remove(&key).is_some(), "removed a row that was not there"),
    }
}

impl Model {
    /// Applies in the order of the publication rule.
    fn apply(&mut self, diff: Diff) {
        for (id, base, prefix, allowed) in diff.source_ranges.iter().copied().filter(|(.., allowed)| *allowed)
        {
            assert!(allowed && (self.ranges.insert((id, base, prefix)) || self.adopted), "a range twice");
        }
        let (written, removed): (Vec<_>, Vec<_>) =
            diff.backends.into_iter().partition(|(_, _, row)| row.is_some());
        for (family, index, row) in written {
            set(&mut self.backends, (family, index), row);
        }
        let (rows, cleared): (Vec<_>, Vec<_>) = diff.services.into_iter().partition(|(_, row)| row.is_some());
        for (id, row) in rows {
            set(&mut self.services, id, row);
        }
        for (key, row) in diff.frontends {
            set(&mut self.frontends, key, row);
        }
        for (id, row) in cleared {
            set(&mut self.services, id, row);
        }
        for (family, index, row) in removed {
            set(&mut self.backends, (family, index), row);
        }
        for (id, base, prefix, _) in diff.source_ranges.into_iter().filter(|(.., allowed)| !allowed) {
            assert!(self.ranges.remove(&(id, base, prefix)), "removed a range that was not there");
        }
        for (address, present) in diff.vips {
            let changed = if present { self.vips.insert(address) } else { self.vips.remove(&address) };
            assert!(changed || self.adopted, "{address} did not change");
        }
        for (key, check) in diff.health_checks {
            let before = match check {
                Some(check) => self.health.insert(key, check),
                None => self.health.remove(&key),
            };
            assert_ne!(before, check, "a health check did not change");
        }
        self.problems.extend(diff.problems.iter().map(Problem::to_string));
    }

    /// Checks what must hold between rows.
    #[track_caller]
    fn audit(&self) {
        let mut named = BTreeSet::new();
        for (key, frontend) in &self.frontends {
            let row = self.services.get(&frontend.service).expect("a frontend without a service");
            let indexes = row.cluster.iter().chain(&row.local);
            named.extend(indexes.map(|index| (key.address.family(), *index)));
        }
        for row in self.services.values() {
            let maglev = row.flags & flags::MAGLEV != 0;
            for (run, table) in [(&row.cluster, &row.maglev_cluster), (&row.local, &row.maglev_local)] {
                assert_eq!(table.is_empty(), run.is_empty() || !maglev);
                assert!(table.iter().all(|position| usize::from(*position) < run.len()));
            }
        }
        assert!(named.iter().all(|index| self.backends.contains_key(index)), "a slot without a backend");
        assert!(self.ranges.iter().all(|(id, ..)| self.services.contains_key(id)), "ranges of no service");
    }

    /// Whether every row is gone.
    pub fn is_empty(&self) -> bool {
        let Self { backends, services, frontends, vips, ranges, health, .. } = self;
        let rows = (backends.is_empty(), services.is_empty(), frontends.is_empty());
        rows == (true, true, true) && vips.is_empty() && ranges.is_empty() && health.is_empty()
    }

    /// What an agent that starts on these tables learns.
    pub fn learned(&self) -> Learned {
        let service = |(id, row): (&u32, &ServiceRow)| {
            let mut families = self.frontends.iter().filter(|(_, frontend)| frontend.service == *id);
            let family = families.next().map_or(Family::V4, |(key, _)| key.address.family());
            let indexes: BTreeSet<u32> = row.cluster.iter().chain(&row.local).copied().collect();
            let backend = |index: u32| {
                let row = self.backends[&(family, index)];
                (family, index, row.address, row.port)
            };
            LearnedService {
                id: *id,
                backends: indexes.into_iter().map(backend).collect(),
                maglev: [row.maglev_cluster.len() as u16, row.maglev_local.len() as u16],
            }
        };
        Learned {
            frontends: self.frontends.iter().map(|(key, frontend)| (*key, frontend.service)).collect(),
            services: self.services.iter().map(service).collect(),
            vips: self.vips.iter().copied().collect(),
            source_ranges: self.ranges.iter().copied().collect(),
        }
    }

    pub fn text(&self) -> String {
        let mut lines = Vec::new();
        for (key, frontend) in &self.frontends {
            let row = &self.services[&frontend.service];
            let run = |indexes: &[u32]| {
                let one = |index: &u32| {
                    let backend = &self.backends[&(key.address.family(), *index)];
                    let mark = |on: bool, text: &'static str| if on { text } else { "" };
                    format!(
                        "{}:{}{}{}{}",
                        backend.address,
                        backend.port,
                        mark(backend.state == BackendState::Terminating, "(terminating)"),
                        mark(backend.local, "(local)"),
                        mark(backend.host, "(host)")
                    )
                };
                indexes.iter().map(one).collect::<Vec<_>>().join(" ")
            };
            let mut line = format!("{key} -> [{}]", run(&row.cluster));
            if row.flags & (flags::INTERNAL_LOCAL | flags::EXTERNAL_LOCAL | flags::DSR) != 0 {
                line += &format!(" local [{}]", run(&row.local));
            }
            let bits = [
                (flags::AFFINITY, "affinity"),
                (flags::MAGLEV, "maglev"),
                (flags::ROUND_ROBIN, "round-robin"),
                (flags::DSR, "dsr"),
                (flags::LEAST_CONNECTIONS, "least-connections"),
            ];
            let flags = bits.iter().filter(|(bit, _)| row.flags & bit != 0).map(|(_, name)| *name);
            let marks = [(frontend.external, "external"), (frontend.node_port, "node-port")];
            for mark in flags.chain(marks.iter().filter(|(on, _)| *on).map(|(_, name)| *name)) {
                line += &format!(" {mark}");
            }
            if frontend.source_ranges {
                let ranges = self.ranges.iter().filter(|(id, ..)| *id == frontend.service);
                let ranges = ranges.map(|(_, base, prefix)| format!("{base}/{prefix}")).collect::<Vec<_>>();
                line += &format!(" from [{}]", ranges.join(" "));
            }
            lines.push(line);
        }
        lines.extend(
            self.health
                .iter()
                .map(|(key, check)| format!("health of {key} at {}: {}", check.port, check.local_endpoints)),
        );
        lines.extend(self.problems.iter().map(|problem| format!("! {problem}")));
        if lines.is_empty() { "nothing\n".to_owned() } else { lines.join("\n") + "\n" }
    }
}

pub fn service(name: &str, spec: Value) -> Service {
    serde_json::from_value(json!({"metadata": {"namespace": "ns", "name": name}, "spec": spec})).unwrap()
}

pub fn slice(name: &str, owner: &str, family: &str, port: i32, endpoints: Value) -> EndpointSlice {
    serde_json::from_value(json!({
        "metadata": {"namespace": "ns", "name": name, "labels": {"kubernetes.io/service-name": owner}},
        "addressType": family, "ports": [{"name": "", "port": port}], "endpoints": endpoints
    }))
    .unwrap()
}

pub fn two_endpoints() -> Value {
    json!([{"addresses": ["10.244.0.5"], "nodeName": "here"}, {"addresses": ["10.244.1.6"], "nodeName": "there"}])
}

pub struct Fixture {
    pub tables: Tables,
    pub model: Model,
    pub now: u64,
}

impl Fixture {
    pub fn new() -> Self {
        let mut fixture = Self { tables: Tables::new("here"), model: Model::default(), now: 0 };
        let nodes = [
            NodeFacts { name: "here".into(), number: 1, addresses: vec!["172.30.0.11".parse().unwrap()] },
            NodeFacts { name: "there".into(), number: 2, addresses: vec!["172.30.0.12".parse().unwrap()] },
        ];
        let diff = fixture.tables.set_nodes(&nodes, "", 0);
        assert!(diff.is_empty());
        fixture
    }

    pub fn started() -> Self {
        let mut fixture = Self::new();
        let diff = fixture.tables.start(0);
        assert!(diff.is_empty());
        fixture
    }

    pub fn service(&mut self, name: &str, spec: Value) -> usize {
        let diff = self.tables.service_applied(&service(name, spec), self.now);
        self.take(diff)
    }

    pub fn slice(&mut self, name: &str, owner: &str, endpoints: Value) -> usize {
        let diff = self.tables.slice_applied(&slice(name, owner, "IPv4", 8080, endpoints), self.now);
        self.take(diff)
    }

    /// Applies a difference and returns how many rows it touched.
    pub fn take(&mut self, diff: Diff) -> usize {
        let rows = diff.backends.len() + diff.services.len() + diff.frontends.len();
        let mut keys: Vec<_> = diff.frontends.iter().map(|(key, _)| *key).collect();
        keys.dedup();
        assert_eq!(keys.len(), diff.frontends.len(), "a frontend twice");
        self.model.apply(diff);
        self.model.audit();
        if self.tables.started {
            let backends = self.model.backends.len();
            assert_eq!((self.model.services.len(), backends), self.tables.counts(), "rows that nobody has");
        }
        rows
    }

    /// Applies a Service as it is written.
    pub fn object(&mut self, object: Value) -> usize {
        let diff = self.tables.service_applied(&serde_json::from_value(object).unwrap(), self.now);
        self.take(diff)
    }

    pub fn delete(&mut self, name: &str) {
        let diff = self.tables.service_deleted(&ObjectKey::new("ns", name), self.now);
        self.take(diff);
    }

    #[track_caller]
    pub fn check(&self, expected: Expect) {
        expected.assert_eq(&self.model.text());
    }
}

pub fn cluster_ip(address: &str) -> Value {
    json!({"clusterIP": address, "clusterIPs": [address], "ports": [{"port": 80}]})
}
