//! Background processes: started once, found again by a pid file, ended by pid.
//!
//! A pid file holds the pid and the process's start time, so that a reused pid is never taken for ours. It restarts
//! nothing: what dies stays dead until `up` is run again.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::cluster::plan;
use crate::place::Place;
use crate::shell;

/// A background process of the cluster, by its name.
pub(crate) struct Daemon {
    /// Names its pid file and its log.
    pub(crate) name: String,
}

impl Daemon {
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }

    /// Its output.
    pub(crate) fn log(&self) -> PathBuf {
        plan::logs().join(format!("{}.log", self.name))
    }

    fn pid_file(&self) -> PathBuf {
        plan::directory().join("pids").join(&self.name)
    }

    /// Its pid while it lives.
    pub(crate) fn pid(&self) -> Option<Pid> {
        let text = std::fs::read_to_string(self.pid_file()).ok()?;
        let (pid, started) = text.trim().split_once(' ')?;
        let pid = pid.parse().ok()?;
        (start_time(pid).as_deref() == Some(started)).then(|| Pid::from_raw(pid)).flatten()
    }

    /// Starts `command` (made by `place.command`) unless it lives; its output is appended to the log.
    pub(crate) fn start(
        &self,
        place: &Place,
        command: &mut std::process::Command,
        input: Stdio,
    ) -> Result<()> {
        if self.pid().is_some() {
            return Ok(());
        }
        for path in [self.log(), self.pid_file()] {
            std::fs::create_dir_all(path.parent().context("a file in a directory")?)?;
        }
        let log = File::options().create(true).append(true).open(self.log())?;
        // A group of its own: Ctrl-C in the terminal is for xtask, which then ends it in order.
        command
            .env("RUST_LIB_BACKTRACE", "0")
            .process_group(0)
            .stdin(input)
            .stdout(log.try_clone()?)
            .stderr(log);
        let line = shell::describe(command);
        let child = place.run(|| command.spawn().with_context(|| format!("start `{line}`")))?;
        let pid = i32::try_from(child.id())?;
        let started = start_time(pid).with_context(|| format!("{} ended at once", self.name))?;
        std::fs::write(self.pid_file(), format!("{pid} {started}\n")).context("write a pid file")
    }

    /// Waits until `ready` holds; fails early, with the end of the log, when the process dies.
    pub(crate) fn wait(&self, limit: Duration, ready: impl Fn() -> bool) -> Result<()> {
        let deadline = Instant::now() + limit;
        while !ready() {
            if self.pid().is_none() {
                bail!("{} ended; the end of its log:\n{}", self.name, self.log_tail());
            }
            if Instant::now() > deadline {
                bail!("{} was not ready in {limit:?}; the end of its log:\n{}", self.name, self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Sends `signal` to it if it lives, and says whether it did.
    pub(crate) fn signal(&self, signal: Signal) -> Result<bool> {
        let Some(pid) = self.pid() else { return Ok(false) };
        kill_process(pid, signal).with_context(|| format!("signal {}", self.name))?;
        Ok(true)
    }

    /// Ends it: SIGTERM, and SIGKILL after `grace`.
    pub(crate) fn stop(&self, grace: Duration) -> Result<()> {
        self.signal(Signal::TERM)?;
        let deadline = Instant::now() + grace;
        while self.pid().is_some() {
            if Instant::now() > deadline {
                self.signal(Signal::KILL)?;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Kills it at once, as a crash would, and waits until it is gone.
    pub(crate) fn crash(&self) -> Result<()> {
        if !self.signal(Signal::KILL)? {
            bail!("{} is not running", self.name);
        }
        while self.pid().is_some() {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

/// A process's start time in clock ticks since boot (field 22 of `/proc/PID/stat`); `None` when it is gone or a zombie.
fn start_time(pid: i32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name may hold spaces and brackets: fields are counted from the last bracket.
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    (*fields.first()? != "Z").then(|| fields.get(19).map(|field| (*field).to_owned())).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_living_process_has_a_start_time_and_a_dead_one_has_none() {
        let own = i32::try_from(std::process::id()).expect("a pid");
        assert!(start_time(own).is_some_and(|time| time.parse::<u64>().is_ok()));
        assert_eq!(start_time(i32::MAX), None);
    }
}
