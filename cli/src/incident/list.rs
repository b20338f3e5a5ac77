//! The list of incidents.

use jiff::Timestamp;
use keywheel::Incident;
use keywheel::incident::{Phase, Record, RecordState};
use serde_json::{Value, json};

use super::read::{self, Seen};
use crate::error::{Exit, Result};
use crate::output::{Out, table};
use crate::place::Place;
use crate::time;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    id: String,
    at: Timestamp,
    user: String,
    keys: Vec<String>,
    state: String,
    running: bool,
}

/// Shows all incidents, the newest first. A record that cannot be understood is named, and makes the exit code 1.
pub(super) async fn run(place: &Place, out: &Out) -> Result<Exit> {
    out.note(&place.line());
    let (records, odd) = read::records(place).await?;
    let running = read::running(place).await?;
    let now = Timestamp::now();
    let rows = rows(&records, &running, now);
    if rows.is_empty() {
        out.line("No leaked key is known.");
    }
    let mut lines = vec![["INCIDENT", "KEY", "USER", "SINCE", "STATE"].map(str::to_owned).to_vec()];
    for row in &rows {
        out.json(&json(row));
        lines.push(vec![
            row.id.clone(),
            row.keys.join(" "),
            row.user.clone(),
            time::short(time::between(row.at, now)),
            row.state.clone(),
        ]);
    }
    if !rows.is_empty() {
        out.lines(&table(&lines));
    }
    for name in &odd {
        out.note(&format!("The record {name} cannot be understood."));
    }
    Ok(if odd.is_empty() { Exit::Done } else { Exit::Refused })
}

fn json(row: &Row) -> Value {
    json!({
        "incident": row.id,
        "keys": row.keys,
        "user": row.user,
        "at": row.at,
        "state": row.state,
        "running": row.running,
    })
}

/// Records of one incident are one line, together with its execution where that runs.
fn rows(records: &[Record], running: &[Seen], now: Timestamp) -> Vec<Row> {
    let mut ids: Vec<String> = records.iter().map(|record| record.incident.to_string()).collect();
    ids.extend(running.iter().map(|seen| seen.id.clone()));
    ids.sort_unstable();
    ids.dedup();
    let mut rows: Vec<Row> = ids
        .into_iter()
        .map(|id| {
            let kept: Vec<&Record> =
                records.iter().filter(|record| record.incident.to_string() == id).collect();
            let seen = running.iter().find(|seen| seen.id == id);
            let doc = seen.and_then(|seen| seen.document.as_ref());
            let started = doc.map(|doc| doc.started);
            let mut keys: Vec<String> = kept.iter().map(|record| record.key.to_string()).collect();
            if let Some(doc) = doc.filter(|_| keys.is_empty()) {
                keys.push(doc.credential().to_owned());
            }
            let user = kept.first().map(|record| record.user.to_string());
            Row {
                at: started.or(kept.first().map(|record| record.at)).unwrap_or(now),
                user: user.or(doc.map(|doc| doc.user_name().to_owned())).unwrap_or_default(),
                keys,
                state: word(doc, &kept, now),
                running: seen.is_some(),
                id,
            }
        })
        .collect();
    rows.sort_by(|a, b| b.at.cmp(&a.at).then_with(|| a.id.cmp(&b.id)));
    rows
}

/// Where an incident is. What a person has said counts before what the machine does.
pub(super) fn word(doc: Option<&Incident>, records: &[&Record], now: Timestamp) -> String {
    if let Some(until) =
        records.iter().filter(|record| record.is_cleared(now)).find_map(|record| record.until)
    {
        return format!("false alarm until {}", time::at(until));
    }
    if !records.is_empty() && records.iter().all(|record| record.state == RecordState::Closed) {
        return "closed".to_owned();
    }
    if let Some(outcome) = doc.and_then(|doc| doc.outcome) {
        return outcome.name().to_owned();
    }
    match doc.map(|doc| (doc.phase, doc.contained_at, doc.bound)) {
        Some((Phase::Delayed, _, Some(bound))) => {
            format!("still Active; contained at {}", time::at(bound))
        }
        Some((Phase::ReplaceFirst, _, Some(bound))) => {
            format!("being replaced; contained at {} at the latest", time::at(bound))
        }
        Some((_, None, _)) => "NOT CONTAINED YET".to_owned(),
        Some(_) => "Contained".to_owned(),
        None if records.iter().any(|record| record.state == RecordState::Contained) => "Contained".to_owned(),
        None => "false alarm, whose time has passed".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{KEY, at, document, record, seen};
    use super::*;

    #[test]
    fn records_and_executions_are_joined_and_the_newest_is_first() {
        let doc = document();
        let mut later = doc.clone();
        later.id = "0b5b3c52-6d3e-4b6e-9d5c-0d9f5a3a7f10".parse().unwrap();
        later.started = at("2026-03-05T09:00:00Z");
        let kept = record(RecordState::Contained);
        let rows = rows(&[kept], &[seen(doc.clone()), seen(later.clone())], at("2026-03-06T09:00:00Z"));
        let ids: Vec<&str> = rows.iter().map(|row| row.id.as_str()).collect();
        assert_eq!(ids, [later.id.to_string(), doc.id.to_string()]);
        assert_eq!(
            (rows[1].user.as_str(), rows[1].keys.as_slice()),
            ("svc-mail", [KEY.to_owned()].as_slice())
        );
        assert_eq!(rows[0].state, "NOT CONTAINED YET");
    }

    #[test]
    fn a_persons_word_comes_before_the_machines() {
        let now = at("2026-03-02T10:00:00Z");
        let mut doc = document();
        let word = |doc: &Incident, record: Option<&Record>| {
            super::word(Some(doc), &record.into_iter().collect::<Vec<_>>(), now)
        };
        doc.contained_at = Some(now);
        assert_eq!(word(&doc, Some(&record(RecordState::Contained))), "Contained");
        assert_eq!(word(&doc, Some(&record(RecordState::Closed))), "closed");
        let mut cleared = record(RecordState::Cleared);
        cleared.until = Some(at("2026-03-09T00:00:00Z"));
        assert_eq!(word(&doc, Some(&cleared)), "false alarm until 2026-03-09 00:00:00 UTC");
        cleared.until = Some(now);
        assert_eq!(super::word(None, &[&cleared], now), "false alarm, whose time has passed");
        doc.contained_at = None;
        doc.phase = Phase::Delayed;
        doc.bound = Some(now);
        assert!(word(&doc, None).contains("still Active"));
    }
}
