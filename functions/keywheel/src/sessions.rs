//! The policies that deny sessions: what they are called and what they say.
//!
//! `DateLessThan` on `aws:TokenIssueTime` fits only requests that carry a session's token, and of those only the
//! ones issued before the cut-off. It is never `DateLessThanIfExists`: that would fit every request that is signed
//! with a long-lived key, and so kill the replacement.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::ids::{AccessKeyId, RunId};

const SID: &str = "KeywheelDenySessions";
const STOP_GAP: &str = "KeywheelStopGap";

/// How the policies are called that deny sessions, and those that deny everything.
const DENIES: [&str; 2] = ["keywheel-deny-sessions-", "keywheel-stop-gap-"];

/// The name of the policy that denies the sessions of a leaked credential, inline or managed.
pub fn policy_name(credential: &AccessKeyId) -> String {
    format!("{}{credential}", DENIES[0])
}

/// Whether a policy is called like one of ours, whichever credential it is about.
pub fn is_called_like_ours(name: &str) -> bool {
    DENIES.iter().any(|own| name.starts_with(own))
}

/// How the policies are called that deny everything while a key cannot be made Inactive.
pub fn stop_gap_names(credential: &AccessKeyId) -> String {
    format!("{}{credential}-", DENIES[1])
}

/// The name of one incident's: two about the same key do not take off each other's.
pub fn stop_gap_name(credential: &AccessKeyId, incident: RunId) -> String {
    format!("{}{incident}", stop_gap_names(credential))
}

/// A policy that denies every session issued before `cut_off`.
pub fn deny_before(cut_off: Timestamp) -> String {
    json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Sid": SID, "Effect": "Deny", "Action": "*", "Resource": "*",
            "Condition": {"DateLessThan": {"aws:TokenIssueTime": cut_off.to_string()}},
        }],
    })
    .to_string()
}

const ROLE_SID: &str = "KeywheelDenyRoleSessions";

/// A role's policy that denies its sessions of these names issued before `cut_off`: others call with the same role.
pub fn deny_role_sessions(cut_off: Timestamp, names: &BTreeSet<String>) -> String {
    // STS makes the caller's id of the role's and the session's name, which holds no `*` and no `?`.
    let ids: Vec<String> = names.iter().map(|name| format!("*:{name}")).collect();
    json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Sid": ROLE_SID, "Effect": "Deny", "Action": "*", "Resource": "*",
            "Condition": {
                "DateLessThan": {"aws:TokenIssueTime": cut_off.to_string()},
                "StringLike": {"aws:userid": ids},
            },
        }],
    })
    .to_string()
}

/// Whether a role's policy is the one that denies these sessions. IAM returns documents percent-encoded.
pub fn is_role_deny(document: &str, cut_off: Timestamp, names: &BTreeSet<String>) -> bool {
    let read = |text: &str| serde_json::from_str::<Value>(text).ok();
    decoded(document).and_then(|text| read(&text)) == read(&deny_role_sessions(cut_off, names))
}

/// Whether a role's policy is one of ours, whichever sessions it denies.
pub fn is_ours_on_a_role(document: &str) -> bool {
    let policy =
        decoded(document).and_then(|text| serde_json::from_str::<Value>(&text).ok()).unwrap_or_default();
    let statements = policy.get("Statement").and_then(Value::as_array);
    statements.is_some_and(|all| {
        all.len() == 1
            && all[0].get("Sid") == Some(&json!(ROLE_SID))
            && all[0].get("Effect") == Some(&json!("Deny"))
    })
}

/// The cut-off of a role's policy of ours; `None` where somebody has written another one in its place.
pub fn role_cut_off_of(document: &str) -> Option<Timestamp> {
    let policy: Value = serde_json::from_str(&decoded(document)?).ok()?;
    let at = policy.pointer("/Statement/0/Condition/DateLessThan/aws:TokenIssueTime")?.as_str()?;
    at.parse().ok().filter(|_| is_ours_on_a_role(document))
}

/// A policy that denies everything.
pub fn deny_all() -> String {
    json!({
        "Version": "2012-10-17",
        "Statement": [{"Sid": STOP_GAP, "Effect": "Deny", "Action": "*", "Resource": "*"}],
    })
    .to_string()
}

/// The cut-off of a policy of ours; `None` where somebody has written another one in its place. IAM returns
/// documents percent-encoded.
pub fn cut_off_of(document: &str) -> Option<Timestamp> {
    let policy: Value = serde_json::from_str(&decoded(document)?).ok()?;
    let [statement] = policy.get("Statement")?.as_array()?.as_slice() else { return None };
    let ours = statement.get("Sid")? == SID && statement.get("Effect")? == "Deny";
    let condition = statement.get("Condition")?.as_object()?;
    let at = condition.get("DateLessThan")?.get("aws:TokenIssueTime")?.as_str()?.parse().ok();
    at.filter(|_| ours && condition.len() == 1)
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(if byte == b'%' {
            let hex = [rest.next()?, rest.next()?];
            u8::from_str_radix(std::str::from_utf8(&hex).ok()?, 16).ok()?
        } else {
            byte
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_deny_is_exact_and_its_cut_off_is_read_back() {
        let cut_off = at("2026-03-02T09:01:00Z");
        let text = deny_before(cut_off);
        assert!(text.contains("\"DateLessThan\"") && !text.contains("IfExists"), "{text}");
        assert_eq!(cut_off_of(&text), Some(cut_off));
        let encoded: String = text.bytes().fold(String::new(), |text, byte| text + &format!("%{byte:02X}"));
        assert_eq!(cut_off_of(&encoded), Some(cut_off));
    }

    #[test]
    fn a_role_denies_the_sessions_that_are_named_and_no_others() {
        let (cut_off, names) =
            (at("2026-03-02T09:01:00Z"), BTreeSet::from(["deploy".to_owned(), "x@y".to_owned()]));
        let text = deny_role_sessions(cut_off, &names);
        assert!(text.contains("\"*:deploy\"") && text.contains("\"*:x@y\""), "{text}");
        let encoded: String = text.bytes().fold(String::new(), |text, byte| text + &format!("%{byte:02X}"));
        assert!(is_role_deny(&text, cut_off, &names) && is_role_deny(&encoded, cut_off, &names));
        assert!(is_ours_on_a_role(&encoded));
        let fewer = BTreeSet::from(["deploy".to_owned()]);
        assert!(!is_role_deny(&text, cut_off, &fewer));
        assert!(!is_role_deny(&text, at("2026-03-02T09:02:00Z"), &names));
        for theirs in ["", "{}", "%", &deny_before(cut_off), &text.replace(ROLE_SID, "Theirs")] {
            assert!(!is_ours_on_a_role(theirs) && !is_role_deny(theirs, cut_off, &names), "{theirs}");
        }
        // It says nothing of who signs with a user's key, and is no deny of the user's sessions.
        assert_eq!(cut_off_of(&text), None);
        assert_eq!((role_cut_off_of(&text), role_cut_off_of(&encoded)), (Some(cut_off), Some(cut_off)));
        for theirs in ["", "{}", &deny_before(cut_off), &text.replace(ROLE_SID, "Theirs")] {
            assert_eq!(role_cut_off_of(theirs), None, "{theirs}");
        }
    }

    #[test]
    fn a_policy_is_called_like_ours_whatever_it_is_about() {
        let key: AccessKeyId = "AKIAIOSFODNN7EXAMPLE".parse().unwrap();
        assert!(is_called_like_ours(&policy_name(&key)));
        assert!(is_called_like_ours(&stop_gap_name(&key, RunId::random())));
        assert!(!is_called_like_ours("AWSRevokeOlderSessions") && !is_called_like_ours("keywheel"));
    }

    #[test]
    fn what_others_wrote_is_not_ours() {
        for text in [
            "",
            "{}",
            "%",
            "%zz",
            "%C3",
            &deny_all(),
            &deny_before(at("2026-03-02T09:01:00Z")).replace(SID, "Theirs"),
            &deny_before(at("2026-03-02T09:01:00Z")).replace("DateLessThan", "DateLessThanIfExists"),
            &deny_before(at("2026-03-02T09:01:00Z")).replace("Deny", "Allow"),
        ] {
            assert_eq!(cut_off_of(text), None, "{text}");
        }
    }
}
