//! One running emulator: how it is started, found ready, switched and spoken to.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use aws_credential_types::Credentials;
use aws_types::SdkConfig;
use aws_types::app_name::AppName;
use aws_types::region::Region;
use serde_json::{Value, json};

use crate::error::{Error, Explain, Result};
use crate::http::Http;
use crate::paths;
use crate::venv::Venv;

/// The region that everything is deployed to.
pub(crate) const REGION: &str = "us-east-1";
/// The emulator's account.
pub(crate) const ACCOUNT: &str = "111122223333";
/// Both halves of the root credentials that the emulator is delivered with. Not a secret: it listens on the
/// loopback address only.
pub(crate) const ROOT_KEY: &str = "test";

/// How long an emulator may take to answer.
const START: Duration = Duration::from_secs(40);

/// An emulator at a port of this machine.
#[derive(Clone)]
pub(crate) struct Cloud {
    /// Its URL, for services and control endpoints alike.
    pub(crate) url: String,
    /// A client for its control endpoints.
    pub(crate) http: Http,
}

impl Cloud {
    /// The emulator at `port`, whether it runs or not.
    pub(crate) fn at(port: u16) -> Self {
        let url = format!("http://127.0.0.1:{port}");
        Self { http: Http::new(&url), url }
    }

    /// The command that starts the emulator, with its files under `dir`.
    pub(crate) fn command(&self, venv: &Venv, dir: &Path) -> Result<Command> {
        let files = dir.join("files");
        paths::make(&files)?;
        let port = self.url.rsplit(':').next().unwrap_or_default();
        let mut command = python(venv);
        command.args(["-m", "overlay"]);
        command.env("GATEWAY_PORT", port).env("BIND_HOST", "127.0.0.1");
        command.env("AUTH", "true").env("CLOUDTRAIL_RECORDING", "1").env("MINISTACK_ACCOUNT_ID", ACCOUNT);
        command.env("AWS_ENDPOINT_URL", &self.url);
        // What it writes belongs under our directory, where it is found and removed again.
        command
            .env("TMPDIR", &files)
            .env("STATE_DIR", files.join("state"))
            .env("S3_DATA_DIR", files.join("s3"));
        Ok(command)
    }

    /// Whether an emulator answers.
    pub(crate) async fn answers(&self) -> bool {
        self.http.get("/_ministack/health").await.is_ok()
    }

    /// Waits until it answers; `runs` tells whether its process is still there.
    pub(crate) async fn ready(&self, mut runs: impl FnMut() -> bool, log: &Path) -> Result<()> {
        let until = Instant::now() + START;
        loop {
            if self.answers().await {
                return Ok(());
            }
            if !runs() {
                return Err(Error::from(format!(
                    "the emulator ended while it started; see {}",
                    log.display()
                )));
            }
            if Instant::now() > until {
                return Err(Error::from(format!("the emulator does not answer; see {}", log.display())));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Scales the waits of state machines: 1 is real time, 0 does not wait.
    pub(crate) async fn scale_time(&self, scale: f64) -> Result<()> {
        let key = "stepfunctions._SFN_WAIT_SCALE";
        let reply = self.http.post("/_ministack/config", &json!({ key: scale.to_string() })).await?;
        if reply.pointer("/applied").and_then(|applied| applied.get(key)).and_then(Value::as_f64)
            == Some(scale)
        {
            Ok(())
        } else {
            Err(Error::from(format!("the emulator did not take the time scale {scale}")))
        }
    }

    /// The SDK's configuration as the account's root.
    pub(crate) fn root(&self) -> SdkConfig {
        self.identity(ROOT_KEY, ROOT_KEY)
    }

    /// The SDK's configuration with a key pair.
    pub(crate) fn identity(&self, key: &str, secret: &str) -> SdkConfig {
        let credentials = Credentials::new(key, secret, None, None, "Emulator");
        let mut config = keywheel::aws::base(keywheel::aws::http_client(), credentials).into_builder();
        config.set_app_name(AppName::new("xtask").ok());
        config.endpoint_url(&self.url).region(Region::new(REGION)).build()
    }
}

/// The environment's Python in the emulator's directory, without anything that the shell says about AWS: a
/// person's own credentials must reach neither the emulator nor the Lambdas it starts.
pub(crate) fn python(venv: &Venv) -> Command {
    let mut command = Command::new(venv.python());
    command.current_dir(paths::emulator()).env("PYTHONUNBUFFERED", "1").env("PYTHONDONTWRITEBYTECODE", "1");
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["AWS_", "MINISTACK_", "KEYWHEEL_"].iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
    command
}

/// Whether nobody listens on `port`.
pub(crate) fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// A port on which nobody listens.
pub(crate) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).explain("looking for a free port")?;
    Ok(listener.local_addr()?.port())
}
