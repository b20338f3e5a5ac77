//! A campaign over three accounts: the installation's own, one that lets it in, and one that does not.

use keywheel::campaign::POLICY;
use serde_json::{Value, json};

use crate::cloud::{Cloud, fresh};
use crate::fleet::{CAMPAIGNS, moved, others_than, stop_rotations, truths, users};
use crate::run::new_id;
use crate::scene::Scene;

/// An account without a role of ours.
const SHUT: &str = "777788889999";

#[tokio::test]
async fn of_three_accounts_two_are_done_and_the_one_that_is_shut_is_told_and_untouched() {
    let Some(cloud) = Cloud::here().await else { return };
    let _only = CAMPAIGNS.lock().await;
    let ours = format!("fleet-e2e-{}", fresh());
    let (open, shut) = (cloud.member(), cloud.of_account(SHUT));
    let (mut scenes, mut ages) = (Vec::new(), serde_json::Map::new());
    for (name, account) in [("own", &cloud), ("open", &open), ("shut", &shut)] {
        for number in 0..2 {
            let scene = Scene::named(account, &format!("{ours}-{name}-{number}")).await;
            let pair = scene.make_key().await;
            scene.put(&scene.value(&pair)).await;
            ages.insert(pair.id.clone(), json!(100));
            scenes.push(scene);
        }
    }
    cloud.age(&Value::Object(ages)).await;
    let open = std::env::var("KEYWHEEL_MEMBER_ACCOUNT").unwrap();
    let policy = json!({ "accounts": [open, SHUT], "exemptions": others_than(&ours) });
    let version = cloud.put_object(POLICY, &policy.to_string()).await;
    let before = truths(&scenes).await;

    let input = json!({ "reason": "scheduled", "policy_version": version });
    let done = cloud.campaign(&new_id(), &input).await;
    done.expect("Done");
    let rotated = scenes[..4].iter().map(|scene| scene.user.clone()).collect();
    assert_eq!(moved(&scenes, &before).await, rotated, "{}", done.why());
    assert_eq!(truths(&scenes[4..]).await, before[4..], "nothing of the shut account was touched");

    let lines = cloud.planned(&done, "").await;
    let unread: Vec<&Value> = lines.iter().filter(|line| line["code"] == "AccountUnread").collect();
    let [line] = unread[..] else { panic!("{lines:?}") };
    assert_eq!(line["account"], SHUT);
    let of_open: Vec<&Value> =
        lines.iter().filter(|line| line["account"] == open.as_str() && line["action"] == "rotate").collect();
    assert_eq!(of_open.len(), 2, "{lines:?}");
    let planned = users(&lines, "rotate");
    assert!(planned.iter().all(|user| user.starts_with(&format!("{ours}-o"))), "{planned:?}");
    stop_rotations(&cloud, &done).await;
}
