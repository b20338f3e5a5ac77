//! `xtask guard -- <command>`: ends the command when the process that asked for it is gone.
//!
//! Nothing else survives a parent that is killed outright: a pipe to it closes, whatever happened.

use std::ffi::OsString;
use std::process::{ExitCode, Stdio};

use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use crate::error::{Error, Result};
use crate::process::{Group, stdin_closed};

/// Runs `command` until it ends, standard input closes, or a signal comes.
pub(crate) async fn run(command: &[OsString]) -> Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let (program, arguments) = command.split_first().ok_or_else(|| Error::from("guard: no command"))?;
    let mut group = Group::spawn(Command::new(program).args(arguments).stdin(Stdio::null()))?;
    tokio::select! {
        status = group.wait() => Ok(if status?.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
        () = stdin_closed() => Ok(ExitCode::SUCCESS),
        _ = terminate.recv() => Ok(ExitCode::SUCCESS),
    }
}
