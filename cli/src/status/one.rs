//! The status of one user.

use jiff::Timestamp;
use keywheel::key::{KeyFacts, LastUse};
use keywheel::{AccessKeyId, Outcome};
use serde_json::{Value, json};

use super::{leaked, merged};
use crate::error::{Exit, Result};
use crate::find::{self, Found};
use crate::incident::read;
use crate::keys::{self, KeyRow};
use crate::managed::{self, Managed};
use crate::output::{Out, table};
use crate::place::Place;
use crate::run::{End, Run};
use crate::story::{self, Story};
use crate::{ruler, time};

/// Shows it. What could not be read is said, and makes the exit code 1.
pub(super) async fn show(place: &Place, out: &Out, head: &Value, typed: &str) -> Result<Exit> {
    let managed = managed::by_user(place, typed).await?;
    let (keys, mut remarks) = keys::all(place, &managed).await?;
    let (found, mut exit) = match find::of(place, &managed.secret).await {
        Ok(found) => (found, Exit::Done),
        Err(trouble) => {
            remarks.push(format!("The runs could not be read: {trouble}"));
            (Found::default(), Exit::Refused)
        }
    };
    let runs_read = exit == Exit::Done;
    let ids: Vec<AccessKeyId> = keys.iter().map(|row| row.key.id.clone()).collect();
    let records = match read::records_of(place, &ids).await {
        Ok((records, odd)) => {
            remarks.extend(odd.iter().map(|name| format!("The record {name} cannot be understood.")));
            records
        }
        Err(trouble) => {
            remarks.push(format!("Whether a key has leaked could not be read: {trouble}"));
            exit = Exit::Refused;
            Vec::new()
        }
    };
    if found.partial {
        remarks.push("There are many runs, and not all of them were looked through for a later one.".into());
    }
    let now = Timestamp::now();
    let listed: Vec<KeyFacts> = keys.iter().map(|row| row.key.clone()).collect();
    let leaked = leaked::of(&records, &listed, now);
    let told = found.run.as_ref().map(|run| (run, story::tell(run, managed.name())));
    let attempt = found.attempt.as_ref().map(|run| (run, story::tell(run, managed.name())));
    if out.is_json() {
        let body = json!({
            "user": managed.name(),
            "user_arn": managed.user.facts.arn,
            "secret": managed.secret.arn,
            "retire": managed.user.retire,
            "keep": managed.user.keep,
            "run": told.as_ref().map(|(run, story)| story::json(run, story)),
            "blocked_later": attempt.as_ref().map(|(run, story)| story::json(run, story)),
            "keys": keys.iter().map(key_json).collect::<Vec<_>>(),
            "leaked": leaked,
            "remarks": remarks,
        });
        out.json(&merged(head, body));
        return Ok(exit);
    }
    let mut lines = who(&managed);
    lines.extend(leaked.iter().map(|record| format!("Leaked  {}", leaked::words(record, &listed, now))));
    match &told {
        Some((run, story)) => lines.extend(what(run, story, now)),
        None if runs_read => {
            lines.push(format!("Run     none known; `keywheel rotate --user {}` starts one", managed.name()));
        }
        None => {}
    }
    if let Some((run, story)) = &attempt {
        lines.push(format!(
            "Later   run {} was Blocked {}: {}",
            run.id,
            time::at_and_away(story.since, now),
            story.what
        ));
        lines.extend((!story.todo.is_empty()).then(|| format!("        {}", story.todo)));
    }
    let open = told.as_ref().map(|(run, _)| *run).filter(|run| is_open(run));
    if let Some((run, document)) = open.and_then(|run| Some((run, run.document.as_ref()?))) {
        let drawn = ruler::draw(document, now, !run.is_under_way(), out.unicode());
        if !drawn.is_empty() {
            lines.push(String::new());
            lines.extend(drawn);
        }
        let late = document.gate.as_ref().map_or_else(Vec::new, |gate| story::callers(&gate.callers));
        if !late.is_empty() {
            lines.push(String::new());
            lines.push("Seen with the old key:".into());
            lines.extend(table(&late).into_iter().map(|line| format!("  {line}")));
        }
    }
    lines.push(String::new());
    lines.extend(table(&key_rows(&keys, now)));
    out.lines(&lines);
    out.notes(&remarks);
    Ok(exit)
}

/// Whether there is still something to wait for or to decide, so that times matter.
fn is_open(run: &Run) -> bool {
    matches!(run.end(), None | Some(End::Broken | End::Outcome(Outcome::Held)))
}

fn who(managed: &Managed) -> Vec<String> {
    let (user, secret) = (&managed.user, &managed.secret);
    let mut lines = vec![
        format!("User    {}  ({})", user.facts.name, user.facts.arn),
        format!("Secret  {}  ({})", secret.name, secret.arn),
    ];
    lines.extend(user.retire.as_ref().map(|key| format!("Retire  {key}, by its owner's word")));
    lines.extend(user.keep.as_ref().map(|key| format!("Keep    {key}, by its owner's word")));
    lines
}

fn what(run: &Run, story: &Story, now: Timestamp) -> Vec<String> {
    let state = run
        .state
        .as_ref()
        .filter(|_| run.is_under_way())
        .map_or_else(String::new, |(name, _)| format!(", state {name}"));
    let mut lines = vec![
        format!("Run     {}  {}{state}", run.id, run.word()),
        format!("Where   {} since {}", story.place, time::at_and_away(story.since, now)),
        format!("        {}", story.what),
    ];
    lines.extend(
        story.next.as_ref().map(|(at, what)| format!("Next    {}: {what}", time::at_and_away(*at, now))),
    );
    lines.extend((!story.todo.is_empty()).then(|| format!("To do   {}", story.todo)));
    lines
}

fn key_json(row: &KeyRow) -> Value {
    json!({
        "id": row.key.id,
        "state": row.key.status,
        "label": row.label.to_string(),
        "created": row.key.created,
        "last_use": row.last_use,
        "last_use_read": row.last_use.is_some(),
    })
}

/// The keys as a table with its head.
fn key_rows(keys: &[KeyRow], now: Timestamp) -> Vec<Vec<String>> {
    let head = ["KEY", "STATE", "LABEL", "AGE", "LAST USE"].map(str::to_owned).to_vec();
    let row = |row: &KeyRow| {
        vec![
            row.key.id.to_string(),
            format!("{:?}", row.key.status),
            row.label.to_string(),
            row.key
                .created
                .map_or_else(|| "unknown".into(), |created| time::short(time::between(created, now))),
            last_use(row.last_use.as_ref(), now),
        ]
    };
    std::iter::once(head).chain(keys.iter().map(row)).collect()
}

/// The last use in words. That none is recorded is no proof that there was none.
fn last_use(last: Option<&LastUse>, now: Timestamp) -> String {
    let Some(last) = last else { return "could not be read".into() };
    let Some(ago) = time::ago(last.at, now) else { return "none recorded".into() };
    match (&last.service, &last.region) {
        (Some(service), Some(region)) => format!("{ago}, {service} in {region}"),
        (Some(service), None) => format!("{ago}, {service}"),
        _ => ago,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Label;
    use keywheel::key::KeyStatus;

    #[test]
    fn the_table_tells_unread_from_unused() {
        let now = Timestamp::from_second(90_000).unwrap();
        let row = |last_use| KeyRow {
            key: KeyFacts {
                id: "AKIAIOSFODNN7EXAMPLE".parse().unwrap(),
                status: KeyStatus::Active,
                created: Some(Timestamp::UNIX_EPOCH),
            },
            label: Label::Current,
            last_use,
        };
        let used = |at| LastUse { at, service: Some("s3".into()), region: Some("eu-west-1".into()) };
        let lines = table(&key_rows(&[row(None), row(Some(used(None))), row(Some(used(Some(now))))], now));
        assert_eq!(lines[1], "AKIAIOSFODNN7EXAMPLE  Active  current  1d 1h  could not be read");
        assert!(lines[2].ends_with("none recorded"));
        assert!(lines[3].ends_with("0s ago, s3 in eu-west-1"));
    }
}
