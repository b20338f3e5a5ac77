//! What a leaked key did, tallied from CloudTrail's records.
//!
//! Whoever holds the key writes much of a record: agents, names, sessions. So only the fields that are named here
//! are taken, without what cannot be seen and no longer than a person reads; nothing is interpreted, and what is
//! not asked for, such as a session's token, is never looked at.
//!
//! The findings travel in the machine's document, of which a Parallel holds three copies. Every list is bounded,
//! the most frequent first, and says how many more there are; and all of them together fit into [`LARGEST`].

mod access;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::html::is_seen;

/// How many bytes the findings have at most in a document.
pub const LARGEST: usize = 24 * 1024;
/// How many entries a list has, if all fit.
const ENTRIES: [usize; 7] = [20, 15, 10, 7, 4, 2, 1];
/// How many different values of one kind are told apart: whoever holds the key may send another agent each time.
const DISTINCT: usize = 1_000;
/// How many bytes a text has at most: a role's ARN, and what a person reads of an agent.
const TEXT: usize = 160;
/// How many things one notable line names.
const NAMED: usize = 4;

/// The first time and the last.
pub type Span = Option<(Timestamp, Timestamp)>;

/// What a key did. What matters most is in `notable`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// When the trail was read.
    pub at: Timestamp,
    /// How often there was something new to tell, from 1 on.
    #[serde(default)]
    pub round: u32,
    /// How many events were read.
    pub events: u32,
    /// How many regions were read to their end.
    #[serde(default)]
    pub read: u32,
    /// Regions that could not be read; not empty, the findings are partial.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// Regions of which only the latest calls were read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cut: Vec<String>,
    /// Whether there was more than is read, or more different values than are told apart.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    /// The first event and the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span: Span,
    /// What a person should look at first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notable: Vec<String>,
    /// How many calls were denied.
    #[serde(default, skip_serializing_if = "super::is_zero")]
    pub denied_calls: u32,
    /// The roles that were assumed with it: their sessions outlive the key.
    #[serde(default, skip_serializing_if = "Top::is_empty")]
    pub roles: Top<Session>,
    /// The sessions that were minted from it: `GetSessionToken`, `GetFederationToken` and their like.
    #[serde(default, skip_serializing_if = "Top::is_empty")]
    pub sessions: Top<Session>,
    /// What it made or changed that lets somebody in, the latest first.
    #[serde(default, skip_serializing_if = "Top::is_empty")]
    pub made: Top<Made>,
    /// From where it was used.
    #[serde(default, skip_serializing_if = "Top::is_empty")]
    pub addresses: Top<Seen>,
    /// With which programs.
    #[serde(default, skip_serializing_if = "Top::is_empty")]
    pub agents: Top<Seen>,
    /// In which regions.
    #[serde(default, skip_serializing_if = "Top::is_empty")]
    pub regions: Top<Seen>,
    /// Which services it called.
    #[serde(default, skip_serializing_if = "Top::is_empty")]
    pub services: Top<Seen>,
    /// Which calls it made.
    #[serde(default, skip_serializing_if = "Top::is_empty")]
    pub calls: Top<Seen>,
    /// Which calls were denied.
    #[serde(default, skip_serializing_if = "Top::is_empty")]
    pub denied: Top<Seen>,
    /// Where the report lies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<String>,
}

/// The head of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Top<T> {
    /// The first of them.
    pub list: Vec<T>,
    /// How many more there are.
    #[serde(default, skip_serializing_if = "super::is_zero")]
    pub more: u32,
}

/// A value that was seen, and how often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The value.
    pub what: String,
    /// In how many calls.
    pub calls: u32,
    /// The first of them and the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span: Span,
}

/// Something that was made, or changed so that it lets somebody in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// The call, such as `iam:CreateUser`.
    pub call: String,
    /// What it was.
    pub name: String,
    /// When, for the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
}

/// A session that does not end with the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The role's ARN, or the call that minted it.
    pub who: String,
    /// The session's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The id of the last one's key.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// How many there were.
    pub calls: u32,
    /// The first of them and the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span: Span,
    /// When the last of them ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// What could not be read.
#[derive(Debug, Clone, Default)]
pub struct Gaps {
    /// How many regions were read to their end.
    pub read: u32,
    /// Those that were not.
    pub missing: Vec<String>,
    /// Those with more calls than are read.
    pub cut: Vec<String>,
}

impl Findings {
    /// Whether they tell only a part.
    pub fn is_partial(&self) -> bool {
        self.truncated || !self.missing.is_empty()
    }

    /// Whether a person who has read the one need not read the other: they differ at most in when they were made,
    /// and in what has ended since.
    pub fn tells_the_same_as(&self, other: &Self) -> bool {
        let other = Self {
            at: self.at,
            round: self.round,
            notable: self.notable.clone(),
            report: self.report.clone(),
            ..other.clone()
        };
        *self == other
    }
}

impl<T> Default for Top<T> {
    fn default() -> Self {
        Self { list: Vec::new(), more: 0 }
    }
}

impl<T> Top<T> {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty() && self.more == 0
    }

    fn of(whole: &[T], most: usize) -> Self
    where
        T: Clone,
    {
        let list = whole[..most.min(whole.len())].to_vec();
        let more = number(whole.len() - list.len());
        Self { list, more }
    }

    /// How many there are in all.
    pub fn count(&self) -> u32 {
        number(self.list.len()).saturating_add(self.more)
    }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Widens a span by a time.
fn widen(span: &mut Span, at: Option<Timestamp>) {
    if let Some(at) = at {
        let (first, last) = span.unwrap_or((at, at));
        *span = Some((first.min(at), last.max(at)));
    }
}

/// A text for people: without what cannot be seen or turns the text around it, and bounded.
fn clean(text: &str) -> String {
    let mut clean = String::new();
    for letter in text.chars().filter(|letter| is_seen(*letter)) {
        if clean.len() + letter.len_utf8() > TEXT {
            clean.push('…');
            break;
        }
        clean.push(letter);
    }
    clean
}

/// The same for a line that is sent to people, by channels that make something of marks: those of an ARN and of an
/// IAM name are left.
fn plain(text: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "+=,.@-_/: ".contains(letter);
    clean(text).chars().map(|letter| if is_plain(letter) || letter == '…' { letter } else { '?' }).collect()
}

/// Different values, and how often each was seen.
#[derive(Debug, Default)]
struct Counts {
    seen: BTreeMap<String, (u32, Span)>,
    /// Whether there were more than are told apart.
    full: bool,
}

impl Counts {
    fn add(&mut self, what: &str, at: Option<Timestamp>) {
        let what = clean(what);
        if self.seen.len() >= DISTINCT && !self.seen.contains_key(&what) {
            self.full = true;
            return;
        }
        let (calls, span) = self.seen.entry(what).or_default();
        *calls += 1;
        widen(span, at);
    }

    /// All, the most frequent first.
    fn sorted(&self) -> Vec<Seen> {
        let seen = self.seen.iter();
        let mut all: Vec<Seen> = seen
            .map(|(what, (calls, span))| Seen { what: what.clone(), calls: *calls, span: *span })
            .collect();
        // A stable sort: of equals the alphabet decides, so that the same records give the same findings.
        all.sort_by_key(|seen| std::cmp::Reverse(seen.calls));
        all
    }
}

/// The records so far.
#[derive(Debug, Default)]
pub struct Tally {
    events: u32,
    span: Span,
    denied_calls: u32,
    addresses: Counts,
    agents: Counts,
    regions: Counts,
    services: Counts,
    calls: Counts,
    denied: Counts,
    made: BTreeMap<(String, String), Option<Timestamp>>,
    roles: BTreeMap<(String, String), Session>,
    sessions: BTreeMap<(String, String), Session>,
    full: bool,
}

/// Whether an error says that the caller may not.
fn is_denial(code: &str) -> bool {
    let code = code.to_ascii_lowercase();
    ["denied", "unauthorized", "notauthorized", "forbidden", "authorizationerror"]
        .iter()
        .any(|word| code.contains(word))
}

impl Tally {
    /// Counts one record. One of another shape is a call of which nothing is known.
    pub fn add(&mut self, record: &Value) {
        let text = |name: &str| record.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let at: Option<Timestamp> = text("eventTime").and_then(|at| at.parse().ok());
        self.events = self.events.saturating_add(1);
        widen(&mut self.span, at);
        for (counts, name) in [
            (&mut self.addresses, "sourceIPAddress"),
            (&mut self.agents, "userAgent"),
            (&mut self.regions, "awsRegion"),
        ] {
            if let Some(value) = text(name) {
                counts.add(value, at);
            }
        }
        let Some(service) = text("eventSource") else { return };
        // The rest is a host's name, which a partition might write differently.
        let service = service.split('.').next().unwrap_or(service);
        self.services.add(service, at);
        let Some(name) = text("eventName") else { return };
        let call = format!("{service}:{name}");
        self.calls.add(&call, at);
        match text("errorCode") {
            Some(code) if is_denial(code) => {
                self.denied_calls = self.denied_calls.saturating_add(1);
                self.denied.add(&call, at);
            }
            Some(_) => {}
            None => self.done(&call, record, at),
        }
    }

    /// What a call that succeeded left behind.
    fn done(&mut self, call: &str, record: &Value, at: Option<Timestamp>) {
        if let Some(name) = access::made(call, record) {
            let made = (call.to_owned(), name);
            if self.made.len() < DISTINCT || self.made.contains_key(&made) {
                let last = self.made.entry(made).or_default();
                *last = at.max(*last);
            } else {
                self.full = true;
            }
        }
        let Some((is_role, session)) = access::session(call, record, at) else { return };
        let sessions = if is_role { &mut self.roles } else { &mut self.sessions };
        let id = (session.who.clone(), session.name.clone());
        if sessions.len() >= DISTINCT && !sessions.contains_key(&id) {
            self.full = true;
            return;
        }
        let known = sessions.entry(id).or_insert_with(|| Session { calls: 0, ..session.clone() });
        known.calls += 1;
        if session.until >= known.until {
            (known.until, known.key) = (session.until, session.key);
        }
        widen(&mut known.span, at);
    }

    /// What the records tell, as much of it as fits.
    pub fn findings(&self, now: Timestamp, gaps: Gaps) -> Findings {
        let whole = self.whole(now, gaps);
        let fitting = ENTRIES
            .iter()
            .map(|most| whole.shortened(*most))
            .find(|findings| serde_json::to_vec(findings).is_ok_and(|text| text.len() <= LARGEST));
        fitting.unwrap_or_else(|| whole.shortened(0))
    }

    fn whole(&self, now: Timestamp, gaps: Gaps) -> Findings {
        let all = [&self.addresses, &self.agents, &self.regions, &self.services, &self.calls, &self.denied];
        let full = self.full || all.iter().any(|counts| counts.full);
        let all = |counts: &Counts| Top::of(&counts.sorted(), usize::MAX);
        let mut findings = Findings {
            at: now,
            round: 0,
            events: self.events,
            read: gaps.read,
            truncated: full || !gaps.cut.is_empty(),
            missing: gaps.missing,
            cut: gaps.cut,
            span: self.span,
            notable: Vec::new(),
            denied_calls: self.denied_calls,
            roles: latest(&self.roles),
            sessions: latest(&self.sessions),
            made: self.made(),
            addresses: all(&self.addresses),
            agents: all(&self.agents),
            regions: all(&self.regions),
            services: all(&self.services),
            calls: all(&self.calls),
            denied: all(&self.denied),
            report: None,
        };
        findings.notable = findings.notable();
        findings
    }

    fn made(&self) -> Top<Made> {
        let made = self.made.iter();
        let mut made: Vec<Made> =
            made.map(|((call, name), at)| Made { call: call.clone(), name: name.clone(), at: *at }).collect();
        made.sort_by_key(|made| std::cmp::Reverse(made.at));
        Top::of(&made, usize::MAX)
    }
}

/// Sessions, the one that lives longest first.
fn latest(sessions: &BTreeMap<(String, String), Session>) -> Top<Session> {
    let mut sessions: Vec<Session> = sessions.values().cloned().collect();
    sessions.sort_by_key(|session| std::cmp::Reverse(session.until));
    Top::of(&sessions, usize::MAX)
}

impl Findings {
    fn shortened(&self, most: usize) -> Self {
        let short = |top: &Top<Seen>| Top::of(&top.list, most);
        Self {
            roles: Top::of(&self.roles.list, most),
            sessions: Top::of(&self.sessions.list, most),
            made: Top::of(&self.made.list, most),
            addresses: short(&self.addresses),
            agents: short(&self.agents),
            regions: short(&self.regions),
            services: short(&self.services),
            calls: short(&self.calls),
            denied: short(&self.denied),
            missing: self.missing.clone(),
            cut: self.cut.clone(),
            notable: self.notable.clone(),
            report: self.report.clone(),
            ..*self
        }
    }

    /// The few lines that a person should read first.
    fn notable(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some((count, who, until)) = alive(&self.roles, self.at) {
            let roles = if count == 1 { "a role".to_owned() } else { format!("{count} roles") };
            lines.push(format!("It assumed {roles}; the sessions live until {until} at the latest: {who}."));
        }
        if let Some((_, who, until)) = alive(&self.sessions, self.at) {
            lines.push(format!("Sessions that it minted live until {until} at the latest: {who}."));
        }
        if !self.made.is_empty() {
            let made = self.made.list.iter().map(|made| format!("{} {}", made.call, plain(&made.name)));
            lines.push(format!("It made or changed: {}.", some(made, self.made.count())));
        }
        if self.denied_calls > 0 {
            lines.push(format!("{} of {} calls were denied.", self.denied_calls, self.events));
        }
        if let Some(most) = self.addresses.list.first() {
            let count = self.addresses.count();
            let most = plain(&most.what);
            lines.push(if count == 1 {
                format!("All calls came from {most}.")
            } else {
                format!("Calls came from {count} addresses, most of them from {most}.")
            });
        }
        lines
    }
}

/// How many sessions of a list may still live, the first of them, and when the last one ends.
fn alive(sessions: &Top<Session>, now: Timestamp) -> Option<(usize, String, Timestamp)> {
    let alive: Vec<&Session> =
        sessions.list.iter().filter(|session| session.until.is_some_and(|until| until > now)).collect();
    let until = alive.iter().filter_map(|session| session.until).max()?;
    let who = alive.iter().map(|session| match session.name.as_str() {
        "" => plain(&session.who),
        name => format!("{} as {}", plain(&session.who), plain(name)),
    });
    Some((alive.len(), some(who, number(alive.len())), until))
}

/// The first few of `count`, and how many more.
fn some(names: impl Iterator<Item = String>, count: u32) -> String {
    let names: Vec<String> = names.take(NAMED).collect();
    let more = count.saturating_sub(number(names.len()));
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", names.join(", "))
}

#[cfg(test)]
mod tests;
