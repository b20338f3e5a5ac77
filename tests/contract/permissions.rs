//! Each role may do what its function was seen to do, and nothing more.

use std::collections::{BTreeMap, BTreeSet};

use keywheel::RunId;
use serde_json::{Value, json};
use support::alarm::{finding, made, report};
use support::faults::{Fault, Kind, Plan};
use support::repository::template;
use support::walker::Control;
use support::world::{SECRET, USER, World, hours, request};

use crate::template::functions;

type Seen = BTreeMap<String, BTreeSet<String>>;

/// Notes the calls of a world by their functions.
fn note_calls(seen: &mut Seen, world: &World) {
    for call in &world.fake.state().calls {
        // The identity test is signed with the key under test and needs no permission.
        if let Some(function) = call.function.clone().filter(|_| call.name != "sts:GetCallerIdentity") {
            seen.entry(function).or_default().insert(call.name.clone());
        }
    }
}

/// The calls of the emergency's functions, over incidents that go every way there is.
async fn seen_in_emergencies(seen: &mut Seen) {
    // A managed user's current key, replaced by a new one, and deleted when all is over.
    let world = World::leaked();
    let key = world.current_key();
    world.alarm(finding(&key, USER)).await;
    world.close(&key);
    tokio::time::sleep(hours(31 * 24)).await;
    world.run(request()).await;
    note_calls(seen, &world);
    // One whose superseded key comes back.
    let world = World::new();
    world.consumer();
    world.containment("on");
    let work = async {
        tokio::time::sleep(hours(2)).await;
        let new = world.current_key();
        world.leak(&new);
        world.alarm(finding(&new, USER)).await;
    };
    world.beside(RunId::random(), request(), work).await;
    note_calls(seen, &world);
    // One whose replacement comes to nothing.
    let world = World::leaked();
    world.mode("paused");
    world.alarm(finding(&world.current_key(), USER)).await;
    note_calls(seen, &world);
    // A report over the bus, about a key that is not here.
    let world = World::leaked();
    world.alarm(report(["AKIAELSEWHERE0000000"])).await;
    note_calls(seen, &world);
    // Somebody makes a key of nobody's, which may be one of many.
    let world = World::leaked();
    let key = world.stranger("somebody");
    let by = json!({"type": "IAMUser", "arn": "arn:aws:iam::111122223333:user/admin"});
    world.fake.state().trail_made_by(&key, &by, "console");
    world.alarm(made(&world, &key)).await;
    note_calls(seen, &world);
    // A key that cannot be made Inactive for a while.
    let world = World::leaked();
    world.fake.state().standing = Plan::new([Fault::on("iam:UpdateAccessKey", Kind::Refused).times(30)]);
    world.alarm(finding(&world.current_key(), USER)).await;
    note_calls(seen, &world);
    // A user whose inline policies are full, and then one whose managed policies are full too.
    for attached in [0, 10] {
        let world = World::leaked();
        let filler = format!("{{\"Statement\":[{{\"Sid\":\"{}\"}}]}}", "x".repeat(2_000));
        {
            let mut state = world.fake.state();
            let user = state.users.get_mut(USER).unwrap();
            user.inline.insert("theirs".into(), filler);
            user.attached
                .extend((0..attached).map(|number| format!("arn:aws:iam::aws:policy/theirs-{number}")));
        }
        world.alarm(finding(&world.current_key(), USER)).await;
        note_calls(seen, &world);
    }
}

/// The calls of every function, over runs that go every way there is.
async fn seen() -> Seen {
    let mut seen = Seen::new();
    seen_in_emergencies(&mut seen).await;
    let mut note = |world: &World| note_calls(&mut seen, world);
    let back = || json!({"secret": SECRET, "roll_back": true});
    // An undisturbed one, with a fleet waiting.
    let world = World::new();
    world.consumer();
    let token = world.task_token();
    world.run(json!({"secret": SECRET, "on_promoted": token})).await;
    note(&world);
    // A first adoption, with an orphan on the way.
    let world = World::without_value();
    world.fake.state().plan = Plan::new([Fault::on("iam:CreateAccessKey", Kind::LostAfter)]);
    world.run(request()).await;
    note(&world);
    // A promotion that is turned back, beside the run that made it, and a key that stays in use.
    let world = World::new();
    world.consumer();
    let work = async {
        tokio::time::sleep(hours(2)).await;
        let key = world.current_key();
        world.fake.state().keep_using(&key, "s3", hours(1), hours(24 * 20));
        world.run(back()).await;
        world.run(request()).await;
    };
    world.beside(RunId::random(), request(), work).await;
    note(&world);
    // One that fails, with a fleet waiting, and loses a move's reply.
    for fault in [
        Fault::on("sts:GetCallerIdentity", Kind::Refused).for_good(),
        Fault::on("secretsmanager:UpdateSecretVersionStage", Kind::LostAfter),
        Fault::on("secretsmanager:UpdateSecretVersionStage", Kind::Refused).for_good(),
    ] {
        let world = World::new();
        let token = world.task_token();
        world.fake.state().plan = Plan::new([fault]);
        world.run(json!({"secret": SECRET, "on_promoted": token})).await;
        note(&world);
    }
    // One that promotes the key of a run that was stopped before it did.
    let world = World::new();
    let mut stop = |state: &str, _: &Value| if state == "PromoteKey" { Control::Stop } else { Control::Go };
    world.run_watched(RunId::random(), request(), &mut stop).await;
    world.run(request()).await;
    note(&world);
    // One that finds another at work.
    let world = World::new();
    world.consumer();
    let work = async {
        tokio::time::sleep(hours(2)).await;
        world.run(request()).await;
    };
    world.beside(RunId::random(), request(), work).await;
    note(&world);
    seen
}

fn actions(role: &Value) -> BTreeSet<String> {
    let mut actions = BTreeSet::new();
    support::repository::walk(&role["Properties"]["Policies"], &mut |value| {
        if value["Effect"] == "Allow" {
            let list = value["Action"].as_array().cloned().unwrap_or_else(|| vec![value["Action"].clone()]);
            actions.extend(list.iter().filter_map(Value::as_str).map(str::to_owned));
        }
    });
    // The platform's: logs, traces, and the key that encrypts.
    actions.retain(|action| !["logs:", "xray:", "kms:"].iter().any(|platform| action.starts_with(platform)));
    actions
}

#[tokio::test(start_paused = true)]
async fn every_role_may_do_exactly_what_its_function_does() {
    let (template, seen) = (template(), seen().await);
    let mut wrong = Vec::new();
    for (name, function) in functions(&template) {
        let role = function["Properties"]["Role"]["!GetAtt"].as_str().unwrap().split('.').next().unwrap();
        let may = actions(&template["Resources"][role]);
        let does = seen.get(&name).cloned().unwrap_or_default();
        let lacks: Vec<_> = does.difference(&may).collect();
        let spare: Vec<_> = may.difference(&does).collect();
        if !lacks.is_empty() || !spare.is_empty() {
            wrong.push(format!("{name} lacks {lacks:?} and never uses {spare:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn iam_writes_are_allowed_on_managed_users_only() {
    let template = template();
    let writes = ["iam:CreateAccessKey", "iam:UpdateAccessKey", "iam:DeleteAccessKey"];
    let (mut found, mut contain) = (0, 0);
    support::repository::walk(&template["Resources"], &mut |value| {
        let text = value["Action"].to_string();
        if value["Effect"] == "Allow" && writes.iter().any(|write| text.contains(write)) {
            found += 1;
            let condition = value["Condition"].to_string();
            let managed = condition.contains("aws:ResourceTag/keywheel:secret");
            // Whose key leaked is not known before; containment reaches every user, and can do nothing but this.
            let containment = value["Sid"] == "SwitchOff" && value["Action"] == "iam:UpdateAccessKey";
            assert!(managed || containment, "{value}");
            contain += u32::from(containment);
        }
    });
    assert!(found >= 4, "{found}");
    assert_eq!(contain, 1, "one function contains");
}

#[test]
fn nothing_may_do_everything() {
    let template = template();
    support::repository::walk(&template["Resources"], &mut |value| {
        if value["Effect"] == "Allow" {
            let list = value["Action"].as_array().cloned().unwrap_or_else(|| vec![value["Action"].clone()]);
            for action in list.iter().filter_map(Value::as_str) {
                assert!(!action.contains('*'), "{value}");
            }
        }
    });
}
