//! The policies that deny sessions: what they are called and what they say.
//!
//! `DateLessThan` on `aws:TokenIssueTime` fits only requests that carry a session's token, and of those only the
//! ones issued before the cut-off. It is never `DateLessThanIfExists`: that would fit every request that is signed
//! with a long-lived key, and so kill the replacement.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::ids::AccessKeyId;

const SID: &str = "KeywheelDenySessions";
const STOP_GAP: &str = "KeywheelStopGap";

/// The name of the policy that denies the sessions of a leaked credential, inline or managed.
pub fn policy_name(credential: &AccessKeyId) -> String {
    format!("keywheel-deny-sessions-{credential}")
}

/// The name of the policy that denies everything while a key cannot be made Inactive.
pub fn stop_gap_name(credential: &AccessKeyId) -> String {
    format!("keywheel-stop-gap-{credential}")
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
