//! One undisturbed rotation: keys and labels at every stage, its calls, and what is kept.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use crate::cloud::Cloud;
use crate::requests::{Kind, Request, names};
use crate::run::{brief_but, new_id};
use crate::scene::Scene;
use crate::watch::Watch;

/// The changes of one undisturbed rotation, in their order.
const WRITES: [&str; 5] = [
    "iam:CreateAccessKey",
    "secretsmanager:PutSecretValue",
    "secretsmanager:UpdateSecretVersionStage",
    "iam:UpdateAccessKey",
    "iam:DeleteAccessKey",
];
/// The most calls that one may take, gate, switch and notices apart.
const CALLS: usize = 21;

#[tokio::test]
async fn p1_a_whole_rotation_always_has_a_working_key_and_takes_five_writes() {
    let Some(cloud) = Cloud::here().await else { return };
    let (scene, old) = Scene::managed(&cloud, "whole").await;
    let (before, others) = (scene.truth().await, scene.other_fields().await);
    let watch = Watch::start(&scene, Duration::from_millis(50));
    let policy = brief_but(&json!({ "overlap": "2s", "grace": "2s" }));
    let run = scene.start_with(&new_id(), json!({ "policy": policy })).await;
    run.end().await.expect("Completed");
    let new = scene.expect_one_working_key().await;
    let seen = watch.end();

    // Keys and what AWSCURRENT names, stage by stage.
    let keys = |keys: &[(&str, bool)]| -> BTreeMap<String, bool> {
        keys.iter().map(|(id, active)| ((*id).to_owned(), *active)).collect()
    };
    let (old, new) = (old.id.as_str(), new.id.as_str());
    let expected = [
        (keys(&[(old, true)]), old.to_owned()),
        (keys(&[(old, true), (new, true)]), old.to_owned()),
        (keys(&[(old, true), (new, true)]), new.to_owned()),
        (keys(&[(old, false), (new, true)]), new.to_owned()),
        (keys(&[(new, true)]), new.to_owned()),
    ];
    assert_eq!(seen.stages, expected);
    assert!(!old.is_empty() && old != new && seen.looks > 60, "{} looks", seen.looks);

    // Labels: the new version is named after the run, and comes by way of AWSPENDING.
    let first = before.labels["AWSCURRENT"].as_str();
    let labels = |labels: &[(&str, &str)]| -> BTreeMap<String, String> {
        labels.iter().map(|(label, version)| ((*label).to_owned(), (*version).to_owned())).collect()
    };
    let id = run.id.as_str();
    let expected = [
        labels(&[("AWSCURRENT", first)]),
        labels(&[("AWSCURRENT", first), ("AWSPENDING", id)]),
        labels(&[("AWSCURRENT", id), ("AWSPENDING", id), ("AWSPREVIOUS", first)]),
    ];
    assert_eq!(seen.labels, expected);
    assert!(scene.other_fields().await == others, "a field that is not ours has changed");

    // Its calls.
    let log = run.requests().await;
    let of = |kind: Kind| -> Vec<Request> { log.iter().filter(|r| r.kind() == kind).cloned().collect() };
    let (writes, reads) = (of(Kind::Write), of(Kind::Read));
    assert_eq!(names(&writes), WRITES);
    assert!(writes.len() + reads.len() <= CALLS, "{} reads: {:?}", reads.len(), names(&reads));
    assert!(log.iter().all(|request| request.status == 200), "a call failed in an undisturbed run");
    // What a run does not sign with its name would be missing above.
    let forgot: Vec<Request> = cloud.requests().await.into_iter().filter(Request::forgot_its_run).collect();
    assert!(forgot.is_empty(), "calls that name no run: {:?}", names(&forgot));
}

#[tokio::test]
async fn a_user_with_a_path_and_the_longest_and_oddest_name_rotates() {
    let Some(cloud) = Cloud::here().await else { return };
    let mut name = format!("e2e+odd=,.@-_{}", crate::cloud::fresh());
    name.extend(std::iter::repeat_n('x', 64 - name.len()));
    let scene = Scene::named(&cloud, &name).await;
    let old = scene.make_key().await;
    scene.put(&scene.value(&old)).await;
    assert!(old.works(&cloud).await);
    scene.rotate().await.expect("Completed");
    assert_ne!(scene.expect_one_working_key().await.id, old.id);
}
