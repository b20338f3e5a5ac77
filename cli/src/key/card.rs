//! One key in words, and the command that brings it back.

use jiff::Timestamp;
use keywheel::incident::{Record, RecordState};
use keywheel::key::{KeyFacts, LastUse};
use keywheel::rotation::UserFacts;
use serde_json::{Value, json};

use super::runs::{Management, Superseded, Trace};
use crate::{story, time};

/// All that is known of a key.
#[derive(Debug)]
pub(super) struct Card<'a> {
    pub(super) user: &'a UserFacts,
    pub(super) key: &'a KeyFacts,
    /// `None` where it could not be read.
    pub(super) last_use: Option<LastUse>,
    pub(super) management: &'a Management,
    pub(super) trace: Trace<'a>,
    /// What is kept of the key, if it has leaked.
    pub(super) record: Option<&'a Record>,
    pub(super) record_read: bool,
}

impl Card<'_> {
    /// The one command that makes an Inactive key Active again, with what is to be thought of first.
    pub(super) fn way_back(&self) -> Option<(String, &'static str)> {
        if self.key.is_active() {
            return None;
        }
        let (user, key) = (&self.user.name, &self.key.id);
        let leaked = self.record.is_some_and(|record| record.state != RecordState::Cleared)
            || self.superseded().is_some_and(|superseded| superseded.leaked);
        if leaked {
            let command = format!("keywheel incident {key} --false-alarm --reason 'why it has not leaked'");
            return Some((command, "It leaked: only if that was a false alarm."));
        }
        if self.superseded().is_some_and(|superseded| superseded.comes_back) {
            let command = format!("keywheel rollback --user {user}");
            return Some((command, "The secret then names it again."));
        }
        let care = if self.record_read {
            "Find out first who made it Inactive, and why."
        } else {
            "Whether it leaked could not be read: find that out first."
        };
        let command =
            format!("aws iam update-access-key --user-name {user} --access-key-id {key} --status Active");
        Some((command, care))
    }

    fn superseded(&self) -> Option<&Superseded<'_>> {
        self.trace.superseded.as_ref()
    }

    pub(super) fn json(&self, account: &str) -> Value {
        let (managed, secret) = match self.management {
            Management::Managed(secret) => ("yes", Some(&secret.arn)),
            Management::Half(_) => ("half", None),
            Management::None => ("no", None),
            Management::Unknown(_) => ("unknown", None),
        };
        let run = self.trace.run.map(|run| story::json(run, &story::tell(run, self.user.name.as_str())));
        let superseded = self.superseded().map(|superseded| {
            json!({ "by": superseded.by, "at": superseded.at, "disabled_at": superseded.disabled_at, "leaked": superseded.leaked })
        });
        json!({
            "key_id": self.key.id,
            "account": account,
            "user": self.user.name,
            "user_arn": self.user.arn,
            "state": self.key.status,
            "created": self.key.created,
            "last_use": self.last_use,
            "last_use_read": self.last_use.is_some(),
            "managed": managed,
            "secret": secret,
            "version": self.trace.version.as_ref().map(|(version, _)| version),
            "labels": self.trace.version.as_ref().map(|(_, labels)| labels),
            "made_by": self.trace.made_by.map(|run| &run.id),
            "run": run,
            "runs_read": self.trace.runs_read,
            "superseded": superseded,
            "leaked": self.record,
            "leaked_read": self.record_read,
            "way_back": self.way_back().map(|(command, _)| command),
        })
    }

    pub(super) fn lines(&self, account: &str, now: Timestamp) -> Vec<String> {
        let made = self.key.created.map_or_else(
            || "unknown".to_owned(),
            |created| format!("{} old, made {}", time::short(time::between(created, now)), time::at(created)),
        );
        let mut lines = vec![
            format!("Key         {}  {:?}", self.key.id, self.key.status),
            format!("Account     {account}"),
            format!("User        {}  ({})", self.user.name, self.user.arn),
            format!("Age         {made}"),
            format!("Last use    {}", self.last_used(now)),
        ];
        lines.extend(self.of_secret(now));
        lines.extend(self.superseded().map(|superseded| replaced(superseded, now)));
        lines.extend(self.record.map(|record| leaked(record, now)));
        if let Some((command, care)) = self.way_back() {
            lines.push(format!("Bring back  {command}"));
            lines.push(format!("            {care}"));
        }
        lines
    }

    /// The last use in words. That none is recorded is no proof that there was none.
    fn last_used(&self, now: Timestamp) -> String {
        let Some(last) = &self.last_use else { return "could not be read".into() };
        let Some(at) = last.at else { return "none recorded".into() };
        let by = [last.service.as_deref(), last.region.as_deref()].into_iter().flatten();
        let by = by.collect::<Vec<_>>().join(" in ");
        let at = time::at_and_away(at, now);
        if by.is_empty() { at } else { format!("{at}, {by}") }
    }

    /// The secret, the version and the run.
    fn of_secret(&self, now: Timestamp) -> Vec<String> {
        let user = &self.user.name;
        let secret = match self.management {
            Management::Managed(secret) => secret,
            Management::None => {
                return vec![format!(
                    "Managed     no; `keywheel enroll --user {user} --secret <secret>` puts the user under management"
                )];
            }
            Management::Half(why) => return vec![format!("Managed     half, so no run touches it: {why}")],
            Management::Unknown(_) => return vec!["Managed     not known".to_owned()],
        };
        let mut lines = vec![format!("Secret      {}  ({})", secret.name, secret.arn)];
        lines.push(match &self.trace.version {
            Some((version, labels)) if labels.is_empty() => format!("Version     {version}, without a label"),
            Some((version, labels)) => format!("Version     {version}  {}", labels.join(", ")),
            None => "Version     not known: no run that is remembered stored it".to_owned(),
        });
        lines.extend(self.trace.made_by.map(|run| format!("Made by     run {}", run.id)));
        match self.trace.run {
            Some(run) => {
                let told = story::tell(run, user.as_str());
                let since = time::at_and_away(told.since, now);
                lines.push(format!("Run         {}  {}: {} since {since}", run.id, run.word(), told.place));
                lines.push(format!("            {}", told.what));
                lines.extend(
                    told.next.map(|(at, what)| format!("Next        {}: {what}", time::at_and_away(at, now))),
                );
            }
            None if self.trace.runs_read => {
                lines.push("Run         none that is remembered had to do with it".into());
            }
            None => lines.push("Run         not known".into()),
        }
        lines
    }
}

fn replaced(superseded: &Superseded<'_>, now: Timestamp) -> String {
    let by = superseded.by.map_or_else(|| "another key".to_owned(), |by| format!("key {by}"));
    let off = superseded
        .disabled_at
        .map_or_else(String::new, |at| format!("; made Inactive {}", time::at_and_away(at, now)));
    format!("Superseded  by {by} {}{off}", time::at_and_away(superseded.at, now))
}

fn leaked(record: &Record, now: Timestamp) -> String {
    let incident = record.incident;
    match record.state {
        RecordState::Cleared => format!("Incident    {incident}: called a false alarm"),
        RecordState::Contained => {
            format!(
                "Incident    {incident}: it leaked, and was contained {}",
                time::at_and_away(record.at, now)
            )
        }
        RecordState::Closed => format!(
            "Incident    {incident}: it leaked, was contained {}, and the incident is closed",
            time::at_and_away(record.at, now)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::samples::{at, record};
    use crate::managed::tests::managed;
    use keywheel::AccessKeyId;
    use keywheel::key::KeyStatus;

    const KEY: &str = "AKIA2OGYBAH6QKEYWHEL";

    fn key(status: KeyStatus) -> KeyFacts {
        KeyFacts { id: KEY.parse().unwrap(), status, created: Some(at("2026-01-01T00:00:00Z")) }
    }

    fn card<'a>(user: &'a UserFacts, key: &'a KeyFacts, management: &'a Management) -> Card<'a> {
        let last_use = Some(LastUse { at: None, service: None, region: None });
        let trace = Trace { runs_read: true, ..Trace::default() };
        Card { user, key, last_use, management, trace, record: None, record_read: true }
    }

    fn superseded(by: &AccessKeyId) -> Superseded<'_> {
        Superseded {
            by: Some(by),
            at: at("2026-02-01T00:00:00Z"),
            disabled_at: Some(at("2026-02-02T00:00:00Z")),
            leaked: false,
            comes_back: true,
        }
    }

    #[test]
    fn an_inactive_key_has_one_command_that_brings_it_back_and_an_active_one_none() {
        let tied = managed();
        let (user, on, off) = (&tied.user.facts, key(KeyStatus::Active), key(KeyStatus::Inactive));
        let management = Management::Managed(Box::new(tied.secret.clone()));
        let by: AccessKeyId = "AKIA2OGYBAH6QKEYWHE2".parse().unwrap();
        assert_eq!(card(user, &on, &management).way_back(), None);
        let back = |card: &Card<'_>| card.way_back().unwrap();
        let mut graced = card(user, &off, &management);
        graced.trace.superseded = Some(superseded(&by));
        assert_eq!(back(&graced).0, "keywheel rollback --user svc-mail");
        // Once another version has become the previous one, a rollback would bring back that.
        graced.trace.superseded = Some(Superseded { comes_back: false, ..superseded(&by) });
        let by_hand =
            format!("aws iam update-access-key --user-name svc-mail --access-key-id {KEY} --status Active");
        assert_eq!(back(&graced).0, by_hand);
        graced.trace.superseded = Some(Superseded { leaked: true, ..superseded(&by) });
        assert!(back(&graced).0.starts_with(&format!("keywheel incident {KEY} --false-alarm")));
        // What a person has called a false alarm is no leak; what was not read may be one.
        let none = Management::None;
        let mut alone = card(user, &off, &none);
        assert_eq!(back(&alone).0, by_hand);
        for (state, starts) in [
            (RecordState::Contained, "keywheel incident"),
            (RecordState::Closed, "keywheel incident"),
            (RecordState::Cleared, "aws iam"),
        ] {
            let kept = record(state);
            let mut card = card(user, &off, &none);
            card.record = Some(&kept);
            assert!(back(&card).0.starts_with(starts), "{state:?}");
        }
        alone.record_read = false;
        assert!(back(&alone).1.contains("could not be read"));
    }

    #[test]
    fn a_key_is_told_with_its_version_and_what_took_its_place() {
        let tied = managed();
        let (user, off) = (&tied.user.facts, key(KeyStatus::Inactive));
        let management = Management::Managed(Box::new(tied.secret.clone()));
        let by: AccessKeyId = "AKIA2OGYBAH6QKEYWHE2".parse().unwrap();
        let mut graced = card(user, &off, &management);
        graced.trace.superseded = Some(superseded(&by));
        let version = "0b5b3c52-6d3e-4b6e-9d5c-0d9f5a3a7f10";
        graced.trace.version = Some((version.parse().unwrap(), vec!["AWSPREVIOUS".into()]));
        let text = graced.lines("111122223333", at("2026-02-03T00:00:00Z")).join("\n");
        for says in [
            "Key         AKIA2OGYBAH6QKEYWHEL  Inactive",
            "Age         33d old, made 2026-01-01 00:00:00 UTC",
            "Last use    none recorded",
            "Version     0b5b3c52-6d3e-4b6e-9d5c-0d9f5a3a7f10  AWSPREVIOUS",
            "Superseded  by key AKIA2OGYBAH6QKEYWHE2 2026-02-01 00:00:00 UTC (2d ago); made Inactive 2026-02-02 00:00:00 UTC (1d ago)",
            "Bring back  keywheel rollback --user svc-mail",
        ] {
            assert!(text.contains(says), "{says}:\n{text}");
        }
        let value = graced.json("111122223333");
        assert_eq!((&value["managed"], &value["labels"][0]), (&json!("yes"), &json!("AWSPREVIOUS")));
        assert_eq!(value["way_back"], "keywheel rollback --user svc-mail");
    }

    #[test]
    fn what_is_not_known_is_not_called_none() {
        let tied = managed();
        let (user, on) = (&tied.user.facts, key(KeyStatus::Active));
        let management = Management::Managed(Box::new(tied.secret.clone()));
        let mut dark = card(user, &on, &management);
        (dark.last_use, dark.trace.runs_read) = (None, false);
        let text = dark.lines("111122223333", at("2026-02-03T00:00:00Z")).join("\n");
        assert!(
            text.contains("Last use    could not be read") && text.contains("Run         not known"),
            "{text}"
        );
        let half = Management::Half("its tag names nothing".into());
        let text = card(user, &on, &half).lines("111122223333", at("2026-02-03T00:00:00Z")).join("\n");
        assert!(text.contains("half, so no run touches it: its tag names nothing"), "{text}");
    }
}
