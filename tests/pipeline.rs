//! What a rotation promises, over the whole machine: an undisturbed one here, the others beside it.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, where a panic with its place is what should be seen"
)]

#[path = "pipeline/adoption.rs"]
mod adoption;
#[path = "pipeline/after_promotion.rs"]
mod after_promotion;
#[path = "pipeline/before_promotion.rs"]
mod before_promotion;
#[path = "pipeline/blocked.rs"]
mod blocked;
#[path = "pipeline/freeze.rs"]
mod freeze;
#[path = "pipeline/member.rs"]
mod member;
#[path = "pipeline/notices.rs"]
mod notices;
#[path = "pipeline/partitions.rs"]
mod partitions;
#[path = "pipeline/replicas.rs"]
mod replicas;
#[path = "pipeline/rollback.rs"]
mod rollback;
#[path = "pipeline/together.rs"]
mod together;

use std::time::Duration;

use keywheel::rotation::Outcome;
use support::world::{World, hours, request};

/// Every call of an undisturbed rotation, in its order; `(gate)`, `(switch)` and `(notice)` are counted apart.
const CALLS: [&str; 38] = [
    // Look
    "ssm:GetParameter (switch)",
    "secretsmanager:DescribeSecret",
    "iam:GetUser",
    "iam:ListAccessKeys",
    "secretsmanager:GetSecretValue",
    "secretsmanager:ListSecrets",
    // CreateKey
    "iam:ListAccessKeys",
    "secretsmanager:GetSecretValue",
    "ssm:GetParameter (switch)",
    "iam:CreateAccessKey",
    "secretsmanager:PutSecretValue",
    // ValidateKey
    "secretsmanager:GetSecretValue",
    "sts:GetCallerIdentity",
    "sts:GetCallerIdentity",
    "sts:GetCallerIdentity",
    // PromoteKey
    "ssm:GetParameter (switch)",
    "secretsmanager:UpdateSecretVersionStage",
    // NotifyPromoted: Created, Validated, Promoted
    "events:PutEvents (notice)",
    "sns:Publish (notice)",
    "sns:Publish (notice)",
    "sns:Publish (notice)",
    // DeactivateKey
    "ssm:GetParameters (switch)",
    "secretsmanager:DescribeSecret",
    "iam:ListAccessKeys",
    "secretsmanager:ListSecrets (gate)",
    "iam:GetAccessKeyLastUsed (gate)",
    "iam:UpdateAccessKey",
    "iam:ListAccessKeys",
    // NotifyDeactivated: Deactivated
    "events:PutEvents (notice)",
    "sns:Publish (notice)",
    // DeleteKey
    "ssm:GetParameters (switch)",
    "secretsmanager:DescribeSecret",
    "iam:GetAccessKeyLastUsed (gate)",
    "iam:ListAccessKeys",
    "iam:DeleteAccessKey",
    // NotifyOutcome: Deleted, Ended
    "events:PutEvents (notice)",
    "sns:Publish (notice)",
    "sns:Publish (notice)",
];

const WRITES: [&str; 5] = [
    "iam:CreateAccessKey",
    "secretsmanager:PutSecretValue",
    "secretsmanager:UpdateSecretVersionStage",
    "iam:UpdateAccessKey",
    "iam:DeleteAccessKey",
];

fn calls_of(world: &World) -> Vec<String> {
    let state = world.fake.state();
    let apart = |name: &str, function: Option<&str>| match (name, function) {
        ("ssm:GetParameter" | "ssm:GetParameters", _) => " (switch)",
        ("events:PutEvents" | "sns:Publish", _) => " (notice)",
        ("iam:GetAccessKeyLastUsed", _) | ("secretsmanager:ListSecrets", Some("deactivate-key")) => " (gate)",
        _ => "",
    };
    state
        .calls
        .iter()
        .map(|call| format!("{}{}", call.name, apart(&call.name, call.function.as_deref())))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn an_undisturbed_rotation_makes_exactly_these_calls() {
    let world = World::new();
    world.run(request()).await.expect(Outcome::Completed);
    assert_eq!(calls_of(&world), CALLS);
    assert!(CALLS.iter().filter(|call| !call.contains('(')).count() <= 21, "over the budget");
    let state = world.fake.state();
    let writes: Vec<&str> =
        state.calls.iter().map(|call| call.name.as_str()).filter(|name| WRITES.contains(name)).collect();
    assert_eq!(writes, WRITES);
}

#[tokio::test(start_paused = true)]
async fn an_undisturbed_rotation_replaces_the_key_and_nothing_else_of_the_value() {
    let world = World::new();
    world.consumer();
    let (before, started) = (world.current_value(), world.fake.state().now());
    let run = world.run(request()).await;
    run.expect(Outcome::Completed);
    world.assert_sound();
    let after = world.current_value();
    assert_ne!(after["AccessKeyId"], before["AccessKeyId"]);
    assert_ne!(after["SecretAccessKey"], before["SecretAccessKey"]);
    let rest = |value: &serde_json::Value| {
        let fields = value.as_object().unwrap().iter();
        fields
            .filter(|(name, _)| !name.contains("Access"))
            .map(|(n, v)| (n.clone(), v.clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(rest(&after), rest(&before));
    assert_eq!(world.keys().len(), 1);
    assert_eq!(after["AccessKeyId"], run.new_key().as_str());
    // Any version leads to its run.
    assert_eq!(world.labelled("AWSCURRENT").unwrap().id, run.id.to_string());
    // Overlap and quiet window (a day each, and the time in which consumers settle), then a week of grace.
    let took = Duration::try_from(world.fake.state().now().duration_since(started)).unwrap();
    assert!(took >= hours(24 * 8) && took < hours(24 * 9 + 2), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn every_call_carries_its_run() {
    let world = World::new();
    let run = world.run(request()).await;
    let state = world.fake.state();
    let nameless: Vec<&str> =
        state.calls.iter().filter(|call| call.run != Some(run.id)).map(|call| call.name.as_str()).collect();
    assert!(nameless.is_empty(), "without the run in their User-Agent: {nameless:?}");
}

#[tokio::test(start_paused = true)]
async fn every_function_calls_with_its_own_role() {
    let world = World::new();
    world.run(request()).await;
    let state = world.fake.state();
    for call in &state.calls {
        let role = state.role_of(&call.signer).map(|role| role.arn.clone());
        let own = call.function.as_deref().map(support::functions::role).unwrap();
        match role {
            Some(arn) => assert!(arn.ends_with(&own), "{} by {arn}", call.name),
            // Only the new key itself signs the identity test.
            None => assert_eq!(call.name, "sts:GetCallerIdentity"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn keys_that_are_accepted_late_are_waited_for() {
    for seconds in [1, 3, 8, 15, 40] {
        let world = World::new();
        world.consumer();
        world.fake.state().options.valid_after = Duration::from_secs(seconds);
        world.run(request()).await.expect(Outcome::Completed);
        world.assert_sound();
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_never_answers_is_rolled_back() {
    let world = World::new();
    world.consumer();
    let before = world.current_value();
    world.fake.state().options.valid_after = hours(2);
    world.run(request()).await.expect(Outcome::RolledBack);
    world.assert_sound();
    assert_eq!((world.current_value(), world.keys().len()), (before, 1));
    assert!(world.labelled("AWSPENDING").is_none(), "AWSPENDING is left behind");
}

#[tokio::test(start_paused = true)]
async fn lists_that_lag_and_keys_that_die_late_are_no_trouble() {
    let world = World::new();
    world.consumer();
    {
        let mut state = world.fake.state();
        state.options.list_lag = Duration::from_secs(5);
        state.options.valid_after = Duration::from_secs(8);
        state.options.dies_after = Duration::from_secs(4);
        state.options.last_used_lag = hours(4);
        state.options.page = 1;
    }
    world.run(request()).await.expect(Outcome::Completed);
    world.assert_sound();
    assert_eq!(world.keys().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn rotations_follow_each_other() {
    let world = World::new();
    world.consumer();
    for _ in 0..3 {
        let before = world.current_key();
        world.run(request()).await.expect(Outcome::Completed);
        assert_ne!(world.current_key(), before);
        assert_eq!(world.keys().len(), 1);
        world.assert_sound();
    }
}

#[tokio::test(start_paused = true)]
async fn a_secret_is_found_by_its_name_its_arn_and_its_arn_without_the_end() {
    let world = World::new();
    world.consumer();
    let arn = world.fake.state().secrets[0].arn.clone();
    for name in [support::world::SECRET, arn.as_str(), arn.rsplit_once('-').unwrap().0] {
        world.run(serde_json::json!({"secret": name})).await.expect(Outcome::Completed);
    }
}
