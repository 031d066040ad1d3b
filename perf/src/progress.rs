//! How far a long run is: a bar on a terminal, with what is being measured and how long it has gone on; elsewhere nothing
//! but the lines that are told anyway.
//!
//! Results are told above the bar, so that both can be read.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar; it is removed from the terminal when it goes out of scope.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// So many steps of about the same length are ahead.
    pub(crate) fn new(steps: usize) -> Self {
        let bar = ProgressBar::new(steps as u64);
        // Hidden where standard error is no terminal.
        bar.set_draw_target(ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{elapsed} [{bar:30}] {pos}/{len} {wide_msg}") {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.enable_steady_tick(Duration::from_millis(500));
        Self(bar)
    }

    /// What is being done now.
    pub(crate) fn doing(&self, what: &str) {
        self.0.set_message(what.to_owned());
    }

    /// One step is done.
    pub(crate) fn step(&self) {
        self.0.inc(1);
    }

    /// A line for people.
    pub(crate) fn say(&self, line: &str) {
        self.0.suspend(|| eprintln!("{line}"));
    }

    /// How long it has gone on.
    pub(crate) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_add_up() {
        let progress = Progress::new(3);
        progress.doing("one");
        progress.step();
        progress.step();
        progress.say("two of three");
        assert_eq!((progress.0.position(), progress.0.length()), (2, Some(3)));
    }
}
