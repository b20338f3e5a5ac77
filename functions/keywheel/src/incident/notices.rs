//! What an incident tells people and programs.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Alert, Incident, Phase, RoleDeny, Way};
use crate::ids::RunId;
use crate::notice::{Notice, NoticeKind, Outbox, subject};
use crate::rotation::{Delivery, Outcome};
use crate::triage::Class;

/// How long the last notices of an incident are tried.
const PATIENCE: Duration = Duration::from_hours(24);

impl Incident {
    /// Puts a notice into the outbox, once for each kind.
    pub fn announce(&mut self, at: Timestamp, kind: NoticeKind) {
        self.announce_again(at, kind, "");
    }

    /// The same for a kind that is told more than once; `more` tells one time from another.
    pub fn announce_again(&mut self, at: Timestamp, kind: NoticeKind, more: &str) {
        let notice = Notice::new(self.id, kind, more, at, self.sentence(kind));
        if self.notices.iter().all(|known| known.id != notice.id) {
            self.notices.push(notice);
            self.delivery = Delivery::Pending;
        }
    }

    /// Why anybody is told at all.
    fn reported(&self) -> String {
        let (key, user) = (self.credential(), self.user_name());
        if self.target.class == Class::OddKeyMaking {
            return self.reason.clone();
        }
        let source = format!("{} says so ({:?})", name(self.target.source), self.target.severity);
        format!("Key {key} of {user} is reported as leaked: {source}.")
    }

    fn sentence(&self, kind: NoticeKind) -> String {
        let (key, user) = (self.credential(), self.user_name());
        match kind {
            NoticeKind::Contained => self.contained(),
            NoticeKind::NotContained if self.target.class == Class::RevokeAgainIfLeaked => format!(
                "Key {key} of {user} was made Active, and it is not contained yet: {}. Whether it is one that leaked may not be known. Keywheel keeps trying; if it leaked: `keywheel revoke {key}`.",
                self.failed.last().map_or("", String::as_str)
            ),
            NoticeKind::NotContained => {
                let gap = if self.denied {
                    " The user is denied everything meanwhile."
                } else {
                    " THE KEY STILL WORKS."
                };
                let why = self.failed.last().map_or("", String::as_str);
                format!(
                    "Key {key} of {user} leaked and could not be made Inactive yet: {why}.{gap} Keywheel keeps trying; by hand: `aws iam update-access-key --user-name {user} --access-key-id {key} --status Inactive`."
                )
            }
            NoticeKind::Delayed => {
                let until = self.bound.map_or_else(String::new, |until| until.to_string());
                let first = if self.phase == Phase::ReplaceFirst {
                    " Its application gets another key first."
                } else {
                    ""
                };
                format!(
                    "{} By the policy key {key} is made Inactive at {until}.{first} `keywheel incident {} --false-alarm --reason …` stops that.",
                    self.reported(),
                    self.id
                )
            }
            NoticeKind::Stuck => format!(
                "Nothing is contained, and user {user} is STILL DENIED EVERYTHING: {}. Keywheel keeps trying to take that off; by hand: `aws iam delete-user-policy --user-name {user} --policy-name keywheel-stop-gap-{key}-{}`.",
                self.failed.last().map_or("", String::as_str),
                self.id
            ),
            NoticeKind::SessionsNotDenied => format!(
                "Key {key} of {user} is Inactive, and the sessions that it has minted could NOT be denied: {}. They live up to 36 hours. Keywheel keeps trying.",
                self.failed.last().map_or("no policy of the user has room", String::as_str)
            ),
            NoticeKind::KeyMinted => {
                format!("While key {key} of {user} was contained, another key appeared. {}", self.others())
            }
            NoticeKind::Reactivated => {
                format!("The leaked key {key} of {user} had been made Active again. It is Inactive.")
            }
            NoticeKind::Replacement => self.replaced(),
            NoticeKind::Investigated => self.investigated(),
            NoticeKind::RoleSessions => self.role_sessions(),
            NoticeKind::SessionsFree => {
                format!("The longest session of key {key} has ended; the deny on {user} was taken off.")
            }
            NoticeKind::Ended => {
                let outcome = self.outcome.map_or("Ended", Outcome::name);
                let why = self.why.as_ref();
                why.map_or_else(
                    || outcome.to_owned(),
                    |why| format!("{outcome}: {} {}", why.text, why.remedy),
                )
                .trim_end()
                .to_owned()
            }
            other => other.name().to_owned(),
        }
    }

    fn contained(&self) -> String {
        let (key, user) = (self.credential(), self.user_name());
        let source = format!("{} says so ({:?})", name(self.target.source), self.target.severity);
        let at = self.contained_at.map_or_else(String::new, |at| format!(" since {at}"));
        let what = if self.target.class == Class::OddKeyMaking {
            format!("{} By the policy key {key} of {user} is Inactive{at}.", self.reason)
        } else if self.has_key() {
            format!("Key {key} of {user} leaked: {source}. It is Inactive{at}.")
        } else {
            format!("A session of {user} leaked: {source}.")
        };
        let sessions = match &self.deny {
            Some(deny) => format!(
                " Sessions of the user issued before {} are denied until {}.",
                deny.cut_off, deny.until
            ),
            None => " Its sessions are NOT denied yet.".to_owned(),
        };
        let roles = if self.deny_roles {
            "are denied as soon as CloudTrail has told which they are"
        } else {
            "are not ended by this; the report lists them"
        };
        format!(
            "{what}{sessions} Sessions of roles that were assumed with it {roles}. If it was a false alarm: `keywheel incident {} --false-alarm --reason …`.",
            self.id
        )
    }

    fn role_sessions(&self) -> String {
        let until = self.deny.as_ref().map_or_else(String::new, |deny| format!(" until {}", deny.until));
        let line = |deny: &RoleDeny| {
            let names = deny.sessions.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            match &deny.refused {
                None => format!("\n- role {}: {names} denied{until}", deny.role),
                Some(why) => format!("\n- role {}: {names} could NOT be denied: {why}", deny.role),
            }
        };
        let open = |(role, names): (String, BTreeSet<String>)| {
            format!("\n- role {role}: {} NOT denied yet", names.into_iter().collect::<Vec<_>>().join(", "))
        };
        let mut roles = self.roles.iter().map(line).collect::<String>();
        roles.extend(self.undenied_roles().into_iter().map(open));
        format!("Sessions of roles that were assumed with key {}:{roles}", self.credential())
    }

    fn others(&self) -> String {
        let others: Vec<&str> = self.keys.iter().skip(1).map(crate::AccessKeyId::as_str).collect();
        if others.is_empty() {
            "It is left as it is: look at it.".to_owned()
        } else {
            format!("Inactive as part of the leak: {}.", others.join(", "))
        }
    }

    fn replaced(&self) -> String {
        let user = self.user_name();
        let Some(replacement) = &self.replacement else { return "Nothing was replaced.".to_owned() };
        let help = &replacement.help;
        match (replacement.way, replacement.working) {
            (Way::NotNeeded, _) => format!("No application of {user} lost its key. {help}"),
            (_, true) => format!("The application of {user} has a working key again. {help}"),
            (Way::Person, false) => format!("The application of {user} has NO working key. {help}"),
            (_, false) => format!("The application of {user} has no working key yet. {help}"),
        }
    }

    fn investigated(&self) -> String {
        let Some(findings) = &self.findings else { return "Nothing was found out.".to_owned() };
        let partial = if findings.is_partial() { "PARTIAL: " } else { "" };
        let missing = match findings.missing.as_slice() {
            [] => String::new(),
            missing => format!(" Not read: {}.", missing.join(", ")),
        };
        let cut = match findings.cut.as_slice() {
            [] => String::new(),
            cut => format!(" Only the latest calls were read in {}.", cut.join(", ")),
        };
        let span = findings.span.map_or_else(String::new, |(first, last)| format!(" from {first} to {last}"));
        let notable = findings.notable.iter().fold(String::new(), |list, line| list + "\n- " + line);
        let report = findings.report.as_ref().map_or_else(String::new, |at| format!(" Report: {at}."));
        format!(
            "{partial}Key {} made {} recorded calls{span}.{missing}{cut}{report}{notable}",
            self.credential(),
            findings.events
        )
    }

    /// What a person can be told in one line of a subject.
    fn headline(&self, kind: NoticeKind) -> &'static str {
        match (kind, self.outcome) {
            (NoticeKind::Ended, Some(outcome)) => outcome.name(),
            _ => kind.name(),
        }
    }
}

/// A family as its service is called.
const fn name(source: crate::triage::Source) -> &'static str {
    use crate::triage::Source;
    match source {
        Source::GuardDuty => "GuardDuty",
        Source::CloudTrail => "CloudTrail",
        Source::Health => "AWS Health",
        Source::SecurityHub => "Security Hub",
        Source::TrustedAdvisor => "Trusted Advisor",
        Source::Config => "AWS Config",
        Source::Keywheel => "a report to Keywheel",
    }
}

impl Outbox for Incident {
    fn id(&self) -> RunId {
        self.id
    }

    fn notices(&self) -> &[Notice] {
        &self.notices
    }

    fn notices_mut(&mut self) -> &mut [Notice] {
        &mut self.notices
    }

    fn detail_type(&self, notice: &Notice) -> String {
        format!("Keywheel Incident {}", notice.kind.name())
    }

    fn subject(&self, notice: &Notice) -> String {
        subject(
            &format!("leak, {}", self.headline(notice.kind)),
            &format!("{} {}", self.user_name(), self.credential()),
        )
    }

    fn detail(&self, notice: &Notice) -> Value {
        let ended = notice.kind == NoticeKind::Ended;
        // Ten notices are sent in one call of at most 256 KiB, so the findings are in those that are about them.
        json!({
            "schema": self.schema,
            "id": notice.id,
            "kind": notice.kind.name(),
            "at": notice.at,
            "incident": self.id,
            "execution": self.execution,
            "class": self.target.class,
            "source": self.target.source,
            "severity": self.target.severity,
            "account": self.target.account,
            "user": self.user.as_ref().or(self.target.user.as_ref()),
            "key": self.target.key_id,
            "keys": self.keys,
            "contained_at": self.contained_at,
            "deny": self.deny,
            "replacement": self.replacement,
            "findings": self.findings.as_ref().filter(|_| ended || notice.kind == NoticeKind::Investigated),
            "failed": self.failed,
            "outcome": self.outcome.filter(|_| ended),
            "why": self.why.as_ref().filter(|_| ended),
            "title": self.subject(notice),
            "text": notice.text,
        })
    }

    fn resources(&self) -> Vec<String> {
        vec![self.execution.clone()]
    }

    fn outcome(&self) -> Option<&'static str> {
        self.outcome.map(Outcome::name)
    }

    /// An incident that arrives with an error and is not contained says what failed; its machine tries again.
    fn conclude(&mut self, now: Timestamp) {
        self.merge();
        let undone = self.phase == Phase::Contain && self.contained_at.is_none();
        self.take_error(if undone { "stop-gap" } else { "the last step" });
        match (self.phase, self.contained_at) {
            (Phase::Contain, None) if !self.failed.is_empty() => self.announce(now, NoticeKind::NotContained),
            // Nothing is contained, and what the user is denied could not be taken off.
            (Phase::Deny, None) => self.announce(now, NoticeKind::Stuck),
            // So has the one that has the roles deny.
            (_, Some(_)) if self.roles_open => self.announce_again(now, NoticeKind::RoleSessions, "/open"),
            // The step that denies has failed for good, for now.
            (Phase::Deny, Some(_)) => {
                self.announce(now, NoticeKind::Contained);
                self.announce(now, NoticeKind::SessionsNotDenied);
            }
            _ => {}
        }
    }

    fn last_words(&self) -> Option<(Timestamp, Duration)> {
        // Before the outcome the machine comes back by itself.
        self.outcome.and_then(|_| self.notices.iter().map(|notice| notice.at).max()).map(|at| (at, PATIENCE))
    }

    fn deliver(&mut self, delivery: Delivery, again: Option<Timestamp>) {
        self.delivery = delivery;
        self.wait_until = again.or(self.wait_until);
    }
}

impl Alert {
    /// Puts the one notice of an event into the outbox.
    pub fn tell(&mut self, at: Timestamp) {
        let text = format!("{} An event was taken for {:?}; nothing was changed.", self.reason, self.class);
        self.notices = vec![Notice::new(self.id, NoticeKind::Event, "", at, text)];
    }

    /// Puts a notice into the outbox that a part of the event could not be understood, while the others are acted on.
    pub fn tell_odd(&mut self, at: Timestamp) {
        let text =
            format!("{} What could be understood of the event is acted on; the rest is not.", self.reason);
        self.notices = vec![Notice::new(self.id, NoticeKind::Event, "/odd", at, text)];
    }
}

impl Outbox for Alert {
    fn id(&self) -> RunId {
        self.id
    }

    fn notices(&self) -> &[Notice] {
        &self.notices
    }

    fn notices_mut(&mut self) -> &mut [Notice] {
        &mut self.notices
    }

    fn detail_type(&self, notice: &Notice) -> String {
        format!("Keywheel Alert {}", notice.kind.name())
    }

    fn subject(&self, _: &Notice) -> String {
        subject("an event", &format!("{:?}", self.class))
    }

    fn detail(&self, notice: &Notice) -> Value {
        json!({
            "schema": self.schema,
            "id": notice.id,
            "kind": notice.kind.name(),
            "at": notice.at,
            "event": self.event,
            "execution": self.execution,
            "class": self.class,
            "title": self.subject(notice),
            "text": notice.text,
        })
    }

    fn resources(&self) -> Vec<String> {
        vec![self.execution.clone()]
    }

    fn outcome(&self) -> Option<&'static str> {
        None
    }

    fn conclude(&mut self, _: Timestamp) {}

    fn last_words(&self) -> Option<(Timestamp, Duration)> {
        self.notices.first().map(|notice| (notice.at, PATIENCE))
    }

    fn deliver(&mut self, delivery: Delivery, again: Option<Timestamp>) {
        self.delivery = delivery;
        self.wait_until = again.or(self.wait_until);
    }
}
