//! The `Review` state: what has become of each rotation of a batch, and whether the next batch is begun.
//!
//! It asks Step Functions, not the Map: an answer may be lost, come late, or never have been waited for. Of a run that
//! still runs, the secret's labels tell whether it has promoted its key, and its history whether it has come to an outcome
//! that it cannot tell. Nothing but the batch's results is written.

use aws_sdk_sfn::types::{
    ExecutionStatus, HistoryEvent, LambdaFunctionScheduledEventDetails, StateEnteredEventDetails,
    StateExitedEventDetails,
};
use aws_types::SdkConfig;
use facts::bucket::{Bucket, keep_outcome};
use facts::executions;
use facts::member::{self, Members};
use facts::secrets::{self, CURRENT};
use keywheel::campaign::{Campaign, Item};
use keywheel::decide::campaign::{self, Counted, Next, State};
use keywheel::{Context, Rotation, RunId, SecretArn, Step, StepError, aws};
use serde_json::json;
use tokio::task::JoinSet;
use tracing::info;

/// How many rotations are asked for in the same moment.
const AT_ONCE: usize = 4;

/// The step.
pub struct Review {
    config: SdkConfig,
    members: Option<Members>,
    rotation: String,
    bucket: String,
}

impl Review {
    /// A step that calls AWS with `config`, and enters other accounts where there are `members`, for rotations of that
    /// machine and a campaign in that bucket.
    pub fn new(config: SdkConfig, members: Option<Members>, rotation: String, bucket: String) -> Self {
        Self { config, members, rotation, bucket }
    }
}

impl Step for Review {
    const NAME: &'static str = "review";
    type Input = Campaign;
    type Output = Campaign;

    /// Run twice, it counts the batch from the same document once more.
    async fn run(&self, mut doc: Campaign, ctx: &Context) -> Result<Campaign, StepError> {
        let config = aws::for_run(&self.config, doc.campaign);
        let bucket = Bucket::new(&config, &self.bucket);
        let Some(batch) = doc.batch.clone() else {
            return Err(StepError::BadInput("the document has no batch".into()));
        };
        let items = items(&bucket, &batch.key).await?;
        let asking = Asking {
            config,
            members: self.members.clone(),
            campaign: doc.campaign,
            machine: self.rotation.clone(),
        };
        let states = states(&asking, &items).await?;
        let now = ctx.clock.now();
        if let Some(until) = campaign::look_again(batch.began, &states, now) {
            doc.settle(until);
            return Ok(doc);
        }
        let mode = facts::switch::mode(&aws_sdk_ssm::Client::new(&asking.config), &ctx.stage).await?;
        let counted = campaign::count(&items, &states, batch.wave);
        let Counted { promoted, retiring, left, failed } = &counted;
        info!(rotation.id = %doc.campaign, "Batch {}: {promoted} promoted, {} not", batch.number, failed.len());
        let results = json!({
            "batch": batch.number, "wave": batch.wave, "promoted": promoted, "retiring": retiring,
            "left": left, "failed": failed,
        });
        bucket.write(&doc.results(batch.number), "application/json", results.to_string()).await?;
        doc.note(counted);
        match campaign::go_on(&doc, mode, now) {
            Next::Go => {
                doc.begin_batch(now);
            }
            Next::End(outcome, why) => {
                doc.end(now, outcome, why);
                keep_outcome(&bucket, &doc).await?;
            }
        }
        Ok(doc)
    }
}

/// The rotations of a batch.
async fn items(bucket: &Bucket, key: &str) -> Result<Vec<Item>, StepError> {
    let Some(stored) = bucket.read(key, None).await? else {
        return Err(StepError::Conflict(format!("{} is gone", bucket.address(key))));
    };
    serde_json::from_str(&stored.text)
        .map_err(|error| StepError::Conflict(format!("{} is no batch: {error}", bucket.address(key))))
}

/// What rotations are asked for with.
#[derive(Clone)]
struct Asking {
    config: SdkConfig,
    members: Option<Members>,
    campaign: RunId,
    machine: String,
}

/// What has become of each, in their order.
async fn states(asking: &Asking, items: &[Item]) -> Result<Vec<State>, StepError> {
    let mut states: Vec<State> = items.iter().map(|_| State::OnItsWay).collect();
    let mut waiting = items.iter().cloned().enumerate();
    let mut calls = JoinSet::new();
    loop {
        while calls.len() < AT_ONCE
            && let Some((index, item)) = waiting.next()
        {
            let asking = asking.clone();
            calls.spawn(async move { (index, state(&asking, &item).await) });
        }
        match calls.join_next().await {
            None => return Ok(states),
            Some(Ok((index, state))) => states[index] = state?,
            // Only a bug breaks one off. What has become of its rotation is then not known, and asked again.
            Some(Err(_)) => {}
        }
    }
}

/// What has become of one rotation.
async fn state(asking: &Asking, item: &Item) -> Result<State, StepError> {
    let sfn = aws_sdk_sfn::Client::new(&asking.config);
    let arn = executions::of_machine(&asking.machine, item.run);
    let reply = match sfn.describe_execution().execution_arn(arn).send().await {
        Ok(reply) => reply,
        Err(error) => {
            let error = StepError::from_sdk("states:DescribeExecution", &error);
            let none = error.is_refused(&["ExecutionDoesNotExist"]);
            return if none { Ok(State::not_started()) } else { Err(error) };
        }
    };
    let state = match reply.status() {
        ExecutionStatus::Running | ExecutionStatus::PendingRedrive => State::OnItsWay,
        // Only one that succeeded leaves its document.
        status => {
            let doc: Option<Rotation> = reply.output().and_then(|output| serde_json::from_str(output).ok());
            State::of_ended(status.as_str(), doc.as_ref())
        }
    };
    if *reply.status() == ExecutionStatus::Succeeded {
        return Ok(state);
    }
    if promoted(asking, item).await? {
        return Ok(State::Promoted);
    }
    if state != State::OnItsWay {
        return Ok(state);
    }
    // One that has ended tries for a day to tell it.
    let doc = newest(&sfn, reply.execution_arn()).await?;
    let ended = doc.filter(|doc| doc.outcome.is_some());
    Ok(ended.map_or(state, |doc| State::of_ended(reply.status().as_str(), Some(&doc))))
}

/// How many of the last events of a history are read: a function that is tried again and again writes three each time, of
/// which the first has the document.
const EVENTS: i32 = 20;

/// The document of a rotation that runs, as its last states have it; `None` where none of them has one yet.
async fn newest(sfn: &aws_sdk_sfn::Client, execution: &str) -> Result<Option<Rotation>, StepError> {
    let call = sfn.get_execution_history().execution_arn(execution).reverse_order(true).max_results(EVENTS);
    let reply = call.send().await;
    let reply = reply.map_err(|error| StepError::from_sdk("states:GetExecutionHistory", &error))?;
    let text = |event: &HistoryEvent| {
        let left = event.state_exited_event_details().and_then(StateExitedEventDetails::output);
        let entered = || event.state_entered_event_details().and_then(StateEnteredEventDetails::input);
        let given = || {
            let scheduled = event.lambda_function_scheduled_event_details();
            scheduled.and_then(LambdaFunctionScheduledEventDetails::input)
        };
        left.or_else(entered).or_else(given).and_then(|text| serde_json::from_str(text).ok())
    };
    Ok(reply.events().iter().find_map(text))
}

/// Whether AWSCURRENT names the version that the run wrote, or took over. A secret that cannot be read tells nothing.
async fn promoted(asking: &Asking, item: &Item) -> Result<bool, StepError> {
    let Ok(arn) = item.secret.parse::<SecretArn>() else { return Ok(false) };
    match describe(asking, &arn).await {
        Ok(secret) => {
            let current = secret.labelled(CURRENT);
            Ok(current.is_some_and(|current| secret.runs_on(&current).contains(&item.run)))
        }
        Err(StepError::Refused(_) | StepError::Conflict(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn describe(asking: &Asking, arn: &SecretArn) -> Result<secrets::Secret, StepError> {
    // The machine's ARN names the installation's own account.
    let own = asking.machine.split(':').nth(4).unwrap_or_default();
    let (config, members) = (&asking.config, asking.members.as_ref());
    let config = member::of_secret(members, config, arn, (own, asking.campaign)).await?;
    let store = aws_sdk_secretsmanager::Client::new(&aws::in_region(&config, arn.region()));
    secrets::describe(&store, arn.as_str()).await
}
