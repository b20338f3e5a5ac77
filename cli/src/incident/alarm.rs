//! `keywheel incident ID --false-alarm`: the key has not leaked.

use std::time::Duration;

use jiff::Timestamp;
use keywheel::clock::{after, wait_time};
use keywheel::incident::{Record, RecordState, SCHEMA};
use keywheel::policy::Span;
use keywheel::{RunId, UserName};
use serde_json::json;

use super::answer::{self, Answer};
use super::read::Subject;
use super::undo::{self, Aim};
use crate::error::{Exit, Result, Trouble};
use crate::output::Out;
use crate::place::Place;
use crate::time;

/// How long reports only page, unless it is said.
const USUAL: Span = Span::days(7);
/// The longest that they may: after that, somebody must say it again.
const LONGEST: Span = Span::days(90);
/// The longest reason, so that a record fits into its parameter.
const REASON: usize = 500;

/// A person's word that a key has not leaked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Clearance {
    reason: String,
    lasting: Duration,
}

impl Clearance {
    /// From what was typed, if it is a reason and a time.
    pub(super) fn checked(reason: &str, lasting: Option<Span>) -> Result<Self> {
        let reason = reason.trim();
        let nothing = "Nothing was changed.";
        if reason.is_empty() || reason.chars().any(char::is_control) || reason.chars().count() > REASON {
            return Err(Trouble::new(
                format!("The reason must be one line of 1 to {REASON} characters."),
                nothing,
            ));
        }
        let lasting = lasting.unwrap_or(USUAL);
        if lasting.get() < Duration::from_mins(1) || lasting.get() > LONGEST.get() {
            return Err(Trouble::new(
                format!("A clearance lasts from a minute to 90 days, and not {lasting}."),
                format!("{nothing} Give --for 7d, for example."),
            ));
        }
        Ok(Self { reason: reason.to_owned(), lasting: lasting.get() })
    }

    /// What is to be on record, for each key of the incident.
    fn records(&self, subject: &Subject, user: &UserName, who: &str, now: Timestamp) -> Vec<Record> {
        let doc = subject.document();
        let until = wait_time(after(now, self.lasting));
        let record = |key: &keywheel::AccessKeyId| {
            let known = subject.record(key);
            let incident = known.map(|record| record.incident).or(doc.map(|doc| doc.id));
            let contained = known.map(|record| record.at).or(doc.and_then(|doc| doc.contained_at));
            Record {
                schema: SCHEMA,
                key: key.clone(),
                user: user.clone(),
                account: subject.account().map(str::to_owned),
                incident: incident.unwrap_or_else(|| RunId::standing_for(key.as_str())),
                at: contained.unwrap_or(now),
                state: RecordState::Cleared,
                until: Some(until),
                note: Some(format!("{who}: {}", self.reason)),
            }
        };
        subject.keys.iter().map(record).collect()
    }
}

/// Undoes the containment, if there was one, and keeps the word on record. Run again, it goes on.
pub(super) async fn run(place: &Place, out: &Out, subject: &Subject, clearance: &Clearance) -> Result<Exit> {
    refuse_part(subject)?;
    let user = owner(place, subject).await?;
    let records = clearance.records(subject, &user, &place.caller, Timestamp::now());
    let done = undo::run(place, out, &Aim { user: &user, records: &records, subject }).await?;
    let until = records.first().and_then(|record| record.until);
    let (mut answers, mut silent) = (Vec::new(), false);
    match until {
        Some(until) => {
            for key in subject.keys.iter().filter(|key| !key.is_temporary()) {
                let answer = answer::of(place, &user, key).await;
                out.line(&answer.sentence(key, &user));
                answers.push(json!({"key": key, "answer": answer.name()}));
                silent |= matches!(answer, Answer::Silent(_));
            }
            out.line(&format!(
                "Until {} reports of it are told to people, and change nothing.",
                time::at(until)
            ));
            out.line(&format!("If it has leaked after all: `keywheel revoke {}`.", subject.keys[0]));
        }
        None => {
            out.line("The incident names no key: its machine is stopped, and a later report begins anew.");
        }
    }
    out.json(&json!({
        "incident": subject.id(),
        "user": user,
        "keys": subject.keys,
        "state": "cleared",
        "until": until,
        "done": done,
        "answers": answers,
    }));
    Ok(if silent { Exit::Refused } else { Exit::Done })
}

/// A key that was found to be part of a leak is switched off again while the machine still looks.
fn refuse_part(subject: &Subject) -> Result<()> {
    let looking = |doc: &keywheel::Incident| doc.outcome.is_none();
    match subject.seen.as_ref().filter(|seen| seen.is_running() && !subject.is_whole()) {
        Some(seen) if seen.document.as_ref().is_some_and(looking) => Err(Trouble::new(
            format!(
                "Key {} was contained as part of incident {}, which still looks at it: it would be made Inactive again.",
                subject.keys[0], seen.id
            ),
            format!(
                "Nothing was changed. Wait some minutes, until `keywheel incident {}` shows an outcome.",
                seen.id
            ),
        )),
        _ => Ok(()),
    }
}

/// Whose keys they are, by IAM's word; of a session, by the incident's.
async fn owner(place: &Place, subject: &Subject) -> Result<UserName> {
    if let Some(key) = subject.keys.iter().find(|key| !key.is_temporary()) {
        return facts::iam::owner(&place.iam(), key).await?.ok_or_else(|| {
            Trouble::new(
                format!("There is no key {key} in account {}: it was deleted, or never was.", place.account),
                "Nothing was changed. What denies its sessions is taken off by the machine in its time.",
            )
        });
    }
    let doc = subject.document();
    let user = doc.and_then(|doc| doc.user.clone().or_else(|| doc.target.user.clone()));
    user.or_else(|| subject.records.first().map(|record| record.user.clone())).ok_or_else(|| {
        Trouble::new("Whose credential it is, is not known.", "Nothing was changed. Look at the event.")
    })
}

#[cfg(test)]
mod tests {
    use super::super::samples::{KEY, OTHER, at, document, record, seen};
    use super::*;

    fn subject(keys: &[&str]) -> Subject {
        let keys = keys.iter().map(|key| key.parse().unwrap()).collect();
        let seen = Some(seen(document()));
        Subject { keys, seen, running: Vec::new(), records: Vec::new(), odd: Vec::new() }
    }

    #[test]
    fn a_clearance_has_a_reason_and_an_end() {
        let usual = Clearance::checked(" our own scanner ", None).unwrap();
        assert_eq!((usual.reason.as_str(), usual.lasting), ("our own scanner", USUAL.get()));
        assert!(Clearance::checked("x", Some(LONGEST)).is_ok());
        for (reason, lasting) in [
            ("", None),
            (" ", None),
            ("a\nb", None),
            ("x".repeat(501).as_str(), None),
            ("x", Some(Span::seconds(0))),
            ("x", Some(Span::days(91))),
        ] {
            let trouble = Clearance::checked(reason, lasting).unwrap_err();
            assert!(trouble.remedy.contains("Nothing was changed"), "{trouble}");
        }
    }

    #[test]
    fn the_record_says_who_and_why_and_keeps_when_the_key_was_contained() {
        let now = at("2026-03-03T09:00:00Z");
        let clearance = Clearance::checked("ours", Some(Span::days(1))).unwrap();
        let mut subject = subject(&[KEY, OTHER]);
        subject.records = vec![record(RecordState::Contained)];
        let user = "svc-mail".parse().unwrap();
        let records = clearance.records(&subject, &user, "arn:aws:iam::111122223333:user/ann", now);
        assert_eq!(records[0].at, record(RecordState::Contained).at);
        assert_eq!(records[0].incident, document().id);
        assert_eq!(records[0].note.as_deref(), Some("arn:aws:iam::111122223333:user/ann: ours"));
        assert_eq!(records[1].key.as_str(), OTHER);
        assert!(records.iter().all(|record| record.is_cleared(now)));
        assert!(records.iter().all(|record| !record.is_cleared(at("2026-03-04T09:00:00Z"))));
    }

    #[test]
    fn a_part_of_a_leak_is_not_cleared_while_the_machine_looks() {
        assert!(refuse_part(&subject(&[KEY, OTHER])).is_ok());
        let mut part = subject(&[OTHER]);
        assert!(refuse_part(&part).unwrap_err().text.contains(OTHER));
        let doc = part.seen.as_mut().unwrap().document.as_mut().unwrap();
        doc.outcome = Some(keywheel::Outcome::Contained);
        assert!(refuse_part(&part).is_ok());
    }
}
