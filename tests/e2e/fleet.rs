//! A campaign over the fleet: planned, stopped by a wave that fails, and taken up again by the next one; and an owner
//! who is told ahead, once.

use std::collections::BTreeSet;
use std::sync::Arc;

use keywheel::RunId;
use keywheel::campaign::{Item, POLICY};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::blocked::refusal;
use crate::cloud::{Cloud, fresh};
use crate::run::{Ended, Run, new_id};
use crate::scene::{Scene, Truth};

/// How many users the canary wave has, and the one behind it.
const WAVES: [usize; 2] = [10, 3];
/// How many of the canary wave fail: one in five.
const FAILING: usize = 2;

/// One campaign at a time, and one policy: another is refused beside it.
pub(crate) static CAMPAIGNS: Mutex<()> = Mutex::const_new(());

/// The names of the users of the tests of campaigns, and of all other tests that share the cloud.
const NAMES: [&str; 4] = ["fleet-e2e-*", "taken-e2e-*", "e2e*", "cli-*"];

/// The exemptions of the users of all tests but this one: a campaign would take over what those leave half way on purpose.
pub(crate) fn others_than(ours: &str) -> Vec<Value> {
    let others = NAMES.into_iter().filter(|name| !ours.starts_with(name.trim_end_matches('*')));
    others.map(of_another).collect()
}

fn of_another(user: &str) -> Value {
    json!({ "user": user, "owner": "another test", "reason": "it is not done", "until": "2099-01-01" })
}

impl Cloud {
    /// Starts a campaign of this id, and waits for its end.
    pub(crate) async fn campaign(self: &Arc<Self>, id: &str, input: &Value) -> Ended {
        let machine = self.machine.replace("-rotation", "-fleet");
        let call = self.sfn.start_execution().state_machine_arn(machine).name(id);
        let started = call.input(input.to_string()).send().await.unwrap();
        Run::of(self, id, started.execution_arn()).end().await
    }

    /// The lines of a campaign's plan about users of this test.
    pub(crate) async fn planned(&self, campaign: &Ended, ours: &str) -> Vec<Value> {
        let plan = self.object(&place(campaign, "plan.jsonl")).await;
        let lines = plan.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["user"].as_str().is_some_and(|user| user.starts_with(ours))).collect()
    }
}

/// Where something of a campaign lies.
fn place(campaign: &Ended, name: &str) -> String {
    let (bucket, id) = (campaign.text("/bucket"), campaign.text("/campaign"));
    format!("s3://{bucket}/campaigns/{id}/{}/{name}", campaign.text("/attempt"))
}

pub(crate) fn users<'a>(lines: &'a [Value], action: &str) -> BTreeSet<&'a str> {
    let with = lines.iter().filter(|line| line["action"] == action);
    with.filter_map(|line| line["user"].as_str()).collect()
}

/// The warnings that a campaign's document carries, each by its id and its text.
fn warnings(campaign: &Ended) -> Vec<(&str, &str)> {
    let notices = campaign.doc["notices"].as_array().unwrap().iter();
    let soon = notices.filter(|notice| notice["kind"] == "DueSoon");
    soon.map(|notice| (notice["id"].as_str().unwrap(), notice["text"].as_str().unwrap())).collect()
}

/// Stops the rotations that a campaign has begun: they wait for the end of their overlap.
pub(crate) async fn stop_rotations(cloud: &Arc<Cloud>, campaign: &Ended) {
    let begun = campaign.doc["waves"].as_array().unwrap().iter().filter_map(|wave| wave["begun"].as_u64());
    for number in 1..=begun.sum() {
        let batch = cloud.object(&place(campaign, &format!("batch-{number:04}.json"))).await;
        let items: Vec<Item> = serde_json::from_str(&batch).unwrap();
        for item in items {
            let run = Run::known(cloud, &item.run.to_string());
            if cloud.sfn.describe_execution().execution_arn(&run.arn).send().await.is_ok() {
                run.stop().await;
            }
        }
    }
}

pub(crate) async fn truths(scenes: &[Scene]) -> Vec<Truth> {
    let mut truths = Vec::new();
    for scene in scenes {
        truths.push(scene.truth().await);
    }
    truths
}

/// Whose secret names another key than before.
pub(crate) async fn moved(scenes: &[Scene], before: &[Truth]) -> BTreeSet<String> {
    let mut moved = BTreeSet::new();
    for (scene, before) in scenes.iter().zip(before) {
        if scene.labels().await.get("AWSCURRENT") != before.labels.get("AWSCURRENT") {
            assert!(scene.current().await.works(&scene.cloud).await, "{}", scene.user);
            moved.insert(scene.user.clone());
        }
    }
    moved
}

#[tokio::test]
async fn a_wave_of_which_one_in_five_fails_stops_the_campaign_and_the_next_one_does_the_rest() {
    let Some(cloud) = Cloud::here().await else { return };
    let _only = CAMPAIGNS.lock().await;
    let ours = format!("fleet-e2e-{}", fresh());
    let (mut scenes, mut ages) = (Vec::new(), serde_json::Map::new());
    for (wave, users) in WAVES.into_iter().enumerate() {
        for number in 0..users {
            let scene = Scene::named(&cloud, &format!("{ours}-w{wave}-{number}")).await;
            let pair = scene.make_key().await;
            scene.put(&scene.value(&pair)).await;
            // The emulator's keys are all of today.
            ages.insert(pair.id.clone(), json!(100));
            scenes.push(scene);
        }
    }
    // One that is exempt, one that is not due, and one that is due soon.
    for name in ["exempt", "young", "soon"] {
        let scene = Scene::named(&cloud, &format!("{ours}-{name}")).await;
        let pair = scene.make_key().await;
        scene.put(&scene.value(&pair)).await;
        match name {
            "exempt" => drop(ages.insert(pair.id.clone(), json!(100))),
            "soon" => drop(ages.insert(pair.id.clone(), json!(85))),
            _ => {}
        }
        scenes.push(scene);
    }
    cloud.age(&Value::Object(ages)).await;
    let all: BTreeSet<&str> = scenes[..13].iter().map(|scene| scene.user.as_str()).collect();
    let mut exempt = others_than(&ours);
    exempt
        .push(json!({"user": format!("{ours}-exempt"), "owner": "a", "reason": "b", "until": "2099-01-01"}));
    let policy = json!({
        "rules": [
            {"name": "soon", "match": {"user": format!("{ours}-soon")}, "set": {"warn": "7d", "owner": "eve"}},
            {"name": "canary", "match": {"user": format!("{ours}-w0-*")}, "set": {"wave": 0}},
            {"name": "rest", "match": {"user": format!("{ours}-*")}, "set": {"wave": 7, "owner": "team@example.com"}},
        ],
        "exemptions": exempt,
    });
    let version = cloud.put_object(POLICY, &policy.to_string()).await;
    let before = truths(&scenes).await;

    // Said first, and nothing touched.
    let planned = cloud.campaign(&new_id(), &json!({"dry_run": true})).await;
    planned.expect("Planned");
    assert_eq!(planned.text("/policy_version"), version);
    let lines = cloud.planned(&planned, &ours).await;
    assert_eq!((users(&lines, "rotate"), users(&lines, "skip").len()), (all.clone(), 3));
    assert_eq!(truths(&scenes).await, before);
    assert_eq!(warnings(&planned).len(), 0, "whoever asks for a plan warns nobody");

    // Two of the canary's ten get no key.
    let id = new_id();
    let campaign: RunId = id.parse().unwrap();
    for scene in &scenes[..FAILING] {
        let run = campaign.child(&scene.secret).to_string();
        cloud.fault(refusal(&run, ("iam", "CreateAccessKey"), 403, "AccessDenied")).await;
    }
    let stopped = cloud.campaign(&id, &json!({"reason": "scheduled"})).await;
    stopped.expect("Stopped").expect_code("TooManyFailed");
    let named: BTreeSet<&str> = stopped.doc["failed"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|failed| failed["whom"].as_str())
        .collect();
    let failed: BTreeSet<&str> = scenes[..FAILING].iter().map(|scene| scene.user.as_str()).collect();
    assert_eq!(named, failed, "{}", stopped.why());
    let summary = stopped.doc["notices"].as_array().unwrap().last().unwrap();
    assert!(failed.iter().all(|user| summary["text"].as_str().unwrap().contains(user)), "{summary}");
    let canary: BTreeSet<String> = scenes[FAILING..10].iter().map(|scene| scene.user.clone()).collect();
    assert_eq!(moved(&scenes, &before).await, canary);
    // The later wave, the exempt and the young are as they were, and so are those that failed.
    let after = truths(&scenes).await;
    assert_eq!((&after[..FAILING], &after[10..]), (&before[..FAILING], &before[10..]));

    let told = warnings(&stopped);
    let [(told_as, text)] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!(*told_as, format!("{id}/DueSoon/eve"));
    assert!(text.contains(&format!("\n- {ours}-soon: 85 days old, due on ")), "{text}");

    // The next one takes up what is still due, and nothing twice.
    let done = cloud.campaign(&new_id(), &json!({"reason": "scheduled"})).await;
    done.expect("Done");
    assert_eq!(warnings(&done).len(), 0, "it was told by the one before");
    let rest: BTreeSet<String> =
        scenes[..FAILING].iter().chain(&scenes[10..13]).map(|scene| scene.user.clone()).collect();
    assert_eq!(moved(&scenes, &after).await, rest);
    let last = cloud.campaign(&new_id(), &json!({})).await;
    assert_eq!(users(&cloud.planned(&last, &ours).await, "rotate"), BTreeSet::new(), "{}", last.why());
    for scene in &scenes[..13] {
        assert_eq!(scene.keys().await.len(), 2, "{} is in its overlap, with one new key", scene.user);
    }

    // Their overlap is a day: what waits there would outlive this test.
    for ended in [&stopped, &done] {
        stop_rotations(&cloud, ended).await;
    }
    println!(
        "fleet: {} planned; stopped at {FAILING} of {} failed, {} promoted; then the other {} done",
        all.len(),
        WAVES[0],
        canary.len(),
        rest.len()
    );
}
