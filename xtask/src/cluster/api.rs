//! Many requests to the API server over few connections, which kubectl would not do: one curl process, one list of requests.

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cluster::kubectl;
use crate::cluster::plan::{self, Plan};
use crate::shell;

/// One request.
pub(crate) struct Request {
    pub(crate) method: &'static str,
    /// From the slash on.
    pub(crate) path: String,
    pub(crate) body: String,
}

/// How fast they go.
#[derive(Clone, Copy)]
pub(crate) enum Pace {
    /// This many at the same time, each when one before it has been answered.
    Parallel(u8),
    /// One after another, at most this many a second.
    PerSecond(u32),
}

/// The administrator's access to the API server.
pub(crate) struct Api {
    server: String,
    directory: PathBuf,
}

impl Api {
    /// Takes the administrator's certificate from the kubeconfig.
    pub(crate) fn open(plan: &Plan) -> Result<Self> {
        let directory = plan::directory().join("admin");
        std::fs::create_dir_all(&directory)?;
        let files = [
            ("cert", "index (index .users 0).user \"client-certificate-data\""),
            ("key", "index (index .users 0).user \"client-key-data\""),
            ("ca", "index (index .clusters 0).cluster \"certificate-authority-data\""),
        ];
        for (name, value) in files {
            let template = format!("-o=go-template={{{{{value} | base64decode}}}}");
            let text = kubectl::output(["config", "view", "--raw", &template])?;
            write_private(&directory.join(name), &text)?;
        }
        Ok(Self { server: format!("https://127.0.0.1:{}", plan.port), directory })
    }

    /// Sends all requests; every answer must be a success.
    pub(crate) fn send(&self, requests: &[Request], pace: Pace) -> Result<()> {
        let list = self.directory.join("requests");
        write_private(&list, &self.list(requests, pace))?;
        let said = shell::quiet(Command::new("curl").arg("--config").arg(&list))?;
        std::fs::remove_file(&list)?;
        let failed: Vec<_> = said.lines().filter(|line| !line.starts_with('2')).collect();
        let answered = said.lines().count();
        if answered != requests.len() || !failed.is_empty() {
            let first = failed.first().copied().unwrap_or_default();
            bail!(
                "{answered} of {} requests were answered, {} refused: {first}",
                requests.len(),
                failed.len()
            );
        }
        Ok(())
    }

    /// curl's configuration file: options of all transfers, then those of each.
    fn list(&self, requests: &[Request], pace: Pace) -> String {
        let mut list = String::from("silent\nshow-error\n");
        match pace {
            Pace::Parallel(most) => push(&mut list, format_args!("parallel\nparallel-max = {most}")),
            Pace::PerSecond(rate) => push(&mut list, format_args!("rate = {rate}/s")),
        }
        for (number, Request { method, path, body }) in requests.iter().enumerate() {
            if number > 0 {
                list.push_str("next\n");
            }
            let kind = if *method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
            push(&mut list, format_args!("url = \"{}{path}\"\nrequest = {method}", self.server));
            for (option, file) in [("cert", "cert"), ("key", "key"), ("cacert", "ca")] {
                push(&mut list, format_args!("{option} = \"{}\"", self.directory.join(file).display()));
            }
            let body = body.replace('\\', "\\\\").replace('"', "\\\"");
            push(&mut list, format_args!("header = \"Content-Type: {kind}\"\ndata-raw = \"{body}\""));
            push(
                &mut list,
                format_args!("output = \"/dev/null\"\nwrite-out = \"%{{http_code}} {method} {path}\\n\""),
            );
        }
        list
    }
}

fn push(text: &mut String, line: std::fmt::Arguments<'_>) {
    text.push_str(&line.to_string());
    text.push('\n');
}

/// Keys are for their owner.
fn write_private(path: &Path, text: &str) -> Result<()> {
    let mut options = std::fs::File::options();
    let file = options.create(true).truncate(true).write(true).mode(0o600).open(path);
    let write = |mut file: std::fs::File| std::io::Write::write_all(&mut file, text.as_bytes());
    file.and_then(write).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_each_request_with_its_body_quoted() {
        let api = Api { server: "https://h".to_owned(), directory: "/d".into() };
        let request =
            |path: &str| Request { method: "POST", path: path.to_owned(), body: r#"{"a":"b\\"}"#.to_owned() };
        let list = api.list(&[request("/x"), request("/y")], Pace::PerSecond(5));
        assert_eq!(list.matches("\nnext\n").count(), 1);
        assert!(list.contains("rate = 5/s\n"), "{list}");
        assert!(list.contains(r#"data-raw = "{\"a\":\"b\\\\\"}""#), "{list}");
        assert!(list.contains("url = \"https://h/y\"\nrequest = POST\n"), "{list}");
    }
}
