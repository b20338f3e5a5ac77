//! `keywheel fleet status`: the campaigns that are remembered, and one of them.

use jiff::Timestamp;
use keywheel::campaign::{Campaign, Outcome};

use super::read::{self, Seen};
use super::told;
use crate::error::{Exit, Result};
use crate::output::{Out, table};
use crate::place::Place;
use crate::time;

/// How many are listed unless all are asked for.
const NEWEST: usize = 20;

/// Lists them, the newest first. One that runs is shown with its waves before them.
pub(super) async fn run(place: &Place, out: &Out, all: bool) -> Result<Exit> {
    let (seen, more) = read::newest(place, if all { usize::MAX } else { NEWEST }).await?;
    if seen.is_empty() {
        out.line("No campaign is known. `keywheel fleet run` starts one.");
        return Ok(Exit::Done);
    }
    let now = Timestamp::now();
    for running in seen.iter().filter(|seen| seen.is_under_way()) {
        out.lines(&told::lines(running, now));
        out.line("");
    }
    let mut rows = vec![
        ["CAMPAIGN", "STARTED", "STATUS", "OUTCOME", "KEYS", "PROMOTED", "FAILED"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for seen in &seen {
        out.json(&seen.json());
        rows.push(row(seen));
    }
    out.lines(&table(&rows));
    if more {
        out.note(&format!("Not shown: those before the newest {NEWEST}. --all lists them."));
    }
    Ok(Exit::Done)
}

/// Shows one.
pub(super) async fn one(place: &Place, out: &Out, typed: &str) -> Result<Exit> {
    let seen = read::named(place, typed).await?;
    out.json(&seen.json());
    out.lines(&told::lines(&seen, Timestamp::now()));
    Ok(Exit::Done)
}

fn row(seen: &Seen) -> Vec<String> {
    let number = |number: Option<usize>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let doc = seen.document.as_ref();
    let done = doc.map(Campaign::done);
    vec![
        seen.id.clone(),
        time::at(seen.started),
        seen.status_word().to_owned(),
        seen.outcome().map_or("-", Outcome::name).to_owned(),
        number(doc.map(Campaign::keys)),
        number(done.map(|(promoted, _)| promoted)),
        number(done.map(|(_, failed)| failed)),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::samples::{ID, seen};
    use super::*;
    use aws_sdk_sfn::types::ExecutionStatus;

    #[test]
    fn a_row_says_what_is_known_and_a_dash_what_is_not() {
        let at = "1970-01-01 00:01:40 UTC";
        let ended = row(&seen(ExecutionStatus::Succeeded, Some(Outcome::Stopped)));
        assert_eq!(ended, [ID, at, "Succeeded", "Stopped", "30", "10", "1"]);
        let mut broken = seen(ExecutionStatus::Failed, None);
        broken.document = None;
        assert_eq!(row(&broken), [ID, at, "Failed", "-", "-", "-", "-"]);
    }
}
