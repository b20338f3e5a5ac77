//! Each role may do what its function was seen to do, and nothing more.

use std::collections::{BTreeMap, BTreeSet};

use keywheel::RunId;
use serde_json::{Value, json};
use support::faults::{Fault, Kind, Plan};
use support::repository::template;
use support::world::{SECRET, World, hours, request};

use crate::template::functions;

/// The calls of every function, over runs that go every way there is.
async fn seen() -> BTreeMap<String, BTreeSet<String>> {
    let mut seen: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut note = |world: &World| {
        for call in &world.fake.state().calls {
            // The identity test is signed with the key under test and needs no permission.
            if let Some(function) = call.function.clone().filter(|_| call.name != "sts:GetCallerIdentity") {
                seen.entry(function).or_default().insert(call.name.clone());
            }
        }
    };
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
    let mut found = 0;
    support::repository::walk(&template["Resources"], &mut |value| {
        let text = value["Action"].to_string();
        if value["Effect"] == "Allow" && writes.iter().any(|write| text.contains(write)) {
            found += 1;
            let condition = value["Condition"].to_string();
            assert!(condition.contains("aws:ResourceTag/keywheel:secret"), "{value}");
        }
    });
    assert!(found >= 4, "{found}");
}

#[test]
fn nothing_may_do_everything() {
    let template = template();
    support::repository::walk(&template["Resources"], &mut |value| {
        if value["Effect"] == "Allow" {
            let list = value["Action"].as_array().cloned().unwrap_or_else(|| vec![value["Action"].clone()]);
            for action in list.iter().filter_map(Value::as_str) {
                assert!(!action.contains('*'), "{value}");
                // Some reads, traces and answers to tokens know no resources; what changes something names them.
                let read = ["Get", "List", "Lookup"].iter().any(|read| action.contains(&format!(":{read}")));
                let token = action.starts_with("states:SendTask");
                assert!(read || token || action.starts_with("xray:") || value["Resource"] != "*", "{value}");
            }
        }
    });
}
