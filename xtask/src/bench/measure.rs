//! One cold start: a process from its creation to its first answer.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use tokio::process::Command;

use super::cases::Case;
use super::runtime::Runtime;
use super::services::{Services, Traffic};
use crate::error::{Error, Explain, Result};
use crate::process::{Group, log_file};

/// How long one process may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// What one cold start took.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    /// From the process's creation to the arrival of its answer, without the pauses that the step prescribes.
    pub(crate) cold: Duration,
    /// The processor's time in it, in user and system mode.
    pub(crate) cpu: Duration,
    /// The most memory that was resident.
    pub(crate) peak_kib: u64,
    /// What it asked of AWS.
    pub(crate) traffic: Traffic,
}

/// A program to be measured.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    /// What to run.
    pub(crate) program: PathBuf,
    /// Its arguments.
    pub(crate) arguments: Vec<String>,
}

/// Where everything happens.
pub(crate) struct Bench<'a> {
    /// AWS.
    pub(crate) services: &'a Services,
    /// The roots to trust.
    pub(crate) roots: PathBuf,
    /// For the logs of the processes.
    pub(crate) scratch: &'a Path,
}

impl Bench<'_> {
    /// Starts the subject as Lambda does, and kills it when it has answered.
    pub(crate) async fn cold_start(&self, case: &Case, subject: &Subject) -> Result<Sample> {
        let event = case.event()?;
        self.services.reset(case.world(&event)?);
        let mut runtime = Runtime::start(&event).await?;
        let log = self.scratch.join("process.log");
        let mut command = self.command(case, subject, &runtime, &log)?;

        let before = cpu_of_children()?;
        let started = Instant::now();
        let mut group = Group::spawn(&mut command)?;
        let answer = tokio::select! {
            answer = tokio::time::timeout(PATIENCE, runtime.answer()) => answer,
            ended = group.wait() => return Err(said(format!("it ended early ({})", ended?), &log)),
        };
        let answer = match answer {
            Ok(answer) => answer?,
            Err(_) => return Err(said(format!("there is no answer after {PATIENCE:?}"), &log)),
        };
        let id = group.pipes().id().ok_or_else(|| Error::from("the process is gone"))?;
        let peak_kib = peak(id)?;
        group.pipes().start_kill()?;
        group.wait().await?;
        // Nothing else is started meanwhile, so what the children's account grew by is this one's.
        let cpu = cpu_of_children()?.saturating_sub(before);

        let document = answer.result.map_err(|report| said(report, &log))?;
        if let Some(reason) = case.refuse(&document) {
            return Err(said(reason, &log));
        }
        let cold = answer.at.duration_since(started).checked_sub(case.pauses);
        let cold = cold.ok_or_else(|| Error::from("it did not make the pauses that its step prescribes"))?;
        Ok(Sample { cold, cpu, peak_kib, traffic: self.services.traffic() })
    }

    fn command(&self, case: &Case, subject: &Subject, runtime: &Runtime, log: &Path) -> Result<Command> {
        let mut command = Command::new(&subject.program);
        command.args(&subject.arguments).stdin(Stdio::null());
        let out = log_file(log)?;
        command.stderr(out.try_clone()?).stdout(out);
        command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.envs(self.services.environment());
        for (name, value) in [
            ("AWS_LAMBDA_RUNTIME_API", runtime.address.to_string()),
            ("AWS_LAMBDA_FUNCTION_NAME", format!("keywheel-bench-{}", case.name)),
            ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST".into()),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128".into()),
            ("AWS_LAMBDA_LOG_FORMAT", "JSON".into()),
            ("AWS_LAMBDA_LOG_GROUP_NAME", "/aws/lambda/bench".into()),
            ("AWS_LAMBDA_LOG_STREAM_NAME", "bench".into()),
            ("AWS_REGION", "eu-west-1".into()),
            ("AWS_DEFAULT_REGION", "eu-west-1".into()),
            ("AWS_ACCESS_KEY_ID", "ASIAIOSFODNN7EXAMPLE".into()),
            ("AWS_SECRET_ACCESS_KEY", uuid::Uuid::new_v4().to_string()),
            ("AWS_SESSION_TOKEN", uuid::Uuid::new_v4().to_string()),
            ("KEYWHEEL_STAGE", "bench".into()),
            ("KEYWHEEL_BUS", "bench".into()),
            ("KEYWHEEL_TOPIC_ARN", "arn:aws:sns:eu-west-1:111122223333:bench".into()),
            (
                "KEYWHEEL_ROTATION_ARN",
                "arn:aws:states:eu-west-1:111122223333:stateMachine:keywheel-bench-rotation".into(),
            ),
            ("KEYWHEEL_MEMBER_ROLE", "keywheel-bench-member".into()),
            ("KEYWHEEL_MEMBER_ROTATES_ROLE", "keywheel-bench-member-rotates".into()),
            ("KEYWHEEL_BUCKET", "keywheel-bench".into()),
            (
                "KEYWHEEL_UNUSED_ARN",
                "arn:aws:states:eu-west-1:111122223333:stateMachine:keywheel-bench-unused".into(),
            ),
            ("KEYWHEEL_CREATE_ROLE_ARN", "arn:aws:iam::111122223333:role/keywheel-bench-create-key".into()),
            ("KEYWHEEL_OWN_ROLE_ARNS", "arn:aws:iam::111122223333:role/keywheel-bench-roll-back".into()),
        ] {
            command.env(name, value);
        }
        // The same roots for both, each under the name that it knows.
        command.env("SSL_CERT_FILE", &self.roots).env("AWS_CA_BUNDLE", &self.roots);
        Ok(command)
    }
}

/// An error with the end of what the process had written.
fn said(what: String, log: &Path) -> Error {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let end = lines[lines.len().saturating_sub(20)..].join("\n");
    if end.is_empty() { what.into() } else { format!("{what}\n{end}").into() }
}

fn cpu_of_children() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).explain("reading the children's time")?;
    let time = usage.user_time() + usage.system_time();
    Ok(Duration::from_micros(u64::try_from(time.num_microseconds())?))
}

/// The process's peak of resident memory. The kernel's account for parents would begin with what this program
/// itself holds, which the child has for a moment before it becomes another.
fn peak(id: u32) -> Result<u64> {
    let path = format!("/proc/{id}/status");
    let status = std::fs::read_to_string(&path).explain(&path)?;
    high_water(&status).ok_or_else(|| format!("{path} tells no VmHWM").into())
}

fn high_water(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_read_from_the_status() {
        assert_eq!(high_water("Name:\tlook\nVmPeak:\t   99 kB\nVmHWM:\t   12345 kB\n"), Some(12_345));
        assert_eq!(high_water("Name:\tlook\n"), None);
    }

    #[test]
    fn this_process_has_a_peak() {
        assert!(peak(std::process::id()).unwrap() > 100);
    }
}
