//! Runs of the rotation machine, started, followed and ended through Step Functions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_sdk_sfn::types::{ExecutionStatus, HistoryEvent};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::cloud::Cloud;
use crate::requests::{Kind, Request, names};
use crate::scene::Scene;

/// How long anything here may take before the test calls it a failure.
const PATIENCE: Duration = Duration::from_secs(100);

/// One run.
#[derive(Clone)]
pub(crate) struct Run {
    /// Its id, which is its name.
    pub(crate) id: String,
    /// Its execution.
    pub(crate) arn: String,
    cloud: Arc<Cloud>,
}

/// A run that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// How Step Functions says it ended.
    pub(crate) status: ExecutionStatus,
    /// Its output.
    pub(crate) doc: Value,
}

/// A run id, chosen before its start so that faults can be limited to it.
pub(crate) fn new_id() -> String {
    Uuid::new_v4().to_string()
}

/// The short policy of these tests: a rotation of about eight seconds.
pub(crate) fn brief() -> Value {
    json!({ "overlap": "1s", "max_overlap": "20s", "quiet_window": "1s", "grace": "1s" })
}

/// The short policy with some spans changed.
pub(crate) fn brief_but(changes: &Value) -> Value {
    let mut policy = brief();
    policy.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    policy
}

impl Scene {
    /// Starts a rotation with the short policy.
    pub(crate) async fn start(&self) -> Run {
        self.start_with(&new_id(), json!({})).await
    }

    /// Starts a run of this id; `input` says what differs.
    pub(crate) async fn start_with(&self, id: &str, input: Value) -> Run {
        let mut whole = json!({ "secret": self.secret, "policy": brief() });
        whole.as_object_mut().unwrap().extend(input.as_object().unwrap().clone());
        Run::start(&self.cloud, id, &whole).await
    }

    /// A rotation from its start to its end.
    pub(crate) async fn rotate(&self) -> Ended {
        self.start().await.end().await
    }
}

impl Run {
    /// Starts a run with exactly this input.
    pub(crate) async fn start(cloud: &Arc<Cloud>, id: &str, input: &Value) -> Self {
        let call = cloud.sfn.start_execution().state_machine_arn(&cloud.machine).name(id);
        let started = call.input(input.to_string()).send().await.unwrap();
        Self { id: id.to_owned(), arn: started.execution_arn().to_owned(), cloud: Arc::clone(cloud) }
    }

    /// The run of this id, whoever starts it.
    pub(crate) fn known(cloud: &Arc<Cloud>, id: &str) -> Self {
        let arn = format!("{}:{id}", cloud.machine.replace(":stateMachine:", ":execution:"));
        Self { id: id.to_owned(), arn, cloud: Arc::clone(cloud) }
    }

    /// An execution of any machine, by the id that its calls name and its ARN.
    pub(crate) fn of(cloud: &Arc<Cloud>, id: &str, arn: &str) -> Self {
        Self { id: id.to_owned(), arn: arn.to_owned(), cloud: Arc::clone(cloud) }
    }

    /// The rotation of that id.
    pub(crate) fn sibling(&self, id: &str) -> Self {
        Self::known(&self.cloud, id)
    }

    /// Waits until somebody has started it.
    pub(crate) async fn begins(&self) {
        let until = Instant::now() + PATIENCE;
        while self.cloud.sfn.describe_execution().execution_arn(&self.arn).send().await.is_err() {
            assert!(Instant::now() < until, "run {} was not started", self.id);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until it has entered a state, whether or not it goes on from there.
    pub(crate) async fn reaches_or_ends(&self, state: &str) {
        let until = Instant::now() + PATIENCE;
        while !self.visited().await.iter().any(|name| name == state) {
            assert!(Instant::now() < until, "run {} hangs before {state}", self.arn);
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
    }

    /// The application that its calls name.
    pub(crate) fn app(&self) -> String {
        format!("keywheel-{}", self.id)
    }

    /// Waits for its end.
    pub(crate) async fn end(&self) -> Ended {
        let until = Instant::now() + PATIENCE;
        loop {
            let told = self.cloud.sfn.describe_execution().execution_arn(&self.arn).send().await.unwrap();
            if *told.status() != ExecutionStatus::Running {
                let doc = told.output().and_then(|output| serde_json::from_str(output).ok());
                return Ended { status: told.status().clone(), doc: doc.unwrap_or_default() };
            }
            assert!(
                Instant::now() < until,
                "run {} has not ended; it visited {:?}",
                self.id,
                self.visited().await
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Whether it has not ended yet.
    pub(crate) async fn goes_on(&self) -> bool {
        let told = self.cloud.sfn.describe_execution().execution_arn(&self.arn).send().await.unwrap();
        *told.status() == ExecutionStatus::Running
    }

    /// The error that it failed with.
    pub(crate) async fn error(&self) -> String {
        let told = self.cloud.sfn.describe_execution().execution_arn(&self.arn).send().await.unwrap();
        told.error().unwrap_or_default().to_owned()
    }

    /// Its history.
    pub(crate) async fn history(&self) -> Vec<HistoryEvent> {
        let call = self.cloud.sfn.get_execution_history().execution_arn(&self.arn).max_results(1000);
        call.into_paginator().items().send().collect::<Result<Vec<_>, _>>().await.unwrap()
    }

    /// The states it entered, in their order.
    pub(crate) async fn visited(&self) -> Vec<String> {
        let history = self.history().await;
        let entered = history.iter().filter_map(HistoryEvent::state_entered_event_details);
        entered.map(|entered| entered.name().to_owned()).collect()
    }

    /// Waits until it has entered a state; the run must still go on then.
    pub(crate) async fn reaches(&self, state: &str) {
        let until = Instant::now() + PATIENCE;
        loop {
            let visited = self.visited().await;
            if visited.iter().any(|name| name == state) {
                return;
            }
            let told = self.cloud.sfn.describe_execution().execution_arn(&self.arn).send().await.unwrap();
            let goes_on = *told.status() == ExecutionStatus::Running && Instant::now() < until;
            assert!(goes_on, "run {} ended or hangs before {state}: {visited:?}", self.id);
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
    }

    /// The document that the last visit of `state` was given.
    pub(crate) async fn given_to(&self, state: &str) -> Value {
        let history = self.history().await;
        let entered = history.iter().rev().filter_map(HistoryEvent::state_entered_event_details);
        let input = entered.filter(|entered| entered.name() == state).find_map(|entered| entered.input());
        serde_json::from_str(input.unwrap_or_else(|| panic!("{state} was not entered"))).unwrap()
    }

    /// Stops it from outside; one that has just come to its end by itself is left as it ended.
    pub(crate) async fn stop(&self) {
        let stopped = self.cloud.sfn.stop_execution().execution_arn(&self.arn).send().await;
        if let Err(error) = stopped {
            assert!(!self.goes_on().await, "run {} cannot be stopped: {error:?}", self.id);
        }
    }

    /// The calls that it made.
    pub(crate) async fn requests(&self) -> Vec<Request> {
        let app = self.app();
        let log = self.cloud.requests().await;
        log.into_iter().filter(|request| request.is_of(&app)).collect()
    }

    /// The changes that it made or tried.
    pub(crate) async fn writes(&self) -> Vec<String> {
        let mut log = self.requests().await;
        log.retain(|request| request.kind() == Kind::Write);
        names(&log)
    }
}

impl Ended {
    /// A text of the document.
    pub(crate) fn text(&self, pointer: &str) -> &str {
        self.doc.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// The outcome.
    pub(crate) fn outcome(&self) -> &str {
        self.text("/outcome")
    }

    /// The reason's code, its text and its remedy in one.
    pub(crate) fn why(&self) -> String {
        ["/why/code", "/why/text", "/why/remedy"].map(|part| self.text(part)).join(" | ")
    }

    /// Fails the test where the outcome is another one.
    pub(crate) fn expect(&self, outcome: &str) -> &Self {
        assert_eq!(self.outcome(), outcome, "{:?}: {}", self.status, self.why());
        self
    }

    /// Fails the test where the reason's code is another one, or it does not say what to do.
    pub(crate) fn expect_code(&self, code: &str) -> &Self {
        assert_eq!(self.text("/why/code"), code, "{}", self.why());
        assert!(!self.text("/why/text").is_empty() && !self.text("/why/remedy").is_empty(), "{}", self.why());
        self
    }
}

/// Runs cases beside each other, a few at a time; fails with the names of those that failed.
pub(crate) async fn all<F>(at_once: usize, cases: Vec<(String, F)>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let room = Arc::new(Semaphore::new(at_once));
    let mut running = JoinSet::new();
    for (name, case) in cases {
        let room = Arc::clone(&room);
        running.spawn(async move {
            let _held = room.acquire().await;
            // A task of its own: where it panics, its name is still here.
            tokio::spawn(case).await.err().map(|_| name)
        });
    }
    let failed: Vec<String> = running.join_all().await.into_iter().flatten().collect();
    assert!(failed.is_empty(), "these cases failed, see above: {failed:?}");
}
