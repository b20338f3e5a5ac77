//! `keywheel incident ID --close`: everything was dealt with.
//!
//! Closed, and 30 days after it was contained, the key is one that may be deleted: of a managed user by the first run
//! that finds it, after a full grace; of any other user here, by whoever says so.

use facts::secrets::CURRENT;
use jiff::Timestamp;
use keywheel::clock::after;
use keywheel::decide::delete::kept_as_evidence;
use keywheel::incident::{EVIDENCE, Record, RecordState};
use keywheel::key::{self, KeyFacts};
use keywheel::{AccessKeyId, StepError};
use serde_json::json;

use super::read::Subject;
use crate::error::{Exit, Result, Trouble};
use crate::keys::{self, Held};
use crate::managed::{self, Managed};
use crate::output::Out;
use crate::place::Place;
use crate::time;

/// Closes the incident. Run again, it changes nothing.
pub(super) async fn run(place: &Place, out: &Out, subject: &Subject, delete: bool) -> Result<Exit> {
    let records: Vec<&Record> = subject.keys.iter().filter_map(|key| subject.record(key)).collect();
    let Some(first) = records.first() else { return Err(nothing_contained(subject)) };
    let user = &first.user;
    let listed = facts::iam::keys(&place.iam(), user).await?;
    let tied = facts::iam::user(&place.iam(), user).await?.is_some_and(|user| user.secret.is_some());
    let managed = if tied { Some(managed::by_user(place, user.as_str()).await?) } else { None };
    let held = match &managed {
        Some(managed) => keys::held(place, &managed.secret, user, CURRENT).await,
        None => Held::Nothing,
    };
    // All or nothing: what stands against one key stands against the incident.
    for record in &records {
        may_close(record, &listed, &held)?;
    }
    let now = Timestamp::now();
    let (mut changed, mut deleted, mut stays) = (false, Vec::new(), Vec::new());
    for record in &records {
        let mut kept = (*record).clone();
        if record.state != RecordState::Closed {
            let closed = closed(record, &place.caller, now);
            facts::switch::keep(&place.ssm(), &place.stage, &closed).await?;
            changed = true;
            kept = closed;
        }
        let said = if record.state == RecordState::Closed { "was closed already" } else { "is closed" };
        out.line(&format!("The incident of key {} of {user} {said}.", record.key));
        let there = key::find(&listed, &record.key).is_some();
        if !there || managed.is_some() {
            out.lines(&afterwards(record, there, managed.as_ref()));
            continue;
        }
        match delete_or_keep(place, &kept, delete).await? {
            None => {
                out.line(&format!("  Deleted key {} of {user}.", record.key));
                deleted.push(&record.key);
            }
            Some(why) => {
                out.lines(&afterwards(record, there, None));
                out.line(&format!("  Not deleted: {why}."));
                stays.push(why);
            }
        }
    }
    out.json(&json!({
        "incident": subject.id(),
        "user": user,
        "keys": records.iter().map(|record| &record.key).collect::<Vec<_>>(),
        "state": "closed",
        "evidence_until": records.iter().map(|record| after(record.at, EVIDENCE)).max(),
        "changed": changed || !deleted.is_empty(),
        "deleted": deleted,
        "kept": stays,
    }));
    Ok(Exit::Done)
}

/// Deletes a key of a user that is not managed, where its evidence time is over and somebody has said so; else why it
/// stays. All that speaks for it is read anew: nobody brings a deleted key back.
async fn delete_or_keep(place: &Place, record: &Record, delete: bool) -> Result<Option<String>> {
    let (iam, user, key) = (place.iam(), &record.user, &record.key);
    let last_use = facts::iam::last_use(&iam, key).await.ok();
    let listed = facts::iam::keys(&iam, user).await?;
    let kept = kept_as_evidence(record, &listed, last_use.as_ref(), Timestamp::now());
    if kept.is_some() || !delete {
        let over =
            || format!("its evidence time is over: `keywheel incident {key} --close --yes` deletes it");
        return Ok(Some(kept.unwrap_or_else(over)));
    }
    let call = iam.delete_access_key().user_name(user.as_str()).access_key_id(key.as_str());
    call.send().await.map_err(|error| StepError::from_sdk("iam:DeleteAccessKey", &error))?;
    Ok(None)
}

fn nothing_contained(subject: &Subject) -> Trouble {
    let key = subject.keys.first().map_or("KEYID", AccessKeyId::as_str);
    Trouble::new(
        "There is nothing to close: no key of this incident is on record as contained.",
        format!("`keywheel incident {key}` shows what was done; `keywheel revoke {key}` contains it."),
    )
}

/// Refuses while the key could still do harm, or is still needed.
fn may_close(record: &Record, listed: &[KeyFacts], held: &Held) -> Result<()> {
    let (key, user) = (&record.key, &record.user);
    let refused = |text: String, remedy: String| Err(Trouble::new(text, format!("Not closed. {remedy}")));
    if record.state == RecordState::Cleared {
        return refused(
            format!("Key {key} of {user} was called a false alarm: there is nothing to close."),
            format!("If it has leaked after all: `keywheel revoke {key}`."),
        );
    }
    if key::find(listed, key).is_some_and(KeyFacts::is_active) {
        return refused(
            format!("Key {key} of {user} is Active."),
            format!(
                "`keywheel revoke {key}` makes it Inactive; if it has not leaked: `keywheel incident {key} --false-alarm --reason …`."
            ),
        );
    }
    match held {
        Held::Key(current) if current == key => refused(
            format!(
                "Key {key} is still the one that the secret of {user} names: its application has no key."
            ),
            format!("`keywheel rotate --user {user} --reason leaked --wait` gives it another one."),
        ),
        Held::Unreadable(why) | Held::Unfit(why) => refused(
            format!(
                "Whether {key} is still the one that the secret of {user} names is not known: {}",
                why.text
            ),
            why.remedy.clone(),
        ),
        _ => Ok(()),
    }
}

fn closed(record: &Record, who: &str, now: Timestamp) -> Record {
    Record {
        state: RecordState::Closed,
        until: None,
        note: Some(format!("closed by {who} at {}", time::at(now))),
        ..record.clone()
    }
}

/// What becomes of the key.
fn afterwards(record: &Record, there: bool, managed: Option<&Managed>) -> Vec<String> {
    let (key, user) = (&record.key, &record.user);
    if !there {
        return vec!["  The key is gone already.".to_owned()];
    }
    let mut lines = vec![format!(
        "  It stays Inactive, as evidence, and fills one of the user's two slots until {}.",
        time::at(after(record.at, EVIDENCE))
    )];
    lines.push(match managed {
        Some(managed) => format!(
            "  The first rotation after that deletes it. If the slot is wanted sooner: `keywheel enroll --user {user} --secret {} --retire {key}`.",
            managed.secret.name
        ),
        None => format!(
            "  User {user} is not managed, so nobody else deletes it then: `keywheel incident {key} --close --yes`."
        ),
    });
    lines
}

#[cfg(test)]
mod tests {
    use super::super::samples::{KEY, OTHER, at, record};
    use super::*;
    use crate::managed::tests::managed;
    use keywheel::key::KeyStatus;

    fn listed(status: KeyStatus) -> Vec<KeyFacts> {
        vec![KeyFacts { id: KEY.parse().unwrap(), status, created: None }]
    }

    #[test]
    fn what_could_still_do_harm_is_not_closed() {
        let contained = record(RecordState::Contained);
        let inactive = listed(KeyStatus::Inactive);
        let other = Held::Key(OTHER.parse().unwrap());
        assert!(may_close(&contained, &inactive, &other).is_ok());
        assert!(may_close(&record(RecordState::Closed), &inactive, &other).is_ok());
        assert!(may_close(&contained, &[], &Held::Nothing).is_ok());
        let refused = |record: &Record, keys: &[KeyFacts], held: &Held, says: &str| {
            let trouble = may_close(record, keys, held).unwrap_err();
            assert!(trouble.to_string().contains(says), "{trouble}");
            assert!(trouble.remedy.starts_with("Not closed."), "{trouble}");
        };
        refused(&contained, &listed(KeyStatus::Active), &other, "keywheel revoke");
        refused(&record(RecordState::Cleared), &inactive, &other, "false alarm");
        refused(&contained, &inactive, &Held::Key(KEY.parse().unwrap()), "--reason leaked");
        refused(&contained, &inactive, &Held::Unreadable(Trouble::new("no", "ask")), "not known");
    }

    #[test]
    fn closing_keeps_when_the_key_was_contained() {
        let now = at("2026-03-05T09:00:00Z");
        let closed = closed(&record(RecordState::Contained), "arn:me", now);
        assert_eq!((closed.state, closed.at), (RecordState::Closed, record(RecordState::Contained).at));
        assert_eq!(closed.note.as_deref(), Some("closed by arn:me at 2026-03-05 09:00:00 UTC"));
    }

    #[test]
    fn it_says_what_becomes_of_the_key() {
        let record = record(RecordState::Contained);
        let lines = afterwards(&record, true, Some(&managed())).join("\n");
        assert!(lines.contains("2026-04-01 09:00:02 UTC"), "{lines}");
        assert!(lines.contains(&format!("--secret app/mail --retire {KEY}")), "{lines}");
        assert!(afterwards(&record, true, None)[1].contains("--close --yes"));
        assert!(afterwards(&record, false, None)[0].contains("gone"));
    }
}
