//! Rotations that were stopped at random moments, and the campaign that takes them over.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use keywheel::RunId;
use keywheel::campaign::POLICY;
use serde_json::json;

use crate::cloud::{Cloud, fresh};
use crate::fleet::{CAMPAIGNS, others_than, users};
use crate::killed::seed;
use crate::run::{Run, all, new_id};
use crate::scene::Scene;

/// How many rotations are stopped.
const STOPPED: usize = 5;
/// The latest of their moments: a rotation takes about eight seconds.
const LATEST: u64 = 5_000;

/// Rotates until it is done: a step of the run before may still be at work for a moment.
async fn to_its_end(scene: Scene) {
    for _ in 0..2 {
        assert!(scene.current().await.works(&scene.cloud).await);
        let end = scene.rotate().await;
        if end.outcome() == "Completed" {
            break;
        }
        assert!(["Blocked", "RolledBack"].contains(&end.outcome()), "{:?}: {}", end.status, end.why());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    scene.expect_one_working_key().await;
}

#[tokio::test]
async fn rotations_stopped_at_five_random_moments_are_taken_over_by_the_next_campaign() {
    let Some(cloud) = Cloud::here().await else { return };
    let _only = CAMPAIGNS.lock().await;
    let seed = seed();
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let ours = format!("taken-e2e-{}", fresh());
    cloud.put_object(POLICY, &json!({ "exemptions": others_than(&ours) }).to_string()).await;
    let mut runs = Vec::new();
    for number in 0..STOPPED {
        let scene = Scene::named(&cloud, &format!("{ours}-{number}")).await;
        let pair = scene.make_key().await;
        scene.put(&scene.value(&pair)).await;
        // A key of which IAM knows no use counts as in use.
        assert!(pair.works(&cloud).await);
        let moment = Duration::from_millis(rng.u64(..LATEST));
        runs.push((moment, scene.start().await, scene));
    }
    runs.sort_by_key(|(moment, ..)| *moment);
    let began = Instant::now();
    for (moment, run, _) in &runs {
        tokio::time::sleep(moment.saturating_sub(began.elapsed())).await;
        run.stop().await;
    }
    // Whoever stops an execution does not stop the Lambda that it waits for.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut left = BTreeSet::new();
    for (.., scene) in &runs {
        if scene.keys().await.len() == 2 {
            left.insert(scene.user.as_str());
        }
    }

    let id = new_id();
    let campaign: RunId = id.parse().unwrap();
    let taken = cloud.campaign(&id, &json!({"reason": "scheduled"})).await;
    taken.expect("Done");
    let lines = cloud.planned(&taken, &ours).await;
    assert_eq!(users(&lines, "rotate"), left, "{lines:?}");
    for line in lines.iter().filter(|line| line["action"] == "rotate") {
        assert!(["TakeOver", "Reconcile"].contains(&line["code"].as_str().unwrap()), "{line}");
    }
    // Each has begun where the other one stopped. Its overlap is a day: a brief run takes that over once more.
    for (.., scene) in runs.iter().filter(|(.., scene)| left.contains(scene.user.as_str())) {
        assert!(scene.keys().await.len() <= 2);
        Run::known(&cloud, &campaign.child(&scene.secret).to_string()).stop().await;
    }
    println!("taken over: {} of {STOPPED} rotations had left two keys", left.len());
    let rest = |(_, _, scene): (Duration, Run, Scene)| (scene.user.clone(), to_its_end(scene));
    all(STOPPED, runs.into_iter().map(rest).collect()).await;
}
