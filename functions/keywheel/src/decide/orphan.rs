//! Whether a key that no version of the secret names is an orphan of ours.
//!
//! A process that dies between making a key and storing it leaves a key whose secret nobody has. Age and
//! position prove nothing: a colleague may have made a key in the same minute. Only CloudTrail's record of the
//! `CreateAccessKey` call, made with our role under the id of this run or of one that has ended, is proof.

use std::time::Duration;

use jiff::Timestamp;

use crate::clock::after;
use crate::ids::RunId;
use crate::rotation::Suspect;

/// CloudTrail's record of the call that made a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateRecord {
    /// The ARN of the role whose session made the call; `None` for anybody who is not a role.
    pub role: Option<String>,
    /// The run that the User-Agent names.
    pub run: Option<RunId>,
    /// Who made the call, for messages.
    pub by: String,
}

/// What is to be done about a suspect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attribution {
    /// It is ours: clear it.
    Ours,
    /// Its record is not there yet: look again then.
    Wait(Timestamp),
    /// It is not ours, or nobody can tell.
    NotOurs(String),
    /// It is the key of a run that is at work.
    AtWork(RunId),
}

/// CloudTrail's records come within about 5 minutes; longer than this is not awaited.
pub const RECORD_WITHIN: Duration = Duration::from_mins(30);
/// How often the record is looked for.
const LOOK_AGAIN: Duration = Duration::from_mins(1);

/// Decides. `ended` tells of the run that the record names whether it is this one or has ended.
pub fn decide(
    suspect: &Suspect,
    record: Option<&CreateRecord>,
    our_role: &str,
    ended: impl FnOnce(RunId) -> bool,
    now: Timestamp,
) -> Attribution {
    if suspect.stored_by.is_some() {
        return Attribution::Ours;
    }
    match record {
        Some(CreateRecord { role: Some(role), run: Some(run), .. }) if role == our_role => {
            if ended(*run) {
                Attribution::Ours
            } else {
                Attribution::AtWork(*run)
            }
        }
        Some(record) => Attribution::NotOurs(format!("key {} was made by {}", suspect.key, record.by)),
        None => match suspect.created.map(|created| after(created, RECORD_WITHIN)) {
            Some(until) if now < until => Attribution::Wait(after(now, LOOK_AGAIN).min(until)),
            _ => Attribution::NotOurs(format!("CloudTrail has no record of who made key {}", suspect.key)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLE: &str = "arn:aws:iam::111122223333:role/keywheel-create-key";

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn suspect() -> Suspect {
        Suspect { key: "AKIABBBBBBBBBBBBBBBB".parse().unwrap(), created: Some(at(1000)), stored_by: None }
    }

    fn record(role: Option<&str>, run: Option<RunId>) -> CreateRecord {
        CreateRecord { role: role.map(str::to_owned), run, by: "somebody".into() }
    }

    #[test]
    fn only_our_role_with_an_ended_run_is_proof() {
        let run = RunId::random();
        let decide = |record: Option<&CreateRecord>, ended, now| {
            super::decide(&suspect(), record, ROLE, |_| ended, at(now))
        };
        assert_eq!(decide(Some(&record(Some(ROLE), Some(run))), true, 1001), Attribution::Ours);
        assert_eq!(decide(Some(&record(Some(ROLE), Some(run))), false, 1001), Attribution::AtWork(run));
        for other in [record(Some(ROLE), None), record(None, Some(run)), record(Some("arn:other"), Some(run))]
        {
            assert!(matches!(decide(Some(&other), true, 1001), Attribution::NotOurs(_)), "{other:?}");
        }
    }

    #[test]
    fn a_missing_record_is_awaited_for_half_an_hour_and_is_never_proof() {
        let decide = |created, now| {
            let suspect = Suspect { created, ..suspect() };
            super::decide(&suspect, None, ROLE, |_| true, at(now))
        };
        assert_eq!(decide(Some(at(1000)), 1010), Attribution::Wait(at(1070)));
        assert_eq!(decide(Some(at(1000)), 2795), Attribution::Wait(at(2800)));
        assert!(matches!(decide(Some(at(1000)), 2800), Attribution::NotOurs(_)));
        assert!(matches!(decide(None, 1010), Attribution::NotOurs(_)));
    }
}
