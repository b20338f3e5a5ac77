//! P4: no secret access key and no other value of a secret is anywhere but in Secrets Manager.
//!
//! The secrets are taken from what the cloud gave out, those of rolled-back keys too. A canary that this test
//! puts into each place on purpose shows that the search can find something there.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde_json::{Value, json};

use crate::blocked::refusal;
use crate::cloud::{Cloud, fresh};
use crate::inbox::Inbox;
use crate::run::{Run, new_id};
use crate::scene::{Scene, pepper};

/// A text that is searched, by the name of its place.
struct Place(String, String);

/// How a secret may be written: as it is, escaped for URLs and JSON, in base64 at each of the three offsets, and
/// its two ends, of which a log may show one.
fn forms(secret: &str) -> Vec<String> {
    let url: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let json = Value::from(secret).to_string();
    let json = json.trim_matches('"').to_owned();
    let mut forms =
        vec![secret.to_owned(), url, json.replace('/', "\\/"), json.replace('+', "\\u002b"), json];
    for offset in 0..3 {
        let text = STANDARD_NO_PAD.encode([&[b'x'; 3][..offset], secret.as_bytes()].concat());
        // The first and the last characters depend on the neighbours.
        forms.push(text[offset + usize::from(offset > 0)..text.len() - 2].to_owned());
    }
    forms.push(secret[..12].to_owned());
    forms.push(secret[secret.len() - 12..].to_owned());
    forms
}

/// What to look for: of these forms the ones that no shorter one among them would find.
fn shortest(forms: Vec<String>) -> BTreeSet<String> {
    let forms: BTreeSet<String> = forms.into_iter().collect();
    let found_by_another =
        |form: &String| forms.iter().any(|other| other != form && form.contains(other.as_str()));
    forms.iter().filter(|form| !found_by_another(form)).cloned().collect()
}

/// The names of the places where one of the secrets is; never the secret.
fn found<'a>(secrets: impl IntoIterator<Item = &'a String>, places: &[Place]) -> BTreeSet<String> {
    let forms: BTreeSet<String> = secrets.into_iter().flat_map(|secret| shortest(forms(secret))).collect();
    let leaks = |place: &&Place| forms.iter().any(|form| place.1.contains(form.as_str()));
    places.iter().filter(leaks).map(|place| place.0.clone()).collect()
}

async fn logs(cloud: &Cloud) -> Vec<Place> {
    let prefix = json!({ "logGroupNamePrefix": format!("/aws/lambda/keywheel-{}-", cloud.stage) });
    let groups = cloud.pages("logs", "Logs_20140328.DescribeLogGroups", prefix, "logGroups").await;
    assert!(groups.len() >= 8, "{} log groups", groups.len());
    let mut places = Vec::new();
    for group in groups.iter().map(|group| group["logGroupName"].as_str().unwrap()) {
        let input = json!({ "logGroupName": group });
        let events = cloud.pages("logs", "Logs_20140328.FilterLogEvents", input, "events").await;
        let lines: Vec<&str> = events.iter().filter_map(|event| event["message"].as_str()).collect();
        places.push(Place(format!("log {group}"), lines.join("\n")));
    }
    places
}

/// All that Step Functions tells of the machine's runs: inputs, outputs and histories, word for word.
async fn executions(cloud: &Cloud) -> Vec<Place> {
    let input = json!({ "stateMachineArn": cloud.machine, "maxResults": 1000 });
    let target = |action: &str| format!("AWSStepFunctions.{action}");
    let runs = cloud.pages("states", &target("ListExecutions"), input, "executions").await;
    let mut places = Vec::new();
    for arn in runs.iter().map(|run| run["executionArn"].as_str().unwrap()) {
        let mut text =
            cloud.raw("states", &target("DescribeExecution"), &json!({ "executionArn": arn })).await;
        let input = json!({ "executionArn": arn, "maxResults": 1000, "includeExecutionData": true });
        let events = cloud.pages("states", &target("GetExecutionHistory"), input, "events").await;
        text.push_str(&Value::from(events).to_string());
        places.push(Place(format!("execution {arn}"), text));
    }
    places
}

/// Puts the canary where a careless line of code might put a secret, each time in another form.
async fn let_slip(cloud: &Arc<Cloud>, canary: &str) -> Vec<String> {
    let forms = forms(canary);
    let group = format!("/aws/lambda/keywheel-{}-look", cloud.stage);
    let stream = json!({ "logGroupName": group, "logStreamName": format!("e2e-{}", fresh()) });
    cloud.raw("logs", "Logs_20140328.CreateLogStream", &stream).await;
    let line = json!({ "timestamp": jiff::Timestamp::now().as_millisecond(), "message": format!("k={} ", forms[6]) });
    let mut put = stream;
    put["logEvents"] = json!([line]);
    cloud.raw("logs", "Logs_20140328.PutLogEvents", &put).await;

    let run = Run::start(cloud, &new_id(), &json!({ "secret": format!("e2e/{}", forms[1]) })).await;
    run.end().await.expect("Blocked");

    let detail = json!({ "text": forms[5] }).to_string();
    let entry =
        json!({ "EventBusName": cloud.bus, "Source": "keywheel", "DetailType": "Canary", "Detail": detail });
    cloud.raw("events", "AWSEvents.PutEvents", &json!({ "Entries": [entry] })).await;

    let message = format!("it ends in {}", forms[9]);
    let fields =
        [("Action", "Publish"), ("Version", "2010-03-31"), ("TopicArn", &cloud.topic), ("Message", &message)];
    cloud.query("sns", &fields).await;
    vec![format!("log {group}"), format!("execution {}", run.arn), "the bus".into(), "the topic".into()]
}

#[tokio::test]
async fn p4_the_secret_stays_in_the_store() {
    // Alone: while the cloud hands out all that it has ever written, it answers nobody else.
    let Some(cloud) = Cloud::alone().await else { return };
    let (mut bus, mut topic) = (Inbox::on_bus(&cloud).await, Inbox::on_topic(&cloud).await);

    // Runs of many kinds: a whole one, two that roll back, one that finds a value it cannot read, an adoption.
    let (whole, _) = Scene::managed(&cloud, "p4-whole").await;
    let (unstored, _) = Scene::managed(&cloud, "p4-unstored").await;
    let (refused, _) = Scene::managed(&cloud, "p4-refused").await;
    let (broken, pair) = Scene::managed(&cloud, "p4-broken").await;
    let first = Scene::bare(&cloud, "p4-first").await;
    broken.put(&whole.value(&pair).replace(['{', '}'], "")).await;
    let ids = [new_id(), new_id()];
    for (id, call) in
        [(&ids[0], ("secretsmanager", "PutSecretValue")), (&ids[1], ("sts", "GetCallerIdentity"))]
    {
        cloud.fault(refusal(id, call, 400, "AccessDeniedException")).await;
    }
    let runs = tokio::join!(
        whole.start(),
        unstored.start_with(&ids[0], json!({})),
        refused.start_with(&ids[1], json!({})),
        broken.start(),
        first.start(),
    );
    let ends = tokio::join!(runs.0.end(), runs.1.end(), runs.2.end(), runs.3.end(), runs.4.end());
    ends.0.expect("Completed");
    ends.1.expect("RolledBack");
    ends.2.expect("RolledBack");
    ends.3.expect("Blocked").expect_code("NotJson");
    ends.4.expect("Completed");

    let mut secrets = cloud.secrets_given_out().await;
    for run in [&runs.0, &runs.1, &runs.2, &runs.4] {
        // The log has what this run's own calls were given, rolled back or not.
        let made: Vec<String> = run.requests().await.iter().filter_map(|r| Some(r.made()?.secret)).collect();
        assert!(!made.is_empty() && made.iter().all(|secret| secrets.contains(secret)));
    }
    secrets.extend([&whole, &unstored, &refused, &broken].map(|scene| pepper(&scene.user)));
    let canary = format!("canary/{}+{}=/\"end", fresh(), fresh());
    let slipped = let_slip(&cloud, &canary).await;

    // Everything that the runs announced has arrived before the search.
    let of_last = |raw: &str| raw.contains(&format!("{}/Ended", runs.0.id));
    assert!(!bus.wait(1, |message| of_last(&message.raw)).await.is_empty());
    assert!(!topic.wait(1, |message| of_last(&message.raw)).await.is_empty());
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut places = logs(&cloud).await;
    places.extend(executions(&cloud).await);
    places.push(Place("the bus".into(), bus.everything().await));
    places.push(Place("the topic".into(), topic.everything().await));

    let leaks = found(&secrets, &places);
    assert!(leaks.is_empty(), "P4: a secret is in {leaks:?}");
    let canaries = found([&canary], &places);
    for place in slipped {
        assert!(canaries.contains(&place), "the search does not find a canary in {place}");
    }
    bus.close().await;
    topic.close().await;
}

#[tokio::test]
async fn the_search_finds_a_secret_in_each_form() {
    let secret = "abc/DEF+ghi\"jklMNOpqr=tail/end9".to_owned();
    let wrap = |text: &str| [Place("here".into(), format!("before {text} after"))];
    let within =
        |before: &str| base64::engine::general_purpose::STANDARD.encode(format!("{before}{secret}zz"));
    let written = [
        secret.clone(),
        "abc%2FDEF%2Bghi%22jklMNOpqr%3Dtail%2Fend9".into(),
        r#"abc\/DEF+ghi\"jklMNOpqr=tail\/end9"#.into(),
        r#"abc/DEF\u002bghi\"jklMNOpqr=tail/end9"#.into(),
        within(""),
        within("a"),
        within("ab"),
        within("abc"),
        "abc/DEF+ghi\"…".into(),
        "…qr=tail/end9".into(),
    ];
    for text in written {
        assert_eq!(found([&secret], &wrap(&text)).len(), 1, "not found as {text}");
    }
    assert!(found([&secret], &wrap("abc DEF ghi")).is_empty());
}
