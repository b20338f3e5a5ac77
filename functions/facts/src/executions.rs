//! What Step Functions knows of runs.

use aws_sdk_sfn::Client;
use aws_sdk_sfn::types::ExecutionStatus;
use keywheel::decide::entry::RunState;
use keywheel::rotation::{Reason, Request};
use keywheel::{RunId, SecretArn, StepError};

/// The ARN of another execution of the machine that `execution` belongs to.
pub fn sibling(execution: &str, run: RunId) -> Option<String> {
    let (machine, _) = execution.rsplit_once(':')?;
    Some(format!("{machine}:{run}"))
}

/// The run among `runs` that is at work on the secret, else one that was, and whether any of them was started
/// because of a leak. A run that is no execution of this machine, or worked on another secret, is not ours:
/// whoever may write a secret may choose the ids and labels of its versions.
pub async fn at_work(
    sfn: &Client,
    execution: &str,
    runs: &[RunId],
    secret: (&SecretArn, &str),
) -> Result<RunState, StepError> {
    let mut found = RunState::NotOurs;
    for run in runs {
        found = found.and(state_of(sfn, execution, *run, secret).await?);
    }
    Ok(found)
}

/// What one run is to a secret.
pub async fn state_of(
    sfn: &Client,
    execution: &str,
    run: RunId,
    secret: (&SecretArn, &str),
) -> Result<RunState, StepError> {
    let Some(arn) = sibling(execution, run) else { return Ok(RunState::NotOurs) };
    if arn == execution {
        // This very run, started anew by a retry of its first step.
        return Ok(RunState::Ended(run));
    }
    let reply = match sfn.describe_execution().execution_arn(&arn).send().await {
        Ok(reply) => reply,
        Err(error) => {
            let error = StepError::from_sdk("states:DescribeExecution", &error);
            let unknown = error.is_refused(&["ExecutionDoesNotExist"]);
            return if unknown { Ok(RunState::NotOurs) } else { Err(error) };
        }
    };
    let (secret, name) = secret;
    let asked: Option<Request> = reply.input().and_then(|input| serde_json::from_str(input).ok());
    let Some(asked) = asked.filter(|asked| names(&asked.secret, secret, name)) else {
        return Ok(RunState::NotOurs);
    };
    let running = matches!(reply.status(), ExecutionStatus::Running | ExecutionStatus::PendingRedrive);
    Ok(match (running, asked.reason == Reason::Leaked) {
        (true, false) => RunState::Running(run),
        (true, true) => RunState::RunningLeaked(run),
        (false, false) => RunState::Ended(run),
        (false, true) => RunState::EndedLeaked(run),
    })
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

#[cfg(test)]
mod tests {
    use super::*;

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
