//! A fleet of 250 users: planned, rotated by the plan, and planned again.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::cloud::{Cloud, keywheel};

/// Of how many users of this test.
const USERS: usize = 250;
/// Which are due: every so many.
const EVERY: usize = 25;
/// How many are made in the same moment.
const AT_ONCE: usize = 8;

/// The lines of a plan about users whose name begins so.
pub(crate) fn plan(policy: &Value, begin: &str) -> (Option<i32>, Vec<Value>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keywheel"));
    command.args(["--json", "plan", "--policy", "-"]);
    let mut running = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    running.stdin.take().unwrap().write_all(policy.to_string().as_bytes()).unwrap();
    let ended = running.wait_with_output().unwrap();
    let text = String::from_utf8(ended.stdout).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let ours = lines.filter(|line| line["user"].as_str().is_some_and(|user| user.starts_with(begin)));
    (ended.status.code(), ours.collect())
}

fn users<'a>(lines: &'a [Value], action: &str) -> BTreeSet<&'a str> {
    let with = lines.iter().filter(|line| line["action"] == action);
    with.filter_map(|line| line["user"].as_str()).collect()
}

#[tokio::test]
async fn of_250_users_exactly_the_due_are_rotated() {
    let Some(cloud) = Cloud::here() else { return };
    let (mut made, mut making) = (Vec::new(), JoinSet::new());
    for number in 0..USERS {
        if making.len() == AT_ONCE {
            made.push(making.join_next().await.unwrap().unwrap());
        }
        let cloud = cloud.clone();
        making.spawn(async move { (number, cloud.managed("fleet").await) });
    }
    made.extend(making.join_all().await);
    // The emulator's keys are all of today: these are said to be a hundred days old.
    let due: BTreeSet<&str> =
        made.iter().filter(|(number, _)| number % EVERY == 0).map(|(_, (user, _))| user.as_str()).collect();
    for (_, (user, key)) in &made {
        if due.contains(user.as_str()) {
            // A key that was never used is not known to be quiet.
            cloud.consume(user).await;
            cloud.age(key, 100);
        }
    }
    let policy = json!({
        "rules": [{ "name": "fleet-test", "match": { "user": "cli-fleet-*" }, "set": { "frequency": "monthly" } }],
    });
    let (code, lines) = plan(&policy, "cli-fleet-");
    assert_eq!(code, Some(0));
    assert_eq!(users(&lines, "rotate"), due);
    assert_eq!(users(&lines, "skip").len(), USERS - due.len());
    for line in lines.iter().filter(|line| line["action"] == "rotate") {
        let (_, (_, key)) = made.iter().find(|(_, (user, _))| line["user"] == user.as_str()).unwrap();
        assert_eq!(
            (&line["key_id"], &line["age_days"], &line["rule"]),
            (&json!(key), &json!(100), &json!("fleet-test"))
        );
    }

    // The plan's users are what a person hands to the command that rotates. In a rehearsal: its rule's durations are days.
    let mut args =
        vec!["rotate", "--reason", "scheduled", "--wait", "--overlap", "1s", "--max-overlap", "2m"];
    args.extend(["--grace", "1s", "--quiet-window", "1s"]);
    args.extend(due.iter().flat_map(|user| ["--user", user]));
    let rotated = keywheel(&args);
    assert_eq!(rotated.code, Some(0), "{}", rotated.text);
    for (_, (user, key)) in &made {
        let moved = cloud.current(user).await != *key;
        assert_eq!(moved, due.contains(user.as_str()), "{user}");
    }
    let (code, lines) = plan(&policy, "cli-fleet-");
    assert_eq!((code, users(&lines, "rotate")), (Some(0), BTreeSet::new()));
    println!("plan: {USERS} users, {} rotated, then none", due.len());
}

#[tokio::test]
async fn a_policy_with_a_mistake_plans_nothing_and_a_rule_explains_itself() {
    let Some(cloud) = Cloud::here() else { return };
    let (code, lines) = plan(&json!({ "defaults": { "max_age": "3d" } }), "");
    assert_eq!((code, lines.len()), (Some(1), 0));
    let (user, _) = cloud.managed("explain").await;
    // A run takes its rule's durations: seen in what its machine was given.
    let file = std::env::temp_dir().join(format!("{user}.yaml"));
    let rule = "rules: [{name: swift, match: {user: \"cli-explain-*\"}, set: {frequency: daily}}]";
    std::fs::write(&file, rule).unwrap();
    let path = file.to_str().unwrap();
    let ran = keywheel(&["rotate", "--user", &user, "--policy", path, "--dry-run"]);
    std::fs::remove_file(&file).unwrap();
    let run = ran.json["run"].as_str().unwrap_or_else(|| panic!("{}", ran.text)).to_owned();
    let input = cloud.input(&run).await;
    assert_eq!((&input["policy"]["max_overlap"], &input["policy"]["grace"]), (&json!("12h"), &json!("8h")));
    let told = keywheel(&["policy", "explain", "--user", &user]);
    assert_eq!((told.code, &told.json["rule"]), (Some(0), &json!("defaults")), "{}", told.text);
    assert_eq!(told.json["terms"]["max_age"], "90days");
}

#[tokio::test]
async fn the_fleet_follows_the_policy_that_was_pushed() {
    let Some(cloud) = Cloud::here() else { return };
    let (user, key) = cloud.managed("drive").await;
    let (other, untouched) = cloud.managed("drive").await;
    let file = std::env::temp_dir().join(format!("{user}.json"));
    let path = file.to_str().unwrap();
    let write = |policy: &Value| std::fs::write(&file, policy.to_string()).unwrap();

    // Without a person's word nothing is written, and a policy with a mistake never is.
    let freeze = |from: &str, until: &str| json!({ "from": from, "until": until, "reason": "year end" });
    let to_come = freeze("2098-12-20T00:00:00Z", "2099-01-04T00:00:00Z");
    let policy = json!({
        "rules": [{ "name": "drive", "match": { "user": "cli-drive-*" }, "set": { "wave": 3 } }],
        "limits": { "freeze": [freeze("2020-12-20T00:00:00Z", "2021-01-04T00:00:00Z"), to_come] },
    });
    write(&policy);
    assert_eq!(keywheel(&["policy", "push", path]).code, Some(1));
    write(&json!({ "defaults": { "max_age": "3d" } }));
    assert_eq!(keywheel(&["policy", "push", path, "--yes"]).code, Some(1));
    let told = keywheel(&["policy", "explain", "--user", &user, "--pushed"]);
    assert_eq!(told.json["rule"], "defaults", "nothing is pushed: {}", told.text);
    write(&policy);
    let pushed = keywheel(&["policy", "push", path, "--yes"]);
    assert_eq!((pushed.code, &pushed.json["pushed"]), (Some(0), &json!(true)), "{}", pushed.text);
    // Runs under way are told of its freezes, those that are over left out, and told again where somebody else spoke.
    assert_eq!(cloud.freezes().await, json!([to_come]));
    for other in [false, true] {
        if other {
            cloud.set_freezes("[]").await;
        }
        let again = keywheel(&["policy", "push", path, "--yes"]);
        assert_eq!(
            (again.code, &again.json["pushed"], &again.json["freezes_written"]),
            (Some(0), &json!(false), &json!(other)),
            "{}",
            again.text
        );
        assert_eq!(cloud.freezes().await, json!([to_come]));
    }
    let told = keywheel(&["policy", "explain", "--user", &user, "--pushed"]);
    assert_eq!(
        (&told.json["rule"], &told.json["terms"]["wave"]),
        (&json!("drive"), &json!(3)),
        "{}",
        told.text
    );
    std::fs::remove_file(&file).unwrap();

    // Neither is due. What a person names is rotated all the same, and nothing else.
    let planned = keywheel(&["fleet", "run", "--dry-run"]);
    assert_eq!(planned.code, Some(0), "{}", planned.text);
    assert!(planned.text.contains("Planned"), "{}", planned.text);
    assert_eq!(cloud.current(&user).await, key);
    let (secret, none) = (format!("cli/{user}"), format!("cli/{user}-none"));
    let ran = keywheel(&["fleet", "run", "--secret", &secret, "--secret", &none]);
    assert_eq!(ran.code, Some(6), "half of it failed: {}", ran.text);
    assert!(ran.text.contains("TooManyFailed") && ran.text.contains(&none), "{}", ran.text);
    assert!(cloud.current(&user).await != key);
    assert_eq!(cloud.current(&other).await, untouched);
    let status = keywheel(&["fleet", "status"]);
    assert!(status.code == Some(0) && status.text.contains("Stopped"), "{}", status.text);
    let stop = keywheel(&["fleet", "stop", "--yes"]);
    assert!(stop.code != Some(0), "no campaign runs: {}", stop.text);
}
