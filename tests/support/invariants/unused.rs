//! P2, P5 and P7 of keys that nobody uses: what may become of them, and what a run says of it.

use jiff::{SignedDuration, Timestamp};
use keywheel::notice::NoticeKind;
use keywheel::rotation::Delivery;
use keywheel::unused::{Outcome, Removed, Unused};

use super::emergency::{are_sent, channel_failed};
use crate::fake::{Call, Request, State};
use crate::walker::Walk;

/// The functions that may take such a key away.
pub(super) const FUNCTIONS: [&str; 2] = ["disable-unused", "delete-unused"];

/// For how long IAM hands the same credential report out: a switch of a key may be so old before it shows.
const REPORT: SignedDuration = SignedDuration::from_hours(4);

fn signed(span: keywheel::policy::Span) -> SignedDuration {
    SignedDuration::try_from(span.get()).unwrap()
}

/// P2 (c): the user's tag and a policy ask for it, no secret holds the key, nobody has used it for long, and it is
/// deleted only where this very run made it Inactive, and a whole grace has passed since anybody switched it.
pub(super) fn only_as_asked(state: &State, request: &Request, call: &Call, broken: &mut Vec<String>) {
    let Some((user, key)) = state.key(request.text("AccessKeyId")) else { return };
    let mut wrong = |what: &str| broken.push(format!("P2: {} on key {}, {what}", request.name(), key.id));
    if user.tags.get("keywheel:unused").map(String::as_str) != Some("remove") {
        wrong("whose user does not ask for it");
    }
    let Some(asked) = asked(state, call).filter(|asked| asked.key.as_str() == key.id) else {
        return wrong("which its execution does not name");
    };
    if asked.user_id != user.id {
        wrong("which is another user's");
    }
    if is_held(state, &key.id) {
        wrong("which a secret holds");
    }
    let now = state.now();
    // What IAM shows late nobody could have seen.
    let seen = state.ago(state.options.last_used_lag);
    // A call with an Inactive key is refused, and no use.
    let times = key.uses.iter().filter(|once| key.active_at(once.at)).map(|once| once.at);
    let last = times.filter(|at| *at <= seen).max();
    if call.function.as_deref() == Some("disable-unused") {
        if request.text("Status") != "Inactive" {
            wrong("which it makes Active");
        }
        let long = signed(asked.unused.disable_after);
        let lately = last.unwrap_or(key.created).max(key.created);
        // IAM keeps seconds.
        let of_second = |at: Timestamp| now.as_second() - at.as_second();
        if of_second(lately) < long.as_secs() {
            wrong(&format!("which was in use on {lately}"));
        }
        // Before this very call, which is its last change.
        if let Some((since, true)) = key.changes.iter().rev().nth(1)
            && of_second(*since) < (long - REPORT).as_secs()
        {
            wrong("which somebody has made Active again");
        }
        return;
    }
    if key.is_active() || key.changes.last().is_some_and(|(_, active)| *active) {
        wrong("which is Active");
    }
    let Some(grace) = asked.unused.delete_after.map(signed) else {
        return wrong("which is never to be deleted");
    };
    let disabled = state.calls.iter().rfind(|other| {
        other.run == call.run
            && other.function.as_deref() == Some("disable-unused")
            && other.name == "iam:UpdateAccessKey"
            && other.status == 200
    });
    let Some(disabled) = disabled else { return wrong("which its run has not made Inactive") };
    if now.duration_since(key.changed().max(disabled.at)) < grace {
        wrong("before its grace has passed");
    }
    if last.is_some_and(|at| at >= disabled.at) {
        wrong("which was used in its grace");
    }
}

/// What the run of a call was started with.
fn asked(state: &State, call: &Call) -> Option<Removed> {
    let execution = call.run.and_then(|run| state.execution_of(run))?;
    serde_json::from_str(&execution.input).ok()
}

/// Whether a labelled version of any secret names the key.
fn is_held(state: &State, key: &str) -> bool {
    let labelled = state.secrets.iter().flat_map(|secret| &secret.versions);
    let mut labelled = labelled.filter(|version| !version.stages.is_empty());
    labelled.any(|version| version.text.as_deref().is_some_and(|text| text.contains(key)))
}

/// Looks at a run that has ended.
pub fn after_removal(state: &mut State, walk: &Walk, doc: Option<&Unused>) {
    let mut broken = Vec::new();
    match (walk.status, doc) {
        ("SUCCEEDED", Some(doc)) => {
            if doc.notices.iter().all(|notice| notice.kind != NoticeKind::Ended) {
                broken.push("P7: how it ended was not announced".to_owned());
            }
            are_sent(state, &doc.notices, doc.delivery, &mut broken);
            if doc.delivery == Delivery::GaveUp && !channel_failed(state) {
                broken.push("P7: a notice was given up though no channel failed".to_owned());
            }
            says_what_is(state, doc, &mut broken);
        }
        ("SUCCEEDED", None) => broken.push("P5: it succeeded without a document".to_owned()),
        ("FAILED", _) => {
            let error = walk.error.as_ref().map_or("", |failure| failure.error.as_str());
            if !error.starts_with("Keywheel.") {
                broken.push(format!("P5: it failed as {error:?}, which is no name of ours"));
            }
        }
        _ => {}
    }
    let which = doc.map(|doc| format!("removal {}, {:?}", doc.run, doc.outcome)).unwrap_or_default();
    state.violations.extend(broken.into_iter().map(|what| format!("{what} ({which})")));
}

fn says_what_is(state: &State, doc: &Unused, broken: &mut Vec<String>) {
    let exists = state.key(doc.removed.key.as_str()).is_some_and(|(_, key)| key.exists());
    let did = |name: &str| {
        let mut own = state.calls.iter().filter(|call| call.run == Some(doc.run) && call.status == 200);
        own.any(|call| call.name == name)
    };
    let told = |kind: NoticeKind| doc.notices.iter().any(|notice| notice.kind == kind);
    let mut lie = |what: &str| broken.push(format!("P5: {:?}, {what}", doc.outcome));
    match doc.outcome {
        None => lie("a run that has ended"),
        Some(Outcome::Removed) if exists => lie("and the key is still there"),
        Some(Outcome::Left) if did("iam:UpdateAccessKey") || did("iam:DeleteAccessKey") => {
            lie("and yet it was touched");
        }
        Some(Outcome::Kept | Outcome::Disabled) if did("iam:DeleteAccessKey") => lie("and it was deleted"),
        Some(_) => {}
    }
    let held = doc.outcome == Some(Outcome::Held);
    if did("iam:UpdateAccessKey") && !told(NoticeKind::Disabled) && !held {
        broken.push("P7: that the key is Inactive was not announced".to_owned());
    }
    if did("iam:DeleteAccessKey") && !told(NoticeKind::Deleted) && !held {
        broken.push("P7: that the key was deleted was not announced".to_owned());
    }
}
