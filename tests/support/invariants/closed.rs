//! P6: what a step could not read is no permission, and neither is what it read where that says no.
//!
//! A step's writes are held against what the same invocation was last answered. It does not matter what the step
//! made of an answer: after a refused, lost or throttled look, or one page of several, it may not take a key away
//! or move a label.

use std::collections::BTreeMap;

use jiff::Timestamp;
use keywheel::policy::WhenStillInUse;
use keywheel::rotation::{Reason, Request as Input};
use keywheel::switch::Mode;
use serde_json::Value;

use crate::fake::{Call, Request, State};
use crate::functions::STAGE;

/// By invocation, the last answer to each call.
pub(super) type Reads = BTreeMap<u64, BTreeMap<String, Answer>>;

/// How a look ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// It was answered to the end.
    Whole,
    /// There are more pages.
    Part,
    /// It was not answered.
    None,
    /// The switch was read and does not say live.
    NotLive,
    /// The switch says live, and a freeze holds.
    Frozen,
}

/// Remembers how a call ended for its caller.
pub(super) fn note(state: &mut State, request: &Request, call: &Call) {
    let Some(invocation) = call.invocation else { return };
    let made = &state.calls[call.index];
    let known = made.status == 200
        // There is no such secret, version, parameter or user: an answer like any other.
        || made.code.as_deref().is_some_and(|code| {
            ["ResourceNotFoundException", "ParameterNotFound", "NoSuchEntity"].contains(&code)
        });
    // What is kept of a key that leaked is no switch.
    let kept = request.action == "GetParameter" && request.text("Name").contains("/incidents/");
    let name = if kept { RECORD.to_owned() } else { request.name() };
    let answer = if !known || made.fault.is_some() {
        Answer::None
    } else if made.truncated {
        Answer::Part
    } else if name == "ssm:GetParameter" && !is_live(state, request.text("Name"))
        || name == "ssm:GetParameters" && !is_live(state, &Mode::parameter(STAGE))
    {
        Answer::NotLive
    } else if name == "ssm:GetParameters" && is_frozen(state) {
        Answer::Frozen
    } else {
        Answer::Whole
    };
    state.watch.reads.entry(invocation).or_default().insert(name, answer);
}

/// The read of what is kept of a key that leaked.
const RECORD: &str = "ssm:GetParameter of a record";

fn is_live(state: &State, parameter: &str) -> bool {
    state.parameters.get(parameter).is_some_and(|mode| mode == "live")
}

/// Whether the parameter that `keywheel policy push` writes says that nothing may be touched now, or nothing that can be
/// understood.
fn is_frozen(state: &State) -> bool {
    let Some(text) = state.parameters.get(&format!("/keywheel/{STAGE}/freeze")) else { return false };
    let Ok(Value::Array(freezes)) = serde_json::from_str(text) else { return true };
    let at = |freeze: &Value, field: &str| freeze[field].as_str().and_then(|at| at.parse::<Timestamp>().ok());
    freezes.iter().any(|freeze| match (at(freeze, "from"), at(freeze, "until")) {
        (Some(from), Some(until)) => from <= state.now() && state.now() < until,
        _ => true,
    })
}

/// What must have been read before a write of a function: its calls, and whether a leak or the owner's word
/// does without.
fn needed(state: &State, function: &str, write: &str, request: &Request) -> Vec<(&'static str, bool)> {
    let needed: &[_] = match (function, write) {
        ("create-key", "iam:CreateAccessKey") => &[
            ("ssm:GetParameter", false),
            ("iam:ListAccessKeys", false),
            ("secretsmanager:GetSecretValue", false),
        ],
        ("create-key", "secretsmanager:PutSecretValue")
        | ("promote-key", "secretsmanager:UpdateSecretVersionStage") => &[("ssm:GetParameter", false)],
        ("deactivate-key", "iam:UpdateAccessKey") if request.text("Status") == "Inactive" => &[
            // The switch and the freezes in one.
            ("ssm:GetParameters", false),
            ("secretsmanager:DescribeSecret", false),
            ("iam:ListAccessKeys", false),
            ("secretsmanager:ListSecrets", is_leaked(state, request)),
            ("iam:GetAccessKeyLastUsed", true),
        ],
        ("delete-key", "iam:DeleteAccessKey") => &[
            // The switch, the freezes, and what is kept of the key, in one.
            ("ssm:GetParameters", false),
            ("secretsmanager:DescribeSecret", false),
            ("iam:ListAccessKeys", false),
            ("iam:GetAccessKeyLastUsed", false),
        ],
        ("disable-unused", "iam:UpdateAccessKey") | ("delete-unused", "iam:DeleteAccessKey") => &[
            // The switch, the freezes, and what is kept of the key, in one.
            ("ssm:GetParameters", false),
            ("iam:GetUser", false),
            ("iam:ListAccessKeys", false),
            ("iam:GetAccessKeyLastUsed", false),
            ("secretsmanager:ListSecrets", false),
        ],
        // A key that no event names is taken for part of a leak only after a look at all of them.
        ("contain", "iam:UpdateAccessKey") if !is_leaked(state, request) => &[("iam:ListAccessKeys", false)],
        ("deny-sessions", "iam:DeleteUserPolicy") if !request.text("PolicyName").contains("stop-gap") => {
            &[("iam:GetUserPolicy", false)]
        }
        ("roll-back", "iam:DeleteAccessKey") => {
            &[("secretsmanager:DescribeSecret", false), ("iam:ListAccessKeys", false)]
        }
        _ => &[],
    };
    needed.to_vec()
}

/// A leaked key goes whoever else may hold it.
fn is_leaked(state: &State, request: &Request) -> bool {
    state.watch.leaked.contains(request.text("AccessKeyId"))
}

pub(super) fn unknown_is_no_permission(
    state: &State,
    request: &Request,
    call: &Call,
    broken: &mut Vec<String>,
) {
    let (Some(function), Some(invocation)) = (&call.function, call.invocation) else { return };
    let nothing = BTreeMap::new();
    let reads = state.watch.reads.get(&invocation).unwrap_or(&nothing);
    for (read, by_word) in needed(state, function, &call.name, request) {
        let answer = reads.get(read).copied().unwrap_or(Answer::None);
        let permitted = match answer {
            Answer::Whole => true,
            // One that has ended since it was read holds nobody, nor does any hold a leaked key.
            Answer::Frozen => !is_frozen(state) || is_leaked(state, request) || is_for_a_leak(state, call),
            _ => by_word && does_without(state, call),
        };
        if !permitted {
            broken.push(format!("P6: {read} was answered {answer:?}, and yet the step wrote"));
        }
    }
}

/// Whether the run's input says that it waits for nobody.
fn does_without(state: &State, call: &Call) -> bool {
    is_for_a_leak(state, call)
        || input(state, call)
            .is_some_and(|input| input.policy.when_still_in_use == Some(WhenStillInUse::Deactivate))
}

/// Whether the run was started because of a leak.
fn is_for_a_leak(state: &State, call: &Call) -> bool {
    input(state, call).is_some_and(|input| input.reason == Reason::Leaked)
}

fn input(state: &State, call: &Call) -> Option<Input> {
    let execution = call.run.and_then(|run| state.execution_of(run))?;
    serde_json::from_str(&execution.input).ok()
}
