//! The `keywheel` command: starts, watches and explains the rotations that the state machines do.

mod args;
mod enroll;
mod error;
mod find;
mod follow;
mod keys;
mod managed;
mod mode;
mod names;
mod output;
mod place;
mod resume;
mod rollback;
mod rotate;
mod ruler;
mod run;
mod status;
mod story;
mod switches;
mod time;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};
use crate::error::{Exit, Result};
use crate::output::Out;
use crate::place::Place;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let out = Out::new(cli.common.json);
    let exit = dispatch(&cli, &out).await.unwrap_or_else(|trouble| {
        out.trouble(None, &trouble);
        Exit::Refused
    });
    ExitCode::from(exit.code())
}

async fn dispatch(cli: &Cli, out: &Out) -> Result<Exit> {
    let place = Place::find(&cli.common).await?;
    match &cli.command {
        Command::Enroll(args) => enroll::run(&place, out, args).await,
        Command::Rotate(args) => rotate::run(&place, out, args).await,
        Command::Status(args) => status::run(&place, out, args).await,
        Command::Resume(args) => resume::run(&place, out, args).await,
        Command::Rollback(args) => rollback::run(&place, out, args).await,
        Command::Mode(args) => mode::run(&place, out, args).await,
    }
}
