//! What `keywheel policy push` writes, in its order: the freezes for runs under way, and the policy for campaigns.

use facts::bucket::{Bucket, Deleted, If};
use facts::fleet::{Unpushed, push, read_freezes};
use keywheel::StepError;
use keywheel::campaign::{Outcome as Ended, POLICY};
use keywheel::fleet::freeze::{self, Freezes};
use serde_json::{Value, json};
use support::faults::{Fault, Kind, Plan};
use support::functions::{BUCKET, STAGE};
use support::world::World;

use super::policy;

fn frozen(until: &str) -> Value {
    json!({"limits": {"freeze": [{"from": "2026-01-01T00:00:00Z", "until": until, "reason": "year end"}]}})
}

/// Pushes a policy as the command does, over what lies there.
async fn pushed(world: &World, document: &Value) -> Result<Option<String>, Unpushed> {
    let there = there(world).await;
    pushed_over(world, there, document).await
}

/// What lies there, for a push.
async fn there(world: &World) -> If {
    let bucket = Bucket::new(&world.fake.config_of("somebody"), BUCKET);
    let stored = bucket.read(POLICY, None).await.unwrap();
    stored.map_or(If::Absent, |stored| If::Is(stored.tag.unwrap()))
}

/// Pushes a policy over what has been read before.
async fn pushed_over(world: &World, there: If, document: &Value) -> Result<Option<String>, Unpushed> {
    let config = world.fake.config_of("somebody");
    let (ssm, bucket) = (aws_sdk_ssm::Client::new(&config), Bucket::new(&config, BUCKET));
    let policy = policy(document.clone());
    let freezes = freeze::text(&policy.limits.freezes_left(world.fake.state().now())).unwrap();
    push((&ssm, STAGE), (&bucket, there), freezes, serde_json::to_string(&policy).unwrap()).await
}

/// How often the policy was written, and the freezes that runs under way know.
async fn written(world: &World) -> (usize, Freezes) {
    let ssm = aws_sdk_ssm::Client::new(&world.fake.config_of("somebody"));
    let freezes = read_freezes(&ssm, STAGE).await.unwrap();
    let state = world.fake.state();
    (state.objects.iter().filter(|object| object.key == POLICY).count(), freezes)
}

#[tokio::test(start_paused = true)]
async fn freezes_are_written_before_the_policy_and_those_that_are_over_are_taken_away() {
    let world = World::new();
    assert_eq!(written(&world).await, (0, Freezes::Known(Vec::new())));
    let holds = frozen("2026-01-10T00:00:00Z");
    assert!(pushed(&world, &holds).await.unwrap().is_some());
    assert_eq!(written(&world).await, (1, Freezes::Known(policy(holds).limits.freeze)));
    let names = world.fake.call_names();
    let place = |name: &str| names.iter().position(|made| made == name).unwrap();
    assert!(place("ssm:PutParameter") < place("s3:PutObject"), "{names:?}");
    // One without freezes, and one whose freeze is over, end what holds.
    for ends in [json!({}), frozen("2026-01-02T00:00:00Z")] {
        pushed(&world, &frozen("2026-01-10T00:00:00Z")).await.unwrap();
        pushed(&world, &ends).await.unwrap();
        assert_eq!(written(&world).await.1, Freezes::Known(Vec::new()), "{ends}");
    }
}

#[tokio::test(start_paused = true)]
async fn where_the_freezes_cannot_be_written_the_policy_stays_unpushed() {
    for kind in [Kind::Refused, Kind::Throttled, Kind::ErrorBefore] {
        let world = World::new();
        world.fake.state().plan = Plan::new([Fault::on("ssm:PutParameter", kind).for_good()]);
        match pushed(&world, &frozen("2026-01-10T00:00:00Z")).await.unwrap_err() {
            Unpushed::All(error) => assert!(error.to_string().contains("ssm:PutParameter"), "{error}"),
            Unpushed::Policy(error) | Unpushed::Outrun(error) => panic!("the freezes were written: {error}"),
        }
        assert_eq!(written(&world).await, (0, Freezes::Known(Vec::new())), "{kind:?}");
    }
    // The other way round the freezes hold: what they leave can go later.
    let world = World::new();
    world.fake.state().denied.insert("s3:PutObject".to_owned());
    let left = pushed(&world, &frozen("2026-01-10T00:00:00Z")).await.unwrap_err();
    assert!(matches!(left, Unpushed::Policy(StepError::Refused(_))), "{left:?}");
    let (times, freezes) = written(&world).await;
    assert_eq!((times, freezes.holding(world.fake.state().now()).is_some()), (0, true));
}

#[tokio::test(start_paused = true)]
async fn of_two_who_push_at_once_the_later_is_refused() {
    let world = World::new();
    let of = |keys: u32| json!({"limits": {"keys_per_run": keys}});
    let second = of(4);
    // Nothing lies there when both look, and then something that both have seen.
    for (times, keys) in [(1, 3), (2, 5)] {
        let seen = there(&world).await;
        pushed_over(&world, seen.clone(), &of(keys)).await.unwrap();
        let left = pushed_over(&world, seen, &second).await.unwrap_err();
        assert!(matches!(&left, Unpushed::Outrun(StepError::Refused(_))), "{left:?}");
        assert_eq!(written(&world).await.0, times);
        let state = world.fake.state();
        assert!(state.object(POLICY).unwrap().contains(&format!("\"keys_per_run\":{keys}")));
    }
    // Whoever looks again is let in.
    pushed(&world, &second).await.unwrap();
    assert!(world.fake.state().object(POLICY).unwrap().contains("\"keys_per_run\":4"));
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_was_deleted_is_not_one_that_nobody_has_pushed() {
    let world = World::new();
    let bucket = Bucket::new(&world.fake.config_of("somebody"), BUCKET);
    assert_eq!(bucket.read_kept(POLICY, None).await.unwrap(), Ok(None));
    let version = pushed(&world, &json!({})).await.unwrap().unwrap();
    world.fake.state().delete_object(POLICY);
    assert_eq!(bucket.read_kept(POLICY, None).await.unwrap(), Err(Deleted));
    for input in [json!({"reason": "scheduled"}), json!({}), json!({"dry_run": true})] {
        let done = world.campaign(input).await;
        done.expect(Ended::Refused, "PolicyDeleted");
        assert_eq!(done.rotations.len(), 0);
    }
    // A version that is named is there still, and the next push is as good as the first.
    let asked = json!({"dry_run": true, "policy_version": version});
    world.campaign(asked).await.expect(Ended::Planned, "DryRun");
    pushed(&world, &json!({})).await.unwrap();
    world.campaign(json!({"dry_run": true})).await.expect(Ended::Planned, "DryRun");
    world.assert_all_sound();
}
