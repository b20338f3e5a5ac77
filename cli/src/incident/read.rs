//! What Step Functions and the parameter store know of incidents.
//!
//! An execution is forgotten after 90 days, and a record is written only once a key is contained: each is read, and
//! either may be all there is.

use aws_sdk_sfn::types::ExecutionStatus;
use keywheel::incident::Record;
use keywheel::rotation::Caught;
use keywheel::{AccessKeyId, Incident, RunId, StepError};
use tokio::task::JoinSet;

use crate::error::{Result, Trouble};
use crate::place::{Place, execution_of};
use crate::run;

/// How many executions are read at the same time.
const AT_ONCE: usize = 8;
/// How many parameters one call takes.
const NAMES: usize = 10;

/// An incident's execution, as far as it could be read.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// The execution's name.
    pub(crate) id: String,
    pub(crate) status: ExecutionStatus,
    /// The document as it was last seen.
    pub(crate) document: Option<Incident>,
    /// What Step Functions says of a failure.
    pub(crate) failure: Option<Caught>,
}

impl Seen {
    /// Whether the machine is at work or waits.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self.status, ExecutionStatus::Running | ExecutionStatus::PendingRedrive)
    }

    /// Whether it is about this credential.
    pub(crate) fn is_about(&self, key: &AccessKeyId) -> bool {
        self.document
            .as_ref()
            .is_some_and(|doc| doc.target.key_id.as_ref() == Some(key) || doc.keys.contains(key))
    }
}

/// The ARN of an incident's execution.
pub(crate) fn execution(place: &Place, id: &str) -> String {
    execution_of(&place.incidents(), id)
}

/// Reads an incident's execution, or `None` where there is none of that name.
pub(crate) async fn incident(place: &Place, id: &str) -> Result<Option<Seen>> {
    let reply = match place.sfn().describe_execution().execution_arn(execution(place, id)).send().await {
        Ok(reply) => reply,
        Err(error) => {
            let error = StepError::from_sdk("states:DescribeExecution", &error);
            return if error.is_refused(&["ExecutionDoesNotExist"]) { Ok(None) } else { Err(error.into()) };
        }
    };
    let mut known = reply.output().and_then(document);
    if known.is_none() {
        (_, known) = run::last(place, execution(place, id), document).await?;
    }
    let document = known.or_else(|| reply.input().and_then(document));
    let failure = reply
        .error()
        .map(|error| Caught { error: error.to_owned(), cause: reply.cause().unwrap_or_default().to_owned() });
    Ok(Some(Seen { id: id.to_owned(), status: reply.status().clone(), document, failure }))
}

fn document(text: &str) -> Option<Incident> {
    let mut document: Incident = serde_json::from_str(text).ok()?;
    // Branches that ran beside each other are not taken in until the next step runs.
    document.merge();
    Some(document)
}

/// All incidents whose machine runs.
pub(crate) async fn running(place: &Place) -> Result<Vec<Seen>> {
    let machine = place.incidents();
    let call = place.sfn().list_executions().state_machine_arn(&machine);
    let mut pages = call.status_filter(ExecutionStatus::Running).into_paginator().send();
    let mut ids = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| {
            let error = StepError::from_sdk("states:ListExecutions", &error);
            if error.is_refused(&["StateMachineDoesNotExist"]) {
                run::no_machine(place, &machine)
            } else {
                error.into()
            }
        })?;
        ids.extend(page.executions().iter().map(|row| row.name().to_owned()));
    }
    let mut waiting = ids.into_iter();
    let (mut calls, mut seen) = (JoinSet::new(), Vec::new());
    loop {
        while calls.len() < AT_ONCE
            && let Some(id) = waiting.next()
        {
            let place = place.clone();
            calls.spawn(async move { incident(&place, &id).await });
        }
        match calls.join_next().await {
            None => return Ok(seen),
            Some(Ok(found)) => seen.extend(found?),
            Some(Err(error)) => return Err(Trouble::new(format!("A look-up broke off: {error}."), "")),
        }
    }
}

/// All records, and the names of those that cannot be understood.
pub(crate) async fn records(place: &Place) -> Result<(Vec<Record>, Vec<String>)> {
    let path = Record::parameters(&place.stage);
    let call = place.ssm().get_parameters_by_path().path(path.trim_end_matches('/'));
    let mut pages = call.into_paginator().send();
    let (mut records, mut odd) = (Vec::new(), Vec::new());
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| StepError::from_sdk("ssm:GetParametersByPath", &error))?;
        for parameter in page.parameters() {
            match serde_json::from_str(parameter.value().unwrap_or_default()) {
                Ok(record) => records.push(record),
                Err(_) => odd.push(parameter.name().unwrap_or_default().to_owned()),
            }
        }
    }
    Ok((records, odd))
}

/// The records of these keys. One that cannot be understood is as good as none, and is named.
pub(crate) async fn records_of(place: &Place, keys: &[AccessKeyId]) -> Result<(Vec<Record>, Vec<String>)> {
    let (mut records, mut odd) = (Vec::new(), Vec::new());
    for some in keys.chunks(NAMES) {
        let names = some.iter().map(|key| Record::parameter(&place.stage, key)).collect();
        let reply = place.ssm().get_parameters().set_names(Some(names)).send().await;
        let reply = reply.map_err(|error| StepError::from_sdk("ssm:GetParameters", &error))?;
        for parameter in reply.parameters() {
            match serde_json::from_str(parameter.value().unwrap_or_default()) {
                Ok(record) => records.push(record),
                Err(_) => odd.push(parameter.name().unwrap_or_default().to_owned()),
            }
        }
    }
    Ok((records, odd))
}

/// What somebody gave as an incident.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Typed {
    Incident(RunId),
    Key(AccessKeyId),
}

/// Reads an incident's id or a key's.
pub(crate) fn typed(typed: &str) -> Result<Typed> {
    let text = typed.trim();
    if let Ok(id) = text.to_lowercase().parse() {
        return Ok(Typed::Incident(id));
    }
    let upper = text.to_uppercase();
    match upper.parse() {
        Ok(key) if upper.starts_with("AKIA") || upper.starts_with("ASIA") => Ok(Typed::Key(key)),
        // It may be the other half of the pair, pasted by mistake: it is not repeated.
        _ => Err(Trouble::new(
            "What was given names no incident: its id is a UUID, and a key's id looks like AKIAIOSFODNN7EXAMPLE.",
            "`keywheel incident` lists them.",
        )),
    }
}

/// An incident, with all that is known of it.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    /// The keys that were meant: all of an incident, or one that was found to be part of it.
    pub(crate) keys: Vec<AccessKeyId>,
    /// The execution that tells the most.
    pub(crate) seen: Option<Seen>,
    /// The executions about these keys that run.
    pub(crate) running: Vec<Seen>,
    /// What is kept of the keys.
    pub(crate) records: Vec<Record>,
    /// Records that cannot be understood.
    pub(crate) odd: Vec<String>,
}

impl Subject {
    /// The document, where it could be read.
    pub(crate) fn document(&self) -> Option<&Incident> {
        self.seen.as_ref().and_then(|seen| seen.document.as_ref())
    }

    /// The record of a key.
    pub(crate) fn record(&self, key: &AccessKeyId) -> Option<&Record> {
        self.records.iter().find(|record| record.key == *key)
    }

    /// The incident's id.
    pub(crate) fn id(&self) -> Option<String> {
        let seen = self.seen.as_ref().map(|seen| seen.id.clone());
        seen.or_else(|| self.records.first().map(|record| record.incident.to_string()))
    }

    /// The account of the credential, where it is another one than the installation's.
    pub(crate) fn account(&self) -> Option<&str> {
        let doc = self.document().and_then(|doc| doc.account.as_deref());
        doc.or_else(|| self.records.iter().find_map(|record| record.account.as_deref()))
    }

    /// Whether the incident as a whole was meant, and not a key that was found to be part of it.
    pub(crate) fn is_whole(&self) -> bool {
        let first = self.document().and_then(|doc| doc.target.key_id.as_ref());
        first.is_none_or(|first| self.keys.contains(first))
    }

    /// Whether nothing at all is known of it.
    pub(crate) fn is_unknown(&self) -> bool {
        self.seen.is_none() && self.records.is_empty()
    }
}

/// Finds the incident that was meant. Of a key, the newest whose machine runs, else the one on record.
pub(crate) async fn subject(place: &Place, typed: &Typed) -> Result<Subject> {
    let running = running(place).await?;
    match typed {
        Typed::Key(key) => {
            let mut running: Vec<Seen> = running.into_iter().filter(|seen| seen.is_about(key)).collect();
            running.sort_by_key(|seen| seen.document.as_ref().map(|doc| doc.started));
            let (records, odd) = records_of(place, std::slice::from_ref(key)).await?;
            let seen = match (running.last(), records.first()) {
                (Some(seen), _) => Some(seen.clone()),
                (None, Some(record)) => incident(place, &record.incident.to_string()).await?,
                (None, None) => None,
            };
            let mut keys = vec![key.clone()];
            let doc = seen.as_ref().and_then(|seen| seen.document.as_ref());
            // What was found later is part of the leak of this one; it is not so the other way round.
            if let Some(doc) = doc.filter(|doc| doc.target.key_id.as_ref() == Some(key)) {
                keys.extend(doc.keys.iter().filter(|other| *other != key).cloned());
            }
            let (records, odd) =
                if keys.len() > 1 { records_of(place, &keys).await? } else { (records, odd) };
            Ok(Subject { keys, seen, running, records, odd })
        }
        Typed::Incident(id) => {
            let seen = incident(place, &id.to_string()).await?;
            let mut keys: Vec<AccessKeyId> = Vec::new();
            if let Some(doc) = seen.as_ref().and_then(|seen| seen.document.as_ref()) {
                keys.extend(doc.target.key_id.clone());
                keys.extend(doc.keys.iter().filter(|key| doc.target.key_id.as_ref() != Some(*key)).cloned());
            }
            let (records, odd) = if keys.is_empty() {
                let (mut records, odd) = records(place).await?;
                records.retain(|record| record.incident == *id);
                keys.extend(records.iter().map(|record| record.key.clone()));
                (records, odd)
            } else {
                records_of(place, &keys).await?
            };
            let id = id.to_string();
            let about = |seen: &Seen| seen.id == id || keys.iter().any(|key| seen.is_about(key));
            let running = running.into_iter().filter(about).collect();
            Ok(Subject { keys, seen, running, records, odd })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incident_is_named_by_its_id_or_a_key() {
        let id = "0b5b3c52-6d3e-4b6e-9d5c-0d9f5a3a7f10";
        assert_eq!(typed(&format!(" {} ", id.to_uppercase())), Ok(Typed::Incident(id.parse().unwrap())));
        assert_eq!(typed("akiaiosfodnn7example"), Ok(Typed::Key("AKIAIOSFODNN7EXAMPLE".parse().unwrap())));
        assert!(matches!(typed("ASIAIOSFODNN7EXAMPLE"), Ok(Typed::Key(_))));
    }

    #[test]
    fn what_names_nothing_is_not_repeated() {
        for wrong in ["", "svc-mail", "x".repeat(40).as_str(), "0b5b3c52-6d3e", "AKIA"] {
            let trouble = typed(wrong).unwrap_err();
            assert!(trouble.text.contains("names no incident") && !trouble.text.contains("xxx"), "{trouble}");
        }
    }
}
