//! P1, P2, P3 and P8: what may become of keys.

use jiff::{SignedDuration, Timestamp};
use keywheel::incident::{Record, RecordState};
use keywheel::rotation::{Reason, Request as Input};

use super::{Before, current_is_good, labels, unused};
use crate::fake::{Call, Key, Maker, Request, State};
use crate::functions::STAGE;

/// P2, for the two calls that could take a key away.
pub(super) fn nothing_of_a_strangers(
    state: &State,
    request: &Request,
    call: &Call,
    before: &Before,
    broken: &mut Vec<String>,
) {
    let name = request.name();
    let delete = name == "iam:DeleteAccessKey";
    if !delete && (name != "iam:UpdateAccessKey" || request.text("Status") != "Inactive") {
        return;
    }
    let Some((_, key)) = state.key(request.text("AccessKeyId")) else { return };
    let watch = &state.watch;
    let retired = watch.retired.contains(&key.id);
    let leaked = watch.leaked.contains(&key.id);
    if call.function.as_deref() == Some("contain") {
        // Which keys that function may touch is a question of the leak, not of whose they are.
        return;
    }
    if call.function.as_deref().is_some_and(|function| unused::FUNCTIONS.contains(&function)) {
        // Nor is it here: whose keys they are nobody asks, but what their user and its policy say.
        return unused::only_as_asked(state, request, call, broken);
    }
    let evidence_over = evidence_is_over(state, &key.id);
    if key.maker == Maker::Stranger && !retired && !key.was_current && !evidence_over {
        broken.push(format!("P2: {name} on a stranger's key {}", key.id));
    }
    if before.labels.iter().any(|labels| labels.current.as_deref() == Some(&*key.id)) && !leaked {
        broken.push(format!("P1: {name} on the key that AWSCURRENT names, {}", key.id));
    }
    if let Maker::Run(maker) = key.maker
        && !key.was_current
        && Some(maker) != call.run
        && state.is_running(maker)
    {
        broken.push(format!("P2: {name} on key {} of run {maker}, which is at work", key.id));
    }
    if !delete {
        return;
    }
    if key.changes.last().is_some_and(|(_, active)| *active) {
        broken.push(format!("P2: an Active key was deleted, {}", key.id));
    }
    // A rotation that knew of no leak has superseded its key like any other.
    if leaked && replaced_as_leaked(state).is_some() && !evidence_over {
        broken.push(format!("P2: a leaked key was deleted, {}", key.id));
    }
    // What people switched on and off again between two looks leaves no trace but uses. The grace began when a run made
    // the key Inactive, or when it found it so after the promotion.
    let since = if watch.by_people.contains(&key.id) {
        made_inactive(state, &key.id).or_else(|| off_since_promotion(state, key)).unwrap_or(key.changed())
    } else {
        key.changed()
    };
    let inactive_for = state.now().duration_since(since);
    if (key.was_current || retired || evidence_over)
        && inactive_for < SignedDuration::try_from(watch.grace).unwrap()
    {
        broken.push(format!("P2: key {} was deleted after {inactive_for:#} of grace", key.id));
    }
}

/// When one of our calls made the key Inactive last.
fn made_inactive(state: &State, key: &str) -> Option<Timestamp> {
    let ours = state.calls.iter().rfind(|call| {
        call.name == "iam:UpdateAccessKey"
            && call.status == 200
            && call.params["AccessKeyId"] == *key
            && call.params["Status"] == "Inactive"
    });
    ours.map(|call| call.at)
}

/// When the key was first made Inactive since AWSCURRENT moved.
fn off_since_promotion(state: &State, key: &Key) -> Option<Timestamp> {
    let moved = state.calls.iter().rfind(|call| {
        call.name == "secretsmanager:UpdateSecretVersionStage"
            && call.status == 200
            && call.params["VersionStage"] == "AWSCURRENT"
    });
    let moved = moved.map_or(Timestamp::MIN, |call| call.at);
    key.changes.iter().find(|(at, active)| !active && *at >= moved).map(|(at, _)| *at)
}

/// Whether a person has closed the incident of a leaked key, and its evidence time has passed.
fn evidence_is_over(state: &State, key: &str) -> bool {
    let record = key.parse().ok().and_then(|key| state.parameters.get(&Record::parameter(STAGE, &key)));
    let record = record.and_then(|text| serde_json::from_str::<Record>(text).ok());
    record.is_some_and(|record| {
        record.state == RecordState::Closed
            && state.now().duration_since(record.at) >= SignedDuration::from_hours(30 * 24)
    })
}

/// P3: what is contained stays contained.
pub(super) fn a_leaked_key_stays_off(state: &State, request: &Request, broken: &mut Vec<String>) {
    let key = request.text("AccessKeyId");
    if request.name() == "iam:UpdateAccessKey"
        && request.text("Status") == "Active"
        && state.watch.leaked.contains(key)
    {
        broken.push(format!("P3: the leaked key {key} was made Active"));
    }
}

/// The promotion by which a run that was started for a leak replaced the key.
pub fn replaced_as_leaked(state: &State) -> Option<&Call> {
    let promotion = |call: &&Call| {
        call.name == "secretsmanager:UpdateSecretVersionStage"
            && call.status == 200
            && call.params["VersionStage"] == "AWSCURRENT"
    };
    let for_leak = |call: &&Call| {
        let execution = call.run.and_then(|run| state.execution_of(run));
        let input = execution.and_then(|execution| serde_json::from_str::<Input>(&execution.input).ok());
        input.is_some_and(|input| input.reason == Reason::Leaked)
    };
    state.calls.iter().filter(promotion).rfind(for_leak)
}

/// P3: what nothing stands against is done. Nothing failed, nobody interfered, the replacement is in place: then
/// the leaked key does not stay Active for two hours (a pause of one is no fault).
pub(super) fn a_leaked_key_goes_soon(state: &State, broken: &mut Vec<String>) {
    let current = state.secrets.iter().filter_map(crate::fake::Secret::current_key).collect::<Vec<_>>();
    let Some(key) = state.leaked_and_active().filter(|key| !current.contains(key)) else { return };
    let replaced = replaced_as_leaked(state);
    // What a person switches on again is found by its event.
    let by_people = state.watch.by_people.contains(&key);
    let on_since = state.key(&key).filter(|_| by_people).map_or(Timestamp::MIN, |(_, key)| key.changed());
    let undisturbed = state.deeds.is_empty() && state.calls.iter().all(|call| call.fault.is_none());
    if let Some(replaced) = replaced.filter(|_| undisturbed)
        && state.now().duration_since(replaced.at.max(on_since)) > SignedDuration::from_hours(2)
    {
        broken.push(format!("P3: the leaked key {key} is Active two hours after its replacement"));
    }
}

/// P8: as long as a superseded key exists, AWSPREVIOUS leads back to it. What people did to the labels before
/// the call is theirs to answer for; what the call did is not.
pub(super) fn the_way_back_stays_open(state: &State, before: &Before, broken: &mut Vec<String>) {
    for (before, after) in before.labels.iter().zip(labels(state)) {
        if *before == after {
            continue;
        }
        // The key that consumers held until this call is one command away, wherever the call took them.
        let way_back = if before.current == after.current { &before.previous } else { &before.current };
        let Some(key) = way_back.as_deref().filter(|key| after.current.as_deref() != Some(key)) else {
            continue;
        };
        let exists = state.key(key).is_some_and(|(_, key)| key.exists());
        if exists && after.previous.as_deref() != Some(key) {
            broken.push(format!("P8: no label leads back to key {key}, which is superseded"));
        }
    }
}

/// Notes what later looks need to know.
pub(super) fn note_current_and_retired(state: &mut State) {
    let current: Vec<String> = state.secrets.iter().filter_map(crate::fake::Secret::current_key).collect();
    let retired: Vec<String> =
        state.users.values().filter_map(|user| user.tags.get("keywheel:retire").cloned()).collect();
    state.watch.retired.extend(retired);
    for key in state.users.values_mut().flat_map(|user| &mut user.keys) {
        key.was_current |= current.contains(&key.id);
    }
}

/// P1, from the first time that AWSCURRENT names a working key.
pub(super) fn always_a_working_key(state: &mut State, broken: &mut Vec<String>) {
    let mut good = Vec::new();
    for secret in state.secrets.iter().filter(|secret| secret.deleted.is_none()) {
        match current_is_good(state, secret.current()) {
            Ok(()) => good.push(secret.arn.clone()),
            Err(why) if state.watch.good.contains(&secret.arn) => broken.push(format!("P1: {why}")),
            Err(_) => {}
        }
    }
    state.watch.good.extend(good);
}
