//! Which keys of an account, or of several, are due, and what a run over all of them would do.
//!
//! Whatever could not be read is skipped and said, never rotated. What ended runs have left is taken over whatever the
//! key's age, by a run as any other: it finds out itself where to go on.

mod findings;
mod left;
mod soon;
mod unused;

use std::cmp::Reverse;
use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::clock::after;
use crate::fleet::FleetPolicy;
use crate::fleet::estate::{Close, Current, Estate, Look, Looks, Row, Source, Tagged};
use crate::fleet::plan::{Action, Line, Plan};
use crate::fleet::policy::{Exemption, Terms};
use crate::fleet::rules::{Decided, Standing, Subject};
use crate::ids::{AccessKeyId, SecretArn};
use crate::key::{self, KeyFacts};

pub use soon::{Calendar, Soon, calendar, calendar_of_all};
pub use unused::{Quiet, quiet};

/// How the credential report calls the account's root user.
pub const ROOT: &str = "<root_account>";

/// What a plan says of a user that nobody has looked at, until it is known why.
const UNLOOKED: &str = "Unlooked";

/// The users that need a closer look, each with its secret, in the order in which a plan rotates: managed by one secret,
/// not exempt, no run at work on them, and with a key that may have reached its age, none that works, or what an ended run
/// may have left.
pub fn to_look_at(policy: &FleetPolicy, estate: &Estate, now: Timestamp) -> Vec<(String, SecretArn)> {
    let desk = Desk::new(policy, estate, now);
    let needs = |row: &Row| {
        let Some(Ok(managed)) = desk.managed(row) else { return None };
        let wanted = desk.exemption(row).is_none() && desk.needs_look(row, &managed);
        let oldest = row.keys.iter().filter_map(|key| key.since).min();
        let place = (managed.decided.terms.wave, Reverse(desk.days(oldest)));
        wanted.then(|| (place, (row.user.clone(), managed.secret.arn.clone())))
    };
    let mut users: Vec<_> = estate.users.iter().filter_map(needs).collect();
    // The sort is stable: of two that are alike the report's first one stays first.
    users.sort_by_key(|(place, _)| *place);
    users.into_iter().map(|(_, user)| user).collect()
}

/// How many more users need be looked at before a plan is full: what its limit cuts off need not be known closer.
pub fn room(policy: &FleetPolicy, estate: &Estate, looks: &Looks, now: Timestamp) -> usize {
    let desk = Desk::new(policy, estate, now);
    let rotated = |row: &&Row| {
        let Some(look) = looks.get(&row.user) else { return false };
        let Some(Ok(managed)) = desk.managed(row) else { return false };
        desk.verdict(row, &managed, Some(look)).action == Action::Rotate
    };
    allowed(policy).saturating_sub(estate.users.iter().filter(rotated).count())
}

/// The plan. `looks` holds the users that [`to_look_at`] named; where the limit is reached, the first of them are enough.
pub fn plan(policy: &FleetPolicy, estate: &Estate, looks: &Looks, now: Timestamp) -> Plan {
    plan_over(policy, &[(estate, looks)], now)
}

/// The plan over several accounts. What is limited is limited for all of them together.
pub fn plan_over(policy: &FleetPolicy, accounts: &[(&Estate, &Looks)], now: Timestamp) -> Plan {
    let (mut rotate, mut rest) = (Vec::new(), Vec::new());
    let mut desks = Vec::new();
    for (estate, looks) in accounts {
        let desk = Desk::new(policy, estate, now);
        let (due, others): (Vec<Line>, Vec<Line>) =
            desk.lines(looks).into_iter().partition(|line| line.action == Action::Rotate);
        rotate.extend(due);
        rest.extend(others);
        desks.push(desk);
    }
    rest.extend(findings::exemptions(policy, &desks));
    // The canary first, then the oldest: if a limit cuts the list, what is left is the least urgent.
    rotate.sort_by_key(|line| (line.wave, Reverse(line.age_days), line.user.clone(), line.account.clone()));
    unlooked(policy, &mut rest, rotate.len());
    limit(policy, &mut rotate, now);
    rest.sort_by(|a, b| {
        (a.action, &a.account, &a.user, a.code).cmp(&(b.action, &b.account, &b.user, b.code))
    });
    let (rotate, held): (Vec<Line>, Vec<Line>) =
        rotate.into_iter().partition(|line| line.action == Action::Rotate);
    Plan { lines: rotate.into_iter().chain(held).chain(rest).collect() }
}

/// A user with its one secret and what holds for it.
struct Managed<'a> {
    secret: &'a Tagged,
    decided: Decided,
}

/// What a plan is made with.
struct Desk<'a> {
    policy: &'a FleetPolicy,
    estate: &'a Estate,
    by_user: BTreeMap<&'a str, Vec<&'a Tagged>>,
    now: Timestamp,
}

impl<'a> Desk<'a> {
    fn new(policy: &'a FleetPolicy, estate: &'a Estate, now: Timestamp) -> Self {
        let mut by_user: BTreeMap<&str, Vec<&Tagged>> = BTreeMap::new();
        for secret in &estate.secrets {
            by_user.entry(&secret.user).or_default().push(secret);
        }
        Self { policy, estate, by_user, now }
    }

    /// What there is to say of the account, but for the policy's exemptions.
    fn lines(&self, looks: &Looks) -> Vec<Line> {
        let mut lines = Vec::new();
        lines.extend(self.root());
        for row in &self.estate.users {
            match self.managed(row) {
                None => lines.extend(self.unmanaged(row)),
                Some(Err(line)) => lines.push(line),
                Some(Ok(managed)) => {
                    let look = looks.get(&row.user);
                    let line = self.verdict(row, &managed, look);
                    let gone = self.run_gone(row, &managed, look);
                    lines.extend(gone.or_else(|| self.two_keys(row, &managed, &line)));
                    lines.push(line);
                }
            }
            lines.extend(self.unused(row));
        }
        lines.extend(self.strangers());
        lines.extend(self.estate.blind.iter().map(|blind| self.unread(blind)));
        lines
    }

    fn line(&self, user: &str, action: Action, code: &'static str, why: impl Into<String>) -> Line {
        Line {
            user: user.to_owned(),
            account: self.estate.account.clone(),
            key_id: None,
            age_days: None,
            rule: None,
            wave: None,
            action,
            code,
            why: why.into(),
            secret: None,
            owner: None,
            terms: None,
        }
    }

    fn subject<'s>(&'s self, row: &'s Row) -> Subject<'s> {
        let secrets = self.by_user.get(row.user.as_str());
        let tags = secrets.and_then(|secrets| secrets.first()).map(|secret| &secret.tags);
        Subject { account: &self.estate.account, user: &row.user, path: &row.path, tags }
    }

    /// The exemption that holds for the user.
    fn exemption(&self, row: &Row) -> Option<&'a Exemption> {
        match self.policy.exemption(&self.subject(row), self.now) {
            Some((exemption, Standing::Holds)) => Some(exemption),
            _ => None,
        }
    }

    /// The user's secret and what holds for it; `None` where no secret names the user, and a line where it must be
    /// left alone whatever its key's age.
    fn managed(&self, row: &Row) -> Option<Result<Managed<'a>, Line>> {
        let all = self.by_user.get(row.user.as_str())?;
        let skip = |code, why| Some(Err(self.line(&row.user, Action::Skip, code, why)));
        let own: Vec<&Tagged> = all.iter().copied().filter(|secret| secret.replica_of.is_none()).collect();
        let secret = match own[..] {
            [secret] => secret,
            [] => {
                let there: Vec<&str> = all.iter().filter_map(|secret| secret.replica_of.as_deref()).collect();
                let why = format!(
                    "Its secret's primary is in {}, which was not asked: name that region in the policy.",
                    there.join(", ")
                );
                return skip("PrimaryElsewhere", why);
            }
            _ => {
                let names: Vec<&str> = own.iter().map(|secret| secret.arn.as_str()).collect();
                let why = format!(
                    "{} secrets are tagged for this user: {}. A user's key lives in one: take the tag off the others.",
                    names.len(),
                    names.join(", ")
                );
                return skip("TwoManagedSecrets", why);
            }
        };
        match self.policy.decide(&self.subject(row)) {
            Ok(decided) => Some(Ok(Managed { secret, decided })),
            Err(why) => skip("NoSuchRule", format!("No rule decides: {why}.")),
        }
    }

    fn days(&self, since: Option<Timestamp>) -> Option<i64> {
        // A time to come is one of a clock that is ahead.
        since.map(|since| self.now.duration_since(since).max(SignedDuration::ZERO).as_hours() / 24)
    }

    fn is_over(&self, since: Option<Timestamp>, terms: &Terms) -> bool {
        since.is_some_and(|since| after(since, terms.max_age.get()) <= self.now)
    }

    /// Whether a closer look is worth its calls. The report's dates are those of a key's last switch, so a secret that
    /// nobody has changed for so long is asked for as well: what it holds is as old.
    fn may_be_due(&self, row: &Row, managed: &Managed<'_>) -> bool {
        let terms = &managed.decided.terms;
        let mut active = row.keys.iter().filter(|key| key.active).peekable();
        let none_works = !row.keys.is_empty() && active.peek().is_none();
        none_works
            || active.any(|key| key.since.is_none() || self.is_over(key.since, terms))
            || !row.keys.is_empty() && self.is_over(managed.secret.changed, terms)
    }

    /// Whether a run is at work on the secret, by what the list of secrets and the list of executions say. Both may be
    /// minutes old: a run that starts now finds out itself, and one that has just ended is for the next plan.
    fn is_under_way(&self, managed: &Managed<'_>) -> bool {
        let running = self.estate.running.as_ref();
        running.is_some_and(|running| managed.secret.runs.iter().any(|run| running.contains(run)))
    }

    /// Whether an ended run may have left something. Where it is not known which runs run, every user in its overlap would
    /// look so: then only those whose key may be due are looked at.
    fn may_be_left(&self, row: &Row, managed: &Managed<'_>) -> bool {
        self.estate.running.is_some()
            && (row.keys.len() > 1 || !row.keys.is_empty() && managed.secret.pending)
    }

    fn needs_look(&self, row: &Row, managed: &Managed<'_>) -> bool {
        !self.is_under_way(managed) && (self.may_be_due(row, managed) || self.may_be_left(row, managed))
    }

    /// What becomes of a managed user.
    fn verdict(&self, row: &Row, managed: &Managed<'_>, look: Option<&Look>) -> Line {
        let terms = &managed.decided.terms;
        let newest = row.keys.iter().filter_map(|key| key.since).max();
        let base = Line {
            age_days: self.days(newest),
            rule: Some(managed.decided.rule.clone()),
            secret: Some(managed.secret.arn.clone()),
            owner: terms.owner.clone(),
            ..self.line(&row.user, Action::Skip, "", "")
        };
        let skip = |code, why: String| Line { code, why, ..base.clone() };
        if let Some(exemption) = self.exemption(row) {
            let Exemption { until, owner, reason, .. } = exemption;
            return skip("Exempt", format!("Exempt until {until} ({owner}: {reason})."));
        }
        if row.keys.is_empty() {
            let why =
                format!("{} no key: `keywheel rotate --user {}` makes the first.", self.had(), row.user);
            return skip("NoKey", why);
        }
        if self.is_under_way(managed) {
            return skip("RunInProgress", "A run is at work on it.".to_owned());
        }
        if !self.needs_look(row, managed) {
            return skip("NotDue", self.until_due(newest, terms));
        }
        match look {
            Some(Look::Seen(close)) => self.close(&base, (&managed.secret.arn, terms), close),
            Some(Look::Gone) => skip("NoSuchUser", "The user is gone since IAM made its report.".to_owned()),
            Some(Look::Unread(why)) => skip("Unread", format!("It could not be read: {why}.")),
            None => skip(UNLOOKED, "Nobody has looked at it.".to_owned()),
        }
    }

    /// The verdict on a user whose key may be due: what a run would find.
    fn close(&self, base: &Line, (secret, terms): (&SecretArn, &Terms), close: &Close) -> Line {
        let user = &base.user;
        let skip = |code, why: String| Line { code, why, age_days: None, ..base.clone() };
        if close.secret.as_deref() != Some(secret.as_str()) {
            let named = close.secret.as_deref().unwrap_or("no secret");
            let why = format!("The secret's tag names this user, and the user's own tag names {named}.");
            return skip("TagsDisagree", why);
        }
        if close.keys.is_empty() {
            return skip("NoKey", format!("It has no key: `keywheel rotate --user {user}` makes the first."));
        }
        if let Some(line) = self.left(base, terms, close) {
            return line;
        }
        let given_up =
            |key: &KeyFacts| close.retire.as_ref() == Some(&key.id) && close.keep.as_ref() != Some(&key.id);
        let current = match (&close.current, &close.keys[..]) {
            (Current::Key(id), keys) => {
                let Some(key) = key::find(keys, id) else {
                    let why = format!("Its secret holds key {id}, which the user does not have.");
                    return skip("CurrentKeyUnknown", why);
                };
                key
            }
            // Whoever may not read the value takes the only key there is for the one it holds.
            (Current::Hidden(_), [key]) => key,
            // Of two, the one that its owner does not give up. The run itself looks.
            (Current::Hidden(_), [one, other]) if given_up(one) => other,
            (Current::Hidden(_), [one, other]) if given_up(other) => one,
            (Current::Hidden(why), _) => {
                let why = format!(
                    "It has {}, and which of them is current may not be read ({why}).",
                    listed(&close.keys)
                );
                return skip("TwoKeys", why);
            }
            (Current::Nothing, keys) => {
                let why = format!(
                    "Its secret holds no key, and the user has {}: a run would make another, and leave what is there as it is. `keywheel enroll --user {user} --secret {secret} --retire <key>` gives one up.",
                    listed(keys)
                );
                return skip("NothingStored", why);
            }
            (Current::Unfit(why), _) => {
                return skip("Unfit", format!("Its secret cannot be rotated: {why}."));
            }
        };
        let line = |action, code, key: &AccessKeyId, why: String| Line {
            action,
            code,
            why,
            key_id: Some(key.clone()),
            age_days: self.days(current.created),
            wave: (action == Action::Rotate).then_some(terms.wave),
            terms: (action == Action::Rotate).then(|| terms.clone()),
            ..base.clone()
        };
        let skip = |code, why: String| line(Action::Skip, code, &current.id, why);
        if !current.is_active() {
            let why = format!(
                "Its current key {} is Inactive, and its consumers are refused. Find out why first: if it leaked (`keywheel incident {}`), `keywheel rotate --user {user} --reason leaked`.",
                current.id, current.id
            );
            return skip("CurrentInactive", why);
        }
        let Some(days) = self.days(current.created) else {
            return skip("AgeUnknown", format!("IAM does not say how old key {} is.", current.id));
        };
        if !self.is_over(current.created, terms) {
            return skip("NotDue", self.until_due(current.created, terms));
        }
        let age = format!("key is {days} days old, and due at {}", terms.max_age);
        let others: Vec<&KeyFacts> = close.keys.iter().filter(|key| key.id != current.id).collect();
        match others[..] {
            [] => {
                let hidden = if matches!(close.current, Current::Hidden(_)) {
                    " That its secret holds this one could not be read."
                } else {
                    ""
                };
                line(Action::Rotate, "Due", &current.id, format!("Its {age}.{hidden}"))
            }
            [other] if given_up(other) => {
                let why = format!("Its {age}; key {} is retired first, as its owner said.", other.id);
                line(Action::Rotate, "Retire", &other.id, why)
            }
            _ => {
                let why = format!(
                    "Its {age}, and it has {}, so that none can be made: `keywheel rotate --user {user} --dry-run` says what a run makes of them.",
                    listed(&close.keys)
                );
                skip("TwoKeys", why)
            }
        }
    }

    /// How a sentence about the report begins.
    fn had(&self) -> String {
        match &self.estate.source {
            Source::Report(at) => format!("When IAM made its report ({at}) the user had"),
            Source::Lists(_) => "The user has".to_owned(),
        }
    }

    fn until_due(&self, newest: Option<Timestamp>, terms: &Terms) -> String {
        let due = newest.map(|made| after(made, terms.max_age.get()));
        match due.filter(|due| *due > self.now) {
            Some(due) => format!("Its key is due on {}.", due.strftime("%Y-%m-%d")),
            None => "Its key is not due.".to_owned(),
        }
    }
}

/// How many keys a run may rotate.
fn allowed(policy: &FleetPolicy) -> usize {
    usize::try_from(policy.limits.keys_per_run).unwrap_or(usize::MAX)
}

/// Says why nobody has looked at some: with so many to be rotated the plan was full, or it was forgotten.
fn unlooked(policy: &FleetPolicy, rest: &mut [Line], rotate: usize) {
    let allowed = allowed(policy);
    for line in rest.iter_mut().filter(|line| line.code == UNLOOKED) {
        if rotate < allowed {
            line.code = "Unread";
            continue;
        }
        line.code = "Limit";
        line.why =
            format!("A run rotates {allowed} keys; whether this one is due is for the next to find out.");
    }
}

/// Leaves no more to be rotated than the policy allows now. The list is in its order.
fn limit(policy: &FleetPolicy, rotate: &mut [Line], now: Timestamp) {
    let frozen = policy.limits.frozen(now);
    let allowed = allowed(policy);
    for (index, line) in rotate.iter_mut().enumerate() {
        let (code, why) = match frozen {
            Some(freeze) => {
                ("Frozen", format!("Nothing is rotated until {} ({}).", freeze.until, freeze.reason))
            }
            None if index >= allowed => {
                ("Limit", format!("A run rotates {allowed} keys; this one is for the next."))
            }
            None => continue,
        };
        *line = Line {
            action: Action::Skip,
            code,
            why: format!("{} {why}", line.why),
            wave: None,
            terms: None,
            ..line.clone()
        };
    }
}

/// Keys in a sentence: their number, and each with what tells it from the others.
fn listed(keys: &[KeyFacts]) -> String {
    let one = |key: &KeyFacts| {
        let made = key.created.map_or_else(String::new, |made| format!(" of {}", made.strftime("%Y-%m-%d")));
        let state = if key.is_active() { "" } else { ", Inactive" };
        format!("{}{made}{state}", key.id)
    };
    let number = if keys.len() == 1 { "1 key".to_owned() } else { format!("{} keys", keys.len()) };
    format!("{number} ({})", keys.iter().map(one).collect::<Vec<_>>().join("; "))
}

#[cfg(test)]
mod tests;
