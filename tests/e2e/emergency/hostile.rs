//! Hostile events on the real buses: each ends as it does in process, leaves nothing running, and changes nothing.
//!
//! The good key that some of them name is nobody's here, so that even what is to be contained comes to nothing. The
//! user that a bad key is said to be of is this test's own, and every execution is found by its event's id.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_sdk_sfn::types::ExecutionStatus;
use keywheel::triage::{Class, judge};
use serde_json::{Value, json};
use support::figures::say;
use support::hostile::{USER, inputs};

use crate::cloud::Cloud;
use crate::requests::{Request, names};
use crate::run::{Ended, Run};
use crate::scene::Scene;

/// How long the executions of one batch may take to start.
const PATIENCE: Duration = Duration::from_secs(20);
/// The most entries of one call of `PutEvents`.
const ENTRIES: usize = 10;
/// How many credentials an event may name here, each of which is an execution: a hundred are another test's.
const FEW: usize = 10;
/// The calls that may be made on their behalf: whose a key is, what may speak against containment, and the notices.
const CALLS: [&str; 7] = [
    "events:PutEvents",
    "iam:GetAccessKeyLastUsed",
    "sns:Publish",
    "ssm:GetParameters",
    "states:ListExecutions",
    "sts:AssumeRole",
    "sts:GetAccessKeyInfo",
];

/// What is put on a bus.
struct Sent {
    what: String,
    bus: String,
    source: String,
    kind: String,
    detail: String,
    /// What it is to be taken for; `None` where no rule of ours takes it up.
    class: Option<Class>,
}

impl Sent {
    fn entry(&self) -> Value {
        json!({
            "Source": self.source, "DetailType": self.kind, "Detail": self.detail, "EventBusName": self.bus,
        })
    }
}

/// All that `PutEvents` carries: each of them as a sender of ours would report it, and as it is, where it has a source.
fn all(cloud: &Cloud, user: &str) -> Vec<Sent> {
    // The user that they name exists.
    let about = |text: &str| text.replace(&format!("\"{USER}\""), &format!("\"{user}\""));
    let mut all = Vec::new();
    for input in inputs() {
        let Some(event) = input.carried() else { continue };
        all.push(Sent {
            what: format!("{}, reported", input.what),
            bus: cloud.leaks.clone(),
            source: "keywheel.leak".to_owned(),
            kind: "Leaked Access Key".to_owned(),
            detail: about(std::str::from_utf8(&input.event).unwrap()),
            class: Some(Class::Reject),
        });
        let Some(entry) = input.entry().filter(|_| judge(&event).targets.len() <= FEW) else { continue };
        let bus = if entry.source.starts_with("aws.") { "default" } else { cloud.leaks.as_str() };
        let taken_up = ["aws.guardduty", "keywheel.leak"].contains(&entry.source.as_str());
        all.push(Sent {
            what: input.what.to_owned(),
            bus: bus.to_owned(),
            source: entry.source,
            kind: entry.kind,
            detail: about(&entry.detail),
            class: taken_up.then_some(input.class),
        });
    }
    all
}

/// Puts a batch on the buses; the events' ids, in its order.
async fn put(cloud: &Cloud, batch: &[Sent]) -> Vec<String> {
    let entries: Vec<Value> = batch.iter().map(Sent::entry).collect();
    let reply = cloud.call("events", "AWSEvents.PutEvents", &json!({ "Entries": entries })).await;
    assert_eq!(reply["FailedEntryCount"], 0, "{reply}");
    let ids = reply["Entries"].as_array().unwrap().iter();
    ids.map(|entry| entry["EventId"].as_str().unwrap().to_owned()).collect()
}

/// The executions of the emergency machine that have come since, by the event that has started them.
struct Executions {
    cloud: Arc<Cloud>,
    seen: BTreeSet<String>,
    of: BTreeMap<String, Vec<Run>>,
}

impl Executions {
    async fn since_now(cloud: &Arc<Cloud>) -> Self {
        let mut new = Self { cloud: Arc::clone(cloud), seen: BTreeSet::new(), of: BTreeMap::new() };
        new.seen = new.latest().await.into_iter().collect();
        new
    }

    async fn latest(&self) -> Vec<String> {
        let list = self.cloud.sfn.list_executions().state_machine_arn(&self.cloud.emergency).max_results(200);
        let list = list.send().await.unwrap();
        list.executions().iter().map(|execution| execution.execution_arn().to_owned()).collect()
    }

    async fn look(&mut self) {
        for arn in self.latest().await {
            if self.seen.insert(arn.clone()) {
                let input = input_of(&self.cloud, &arn).await;
                let event = input["id"].as_str().unwrap_or_default().to_owned();
                self.of.entry(event).or_default().push(Run::of(&self.cloud, "", &arn));
            }
        }
    }

    /// The one execution of each of these events.
    async fn each_of(&mut self, ids: &[&String]) -> Vec<Run> {
        let until = Instant::now() + PATIENCE;
        loop {
            self.look().await;
            let missing = ids.iter().filter(|id| !self.of.contains_key(**id)).count();
            if missing == 0 {
                break;
            }
            assert!(Instant::now() < until, "{missing} of {} events have started nothing", ids.len());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let one = |id: &&String| {
            let [run] = &self.of[*id][..] else { panic!("event {id} has started more than one execution") };
            run.clone()
        };
        ids.iter().map(one).collect()
    }
}

async fn input_of(cloud: &Cloud, arn: &str) -> Value {
    let told = cloud.sfn.describe_execution().execution_arn(arn).send().await.unwrap();
    told.input().and_then(|input| serde_json::from_str(input).ok()).unwrap_or_default()
}

/// Holds an execution that has ended to what comes of the same event in process; itself and its incidents, by the names
/// that their calls bear.
async fn as_in_process(cloud: &Arc<Cloud>, sent: &Sent, run: &Run, ended: &Ended) -> (Run, Vec<Run>) {
    let what = &sent.what;
    let event = input_of(cloud, &run.arn).await;
    assert_eq!(
        (&event["source"], &event["detail-type"], &event["detail"]),
        (&json!(sent.source), &json!(sent.kind), &serde_json::from_str::<Value>(&sent.detail).unwrap()),
        "{what} did not arrive as it was put"
    );
    let twin = judge(&event);
    let alert = run.given_to("Course").await;
    let incidents: Vec<&Value> = alert["incidents"].as_array().into_iter().flatten().collect();
    let targets: Vec<&Value> = incidents.iter().map(|incident| &incident["target"]).collect();
    assert_eq!(Some(twin.class), sent.class, "{what}: {}", twin.reason);
    assert_eq!(
        (&alert["class"], &alert["reason"], &json!(targets)),
        (&json!(twin.class), &json!(twin.reason), &json!(twin.targets)),
        "{what}"
    );
    if twin.class == Class::Reject {
        assert_eq!(
            (&ended.status, &*run.error().await),
            (&ExecutionStatus::Failed, "Keywheel.Rejected"),
            "{what}"
        );
    } else {
        assert_eq!(ended.status, ExecutionStatus::Succeeded, "{what}");
    }
    let of = |doc: &Value| {
        let text = |name: &str| doc[name].as_str().unwrap().to_owned();
        Run::of(cloud, &text("id"), &text("execution"))
    };
    (of(&alert), incidents.into_iter().map(of).collect())
}

#[tokio::test]
async fn hostile_events_on_the_buses_end_as_in_process_and_change_nothing() {
    // While others share the cloud, nobody turns the switch: containment is on.
    let Some(cloud) = Cloud::here().await else { return };
    let began = Instant::now();
    let (scene, _) = Scene::managed(&cloud, "hostile").await;
    let before = (scene.truth().await, scene.policies().await);
    let mut executions = Executions::since_now(&cloud).await;
    let all = all(&cloud, &scene.user);
    let (mut alarms, mut incidents, mut not_taken_up) = (Vec::new(), Vec::new(), Vec::new());
    // One batch after another: other tests want their turn as well.
    for batch in all.chunks(ENTRIES) {
        let ids = put(&cloud, batch).await;
        let (awaited, others): (Vec<_>, Vec<_>) =
            batch.iter().zip(&ids).partition(|(sent, _)| sent.class.is_some());
        let started: Vec<&String> = awaited.iter().map(|(_, id)| *id).collect();
        for (run, (sent, _)) in executions.each_of(&started).await.iter().zip(awaited) {
            let ended = run.end().await;
            let (alarm, of_it) = as_in_process(&cloud, sent, run, &ended).await;
            alarms.push(alarm);
            incidents.extend(of_it.into_iter().map(|incident| (sent.what.clone(), incident)));
        }
        not_taken_up.extend(others.into_iter().map(|(_, id)| id.clone()));
    }
    for (what, incident) in &incidents {
        let ended = incident.end().await;
        ended.expect("Blocked");
        assert_eq!((&ended.doc["contained_at"], &ended.doc["deny"]), (&Value::Null, &Value::Null), "{what}");
    }
    executions.look().await;
    assert!(not_taken_up.iter().all(|id| !executions.of.contains_key(id)), "no rule of ours is about these");
    say(&format!(
        "{} hostile events on the buses: {} executions and {} incidents have ended, after {:.0?}",
        all.len(),
        alarms.len(),
        incidents.len(),
        began.elapsed()
    ));
    assert_eq!(alarms.len() + not_taken_up.len(), all.len());
    assert!(alarms.len() >= 60 && incidents.len() >= 10 && !not_taken_up.is_empty());

    // Of all that was asked of AWS on their behalf, nothing changes anything. Every call names its run.
    let log = cloud.requests().await;
    let runs = alarms.iter().chain(incidents.iter().map(|(_, incident)| incident));
    let apps: BTreeSet<String> = runs.map(Run::app).collect();
    let calls: Vec<&Request> = log.iter().filter(|call| apps.iter().any(|app| call.is_of(app))).collect();
    assert!(calls.iter().filter(|call| call.name() == "sns:Publish").count() >= alarms.len() / 2);
    let odd = |call: &&Request| {
        let name = call.name();
        // The account that the key seems to belong to lets nobody in.
        !CALLS.contains(&name.as_str()) || name == "sts:AssumeRole" && !call.refused()
    };
    let odd: Vec<Request> = calls.into_iter().filter(odd).cloned().collect();
    assert!(odd.is_empty(), "{:?}", names(&odd));
    let nameless: Vec<Request> = log.iter().filter(|call| call.forgot_its_run()).cloned().collect();
    assert!(nameless.is_empty(), "calls that name no run: {:?}", names(&nameless));
    assert_eq!((scene.truth().await, scene.policies().await), before, "the user that they name was changed");
}
