//! `cargo xtask <task>`: what this repository can do with itself.
//!
//! Progress goes to standard error, results to standard output, so that a task can be watched and piped at once.
//! Every process that a task starts ends with it, however the task ends.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

mod bench;
mod checks;
mod cloud;
mod consumer;
mod demo;
mod deploy;
mod error;
mod guard;
mod http;
mod lambdas;
mod local;
mod package;
mod paths;
mod process;
mod prove;
mod proxy;
mod requests;
mod screen;
mod venv;

use std::ffi::OsString;
use std::future::Future;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::error::Result;

/// Tasks of the Keywheel repository.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// A whole rotation in a local cloud, with consumers at work, watched and counted.
    Demo(demo::Options),
    /// Everything that must hold before a change is taken.
    Test(checks::Options),
    /// The promises under 100,000 woven schedules, every pair of faults and every mutant of the decisions.
    Prove(prove::Options),
    /// Cold start, CPU, memory and size of every Lambda, beside a Python Lambda that does the same.
    Bench(bench::Options),
    /// What is installed without a toolchain: the command, the functions, the templates, with their hashes.
    Package(package::Options),
    /// A local cloud to try things in: no account, no container.
    #[command(subcommand)]
    Local(local::Command),
    /// The demo's consumer process; takes its configuration from standard input.
    #[command(hide = true)]
    Consumer,
    /// Runs a command in a process group of its own until standard input closes.
    #[command(hide = true)]
    Guard {
        /// The command and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    let task = Cli::parse().task;
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(run(task));
    // A thread may still wait for standard input; nobody needs what it would read.
    runtime.shutdown_background();
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(task: Task) -> Result<ExitCode> {
    match task {
        Task::Demo(options) => Box::pin(until_signal(demo::run(options))).await,
        Task::Test(options) => Box::pin(until_signal(checks::run(options))).await,
        Task::Prove(options) => Box::pin(until_signal(prove::run(options))).await,
        Task::Bench(options) => Box::pin(until_signal(bench::run(options))).await,
        Task::Package(options) => Box::pin(until_signal(package::run(options))).await,
        Task::Local(command) => Box::pin(until_signal(local::run(command))).await,
        // These two decide themselves what a signal means.
        Task::Consumer => consumer::run().await,
        Task::Guard { command } => guard::run(&command).await,
    }
}

/// Runs a task until it ends or a signal asks for the end. The task is dropped then, and every process it
/// started with it.
async fn until_signal(task: impl Future<Output = Result<ExitCode>>) -> Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let number: u8 = tokio::select! {
        result = task => return result,
        _ = hangup.recv() => 1,
        _ = interrupt.recv() => 2,
        _ = terminate.recv() => 15,
    };
    eprintln!("\nInterrupted; everything that was started has been stopped.");
    Ok(ExitCode::from(128 + number))
}
