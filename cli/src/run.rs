//! Runs: starting one, and reading what Step Functions knows of one.

use aws_sdk_sfn::operation::describe_execution::DescribeExecutionOutput;
use aws_sdk_sfn::types::{ExecutionStatus, StateEnteredEventDetails, StateExitedEventDetails};
use facts::executions;
use jiff::Timestamp;
use keywheel::rotation::{Caught, Request};
use keywheel::{Outcome, Rotation, RunId, SecretArn, StepError};

use crate::error::{Exit, Result, Trouble};
use crate::place::Place;

/// A run, as far as it could be read.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    /// The execution's name.
    pub(crate) id: String,
    pub(crate) status: ExecutionStatus,
    pub(crate) started: Timestamp,
    pub(crate) stopped: Option<Timestamp>,
    /// What was asked, where the input is a request of this release.
    pub(crate) request: Option<Request>,
    /// The machine's state and when it was entered.
    pub(crate) state: Option<(String, Timestamp)>,
    /// The document as it was last seen.
    pub(crate) document: Option<Rotation>,
    /// What Step Functions says of a failure.
    pub(crate) failure: Option<Caught>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// In a named state.
    Outcome(Outcome),
    /// Without one: failed, aborted or timed out.
    Broken,
}

impl Run {
    /// How the run ended; `None` while it runs. An outcome is final, though the machine may still be
    /// sending its last notice.
    pub(crate) fn end(&self) -> Option<End> {
        match (self.document.as_ref().and_then(|document| document.outcome), &self.status) {
            (Some(outcome), _) => Some(End::Outcome(outcome)),
            (None, ExecutionStatus::Running | ExecutionStatus::PendingRedrive) => None,
            (None, _) => Some(End::Broken),
        }
    }

    /// Whether the run is at work on its keys.
    pub(crate) fn is_under_way(&self) -> bool {
        self.end().is_none()
    }

    /// Whether the run ended without touching anything.
    pub(crate) fn touched_nothing(&self) -> bool {
        self.end() == Some(End::Outcome(Outcome::Blocked))
    }

    /// The word for a status column.
    pub(crate) fn word(&self) -> &'static str {
        match (self.end(), &self.status) {
            (None, _) => "Running",
            (Some(End::Outcome(Outcome::Blocked)), _) if self.answered_dry() => "DryRun",
            (Some(End::Outcome(outcome)), _) => outcome.name(),
            (_, ExecutionStatus::Aborted) => "Aborted",
            (_, ExecutionStatus::TimedOut) => "TimedOut",
            _ => "Failed",
        }
    }

    /// The exit code for a run that has ended: 0 where what was asked for has happened.
    pub(crate) fn exit(&self) -> Exit {
        let turned_back = self.request.as_ref().is_some_and(|asked| asked.roll_back);
        match self.end() {
            None => Exit::Done,
            Some(End::Outcome(Outcome::RolledBack)) if turned_back => Exit::Done,
            Some(End::Outcome(Outcome::Blocked)) if self.answered_dry() => Exit::Done,
            Some(End::Outcome(outcome)) => Exit::of(outcome),
            Some(End::Broken) => Exit::Failed,
        }
    }

    /// Whether the run was asked only to say what it would do, and said so.
    fn answered_dry(&self) -> bool {
        let why = self.document.as_ref().and_then(|document| document.why.as_ref());
        self.request.as_ref().is_some_and(|asked| asked.dry_run)
            && why.is_some_and(|why| why.code == "DryRun")
    }

    /// Whether the run works on this secret.
    pub(crate) fn names(&self, secret: &SecretArn, name: &str) -> bool {
        self.request.as_ref().is_some_and(|request| executions::names(&request.secret, secret, name))
    }
}

/// Starts a run. Repeated by the SDK it stays one run, since the name is chosen here.
pub(crate) async fn start(place: &Place, request: &Request) -> Result<RunId> {
    let run = RunId::random();
    let input = serde_json::to_string(request)
        .map_err(|error| Trouble::new(format!("The request could not be written: {error}."), ""))?;
    begin(place, &place.machine, run, input, "keywheel status").await?;
    Ok(run)
}

/// Starts an execution of a machine; `look` is the command that shows whether it was.
pub(crate) async fn begin(place: &Place, machine: &str, run: RunId, input: String, look: &str) -> Result<()> {
    let call = place.sfn().start_execution().state_machine_arn(machine).name(run.to_string());
    let Err(error) = call.input(input).send().await else { return Ok(()) };
    let error = StepError::from_sdk("states:StartExecution", &error);
    if error.is_refused(&["StateMachineDoesNotExist", "StateMachineDeleting"]) {
        return Err(no_machine(place, machine));
    }
    let unknown = matches!(error, StepError::Ambiguous(_));
    let trouble = Trouble::from(error);
    Err(if unknown {
        Trouble::new(
            format!("{} It is not known whether run {run} was started.", trouble.text),
            format!("Look with `{look}` before repeating the command."),
        )
    } else {
        trouble
    })
}

/// What to say where Keywheel is not installed.
pub(crate) fn no_machine(place: &Place, machine: &str) -> Trouble {
    Trouble::new(
        format!(
            "Keywheel is not installed in {} of account {} under stage {}.",
            place.region, place.account, place.stage
        ),
        format!("Check --region, --profile and --stage; looked for {machine}."),
    )
}

/// Reads a run with its document, or `None` where there is no such execution.
pub(crate) async fn read(place: &Place, id: &str) -> Result<Option<Run>> {
    let Some(mut run) = describe(place, id).await? else { return Ok(None) };
    complete(place, &mut run).await?;
    Ok(Some(run))
}

/// Reads a run without its history: the document is there only if the run has succeeded.
pub(crate) async fn describe(place: &Place, id: &str) -> Result<Option<Run>> {
    let reply = place.sfn().describe_execution().execution_arn(place.execution(id)).send().await;
    match reply {
        Ok(reply) => Ok(Some(described(id, &reply))),
        Err(error) => {
            let error = StepError::from_sdk("states:DescribeExecution", &error);
            if error.is_refused(&["ExecutionDoesNotExist"]) { Ok(None) } else { Err(error.into()) }
        }
    }
}

fn described(id: &str, reply: &DescribeExecutionOutput) -> Run {
    let failure = reply
        .error()
        .map(|error| Caught { error: error.to_owned(), cause: reply.cause().unwrap_or_default().to_owned() });
    Run {
        id: id.to_owned(),
        status: reply.status().clone(),
        started: facts::timestamp(reply.start_date()).unwrap_or_default(),
        stopped: reply.stop_date().and_then(facts::timestamp),
        request: reply.input().and_then(|input| serde_json::from_str(input).ok()),
        state: None,
        document: reply.output().and_then(|output| serde_json::from_str(output).ok()),
        failure,
    }
}

/// Adds the state and the document from the execution's history, the latest entry first.
pub(crate) async fn complete(place: &Place, run: &mut Run) -> Result<()> {
    if run.document.is_some() {
        return Ok(());
    }
    let read = |data: &str| serde_json::from_str(data).ok();
    (run.state, run.document) = last(place, place.execution(&run.id), read).await?;
    Ok(())
}

/// The state that an execution is in, with the time it was entered, and the latest document that `read` knows
/// among what its states were given and gave.
pub(crate) async fn last<T>(
    place: &Place,
    execution: String,
    read: impl Fn(&str) -> Option<T>,
) -> Result<(Option<(String, Timestamp)>, Option<T>)> {
    let mut state = None;
    let mut pages = place
        .sfn()
        .get_execution_history()
        .execution_arn(execution)
        .reverse_order(true)
        .include_execution_data(true)
        .max_results(50)
        .into_paginator()
        .send();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| StepError::from_sdk("states:GetExecutionHistory", &error))?;
        for event in page.events() {
            let entered = event.state_entered_event_details();
            let left = event.state_exited_event_details();
            if state.is_none() {
                let name =
                    entered.map(StateEnteredEventDetails::name).or(left.map(StateExitedEventDetails::name));
                state = name.map(str::to_owned).zip(facts::timestamp(event.timestamp()));
            }
            // What a state gave is newer than what the same state was given.
            let data = entered.and_then(|entered| entered.input()).or(left.and_then(|left| left.output()));
            if let Some(document) = data.and_then(&read) {
                return Ok((state, Some(document)));
            }
        }
    }
    Ok((state, None))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use keywheel::policy::Policy;
    use keywheel::rotation::Why;

    pub(crate) fn request() -> Request {
        serde_json::from_str(r#"{"secret":"app/mail"}"#).unwrap()
    }

    pub(crate) fn document() -> Rotation {
        Rotation::new(RunId::random(), "e".into(), Timestamp::UNIX_EPOCH, request(), Policy::default())
    }

    pub(crate) fn run(status: ExecutionStatus, document: Option<Rotation>) -> Run {
        Run {
            id: RunId::random().to_string(),
            status,
            started: Timestamp::UNIX_EPOCH,
            stopped: None,
            request: Some(request()),
            state: None,
            document,
            failure: None,
        }
    }

    fn ended(outcome: Outcome, code: &str) -> Rotation {
        let mut document = document();
        document.end(Timestamp::UNIX_EPOCH, outcome, Why::new(code, "", ""));
        document
    }

    #[test]
    fn an_outcome_counts_while_the_last_notice_is_still_being_sent() {
        let run = run(ExecutionStatus::Running, Some(ended(Outcome::Held, "StillInUse")));
        assert_eq!((run.end(), run.exit()), (Some(End::Outcome(Outcome::Held)), Exit::Held));
    }

    #[test]
    fn a_run_without_an_outcome_is_broken_once_it_does_not_run() {
        assert_eq!(run(ExecutionStatus::Running, Some(document())).end(), None);
        for status in [
            ExecutionStatus::Failed,
            ExecutionStatus::Aborted,
            ExecutionStatus::TimedOut,
            ExecutionStatus::Succeeded,
        ] {
            assert_eq!(run(status, Some(document())).exit(), Exit::Failed);
        }
    }

    #[test]
    fn what_was_asked_for_is_success() {
        let mut dry = run(ExecutionStatus::Succeeded, Some(ended(Outcome::Blocked, "DryRun")));
        assert_eq!(dry.exit(), Exit::Blocked);
        dry.request.as_mut().unwrap().dry_run = true;
        assert_eq!(dry.exit(), Exit::Done);
        dry.document = Some(ended(Outcome::Blocked, "SlotsFull"));
        assert_eq!(dry.exit(), Exit::Blocked);
        let mut back = run(ExecutionStatus::Succeeded, Some(ended(Outcome::RolledBack, "Asked")));
        assert_eq!(back.exit(), Exit::RolledBack);
        back.request.as_mut().unwrap().roll_back = true;
        assert_eq!(back.exit(), Exit::Done);
    }
}
