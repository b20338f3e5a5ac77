//! Child processes that cannot be left behind.
//!
//! A child gets a process group of its own, and the whole group ends with the value that stands for it: the
//! emulator's Lambdas are its children, and killing the emulator alone would leave them.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, ChildStdin, Command};

use crate::error::{Explain, Result};
use crate::paths;

/// How long a group may take to end after it was asked to.
const PATIENCE: Duration = Duration::from_secs(2);

/// A child and its process group.
pub(crate) struct Group {
    child: Child,
    id: Option<Pid>,
}

impl Group {
    /// Starts `command` as the leader of a new process group.
    pub(crate) fn spawn(command: &mut Command) -> Result<Self> {
        let name = command.as_std().get_program().to_string_lossy().into_owned();
        command.process_group(0);
        let child = command.spawn().explain(format_args!("starting {name}"))?;
        let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Ok(Self { child, id })
    }

    /// Waits for the leader's end.
    pub(crate) async fn wait(&mut self) -> Result<ExitStatus> {
        self.child.wait().await.explain("waiting for a process")
    }

    /// The leader's end, if it has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// The pipes that the command was given.
    pub(crate) fn pipes(&mut self) -> &mut Child {
        &mut self.child
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        let _ = kill_process_group(id, Signal::TERM);
        let until = Instant::now() + PATIENCE;
        while self.ended().is_none() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
        // The leader is gone or deaf; nothing of its group may stay.
        let _ = kill_process_group(id, Signal::KILL);
        let until = Instant::now() + PATIENCE;
        while self.ended().is_none() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A process under `xtask guard`, which ends it when this value, or this whole process, is gone: the guard
/// reads from a pipe that closes even when we are killed without a chance to clean up.
pub(crate) struct Guarded {
    guard: Group,
    pipe: Option<ChildStdin>,
}

impl Guarded {
    /// Starts `command` under a guard; its output goes to the file `log`.
    pub(crate) fn spawn(command: &std::process::Command, log: &Path) -> Result<Self> {
        let mut guard = Command::new(paths::this()?);
        guard.arg("guard").arg("--").arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => guard.env(name, value),
                None => guard.env_remove(name),
            };
        }
        if let Some(dir) = command.get_current_dir() {
            guard.current_dir(dir);
        }
        let out = log_file(log)?;
        let err = out.try_clone()?;
        let mut guard = Group::spawn(guard.stdin(Stdio::piped()).stdout(out).stderr(err))?;
        let pipe = guard.pipes().stdin.take();
        Ok(Self { guard, pipe })
    }

    /// Whether the process still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.guard.ended().is_none()
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        drop(self.pipe.take());
        // The guard needs its own patience for the group it watches.
        let until = Instant::now() + 3 * PATIENCE;
        while self.is_running() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A log file, begun anew.
pub(crate) fn log_file(path: &Path) -> Result<std::fs::File> {
    std::fs::File::create(path).explain(format_args!("writing {}", path.display()))
}

/// Ends the process group `id` and waits until it is gone.
pub(crate) fn end_group(id: i32) -> bool {
    let Some(group) = Pid::from_raw(id) else { return false };
    for signal in [Signal::TERM, Signal::KILL] {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            // Asking again does no harm, and the answer tells when nobody is left.
            if kill_process_group(group, signal).is_err() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    false
}

/// What the process `id` was started as, if it runs.
pub(crate) fn command_line(id: i32) -> Option<String> {
    if let Ok(line) = std::fs::read(format!("/proc/{id}/cmdline")) {
        return Some(String::from_utf8_lossy(&line).replace('\0', " ")).filter(|line| !line.is_empty());
    }
    let ps =
        std::process::Command::new("ps").args(["-o", "command=", "-p"]).arg(id.to_string()).output().ok()?;
    Some(String::from_utf8_lossy(&ps.stdout).trim().to_owned()).filter(|line| !line.is_empty())
}

/// Runs `command` to its end, in a group of its own, and fails unless it succeeds.
pub(crate) async fn succeed(command: &mut Command, what: &str) -> Result<()> {
    let status = Group::spawn(command)?.wait().await?;
    if status.success() { Ok(()) } else { Err(format!("{what} failed ({status})").into()) }
}

/// Runs `command` to its end and returns what it printed; what it said is part of the error.
pub(crate) async fn output(command: &mut Command, what: &str) -> Result<String> {
    let (name, output) = (what, command.stdin(Stdio::null()).kill_on_drop(true).output().await);
    let output = output.explain(name)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).trim().to_owned());
    let said = said.iter().filter(|text| !text.is_empty()).cloned().collect::<Vec<_>>().join("\n");
    Err(format!("{what} failed ({}):\n{said}", output.status).into())
}

/// Waits until whoever holds the other end of standard input lets go of it.
pub(crate) async fn stdin_closed() {
    // What comes is of no interest; an error is an end as well.
    let read = || std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
    let _ = tokio::task::spawn_blocking(read).await;
}
