//! What another policy changes, user by user, by two plans that were made from one reading of an account.

use std::collections::{BTreeMap, BTreeSet};

use keywheel::fleet::FleetPolicy;
use keywheel::fleet::estate::{Blind, Estate};
use keywheel::fleet::plan::{Action, Line, Plan};
use keywheel::fleet::rules::{Decided, Subject};
use serde_json::{Value, json};

use crate::output::table;

/// A policy with the part of the account that it looks at, and the plan made from both.
#[derive(Debug, Clone)]
pub(super) struct Side {
    pub(super) policy: FleetPolicy,
    pub(super) estate: Estate,
    pub(super) plan: Plan,
}

/// The part of an account that lies in these regions.
pub(super) fn within(estate: &Estate, regions: &[String]) -> Estate {
    let asked = |region: &str| regions.iter().any(|one| one == region);
    let concerns = |blind: &&Blind| match blind {
        Blind::Region { region, .. } => asked(region),
        Blind::Account { .. } | Blind::Row { .. } | Blind::User { .. } | Blind::Runs { .. } => true,
    };
    Estate {
        account: estate.account.clone(),
        regions: regions.to_vec(),
        source: estate.source.clone(),
        users: estate.users.clone(),
        root_key: estate.root_key,
        secrets: estate.secrets.iter().filter(|secret| asked(secret.arn.region())).cloned().collect(),
        running: estate.running.clone(),
        blind: estate.blind.iter().filter(concerns).cloned().collect(),
    }
}

/// What a policy makes of one managed user.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Verdict {
    action: Action,
    code: &'static str,
    why: String,
    /// What holds for it, each with its name; empty where no rule decides.
    terms: Vec<(&'static str, String)>,
}

impl Verdict {
    /// Whether its key is due, though its turn may come later.
    fn is_due(&self) -> bool {
        self.action == Action::Rotate || ["Limit", "Frozen"].contains(&self.code)
    }
}

/// How a user's lot changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Its key is due now, and was not.
    Due,
    /// Its key is not due any more.
    NotDue,
    /// What holds for it is another thing.
    Other,
}

/// The word for a user that no secret names.
const NOT_MANAGED: &str = "NotManaged";

/// What changes for one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) user: String,
    pub(super) kind: Kind,
    was: &'static str,
    is: &'static str,
    why: String,
    terms: Vec<String>,
}

impl Change {
    fn of(user: &str, was: Option<&Verdict>, is: Option<&Verdict>) -> Option<Self> {
        let due = |verdict: Option<&Verdict>| verdict.is_some_and(Verdict::is_due);
        let code = |verdict: Option<&Verdict>| verdict.map_or(NOT_MANAGED, |verdict| verdict.code);
        let terms: Vec<String> = match (was, is) {
            (Some(was), Some(is)) => was
                .terms
                .iter()
                .zip(&is.terms)
                .filter(|(was, is)| was != is)
                .map(|((name, was), (_, is))| format!("{name} {was} -> {is}"))
                .collect(),
            _ => Vec::new(),
        };
        if code(was) == code(is) && terms.is_empty() {
            return None;
        }
        Some(Self {
            user: user.to_owned(),
            kind: match (due(was), due(is)) {
                (false, true) => Kind::Due,
                (true, false) => Kind::NotDue,
                _ => Kind::Other,
            },
            was: code(was),
            is: code(is),
            why: is.map_or_else(
                || "No secret in the policy's regions names it.".to_owned(),
                |is| is.why.clone(),
            ),
            terms,
        })
    }

    fn json(&self) -> Value {
        json!({ "user": self.user, "was": self.was, "is": self.is, "why": self.why, "terms": self.terms })
    }

    /// What users have in common of whom the same is told.
    fn words(&self) -> String {
        let code = (self.was != self.is).then(|| format!("{} -> {}", self.was, self.is));
        code.into_iter().chain(self.terms.iter().cloned()).collect::<Vec<_>>().join(", ")
    }
}

/// What a policy changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Changes {
    /// Each user for whom something does.
    pub(super) users: Vec<Change>,
    /// For how many nothing does.
    unchanged: usize,
    /// How many findings there were, and are.
    findings: (usize, usize),
    /// What could not be read: whom it concerns, and why.
    pub(super) unread: BTreeSet<(String, String)>,
}

impl Changes {
    /// Compares two policies.
    pub(super) fn between(before: &Side, after: &Side) -> Self {
        let (was, is) = (verdicts(before), verdicts(after));
        let all: BTreeSet<&str> = was.keys().chain(is.keys()).copied().collect();
        let users: Vec<Change> =
            all.iter().filter_map(|user| Change::of(user, was.get(user), is.get(user))).collect();
        let findings = |side: &Side| side.plan.with(Action::Find).filter(|line| !line.is_unread()).count();
        let unread = before.plan.lines.iter().chain(&after.plan.lines).filter(|line| line.is_unread());
        Self {
            unchanged: all.len() - users.len(),
            users,
            findings: (findings(before), findings(after)),
            unread: unread.map(|line| (line.user.clone(), line.why.clone())).collect(),
        }
    }

    fn with(&self, kind: Kind) -> impl Iterator<Item = &Change> {
        self.users.iter().filter(move |change| change.kind == kind)
    }

    /// All of it for programs.
    pub(super) fn json(&self) -> Value {
        let of = |kind| self.with(kind).map(Change::json).collect::<Vec<_>>();
        let unread: Vec<Value> =
            self.unread.iter().map(|(user, why)| json!({ "user": user, "why": why })).collect();
        json!({
            "due": of(Kind::Due),
            "not_due": of(Kind::NotDue),
            "other": of(Kind::Other),
            "unchanged": self.unchanged,
            "findings": { "before": self.findings.0, "after": self.findings.1 },
            "unread": unread,
        })
    }

    /// All of it for people.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut rows = vec![["USER", "CHANGE", "WHY", "TERMS"].map(str::to_owned).to_vec()];
        for (kind, word) in [(Kind::Due, "now due"), (Kind::NotDue, "no longer due")] {
            rows.extend(self.with(kind).map(|change| {
                let why = format!("{}: {}", change.is, change.why);
                vec![change.user.clone(), word.to_owned(), why, change.terms.join(", ")]
            }));
        }
        let mut lines = if rows.len() > 1 { table(&rows) } else { Vec::new() };
        // A default that changes concerns everybody in the same way.
        let mut alike: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for change in self.with(Kind::Other) {
            alike.entry(change.words()).or_default().push(&change.user);
        }
        lines.extend(alike.iter().map(|(what, users)| format!("{}: {what}", named(users))));
        let count = |kind| self.with(kind).count();
        lines.push(format!(
            "{} now due, {} no longer due, {} otherwise changed, {} as before.",
            count(Kind::Due),
            count(Kind::NotDue),
            count(Kind::Other),
            self.unchanged
        ));
        let (before, after) = self.findings;
        if before != after {
            lines.push(format!("{after} findings, and {before} before; `keywheel plan` tells them."));
        }
        lines
    }

    /// What could not be read, for people.
    pub(super) fn gaps(&self) -> Vec<String> {
        if self.unread.is_empty() {
            return Vec::new();
        }
        let line = |(user, why): &(String, String)| {
            if user.is_empty() { format!("  {why}") } else { format!("  {user}: {why}") }
        };
        std::iter::once(
            "The account could not be read completely, so more may change than is shown:".to_owned(),
        )
        .chain(self.unread.iter().map(line))
        .collect()
    }
}

/// How many users are named of those of whom the same is told.
const NAMED: usize = 3;

fn named(users: &[&str]) -> String {
    let first = users.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    match users.len().saturating_sub(NAMED) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

/// What a policy makes of each user that it manages.
fn verdicts(side: &Side) -> BTreeMap<&str, Verdict> {
    let Side { policy, estate, plan } = side;
    let paths: BTreeMap<&str, &str> =
        estate.users.iter().map(|row| (row.user.as_str(), row.path.as_str())).collect();
    let mut tags: BTreeMap<&str, &BTreeMap<String, String>> = BTreeMap::new();
    for secret in &estate.secrets {
        // As the plan does: of several the first.
        tags.entry(&secret.user).or_insert(&secret.tags);
    }
    let holds = |user: &str| {
        let Some(&path) = paths.get(user) else { return Vec::new() };
        let subject = Subject { account: &estate.account, user, path, tags: tags.get(user).copied() };
        policy.decide(&subject).map(|decided| terms(&decided)).unwrap_or_default()
    };
    let verdict = |line: &Line| Verdict {
        action: line.action,
        code: line.code,
        why: line.why.clone(),
        terms: holds(&line.user),
    };
    let about_users = plan.lines.iter().filter(|line| line.action != Action::Find);
    about_users.map(|line| (line.user.as_str(), verdict(line))).collect()
}

/// What holds for a user, each with its name, always in this order.
fn terms(decided: &Decided) -> Vec<(&'static str, String)> {
    let (terms, policy) = (&decided.terms, &decided.terms.policy);
    // The word of the document itself.
    let late = json!(policy.when_still_in_use).as_str().unwrap_or_default().to_owned();
    vec![
        ("rule", decided.rule.clone()),
        ("wave", terms.wave.to_string()),
        ("owner", terms.owner.clone().unwrap_or_else(|| "nobody".to_owned())),
        ("max_age", terms.max_age.to_string()),
        ("warn", terms.warn.as_ref().map_or_else(|| "never".to_owned(), ToString::to_string)),
        ("overlap", policy.overlap.to_string()),
        ("max_overlap", policy.max_overlap.to_string()),
        ("quiet_window", policy.quiet_window.to_string()),
        ("grace", policy.grace.to_string()),
        ("cache", policy.cache.to_string()),
        ("when_still_in_use", late),
        ("unused", terms.unused.as_ref().map_or_else(|| "reported".to_owned(), ToString::to_string)),
    ]
}

#[cfg(test)]
mod tests;
