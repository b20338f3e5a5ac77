//! The `keywheel` command: starts, watches and explains the rotations that the state machines do.

mod advise;
mod args;
mod audit;
mod campaign;
mod containment;
mod credentials;
mod doctor;
mod drill;
mod emergency;
mod enroll;
mod error;
mod find;
mod fleet;
mod follow;
mod incident;
mod input;
mod install;
mod key;
mod keys;
mod managed;
mod mode;
mod names;
mod output;
mod place;
mod regions;
mod restore;
mod resume;
mod revoke;
mod rollback;
mod rotate;
mod ruler;
mod run;
mod stack;
mod status;
mod story;
mod switches;
mod time;
mod triage;
mod unenroll;
mod uninstall;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command, EmergencyAction, EmergencyArgs, PolicyAction, PolicyArgs};
use crate::error::{Exit, Result};
use crate::output::Out;
use crate::place::Place;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    // To an SDK, JSON on standard output is a pair: trouble is never told there.
    let is_pair = matches!(cli.command, Command::Credentials(_));
    let out = Out::new(cli.common.json && !is_pair);
    let exit = dispatch(&cli, &out).await.unwrap_or_else(|trouble| {
        out.trouble(None, &trouble);
        Exit::Refused
    });
    ExitCode::from(exit.code())
}

async fn dispatch(cli: &Cli, out: &Out) -> Result<Exit> {
    let place = || Place::find(&cli.common);
    match &cli.command {
        Command::Install(args) => Box::pin(install::run(&place().await?, out, args)).await,
        Command::Uninstall(args) => Box::pin(uninstall::run(&place().await?, out, args)).await,
        Command::Enroll(args) => enroll::run(&place().await?, out, args).await,
        Command::Unenroll(args) => unenroll::run(&place().await?, out, args).await,
        // A place costs a call that a program would wait for each time.
        Command::Credentials(args) => credentials::run(&cli.common, out, args).await,
        Command::Rotate(args) => rotate::run(&place().await?, out, args).await,
        Command::Status(args) => status::run(&place().await?, out, args).await,
        Command::Resume(args) => resume::run(&place().await?, out, args).await,
        Command::Rollback(args) => rollback::run(&place().await?, out, args).await,
        Command::Restore(args) => restore::run(&place().await?, out, args).await,
        Command::Mode(args) => mode::run(&place().await?, out, args).await,
        Command::Revoke(args) => revoke::run(&place().await?, out, args).await,
        Command::Incident(args) => incident::run(&place().await?, out, args).await,
        Command::Containment(args) => containment::run(&place().await?, out, args).await,
        Command::Emergency(EmergencyArgs { action: EmergencyAction::Check { file } }) => {
            emergency::check(out, file)
        }
        Command::Emergency(args) => emergency::run(&place().await?, out, args).await,
        // What rights it needs is known without any.
        Command::Audit(args) if args.print_policy => Ok(audit::print_policy(out)),
        Command::Audit(args) => audit::run(&place().await?, out, args).await,
        Command::Key(args) => key::run(&place().await?, out, args).await,
        Command::Plan(args) => fleet::plan(&place().await?, out, args).await,
        Command::Policy(PolicyArgs { action: PolicyAction::Check { file } }) => fleet::check(out, file),
        Command::Policy(PolicyArgs { action: PolicyAction::Explain { user, policy, pushed } }) => {
            fleet::explain(&place().await?, out, user, policy.as_deref(), *pushed).await
        }
        Command::Policy(PolicyArgs { action: PolicyAction::Push { file, yes } }) => {
            fleet::push(&place().await?, out, file, *yes).await
        }
        Command::Policy(PolicyArgs { action: PolicyAction::Schema }) => Ok(fleet::schema(out)),
        Command::Fleet(args) => campaign::run(&place().await?, out, args).await,
        Command::Advise(args) => advise::run(&place().await?, out, args).await,
        Command::Doctor => doctor::run(&place().await?, out).await,
        Command::Drill(args) => drill::run(&place().await?, out, args).await,
        // It speaks to nobody.
        Command::Triage(args) => Ok(triage::run(out, args)),
    }
}
