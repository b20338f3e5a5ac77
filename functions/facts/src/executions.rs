//! What Step Functions knows of runs.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_sdk_sfn::Client;
use aws_sdk_sfn::types::ExecutionStatus;
use jiff::Timestamp;
use keywheel::decide::entry::RunState;
use keywheel::rotation::{Reason, Request, Why};
use keywheel::{Rotation, RunId, SecretArn, StepError, VersionId};

use crate::secrets::{self, Secret};
use crate::timestamp;

/// The ARN of another execution of the machine that `execution` belongs to.
pub fn sibling(execution: &str, run: RunId) -> Option<String> {
    let (machine, _) = execution.rsplit_once(':')?;
    Some(format!("{machine}:{run}"))
}

/// The run among `runs` that is at work on the secret, else one that was, and whether any of them was started
/// because of a leak. A run that is no execution of this machine, or worked on another secret, is not ours:
/// whoever may write a secret may choose the ids and labels of its versions.
///
/// Of a version that was turned back to, the run that did so last tells whether the key beside it had leaked: who wrote
/// the version, or turned back to it before, replaced another key.
pub async fn at_work(
    sfn: &Client,
    execution: &str,
    runs: &[RunId],
    secret: (&SecretArn, &str),
) -> Result<RunState, StepError> {
    // Boxed: the SDK's futures are deep, and the compiler counts their depth.
    Box::pin(all(sfn, execution, runs, secret)).await.map(|all| together(&all))
}

/// What each of these runs is to a secret, in their order.
pub async fn all(
    sfn: &Client,
    execution: &str,
    runs: &[RunId],
    secret: (&SecretArn, &str),
) -> Result<Vec<Known>, StepError> {
    let mut all = Vec::new();
    for run in runs {
        all.push(known(sfn, execution, *run, secret).await?);
    }
    Ok(all)
}

/// What the runs on one version are to its secret together, as [`at_work`] has it.
pub fn together(all: &[Known]) -> RunState {
    let mut found = RunState::NotOurs;
    let mut turned_back: Option<(Timestamp, bool)> = None;
    for Known { state, back, .. } in all {
        if let Some(since) = back.filter(|since| turned_back.is_none_or(|(last, _)| last <= *since)) {
            turned_back = Some((since, state.leaked()));
        }
        found = found.and(*state);
    }
    turned_back.map_or(found, |(_, leaked)| found.knowing(leaked))
}

/// The last of the runs on one version that have ended.
pub fn last_ended(all: &[Known]) -> Option<&Known> {
    let ended = all.iter().filter(|known| known.state.ended().is_some());
    ended.max_by_key(|known| known.started)
}

/// Takes a run's label off a version that it leaves to another, unless that is all that leads from there to a run of
/// ours for good: the run that wrote it, or the label of one that has ended. One that is at work may take its own off at
/// the same time.
pub async fn leave(
    (sfn, execution): (&Client, &str),
    store: &aws_sdk_secretsmanager::Client,
    secret: &Secret,
    version: &VersionId,
    run: RunId,
) -> Result<(), StepError> {
    let of = (&secret.arn, secret.name.as_str());
    for other in secret.runs_on(version).into_iter().filter(|other| *other != run) {
        let state = state_of(sfn, execution, other, of).await?;
        if state.ended().is_some() || state != RunState::NotOurs && other.version() == *version {
            return secrets::disclaim(store, &secret.arn, version, run).await;
        }
    }
    Ok(())
}

/// What one run is to a secret.
pub async fn state_of(
    sfn: &Client,
    execution: &str,
    run: RunId,
    secret: (&SecretArn, &str),
) -> Result<RunState, StepError> {
    known(sfn, execution, run, secret).await.map(|known| known.state)
}

/// The longest that a step of a run may be at work once its execution has ended: whoever stops an execution does not
/// stop the Lambda that it waits for.
const IN_FLIGHT: Duration = Duration::from_mins(3);

/// What one run is to a secret.
#[derive(Debug, Clone)]
pub struct Known {
    /// Whether it is at work.
    pub state: RunState,
    /// When it began, as far as that is known.
    started: Timestamp,
    /// Since when, where it turned a promotion back.
    back: Option<Timestamp>,
    /// When it ended.
    stopped: Option<Timestamp>,
    /// Why it has left the old key to a person, where it has.
    pub held: Option<Why>,
}

impl Known {
    const NOT_OURS: Self =
        Self { state: RunState::NotOurs, started: Timestamp::MIN, back: None, stopped: None, held: None };

    /// Whether a step of it may be at work still, though it has ended.
    pub fn may_be_in_flight(&self, now: Timestamp) -> bool {
        let since = |stopped| Duration::try_from(now.duration_since(stopped)).unwrap_or_default();
        self.state.ended().is_some() && self.stopped.is_none_or(|stopped| since(stopped) < IN_FLIGHT)
    }
}

/// What one run is to a secret, and when it began or ended to be so.
pub async fn known(
    sfn: &Client,
    execution: &str,
    run: RunId,
    secret: (&SecretArn, &str),
) -> Result<Known, StepError> {
    let Some(arn) = sibling(execution, run) else { return Ok(Known::NOT_OURS) };
    if arn == execution {
        // This very run, started anew by a retry of its first step.
        return Ok(Known { state: RunState::Ended(run), ..Known::NOT_OURS });
    }
    let reply = match sfn.describe_execution().execution_arn(&arn).send().await {
        Ok(reply) => reply,
        Err(error) => {
            let error = StepError::from_sdk("states:DescribeExecution", &error);
            let unknown = error.is_refused(&["ExecutionDoesNotExist"]);
            return if unknown { Ok(Known::NOT_OURS) } else { Err(error) };
        }
    };
    let (secret, name) = secret;
    let asked: Option<Request> = reply.input().and_then(|input| serde_json::from_str(input).ok());
    let Some(asked) = asked.filter(|asked| asks_for(execution, &asked.secret, secret, name)) else {
        return Ok(Known::NOT_OURS);
    };
    let running = matches!(reply.status(), ExecutionStatus::Running | ExecutionStatus::PendingRedrive);
    let state = if running { RunState::Running(run) } else { RunState::Ended(run) };
    let started = timestamp(reply.start_date()).unwrap_or(Timestamp::MIN);
    let back = asked.roll_back.then_some(started);
    let stopped = reply.stop_date().and_then(timestamp);
    // Only one that succeeded leaves its document.
    let doc: Option<Rotation> = reply.output().and_then(|output| serde_json::from_str(output).ok());
    let held = doc.and_then(|doc| doc.left_to_a_person().cloned());
    Ok(Known { state: state.knowing(asked.reason == Reason::Leaked), started, back, stopped, held })
}

/// Whether a request to this machine is about this secret. A name is one of the machine's own account and region:
/// whoever may write a secret of that name elsewhere has no run of ours by it.
fn asks_for(execution: &str, asked: &str, secret: &SecretArn, name: &str) -> bool {
    let part = |index| execution.split(':').nth(index);
    let is_here = part(3) == Some(secret.region()) && part(4) == Some(secret.account());
    (is_here || asked != name) && names(asked, secret, name)
}

/// Whether what a request called the secret is this secret: its name, its ARN, or its ARN without the six
/// characters at the end.
pub fn names(asked: &str, secret: &SecretArn, name: &str) -> bool {
    asked == name
        || asked == secret.as_str()
        || secret.as_str().strip_prefix(asked).is_some_and(|rest| rest.len() == 7 && rest.starts_with('-'))
}

/// Whether a run has ended, as far as Step Functions can tell; one that it does not know has.
pub async fn has_ended(sfn: &Client, execution: &str, run: RunId) -> Result<bool, StepError> {
    let Some(arn) = sibling(execution, run) else { return Ok(false) };
    if arn == execution {
        return Ok(true);
    }
    match sfn.describe_execution().execution_arn(&arn).send().await {
        Ok(reply) => {
            Ok(!matches!(reply.status(), ExecutionStatus::Running | ExecutionStatus::PendingRedrive))
        }
        Err(error) => {
            let error = StepError::from_sdk("states:DescribeExecution", &error);
            if error.is_refused(&["ExecutionDoesNotExist"]) { Ok(true) } else { Err(error) }
        }
    }
}

/// The ARN of an execution of a machine.
pub fn of_machine(machine: &str, run: RunId) -> String {
    format!("{}:{run}", machine.replacen(":stateMachine:", ":execution:", 1))
}

/// The machine that an execution is one of.
pub fn machine(execution: &str) -> Option<String> {
    let (machine, _) = execution.rsplit_once(':')?;
    Some(machine.replacen(":execution:", ":stateMachine:", 1))
}

/// The other executions of the same machine that run, each with the time of its start.
pub async fn beside(sfn: &Client, execution: &str) -> Result<Vec<(String, Timestamp)>, StepError> {
    let Some(machine) = machine(execution) else { return Ok(Vec::new()) };
    let call = sfn.list_executions().state_machine_arn(machine).status_filter(ExecutionStatus::Running);
    let mut pages = call.into_paginator().send();
    let mut others = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| StepError::from_sdk("states:ListExecutions", &error))?;
        for row in page.executions().iter().filter(|row| row.execution_arn() != execution) {
            let started = timestamp(row.start_date()).unwrap_or(Timestamp::MIN);
            others.push((row.execution_arn().to_owned(), started));
        }
    }
    Ok(others)
}

/// The executions of a rotation machine that run, a call for every thousand. One whose name is no run's is refused by its
/// first step, and works on nothing.
pub async fn running(sfn: &Client, machine: &str) -> Result<BTreeSet<RunId>, StepError> {
    let call = sfn.list_executions().state_machine_arn(machine).status_filter(ExecutionStatus::Running);
    let mut pages = call.max_results(1000).into_paginator().send();
    let mut running = BTreeSet::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| StepError::from_sdk("states:ListExecutions", &error))?;
        running.extend(page.executions().iter().filter_map(|row| row.name().parse::<RunId>().ok()));
    }
    Ok(running)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_run_that_has_ended_says_whether_a_person_is_to_decide() {
        let run = RunId::random();
        let known = |second, state, held: Option<&str>| Known {
            state,
            started: Timestamp::from_second(second).unwrap(),
            held: held.map(|code| Why::new(code, "", "")),
            ..Known::NOT_OURS
        };
        let held = known(1, RunState::Ended(run), Some("StillInUse"));
        let code = |all: &[Known]| last_ended(all)?.held.as_ref().map(|why| why.code.clone());
        assert_eq!(code(&[]), None);
        assert_eq!(code(std::slice::from_ref(&held)).as_deref(), Some("StillInUse"));
        // Whoever has taken it over since, and was stopped, has been told to go on.
        let resumed = known(2, RunState::Ended(run), None);
        assert_eq!(code(&[resumed, held.clone()]), None);
        // One that is none of ours tells nothing.
        assert_eq!(code(&[held, known(3, RunState::NotOurs, None)]).as_deref(), Some("StillInUse"));
    }

    #[test]
    fn a_request_names_its_secret_in_three_ways() {
        let arn: SecretArn =
            "arn:aws:secretsmanager:eu-west-1:111122223333:secret:app/mail-AbCdEf".parse().unwrap();
        for asked in
            ["app/mail", arn.as_str(), "arn:aws:secretsmanager:eu-west-1:111122223333:secret:app/mail"]
        {
            assert!(names(asked, &arn, "app/mail"), "{asked}");
        }
        assert!(!names("app/mai", &arn, "app/mail"));
        assert!(!names("arn:aws:secretsmanager:eu-west-1:111122223333:secret:app", &arn, "app/mail"));
    }

    #[test]
    fn a_name_is_a_secret_of_the_machines_own_account_and_region() {
        let execution = "arn:aws:states:eu-west-1:111122223333:execution:keywheel-rotation:first";
        for (region, account, by_name) in [
            ("eu-west-1", "111122223333", true),
            ("eu-west-1", "444455556666", false),
            ("us-east-1", "111122223333", false),
        ] {
            let arn = format!("arn:aws:secretsmanager:{region}:{account}:secret:app/mail-AbCdEf");
            let secret: SecretArn = arn.parse().unwrap();
            assert_eq!(asks_for(execution, "app/mail", &secret, "app/mail"), by_name, "{arn}");
            assert!(asks_for(execution, &arn, &secret, "app/mail"), "{arn}");
        }
    }

    #[test]
    fn a_sibling_is_an_execution_of_the_same_machine() {
        let run = RunId::random();
        let execution = "arn:aws:states:eu-west-1:111122223333:execution:keywheel-rotation:first";
        let sibling = sibling(execution, run).unwrap();
        assert_eq!(
            sibling,
            format!("arn:aws:states:eu-west-1:111122223333:execution:keywheel-rotation:{run}")
        );
    }
}
