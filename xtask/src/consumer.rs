//! `xtask consumer`: a program that lives on a rotated key, as the demo's witness.
//!
//! Workers hold the pair as AWS's caching libraries do: for a fixed time, each at its own phase, whatever happens
//! to the secret meanwhile. They call AWS all the time and retry nothing, so a single moment without a working key
//! shows as a failed call. The configuration comes as the first line of standard input, because a command line can
//! be read by everybody; when standard input closes, the counts are written and the process ends.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_smithy_types::retry::RetryConfig;
use aws_types::SdkConfig;
use aws_types::app_name::AppName;
use aws_types::region::Region;
use keywheel::StepError;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use crate::error::{Error, Explain, Result, aws};
use crate::process::stdin_closed;

/// The application name in the consumer's User-Agent.
pub(crate) const APP: &str = "demo-consumer";

/// What the consumer is told. There is no `Debug`: it holds the reader's pair.
#[derive(Serialize, Deserialize)]
pub(crate) struct Config {
    /// The cloud.
    pub(crate) endpoint: String,
    /// Its region.
    pub(crate) region: String,
    /// The secret to follow.
    pub(crate) secret: String,
    /// How many workers.
    pub(crate) workers: u32,
    /// How long each keeps what it read.
    pub(crate) cache: Duration,
    /// How long between two calls of a worker.
    pub(crate) pause: Duration,
    /// The key id that reads the secret.
    pub(crate) reader_key: String,
    /// Its secret.
    pub(crate) reader_secret: String,
}

/// Calls made, and how many of them failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// All calls.
    pub(crate) calls: u64,
    /// Those that did not succeed.
    pub(crate) failed: u64,
}

/// What the consumer has done, written as one line at the end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Summary {
    /// In all.
    pub(crate) total: Counts,
    /// By key id.
    pub(crate) keys: BTreeMap<String, Counts>,
    /// Reads of the secret.
    pub(crate) reads: Counts,
    /// What failed, by name.
    pub(crate) errors: BTreeMap<String, u64>,
}

/// One line of the consumer's output.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Line {
    /// How far it is, each second.
    Progress(Counts),
    /// The end.
    Summary(Summary),
}

impl Summary {
    fn called(&mut self, key: &str, error: Option<String>) {
        let failed = u64::from(error.is_some());
        for counts in [&mut self.total, self.keys.entry(key.to_owned()).or_default()] {
            counts.calls += 1;
            counts.failed += failed;
        }
        self.remember(error);
    }

    fn read(&mut self, error: Option<String>) {
        self.reads.calls += 1;
        self.reads.failed += u64::from(error.is_some());
        self.remember(error);
    }

    fn remember(&mut self, error: Option<String>) {
        if let Some(error) = error {
            *self.errors.entry(error).or_default() += 1;
        }
    }
}

/// What the workers share.
struct Shared {
    config: SdkConfig,
    secrets: aws_sdk_secretsmanager::Client,
    secret: String,
    cache: Duration,
    pause: Duration,
    summary: Mutex<Summary>,
    stop: AtomicBool,
}

/// Runs until standard input closes or the process is told to end.
pub(crate) async fn run() -> Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).explain("the consumer's configuration")?;
    let told: Config =
        serde_json::from_str(&line).map_err(|_| Error::from("the configuration is not understood"))?;
    let shared = Arc::new(Shared::new(&told));
    let mut workers = JoinSet::new();
    for number in 0..told.workers {
        // The first period of each worker is a different part of the cache time: they never turn over at once.
        workers.spawn(work(Arc::clone(&shared), told.cache * (number + 1) / told.workers));
    }
    drop(told);
    tokio::select! {
        () = stdin_closed() => {}
        _ = terminate.recv() => {}
        () = report(&shared) => {}
    }
    // Calls under way are finished and counted.
    shared.stop.store(true, Ordering::Relaxed);
    while workers.join_next().await.is_some() {}
    let summary = shared.summary().clone();
    say(&Line::Summary(summary))?;
    Ok(ExitCode::SUCCESS)
}

async fn report(shared: &Shared) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    loop {
        second.tick().await;
        let total = shared.summary().total;
        if say(&Line::Progress(total)).is_err() {
            // Nobody listens any more.
            return;
        }
    }
}

fn say(line: &Line) -> Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(line)?)?;
    Ok(out.flush()?)
}

/// A pair, as a client that signs with it.
struct Cached {
    key: String,
    client: aws_sdk_sts::Client,
}

async fn work(shared: Arc<Shared>, first: Duration) {
    let mut cached = shared.read().await;
    let mut expires = Instant::now() + first;
    let mut tick = tokio::time::interval(shared.pause);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !shared.stop.load(Ordering::Relaxed) {
        tick.tick().await;
        if Instant::now() >= expires {
            // What cannot be read anew stays in use, as in the libraries.
            cached = shared.read().await.or(cached);
            expires = Instant::now() + shared.cache;
        }
        let Some(pair) = &cached else {
            cached = shared.read().await;
            continue;
        };
        let reply = aws("sts:GetCallerIdentity", pair.client.get_caller_identity().send().await);
        shared.summary().called(&pair.key, reply.err().map(|error| name(&error)));
    }
}

impl Shared {
    fn new(told: &Config) -> Self {
        let reader = Credentials::new(&told.reader_key, &told.reader_secret, None, None, "Consumer");
        let mut config = keywheel::aws::base(keywheel::aws::http_client(), reader).into_builder();
        config.set_app_name(AppName::new(APP).ok());
        let config = config
            .endpoint_url(&told.endpoint)
            .region(Region::new(told.region.clone()))
            .retry_config(RetryConfig::disabled())
            .build();
        Self {
            secrets: aws_sdk_secretsmanager::Client::new(&config),
            config,
            secret: told.secret.clone(),
            cache: told.cache,
            pause: told.pause,
            summary: Mutex::default(),
            stop: AtomicBool::new(false),
        }
    }

    fn summary(&self) -> std::sync::MutexGuard<'_, Summary> {
        self.summary.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read(&self) -> Option<Cached> {
        let pair = self.pair().await;
        self.summary().read(pair.as_ref().err().map(name));
        pair.ok()
    }

    async fn pair(&self) -> Result<Cached> {
        let read = self.secrets.get_secret_value().secret_id(&self.secret).send().await;
        let value = aws("secretsmanager:GetSecretValue", read)?;
        let value: Value = serde_json::from_str(value.secret_string().unwrap_or_default())
            .map_err(|_| Error::from("the secret is not JSON"))?;
        let text = |name| value.get(name).and_then(Value::as_str);
        let (Some(key), Some(secret)) = (text("AccessKeyId"), text("SecretAccessKey")) else {
            return Err("the secret holds no pair".into());
        };
        let credentials = Credentials::new(key, secret, None, None, "Consumer");
        let provider = aws_credential_types::provider::SharedCredentialsProvider::new(credentials);
        let config = self.config.clone().into_builder().credentials_provider(provider).build();
        Ok(Cached { key: key.to_owned(), client: aws_sdk_sts::Client::new(&config) })
    }
}

/// What an error is counted under: AWS's code where there is one, and never a message, which may quote anything.
fn name(error: &Error) -> String {
    let code = error.downcast_ref::<StepError>().and_then(StepError::code);
    code.unwrap_or("other").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_key_and_failures_by_name() {
        let mut summary = Summary::default();
        summary.called("old", None);
        summary.called("new", None);
        summary.called("old", Some("InvalidClientTokenId".into()));
        summary.read(None);
        assert_eq!(summary.total, Counts { calls: 3, failed: 1 });
        assert_eq!(summary.keys["old"], Counts { calls: 2, failed: 1 });
        assert_eq!(summary.keys["new"], Counts { calls: 1, failed: 0 });
        assert_eq!(summary.errors["InvalidClientTokenId"], 1);
        assert_eq!(summary.reads, Counts { calls: 1, failed: 0 });
    }

    #[test]
    fn its_lines_read_back() {
        let line = serde_json::to_string(&Line::Progress(Counts { calls: 2, failed: 0 })).unwrap();
        assert_eq!(line, r#"{"progress":{"calls":2,"failed":0}}"#);
        assert!(matches!(
            serde_json::from_str(&line).unwrap(),
            Line::Progress(Counts { calls: 2, failed: 0 })
        ));
    }
}
