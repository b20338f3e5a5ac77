//! What the tests of an audit are about.

use jiff::Timestamp;
use keywheel::fleet::audit::{Book, Entry, Managed, Would};
use keywheel::fleet::estate::Source;
use keywheel::key::LastUse;

use super::Audit;

pub(super) fn now() -> Timestamp {
    "2026-06-30T12:00:00Z".parse().unwrap()
}

fn ago(days: i64) -> Timestamp {
    now() - jiff::SignedDuration::from_hours(24 * days)
}

/// An Active key of so many days that nobody manages.
pub(super) fn entry(user: &str, days: Option<i64>) -> Entry {
    Entry {
        account: "111122223333".into(),
        user: user.into(),
        path: "/".into(),
        key_id: Some("AKIAIOSFODNN7EXAMPLE".parse().unwrap()),
        active: true,
        created: days.map(ago),
        age_days: days,
        last_use: Some(LastUse { at: Some(ago(2)), service: Some("s3".into()), region: None }),
        slots: 1,
        managed: Managed::No,
        secret: None,
        owner: None,
        terraform: Vec::new(),
        would: Would::Leave,
        code: "NotManaged",
        why: "No run touches it: it is not managed.".into(),
        findings: Vec::new(),
    }
}

pub(super) fn audit(entries: Vec<Entry>) -> Audit {
    let users = entries.len();
    Audit {
        book: Book { entries, others: Vec::new(), unread: Vec::new() },
        account: "111122223333".into(),
        regions: vec!["eu-west-1".into()],
        users,
        source: Source::Report(ago(0)),
        max_age: "90days".into(),
        at: now(),
    }
}
