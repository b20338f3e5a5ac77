//! The consumer as the demo sees it: a child process, its counts, and what it says.

use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::{ChildStdin, Command};
use tokio::task::JoinHandle;

use crate::cloud::{Cloud, REGION};
use crate::consumer::{Config, Counts, Line, Summary};
use crate::demo::CACHE;
use crate::demo::stage::Stage;
use crate::error::{Error, Explain, Result};
use crate::paths;
use crate::process::Group;

/// What the consumer has said so far.
#[derive(Default)]
struct Heard {
    progress: Counts,
    summary: Option<Summary>,
    text: String,
}

/// The running consumer; it ends with this value.
pub(crate) struct Witness {
    process: Group,
    stdin: Option<ChildStdin>,
    heard: Arc<Mutex<Heard>>,
    readers: Vec<JoinHandle<()>>,
}

impl Witness {
    /// Starts it, and waits for its first calls.
    pub(crate) async fn start(cloud: &Cloud, stage: &Stage) -> Result<Self> {
        let config = Config {
            endpoint: cloud.url.clone(),
            region: REGION.into(),
            secret: stage.secret.clone(),
            workers: 4,
            cache: CACHE,
            pause: Duration::from_millis(100),
            reader_key: stage.reader.0.clone(),
            reader_secret: stage.reader.1.clone(),
        };
        let mut command = Command::new(paths::this()?);
        command.arg("consumer").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Group::spawn(&mut command)?;
        let mut stdin =
            process.pipes().stdin.take().ok_or_else(|| Error::from("the consumer has no input"))?;
        let heard = Arc::new(Mutex::new(Heard::default()));
        let mut readers = Vec::new();
        if let Some(out) = process.pipes().stdout.take() {
            readers.push(tokio::spawn(listen(out, Arc::clone(&heard))));
        }
        if let Some(err) = process.pipes().stderr.take() {
            readers.push(tokio::spawn(listen(err, Arc::clone(&heard))));
        }
        let line = format!("{}\n", serde_json::to_string(&config)?);
        stdin.write_all(line.as_bytes()).await.explain("telling the consumer what to do")?;
        let mut this = Self { process, stdin: Some(stdin), heard, readers };
        for _ in 0..100 {
            if this.counts().calls >= 20 {
                return Ok(this);
            }
            if let Some(status) = this.process.ended() {
                return Err(Error::from(format!("the consumer ended at once ({status})")));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err(Error::from("the consumer does not get its calls through"))
    }

    /// Its counts, a second old at most.
    pub(crate) fn counts(&self) -> Counts {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).progress
    }

    /// Stops it: its counts, and everything it said.
    pub(crate) async fn stop(mut self) -> Result<(Summary, String)> {
        drop(self.stdin.take());
        let status = tokio::time::timeout(Duration::from_secs(15), self.process.wait());
        let status = status.await.explain("the consumer does not end")??;
        for reader in self.readers.drain(..) {
            reader.await.explain("reading what the consumer said")?;
        }
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let text = std::mem::take(&mut heard.text);
        let summary = heard.summary.take();
        summary
            .map(|summary| (summary, text))
            .ok_or_else(|| format!("the consumer left no counts ({status})").into())
    }
}

async fn listen(from: impl AsyncRead + Unpin, heard: Arc<Mutex<Heard>>) {
    let mut lines = BufReader::new(from).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        match serde_json::from_str(&line) {
            Ok(Line::Progress(counts)) => heard.progress = counts,
            Ok(Line::Summary(summary)) => heard.summary = Some(summary),
            Err(_) => {}
        }
        heard.text.push_str(&line);
        heard.text.push('\n');
    }
}
