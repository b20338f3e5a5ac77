//! What a plan has to say beside its verdicts: keys that nobody manages, keys that nobody uses, exemptions, and what
//! could not be read.

use std::collections::BTreeSet;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::{Desk, Managed, ROOT};
use crate::clock::after;
use crate::decide::entry::RunState;
use crate::fleet::FleetPolicy;
use crate::fleet::estate::{Blind, Current, Look, Row, Slot, Source, Used};
use crate::fleet::plan::{Action, Line};
use crate::fleet::policy::Exemption;
use crate::fleet::rules::{self, Standing};
use crate::key;

/// How long before its last day an exemption is reported.
const ENDS_SOON: SignedDuration = SignedDuration::from_hours(14 * 24);

impl Desk<'_> {
    /// Two keys are the ordinary state of an overlap and of a grace. Beyond both, somebody should know why.
    pub(super) fn two_keys(&self, row: &Row, managed: &Managed<'_>, verdict: &Line) -> Option<Line> {
        let policy = &managed.decided.terms.policy;
        let newest = row.keys.iter().filter_map(|key| key.since).max()?;
        let long = after(newest, policy.max_overlap.get() + policy.grace.get()) <= self.now;
        // What the verdict says of both keys already is not said twice.
        let said = ["TwoKeys", "TakeOver", "Reconcile", "Held"].contains(&verdict.code);
        (row.keys.len() > 1 && long && !said).then(|| Line {
            rule: Some(managed.decided.rule.clone()),
            secret: Some(managed.secret.arn.clone()),
            owner: managed.decided.terms.owner.clone(),
            ..self.line(
                &row.user,
                Action::Find,
                "TwoKeys",
                format!(
                    "It has had two keys since {}, longer than a longest overlap and a grace: `keywheel status --user {}` says why.",
                    newest.strftime("%Y-%m-%d"),
                    row.user
                ),
            )
        })
    }

    /// A superseded key whose run nobody knows any more: Step Functions forgets one after 90 days, and without its word
    /// the key might as well be what a person has put there. No run touches it.
    pub(super) fn run_gone(&self, row: &Row, managed: &Managed<'_>, look: Option<&Look>) -> Option<Line> {
        let Some(Look::Seen(close)) = look else { return None };
        let left = close.left.as_deref().filter(|left| left.current_run == RunState::NotOurs)?;
        let other = left.previous_key.as_ref()?;
        let is_there =
            key::find(&close.keys, other).is_some() && close.current != Current::Key(other.clone());
        let decided = [&close.retire, &close.keep].into_iter().any(|told| told.as_ref() == Some(other));
        (is_there && !decided && self.exemption(row).is_none()).then(|| Line {
            key_id: Some(other.clone()),
            rule: Some(managed.decided.rule.clone()),
            secret: Some(managed.secret.arn.clone()),
            owner: managed.decided.terms.owner.clone(),
            ..self.line(
                &row.user,
                Action::Find,
                "RunGone",
                format!(
                    "Key {other} was superseded, and no run that did so is known: Step Functions forgets a run after 90 days, or a person has moved AWSCURRENT. Nothing touches it. `keywheel enroll --user {} --secret {} --retire {other}` gives it up.",
                    row.user, managed.secret.arn
                ),
            )
        })
    }

    /// What there is to say of a user that no secret names.
    pub(super) fn unmanaged(&self, row: &Row) -> Vec<Line> {
        let Ok(decided) = self.policy.decide(&self.subject(row)) else { return Vec::new() };
        if self.exemption(row).is_some() {
            return Vec::new();
        }
        let mut found = Vec::new();
        let active: Vec<&Slot> = row.keys.iter().filter(|key| key.active).collect();
        let blind = self.estate.blind.iter().filter_map(|blind| match blind {
            Blind::Region { region, .. } => Some(region.as_str()),
            _ => None,
        });
        let blind: Vec<&str> = blind.collect();
        for key in active.iter().filter(|key| self.is_over(key.since, &decided.terms)) {
            let days = self.days(key.since).unwrap_or_default();
            let (code, what) = if blind.is_empty() {
                let regions = self.estate.regions.join(", ");
                let enroll = format!("`keywheel enroll --user {} --secret <secret>`", row.user);
                (
                    "OverAge",
                    format!("no secret in {regions} names the user: {enroll} puts it under management"),
                )
            } else {
                let regions = blind.join(", ");
                let what = format!(
                    "whether it is managed is not known, as {regions} could not be read: it is skipped"
                );
                ("PerhapsUnmanaged", what)
            };
            let why = format!("A key of it is {days} days old, and {what}.");
            found.push(Line {
                key_id: key.id.clone(),
                age_days: Some(days),
                ..self.line(&row.user, Action::Find, code, why)
            });
        }
        if active.len() > 1 {
            let why = format!("It has {} Active keys.", active.len());
            found.push(self.line(&row.user, Action::Find, "TwoActive", why));
        }
        found
    }

    /// Active keys that nobody has used for long.
    pub(super) fn unused(&self, row: &Row) -> Vec<Line> {
        let quiet = |since: Timestamp| after(since, self.policy.unused_after.get()) <= self.now;
        let why = |key: &Slot| match key.used {
            Used::At(at) if quiet(at) => {
                Some(format!("An Active key of it was used last on {}.", at.strftime("%Y-%m-%d")))
            }
            Used::Never if key.since.is_some_and(quiet) => {
                Some("An Active key of it has never been used.".to_owned())
            }
            _ => None,
        };
        let line = |key: &Slot, why| Line {
            key_id: key.id.clone(),
            age_days: self.days(key.since),
            ..self.line(&row.user, Action::Find, "Unused", why)
        };
        let active = row.keys.iter().filter(|key| key.active);
        active.filter_map(|key| why(key).map(|why| line(key, why))).collect()
    }

    pub(super) fn root(&self) -> Option<Line> {
        if self.estate.is_unread() {
            return None;
        }
        let (code, why) = match self.estate.root_key {
            Some(false) => return None,
            Some(true) => {
                ("RootKey", "The root user has an access key: nothing limits what it may do. Delete it.")
            }
            None => ("RootUnread", "Whether the root user has an access key could not be read."),
        };
        Some(self.line(ROOT, Action::Find, code, why))
    }

    pub(super) fn unread(&self, blind: &Blind) -> Line {
        let (user, code, why) = match blind {
            Blind::Account { why } => (
                "",
                "AccountUnread",
                format!("The account could not be read ({why}): its users are skipped."),
            ),
            Blind::Region { region, why } => {
                let why =
                    format!("The secrets of {region} could not be listed ({why}): their users are skipped.");
                ("", "RegionUnread", why)
            }
            Blind::Row { line, user, why } => {
                let why = format!(
                    "Line {line} of IAM's credential report cannot be understood ({why}): its user is skipped."
                );
                (user.as_str(), "RowUnread", why)
            }
            Blind::User { user, why } => {
                (user.as_str(), "UserUnread", format!("Its keys could not be listed ({why}): it is skipped."))
            }
            Blind::Runs { why } => {
                let why = format!(
                    "Which rotations run could not be read ({why}): what ended runs have left of keys that are not due stays as it is."
                );
                ("", "RunsUnread", why)
            }
        };
        self.line(user, Action::Find, code, why)
    }

    /// Secrets that name a user whom IAM does not have, or did not have when the report was made.
    pub(super) fn strangers(&self) -> Vec<Line> {
        let mut known: BTreeSet<&str> = self.estate.users.iter().map(|row| row.user.as_str()).collect();
        known.extend(self.estate.blind.iter().filter_map(|blind| match blind {
            Blind::Row { user, .. } | Blind::User { user, .. } => Some(user.as_str()),
            Blind::Region { .. } | Blind::Account { .. } | Blind::Runs { .. } => None,
        }));
        let when = match &self.estate.source {
            Source::Report(at) => format!(" when it made its report ({at})"),
            Source::Lists(_) => String::new(),
        };
        let unknown = self.by_user.iter().filter(|(user, _)| !known.contains(*user));
        unknown
            .map(|(user, secrets)| Line {
                secret: secrets.first().map(|secret| secret.arn.clone()),
                ..self.line(user, Action::Skip, "NoSuchUser", format!("IAM had no such user{when}."))
            })
            .collect()
    }

    /// Exemptions that end, have ended, or are for nobody here, each with its place in the policy.
    fn exemptions(&self) -> Vec<(usize, Line)> {
        let mut found = Vec::new();
        let soon =
            self.now.saturating_add(ENDS_SOON).unwrap_or(Timestamp::MAX).to_zoned(TimeZone::UTC).date();
        let deciding: Vec<(&Exemption, Standing)> = self
            .estate
            .users
            .iter()
            .filter_map(|row| self.policy.exemption(&self.subject(row), self.now))
            .collect();
        for (index, exemption) in self.policy.exemptions.iter().enumerate() {
            let Exemption { user, until, owner, .. } = exemption;
            let elsewhere = |account: &str| account != self.estate.account;
            if exemption.account.as_ref().is_some_and(|account| elsewhere(account.as_str())) {
                continue;
            }
            let standing =
                deciding.iter().find(|(other, _)| *other == exemption).map(|(_, standing)| *standing);
            let (code, why) = match standing {
                Some(Standing::Expired) => {
                    ("ExemptionExpired", format!("Its exemption ended on {until} ({owner})."))
                }
                Some(Standing::Holds) if *until < soon => {
                    ("ExemptionEnds", format!("Its exemption ends on {until} ({owner})."))
                }
                Some(Standing::Holds) => continue,
                None if self.estate.users.iter().any(|row| rules::names(user, &row.user)) => continue,
                None => (FITS_NOBODY, format!("No user has the name of this exemption ({owner}).")),
            };
            found.push((index, self.line(user, Action::Find, code, why)));
        }
        found
    }
}

const FITS_NOBODY: &str = "ExemptionFitsNobody";

/// Exemptions that end, have ended, or are for nobody: a name that is mistyped exempts no one. One that is for every
/// account fits nobody where it does so in all of them, which of an account that could not be read is not known.
pub(super) fn exemptions(policy: &FleetPolicy, desks: &[Desk<'_>]) -> Vec<Line> {
    let is_dark = desks.iter().any(|desk| desk.estate.is_unread());
    let read = desks.iter().filter(|desk| !desk.estate.is_unread());
    let found: Vec<(usize, Line)> = read.flat_map(Desk::exemptions).collect();
    let is_everywhere = |index: usize| {
        let fits_nobody = found.iter().filter(|(other, line)| *other == index && line.code == FITS_NOBODY);
        !is_dark && fits_nobody.count() == desks.len()
    };
    let (mut lines, mut told) = (Vec::new(), BTreeSet::new());
    for (index, line) in &found {
        let everywhere = policy.exemptions[*index].account.is_none() && line.code == FITS_NOBODY;
        if !everywhere || is_everywhere(*index) && told.insert(*index) {
            lines.push(line.clone());
        }
    }
    lines
}
