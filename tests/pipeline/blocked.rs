//! Where a run must not start, it says why and touches nothing.

use keywheel::RunId;
use keywheel::rotation::Outcome;
use serde_json::{Value, json};
use support::fake::{Fake, Maker, State};
use support::faults::{Fault, Kind, Plan};
use support::world::{Run, SECRET, USER, World, request};

fn changes(fake: &Fake) -> usize {
    let reads = ["Get", "List", "Describe", "Lookup"];
    let changes = |name: &str| {
        let action = name.split_once(':').unwrap().1;
        !reads.iter().any(|read| action.starts_with(read)) && !["PutEvents", "Publish"].contains(&action)
    };
    fake.call_names().iter().filter(|name| changes(name)).count()
}

async fn blocked_run(input: Value, meddle: impl FnOnce(&World, &mut State)) -> (World, Run) {
    let world = World::new();
    {
        let mut state = world.fake.state();
        meddle(&world, &mut state);
        state.watch.excuse();
    }
    let run = world.run(input).await;
    assert_eq!(changes(&world.fake), 0, "a blocked run changes nothing: {:?}", world.fake.call_names());
    (world, run)
}

async fn blocks(code: &str, meddle: impl FnOnce(&World, &mut State)) -> Run {
    let (_, run) = blocked_run(request(), meddle).await;
    run.expect_blocked(code);
    let why = run.doc().why.as_ref().unwrap();
    assert!(!why.text.is_empty() && !why.remedy.is_empty(), "{why:?}");
    run
}

fn set_value(state: &mut State, change: impl FnOnce(&mut Value)) {
    let mut value = state.secret(SECRET).current().unwrap();
    change(&mut value);
    state.put_current(SECRET, &value.to_string());
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_is_not_there_or_cannot_be_rotated() {
    blocks("NoSuchSecret", |_, state| state.secrets.clear()).await;
    blocks("SecretPendingDeletion", |_, state| {
        let now = state.now();
        state.secret_mut(SECRET).deleted = Some(now);
    })
    .await;
    blocks("SecretIsReplica", |_, state| state.secret_mut(SECRET).primary_region = Some("us-west-2".into()))
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_user_who_is_not_managed_from_both_sides() {
    blocks("NotManaged", |_, state| state.secret_mut(SECRET).tags.clear()).await;
    blocks("NotManaged", |_, state| {
        state.secret_mut(SECRET).tags.insert("keywheel:user".into(), "no name at all".into());
    })
    .await;
    blocks("NoSuchUser", |_, state| state.users.clear()).await;
    blocks("NotMutual", |_, state| state.users.get_mut(USER).unwrap().tags.clear()).await;
    blocks("NotMutual", |_, state| {
        let tags = &mut state.users.get_mut(USER).unwrap().tags;
        for arn in tags.values_mut() {
            arn.push('x');
        }
    })
    .await;
    blocks("TwoManagedSecrets", |_, state| {
        let mut second = state.secret(SECRET).clone();
        second.name = "app/second".into();
        second.arn = second.arn.replace(SECRET, "app/second");
        state.secrets.push(second);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_second_secret_is_found_on_the_last_page() {
    blocks("TwoManagedSecrets", |_, state| {
        let original = state.secret(SECRET).clone();
        for number in 0..250 {
            let mut other = original.clone();
            other.name = format!("app/other-{number}");
            other.arn = original.arn.replace(SECRET, &other.name);
            // All share the prefix that the filter looks for; only the last is the user's.
            let suffix = if number == 249 { "" } else { "-2" };
            other.tags.insert("keywheel:user".into(), format!("{USER}{suffix}"));
            state.secrets.push(other);
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_value_that_is_not_understood() {
    blocks("NotJson", |_, state| drop(state.put_current(SECRET, "AKIA and a secret"))).await;
    blocks("NotJson", |_, state| {
        let id = state.put_current(SECRET, "{}");
        state.secret_mut(SECRET).versions.iter_mut().find(|version| version.id == id).unwrap().text = None;
    })
    .await;
    blocks("FieldsMissing", |_, state| set_value(state, |value| drop(value["SecretAccessKey"].take()))).await;
    blocks("FieldsMissing", |_, state| set_value(state, |value| value["AccessKeyId"] = json!("no id"))).await;
    blocks("UserMismatch", |_, state| set_value(state, |value| value["UserName"] = json!("other"))).await;
}

#[tokio::test(start_paused = true)]
async fn a_current_key_that_is_not_the_users_or_not_active() {
    blocks("CurrentKeyUnknown", |_, state| {
        set_value(state, |value| value["AccessKeyId"] = json!("AKIAOFSOMEBODYELSE01"));
    })
    .await;
    blocks("CurrentKeyInactive", |_, state| {
        let (key, now) = (state.secret(SECRET).current_key().unwrap(), state.now());
        state.key_mut(&key).changes.push((now, false));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn slots_that_are_taken_by_others() {
    let mut stranger = String::new();
    let run = blocks("SlotsFull", |_, state| stranger = state.add_key(USER, Maker::Stranger)).await;
    // The remedy names the very key.
    assert!(run.doc().why.as_ref().unwrap().remedy.contains(&stranger));
    // An Inactive stranger's key is a stranger's key.
    blocks("SlotsFull", |_, state| {
        let (key, now) = (state.add_key(USER, Maker::Stranger), state.now());
        state.key_mut(&key).changes.push((now, false));
    })
    .await;
    // More than two keys can exist.
    blocks("SlotsFull", |_, state| {
        for _ in 0..7 {
            state.add_key(USER, Maker::Stranger);
        }
        state.options.page = 2;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn another_rotation_or_its_owner_holds_the_second_key() {
    blocks("PendingNotOurs", |world, state| {
        let key = state.add_key(USER, Maker::Stranger);
        let text = world.value_of(state, &key);
        let secret = state.secret_mut(SECRET);
        let mut version = secret.versions[0].clone();
        version.id = RunId::random().to_string();
        version.text = Some(text);
        version.stages = ["AWSPENDING".to_owned()].into();
        secret.versions.push(version);
    })
    .await;
    // A person's own rotation: the key before is named by a version, and no run of ours superseded it.
    blocks("SlotsFull", |world, state| {
        let key = state.add_key(USER, Maker::Owner);
        let text = world.value_of(state, &key);
        state.put_current(SECRET, &text);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_superseded_key_that_its_owner_keeps() {
    let world = World::new();
    world.consumer();
    let old = world.current_key();
    world.fake.state().keep_using(
        &old,
        "s3",
        std::time::Duration::from_hours(1),
        support::world::hours(24 * 20),
    );
    world.run(request()).await.expect(Outcome::Held);
    world.fake.state().users.get_mut(USER).unwrap().tags.insert("keywheel:keep".into(), old.clone());
    world.run(request()).await.expect_blocked("OldKeyKept");
    assert!(world.keys().contains(&old));
}

#[tokio::test(start_paused = true)]
async fn an_installation_that_is_not_live_says_what_it_would_do() {
    for (mode, code) in [("dry-run", "DryRun"), ("paused", "Paused"), ("LIVE", "DryRun"), ("", "DryRun")] {
        let run = blocks(code, |_, state| {
            state.parameters.values_mut().for_each(|value| mode.clone_into(value));
        })
        .await;
        let text = &run.doc().why.as_ref().unwrap().text;
        assert!(text.contains("would make a new key"), "{text}");
    }
    // A fresh installation has no switch at all.
    blocks("DryRun", |_, state| state.parameters.clear()).await;
    let (_, run) = blocked_run(json!({"secret": SECRET, "dry_run": true}), |_, _| {}).await;
    run.expect_blocked("DryRun");
}

#[tokio::test(start_paused = true)]
async fn an_input_that_is_not_understood() {
    for input in [
        json!({}),
        json!({"secret": ""}),
        json!({"secret": 5}),
        json!({"secret": SECRET, "dryrun": true}),
        json!({"secret": SECRET, "reason": "boredom"}),
        json!({"secret": SECRET, "policy": {"overlap": "soon"}}),
        json!({"secret": SECRET, "policy": {"overlap": "2h", "max_overlap": "1h"}}),
    ] {
        let (world, run) = blocked_run(input.clone(), |_, _| {}).await;
        run.expect_blocked("BadInput");
        assert!(!world.fake.state().bus.is_empty(), "{input} was refused in silence");
    }
    let (_, run) = blocked_run(json!([1, 2]), |_, _| {}).await;
    run.expect_blocked("BadInput");
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_name_is_no_run_id() {
    let world = World::new();
    let arn = world.arn(RunId::random()).rsplit_once(':').unwrap().0.to_owned() + ":by-hand";
    let run = world.run_named(&arn, request(), &mut |_, _| support::walker::Control::Go).await;
    run.expect_blocked("BadInput");
    assert_eq!(changes(&world.fake), 0);
}

#[tokio::test(start_paused = true)]
async fn facts_that_may_not_be_read_are_named() {
    for name in [
        "ssm:GetParameter",
        "secretsmanager:DescribeSecret",
        "secretsmanager:GetSecretValue",
        "secretsmanager:ListSecrets",
        "iam:GetUser",
        "iam:ListAccessKeys",
    ] {
        let (_, run) = blocked_run(request(), |_, state| state.denied.extend([name.to_owned()])).await;
        run.expect(Outcome::Blocked);
        assert!(run.doc().why.as_ref().unwrap().text.contains(name), "{:?}", run.doc().why);
    }
}

#[tokio::test(start_paused = true)]
async fn facts_that_never_come_end_the_run_with_their_name() {
    for kind in
        [Kind::Throttled, Kind::ErrorBefore, Kind::LostBefore, Kind::TimeoutBefore, Kind::KilledBefore]
    {
        let (_, run) = blocked_run(request(), |_, state| {
            state.plan = Plan::new([Fault::on("iam:GetUser", kind).for_good()]);
        })
        .await;
        run.expect(Outcome::Blocked);
        assert!(run.walk.states().contains(&"LookGaveUp"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_to_roll_back() {
    let (_, run) = blocked_run(json!({"secret": SECRET, "roll_back": true}), |_, _| {}).await;
    run.expect_blocked("NothingToRollBack");
}

#[tokio::test(start_paused = true)]
async fn a_pair_that_a_person_stored_is_not_turned_back() {
    let (world, run) = blocked_run(json!({"secret": SECRET, "roll_back": true}), |world, state| {
        let key = state.add_key(USER, Maker::Owner);
        let text = world.value_of(state, &key);
        state.put_current(SECRET, &text);
    })
    .await;
    run.expect_blocked("NothingToRollBack");
    assert_eq!(world.keys().len(), 2);
}
