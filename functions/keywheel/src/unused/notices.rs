//! What the removal of an unused key tells, and the outbox that it waits in.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Outcome, Phase, Unused};
use crate::ids::RunId;
use crate::notice::{self, Notice, NoticeKind, Outbox};
use crate::rotation::{Delivery, Why};

/// How long notices are tried after the outcome.
const PATIENCE: Duration = Duration::from_hours(24);

impl Unused {
    /// What a notice says to people.
    pub(super) fn sentence(&self, kind: NoticeKind) -> String {
        let (key, user) = (&self.removed.key, &self.removed.user);
        let since =
            self.quiet_since.map_or_else(String::new, |at| format!(" since {}", at.strftime("%Y-%m-%d")));
        match kind {
            NoticeKind::Disabled => {
                let fate = match self.grace() {
                    Ok((over, _)) => format!(" It is deleted at {over} unless somebody needs it."),
                    Err(_) => " By the policy it is never deleted.".to_owned(),
                };
                format!(
                    "Key {key} of {user} is Inactive: nobody has used it{since}. {}{fate}",
                    self.way_back()
                )
            }
            NoticeKind::Deleted => format!("Key {key} of {user}, which nobody has used{since}, was deleted."),
            _ => {
                let outcome = self.outcome.map_or("Ended", Outcome::name);
                let why = self.why.as_ref();
                why.map_or_else(
                    || outcome.to_owned(),
                    |why| format!("{outcome}: {} {}", why.text, why.remedy).trim_end().to_owned(),
                )
            }
        }
    }
}

impl Outbox for Unused {
    fn id(&self) -> RunId {
        self.run
    }

    fn notices(&self) -> &[Notice] {
        &self.notices
    }

    fn notices_mut(&mut self) -> &mut [Notice] {
        &mut self.notices
    }

    fn detail_type(&self, notice: &Notice) -> String {
        format!("Keywheel Unused {}", notice.kind.name())
    }

    fn subject(&self, notice: &Notice) -> String {
        let what = self.outcome.filter(|_| notice.kind == NoticeKind::Ended);
        let what = format!("Unused key {}", what.map_or(notice.kind.name(), Outcome::name));
        notice::subject(&what, self.removed.user.as_str())
    }

    fn detail(&self, notice: &Notice) -> Value {
        let ended = notice.kind == NoticeKind::Ended;
        json!({
            "schema": self.schema,
            "id": notice.id,
            "kind": notice.kind.name(),
            "at": notice.at,
            "run": self.run,
            "execution": self.execution,
            "campaign": self.removed.campaign,
            "account": self.removed.account,
            "user": self.removed.user,
            "user_id": self.removed.user_id,
            "key": self.removed.key,
            "rule": self.removed.rule,
            "owner": self.removed.owner,
            "quiet_since": self.quiet_since,
            "wait_until": self.wait_until,
            "outcome": self.outcome.filter(|_| ended),
            "why": self.why.as_ref().filter(|_| ended),
            "title": self.subject(notice),
            "text": notice.text,
        })
    }

    fn resources(&self) -> Vec<String> {
        Vec::new()
    }

    fn outcome(&self) -> Option<&'static str> {
        self.outcome.map(Outcome::name)
    }

    /// A step that failed for good. Its last reply may be among what was lost: the key is as it is, and nothing follows.
    fn conclude(&mut self, now: Timestamp) {
        let (Some(error), None) = (&self.error, self.outcome) else { return };
        let (key, user) = (&self.removed.key, &self.removed.user);
        let unsure = match self.phase {
            Phase::Disable => format!("Whether key {key} of {user} is Inactive is not known"),
            Phase::Grace | Phase::Ended => {
                format!("Key {key} of {user} was made Inactive, and whether it is still there is not known")
            }
        };
        let why = Why::new(
            error.error.clone(),
            format!("A step failed for good: {}. {unsure}.", error.message()),
            format!(
                "Mend the cause. {} Where it is Active, the next campaign looks at it anew.",
                self.way_back()
            ),
        );
        self.end(now, Outcome::Held, why);
    }

    fn last_words(&self) -> Option<(Timestamp, Duration)> {
        let ended = self.notices.iter().find(|notice| notice.kind == NoticeKind::Ended)?;
        Some((ended.at, PATIENCE))
    }

    fn deliver(&mut self, delivery: Delivery, again: Option<Timestamp>) {
        self.delivery = delivery;
        self.wait_until = again.or(self.wait_until);
    }
}
