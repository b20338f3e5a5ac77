//! What Step Functions knows of campaigns.

use aws_sdk_sfn::types::ExecutionStatus;
use jiff::Timestamp;
use keywheel::campaign::{Campaign, Outcome, Request};
use keywheel::rotation::Caught;
use keywheel::{RunId, StepError};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::error::{Exit, Result, Trouble};
use crate::place::{Place, execution_of};
use crate::run;

/// How many campaigns are read at the same time.
const AT_ONCE: usize = 8;
/// The longest name that an execution can have.
const LONGEST: usize = 80;

/// A campaign's execution, as far as it could be read.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// The execution's name.
    pub(crate) id: String,
    pub(crate) status: ExecutionStatus,
    pub(crate) started: Timestamp,
    pub(crate) stopped: Option<Timestamp>,
    /// What was asked, where the input is a request of this release.
    pub(crate) request: Option<Request>,
    /// The machine's state and when it was entered; not read of a campaign that has succeeded.
    pub(crate) state: Option<(String, Timestamp)>,
    /// The document as it was last seen.
    pub(crate) document: Option<Campaign>,
    /// What is known of a failure.
    pub(crate) failure: Option<Caught>,
}

impl Seen {
    /// The outcome, which is final though the machine may still be sending its last notice.
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        self.document.as_ref().and_then(|doc| doc.outcome)
    }

    /// Whether it may still start rotations.
    pub(crate) fn is_under_way(&self) -> bool {
        let runs = matches!(self.status, ExecutionStatus::Running | ExecutionStatus::PendingRedrive);
        runs && self.outcome().is_none()
    }

    /// The word for how it ended, or that it runs.
    pub(crate) fn word(&self) -> &'static str {
        match self.outcome() {
            Some(outcome) => outcome.name(),
            None => self.status_word(),
        }
    }

    /// Step Functions' word.
    pub(crate) fn status_word(&self) -> &'static str {
        match self.status {
            ExecutionStatus::Running | ExecutionStatus::PendingRedrive => "Running",
            ExecutionStatus::Succeeded => "Succeeded",
            ExecutionStatus::Aborted => "Aborted",
            ExecutionStatus::TimedOut => "TimedOut",
            _ => "Failed",
        }
    }

    /// The exit code for it, once it has ended.
    pub(crate) fn exit(&self) -> Exit {
        match self.outcome() {
            Some(outcome) => Exit::of_campaign(outcome),
            None if self.is_under_way() => Exit::Done,
            None => Exit::Failed,
        }
    }

    /// All of it for programs.
    pub(crate) fn json(&self) -> Value {
        let doc = self.document.as_ref();
        let done = doc.map(Campaign::done);
        let failure = |caught: &Caught| json!({ "error": caught.error, "cause": caught.message() });
        let failure = self.failure.as_ref().map(failure);
        json!({
            "campaign": self.id,
            "status": self.status.as_str(),
            "outcome": self.outcome(),
            "why": doc.and_then(|doc| doc.why.as_ref()),
            "started": self.started,
            "stopped": self.stopped,
            "state": self.state.as_ref().map(|(name, _)| name),
            "phase": doc.map(|doc| doc.phase),
            "request": self.request,
            "policy_version": doc.and_then(|doc| doc.policy_version.as_ref()),
            "tolerance": doc.map(|doc| doc.tolerance),
            "counts": doc.map(|doc| &doc.counts),
            "keys": doc.map(Campaign::keys),
            "promoted": done.map(|(promoted, _)| promoted),
            "failed": done.map(|(_, failed)| failed),
            "waves": doc.map(|doc| &doc.waves),
            "batch": doc.and_then(|doc| doc.batch.as_ref()),
            "failures": doc.map(|doc| &doc.failed),
            "plan": doc.map(|doc| format!("s3://{}/{}", doc.bucket, doc.plan())),
            "failure": failure,
            "exit_code": (!self.is_under_way()).then(|| self.exit().code()),
        })
    }
}

/// What a state of the machine was given or gave.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Known {
    Document(Box<Campaign>),
    /// No document yet: the error that kept the first step from making one.
    Caught(Caught),
}

fn known(text: &str) -> Option<Known> {
    if let Some(doc) = document(text) {
        return Some(Known::Document(Box::new(doc)));
    }
    let given: Value = serde_json::from_str(text).ok()?;
    serde_json::from_value(given.get("error")?.clone()).ok().map(Known::Caught)
}

fn document(text: &str) -> Option<Campaign> {
    serde_json::from_str(text).ok()
}

/// Reads a campaign, or `None` where there is no execution of that name.
pub(crate) async fn campaign(place: &Place, id: &str) -> Result<Option<Seen>> {
    let execution = execution_of(&place.fleet, id);
    let reply = match place.sfn().describe_execution().execution_arn(&execution).send().await {
        Ok(reply) => reply,
        Err(error) => {
            let error = StepError::from_sdk("states:DescribeExecution", &error);
            return if error.is_refused(&["ExecutionDoesNotExist"]) { Ok(None) } else { Err(error.into()) };
        }
    };
    let mut seen = Seen {
        id: id.to_owned(),
        status: reply.status().clone(),
        started: facts::timestamp(reply.start_date()).unwrap_or_default(),
        stopped: reply.stop_date().and_then(facts::timestamp),
        request: reply.input().and_then(|input| serde_json::from_str(input).ok()),
        state: None,
        document: reply.output().and_then(document),
        failure: reply.error().map(|error| Caught {
            error: error.to_owned(),
            cause: reply.cause().unwrap_or_default().to_owned(),
        }),
    };
    if seen.document.is_none() {
        let (state, last) = run::last(place, execution, known).await?;
        seen.state = state;
        match last {
            Some(Known::Document(doc)) => seen.document = Some(*doc),
            // The machine's own words send whoever reads them to this one.
            Some(Known::Caught(caught)) => seen.failure = Some(caught),
            None => {}
        }
    }
    Ok(Some(seen))
}

/// The names of the newest executions, at most so many, and whether there are more.
async fn names(
    place: &Place,
    status: Option<ExecutionStatus>,
    most: usize,
) -> std::result::Result<(Vec<String>, bool), StepError> {
    let call = place.sfn().list_executions().state_machine_arn(&place.fleet);
    let mut pages = call.set_status_filter(status).into_paginator().send();
    let mut names = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| StepError::from_sdk("states:ListExecutions", &error))?;
        names.extend(page.executions().iter().map(|row| row.name().to_owned()));
        if names.len() > most {
            names.truncate(most);
            return Ok((names, true));
        }
    }
    Ok((names, false))
}

fn listing_failed(place: &Place, error: StepError) -> Trouble {
    if error.is_refused(&["StateMachineDoesNotExist"]) {
        run::no_machine(place, &place.fleet)
    } else {
        error.into()
    }
}

/// Reads many campaigns, a few at a time: those that run first, then the newest.
async fn all(place: &Place, names: Vec<String>) -> Result<Vec<Seen>> {
    let mut waiting = names.into_iter();
    let (mut calls, mut seen) = (JoinSet::new(), Vec::new());
    loop {
        while calls.len() < AT_ONCE
            && let Some(name) = waiting.next()
        {
            let place = place.clone();
            calls.spawn(async move { campaign(&place, &name).await });
        }
        match calls.join_next().await {
            None => break,
            Some(Ok(found)) => seen.extend(found?),
            Some(Err(error)) => return Err(Trouble::new(format!("A look-up broke off: {error}."), "")),
        }
    }
    order(&mut seen);
    Ok(seen)
}

fn order(seen: &mut [Seen]) {
    seen.sort_by(|a, b| {
        let running = b.is_under_way().cmp(&a.is_under_way());
        running.then_with(|| b.started.cmp(&a.started)).then_with(|| a.id.cmp(&b.id))
    });
}

/// The campaigns that run.
pub(crate) async fn running(place: &Place) -> Result<Vec<Seen>> {
    let (names, _) = names(place, Some(ExecutionStatus::Running), usize::MAX)
        .await
        .map_err(|error| listing_failed(place, error))?;
    let mut seen = all(place, names).await?;
    seen.retain(Seen::is_under_way);
    Ok(seen)
}

/// The newest campaigns, and those that run however old they are; and whether there are more.
pub(crate) async fn newest(place: &Place, most: usize) -> Result<(Vec<Seen>, bool)> {
    let failed = |error| listing_failed(place, error);
    let (mut wanted, _) = names(place, Some(ExecutionStatus::Running), usize::MAX).await.map_err(failed)?;
    let (newest, more) = names(place, None, most).await.map_err(failed)?;
    for name in newest {
        if !wanted.contains(&name) {
            wanted.push(name);
        }
    }
    Ok((all(place, wanted).await?, more))
}

/// The campaign that runs, else the last one; `None` where there never was one, or no machine for it.
pub(super) async fn latest(place: &Place) -> Result<Option<Seen>> {
    match first(place, Some(ExecutionStatus::Running)).await? {
        Some(seen) if seen.is_under_way() => Ok(Some(seen)),
        _ => first(place, None).await,
    }
}

async fn first(place: &Place, status: Option<ExecutionStatus>) -> Result<Option<Seen>> {
    match names(place, status, 1).await {
        Ok((names, _)) => Ok(all(place, names).await?.into_iter().next()),
        Err(error) if error.is_refused(&["StateMachineDoesNotExist"]) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The campaign that somebody has named.
pub(crate) async fn named(place: &Place, typed: &str) -> Result<Seen> {
    let name = name(&place.fleet, typed)?;
    if let Some(seen) = campaign(place, &name).await? {
        return Ok(seen);
    }
    // The schedule names its executions as it likes, and their notices carry another id.
    if let Ok(id) = name.parse::<RunId>() {
        let (all, _) = names(place, None, usize::MAX).await.map_err(|error| listing_failed(place, error))?;
        for other in all.iter().filter(|other| other.parse::<RunId>().is_err()) {
            let seen = campaign(place, other).await?;
            let told = |seen: &Seen| seen.document.as_ref().is_some_and(|doc| doc.campaign == id);
            if let Some(seen) = seen.filter(told) {
                return Ok(seen);
            }
        }
    }
    Err(Trouble::new(
        format!("There is no campaign {name} in {} of account {}.", place.region, place.account),
        "`keywheel fleet status` lists them; Step Functions forgets one after 90 days.",
    ))
}

/// The execution's name, from an id or an ARN as somebody typed it.
fn name(machine: &str, typed: &str) -> Result<String> {
    let text = typed.trim();
    let own = execution_of(machine, "");
    let name = text.strip_prefix(own.as_str()).unwrap_or(text);
    // A UUID has one spelling here.
    let lower = name.to_lowercase();
    let name = if lower.parse::<RunId>().is_ok() { lower.as_str() } else { name };
    let odd = |letter: char| letter.is_whitespace() || letter.is_control() || ":/*?".contains(letter);
    if name.is_empty() || name.len() > LONGEST || name.contains(odd) {
        return Err(Trouble::new(
            "What was given is not the id of a campaign.",
            "`keywheel fleet status` lists them with their ids.",
        ));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests;
