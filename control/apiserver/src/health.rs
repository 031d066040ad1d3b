//! `/healthz`, `/livez`, `/readyz`, and their single checks below them.

use http::StatusCode;

use crate::body::Response;
use crate::core::Core;
use crate::query::Query;
use crate::respond;

/// One thing that can be wrong.
struct Check {
    name: &'static str,
    /// The check also counts for `/livez`: failing it, a restart may help.
    live: bool,
    passes: fn(&Core) -> bool,
}

const CHECKS: &[Check] = &[
    Check { name: "ping", live: true, passes: |_| true },
    Check { name: "log", live: true, passes: |_| true },
    Check { name: "etcd", live: true, passes: |core| core.registry.store().is_connected() },
    Check { name: "informer-sync", live: false, passes: |core| core.registry.store().revision() > 0 },
    Check { name: "poststarthook/bootstrap", live: true, passes: Core::is_started },
    Check { name: "shutdown", live: false, passes: |core| !core.shutdown.is_cancelled() },
];

/// The answer to a health path; `None` if the path is none.
pub(crate) fn serve(core: &Core, path: &str, query: &Query) -> Option<Response> {
    let (endpoint, single) = match path.trim_start_matches('/').split_once('/') {
        Some((endpoint, single)) => (endpoint, Some(single)),
        None => (path.trim_start_matches('/'), None),
    };
    if !matches!(endpoint, "healthz" | "livez" | "readyz") {
        return None;
    }
    let checks = CHECKS.iter().filter(|it| it.live || endpoint != "livez");
    if let Some(single) = single {
        let check = checks.into_iter().find(|it| it.name == single)?;
        return Some(verdict((check.passes)(core), "ok".to_owned()));
    }
    let excluded: Vec<&str> = query.all("exclude").collect();
    let mut healthy = true;
    let mut report = String::new();
    for check in checks {
        if excluded.contains(&check.name) {
            report.push_str(&format!("[+]{} excluded: ok\n", check.name));
        } else if (check.passes)(core) {
            report.push_str(&format!("[+]{} ok\n", check.name));
        } else {
            healthy = false;
            report.push_str(&format!("[-]{} failed: reason withheld\n", check.name));
        }
    }
    report.push_str(&format!("{endpoint} check {}\n", if healthy { "passed" } else { "failed" }));
    let brief = healthy && !query.flag("verbose") && query.get("verbose").is_none();
    Some(verdict(healthy, if brief { "ok".to_owned() } else { report }))
}

fn verdict(healthy: bool, text: String) -> Response {
    let (status, text) =
        if healthy { (StatusCode::OK, text) } else { (StatusCode::INTERNAL_SERVER_ERROR, text) };
    respond::text(status, text)
}
