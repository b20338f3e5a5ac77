//! `keywheel fleet`: campaigns over all keys that are due. The fleet machine does the work; this starts it, watches it
//! and stops it.

mod list;
mod read;
mod run;
mod stop;
mod told;

#[cfg(test)]
mod samples;

use jiff::Timestamp;
use keywheel::campaign::Campaign;
use serde_json::{Value, json};

use crate::args::{FleetAction, FleetArgs};
use crate::error::{Exit, Result};
use crate::output::Out;
use crate::place::Place;

/// Runs the command.
pub(crate) async fn run(place: &Place, out: &Out, args: &FleetArgs) -> Result<Exit> {
    out.note(&place.line());
    match &args.action {
        FleetAction::Run(args) => run::run(place, out, args).await,
        FleetAction::Status { id: Some(id), .. } => list::one(place, out, id).await,
        FleetAction::Status { id: None, all } => list::run(place, out, *all).await,
        FleetAction::Stop { id, yes } => stop::run(place, out, id.as_deref(), *yes).await,
    }
}

/// A line about the campaign that runs, else about the last one, and the same for programs. `None` where there never
/// was one, or where the installation has no fleet machine yet.
pub(crate) async fn glance(place: &Place) -> Result<Option<(String, Value)>> {
    let Some(seen) = read::latest(place).await? else { return Ok(None) };
    let done = seen.document.as_ref().map(Campaign::done);
    let value = json!({
        "campaign": seen.id,
        "status": seen.status.as_str(),
        "outcome": seen.outcome(),
        "started": seen.started,
        "promoted": done.map(|(promoted, _)| promoted),
        "failed": done.map(|(_, failed)| failed),
    });
    Ok(Some((told::line(&seen, Timestamp::now()), value)))
}
