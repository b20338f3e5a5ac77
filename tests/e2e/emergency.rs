//! From a leak event to an Inactive key, on the local cloud: the real rules, machines, Lambdas and roles.

#[path = "emergency/alarm.rs"]
mod alarm;
#[path = "emergency/hostile.rs"]
mod hostile;
#[path = "emergency/replacement.rs"]
mod replacement;
#[path = "emergency/speed.rs"]
mod speed;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use aws_credential_types::Credentials;
use aws_sdk_iam::types::StatusType;
use serde_json::{Value, json};

use crate::blocked::refusal;
use crate::cloud::Cloud;
use crate::run::Run;
use crate::scene::Scene;
pub(crate) use alarm::{Alarm, exposed, finding, put};
use support::figures::say;

/// How long anything here may take before the test calls it a failure.
const PATIENCE: Duration = Duration::from_mins(1);

/// Waits until something holds.
async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let end = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < end, "{what} does not come to pass");
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
}

async fn is_active(scene: &Scene, key: &str) -> Option<bool> {
    scene.keys().await.get(key).copied()
}

#[tokio::test]
async fn a_leaked_key_of_another_account_ends_inactive_and_denied_there() {
    let Some(cloud) = Cloud::here().await else { return };
    let scene = Scene::stranger(&cloud.member(), "member").await;
    let pair = scene.make_key().await;
    // A user of the same name in the hub's account, whose sessions are nobody's business.
    let namesake = Scene::untagged(&cloud, &scene.user).await;
    let other = namesake.make_key().await;
    let id = put(&cloud, &finding(&pair.id, &scene.user)).await;
    until("the key's end", || async { is_active(&scene, &pair.id).await == Some(false) }).await;
    let alarm = Alarm::of_event(&cloud, &id).await;
    let [incident] = &alarm.incidents().await[..] else { panic!("not one incident") };
    until("the outcome", || async {
        incident.visited().await.iter().any(|state| state == "WaitForSessions")
    })
    .await;
    let doc = incident.given_to("WaitForSessions").await;
    assert_eq!((&doc["outcome"], &doc["failed"]), (&json!("Contained"), &Value::Null), "{doc:#}");
    assert_ne!(doc["account"], cloud.account());
    assert!(doc["findings"]["read"].as_u64().is_some_and(|regions| regions > 0), "{doc:#}");
    assert_eq!((scene.policies().await, namesake.policies().await), (1, 0));
    assert_eq!(is_active(&namesake, &other.id).await, Some(true));
}

#[tokio::test]
async fn every_sample_of_a_leak_starts_an_emergency_through_the_rules() {
    let Some(cloud) = Cloud::here().await else { return };
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../events/leaks");
    let classes: Value =
        serde_json::from_str(&std::fs::read_to_string(format!("{folder}/classes.json")).unwrap()).unwrap();
    let quiet = ["IGNORE", "OBSERVE", "ROTATE", "SM_ROTATION_STEP", "NOT_CREDENTIAL_LEAK_NOTIFY"];
    let mut waiting = Vec::new();
    for (file, class) in classes.as_object().unwrap() {
        let class = class.as_str().unwrap().to_owned();
        if quiet.contains(&class.as_str()) {
            continue;
        }
        let event: Value =
            serde_json::from_str(&std::fs::read_to_string(format!("{folder}/{file}")).unwrap()).unwrap();
        waiting.push((file.clone(), class, put(&cloud, &event).await));
    }
    assert!(waiting.len() >= 15, "{waiting:?}");
    for (file, class, id) in waiting {
        let alarm = Alarm::of_event(&cloud, &id).await;
        let alert = alarm.alert().await;
        println!("{file:<36} {class:<20} {}", alert["course"]);
        assert_eq!(alert["class"], class.as_str(), "{file}");
    }
}

#[tokio::test]
async fn p3_a_leaked_key_of_a_managed_user_ends_inactive_denied_and_replaced() {
    let Some(cloud) = Cloud::here().await else { return };
    let (scene, pair) = Scene::managed(&cloud, "leak").await;
    // Minted before anybody knew.
    let session = cloud.sts(&pair, "e2e-thief").get_session_token().send().await.unwrap();
    let session = session.credentials().unwrap();
    let session = Credentials::new(
        session.access_key_id(),
        session.secret_access_key(),
        Some(session.session_token().to_owned()),
        None,
        "Test",
    );
    scene.allow("iam:GetUser").await;
    assert!(cloud.iam_as(session.clone()).get_user().send().await.is_ok(), "the session works at first");

    let id = put(&cloud, &finding(&pair.id, &scene.user)).await;
    until("the key's end", || async { is_active(&scene, &pair.id).await == Some(false) }).await;
    let began = Instant::now();
    let alarm = Alarm::of_event(&cloud, &id).await;
    let [incident] = &alarm.incidents().await[..] else { panic!("not one incident") };
    until("the deny", || async { cloud.iam_as(session.clone()).get_user().send().await.is_err() }).await;
    until("another key", || async { scene.current().await.id != pair.id }).await;
    say(&format!("the application had no key for {:.1?} after containment", began.elapsed()));
    let new = scene.current().await;
    assert!(new.works(&cloud).await);
    let long_lived = Credentials::new(&new.id, &new.secret, None, None, "Test");
    assert!(cloud.iam_as(long_lived).get_user().send().await.is_ok(), "the deny hits the new key");

    // The outcome is given after the second look, and the deny stays until its time.
    until("the outcome", || async {
        incident.visited().await.iter().any(|state| state == "WaitForSessions")
    })
    .await;
    let doc = incident.given_to("WaitForSessions").await;
    assert_eq!((&doc["outcome"], &doc["failed"]), (&json!("Contained"), &Value::Null), "{doc:#}");
    assert_eq!((&doc["looks"], &doc["keys"]), (&json!(2), &json!([pair.id])));
    // The waits for the looks are skipped here, so the second one may come before the replacement does.
    assert_eq!(doc["replacement"]["way"], "new", "{doc:#}");
    // The cut-off is a minute after containment: a session issued later than that lives.
    let cut_off: jiff::Timestamp = doc["deny"]["cut_off"].as_str().unwrap().parse().unwrap();
    let contained: jiff::Timestamp = doc["contained_at"].as_str().unwrap().parse().unwrap();
    let settles = cut_off.duration_since(contained).as_secs();
    assert!((60..=61).contains(&settles), "{settles}");
    let keys = scene.keys().await;
    assert_eq!((keys.len(), keys.get(&pair.id)), (2, Some(&false)), "the evidence stays");
    // One that the new key mints then is no leaked one, and may do what the user may.
    let left = cut_off.duration_since(jiff::Timestamp::now());
    tokio::time::sleep(Duration::try_from(left).unwrap_or_default() + Duration::from_secs(1)).await;
    let later = cloud.sts(&new, "e2e-application").get_session_token().send().await.unwrap();
    let later = later.credentials().unwrap();
    let (id, secret) = (later.access_key_id(), later.secret_access_key());
    let later = Credentials::new(id, secret, Some(later.session_token().to_owned()), None, "Test");
    assert!(cloud.iam_as(later).get_user().send().await.is_ok(), "the deny hits a session of the new key");
    assert!(cloud.iam_as(session).get_user().send().await.is_err(), "the deny is gone before its time");
    incident.stop().await;
}

#[tokio::test]
async fn p3_nothing_that_fails_beside_it_keeps_a_key_from_being_contained() {
    let Some(cloud) = Cloud::here().await else { return };
    let (scene, pair) = Scene::managed(&cloud, "leak-alone").await;
    let alarm = Alarm::prepared(&cloud);
    let incident = alarm.incident_about(&exposed(&pair.id, &scene.user));
    for call in
        [("sns", "Publish"), ("events", "PutEvents"), ("ssm", "GetParameters"), ("ssm", "PutParameter")]
    {
        cloud.fault(refusal(&incident.id, call, 500, "InternalFailure")).await;
    }
    // A replacement is asked for three times. It reads the store before it starts a rotation, so the store refuses
    // once at each of its two calls, and the third time it is the start that is refused.
    for (service, action, times) in [
        ("secretsmanager", "DescribeSecret", json!(1)),
        ("secretsmanager", "GetSecretValue", json!(1)),
        ("states", "StartExecution", json!(null)),
        ("cloudtrail", "LookupEvents", json!(null)),
    ] {
        let mut fault = refusal(&incident.id, (service, action), 400, "AccessDeniedException");
        fault["times"] = times;
        cloud.fault(fault).await;
    }
    alarm.start(&exposed(&pair.id, &scene.user)).await;
    until("the key's end", || async { is_active(&scene, &pair.id).await == Some(false) }).await;
    incident.reaches("InvestigateAgain").await;
    let doc = incident.given_to("InvestigateAgain").await;
    assert_eq!((&doc["outcome"], &doc["findings"]), (&json!("Contained"), &Value::Null), "{doc:#}");
    assert!(doc["deny"]["cut_off"].is_string(), "{doc:#}");
    // In the document, and in the words that people get.
    let (noted, told) = (doc["failed"].to_string(), doc["why"]["text"].as_str().unwrap());
    for what in [
        "ssm:GetParameters",
        "ssm:PutParameter",
        "secretsmanager:DescribeSecret",
        "secretsmanager:GetSecretValue",
        "states:StartExecution",
        "cloudtrail:LookupEvents",
    ] {
        assert!(noted.contains(what), "{what} is not among what failed: {noted}");
        assert!(told.contains(what), "nobody is told of {what}: {told}");
    }
    // What neither the bus nor the topic takes says so itself, and waits.
    let notices = doc["notices"].as_array().unwrap();
    for kind in ["Contained", "Ended"] {
        assert!(notices.iter().any(|notice| notice["kind"] == kind), "{kind}: {notices:#?}");
    }
    for notice in notices {
        assert_eq!((&notice["on_bus"], &notice["on_topic"]), (&json!(false), &json!(false)), "{notice:#}");
    }
    assert_eq!(doc["delivery"], "pending");
    incident.stop().await;
}

#[tokio::test]
async fn what_a_leaked_key_did_is_read_in_every_region_but_the_one_that_refuses_and_kept() {
    let Some(cloud) = Cloud::here().await else { return };
    let scene = Scene::stranger(&cloud, "traces").await;
    let pair = scene.make_key().await;
    for (region, calls) in [("us-east-1", 70), ("eu-central-1", 50), ("eu-west-3", 30)] {
        let thief = cloud.sts_in(region, &pair, "e2e-thief");
        for _ in 0..calls {
            thief.get_caller_identity().send().await.unwrap();
        }
    }
    let event = finding(&pair.id, &scene.user);
    let alarm = Alarm::prepared(&cloud);
    let incident = alarm.incident_about(&event);
    cloud
        .fault(json!({
            "service": "cloudtrail", "action": "LookupEvents", "region": "eu-west-3", "app_contains": incident.id,
            "status": 400, "code": "ThrottlingException", "times": null,
        }))
        .await;
    alarm.start(&event).await;
    incident.begins().await;
    // A region that throttles to the end is asked for half a minute.
    let end = Instant::now() + 2 * PATIENCE;
    while !incident.visited().await.iter().any(|state| state == "InvestigateAgain") {
        assert!(Instant::now() < end, "{:?}", incident.visited().await);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let doc = incident.given_to("InvestigateAgain").await;
    incident.stop().await;
    let found = &doc["findings"];
    assert_eq!((&found["events"], &found["missing"]), (&json!(120), &json!(["eu-west-3"])), "{doc:#}");
    assert!(found["read"].as_u64().is_some_and(|regions| regions >= 2), "{doc:#}");
    let told =
        doc["notices"].as_array().unwrap().iter().find(|notice| notice["kind"] == "Investigated").unwrap();
    assert!(told["text"].as_str().unwrap().starts_with("PARTIAL: "), "{told:#}");
    let page = cloud.object(found["report"].as_str().unwrap()).await;
    assert!(page.contains("<strong>PARTIAL</strong>Not read: eu-west-3."), "{page}");
}

#[tokio::test]
async fn a_key_minted_in_the_gap_is_part_of_the_leak_and_one_made_active_is_contained_again() {
    let Some(cloud) = Cloud::here().await else { return };
    let scene = Scene::stranger(&cloud, "leak-gap").await;
    let pair = scene.make_key().await;
    let id = put(&cloud, &finding(&pair.id, &scene.user)).await;
    until("the key's end", || async { is_active(&scene, &pair.id).await == Some(false) }).await;
    // What IAM has not forgotten yet mints one more.
    let minted = scene.make_key().await;
    scene.set_key(&pair.id, StatusType::Active).await;
    let alarm = Alarm::of_event(&cloud, &id).await;
    until("both keys' end", || async {
        let keys = scene.keys().await;
        keys.get(&pair.id) == Some(&false) && keys.get(&minted.id) == Some(&false)
    })
    .await;
    let [incident] = &alarm.incidents().await[..] else { panic!("not one incident") };
    incident.stop().await;
    // Later, when no look of that incident comes any more: CloudTrail's record of the change starts another one.
    scene.set_key(&pair.id, StatusType::Active).await;
    until("its end", || async { is_active(&scene, &pair.id).await == Some(false) }).await;
}

/// The rule that the local cloud has switched off: elsewhere tests make keys by hand all the time.
async fn watch_key_making(cloud: &Cloud, on: bool) {
    let action = if on { "AWSEvents.EnableRule" } else { "AWSEvents.DisableRule" };
    let name = format!("keywheel-{}-leak-key-made", cloud.stage);
    cloud.call("events", action, &json!({ "Name": name })).await;
}

/// The incidents that name this user, by their executions.
async fn incidents_of(cloud: &Cloud, user: &str) -> Vec<Value> {
    let list = cloud.sfn.list_executions().state_machine_arn(&cloud.incident).max_results(200);
    let mut found = Vec::new();
    for execution in list.send().await.unwrap().executions() {
        let told =
            cloud.sfn.describe_execution().execution_arn(execution.execution_arn()).send().await.unwrap();
        if let Some(output) = told.output()
            && told.input().is_some_and(|input| input.contains(user))
        {
            found.push(serde_json::from_str(output).unwrap());
        }
    }
    found
}

#[tokio::test]
async fn a_managed_users_key_that_somebody_else_has_made_is_told_and_ours_is_not() {
    let Some(cloud) = Cloud::alone().await else { return };
    let (scene, _) = Scene::managed(&cloud, "odd").await;
    watch_key_making(&cloud, true).await;
    // CloudTrail's own records, from the calls to the rule: first of a key that a run makes, then of a person's.
    let ended = scene.rotate().await;
    assert_eq!(ended.doc["outcome"], "Completed", "{:#}", ended.doc);
    let odd = scene.make_key().await;
    until("the incident", || async { !incidents_of(&cloud, &scene.user).await.is_empty() }).await;
    watch_key_making(&cloud, false).await;
    let told = incidents_of(&cloud, &scene.user).await;
    let [incident] = told.as_slice() else { panic!("{} incidents: {told:#?}", told.len()) };
    assert_eq!(
        (&incident["target"]["key_id"], &incident["why"]["code"]),
        (&json!(odd.id), &json!("OddKeyMaking")),
        "{incident:#}"
    );
    assert_eq!(is_active(&scene, &odd.id).await, Some(true), "nothing was changed");
}

#[tokio::test]
async fn a_hundred_credentials_in_one_event_and_one_of_them_malformed() {
    let Some(cloud) = Cloud::here().await else { return };
    // Two users have keys; the others' are not ours. Each gets an incident of its own all the same.
    let one = Scene::stranger(&cloud, "leak-many").await;
    let other = Scene::stranger(&cloud, "leak-many").await;
    let (first, second) = (one.make_key().await, other.make_key().await);
    let mut entities: Vec<Value> =
        (0..97).map(|number| json!({ "entityValue": format!("AKIA2OGYBAH6{number:08}") })).collect();
    entities.insert(40, json!({ "entityValue": first.id }));
    entities.push(json!({ "entityValue": second.id }));
    entities.push(json!({ "entityValue": "not a key; drop table" }));
    let id = put(&cloud, &alarm::health(&entities)).await;
    for (scene, key) in [(&one, &first), (&other, &second)] {
        until("a key's end", || async { is_active(scene, &key.id).await == Some(false) }).await;
    }
    let alarm = Alarm::of_event(&cloud, &id).await;
    let alert = alarm.alert().await;
    let named: BTreeSet<&str> = alert["incidents"]
        .as_array()
        .unwrap()
        .iter()
        .map(|incident| incident["id"].as_str().unwrap())
        .collect();
    assert_eq!(named.len(), 99);
    assert!(alert["reason"].as_str().unwrap().contains('1'), "{}", alert["reason"]);
    for incident in alarm.incidents().await {
        if incident.goes_on().await {
            incident.stop().await;
        }
    }
}

#[tokio::test]
async fn a_deny_is_taken_off_when_its_time_has_come_and_only_ones_own() {
    let Some(cloud) = Cloud::here().await else { return };
    let scene = Scene::stranger(&cloud, "leak-lift").await;
    let pair = scene.make_key().await;
    // As an incident that was begun a day and a half ago: what is left of it is the deny.
    let alarm = Alarm::prepared(&cloud);
    let incident = alarm.incident_about(&exposed(&pair.id, &scene.user));
    let (cut_off, until_then) =
        (jiff::Timestamp::now() - jiff::SignedDuration::from_hours(36), jiff::Timestamp::now());
    let cut_off: jiff::Timestamp = jiff::Timestamp::from_second(cut_off.as_second()).unwrap();
    let name = format!("keywheel-deny-sessions-{}", pair.id);
    let theirs = "keywheel-deny-sessions-AKIATHEIRS0000000000";
    for (name, cut_off) in [(name.as_str(), cut_off), (theirs, jiff::Timestamp::now())] {
        let document = keywheel::sessions::deny_before(cut_off);
        let call = cloud.iam.put_user_policy().user_name(&scene.user).policy_name(name);
        call.policy_document(document).send().await.unwrap();
    }
    let mut doc = alarm.document_about(&exposed(&pair.id, &scene.user));
    doc["user"] = json!(scene.user);
    doc["keys"] = json!([pair.id]);
    doc["known"] = json!([pair.id]);
    doc["contained_at"] = json!(cut_off - jiff::SignedDuration::from_mins(1));
    doc["phase"] = json!("look");
    doc["looks"] = json!(1);
    doc["deny"] = json!({ "policy": name, "cut_off": cut_off, "until": until_then });
    scene.set_key(&pair.id, StatusType::Inactive).await;
    cloud
        .sfn
        .start_execution()
        .state_machine_arn(&cloud.incident)
        .name(&incident.id)
        .input(doc.to_string())
        .send()
        .await
        .unwrap();
    let ended = incident.end().await;
    assert_eq!(ended.doc["phase"], "ended", "{:#}", ended.doc);
    let left = cloud.iam.list_user_policies().user_name(&scene.user).send().await.unwrap();
    assert_eq!(left.policy_names(), [theirs]);
}

#[tokio::test]
async fn switched_to_page_an_incident_changes_nothing_and_says_what_it_would_do() {
    let Some(cloud) = Cloud::alone().await else { return };
    let (scene, pair) = Scene::managed(&cloud, "leak-page").await;
    let before = scene.truth().await;
    for switch in ["page", "off"] {
        cloud.set_parameter("containment", switch).await;
        let id = put(&cloud, &finding(&pair.id, &scene.user)).await;
        let alarm = Alarm::of_event(&cloud, &id).await;
        let [incident] = &alarm.incidents().await[..] else { panic!("not one incident") };
        let incident: Run = incident.clone();
        let ended = incident.end().await;
        cloud.set_parameter("containment", "on").await;
        ended.expect("Blocked").expect_code("NotSwitchedOn");
        assert!(ended.why().contains("make it Inactive and deny its sessions"), "{}", ended.why());
        assert_eq!(scene.truth().await, before);
        assert!(incident.writes().await.is_empty());
    }
}
