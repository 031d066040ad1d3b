//! Child processes: this test binary again, in a role, in a namespace and a cgroup. Parent and child talk by lines.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::fabric::{cgroup_path, open};

/// What a child's lines start with, among those of the test harness.
const MARK: &str = "=> ";

/// Any error, as text for the parent.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Where a process runs.
#[derive(Debug, Clone)]
pub struct Place {
    pub namespace: String,
    /// A node's cgroup, whose sockets the programs serve; none: only its packets are seen.
    pub cgroup: Option<String>,
}

impl Place {
    /// Outside every node's cgroup.
    pub fn unserved(namespace: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), cgroup: None }
    }
}

/// The parent's handle of a child; killed when dropped.
pub struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Process {
    /// Starts this binary in a role; it waits for a line before it does anything, so that its cgroup is right by then.
    pub fn start(place: &Place, role: &str, arguments: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "child_process", "--nocapture", "--test-threads=1"]);
        command.env("BEELINE_TEST_ROLE", role).env("BEELINE_TEST_ARGUMENTS", arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = open(&place.namespace).run(|| command.spawn().unwrap()).unwrap();
        if let Some(cgroup) = &place.cgroup {
            std::fs::write(cgroup_path(cgroup).join("cgroup.procs"), child.id().to_string()).unwrap();
        }
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut process = Self { child, input, output };
        process.tell("go");
        process
    }

    /// Waits until it says that it is ready.
    #[track_caller]
    pub fn ready(mut self) -> Self {
        assert_eq!(self.line().as_deref(), Some("ready"));
        self
    }

    /// Hands it a line.
    pub fn tell(&mut self, text: &str) {
        writeln!(self.input, "{text}").unwrap();
    }

    /// The next line that it meant for us; none if it has ended.
    pub fn line(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.output.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            // The harness writes "test child_process ... " without a line end before our first line.
            if let Some(at) = line.find(MARK) {
                return Some(line[at + MARK.len()..].trim_end().to_owned());
            }
        }
    }

    /// Hands it a line; what it answers.
    pub fn ask(&mut self, text: &str) -> String {
        self.tell(text);
        self.line().unwrap_or_else(|| panic!("{text}: the process has ended"))
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// In the child: what it was given, once it may begin.
pub fn arguments() -> String {
    let mut go = String::new();
    std::io::stdin().read_line(&mut go).unwrap();
    std::env::var("BEELINE_TEST_ARGUMENTS").unwrap()
}

/// Prints a line for the parent.
pub fn say(text: &str) {
    // One write: lines of several threads do not mix.
    print!("\n{MARK}{text}\n");
    let _ = std::io::stdout().flush();
}
