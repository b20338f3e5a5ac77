//! The flows of the fleet's two functions, and of the two that remove what nobody uses, that between them use every right
//! of their roles.
//!
//! Each of the fleet's is one call of the deployed function, by a machine of one state: a campaign's waves and waits would
//! show no right more, and no two campaigns may go on beside each other. A removal takes a month: it is followed to its
//! grace, and begun anew at that one's end.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use aws_sdk_iam::types::StatusType;
use aws_sdk_sfn::types::ExecutionStatus;
use jiff::{SignedDuration, Timestamp};
use keywheel::campaign::POLICY;
use keywheel::unused::{Begin, REMOVE, Removed, TAG};
use keywheel::{RunId, Unused};
use serde_json::{Map, Value, json};

use super::flows::{Flow, Started};
use crate::blocked::{delay, refusal};
use crate::cloud::{Cloud, fresh};
use crate::run::{Run, new_id};
use crate::scene::Scene;

/// All of them.
pub(super) const FLEET: [Flow; 10] = [
    ("a plan over the whole account", |cloud| Box::pin(whole(cloud))),
    ("one where IAM gives no report", |cloud| Box::pin(without_report(cloud))),
    ("secrets of two accounts, by a version of the policy", |cloud| Box::pin(pinned(cloud))),
    ("a campaign beside another", |cloud| Box::pin(beside(cloud))),
    ("an owner who is told ahead", |cloud| Box::pin(ahead(cloud))),
    ("a key that nobody uses", |cloud| Box::pin(unused(cloud))),
    ("a batch whose runs were stopped when they had promoted", |cloud| Box::pin(reviewed(cloud))),
    ("a batch whose run is on its way", |cloud| Box::pin(on_its_way(cloud))),
    ("an unused key that is made Inactive", |cloud| Box::pin(disabled(cloud))),
    ("an unused key whose grace is over", |cloud| Box::pin(deleted(cloud))),
];

/// Keys that were made older: whose age would make them due in other tests.
static AGED: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// The policy by which all of them go but one.
fn policy() -> String {
    let soon = json!({
        "name": "right-soon", "match": { "user": "e2e-right-soon-*" }, "set": { "warn": "7d", "owner": "eve" },
    });
    json!({ "rules": [soon] }).to_string()
}

/// The version of the policy by which unused keys go. It is never the newest while a flow runs: another one's campaign
/// would start the removals of this one's keys.
static REMOVING: OnceLock<String> = OnceLock::new();

/// What becomes of unused keys by it.
fn removal() -> Value {
    json!({ "disable_after": "120d", "delete_after": "30d" })
}

/// Pushes the policies.
pub(super) async fn prepare(cloud: &Cloud) {
    let unused = json!({
        "name": "right-unused", "match": { "user": "e2e-right-unused-*" }, "set": { "unused": removal() },
    });
    let version = cloud.put_object(POLICY, &json!({ "rules": [unused] }).to_string()).await;
    REMOVING.set(version).unwrap();
    cloud.put_object(POLICY, &policy()).await;
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

fn machine(cloud: &Cloud, name: &str) -> String {
    cloud.machine.replace("-rotation", &format!("-{name}"))
}

fn fleet(cloud: &Cloud) -> String {
    machine(cloud, "fleet")
}

/// Calls one state's function as its machine does.
async fn call(cloud: &Arc<Cloud>, (name, state): (&str, &str), id: &str, input: &Value) -> Run {
    let call = cloud.sfn.describe_state_machine().state_machine_arn(machine(cloud, name));
    let deployed = call.send().await.unwrap();
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
    call(cloud, ("fleet", "Scan"), id, &begin).await
}

/// When a campaign began that no other one is before.
fn long_ago() -> Timestamp {
    Timestamp::now() - SignedDuration::from_hours(2)
}

/// That its secret holds nothing is what decides about this user: where it may not be read, the only key is taken for
/// the one that it holds.
async fn whole(cloud: Arc<Cloud>) -> Started {
    aged(&cloud, "right-due", 100).await;
    let scene = Scene::bare(&cloud, "right-nothing").await;
    let key = scene.make_key().await;
    age(&cloud, &key.id, 100).await;
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
    let scene = Scene::bare(&cloud, "right-pinned").await;
    let other = Scene::bare(&cloud.member(), "right-pinned").await;
    let version = cloud.put_object(POLICY, &policy()).await;
    let secrets = [&scene.secret, &other.secret];
    let input = json!({ "dry_run": true, "secrets": secrets, "policy_version": version });
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

/// Its key goes, in a run of its own that waits for a month then. It is ended here, and no later flow finds the key.
async fn unused(cloud: Arc<Cloud>) -> Started {
    // There is something to rotate, whatever the other flows have left.
    aged(&cloud, "right-due", 100).await;
    let scene = Scene::stranger(&cloud, "right-unused").await;
    let pair = scene.make_key().await;
    age(&cloud, &pair.id, 200).await;
    scene.tag(TAG, REMOVE).await;
    let input = json!({ "reason": "scheduled", "policy_version": REMOVING.get().unwrap() });
    let run = scan(&cloud, &new_id(), long_ago(), &input).await;
    let planned = run.end().await;
    age(&cloud, &pair.id, 0).await;
    if planned.doc["counts"]["unused"] == 1 {
        let removed: Removed = serde_json::from_value(removed(&scene, &pair.id).await).unwrap();
        let id = removed.run(Timestamp::now()).to_string();
        let machine = machine(&cloud, "unused").replace(":stateMachine:", ":execution:");
        Run::of(&cloud, &id, &format!("{machine}:{id}")).stop().await;
    }
    Started::of(scene, run)
}

/// The document of a campaign over these secrets, which is this flow's: what its plan needs, the flow needs.
async fn planned(cloud: &Arc<Cloud>, id: &str, secrets: &[&str]) -> Value {
    let run = scan(cloud, id, long_ago(), &json!({ "secrets": secrets })).await;
    run.end().await.doc
}

/// The run of a campaign that is this secret's.
fn rotation_of(id: &str, scene: &Scene) -> String {
    let campaign: RunId = id.parse().unwrap();
    campaign.child(&scene.secret).to_string()
}

/// Their runs were stopped, and the secrets' labels alone tell what they had done, one here and one in another account.
async fn reviewed(cloud: Arc<Cloud>) -> Started {
    let (scene, id) = (Scene::bare(&cloud, "right-batch").await, new_id());
    let other = Scene::bare(&cloud.member(), "right-batch").await;
    for scene in [&scene, &other] {
        let pair = scene.make_key().await;
        let put = scene.cloud.store.put_secret_value().secret_id(&scene.secret);
        let put = put.secret_string(scene.value(&pair)).client_request_token(rotation_of(&id, scene));
        put.send().await.unwrap();
    }
    let document = planned(&cloud, &id, &[&scene.secret, &other.secret]).await;
    for scene in [&scene, &other] {
        scene.start_with(&rotation_of(&id, scene), json!({})).await.stop().await;
    }
    let run = call(&cloud, ("fleet", "Review"), &id, &document).await;
    Started::of(scene, run)
}

/// It is held up at its first look, and has nothing to tell yet.
async fn on_its_way(cloud: Arc<Cloud>) -> Started {
    let (scene, id) = (Scene::bare(&cloud, "right-way").await, new_id());
    let document = planned(&cloud, &id, &[&scene.secret]).await;
    let rotation = rotation_of(&id, &scene);
    cloud.fault(delay(&rotation, ("secretsmanager", "DescribeSecret"), 4_500)).await;
    let rotation = scene.start_with(&rotation, json!({})).await;
    let run = call(&cloud, ("fleet", "Review"), &id, &document).await;
    run.end().await;
    rotation.stop().await;
    Started::of(scene, run)
}

/// A managed user, and the id of a key beside its current one that nobody has used and that may go.
async fn idle(cloud: &Arc<Cloud>, what: &str) -> (Scene, String) {
    let scene = Scene::bare(cloud, what).await;
    let pair = scene.make_key().await;
    scene.put(&scene.value(&pair)).await;
    let other = scene.make_key().await;
    scene.tag(TAG, REMOVE).await;
    (scene, other.id)
}

/// What a campaign hands the machine that removes this key.
async fn removed(scene: &Scene, key: &str) -> Value {
    let told = scene.cloud.iam.get_user().user_name(&scene.user).send().await.unwrap();
    json!({
        "account": scene.cloud.account(), "user": scene.user, "user_id": told.user().unwrap().user_id(), "key": key,
        "unused": removal(), "regions": [scene.cloud.region()], "rule": "right-unused", "campaign": new_id(),
    })
}

async fn disabled(cloud: Arc<Cloud>) -> Started {
    let (scene, key) = idle(&cloud, "right-disable").await;
    age(&cloud, &key, 200).await;
    let (id, input) = (new_id(), removed(&scene, &key).await.to_string());
    let start = cloud.sfn.start_execution().state_machine_arn(machine(&cloud, "unused")).name(&id);
    let started = start.input(input).send().await.unwrap();
    let run = Run::of(&cloud, &id, started.execution_arn());
    Started::of(scene, run).until("Grace")
}

async fn deleted(cloud: Arc<Cloud>) -> Started {
    let (scene, key) = idle(&cloud, "right-delete").await;
    scene.set_key(&key, StatusType::Inactive).await;
    let id = new_id();
    let days_ago = |days: i64| Timestamp::now() - SignedDuration::from_hours(24 * days);
    let begin = Begin {
        input: removed(&scene, &key).await,
        name: id.clone(),
        execution: format!("{}:{id}", machine(&cloud, "unused").replace(":stateMachine:", ":execution:")),
        started: days_ago(33),
    };
    let mut document = Unused::new(&begin).unwrap();
    document.quiet_since = Some(days_ago(200));
    document.begin_grace(days_ago(33));
    let document = serde_json::to_value(document).unwrap();
    let run = call(&cloud, ("unused", "DeleteUnused"), &id, &document).await;
    Started::of(scene, run)
}
