//! An account whose secrets are in several regions, some of which may not be read, and some of which hold replicas.

use std::collections::BTreeSet;
use std::time::Duration;

use keywheel::Outcome;
use keywheel::campaign::{Campaign, Outcome as Ended};
use serde_json::{Value, json};
use support::world::World;

use crate::all_due;

/// Three regions, the machine's own first.
fn three(world: &World) -> [String; 3] {
    let there = world.other_region();
    let own = world.fake.state().region.clone();
    let third = there.replacen("north", "south", 1);
    assert!(own != there && there != third && own != third);
    [own, there, third]
}

/// Adds a managed user whose secret is in that region, and whose key is due.
fn due_in(world: &World, region: &str, name: &str) {
    world.managed(name, &[120]);
    let mut state = world.fake.state();
    let own = state.region.clone();
    let secret = state.secret_mut(name);
    secret.arn = secret.arn.replacen(&format!(":{own}:"), &format!(":{region}:"), 1);
    let arn = secret.arn.clone();
    state.users.get_mut(name).unwrap().tags.insert("keywheel:secret".into(), arn);
}

/// The lines of a campaign's plan with that code.
fn lines(world: &World, doc: &Campaign, code: &str) -> Vec<Value> {
    let state = world.fake.state();
    let lines = state.object(&doc.plan()).unwrap().lines();
    let lines = lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["code"] == code).collect()
}

fn set<const N: usize>(users: [&str; N]) -> BTreeSet<String> {
    users.map(str::to_owned).into()
}

fn promoted(world: &World) -> BTreeSet<String> {
    world.promotions().into_keys().collect()
}

#[tokio::test(start_paused = true)]
async fn of_three_regions_one_is_denied_and_its_users_are_skipped_and_named() {
    let world = all_due(2);
    let regions = three(&world);
    for (region, name) in [(1, "there-0"), (1, "there-1"), (2, "third-0"), (2, "third-1")] {
        due_in(&world, &regions[region], name);
    }
    world.push_policy(json!({"regions": regions}));
    let denied = format!("secretsmanager:ListSecrets@{}", regions[2]);
    world.fake.state().denied.insert(denied.clone());

    let done = world.campaign(json!({"reason": "scheduled"})).await;
    done.expect(Ended::Done, "AllBegun");
    let others = set(["svc-00", "svc-01", "there-0", "there-1"]);
    assert_eq!(world.planned(done.doc(), "rotate"), others);
    assert_eq!((promoted(&world), done.doc().done()), (others, (4, 0)));
    for run in &done.rotations {
        run.expect(Outcome::Completed);
    }
    // The region is named with its reason, and so is each of its users.
    let unread = lines(&world, done.doc(), "RegionUnread");
    let [unread] = &unread[..] else { panic!("{unread:?}") };
    let why = unread["why"].as_str().unwrap();
    assert!(why.contains(&regions[2]) && why.contains("AccessDenied"), "{why}");
    assert_eq!(done.doc().counts.unread, 1);
    let skipped = lines(&world, done.doc(), "PerhapsUnmanaged");
    let named: BTreeSet<String> =
        skipped.iter().map(|line| line["user"].as_str().unwrap().to_owned()).collect();
    assert_eq!(named, set(["third-0", "third-1"]));
    assert!(skipped.iter().all(|line| line["why"].as_str().unwrap().contains(&regions[2])), "{skipped:?}");
    for user in ["third-0", "third-1"] {
        assert_eq!(world.writes_on(user), [""; 0]);
    }

    // They are due as before when the region can be read.
    world.fake.state().denied.remove(&denied);
    let done = world.campaign(json!({"reason": "scheduled"})).await;
    done.expect(Ended::Done, "AllBegun");
    assert_eq!(world.planned(done.doc(), "rotate"), set(["third-0", "third-1"]));
    assert_eq!((promoted(&world).len(), done.doc().counts.unread), (6, 0));
    world.assert_all_sound();
}

#[tokio::test(start_paused = true)]
async fn a_region_in_which_no_value_may_be_read_fails_its_runs_and_no_others() {
    let world = all_due(2);
    let regions = three(&world);
    due_in(&world, &regions[1], "there-0");
    world.push_policy(json!({"regions": regions, "limits": {"failure_tolerance_percent": 50}}));
    world.fake.state().denied.insert(format!("secretsmanager:GetSecretValue@{}", regions[1]));
    let done = world.campaign(json!({"reason": "scheduled"})).await;
    // That the value is hidden keeps nobody from planning; its run then says so, and touches nothing.
    assert_eq!(world.planned(done.doc(), "rotate"), set(["svc-00", "svc-01", "there-0"]));
    assert_eq!((promoted(&world), done.doc().done()), (set(["svc-00", "svc-01"]), (2, 1)));
    let [failed] = &done.doc().failed[..] else { panic!("{:?}", done.doc().failed) };
    assert!(failed.whom.contains("there-0") && failed.text.contains("AccessDenied"), "{failed:?}");
    assert_eq!(world.fake.state().users["there-0"].keys.len(), 1);
    world.assert_all_sound();
}

#[tokio::test(start_paused = true)]
async fn a_user_whose_secret_has_replicas_is_rotated_once_and_where_the_primary_is() {
    let world = all_due(1);
    let regions = three(&world);
    for region in &regions[1..] {
        world.fake.state().replicate("svc-00", region, Duration::from_mins(1));
    }
    // Where only a replica is seen, it says where to look.
    world.push_policy(json!({"regions": [regions[1]]}));
    let done = world.campaign(json!({"reason": "scheduled"})).await;
    let elsewhere = lines(&world, done.doc(), "PrimaryElsewhere");
    let [line] = &elsewhere[..] else { panic!("{elsewhere:?}") };
    assert_eq!((line["user"].as_str(), promoted(&world).len()), (Some("svc-00"), 0));
    assert!(line["why"].as_str().unwrap().contains(&regions[0]), "{line}");

    world.push_policy(json!({"regions": regions}));
    let done = world.campaign(json!({"reason": "scheduled"})).await;
    done.expect(Ended::Done, "AllBegun");
    assert_eq!((world.planned(done.doc(), "rotate"), promoted(&world)), (set(["svc-00"]), set(["svc-00"])));
    done.rotations[0].expect(Outcome::Completed);
    assert_eq!(world.fake.state().lagging("svc-00"), Vec::<String>::new());
    world.assert_all_sound();
}
