//! The same runs in the in-process walker and in the emulator's interpreter: both take the same path through the
//! machine's states.
//!
//! The walker's side has the fake AWS and paused time, days for overlap and grace; the emulator's side has the
//! compiled Lambdas and seconds. Everything else is the same: the scene, the input, and the faults, which fall on
//! the same calls. How often a run comes back to a Wait depends on time alone, so a cycle with a Wait in it counts
//! once, however often it is gone through. On a busy machine the emulator may answer a notice too late, which no fault
//! asked for: a second try to deliver counts only where the run's faults fall on the notices. All else is compared as
//! it is.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_iam::types::StatusType;
use serde_json::{Value, json};
use support::fake::Maker;
use support::faults::{Fault, Kind, Plan};
use support::world::{SECRET, USER, World, hours};

use crate::cloud::Cloud;
use crate::gate::Laggard;
use crate::run::{all, brief_but, new_id};
use crate::scene::Scene;

/// What a run finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Setting {
    /// A key in its secret.
    Managed,
    /// A user without a key and a secret without a value.
    Bare,
    /// A second key, Active or not, that somebody made by hand.
    Stranger { active: bool },
    /// A second key that its owner gave up.
    Retire,
    /// The current key is Inactive.
    Inactive,
    /// The value is no JSON.
    NotJson,
    /// The secret does not name a user.
    NotManaged,
    /// The old key is used all the time.
    StillUsed,
}

type Faults = &'static [(&'static str, &'static str, Option<usize>)];

const CREATE: &str = "iam:CreateAccessKey";
const PUT: &str = "secretsmanager:PutSecretValue";
const MOVE: &str = "secretsmanager:UpdateSecretVersionStage";
const WHO: &str = "sts:GetCallerIdentity";
const UPDATE: &str = "iam:UpdateAccessKey";
const DELETE: &str = "iam:DeleteAccessKey";
const SWITCH: &str = "ssm:GetParameter";

/// The runs, by what they find, what differs in their input, and what falls on their calls.
fn cases() -> Vec<(Setting, Value, Faults)> {
    use Setting::{Bare, Inactive, Managed, NotJson, NotManaged, Retire, StillUsed, Stranger};
    let plain = || json!({});
    let mut cases: Vec<(Setting, Value, Faults)> = vec![
        (Managed, plain(), &[]),
        (Bare, plain(), &[]),
        (Stranger { active: true }, plain(), &[]),
        (Stranger { active: false }, plain(), &[]),
        (Retire, plain(), &[]),
        (Inactive, plain(), &[]),
        (NotJson, plain(), &[]),
        (NotManaged, plain(), &[]),
        (StillUsed, plain(), &[]),
        (Managed, json!({ "dry_run": true }), &[]),
        (Managed, json!({ "roll_back": true }), &[]),
        (Managed, json!({ "dryrun": true }), &[]),
        (Managed, json!({ "reason": "boredom" }), &[]),
        (Inactive, json!({ "reason": "leaked" }), &[]),
        (Bare, json!({ "dry_run": true }), &[]),
        (Retire, json!({ "dry_run": true }), &[]),
    ];
    let on_managed: [Faults; 28] = [
        &[("iam:GetUser", "refused", None)],
        &[("iam:GetUser", "error_before", None)],
        &[("iam:GetUser", "killed_before", Some(1))],
        &[("secretsmanager:DescribeSecret", "refused", None)],
        &[(SWITCH, "refused", None)],
        &[(SWITCH, "killed_after", Some(1))],
        &[(CREATE, "refused", None)],
        &[(CREATE, "lost_before", Some(1))],
        &[(CREATE, "lost_after", Some(1))],
        &[(CREATE, "garbled_after", Some(1))],
        &[(CREATE, "killed_before", Some(1))],
        &[(CREATE, "killed_after", Some(1))],
        &[(PUT, "refused", Some(1))],
        &[(PUT, "lost_after", Some(1))],
        &[(PUT, "killed_before", Some(1))],
        &[(PUT, "killed_after", Some(1))],
        &[(WHO, "refused", None)],
        &[(WHO, "killed_before", Some(1))],
        &[(MOVE, "refused", Some(1))],
        &[(MOVE, "lost_after", Some(1))],
        &[(MOVE, "killed_after", Some(1))],
        &[("events:PutEvents", "refused", Some(1))],
        &[(UPDATE, "refused", None)],
        &[(UPDATE, "killed_after", Some(1))],
        &[(DELETE, "refused", None)],
        &[(DELETE, "killed_after", Some(1))],
        &[(PUT, "refused", Some(1)), (UPDATE, "refused", None)],
        &[(PUT, "refused", Some(1)), (DELETE, "refused", None)],
    ];
    cases.extend(on_managed.map(|faults| (Managed, plain(), faults)));
    let on_bare: [Faults; 6] = [
        &[(CREATE, "refused", None)],
        &[(CREATE, "lost_after", Some(1))],
        &[(PUT, "lost_after", Some(1))],
        &[(PUT, "refused", None)],
        &[(WHO, "refused", None)],
        &[(MOVE, "killed_after", Some(1))],
    ];
    cases.extend(on_bare.map(|faults| (Bare, plain(), faults)));
    cases
}

fn kind(name: &str) -> Kind {
    match name {
        "refused" => Kind::Refused,
        "error_before" => Kind::ErrorBefore,
        "lost_before" => Kind::LostBefore,
        "lost_after" => Kind::LostAfter,
        "garbled_after" => Kind::GarbledAfter,
        "killed_before" => Kind::KilledBefore,
        "killed_after" => Kind::KilledAfter,
        other => panic!("no fault is named {other}"),
    }
}

/// The path in this process, on a thread of its own: its clock is paused, that of the other side is not.
async fn walked(setting: Setting, input: Value, faults: Faults) -> Vec<String> {
    let walk = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.unwrap().block_on(walk(setting, input, faults))
    };
    tokio::task::spawn_blocking(walk).await.unwrap()
}

async fn walk(setting: Setting, input: Value, faults: Faults) -> Vec<String> {
    let world = if setting == Setting::Bare { World::without_value() } else { World::new() };
    {
        let mut state = world.fake.state();
        let (now, current) = (state.now(), state.secret(SECRET).current_key());
        // The emulator records a call at once.
        state.options.trail_delay = Duration::ZERO;
        match setting {
            Setting::Managed | Setting::Bare => {}
            Setting::Stranger { active } => {
                let key = state.add_key(USER, Maker::Stranger);
                let person = json!({ "type": "IAMUser", "arn": "arn:of:colleague" });
                state.trail_made_by(&key, &person, "console");
                if !active {
                    state.key_mut(&key).changes.push((now, false));
                }
            }
            Setting::Retire => {
                let key = state.add_key(USER, Maker::Stranger);
                state.use_key(&key, "s3", now);
                state.users.get_mut(USER).unwrap().tags.insert("keywheel:retire".into(), key);
            }
            Setting::Inactive => state.key_mut(&current.unwrap()).changes.push((now, false)),
            Setting::NotJson => drop(state.put_current(SECRET, "user=me;key=mine")),
            Setting::NotManaged => state.secret_mut(SECRET).tags.clear(),
            Setting::StillUsed => state.keep_using(&current.unwrap(), "s3", hours(1), hours(24 * 20)),
        }
        if input.get("reason").is_some_and(|reason| reason == "leaked") {
            let leaked = state.secret(SECRET).current_key().unwrap();
            state.watch.leaked.insert(leaked);
        }
        state.watch.excuse();
        state.plan = Plan::new(faults.iter().map(|(call, name, times)| {
            let fault = Fault::on(call, kind(name));
            times.map_or(fault.clone().for_good(), |times| fault.times(times))
        }));
    }
    let mut whole = json!({ "secret": SECRET });
    whole.as_object_mut().unwrap().extend(input.as_object().unwrap().clone());
    let run = world.run(whole).await;
    run.walk.states().into_iter().map(str::to_owned).collect()
}

/// The path in the emulator.
async fn interpreted(cloud: &Arc<Cloud>, setting: Setting, input: Value, faults: Faults) -> Vec<String> {
    if setting == Setting::Bare {
        let scene = Scene::bare(cloud, "path").await;
        return run_path(&scene, input, faults, "20s").await;
    }
    let (scene, pair) = Scene::managed(cloud, "path").await;
    let mut laggard = None;
    match setting {
        Setting::Managed | Setting::Bare => {}
        Setting::Stranger { active } => {
            let stranger = scene.make_key().await;
            if !active {
                scene.set_key(&stranger.id, StatusType::Inactive).await;
            }
        }
        Setting::Retire => {
            let retired = scene.make_key().await;
            assert!(retired.works(cloud).await);
            scene.tag("keywheel:retire", &retired.id).await;
        }
        Setting::Inactive => scene.set_key(&pair.id, StatusType::Inactive).await,
        Setting::NotJson => scene.put("user=me;key=mine").await,
        Setting::NotManaged => {
            let call = cloud.store.untag_resource().secret_id(&scene.secret).tag_keys("keywheel:user");
            call.send().await.unwrap();
        }
        Setting::StillUsed => laggard = Some(Laggard::start(cloud, &pair)),
    }
    // Long enough to look twice where it is still used, and never reached where it is not.
    let path = run_path(&scene, input, faults, if laggard.is_some() { "7s" } else { "20s" }).await;
    drop(laggard);
    path
}

async fn run_path(scene: &Scene, mut input: Value, faults: Faults, max_overlap: &str) -> Vec<String> {
    let id = new_id();
    let on: Vec<Value> = faults
        .iter()
        .map(|(call, kind, times)| json!({ "call": call, "kind": kind, "times": times }))
        .collect();
    scene.cloud.spoil(&id, json!({ "on": on })).await;
    input["policy"] = brief_but(&json!({ "max_overlap": max_overlap }));
    let run = scene.start_with(&id, input).await;
    run.end().await;
    if !faults.is_empty() {
        assert!(!scene.cloud.spoilt(&id).await.faults.is_empty(), "{faults:?} did not fall");
    }
    run.visited().await
}

/// Each cycle with a Wait in it once.
fn once(mut path: Vec<String>) -> Vec<String> {
    const WAITS: [&str; 4] = ["Overlap", "Grace", "AwaitRecord", "AwaitDelivery"];
    let repeated = |path: &[String]| {
        (0..path.len()).find_map(|at| {
            (2..=5).find_map(|long| {
                let (first, second) = (path.get(at..at + long)?, path.get(at + long..at + 2 * long)?);
                let waits = first.iter().any(|state| WAITS.contains(&state.as_str()));
                (waits && first == second).then_some((at, long))
            })
        })
    };
    while let Some((at, long)) = repeated(&path) {
        path.drain(at..at + long);
    }
    path
}

/// Without the tries to deliver a notice that its own faults do not explain.
fn delivered_at_once(mut path: Vec<String>, faults: Faults) -> Vec<String> {
    const NOTICES: &str = "events:PutEvents";
    if faults.iter().any(|(call, ..)| *call == NOTICES) {
        return path;
    }
    while let Some(at) = path.iter().position(|state| state == "AwaitDelivery") {
        // The wait, and the notice and its Choice that follow it.
        path.drain(at..(at + 3).min(path.len()));
    }
    path
}

#[tokio::test]
async fn fifty_runs_take_the_same_path_in_the_walker_and_in_the_emulator() {
    let Some(cloud) = Cloud::here().await else { return };
    let cases = cases();
    assert_eq!(cases.len(), 50);
    let paths = Arc::new(Mutex::new(BTreeSet::new()));
    let compare = |setting: Setting, input: Value, faults: Faults| {
        let (cloud, paths) = (Arc::clone(&cloud), Arc::clone(&paths));
        async move {
            let walker = once(walked(setting, input.clone(), faults).await);
            let emulator = interpreted(&cloud, setting, input.clone(), faults).await;
            let emulator = delivered_at_once(once(emulator), faults);
            assert_eq!(walker, emulator, "walker and emulator differ: {setting:?} {input} {faults:?}");
            paths.lock().unwrap().insert(walker);
        }
    };
    let named = cases.into_iter().map(|(setting, input, faults)| {
        (format!("{setting:?} {input} {faults:?}"), compare(setting, input, faults))
    });
    all(8, named.collect()).await;
    let paths = paths.lock().unwrap();
    println!("50 runs took {} different paths", paths.len());
    assert!(paths.len() >= 12, "{paths:#?}");
}
