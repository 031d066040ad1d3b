//! The way to the prober in its pod: its standard streams, by the API's `exec`.

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{AttachParams, AttachedProcess};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, Lines};

use super::clock::{self, Offset, Sample};
use super::protocol::{Answer, Ask, Counts, Watch};

/// Questions for the time before and after a measurement.
const QUESTIONS: usize = 50;

type Reader = Lines<BufReader<Box<dyn AsyncRead + Unpin>>>;

/// The prober.
pub(super) struct Prober {
    input: Box<dyn AsyncWrite + Unpin>,
    output: Reader,
    /// It lives as long as the streams.
    _process: AttachedProcess,
    samples: Vec<Sample>,
    same_boot: bool,
}

impl Prober {
    /// Starts it in a pod.
    pub(super) async fn start(pods: &Api<Pod>, pod: &str) -> Result<Self> {
        let streams = AttachParams::default().stdin(true).stdout(true).stderr(true);
        let mut process =
            pods.exec(pod, ["/perf", "probe"], &streams).await.context("start the prober in its pod")?;
        let input = process.stdin().context("the prober's input")?;
        let output = process.stdout().context("the prober's output")?;
        if let Some(mut errors) = process.stderr() {
            tokio::spawn(async move { tokio::io::copy(&mut errors, &mut tokio::io::stderr()).await });
        }
        let output: Box<dyn AsyncRead + Unpin> = Box::new(output);
        Ok(Self {
            input: Box::new(input),
            output: BufReader::new(output).lines(),
            _process: process,
            samples: Vec::new(),
            same_boot: false,
        })
    }

    /// Asks for the time, again and again.
    pub(super) async fn compare_clocks(&mut self) -> Result<()> {
        for _ in 0..QUESTIONS {
            let sent_ns = clock::now_ns();
            self.ask(&Ask::Clock).await?;
            let Answer::Clock { now_ns, boot } = self.answer().await? else {
                bail!("the prober answered another question");
            };
            self.samples.push(Sample { sent_ns, theirs_ns: now_ns, came_ns: clock::now_ns() });
            self.same_boot = !boot.is_empty() && boot == clock::boot();
        }
        Ok(())
    }

    /// Clocks are compared anew: those of other machines drift.
    pub(super) fn forget_samples(&mut self) {
        self.samples.clear();
    }

    /// How its clock stands to ours, by all samples that are remembered.
    pub(super) fn offset(&self) -> Result<Offset> {
        Offset::estimate(&self.samples, self.same_boot).context("the prober was not asked for the time")
    }

    /// Makes it send datagrams, and returns when the first is on its way.
    pub(super) async fn begin(&mut self, watch: Watch) -> Result<()> {
        let sent_ns = clock::now_ns();
        self.ask(&Ask::Watch(watch)).await?;
        let Answer::Begun { now_ns } = self.answer().await? else {
            bail!("the prober answered another question");
        };
        self.samples.push(Sample { sent_ns, theirs_ns: now_ns, came_ns: clock::now_ns() });
        Ok(())
    }

    /// When the right server answered, by the prober's clock.
    pub(super) async fn seen(&mut self) -> Result<(u64, Counts)> {
        match self.answer().await? {
            Answer::Seen { at_ns, counts } => Ok((at_ns, counts)),
            Answer::NotSeen { counts } => bail!(
                "the new server never answered: of {} datagrams {} were answered by others and {} refused",
                counts.sent,
                counts.other,
                counts.refused
            ),
            _ => bail!("the prober answered another question"),
        }
    }

    async fn ask(&mut self, ask: &Ask) -> Result<()> {
        let line = format!("{}\n", serde_json::to_string(ask)?);
        self.input.write_all(line.as_bytes()).await.context("ask the prober")?;
        self.input.flush().await.context("ask the prober")
    }

    async fn answer(&mut self) -> Result<Answer> {
        let line = self.output.next_line().await.context("read the prober's answer")?;
        let line = line.context("the prober ended")?;
        serde_json::from_str(&line).with_context(|| format!("read the prober's {line:?}"))
    }
}
