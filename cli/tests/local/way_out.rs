//! The way out of an emergency, typed as a person types it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cloud::{Cloud, PATIENCE, keywheel, until, until_within};

#[tokio::test]
async fn a_false_alarm_is_undone_in_one_command_and_the_next_report_only_pages() {
    let Some(cloud) = Cloud::here() else { return };
    let user = cloud.user("alarm").await;
    let (key, _) = cloud.key(&user).await;
    cloud.finding(&key, &user).await;
    until("containment", || async { cloud.is_active(&user, &key).await == Some(false) }).await;
    // Where the deny is written only later, the command must take that one off too.
    let undone = keywheel(&["incident", &key, "--false-alarm", "--reason", "our own scanner"]);
    assert_eq!((undone.code, &undone.json["state"]), (Some(0), &json!("cleared")), "{}", undone.text);
    assert_eq!(cloud.is_active(&user, &key).await, Some(true));
    let left = cloud.iam.list_user_policies().user_name(&user).send().await.unwrap();
    assert_eq!(left.policy_names(), Vec::<String>::new());

    // GuardDuty repeats itself.
    let before = cloud.ended(&key).await.len();
    cloud.finding(&key, &user).await;
    until("the second incident's end", || async { cloud.ended(&key).await.len() > before }).await;
    let codes: Vec<Value> = cloud
        .ended(&key)
        .await
        .iter()
        .map(|doc| doc.pointer("/why/code").cloned().unwrap_or_default())
        .collect();
    assert!(codes.contains(&json!("FalseAlarm")), "{codes:?}");
    assert_eq!(cloud.is_active(&user, &key).await, Some(true), "the key must stay Active");

    // The person was wrong: one more command, and the clearance is gone.
    let revoked = keywheel(&["revoke", &key, "--wait", "--yes", "--reason", "it was no scanner"]);
    assert_eq!(revoked.code, Some(0), "{}", revoked.text);
    assert_eq!(cloud.is_active(&user, &key).await, Some(false));
}

#[tokio::test]
async fn a_drill_measures_and_leaves_nothing_behind() {
    let Some(cloud) = Cloud::here() else { return };
    for family in ["own", "guard-duty"] {
        let drill = keywheel(&["drill", "--family", family, "--yes"]);
        assert_eq!((drill.code, &drill.json["passed"]), (Some(0), &json!(true)), "{}", drill.text);
        for took in ["inactive_ms", "denied_ms", "replaced_ms"] {
            assert!(drill.json[took].as_u64().is_some_and(|took| took < 60_000), "{took}: {}", drill.json);
        }
        assert_eq!(drill.json["left"], json!([]));
        println!("{}", drill.json);
        // Kept on record, the last one.
        let name = format!("/keywheel/{}/drill", cloud.stage);
        let read = cloud.ssm.get_parameter().name(name).send().await.unwrap();
        let kept: Value = serde_json::from_str(read.parameter().unwrap().value().unwrap()).unwrap();
        assert_eq!(kept["family"], family);
    }
    let users = cloud.iam.list_users().path_prefix("/keywheel-drill/").send().await.unwrap();
    assert_eq!(users.users().len(), 0, "{:?}", users.users());
    let filter = aws_sdk_secretsmanager::types::Filter::builder()
        .key(aws_sdk_secretsmanager::types::FilterNameStringType::Name)
        .values("keywheel-drill-")
        .build();
    let secrets = cloud.store.list_secrets().filters(filter).send().await.unwrap();
    assert_eq!(secrets.secret_list().len(), 0, "{:?}", secrets.secret_list());
}

#[tokio::test]
async fn the_doctor_finds_what_keeps_a_source_away() {
    let Some(cloud) = Cloud::here() else { return };
    let rows = || -> Vec<Value> {
        let told = keywheel(&["doctor"]);
        told.text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    let reaches = |rows: &[Value], source: &str| {
        let row =
            rows.iter().find(|row| row["source"] == source).unwrap_or_else(|| panic!("{source}: {rows:#?}"));
        (row["reaches"].as_str().unwrap().to_owned(), row["why"].as_str().unwrap().to_owned())
    };
    let before = rows();
    assert!(before.iter().all(|row| row["check"] != "rights"), "{before:#?}");
    assert_eq!(reaches(&before, "AWS Health").0, "yes");
    // The local cloud has no trail of its own making.
    assert_eq!(reaches(&before, "CloudTrail").0, "NO");
    let rule = format!("keywheel-{}-leak-trusted-advisor", cloud.stage);
    cloud.events.disable_rule().name(&rule).send().await.unwrap();
    let after = rows();
    cloud.events.enable_rule().name(&rule).send().await.unwrap();
    let (word, why) = reaches(&after, "Trusted Advisor");
    assert!(word == "NO" && why.contains(&rule), "{why}");
}

/// The policy gives people a minute, or the replacement: what they make of it decides, and silence is containment.
#[tokio::test]
async fn each_mode_of_the_policy_but_a_stop_in_time_ends_with_the_key_inactive() {
    let Some(cloud) = Cloud::here() else { return };
    let policy = json!({ "rules": [
        { "user": "cli-stopped-*", "then": { "after": 1 } },
        { "user": "cli-silent-*", "then": { "after": 1 } },
        { "user": "cli-first-*", "then": { "replace_first": 1 } },
        { "user": "cli-paged-*", "then": "page" },
    ] });
    let file = std::env::temp_dir().join(format!("keywheel-policy-{}.json", std::process::id()));
    std::fs::write(&file, policy.to_string()).unwrap();
    let set = keywheel(&["emergency", "set", file.to_str().unwrap(), "--yes"]);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(set.code, Some(0), "{}", set.text);

    let (stopped, silent, paged) =
        (cloud.user("stopped").await, cloud.user("silent").await, cloud.user("paged").await);
    let (first, current) = cloud.managed("first").await;
    // Somebody's second key: no slot is free for a replacement, which therefore never comes.
    let (theirs, _) = cloud.key(&first).await;
    let (stop, silence, page) =
        (cloud.key(&stopped).await.0, cloud.key(&silent).await.0, cloud.key(&paged).await.0);
    let began = Instant::now();
    for (key, user) in [(&stop, &stopped), (&silence, &silent), (&page, &paged), (&current, &first)] {
        cloud.finding(key, user).await;
    }
    until("the page", || async { !cloud.ended(&page).await.is_empty() }).await;
    assert_eq!(cloud.ended(&page).await[0]["why"]["code"], "ForAPerson");
    let undone = keywheel(&["incident", &stop, "--false-alarm", "--reason", "a rehearsal"]);
    assert_eq!(undone.code, Some(0), "{}", undone.text);
    if began.elapsed() < Duration::from_secs(45) {
        for (user, key) in [(&silent, &silence), (&first, &current)] {
            assert_eq!(cloud.is_active(user, key).await, Some(true), "{user}: people have their minute");
        }
    }
    let slow = Duration::from_mins(3);
    for (user, key) in [(&silent, &silence), (&first, &current)] {
        until_within(slow, "containment", || async { cloud.is_active(user, key).await == Some(false) }).await;
        assert!(began.elapsed() >= Duration::from_secs(59), "{user}: {:?}", began.elapsed());
    }
    until_within(slow, "the stopped one's end", || async { !cloud.ended(&stop).await.is_empty() }).await;
    assert_eq!(cloud.ended(&stop).await[0]["why"]["code"], "FalseAlarm");
    for (user, key) in [(&stopped, &stop), (&paged, &page), (&first, &theirs)] {
        assert_eq!(cloud.is_active(user, key).await, Some(true), "{user}");
    }
}

#[tokio::test]
async fn a_closed_leak_gives_its_slot_back_and_the_next_rotation_completes() {
    let Some(cloud) = Cloud::here() else { return };
    let (user, key) = cloud.managed("closed").await;
    let revoked = keywheel(&["revoke", &key, "--wait", "--yes"]);
    assert_eq!(revoked.code, Some(0), "{}", revoked.text);
    let early = keywheel(&["incident", &key, "--close"]);
    until("a replacement", || async { cloud.current(&user).await != key }).await;
    if early.code != Some(0) {
        // The secret still named the leaked key.
        assert!(early.text.contains("Not closed."), "{}", early.text);
        let closed = keywheel(&["incident", &key, "--close"]);
        assert_eq!(closed.code, Some(0), "{}", closed.text);
    }
    let brief = ["--overlap", "1s", "--max-overlap", "20s", "--quiet-window", "1s", "--grace", "1s"];
    let rotate = [&["rotate", "--user", &user, "--wait"][..], &brief].concat();
    // The replacement's run may still be telling people.
    let mut kept = keywheel(&rotate);
    let end = Instant::now() + PATIENCE;
    while kept.text.contains("RunInProgress") && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(500)).await;
        kept = keywheel(&rotate);
    }
    assert!(kept.code != Some(0) && kept.text.contains("EvidenceKept"), "{}", kept.text);
    assert_eq!(cloud.is_active(&user, &key).await, Some(false));

    cloud.thirty_days_pass(&key).await;
    let current = cloud.current(&user).await;
    let freed = keywheel(&rotate);
    assert_eq!(freed.code, Some(0), "{}", freed.text);
    assert_eq!((cloud.is_active(&user, &key).await, cloud.current(&user).await), (None, current.clone()));
    let rotated = keywheel(&rotate);
    assert_eq!(rotated.code, Some(0), "{}", rotated.text);
    assert_ne!(cloud.current(&user).await, current);
}

#[tokio::test]
async fn a_closed_leak_of_a_user_that_is_not_managed_is_deleted_when_somebody_says_so() {
    let Some(cloud) = Cloud::here() else { return };
    let user = cloud.user("unmanaged").await;
    let (key, _) = cloud.key(&user).await;
    let revoked = keywheel(&["revoke", &key, "--wait", "--yes"]);
    assert_eq!(revoked.code, Some(0), "{}", revoked.text);
    let close = ["incident", key.as_str(), "--close", "--yes"];
    let early = keywheel(&close);
    assert_eq!(early.code, Some(0), "{}", early.text);
    assert!(early.json["kept"].to_string().contains("as evidence until"), "{}", early.text);
    assert_eq!(cloud.is_active(&user, &key).await, Some(false));
    cloud.thirty_days_pass(&key).await;
    let asked = keywheel(&close[..3]);
    assert!(asked.json["kept"].to_string().contains("--close --yes"), "{}", asked.text);
    assert_eq!(cloud.is_active(&user, &key).await, Some(false), "nobody has said so");
    let deleted = keywheel(&close);
    assert_eq!(deleted.code, Some(0), "{}", deleted.text);
    assert_eq!((&deleted.json["deleted"], cloud.is_active(&user, &key).await), (&json!([key]), None));
    assert_eq!(keywheel(&close).code, Some(0), "said again");
}
