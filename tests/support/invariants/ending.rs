//! P5 and P7: what a run says at its end is true, and was told.

use keywheel::notice::NoticeKind;
use keywheel::rotation::{Delivery, Outcome, Phase};
use keywheel::{Rotation, RunId};
use serde_json::Value;

use super::orphans;
use crate::fake::{Call, State};
use crate::walker::Walk;

/// Looks at a run that has ended.
pub fn after_run(state: &mut State, run: RunId, walk: &Walk, doc: Option<&Rotation>) {
    let mut broken = Vec::new();
    ends_in_a_named_state(walk, doc, &mut broken);
    // One that failed at making the key Inactive has tried, and the rule on the execution's status tells of it.
    let tried = walk.status == "FAILED" && walk.states().contains(&"DeactivateKey");
    if let Some(doc) = doc.filter(|_| walk.status != "ABORTED" && !tried) {
        leaves_no_leaked_key_on(state, doc, &mut broken);
    }
    if let Some(doc) = doc.filter(|_| walk.status == "SUCCEEDED") {
        let writes: Vec<Call> = state.calls.iter().filter(|call| is_write(call, run)).cloned().collect();
        says_what_is(state, doc, &writes, &mut broken);
        everything_is_announced(state, doc, &writes, &mut broken);
    }
    let ending = doc.and_then(|doc| doc.outcome).map_or(walk.status, Outcome::name);
    state.violations.extend(broken.into_iter().map(|what| format!("{what} (run {run}, {ending})")));
}

/// A call of the run that took effect and changed what the product is about. A run's own label is a note, and
/// an empty first version holds nothing.
fn is_write(call: &Call, run: RunId) -> bool {
    let text = |name: &str| call.params.get(name).and_then(Value::as_str).unwrap_or_default();
    call.run == Some(run)
        && call.status == 200
        && match call.name.as_str() {
            "iam:CreateAccessKey" | "iam:UpdateAccessKey" | "iam:DeleteAccessKey" => true,
            "secretsmanager:PutSecretValue" => text("ClientRequestToken") == run.to_string(),
            "secretsmanager:UpdateSecretVersionStage" => text("VersionStage").starts_with("AWS"),
            _ => false,
        }
}

fn ends_in_a_named_state(walk: &Walk, doc: Option<&Rotation>, broken: &mut Vec<String>) {
    let outcome = doc.and_then(|doc| doc.outcome);
    match walk.status {
        "SUCCEEDED" if outcome.is_none() => broken.push("P5: a run succeeded without an outcome".into()),
        "FAILED" => {
            let error = walk.error.as_ref().map_or("", |failure| failure.error.as_str());
            if !error.starts_with("Keywheel.") {
                broken.push(format!("P5: a run failed as {error:?}, which is no name of ours"));
            }
            // A machine that could not undo says so itself; the rule on the execution's status says it again.
            let told = doc.is_none_or(|doc| {
                doc.phase == Phase::Ended || doc.notices.iter().any(|notice| notice.kind == NoticeKind::Stuck)
            });
            // Where the function that tells died to the last try, only that rule is left.
            let states = walk.states();
            let mute = states.ends_with(&["NotifyOutcome", "Concluded", "NotConcluded"])
                || states.ends_with(&["NotifyStuck", "RollBackIncomplete"]);
            if !told && !mute {
                broken.push("P7: a run failed and has no notice of it".into());
            }
        }
        _ => {}
    }
}

/// P3: a run for a leaked key ends with that key Inactive, or says that a person is needed.
fn leaves_no_leaked_key_on(state: &State, doc: &Rotation, broken: &mut Vec<String>) {
    let told = matches!(doc.outcome, Some(Outcome::Held | Outcome::Blocked | Outcome::RolledBack));
    let old = doc.old.as_ref().map(|old| old.key.as_str());
    // What somebody has made Active again is for the looks of its incident to find.
    let watch = &state.watch;
    let ours = |id: &&str| watch.leaked.contains(*id) && !watch.by_people.contains(*id);
    let on = |id: &&str| ours(id) && state.key(id).is_some_and(|(_, key)| key.is_active());
    if let Some(old) = old.filter(on).filter(|_| !told && doc.promoted_at.is_some()) {
        broken.push(format!("P3: the run ended and the leaked key {old} is Active"));
    }
}

fn says_what_is(state: &State, doc: &Rotation, writes: &[Call], broken: &mut Vec<String>) {
    let exists = |key: &str| state.key(key).is_some_and(|(_, key)| key.exists());
    let active = |key: &str| state.key(key).is_some_and(|(_, key)| key.is_active());
    let old = doc.old.as_ref().map(|old| old.key.as_str());
    let new = doc.new.as_ref().map(|new| new.key.as_str());
    let code = doc.why.as_ref().map_or("", |why| why.code.as_str());
    let mut lie = |what: String| broken.push(format!("P5: {what}"));
    match doc.outcome {
        Some(Outcome::Completed) => {
            if let Some(old) = old.filter(|old| exists(old)) {
                lie(format!("Completed, and the old key {old} is still there"));
            }
            let name = doc.baseline.as_ref().map_or("", |baseline| baseline.secret_name.as_str());
            if !state.replicas.is_empty() && old.is_some() {
                let lagging = state.lagging(name);
                if !lagging.is_empty() {
                    lie(format!("Completed, and the replicas in {lagging:?} name another version"));
                }
            }
        }
        Some(Outcome::Blocked) => {
            // A key whose creation was never answered, or whose secret died with the process, may be anybody's
            // to a run that finds no record of it.
            let lost = !orphans(state).is_empty();
            let known = |call: &&Call| call.name != "iam:CreateAccessKey" || call.fault.is_none() && !lost;
            if let Some(write) = writes.iter().find(known) {
                lie(format!("Blocked ({code}), yet {} took effect", write.name));
            }
        }
        Some(Outcome::RolledBack) if code == "TurnedBack" => {}
        Some(Outcome::RolledBack) if doc.request.roll_back => {
            if let Some(old) = old.filter(|old| exists(old)) {
                lie(format!("RolledBack, and the abandoned key {old} is still there"));
            }
        }
        Some(Outcome::RolledBack) => {
            let before = doc.baseline.as_ref().and_then(|baseline| baseline.current.as_ref()?.key.as_ref());
            let new = new.filter(|new| before.is_none_or(|before| before.as_str() != *new));
            if let Some(new) = new.filter(|new| exists(new)) {
                lie(format!("RolledBack ({code}), and the new key {new} is still there"));
            }
        }
        Some(Outcome::Held) => {
            // Held leaves the old key to people, unless a person has taken it away meanwhile.
            let open = doc.why.as_ref().is_some_and(|why| why.text.contains("is not known"));
            // Where the reply was lost, and so was every later look, all that a run can say is that it does not know.
            let told = |call: &&Call| call.fault.is_none() || !open;
            let mut tried = writes.iter().filter(|call| call.name == "iam:DeleteAccessKey");
            let deleted = tried.any(|call| told(&call));
            let theirs = |key: &&str| state.watch.by_people.contains(*key);
            if let Some(old) = old.filter(|old| deleted && !exists(old)).filter(|old| !theirs(old)) {
                lie(format!("Held ({code}), and the run has deleted the old key {old}"));
            }
        }
        Some(Outcome::Contained) => {
            let theirs = |key: &&str| state.watch.by_people.contains(*key);
            if let Some(old) = old.filter(|old| active(old)).filter(|old| !theirs(old)) {
                broken.push(format!("P3: Contained, and the leaked key {old} is Active"));
            }
        }
        None => {}
    }
}

fn everything_is_announced(state: &State, doc: &Rotation, writes: &[Call], broken: &mut Vec<String>) {
    let is_told = |kind: NoticeKind| doc.notices.iter().any(|notice| notice.kind == kind);
    let field_of = |call: &Call, name: &str| {
        call.params.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let did = |function: &str, name: &str, field: &str, value: &str| {
        writes.iter().any(|call| {
            call.function.as_deref() == Some(function)
                && call.name == name
                && (field.is_empty() || field_of(call, field) == value)
        })
    };
    let mut untold = |what: &str| broken.push(format!("P7: {what} was not announced"));
    if !is_told(NoticeKind::Ended) {
        untold("the outcome");
    }
    // Where a step took effect and yet failed for good, the outcome's notice tells of it.
    let failed = doc.outcome == Some(Outcome::Held) && doc.error.is_some();
    let moves = "secretsmanager:UpdateSecretVersionStage";
    if did("promote-key", moves, "VersionStage", "AWSCURRENT") && !is_told(NoticeKind::Promoted) {
        untold("the promotion");
    }
    if did("roll-back", moves, "VersionStage", "AWSCURRENT") && !is_told(NoticeKind::TurnedBack) {
        untold("that the promotion was turned back");
    }
    let told_off = is_told(NoticeKind::Deactivated) || doc.outcome == Some(Outcome::Contained) || failed;
    if did("deactivate-key", "iam:UpdateAccessKey", "Status", "Inactive") && !told_off {
        untold("that the old key is Inactive");
    }
    if did("delete-key", "iam:DeleteAccessKey", "", "") && !is_told(NoticeKind::Deleted) && !failed {
        untold("that the old key was deleted");
    }
    let bus = |id: &str| state.bus.iter().any(|entry| entry["Detail"]["id"] == id);
    let topic = |id: &str| {
        state
            .topic
            .iter()
            .any(|message| message.as_object().is_some_and(|fields| fields.values().any(|value| value == id)))
    };
    for notice in doc.notices.iter().filter(|notice| notice.is_sent() || doc.delivery == Delivery::Done) {
        if !bus(&notice.id) || !topic(&notice.id) {
            untold(&format!("{} is marked as sent and", notice.id));
        }
    }
    if doc.delivery == Delivery::GaveUp {
        let channel = |call: &&Call| call.run == Some(doc.run) && call.function.as_deref() == Some("notify");
        let failures =
            state.calls.iter().filter(channel).filter(|call| call.status != 200 || call.fault.is_some());
        if failures.count() == 0 && !state.options.bus_fails_entries {
            untold("a notice was given up though no channel failed, and it");
        }
    }
}
