//! What a person with read rights alone sees: every key, and one of them.

use serde_json::{Value, json};

use crate::cloud::{Cloud, Said, keywheel, keywheel_as};

/// The policy that the command prints, by credentials that open nothing: it asks nobody.
fn printed() -> Value {
    let said = keywheel_as(("AKIAOFNOBODY00000000", "none"), &["audit", "--print-policy"]);
    assert_eq!(said.code, Some(0), "{}", said.text);
    serde_json::from_str(&said.text).unwrap()
}

async fn grant(cloud: &Cloud, user: &str, policy: &Value) {
    let call = cloud.iam.put_user_policy().user_name(user).policy_name("audit");
    call.policy_document(policy.to_string()).send().await.unwrap();
}

/// The lines of JSON about a user.
fn lines(said: &Said, user: &str) -> Vec<Value> {
    let lines = said.text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["user"] == user).collect()
}

#[tokio::test]
async fn the_printed_policy_is_enough_for_both_commands_and_none_of_it_is_too_much() {
    let Some(cloud) = Cloud::here() else { return };
    let policy = printed();
    let auditor = cloud.user("auditor").await;
    let (id, secret) = cloud.key(&auditor).await;
    let pair = (id.as_str(), secret.as_str());
    let (user, key) = cloud.managed("audited").await;
    let lonely = cloud.user("lonely").await;
    let (other, _) = cloud.key(&lonely).await;
    cloud.age(&key, 100);
    cloud.age(&other, 400);
    cloud.consume(&user).await;

    // Without the policy it may do nothing, and says so.
    let refused = keywheel_as(pair, &["audit"]);
    assert!(refused.code == Some(1) && refused.text.contains("may not call"), "{}", refused.text);
    grant(&cloud, &auditor, &policy).await;
    let said = keywheel_as(pair, &["audit"]);
    assert_eq!(said.code, Some(0), "{}", said.text);
    let of_it = lines(&said, &user);
    let [line] = &of_it[..] else { panic!("{}", said.text) };
    assert_eq!(
        (&line["key_id"], &line["managed"], &line["would"], &line["age_days"], &line["slots"]),
        (&json!(key), &json!("yes"), &json!("rotate"), &json!(100), &json!(1))
    );
    assert!(line["last_use"]["at"].is_string() && line["last_use"]["service"] == "sts", "{line}");
    let of_it = lines(&said, &lonely);
    let [line] = &of_it[..] else { panic!("{}", said.text) };
    assert_eq!(
        (&line["key_id"], &line["managed"], &line["code"]),
        (&json!(other), &json!("no"), &json!("NotManaged"))
    );
    assert_eq!((&said.json["kind"], &said.json["complete"]), (&json!("summary"), &json!(true)));

    // One key, by its id, its user and its secret.
    for what in [&key, &user, &format!("cli/{user}")] {
        let said = keywheel_as(pair, &["key", what]);
        assert_eq!((said.code, &said.json["key_id"]), (Some(0), &json!(key)), "{}", said.text);
        assert_eq!((&said.json["managed"], &said.json["runs_read"]), (&json!("yes"), &json!(true)));
        assert_eq!((&said.json["state"], &said.json["way_back"]), (&json!("Active"), &Value::Null));
    }

    // Every part of it is needed by one of the two.
    for without in 0..policy["Statement"].as_array().unwrap().len() {
        let mut less = policy.clone();
        let taken = less["Statement"].as_array_mut().unwrap().remove(without);
        grant(&cloud, &auditor, &less).await;
        let one = keywheel_as(pair, &["key", &key]);
        let fails = one.code == Some(1) || keywheel_as(pair, &["audit"]).code == Some(1);
        assert!(fails, "{}: {}", taken["Sid"], one.text);
    }
    // And it changes nothing, and opens nothing.
    grant(&cloud, &auditor, &policy).await;
    let rotate = keywheel_as(pair, &["rotate", "--user", &user]);
    assert_ne!(rotate.code, Some(0), "{}", rotate.text);
}

#[tokio::test]
async fn an_inactive_key_is_told_with_the_command_that_brings_it_back() {
    let Some(cloud) = Cloud::here() else { return };
    let lonely = cloud.user("off").await;
    let (key, _) = cloud.key(&lonely).await;
    let off = cloud.iam.update_access_key().user_name(&lonely).access_key_id(&key);
    off.status(aws_sdk_iam::types::StatusType::Inactive).send().await.unwrap();
    let said = keywheel(&["key", &key]);
    let by_hand =
        format!("aws iam update-access-key --user-name {lonely} --access-key-id {key} --status Active");
    assert_eq!((said.code, &said.json["way_back"]), (Some(0), &json!(by_hand)), "{}", said.text);
    assert_eq!((&said.json["state"], &said.json["managed"]), (&json!("Inactive"), &json!("no")));

    // A superseded key in its grace: what brings it back is a rollback.
    let (user, old) = cloud.managed("graced").await;
    let rotate =
        ["rotate", "--user", &user, "--overlap", "1s", "--max-overlap", "20s", "--quiet-window", "1s"];
    cloud.consume(&user).await;
    let started = keywheel(&[&rotate[..], &["--grace", "40s"]].concat());
    assert_eq!(started.code, Some(0), "{}", started.text);
    crate::cloud::until("the grace", || async { cloud.is_active(&user, &old).await == Some(false) }).await;
    let said = keywheel(&["key", &old]);
    assert_eq!(said.code, Some(0), "{}", said.text);
    assert_eq!(said.json["way_back"], json!(format!("keywheel rollback --user {user}")), "{}", said.text);
    assert_eq!(
        (&said.json["labels"], &said.json["superseded"]["by"]),
        (&json!(["AWSPREVIOUS"]), &json!(cloud.current(&user).await))
    );
    let gone = keywheel(&["key", "AKIAIOSFODNN7EXAMPLE"]);
    assert!(gone.code == Some(1) && gone.text.contains("AKIAIOSFODNN7EXAMPLE"), "{}", gone.text);
}
