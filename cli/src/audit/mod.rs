//! `keywheel audit`: every key of an account, before anything is deployed.
//!
//! It reads what a plan reads, looks closer at every user that has keys, and takes the plan's word for what would be
//! done. It changes nothing and reads no secret's value.

mod ages;
mod enroll_file;
mod page;
mod rights;
#[cfg(test)]
mod samples;
mod show;

use std::path::Path;

use jiff::Timestamp;
use keywheel::clock::Clock;
use keywheel::decide::due;
use keywheel::fleet::FleetPolicy;
use keywheel::fleet::audit::{Book, book};
use keywheel::fleet::estate::Source;

use crate::args::AuditArgs;
use crate::error::{Exit, Result, Trouble};
use crate::fleet;
use crate::output::Out;
use crate::place::Place;

/// What an audit has found, and of what.
#[derive(Debug)]
struct Audit {
    book: Book,
    account: String,
    regions: Vec<String>,
    /// How many users the account has.
    users: usize,
    source: Source,
    /// The age at which keys are due where no rule says otherwise, in words.
    max_age: String,
    at: Timestamp,
}

/// `keywheel audit --print-policy`: speaks to nobody.
pub(crate) fn print_policy(out: &Out) -> Exit {
    out.document(&format!("{:#}", rights::policy()));
    Exit::Done
}

/// Runs the command.
pub(crate) async fn run(place: &Place, out: &Out, args: &AuditArgs) -> Result<Exit> {
    if args.csv && out.is_json() {
        return Err(Trouble::new("--csv and --json are two forms of one result.", "Give one of them."));
    }
    out.note(&place.line());
    let policy = fleet::given(place, out, args.policy.as_deref(), args.pushed).await?;
    let audit = read(place, out, &policy).await?;
    out.note(&show::source(&audit));
    if args.csv {
        out.document(show::csv(&audit).trim_end());
    } else {
        show::result(out, &audit);
    }
    for why in &audit.book.unread {
        out.note(&format!("NOT READ: {why}"));
    }
    if let Some(file) = &args.html {
        write(out, file, &page::page(&audit))?;
    }
    if let Some(file) = &args.enroll_file {
        write(out, file, &enroll_file::text(&audit.book))?;
    }
    Ok(if audit.book.unread.is_empty() { Exit::Done } else { Exit::Refused })
}

async fn read(place: &Place, out: &Out, policy: &FleetPolicy) -> Result<Audit> {
    let regions = fleet::regions(place, policy);
    // What is read here is read before there is an installation, too: nobody need know which rotations run.
    let mut estate =
        facts::estate::read(place.config(), None, &place.account, &regions, &Clock::System).await?;
    let with_keys = estate.users.iter().filter(|row| !row.keys.is_empty()).count();
    out.note(&format!("{with_keys} of {} users have keys; each is asked for by name.", estate.users.len()));
    let nears = facts::audit::users(place.config(), &estate).await;
    let silent = facts::audit::refine(&mut estate, &nears);
    let now = Timestamp::now();
    let plan = due::plan(policy, &estate, &facts::audit::looks(&nears), now);
    Ok(Audit {
        book: book(&estate, &facts::audit::tags(&nears), &plan, &silent, now),
        account: place.account.clone(),
        regions,
        users: estate.users.len(),
        source: estate.source,
        max_age: policy.usual().max_age.to_string(),
        at: now,
    })
}

fn write(out: &Out, file: &Path, text: &str) -> Result<()> {
    std::fs::write(file, text).map_err(|error| {
        Trouble::new(format!("{} cannot be written: {error}.", file.display()), "Name another file.")
    })?;
    out.note(&format!("Wrote {}.", file.display()));
    Ok(())
}
