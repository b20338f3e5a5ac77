//! What a campaign tells, and the outbox that it waits in.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Campaign, Counts, Failed, Outcome};
use crate::ids::RunId;
use crate::notice::{self, Notice, NoticeKind, Outbox};
use crate::rotation::{Delivery, Why};

/// How long notices are tried after the outcome.
const PATIENCE: Duration = Duration::from_hours(24);

impl Campaign {
    /// What a notice says to people.
    pub(super) fn sentence(&self, kind: NoticeKind) -> String {
        if kind == NoticeKind::Planned {
            let Counts { users, rotate, skip, find, unread, .. } = self.counts;
            let named = !self.request.secrets.is_empty();
            let of = if named { String::new() } else { format!(" of {users} users") };
            let waves = match self.waves.len() {
                1 => "1 wave".to_owned(),
                waves => format!("{waves} waves"),
            };
            return format!(
                "{rotate} keys{of} are rotated in {waves}; {skip} users are left alone, {find} findings, {unread} could not be read. The plan: s3://{}/{}",
                self.bucket,
                self.plan()
            );
        }
        let outcome = self.outcome.map_or("Ended", Outcome::name);
        let (promoted, failed) = self.done();
        let why = self.why.as_ref();
        let why = why.map_or_else(String::new, |why| format!("{} {}", why.text, why.remedy));
        let counted = || {
            let left: usize = self.waves.iter().map(|wave| wave.left).sum();
            let left =
                if left == 0 { String::new() } else { format!(", {left} were in another run's hands") };
            let retiring: usize = self.waves.iter().map(|wave| wave.retiring).sum();
            let retiring = match retiring {
                0 => String::new(),
                many => format!(", {many} old ones are on their way out"),
            };
            let rest = self.keys() - self.begun();
            format!(
                " Of {} keys {promoted} were promoted and {failed} were not{retiring}{left}; {rest} were not begun.",
                self.keys()
            )
        };
        let counted = if self.keys() > 0 { counted() } else { String::new() };
        let unread = match self.counts.unread {
            0 => String::new(),
            unread => format!(" {unread} could not be read."),
        };
        let unused = match self.counts.unused {
            0 => String::new(),
            1 => " A key that nobody uses is made Inactive by a run of its own.".to_owned(),
            unused => format!(" {unused} keys that nobody uses are made Inactive by runs of their own."),
        };
        let named = |failed: &Failed| format!("\n- {} ({}): {}", failed.whom, failed.code, failed.text);
        let named: String = self.failed.iter().map(named).collect();
        let more = match failed.saturating_sub(self.failed.len()) {
            0 => String::new(),
            more => format!("\n- and {more} more: s3://{}/{}", self.bucket, self.place("")),
        };
        [outcome, ": ", why.trim_end(), &counted, &unread, &unused, &named, &more].concat()
    }
}

impl Outbox for Campaign {
    fn id(&self) -> RunId {
        self.campaign
    }

    fn notices(&self) -> &[Notice] {
        &self.notices
    }

    fn notices_mut(&mut self) -> &mut [Notice] {
        &mut self.notices
    }

    fn detail_type(&self, notice: &Notice) -> String {
        format!("Keywheel Campaign {}", notice.kind.name())
    }

    fn subject(&self, notice: &Notice) -> String {
        let what = self.outcome.filter(|_| notice.kind == NoticeKind::Ended);
        let (promoted, failed) = self.done();
        let whom = match notice.kind {
            NoticeKind::Planned => format!("{} keys", self.keys()),
            NoticeKind::DueSoon => super::warnings::whose(notice),
            _ => format!("{promoted} keys promoted, {failed} failed"),
        };
        notice::subject(&format!("Campaign {}", what.map_or(notice.kind.name(), Outcome::name)), &whom)
    }

    fn detail(&self, notice: &Notice) -> Value {
        if notice.kind == NoticeKind::DueSoon {
            return self.warning(notice);
        }
        let ended = notice.kind == NoticeKind::Ended;
        json!({
            "schema": self.schema,
            "id": notice.id,
            "kind": notice.kind.name(),
            "at": notice.at,
            "campaign": self.campaign,
            "execution": self.execution,
            "reason": self.request.reason,
            "policy_version": self.policy_version,
            "counts": self.counts,
            "waves": self.waves,
            "failed": self.failed,
            "plan": format!("s3://{}/{}", self.bucket, self.plan()),
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

    /// A review that failed for good: nobody knows what has become of the batch, so nothing more is started.
    fn conclude(&mut self, now: Timestamp) {
        let (Some(error), None) = (&self.error, self.outcome) else { return };
        let why = Why::new(
            error.error.clone(),
            format!(
                "A step failed for good, and what has become of the last batch is not known: {}.",
                error.message()
            ),
            "Mend the cause. Rotations that were started go on by themselves; the next campaign takes up what is still due.",
        );
        self.end(now, Outcome::Stopped, why);
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
