//! P2, P3, P5 and P7 in an emergency: what may be taken away, what must be, and what is said of it.

use jiff::{SignedDuration, Timestamp};
use keywheel::emergency::{Emergency, Response, RoleSessions};
use keywheel::incident::{Course, LONGEST_SESSION, Record, SETTLES};
use keywheel::notice::{Notice, NoticeKind};
use keywheel::rotation::{Delivery, Outcome};
use keywheel::switch::Containment;
use keywheel::triage::Class;
use keywheel::{Alert, Incident, RunId, UserName, sessions};

use super::Before;
use crate::fake::{Call, Key, Maker, Request, State};
use crate::functions::STAGE;
use crate::walker::Walk;

/// The functions of an emergency.
const FUNCTIONS: [&str; 6] = ["triage", "watch", "contain", "deny-sessions", "replace", "investigate"];
/// How late IAM's list may show what was done.
const JUST_NOW: std::time::Duration = std::time::Duration::from_secs(15);
/// How the policies are called that an emergency writes.
const DENY: &str = "keywheel-deny-sessions-";
const STOP_GAP: &str = "keywheel-stop-gap-";
/// How much later than the call that made a key Inactive it may be read back so.
const READ_BACK: SignedDuration = SignedDuration::from_secs(20);

fn signed(duration: std::time::Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap()
}

/// The incident that a call belongs to, as it was when its execution began.
fn incident_of(state: &State, call: &Call) -> Option<Incident> {
    serde_json::from_str(&state.execution_of(call.run?)?.input).ok()
}

/// Whether the key was made while a leaked one of its user could still be used, by somebody who is no run of ours.
pub(super) fn was_minted(state: &State, key: &Key, call: &Call) -> bool {
    let Some(incident) = incident_of(state, call) else { return false };
    // Where it could not be read back, it was made Inactive again and again; until the last time nothing is known.
    let last = state.calls.iter().rfind(|other| {
        let id = other.params.get("AccessKeyId").and_then(serde_json::Value::as_str);
        other.run == call.run
            && other.name == "iam:UpdateAccessKey"
            && other.status == 200
            && id.is_some_and(|id| state.watch.leaked.contains(id))
    });
    let until = last.map(|last| last.at + READ_BACK + signed(SETTLES));
    key.maker == Maker::Stranger
        && key.created.as_second() >= incident.started.as_second()
        && until.is_some_and(|until| key.created <= until)
}

/// Whether a run of ours has made the key and lost it on the way: no label leads to it, nobody uses it, and nothing
/// tells it from a key that somebody minted.
fn is_lost(state: &State, key: &Key) -> bool {
    let versions = state.secrets.iter().flat_map(|secret| &secret.versions);
    let mut labelled = versions.filter(|version| !version.stages.is_empty());
    let named = labelled.any(|version| version.text.as_ref().is_some_and(|text| text.contains(&key.id)));
    matches!(key.maker, Maker::Run(_)) && !named
}

/// P2, for what an emergency writes.
pub(super) fn nothing_else_is_touched(
    state: &State,
    request: &Request,
    call: &Call,
    before: &Before,
    broken: &mut Vec<String>,
) {
    let Some(function) = call.function.as_deref() else { return };
    let name = request.name();
    let emergency = FUNCTIONS.contains(&function);
    if emergency && matches!(name.as_str(), "iam:DeleteAccessKey" | "iam:CreateAccessKey") {
        broken.push(format!("P2: {name} in an emergency"));
    }
    if name == "iam:UpdateAccessKey" && emergency {
        let key = state.key(request.text("AccessKeyId")).map(|(_, key)| key);
        let leaked = |key: &Key| state.watch.leaked.contains(&key.id);
        let part = |key: &Key| leaked(key) || was_minted(state, key, call) || is_lost(state, key);
        if function != "contain" || request.text("Status") != "Inactive" || !key.is_some_and(part) {
            broken.push(format!("P2: {name} {:?} on a key that is no part of the leak", request.params));
        }
    }
    let writes = ["Put", "Delete", "Create", "Attach", "Detach"];
    // What was denied is freed whatever the switch says.
    let frees = ["Delete", "Detach"].iter().any(|word| request.action.starts_with(word));
    if emergency && (name == "iam:UpdateAccessKey" || name.ends_with("Policy") && !frees) {
        switched_on(state, call, broken);
    }
    if !name.ends_with("Policy") || !writes.iter().any(|write| request.action.starts_with(write)) {
        return;
    }
    let arn = request.text("PolicyArn");
    let policy = arn.rsplit_once('/').map_or(request.text("PolicyName"), |(_, name)| name);
    if function != "deny-sessions" || !policy.starts_with(DENY) && !policy.starts_with(STOP_GAP) {
        broken.push(format!("P2: {name} on policy {policy}, which is none of an emergency's"));
        return;
    }
    let user = request.text("UserName");
    let kept = state.kept_as(request);
    let was = before.inline.iter().find(|(name, _)| *name == kept).and_then(|(_, all)| all.get(policy));
    match request.action.as_str() {
        "PutUserPolicy" => put(state, (user, call.run), policy, request.text("PolicyDocument"), was, broken),
        "PutRolePolicy" => {
            let text = request.text("PolicyDocument");
            let wanted = state.parameters.get(&Emergency::parameter(STAGE));
            let wanted =
                wanted.and_then(|text| Emergency::parse(text).ok()).unwrap_or_default().role_sessions;
            if !sessions::is_ours_on_a_role(text) || wanted != RoleSessions::Deny {
                broken.push(format!("P2: policy {policy} of a role denies more than it should"));
            }
        }
        "CreatePolicy" if sessions::cut_off_of(request.text("PolicyDocument")).is_none() => {
            broken.push(format!("P2: policy {policy} denies more than sessions"));
        }
        "DeleteUserPolicy" if policy.starts_with(STOP_GAP) => {
            let on = key_of(state, policy).is_some_and(Key::is_active);
            let left = incident_of(state, call).is_some_and(|doc| {
                ["NotSwitchedOn", "ForAPerson", "FalseAlarm"].iter().any(|why| holds(state, &doc, why))
            });
            if on && !left {
                broken.push(format!("P3: {policy} was taken off while its key is Active"));
            }
        }
        "DeleteUserPolicy" => too_early(state, was.map(String::as_str), policy, broken),
        "DetachUserPolicy" => too_early(state, before.managed.get(arn).map(String::as_str), policy, broken),
        _ => {}
    }
}

/// P6: nothing is contained where the switch is not on, unless it could not be read.
fn switched_on(state: &State, call: &Call, broken: &mut Vec<String>) {
    let switch = state.parameters.get(&Containment::parameter(STAGE)).map(String::as_str);
    let unread = |other: &Call| {
        other.run == call.run
            && other.name == "ssm:GetParameters"
            && (other.status != 200 || other.fault.is_some())
    };
    if switch != Some("on") && !state.calls.iter().any(unread) {
        broken.push(format!("P6: {} while containment is {switch:?}", call.name));
    }
}

fn put(
    state: &State,
    (user, run): (&str, Option<RunId>),
    policy: &str,
    document: &str,
    was: Option<&String>,
    broken: &mut Vec<String>,
) {
    let owner = key_of(state, policy).and_then(|key| state.key(&key.id)).map(|(user, _)| user.name.as_str());
    if owner.is_some_and(|owner| owner != user) {
        broken.push(format!("P2: {policy} was put on {user}, whose key it is not"));
    }
    if policy.starts_with(STOP_GAP) {
        // What another incident made Inactive just now does not show yet.
        let on = |key: &Key| key.is_active() || key.active_at(state.ago(JUST_NOW));
        // Nor is it known while what would switch it off, or show it, fails.
        let lately = state.ago(std::time::Duration::from_mins(2));
        let unknown = state.calls.iter().rev().take_while(|other| other.at >= lately).any(|other| {
            let (about, failed) = (other.name.as_str(), other.fault.is_some());
            other.run == run && failed && matches!(about, "iam:UpdateAccessKey" | "iam:ListAccessKeys")
        });
        let leaked = |key: &Key| state.watch.leaked.contains(&key.id) && (on(key) || unknown);
        if !key_of(state, policy).is_some_and(leaked) {
            broken.push(format!("P2: {policy} was put on {user}, and no leaked key needs it"));
        }
        return;
    }
    let Some(cut_off) = sessions::cut_off_of(document) else {
        broken.push(format!("P2: policy {policy} denies more than sessions"));
        return;
    };
    // Two incidents about one key may write in any order. What counts is that no session of the key is left out.
    let settled = cut_off - signed(SETTLES);
    let covered = key_of(state, policy).and_then(Key::off_since).is_some_and(|off| off <= settled);
    if was.and_then(|was| sessions::cut_off_of(was)).is_some_and(|was| was > cut_off) && !covered {
        broken.push(format!("P3: {policy} was written anew with an earlier cut-off"));
    }
}

/// The key that a policy is named after.
fn key_of<'s>(state: &'s State, policy: &str) -> Option<&'s Key> {
    let rest = policy.strip_prefix(DENY).or_else(|| policy.strip_prefix(STOP_GAP))?;
    let id = rest.split('-').next()?;
    state.key(id).map(|(_, key)| key)
}

/// A deny stays until the longest session that it denies has ended, and one of somebody else's stays for good.
fn too_early(state: &State, document: Option<&str>, policy: &str, broken: &mut Vec<String>) {
    let cut_off = document.and_then(sessions::cut_off_of);
    let over = |cut_off: Timestamp| state.now() >= cut_off + signed(LONGEST_SESSION);
    if !cut_off.is_some_and(over) {
        broken.push(format!("P2: {policy} was taken off, and its cut-off is {cut_off:?}"));
    }
}

/// Looks at an incident that has ended.
pub fn after_incident(state: &mut State, walk: &Walk, doc: Option<&Incident>) {
    let mut broken = Vec::new();
    match doc {
        None => broken.push(format!("P5: an incident ended without a document: {:?}", walk.error)),
        Some(_) if walk.status == "ABORTED" => {}
        Some(doc) => {
            if walk.status != "SUCCEEDED" || doc.outcome.is_none() {
                broken.push(format!("P5: an incident ended {} as {:?}", walk.status, walk.error));
            }
            what_leaked_is_off(state, doc, &mut broken);
            what_was_denied_is_free(state, doc, &mut broken);
            it_is_told(state, doc, &mut broken);
        }
    }
    let which = doc.map(|doc| format!("incident {}, {:?}", doc.id, doc.outcome)).unwrap_or_default();
    state.violations.extend(broken.into_iter().map(|what| format!("{what} ({which})")));
}

/// P3: what was to be contained is Inactive; what was not, was not for a reason that holds.
fn what_leaked_is_off(state: &State, doc: &Incident, broken: &mut Vec<String>) {
    let named = doc.target.key_id.iter().chain(&doc.keys).filter(|key| !key.is_temporary());
    let on: Vec<&str> = named
        .map(keywheel::AccessKeyId::as_str)
        .filter(|id| {
            state.watch.leaked.contains(*id) && state.key(id).is_some_and(|(_, key)| key.is_active())
        })
        .collect();
    if on.is_empty() {
        return;
    }
    let why = doc.why.as_ref().map_or("", |why| why.code.as_str());
    // Made Active after the last look: CloudTrail's record of that starts an incident of its own.
    let told =
        doc.notices.iter().filter(|notice| notice.kind == NoticeKind::Ended).map(|notice| notice.at).max();
    // IAM's list shows it late.
    let seen = told.map(|told| told - signed(JUST_NOW));
    let later =
        |id: &&str| state.key(id).is_some_and(|(_, key)| seen.is_some_and(|seen| key.changed() > seen));
    if doc.outcome == Some(Outcome::Contained) && on.iter().all(later) {
        return;
    }
    if doc.outcome == Some(Outcome::Contained) || !holds(state, doc, why) {
        broken.push(format!("P3: the incident ended as {why:?} and {on:?} is Active"));
    }
}

/// Whether the reason that an incident gives for leaving a key alone is one.
fn holds(state: &State, doc: &Incident, why: &str) -> bool {
    let parameter = |name: String| state.parameters.get(&name);
    let key = doc.target.key_id.as_ref();
    let record = key.and_then(|key| parameter(Record::parameter(STAGE, key)));
    let policy = parameter(Emergency::parameter(STAGE)).and_then(|text| Emergency::parse(text).ok());
    match why {
        "NotSwitchedOn" => parameter(format!("/keywheel/{STAGE}/containment")).is_none_or(|it| it != "on"),
        "ForAPerson" => {
            let user = doc.user.as_ref().map(keywheel::UserName::as_str);
            policy.unwrap_or_default().response(&doc.target, user) == Response::Page
        }
        "FalseAlarm" => record
            .and_then(|text| serde_json::from_str::<Record>(text).ok())
            .is_some_and(|record| record.is_cleared(state.now()) || doc.outcome == Some(Outcome::RolledBack)),
        "NotLeaked" => record.is_none(),
        "RecordUnreadable" => doc.target.class == Class::RevokeAgainIfLeaked,
        "Braked" => doc.reported,
        "ForeignAccount" => {
            let account = key.and_then(|key| state.key(key.as_str())?.0.account.as_deref());
            // It has none but another account's, which lets nobody in, or did not when it was asked.
            let shut =
                || state.calls.iter().any(|call| call.name == "sts:AssumeRole" && call.fault.is_some());
            account.is_some_and(|account| !state.open.contains(account) || shut())
        }
        "OddKeyMaking" => doc.target.class == Class::OddKeyMaking,
        _ => false,
    }
}

/// Nothing of an incident's is left on the user when it has ended: not the stop-gap, not its deny.
fn what_was_denied_is_free(state: &State, doc: &Incident, broken: &mut Vec<String>) {
    // Where IAM refused or nobody answered, nothing is known to be there; what is, is this incident's to take off.
    for (role, policies) in &state.their_roles {
        let ours = |name: &str| policies.get(name).is_some_and(|text| sessions::is_ours_on_a_role(text));
        let left = doc.roles.iter().find(|deny| role.ends_with(&deny.role) && ours(&deny.policy));
        if let Some(left) = left.filter(|_| doc.deny.is_some()) {
            broken.push(format!("P3: {} is still on role {role}", left.policy));
        }
    }
    let Some(user) = doc.user.as_ref().map(UserName::as_str) else { return };
    let kept = doc.account.as_ref().map_or_else(|| user.to_owned(), |account| format!("{account}/{user}"));
    let Some(user) = state.users.get(&kept) else { return };
    let credential = doc.target.key_id.as_ref().or(doc.keys.first());
    if let Some(key) = credential.filter(|_| doc.outcome == Some(Outcome::Contained)) {
        let gap = sessions::stop_gap_name(key, doc.id);
        // Another incident about the same key, which is still at work, answers for its own.
        let others = state.executions.values().any(|other| {
            other.arn != doc.execution
                && other.status == "RUNNING"
                && other.arn.contains("-incident:")
                && other.input.contains(key.as_str())
        });
        if user.inline.contains_key(&gap) && !others {
            broken.push(format!("P3: {gap} is still on {}", user.name));
        }
    }
    if let Some(deny) = &doc.deny {
        let inline = user.inline.get(&deny.policy).and_then(|document| sessions::cut_off_of(document));
        let attached = deny.arn.as_ref().is_some_and(|arn| user.attached.contains(arn));
        if inline == Some(deny.cut_off) || attached {
            broken.push(format!("P5: the deny {} is still on {}", deny.policy, user.name));
        }
    }
}

fn it_is_told(state: &State, doc: &Incident, broken: &mut Vec<String>) {
    let told = |kind| doc.notices.iter().any(|notice| notice.kind == kind);
    let mut untold = |what: &str| broken.push(format!("P7: {what} was not announced"));
    // Where a key that somebody made Active is no concern, and where all is switched off, nobody is bothered.
    let off = doc.containment == Some(Containment::Off);
    let quiet = doc.target.class == Class::RevokeAgainIfLeaked || off;
    if doc.outcome.is_some() && !told(NoticeKind::Ended) && !quiet {
        untold("the outcome");
    }
    if doc.contained_at.is_some() && !told(NoticeKind::Contained) {
        untold("that the key is Inactive");
    }
    are_sent(state, &doc.notices, doc.delivery, broken);
    if doc.delivery == Delivery::GaveUp && !channel_failed(state) {
        broken.push("P7: a notice was given up though no channel failed".into());
    }
}

pub(super) fn channel_failed(state: &State) -> bool {
    let failed = |call: &&Call| {
        call.function.as_deref() == Some("notify") && (call.status != 200 || call.fault.is_some())
    };
    state.options.bus_fails_entries || state.calls.iter().any(|call| failed(&call))
}

pub(super) fn are_sent(state: &State, notices: &[Notice], delivery: Delivery, broken: &mut Vec<String>) {
    let bus = |id: &str| state.bus.iter().any(|entry| entry["Detail"]["id"] == id);
    let topic = |id: &str| {
        let has = |message: &serde_json::Value| {
            message.as_object().is_some_and(|fields| fields.values().any(|value| value == id))
        };
        state.topic.iter().any(has)
    };
    for notice in notices {
        let all = delivery == Delivery::Done;
        if (notice.on_bus || all) && !bus(&notice.id) || (notice.on_topic || all) && !topic(&notice.id) {
            broken.push(format!("P7: {} is marked as sent and was not announced", notice.id));
        }
    }
}

/// Looks at an emergency that has ended, with all that came of it.
pub fn after_alarm(state: &mut State, walk: &Walk, alert: Option<&Alert>) {
    let Some(alert) = alert else {
        // Nothing was judged: the execution has failed, and its input is the event.
        if walk.status == "SUCCEEDED" {
            state.violations.push("P5: an emergency succeeded without an alert".to_owned());
        }
        return;
    };
    let mut broken = Vec::new();
    // What nobody can read, and what could not be found out, is loud.
    let loud = matches!(alert.course, Course::Reject | Course::Watch);
    if loud == (walk.status == "SUCCEEDED") && walk.status != "ABORTED" {
        broken.push(format!("P5: an event that is taken for {:?} ended {}", alert.class, walk.status));
    }
    are_sent(state, &alert.notices, alert.delivery, &mut broken);
    for incident in &alert.incidents {
        // Where its execution could not be started, the emergency itself has contained the key.
        if !state.executions.contains_key(&incident.execution) && walk.status == "SUCCEEDED" {
            what_leaked_is_off(state, incident, &mut broken);
        }
    }
    state.violations.extend(broken.into_iter().map(|what| format!("{what} (alert {})", alert.id)));
}
