//! Keys that nobody uses, from the campaign that finds them to their end: the machine's own definition, the real steps
//! and the fake AWS.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, where a panic with its place is what should be seen"
)]

#[path = "unused/faults.rs"]
mod faults;
#[path = "unused/grace.rs"]
mod grace;
#[path = "unused/scan.rs"]
mod scan;

use keywheel::unused::Outcome;
use serde_json::{Value, json};
use support::campaign::Campaigned;
use support::estate::days;
use support::world::World;

/// The user whose key nobody uses.
const OLD: &str = "svc-old";

/// What the policy says of unused keys.
fn policy() -> Value {
    json!({"defaults": {"unused": {"disable_after": "120d", "delete_after": "30d"}}})
}

/// An account whose policy lets unused keys go, with a user that nobody manages, and that has said so. Its one key is so
/// many days old and was never used. The world's own user is not due.
fn world(age: u64) -> (World, String) {
    let world = World::new();
    world.push_policy(policy());
    let current = world.current_key();
    world.fake.state().age_key(&current, 10);
    world.unmanaged(OLD);
    world.allow_removal(OLD);
    let key = world.unused_key(OLD, age);
    (world, key)
}

async fn scheduled(world: &World) -> Campaigned {
    world.campaign(json!({"reason": "scheduled"})).await
}

/// The codes in a campaign's plan, of that user.
fn codes(world: &World, done: &Campaigned, user: &str) -> Vec<String> {
    let state = world.fake.state();
    let lines = state.object(&done.doc().plan()).unwrap_or_default();
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let own = lines.filter(|line| line["user"] == user);
    own.map(|line| line["code"].as_str().unwrap().to_owned()).collect()
}

fn exists(world: &World, key: &str) -> bool {
    world.fake.state().key(key).is_some_and(|(_, key)| key.exists())
}

/// When a call on a key took effect last.
fn when(world: &World, name: &str, key: &str) -> Option<jiff::Timestamp> {
    let state = world.fake.state();
    let of = |call: &&support::fake::Call| {
        call.name == name && call.status == 200 && call.params["AccessKeyId"] == key
    };
    state.calls.iter().rfind(of).map(|call| call.at)
}

#[tokio::test(start_paused = true)]
async fn a_key_is_untouched_a_day_before_its_time_and_goes_at_its_time() {
    for (age, goes) in [(119, false), (120, true)] {
        let (world, key) = world(age);
        let done = scheduled(&world).await;
        assert_eq!((done.doc().counts.unused, done.removals.len()), (usize::from(goes), usize::from(goes)));
        assert_eq!(exists(&world, &key), !goes, "{age}");
        assert_eq!(world.is_active(&key), !goes, "{age}");
        for removal in &done.removals {
            removal.expect(Outcome::Removed, "Removed");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_was_used_counts_from_its_last_use() {
    for (used, goes) in [(119, false), (120, true)] {
        let (world, key) = world(400);
        {
            let mut state = world.fake.state();
            let at = state.ago(days(used));
            state.use_key(&key, "s3", at);
        }
        assert_eq!(scheduled(&world).await.removals.len(), usize::from(goes), "{used}");
        assert_eq!(exists(&world, &key), !goes);
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_inactive_for_its_whole_grace_and_deleted_at_its_end() {
    let (world, key) = world(200);
    let done = scheduled(&world).await;
    let [removal] = &done.removals[..] else { panic!("{:?}", done.removals) };
    removal.expect(Outcome::Removed, "Removed");
    let disabled = when(&world, "iam:UpdateAccessKey", &key).unwrap();
    let deleted = when(&world, "iam:DeleteAccessKey", &key).unwrap();
    let grace = deleted.duration_since(disabled).as_secs();
    let day = 24 * 60 * 60;
    assert!((30 * day..30 * day + 60).contains(&grace), "{grace}");
    // It is looked at every day.
    let looks = removal.walk.states().iter().filter(|state| **state == "DeleteUnused").count();
    assert_eq!(looks, 30);
    let doc = removal.doc.as_ref().unwrap();
    let kinds: Vec<&str> = doc.notices.iter().map(|notice| notice.kind.name()).collect();
    assert_eq!(kinds, ["Disabled", "Deleted", "Ended"]);
    assert!(doc.notices[0].text.contains(&format!("`keywheel restore {key}`")), "{}", doc.notices[0].text);
    // Its start, two writes, and nobody else's.
    let writes = ["states:StartExecution", "iam:UpdateAccessKey", "iam:DeleteAccessKey"];
    assert_eq!(world.writes_on(&key), writes);
    world.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn where_the_policy_names_no_delete_it_is_inactive_and_kept() {
    let (world, key) = world(200);
    world.push_policy(json!({"defaults": {"unused": {"disable_after": "120d"}}}));
    let done = scheduled(&world).await;
    done.removals[0].expect(Outcome::Disabled, "Disabled");
    world.days_pass(400).await;
    assert!(exists(&world, &key) && !world.is_active(&key));
    // It is Inactive, and no campaign takes it up again.
    assert_eq!(scheduled(&world).await.removals.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_the_user_has_not_asked_for_is_only_told() {
    let (world, key) = world(200);
    world.fake.state().users.get_mut(OLD).unwrap().tags.clear();
    let done = scheduled(&world).await;
    assert_eq!((done.removals.len(), done.doc().counts.unused), (0, 0));
    assert_eq!(codes(&world, &done, OLD), ["OverAge", "Unused", "UnusedNotAllowed"]);
    // Whoever starts a run.
    world.removal(&world.removed(OLD, &key)).await.expect(Outcome::Left, "NotAllowed");
    assert!(world.is_active(&key));
}
