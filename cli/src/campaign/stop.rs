//! `keywheel fleet stop`: nothing more is started. What was started goes on.

use aws_sdk_sfn::types::ExecutionStatus;
use jiff::Timestamp;
use keywheel::StepError;
use serde_json::json;

use super::read::{self, Seen};
use super::told;
use crate::error::{Exit, Result, Trouble};
use crate::output::Out;
use crate::place::{Place, execution_of};

/// The error that a stopped execution carries.
const STOPPED: &str = "Keywheel.Stopped";

/// What becomes of rotations.
const GO_ON: &str = "Rotations that were started go on by themselves: `keywheel status` shows them, `keywheel mode paused` holds them up.";

/// Runs the command.
pub(super) async fn run(place: &Place, out: &Out, typed: Option<&str>, yes: bool) -> Result<Exit> {
    let seen = match typed {
        Some(typed) => runs(read::named(place, typed).await?)?,
        None => only(read::running(place).await?)?,
    };
    out.notes(&told::lines(&seen, Timestamp::now()));
    out.note(&format!("No more rotations are started by this campaign. {GO_ON}"));
    out.confirm("Stop this campaign?", yes)?;
    let call = place.sfn().stop_execution().execution_arn(execution_of(&place.fleet, &seen.id));
    let cause = format!("{} stopped it.", place.caller);
    call.error(STOPPED)
        .cause(cause)
        .send()
        .await
        .map_err(|error| StepError::from_sdk("states:StopExecution", &error))?;
    // It may have ended by itself while the question was read. Whoever may stop and not look has stopped it.
    let after = read::campaign(place, &seen.id).await.ok().flatten().filter(ended_by_itself);
    if let Some(after) = &after {
        out.line(&format!("Campaign {} had ended before: {}.", seen.id, after.word()));
    } else {
        out.line(&format!("Campaign {} is stopped.", seen.id));
        out.line(GO_ON);
    }
    out.json(&json!({ "campaign": seen.id, "stopped": after.is_none() }));
    Ok(Exit::Done)
}

/// Whether a campaign has ended in another way than by being stopped. Step Functions may still call it running.
fn ended_by_itself(seen: &Seen) -> bool {
    seen.outcome().is_some()
        || matches!(
            seen.status,
            ExecutionStatus::Succeeded | ExecutionStatus::Failed | ExecutionStatus::TimedOut
        )
}

/// The campaign, if it runs.
fn runs(seen: Seen) -> Result<Seen> {
    if seen.is_under_way() {
        return Ok(seen);
    }
    Err(Trouble::new(
        format!("Campaign {} does not run: {}.", seen.id, seen.word()),
        "Nothing was changed. `keywheel fleet status` shows which one does.",
    ))
}

/// The one that runs.
fn only(running: Vec<Seen>) -> Result<Seen> {
    let ids: Vec<String> = running.iter().map(|seen| seen.id.clone()).collect();
    let mut running = running.into_iter();
    match (running.next(), running.next()) {
        (Some(seen), None) => Ok(seen),
        (None, _) => Err(Trouble::new(
            "No campaign runs.",
            "Nothing was changed. `keywheel fleet status` shows the last ones; `keywheel status` shows rotations.",
        )),
        (Some(_), Some(_)) => Err(Trouble::new(
            format!("Several campaigns run: {}.", ids.join(", ")),
            "Nothing was changed. Give the id of the one that is meant.",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{ID, seen};
    use super::*;
    use keywheel::campaign::Outcome;

    #[test]
    fn only_a_campaign_that_runs_is_stopped() {
        assert_eq!(runs(seen(ExecutionStatus::Running, None)).unwrap().id, ID);
        for (status, outcome, says) in [
            (ExecutionStatus::Aborted, None, "does not run: Aborted"),
            (ExecutionStatus::Succeeded, Some(Outcome::Done), "does not run: Done"),
            // Only its last notice is still on its way.
            (ExecutionStatus::Running, Some(Outcome::Stopped), "does not run: Stopped"),
        ] {
            let trouble = runs(seen(status, outcome)).unwrap_err();
            assert!(
                trouble.text.contains(says) && trouble.remedy.starts_with("Nothing was changed"),
                "{trouble}"
            );
        }
    }

    #[test]
    fn without_an_id_exactly_one_must_run() {
        assert!(only(Vec::new()).unwrap_err().text.contains("No campaign runs"));
        let one = || seen(ExecutionStatus::Running, None);
        assert_eq!(only(vec![one()]).unwrap().id, ID);
        assert!(only(vec![one(), one()]).unwrap_err().text.contains(&format!("{ID}, {ID}")));
    }

    #[test]
    fn one_that_ended_meanwhile_was_not_stopped() {
        assert!(!ended_by_itself(&seen(ExecutionStatus::Running, None)));
        assert!(!ended_by_itself(&seen(ExecutionStatus::Aborted, None)));
        assert!(ended_by_itself(&seen(ExecutionStatus::Failed, None)));
        assert!(ended_by_itself(&seen(ExecutionStatus::Running, Some(Outcome::Done))));
    }
}
