//! The flows of the fleet's two functions that between them use every right of their roles.
//!
//! Each is one call of the deployed function, by a machine of one state: a campaign's waves and waits would show no right
//! more, and no two campaigns may go on beside each other.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_sdk_sfn::types::ExecutionStatus;
use jiff::{SignedDuration, Timestamp};
use keywheel::RunId;
use keywheel::campaign::POLICY;
use serde_json::{Map, Value, json};

use super::flows::{Flow, Started};
use crate::blocked::{delay, refusal};
use crate::cloud::{Cloud, fresh};
use crate::run::{Run, new_id};
use crate::scene::Scene;

/// All of them.
pub(super) const FLEET: [Flow; 6] = [
    ("a plan over the whole account", |cloud| Box::pin(whole(cloud))),
    ("one where IAM gives no report", |cloud| Box::pin(without_report(cloud))),
    ("one secret, by a version of the policy", |cloud| Box::pin(pinned(cloud))),
    ("a campaign beside another", |cloud| Box::pin(beside(cloud))),
    ("an owner who is told ahead", |cloud| Box::pin(ahead(cloud))),
    ("a batch whose run was stopped when it had promoted", |cloud| Box::pin(reviewed(cloud))),
];

/// Keys that were made older: whose age would make them due in other tests.
static AGED: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// The policy by which all of them go.
pub(super) fn policy() -> String {
    let soon = json!({
        "name": "right-soon", "match": { "user": "e2e-right-soon-*" }, "set": { "warn": "7d", "owner": "eve" },
    });
    json!({ "rules": [soon] }).to_string()
}

/// Makes every key young again, and waits for the campaigns that are still on their way.
pub(super) async fn tidy(cloud: &Cloud) {
    let until = Instant::now() + Duration::from_mins(1);
    loop {
        let call = cloud.sfn.list_executions().state_machine_arn(fleet(cloud));
        let running = call.status_filter(ExecutionStatus::Running).send().await.unwrap();
        if running.executions().is_empty() {
            break;
        }
        assert!(Instant::now() < until, "campaigns hang: {:?}", running.executions());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let aged = std::mem::take(&mut *AGED.lock().unwrap_or_else(PoisonError::into_inner));
    let young: Map<String, Value> = aged.into_iter().map(|id| (id, json!(0))).collect();
    cloud.age(&Value::Object(young)).await;
}

/// A user whose current key is so many days old.
async fn aged(cloud: &Arc<Cloud>, what: &str, days: u32) -> Scene {
    let scene = Scene::bare(cloud, what).await;
    let pair = scene.make_key().await;
    scene.put(&scene.value(&pair)).await;
    age(cloud, &pair.id, days).await;
    scene
}

async fn age(cloud: &Cloud, key: &str, days: u32) {
    AGED.lock().unwrap_or_else(PoisonError::into_inner).push(key.to_owned());
    cloud.age(&json!({ key: days })).await;
}

fn fleet(cloud: &Cloud) -> String {
    cloud.machine.replace("-rotation", "-fleet")
}

/// Calls one state's function as the fleet's machine does.
async fn call(cloud: &Arc<Cloud>, state: &str, id: &str, input: &Value) -> Run {
    let deployed = cloud.sfn.describe_state_machine().state_machine_arn(fleet(cloud)).send().await.unwrap();
    let definition: Value = serde_json::from_str(deployed.definition()).unwrap();
    let resource = &definition["States"][state]["Resource"];
    let task = json!({ "Type": "Task", "Resource": resource, "TimeoutSeconds": 60, "End": true });
    let states = Map::from_iter([(state.to_owned(), task)]);
    let alone = json!({ "StartAt": state, "States": states });
    let made =
        cloud.sfn.create_state_machine().name(format!("e2e-{}", fresh())).role_arn(deployed.role_arn());
    let made = made.definition(alone.to_string()).send().await.unwrap();
    let start = cloud.sfn.start_execution().state_machine_arn(made.state_machine_arn()).name(id);
    let started = start.input(input.to_string()).send().await.unwrap();
    Run::of(cloud, id, started.execution_arn())
}

/// A plan of a campaign that began then.
async fn scan(cloud: &Arc<Cloud>, id: &str, started: Timestamp, input: &Value) -> Run {
    let execution = format!("{}:{id}", fleet(cloud).replace(":stateMachine:", ":execution:"));
    let begin = json!({ "input": input, "name": id, "execution": execution, "started": started });
    call(cloud, "Scan", id, &begin).await
}

/// When a campaign began that no other one is before.
fn long_ago() -> Timestamp {
    Timestamp::now() - SignedDuration::from_hours(2)
}

/// Which of two keys is current is what decides about this user.
async fn whole(cloud: Arc<Cloud>) -> Started {
    let scene = aged(&cloud, "right-due", 100).await;
    let other = scene.make_key().await;
    age(&cloud, &other.id, 200).await;
    scene.tag("keywheel:retire", &other.id).await;
    let run = scan(&cloud, &new_id(), long_ago(), &json!({ "dry_run": true })).await;
    Started::of(scene, run)
}

async fn without_report(cloud: Arc<Cloud>) -> Started {
    let scene = aged(&cloud, "right-list", 100).await;
    let id = new_id();
    cloud.fault(refusal(&id, ("iam", "GenerateCredentialReport"), 409, "LimitExceeded")).await;
    cloud.fault(refusal(&id, ("iam", "GetCredentialReport"), 410, "ReportNotPresent")).await;
    let run = scan(&cloud, &id, long_ago(), &json!({ "dry_run": true })).await;
    Started::of(scene, run)
}

async fn pinned(cloud: Arc<Cloud>) -> Started {
    let scene = aged(&cloud, "right-pinned", 100).await;
    let version = cloud.put_object(POLICY, &policy()).await;
    let input = json!({ "dry_run": true, "secrets": [scene.secret], "policy_version": version });
    let run = scan(&cloud, &new_id(), long_ago(), &input).await;
    Started::of(scene, run)
}

/// The other campaign is held up at its first look, and then ends with a plan that nobody carries out.
async fn beside(cloud: Arc<Cloud>) -> Started {
    let other = new_id();
    cloud.fault(delay(&other, ("states", "ListExecutions"), 4_500)).await;
    let start = cloud.sfn.start_execution().state_machine_arn(fleet(&cloud)).name(&other);
    start.input(json!({ "dry_run": true }).to_string()).send().await.unwrap();
    let run = scan(&cloud, &new_id(), Timestamp::now(), &json!({ "dry_run": true })).await;
    Started::nobodys(run)
}

/// Nobody carries the plan out, though it is live: the machine has no state behind it. Of the owner whom a campaign
/// before it was to tell, it asks whether that one has.
async fn ahead(cloud: Arc<Cloud>) -> Started {
    let input = json!({ "reason": "scheduled" });
    aged(&cloud, "right-due", 100).await;
    aged(&cloud, "right-soon", 85).await;
    scan(&cloud, &new_id(), long_ago(), &input).await.end().await;
    let scene = aged(&cloud, "right-soon", 85).await;
    let run = scan(&cloud, &new_id(), long_ago(), &input).await;
    Started::of(scene, run)
}

/// Its run was stopped, and the secret's label alone tells what it had done.
async fn reviewed(cloud: Arc<Cloud>) -> Started {
    let (scene, id) = (Scene::bare(&cloud, "right-batch").await, new_id());
    let campaign: RunId = id.parse().unwrap();
    let rotation = campaign.child(&scene.secret).to_string();
    let pair = scene.make_key().await;
    let put = cloud.store.put_secret_value().secret_id(&scene.secret).secret_string(scene.value(&pair));
    put.client_request_token(&rotation).send().await.unwrap();
    let planned = scan(&cloud, &id, long_ago(), &json!({ "secrets": [scene.secret] })).await;
    let document = planned.end().await.doc;
    let stopped = scene.start_with(&rotation, json!({})).await;
    stopped.stop().await;
    // One campaign: what its plan needs, this flow needs.
    let run = call(&cloud, "Review", &id, &document).await;
    Started::of(scene, run)
}
