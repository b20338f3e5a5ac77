//! A stack of CloudFormation: what it is, and how it is waited for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use keywheel::StepError;

use crate::error::{Result, Trouble};
use crate::output::Out;
use crate::place::Place;

/// How long CloudFormation may take.
const PATIENCE: Duration = Duration::from_mins(40);

/// Within what time it begins.
const START: Duration = Duration::from_mins(2);

/// A stack as CloudFormation describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Stack {
    /// Its ARN, by which it is found when its name is gone.
    pub(crate) id: String,
    pub(crate) status: String,
    pub(crate) reason: String,
    /// The names of its parameters.
    pub(crate) parameters: BTreeSet<String>,
    pub(crate) outputs: BTreeMap<String, String>,
}

impl Stack {
    /// Whether CloudFormation is at work on it.
    pub(crate) fn is_under_way(&self) -> bool {
        self.status.ends_with("_IN_PROGRESS") && !self.is_only_planned()
    }

    /// Whether nothing of it is there but a change set.
    pub(crate) fn is_only_planned(&self) -> bool {
        self.status == "REVIEW_IN_PROGRESS"
    }
}

/// The name of a stage's stack, unless another one was given.
pub(crate) fn name(place: &Place, given: Option<&String>) -> String {
    given.cloned().unwrap_or_else(|| format!("keywheel-{}", place.stage))
}

/// A stack by its name or ARN; `None` where there is none. By its name, one that was deleted is not there.
pub(crate) async fn find(place: &Place, name: &str) -> Result<Option<Stack>> {
    let reply = match place.stacks().describe_stacks().stack_name(name).send().await {
        Ok(reply) => reply,
        Err(error) => {
            let error = StepError::from_sdk("cloudformation:DescribeStacks", &error);
            return if is_not_there(&error) { Ok(None) } else { Err(error.into()) };
        }
    };
    let stack = reply.stacks().first().map(|stack| Stack {
        id: stack.stack_id().unwrap_or(name).to_owned(),
        status: stack.stack_status().map(|status| status.as_str().to_owned()).unwrap_or_default(),
        reason: stack.stack_status_reason().unwrap_or_default().to_owned(),
        parameters: stack
            .parameters()
            .iter()
            .filter_map(|one| one.parameter_key().map(str::to_owned))
            .collect(),
        outputs: stack
            .outputs()
            .iter()
            .filter_map(|one| Some((one.output_key()?.to_owned(), one.output_value()?.to_owned())))
            .collect(),
    });
    Ok(stack.filter(|stack| stack.status != "DELETE_COMPLETE"))
}

/// CloudFormation has no code of its own for it.
fn is_not_there(error: &StepError) -> bool {
    match error {
        StepError::Refused(failure) => {
            failure.code == "ValidationError" && failure.message.contains("does not exist")
        }
        _ => false,
    }
}

/// Waits until CloudFormation has done with a stack; `None` where it is gone then.
pub(crate) async fn settled(place: &Place, out: &Out, id: &str) -> Result<Option<Stack>> {
    let until = Instant::now() + PATIENCE;
    let mut said = String::new();
    loop {
        let found = find(place, id).await?;
        let Some(stack) = found.filter(Stack::is_under_way) else { return find(place, id).await };
        if stack.status != said {
            out.note(&format!("{} …", stack.status));
            said.clone_from(&stack.status);
        }
        if Instant::now() > until {
            return Err(Trouble::new(
                format!("The stack is still {}.", stack.status),
                "CloudFormation goes on by itself; look in its console, then run the same command again.",
            ));
        }
        tokio::time::sleep(pause(place)).await;
    }
}

/// Waits until CloudFormation has begun: until then a stack looks as if it had ended.
pub(crate) async fn begun(place: &Place, id: &str, since: Option<&str>) -> Result<()> {
    let until = Instant::now() + START;
    while newest_event(place, id).await?.as_deref() == since {
        if Instant::now() > until {
            return Err(Trouble::new(
                "CloudFormation has taken the order, and does not begin.",
                "Look in its console, then run the same command again.",
            ));
        }
        tokio::time::sleep(pause(place)).await;
    }
    Ok(())
}

/// Waits until a stack is gone; what is left of it where CloudFormation could not remove all.
pub(crate) async fn deleted(place: &Place, id: &str) -> Result<Option<Stack>> {
    let until = Instant::now() + PATIENCE;
    loop {
        // Not at once: a stack whose removal failed before looks as if this one had failed.
        tokio::time::sleep(pause(place)).await;
        match find(place, id).await? {
            None => return Ok(None),
            Some(stack) if stack.status == "DELETE_FAILED" => return Ok(Some(stack)),
            Some(stack) if Instant::now() > until => {
                return Err(Trouble::new(
                    format!("The stack is still {}.", stack.status),
                    "CloudFormation goes on by itself; look in its console, then run the same command again.",
                ));
            }
            Some(_) => {}
        }
    }
}

/// How long to wait before looking again.
pub(crate) fn pause(place: &Place) -> Duration {
    if place.kind() == "LOCAL" { Duration::from_millis(200) } else { Duration::from_secs(3) }
}

/// The newest event of a stack, behind which later ones are looked for.
pub(crate) async fn newest_event(place: &Place, id: &str) -> Result<Option<String>> {
    let reply = place.stacks().describe_stack_events().stack_name(id).send().await;
    let reply = reply.map_err(|error| StepError::from_sdk("cloudformation:DescribeStackEvents", &error))?;
    Ok(reply.stack_events().first().and_then(|event| event.event_id().map(str::to_owned)))
}

/// What has failed since an event, the first failure first.
pub(crate) async fn failures(place: &Place, id: &str, since: Option<&str>) -> Result<Vec<String>> {
    let mut pages = place.stacks().describe_stack_events().stack_name(id).into_paginator().send();
    let mut failures = Vec::new();
    'all: while let Some(page) = pages.next().await {
        let page = page.map_err(|error| StepError::from_sdk("cloudformation:DescribeStackEvents", &error))?;
        for event in page.stack_events() {
            if since.is_some() && event.event_id() == since {
                break 'all;
            }
            let failed = event.resource_status().is_some_and(|status| status.as_str().ends_with("_FAILED"));
            let reason = event.resource_status_reason().unwrap_or_default();
            // What was given up because of another failure explains nothing.
            if failed && !reason.ends_with("cancelled") {
                let name = event.logical_resource_id().unwrap_or_default();
                failures.push(format!("{name} ({}): {reason}", event.resource_type().unwrap_or_default()));
            }
        }
    }
    failures.reverse();
    Ok(failures)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use keywheel::error::Failure;

    pub(crate) fn stack(status: &str) -> Stack {
        Stack { id: "id".into(), status: status.into(), ..Stack::default() }
    }

    #[test]
    fn a_stack_that_is_only_planned_is_waited_for_by_nobody() {
        assert!(stack("UPDATE_IN_PROGRESS").is_under_way());
        assert!(stack("UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS").is_under_way());
        assert!(!stack("REVIEW_IN_PROGRESS").is_under_way());
        assert!(!stack("CREATE_COMPLETE").is_under_way());
    }

    #[test]
    fn only_what_cloudformation_says_is_not_there_counts_as_missing() {
        let refused = |code: &str, message: &str| {
            StepError::Refused(Failure {
                call: "cloudformation:DescribeStacks",
                code: code.into(),
                message: message.into(),
                request_id: None,
            })
        };
        assert!(is_not_there(&refused("ValidationError", "Stack with id keywheel-prod does not exist")));
        assert!(!is_not_there(&refused("ValidationError", "1 validation error detected")));
        assert!(!is_not_there(&refused("AccessDenied", "the role does not exist")));
    }
}
