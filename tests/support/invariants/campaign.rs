//! P5, P6 and P7 of a campaign: it ends in a named state, counts nothing as done that is not, and tells its end.

use keywheel::campaign::Outcome;
use keywheel::notice::NoticeKind;
use keywheel::rotation::{Delivery, Request as Input};
use keywheel::{Campaign, RunId};

use super::emergency::{are_sent, channel_failed};
use crate::fake::{Call, Execution, State};
use crate::walker::Walk;

/// Looks at a campaign that has ended; the rotations that it started may go on.
pub fn after_campaign(state: &mut State, walk: &Walk, doc: Option<&Campaign>) {
    let mut broken = Vec::new();
    match (walk.status, doc) {
        ("SUCCEEDED", Some(doc)) => {
            if doc.outcome.is_none() {
                broken.push("P5: a campaign succeeded without an outcome".to_owned());
            }
            if doc.notices.iter().all(|notice| notice.kind != NoticeKind::Ended) {
                broken.push("P7: how a campaign ended was not announced".to_owned());
            }
            are_sent(state, &doc.notices, doc.delivery, &mut broken);
            if doc.delivery == Delivery::GaveUp && !channel_failed(state) {
                broken.push("P7: a notice was given up though no channel failed".to_owned());
            }
            counts_what_is(state, doc, &mut broken);
        }
        ("SUCCEEDED", None) => broken.push("P5: a campaign succeeded without a document".to_owned()),
        ("FAILED", _) => {
            let error = walk.error.as_ref().map_or("", |failure| failure.error.as_str());
            if !error.starts_with("Keywheel.") {
                broken.push(format!("P5: a campaign failed as {error:?}, which is no name of ours"));
            }
        }
        _ => {}
    }
    let which = doc.map(|doc| format!("campaign {}, {:?}", doc.campaign, doc.outcome)).unwrap_or_default();
    state.violations.extend(broken.into_iter().map(|what| format!("{what} ({which})")));
}

fn counts_what_is(state: &State, doc: &Campaign, broken: &mut Vec<String>) {
    let started: Vec<RunId> =
        state.executions.values().filter_map(|execution| started_by(doc, execution)).collect();
    if matches!(doc.outcome, Some(Outcome::Planned | Outcome::Refused)) && !started.is_empty() {
        broken.push(format!("P6: nothing was to be started, and {started:?} were"));
    }
    let has_promoted = |run: &&RunId| state.calls.iter().any(|call| promotes(call, **run));
    let (counted, moved) = (doc.done().0, started.iter().filter(has_promoted).count());
    if counted > moved {
        broken.push(format!("P6: {counted} keys are counted as promoted, and {moved} are"));
    }
}

/// The run that an execution is, where the campaign has started it.
fn started_by(doc: &Campaign, execution: &Execution) -> Option<RunId> {
    let (_, name) = execution.arn.rsplit_once("-rotation:")?;
    let input: Input = serde_json::from_str(&execution.input).ok()?;
    let run = doc.campaign.child(&input.secret);
    (run.to_string() == name).then_some(run)
}

/// Whether a call took effect by which a run promotes its key, or takes a promoted one over.
fn promotes(call: &Call, run: RunId) -> bool {
    let stage = call.params.get("VersionStage").and_then(serde_json::Value::as_str).unwrap_or_default();
    call.run == Some(run)
        && call.status == 200
        && call.name == "secretsmanager:UpdateSecretVersionStage"
        && (stage == "AWSCURRENT" || stage == run.label())
}
