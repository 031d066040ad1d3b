//! What this process uses, as the kernel counts it.

use std::time::Duration;

use crate::Failure;

/// Resident memory in MB (10^6 bytes), by kind. Mapped tables count as shared memory from the page that was touched on.
pub fn memory() -> Result<serde_json::Value, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: f64 = line.trim_start_matches(':').split_whitespace().next()?.parse().ok()?;
        Some((kib * 1.024).round() / 1e3)
    };
    Ok(serde_json::json!({
        "rss_mb": field("VmRSS"), "anon_mb": field("RssAnon"), "file_mb": field("RssFile"), "shmem_mb": field("RssShmem"), "peak_mb": field("VmHWM"),
    }))
}

/// CPU time of the main thread, of which there is only one (`/proc/PID/schedstat`, nanoseconds).
pub fn cpu() -> Result<Duration, Failure> {
    let text = std::fs::read_to_string("/proc/self/schedstat")?;
    let first = text.split(' ').next().ok_or("an empty schedstat")?;
    Ok(Duration::from_nanos(first.parse()?))
}
