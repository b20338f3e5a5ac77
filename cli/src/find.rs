//! Which run is a user's run.
//!
//! The version that AWSCURRENT or AWSPENDING names carries its run's id, and a run that took over leaves a label
//! with its own. A run that turned back, or was blocked, leaves neither, so executions are looked through as well:
//! all that run, and of those that have ended the ones started later, the latest first, up to a limit that is
//! told when it is reached.

use aws_sdk_sfn::types::ExecutionStatus;
use facts::secrets::{CURRENT, PENDING, Secret};
use jiff::Timestamp;
use keywheel::{RunId, SecretArn, StepError};
use tokio::task::JoinSet;

use crate::error::{Result, Trouble};
use crate::place::Place;
use crate::run::{self, Run};

/// What was found for one secret.
#[derive(Debug, Clone, Default)]
pub(crate) struct Found {
    /// The run that tells where the user is: the one under way, else the last that touched something.
    pub(crate) run: Option<Run>,
    /// A later run that was blocked.
    pub(crate) attempt: Option<Run>,
    /// Whether ended executions were left unread.
    pub(crate) partial: bool,
}

/// How many ended executions are described, at most.
const ENDED: usize = 200;
/// How many descriptions are asked for at the same time.
const AT_ONCE: usize = 8;

/// The user's run with its document.
pub(crate) async fn of(place: &Place, secret: &Secret) -> Result<Found> {
    let running = running(place).await?;
    let mut known = by_version(place, secret).await?;
    known.extend(running.into_iter().filter(|run| run.names(&secret.arn, &secret.name)));
    let mut partial = false;
    if !known.iter().any(|run| run.status == ExecutionStatus::Running) {
        let since = known.iter().map(|run| run.started).max();
        let (later, cut) = ended_since(place, since, Some(secret)).await?;
        known.extend(later);
        partial = cut;
    }
    choose(place, known, partial).await
}

/// The runs that the secret names: by the id of a version, or by the label of one that took over.
pub(crate) async fn by_version(place: &Place, secret: &Secret) -> Result<Vec<Run>> {
    let labelled = [CURRENT, PENDING].iter().filter_map(|label| secret.labelled(label));
    let mut ids: Vec<RunId> = labelled.filter_map(|version| version.as_str().parse().ok()).collect();
    ids.extend(secret.claims().into_iter().map(|(_, run)| run));
    ids.sort_unstable();
    ids.dedup();
    let mut runs = Vec::new();
    for id in ids {
        // Whoever may write a secret may choose its versions' ids and labels.
        if let Some(run) = run::describe(place, &id.to_string()).await?
            && run.names(&secret.arn, &secret.name)
        {
            runs.push(run);
        }
    }
    Ok(runs)
}

/// Picks the run to show, and reads its document.
pub(crate) async fn choose(place: &Place, mut known: Vec<Run>, partial: bool) -> Result<Found> {
    known.sort_by(|a, b| b.started.cmp(&a.started).then_with(|| a.id.cmp(&b.id)));
    known.dedup_by(|a, b| a.id == b.id);
    let mut found = Found { partial, ..Found::default() };
    for mut run in known {
        run::complete(place, &mut run).await?;
        if run.touched_nothing() {
            found.attempt = found.attempt.or(Some(run));
        } else {
            found.run = Some(run);
            break;
        }
    }
    if found.run.is_none() {
        found.run = found.attempt.take();
    }
    Ok(found)
}

/// All executions that run now, described.
pub(crate) async fn running(place: &Place) -> Result<Vec<Run>> {
    let mut pages = place
        .sfn()
        .list_executions()
        .state_machine_arn(&place.machine)
        .status_filter(ExecutionStatus::Running)
        .into_paginator()
        .send();
    let mut ids = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page
            .map_err(|error| listing_failed(place, &StepError::from_sdk("states:ListExecutions", &error)))?;
        ids.extend(page.executions().iter().map(|row| row.name().to_owned()));
    }
    describe_all(place, ids).await
}

/// A run that is at work on a secret. One that has its outcome is not, though it may still be telling people; one
/// whose request cannot be understood may be at work on anything.
pub(crate) async fn at_work(place: &Place, secret: &SecretArn, name: &str) -> Result<Option<Run>> {
    let running = running(place).await?;
    for mut run in running.into_iter().filter(|run| run.request.is_none() || run.names(secret, name)) {
        run::complete(place, &mut run).await?;
        if run.is_under_way() {
            return Ok(Some(run));
        }
    }
    Ok(None)
}

fn listing_failed(place: &Place, error: &StepError) -> Trouble {
    if error.is_refused(&["StateMachineDoesNotExist"]) {
        run::no_machine(place, &place.machine)
    } else {
        error.clone().into()
    }
}

/// Executions started after `since`, the latest first, and whether some were left unread. With a secret, the
/// search ends at the first run of it that touched something.
pub(crate) async fn ended_since(
    place: &Place,
    since: Option<Timestamp>,
    secret: Option<&Secret>,
) -> Result<(Vec<Run>, bool)> {
    let mut pages = place.sfn().list_executions().state_machine_arn(&place.machine).into_paginator().send();
    let (mut runs, mut read) = (Vec::new(), 0);
    while let Some(page) = pages.next().await {
        let page = page
            .map_err(|error| listing_failed(place, &StepError::from_sdk("states:ListExecutions", &error)))?;
        let later = |at: Option<Timestamp>| at.is_none_or(|at| since.is_none_or(|since| at > since));
        let rows = page.executions();
        let ids: Vec<String> = rows
            .iter()
            .filter(|row| later(facts::timestamp(row.start_date())))
            .map(|row| row.name().to_owned())
            .collect();
        let reached = ids.len() < rows.len();
        for some in ids.chunks(AT_ONCE * 2) {
            if read >= ENDED {
                return Ok((runs, true));
            }
            read += some.len();
            let mut described = describe_all(place, some.to_vec()).await?;
            described.retain(|run| secret.is_none_or(|secret| run.names(&secret.arn, &secret.name)));
            runs.extend(described);
            if secret.is_some() && runs.iter().any(|run| !run.touched_nothing()) {
                return Ok((runs, false));
            }
        }
        if reached {
            break;
        }
    }
    Ok((runs, false))
}

/// Describes many executions, a few at a time.
async fn describe_all(place: &Place, ids: Vec<String>) -> Result<Vec<Run>> {
    let mut waiting = ids.into_iter();
    let mut calls = JoinSet::new();
    let mut runs = Vec::new();
    loop {
        while calls.len() < AT_ONCE
            && let Some(id) = waiting.next()
        {
            let place = place.clone();
            calls.spawn(async move { run::describe(&place, &id).await });
        }
        match calls.join_next().await {
            None => return Ok(runs),
            Some(Ok(run)) => runs.extend(run?),
            Some(Err(error)) => return Err(Trouble::new(format!("A look-up broke off: {error}."), "")),
        }
    }
}
