//! Keeps a role running: whatever ends it, a failure or a panic, ends it alone and it is started again.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

/// Pause between two starts, growing to the last with each quick end.
const BACK_OFF: [Duration; 4] =
    [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(15)];
/// A role that ran this long was sound.
const SOUND_AFTER: Duration = Duration::from_secs(60);

/// Runs `role` until `stop`, starting it anew whenever it ends before.
pub async fn supervise<F, E>(name: &'static str, stop: CancellationToken, role: impl Fn() -> F)
where
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: std::fmt::Display + Send + 'static,
{
    let mut failures = 0;
    while !stop.is_cancelled() {
        let started = Instant::now();
        match tokio::spawn(role()).await {
            Ok(Ok(())) if stop.is_cancelled() => return,
            Ok(Ok(())) => tracing::warn!(role = name, "ended by itself"),
            Ok(Err(error)) => tracing::warn!(role = name, %error, "failed"),
            Err(error) => tracing::error!(role = name, %error, "panicked"),
        }
        failures = if started.elapsed() > SOUND_AFTER { 0 } else { failures + 1 };
        let pause = BACK_OFF[failures.min(BACK_OFF.len() - 1)];
        let _ = stop.run_until_cancelled(tokio::time::sleep(pause)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_role_that_panics_is_started_again() {
        let (starts, stop) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
        let (seen, end) = (starts.clone(), stop.clone());
        supervise("test", stop, move || {
            let (seen, end) = (seen.clone(), end.clone());
            async move {
                match seen.fetch_add(1, Ordering::SeqCst) {
                    0 => panic!("first"),
                    1 => Err("second"),
                    2 => Ok(()),
                    _ => {
                        end.cancel();
                        Ok(())
                    }
                }
            }
        })
        .await;
        assert_eq!(starts.load(Ordering::SeqCst), 4);
    }
}
