//! An audit as a table, as JSON and as comma-separated values.

use jiff::Timestamp;
use keywheel::fleet::audit::{Entry, Managed, Would};
use keywheel::fleet::estate::Source;
use keywheel::fleet::plan::Line;
use keywheel::key::LastUse;
use serde_json::{Value, json};

use super::Audit;
use crate::output::{Out, table};
use crate::time;

/// What the numbers of an audit are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) keys: usize,
    pub(super) active: usize,
    pub(super) over_age: usize,
    pub(super) unused: usize,
    pub(super) managed: usize,
    pub(super) rotate: usize,
    pub(super) terraform: usize,
}

impl Counts {
    pub(super) fn of(entries: &[Entry]) -> Self {
        let count = |holds: &dyn Fn(&Entry) -> bool| entries.iter().filter(|entry| holds(entry)).count();
        Self {
            keys: entries.len(),
            active: count(&|entry| entry.active),
            over_age: count(&|entry| entry.active && entry.is_over_age()),
            unused: count(&Entry::is_unused),
            managed: count(&|entry| entry.managed == Managed::Yes),
            rotate: count(&|entry| entry.would == Would::Rotate),
            terraform: count(&|entry| !entry.terraform.is_empty()),
        }
    }
}

/// Where the facts are from, in a sentence.
pub(super) fn source(audit: &Audit) -> String {
    let regions = audit.regions.join(", ");
    match &audit.source {
        Source::Report(at) => format!(
            "By IAM's credential report of {}, of which users and keys made since are missing; secrets of {regions}.",
            time::at(*at)
        ),
        Source::Lists(why) => format!(
            "Users were listed one by one, as IAM gave no credential report ({why}); secrets of {regions}."
        ),
    }
}

/// The result for people, and for programs.
pub(super) fn result(out: &Out, audit: &Audit) {
    for entry in &audit.book.entries {
        out.json(&kind("key", json!(entry)));
    }
    for line in &audit.book.others {
        out.json(&kind("finding", json!(line)));
    }
    out.json(&kind("summary", summary_json(audit)));
    if !audit.book.entries.is_empty() {
        out.lines(&rows(&audit.book.entries, audit.at));
        out.line("");
    }
    for line in &audit.book.others {
        out.line(&other(line));
    }
    out.line(&summary(audit));
    if !audit.book.entries.is_empty() {
        out.line("A sentence for each word of the last column is in --html, --csv and --json.");
    }
}

/// The same object, with its kind before everything else.
fn kind(kind: &str, value: Value) -> Value {
    let mut all = serde_json::Map::from_iter([("kind".to_owned(), json!(kind))]);
    if let Value::Object(fields) = value {
        all.extend(fields);
    }
    Value::Object(all)
}

fn summary_json(audit: &Audit) -> Value {
    let counts = Counts::of(&audit.book.entries);
    let report = match &audit.source {
        Source::Report(at) => Some(at),
        Source::Lists(_) => None,
    };
    json!({
        "account": audit.account,
        "regions": audit.regions,
        "at": audit.at,
        "report": report,
        "users": audit.users,
        "keys": counts.keys,
        "active": counts.active,
        "over_age": counts.over_age,
        "unused": counts.unused,
        "managed": counts.managed,
        "rotate": counts.rotate,
        "terraform": counts.terraform,
        "unread": audit.book.unread,
        "complete": audit.book.unread.is_empty(),
    })
}

/// The numbers in a sentence.
pub(super) fn summary(audit: &Audit) -> String {
    let Counts { keys, active, over_age, unused, managed, rotate, .. } = Counts::of(&audit.book.entries);
    format!(
        "{keys} keys of {} users, {active} Active: {over_age} past their age, {unused} unused, {managed} managed, of which {rotate} would be rotated.",
        audit.users
    )
}

/// What concerns no key, in a line.
pub(super) fn other(line: &Line) -> String {
    let whom = if line.user.is_empty() { String::new() } else { format!("{}: ", line.user) };
    format!("{whom}{} ({})", line.why, line.code)
}

fn rows(entries: &[Entry], now: Timestamp) -> Vec<String> {
    let head = ["USER", "KEY", "STATE", "AGE", "LAST USE", "SLOTS", "MANAGED", "TERRAFORM", "WOULD", "WHY"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(entries.iter().map(|entry| {
        vec![
            entry.user.clone(),
            key(entry),
            state(entry).to_owned(),
            age(entry),
            last_use(entry.last_use.as_ref(), now),
            format!("{}/2", entry.slots),
            managed(entry.managed).to_owned(),
            terraform(entry),
            would(entry.would).to_owned(),
            codes(entry),
        ]
    }));
    table(&rows)
}

/// The key's id.
pub(super) fn key(entry: &Entry) -> String {
    entry.key_id.as_ref().map_or_else(|| "not listed".to_owned(), ToString::to_string)
}

/// Whether IAM accepts it.
pub(super) const fn state(entry: &Entry) -> &'static str {
    if entry.active { "Active" } else { "Inactive" }
}

/// Its age.
pub(super) fn age(entry: &Entry) -> String {
    entry.age_days.map_or_else(|| "unknown".to_owned(), |days| format!("{days} d"))
}

/// Whether its user is managed, in a word.
pub(super) const fn managed(managed: Managed) -> &'static str {
    match managed {
        Managed::Yes => "yes",
        Managed::Half => "half",
        Managed::No => "no",
        Managed::Unknown => "unknown",
    }
}

/// What Keywheel would do, in a word.
pub(super) const fn would(would: Would) -> &'static str {
    match would {
        Would::Rotate => "rotate",
        Would::Leave => "leave",
    }
}

/// Signs of Terraform, none of which is proof.
fn terraform(entry: &Entry) -> String {
    match &entry.terraform[..] {
        [] => String::new(),
        [sign] => format!("maybe ({sign})"),
        [sign, more @ ..] => format!("maybe ({sign} and {} more)", more.len()),
    }
}

/// The plan's word and what was found, in one word each: the sentences are in the other forms.
fn codes(entry: &Entry) -> String {
    let found = entry.findings.iter().map(|finding| finding.code);
    std::iter::once(entry.code).chain(found).collect::<Vec<_>>().join(", ")
}

/// The last use in words. That none is recorded is no proof that there was none.
pub(super) fn last_use(last: Option<&LastUse>, now: Timestamp) -> String {
    let Some(last) = last else { return "not known".into() };
    let Some(at) = last.at else { return "none recorded".into() };
    let days = time::between(at, now).as_secs() / 86_400;
    let ago = if days == 0 { "today".to_owned() } else { format!("{days} d ago") };
    let by = [last.service.as_deref(), last.region.as_deref()].into_iter().flatten();
    let by = by.collect::<Vec<_>>().join(" in ");
    if by.is_empty() { ago } else { format!("{ago}, {by}") }
}

/// One field of comma-separated values, as RFC 4180 has it.
pub(super) fn field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

/// The audit as comma-separated values, with a head. What concerns no key is not in it.
pub(super) fn csv(audit: &Audit) -> String {
    let head = [
        "account",
        "user",
        "path",
        "key_id",
        "state",
        "created",
        "age_days",
        "last_use_known",
        "last_used",
        "last_service",
        "last_region",
        "slots",
        "managed",
        "secret",
        "owner",
        "terraform",
        "would",
        "code",
        "why",
        "findings",
    ];
    let mut text = format!("{}\n", head.join(","));
    for entry in &audit.book.entries {
        let last = entry.last_use.as_ref();
        let time = |at: Option<Timestamp>| at.map_or_else(String::new, |at| at.to_string());
        let word = |word: Option<&String>| word.cloned().unwrap_or_default();
        let findings: Vec<&str> = entry.findings.iter().map(|finding| finding.why.as_str()).collect();
        let fields = [
            entry.account.clone(),
            entry.user.clone(),
            entry.path.clone(),
            entry.key_id.as_ref().map_or_else(String::new, ToString::to_string),
            state(entry).to_owned(),
            time(entry.created),
            entry.age_days.map_or_else(String::new, |days| days.to_string()),
            last.is_some().to_string(),
            time(last.and_then(|last| last.at)),
            word(last.and_then(|last| last.service.as_ref())),
            word(last.and_then(|last| last.region.as_ref())),
            entry.slots.to_string(),
            managed(entry.managed).to_owned(),
            entry.secret.clone().unwrap_or_default(),
            entry.owner.clone().unwrap_or_default(),
            entry.terraform.join("; "),
            would(entry.would).to_owned(),
            entry.code.to_owned(),
            entry.why.clone(),
            findings.join(" "),
        ];
        let fields: Vec<String> = fields.iter().map(|text| field(&tame(text))).collect();
        text.push_str(&fields.join(","));
        text.push('\n');
    }
    text
}

/// Text that a spreadsheet would take for a formula, as text: people write tags and names.
fn tame(text: &str) -> String {
    let quote = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { "'" } else { "" };
    format!("{quote}{text}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::samples::{audit, entry, now};
    use keywheel::fleet::audit::Finding;

    fn mixed() -> Audit {
        let mut due = entry("svc-mail", Some(120));
        due.managed = Managed::Yes;
        due.would = Would::Rotate;
        due.code = "Due";
        due.terraform = vec!["user tag ManagedBy=Terraform".into(), "path /terraform/".into()];
        let mut lonely = entry("svc-old", Some(1000));
        lonely.last_use = Some(LastUse { at: None, service: None, region: None });
        lonely.findings = vec![
            Finding { code: "OverAge", why: "A key of it is 1000 days old.".into() },
            Finding { code: "Unused", why: "It has never been used.".into() },
        ];
        let mut dark = entry("dark", None);
        (dark.key_id, dark.last_use, dark.active, dark.slots) = (None, None, false, 2);
        audit(vec![lonely, due, dark])
    }

    #[test]
    fn the_table_has_a_line_for_each_key_and_tells_unknown_from_none() {
        let audit = mixed();
        let lines = rows(&audit.book.entries, now());
        assert_eq!(
            lines,
            [
                "USER      KEY                   STATE     AGE      LAST USE       SLOTS  MANAGED  TERRAFORM                                        WOULD   WHY",
                "svc-old   AKIAIOSFODNN7EXAMPLE  Active    1000 d   none recorded  1/2    no                                                        leave   NotManaged, OverAge, Unused",
                "svc-mail  AKIAIOSFODNN7EXAMPLE  Active    120 d    2 d ago, s3    1/2    yes      maybe (user tag ManagedBy=Terraform and 1 more)  rotate  Due",
                "dark      not listed            Inactive  unknown  not known      2/2    no                                                        leave   NotManaged",
            ]
        );
        assert_eq!(
            summary(&audit),
            "3 keys of 3 users, 2 Active: 2 past their age, 1 unused, 1 managed, of which 1 would be rotated."
        );
    }

    #[test]
    fn a_use_is_told_with_where_and_for_what() {
        let used = |at: Timestamp, service: Option<&str>, region: Option<&str>| {
            let (service, region) = (service.map(str::to_owned), region.map(str::to_owned));
            last_use(Some(&LastUse { at: Some(at), service, region }), now())
        };
        assert_eq!(used(now(), Some("s3"), Some("eu-west-1")), "today, s3 in eu-west-1");
        assert_eq!(used(now(), None, None), "today");
        assert_eq!(last_use(None, now()), "not known");
    }

    #[test]
    fn each_line_of_json_has_its_kind_and_the_last_counts() {
        let audit = mixed();
        let line = kind("key", json!(audit.book.entries[1]));
        assert_eq!(
            (&line["kind"], &line["would"], &line["managed"]),
            (&json!("key"), &json!("rotate"), &json!("yes"))
        );
        assert_eq!(line["last_use"]["service"], "s3");
        let summary = summary_json(&audit);
        assert_eq!(
            (&summary["keys"], &summary["terraform"], &summary["complete"]),
            (&json!(3), &json!(1), &json!(true))
        );
    }

    #[test]
    fn values_are_quoted_and_no_formula_comes_from_a_tag() {
        let mut odd = entry("=a,b", Some(1));
        odd.owner = Some("+mail \"x\"\nnext".into());
        let text = csv(&audit(vec![odd]));
        assert!(text.starts_with("account,user,path,key_id,state,created,age_days,"), "{text}");
        assert!(text.contains("111122223333,\"'=a,b\",/,AKIA"), "{text}");
        assert!(text.contains(",\"'+mail \"\"x\"\"\nnext\","), "{text}");
        assert_eq!(text.lines().next().unwrap().split(',').count(), 20);
    }
}
