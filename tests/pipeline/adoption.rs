//! The first rotation of a secret that Keywheel did not fill.

use keywheel::rotation::Outcome;
use serde_json::json;
use support::fake::Maker;
use support::faults::{Fault, Kind, Plan};
use support::world::{SECRET, USER, World, request};

#[tokio::test(start_paused = true)]
async fn a_secret_without_a_value_gets_its_first_key_and_only_a_validated_one() {
    let world = World::without_value();
    let run = world.run(request()).await;
    run.expect(Outcome::Completed);
    assert_eq!(run.why(), "Adopted");
    world.assert_sound();
    let value = world.current_value();
    assert_eq!((value["UserName"].as_str(), world.keys().len()), (Some(USER), 1));
    // The placeholder came first, so that the new key was not current before it was validated.
    assert_eq!(world.fake.state().secret(SECRET).versions[0].id, run.id.placeholder_version().as_str());
}

#[tokio::test(start_paused = true)]
async fn a_value_without_credentials_keeps_its_fields() {
    let world = World::without_value();
    world.fake.state().put_current(SECRET, &json!({"Host": "mail.example", "Port": 587}).to_string());
    world.run(request()).await.expect(Outcome::Completed);
    world.assert_sound();
    let value = world.current_value();
    assert_eq!(
        (&value["Host"], &value["Port"], &value["UserName"]),
        (&json!("mail.example"), &json!(587), &json!(USER))
    );
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_there_before_is_left_alone() {
    let world = World::without_value();
    let stranger = world.fake.state().add_key(USER, Maker::Stranger);
    let run = world.run(request()).await;
    run.expect(Outcome::Completed);
    assert!(run.doc().why.as_ref().unwrap().remedy.contains(&stranger), "{:?}", run.doc().why);
    assert_eq!(world.keys().len(), 2);
    world.assert_sound();
    // The slot is not freed by the next run either.
    world.run(request()).await.expect_blocked("SlotsFull");
    assert!(world.keys().contains(&stranger));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_its_owner_gave_up_goes_the_whole_way() {
    let world = World::without_value();
    let stranger = {
        let mut state = world.fake.state();
        let key = state.add_key(USER, Maker::Stranger);
        let at = state.now();
        state.use_key(&key, "s3", at);
        state.users.get_mut(USER).unwrap().tags.insert("keywheel:retire".into(), key.clone());
        key
    };
    let started = world.fake.state().now();
    world.run(request()).await.expect(Outcome::Completed);
    world.assert_sound();
    assert!(!world.keys().contains(&stranger));
    let state = world.fake.state();
    assert!(
        state.now().duration_since(started).as_hours() >= 24 * 8,
        "overlap, quiet window and grace were not kept"
    );
}

#[tokio::test(start_paused = true)]
async fn two_rotations_leave_one_key_and_it_is_ours() {
    // The owner's pair is in the secret; another key of theirs, given up, is beside it.
    let world = World::new();
    world.consumer();
    let old = world.current_key();
    {
        let mut state = world.fake.state();
        let key = state.add_key(USER, Maker::Stranger);
        state.users.get_mut(USER).unwrap().tags.insert("keywheel:retire".into(), key);
    }
    for _ in 0..2 {
        world.run(request()).await.expect(Outcome::Completed);
        world.assert_sound();
    }
    let (keys, current) = (world.keys(), world.current_key());
    assert_eq!((keys.len(), keys.contains(&old)), (1, false));
    assert!(matches!(world.fake.state().key(&current).unwrap().1.maker, Maker::Run(_)));
}

#[tokio::test(start_paused = true)]
async fn a_first_adoption_survives_a_lost_reply_of_every_write() {
    for name in
        ["secretsmanager:PutSecretValue", "iam:CreateAccessKey", "secretsmanager:UpdateSecretVersionStage"]
    {
        for kind in [Kind::LostBefore, Kind::LostAfter, Kind::KilledBefore, Kind::KilledAfter] {
            let world = World::without_value();
            world.fake.state().plan = Plan::new([Fault::on(name, kind)]);
            let run = world.run(request()).await;
            assert_eq!(run.outcome(), Some(Outcome::Completed), "{name} {kind:?}: {:?}", run.walk.states());
            world.assert_sound();
            assert_eq!(world.keys().len(), 1, "{name} {kind:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_first_adoption_that_fails_leaves_no_key() {
    let world = World::without_value();
    world.fake.state().plan = Plan::new([Fault::on("sts:GetCallerIdentity", Kind::Refused).for_good()]);
    world.run(request()).await.expect(Outcome::RolledBack);
    assert!(world.keys().is_empty());
    world.fake.state().plan = Plan::default();
    world.run(request()).await.expect(Outcome::Completed);
    world.assert_sound();
}
