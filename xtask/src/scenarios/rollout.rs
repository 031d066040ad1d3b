//! A rollout under traffic: short requests all succeed, and a long connection lives until its pod's grace period ends.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{Report, eventually, kubectl_words, traffic};
use crate::cluster::demo;
use crate::cluster::plan::Plan;

pub(super) fn run(plan: &Plan, report: &mut Report) {
    report.check(
        "requests during a rollout all succeed; a long connection survives until its grace ends",
        || {
            let result = rollout(plan);
            kubectl_words("delete deployment,service long --ignore-not-found --grace-period=1")?;
            result
        },
    );
}

/// Long enough to see that the stream outlives the rollout, short enough for a test.
const GRACE: Duration = Duration::from_secs(12);

fn rollout(plan: &Plan) -> Result<()> {
    let manifest = include_str!("rollout.yaml").replace("GRACE", &GRACE.as_secs().to_string());
    super::kubectl_with("apply", &manifest)?;
    kubectl_words("rollout status deployment/long --timeout=60s")?;
    let ip = demo::field(&["get", "service", "long"], "{.spec.clusterIP}")?;
    let url = format!("http://{ip}/");
    let place = traffic::host(plan, 0);
    let mut stream = traffic::Stream::open(&place, &url, "rollout")?;
    let pod = stream.backend()?;
    let requests = traffic::Requests::start(&place, &url, Duration::from_millis(5))?;
    kubectl_words("rollout restart deployment/long")?;
    kubectl_words("rollout status deployment/long --timeout=90s")?;
    let deleted = deletion_of(&pod)?;
    stream.flows().context("after the rollout, within the grace period")?;
    let ended = eventually(GRACE + Duration::from_secs(15), || {
        if stream.ended()? { Ok(Instant::now()) } else { bail!("the stream still flows") }
    })?;
    let (answered, failed) = requests.stop()?;
    println!("    requests during rollout: {answered}, failed: {failed}");
    println!(
        "    the long connection ended {:.1} s after its pod's deletion was seen",
        ended.duration_since(deleted).as_secs_f64()
    );
    if failed > 0 || answered < 50 {
        bail!("{failed} of {} requests failed", answered + failed);
    }
    Ok(())
}

/// Waits until `pod` is being deleted (it may be gone from the rollout's view, but not from the API).
fn deletion_of(pod: &str) -> Result<Instant> {
    eventually(Duration::from_secs(10), || {
        let stamp = demo::field(&["get", "pod", pod], "{.metadata.deletionTimestamp}")?;
        if stamp.is_empty() {
            bail!("{pod} is not being deleted")
        }
        Ok(Instant::now())
    })
}
