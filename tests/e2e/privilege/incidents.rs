//! The flows of an incident that between them use every right of its functions' roles.
//!
//! Each is an execution of the incident's machine, begun with the document that triage would have handed over. What
//! takes a day and a half is begun at its end.

use std::sync::Arc;

use aws_sdk_iam::types::StatusType;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::flows::{Flow, Started};
use crate::blocked::refusal;
use crate::cloud::{Cloud, Pair};
use crate::emergency::{Alarm, exposed};
use crate::run::{Run, brief_but, new_id};
use crate::scene::Scene;

/// Where an incident has its outcome, and only the longest session is waited for.
const TOLD: &str = "WaitForSessions";

/// All of them.
pub(super) const INCIDENTS: [Flow; 17] = [
    ("a leaked key of a managed user", |cloud| Box::pin(managed(cloud))),
    ("a leaked key that superseded another", |cloud| Box::pin(superseding(cloud))),
    ("a leaked key of nobody's", |cloud| Box::pin(nobodys(cloud))),
    ("a leaked key of another account", |cloud| Box::pin(members(cloud))),
    ("a leaked key of another account's managed user", |cloud| Box::pin(managed_there(cloud))),
    ("a report over the bus", |cloud| Box::pin(reported(cloud))),
    ("a key that cannot be made Inactive", |cloud| Box::pin(stubborn(cloud))),
    ("one of another account that cannot be", |cloud| Box::pin(stubborn_member(cloud))),
    ("a user whose own policies are full", |cloud| Box::pin(full(cloud))),
    ("a role that was assumed with a leaked key", |cloud| Box::pin(assumed(cloud))),
    ("a role's deny whose time has come", |cloud| Box::pin(lifted_role(cloud))),
    ("a deny whose time has come", |cloud| Box::pin(lifted(cloud))),
    ("a managed deny whose time has come", |cloud| Box::pin(lifted_managed(cloud))),
    ("a user's leaked key that is denied already", |cloud| Box::pin(denied(cloud))),
    ("a managed user's key that somebody has made", |cloud| Box::pin(odd(cloud))),
    ("the same in another account", |cloud| Box::pin(odd_there(cloud))),
    ("more keys than one principal makes", |cloud| Box::pin(burst(cloud))),
];

/// Starts an incident about this key, with what `change` makes of its document.
async fn begin(cloud: &Arc<Cloud>, key: &str, user: &str, change: impl FnOnce(&mut Value)) -> Run {
    let (alarm, event) = (Alarm::prepared(cloud), exposed(key, user));
    let incident = alarm.incident_about(&event);
    let mut doc = alarm.document_about(&event);
    change(&mut doc);
    start(cloud, &incident, &doc).await;
    incident
}

async fn start(cloud: &Cloud, incident: &Run, doc: &Value) {
    let call = cloud.sfn.start_execution().state_machine_arn(&cloud.incident).name(&incident.id);
    call.input(doc.to_string()).send().await.unwrap();
}

async fn stranger(cloud: &Arc<Cloud>, what: &str) -> (Scene, Pair) {
    let scene = Scene::stranger(cloud, what).await;
    let pair = scene.make_key().await;
    (scene, pair)
}

async fn managed(cloud: Arc<Cloud>) -> Started {
    let of_user = Scene::managed(&cloud, "right-leak").await;
    leaked(&cloud, of_user).await
}

/// Whether the user is managed, and so has its key replaced, is for its own account to tell.
async fn managed_there(cloud: Arc<Cloud>) -> Started {
    let of_user = Scene::managed(&cloud.member(), "right-leak").await;
    leaked(&cloud, of_user).await
}

async fn leaked(cloud: &Arc<Cloud>, (scene, pair): (Scene, Pair)) -> Started {
    let run = begin(cloud, &pair.id, &scene.user, |_| {}).await;
    Started::of(scene, run).until(TOLD)
}

/// The superseded key comes back, unless it has leaked as well. Who is asked for that is seen as soon as the replacement
/// has begun.
async fn superseding(cloud: Arc<Cloud>) -> Started {
    let (scene, _) = Scene::managed(&cloud, "right-super").await;
    let policy = brief_but(&json!({ "overlap": "80s", "max_overlap": "80s" }));
    let rotation = scene.start_with(&new_id(), json!({ "policy": policy })).await;
    rotation.reaches("Overlap").await;
    let current = scene.current().await;
    let run = begin(&cloud, &current.id, &scene.user, |_| {}).await;
    Started::of(scene, run).until(TOLD)
}

/// The account that lets the installation in.
const MEMBER: u64 = 444_455_556_666;

/// A key's id of an account, as AWS writes it: the account's number from the 5th letter on, in base 32.
fn id_of(account: u64) -> String {
    let bits = (1_u64 << 49) | (account << 9);
    let letter = |place: u32| {
        let index = usize::try_from(bits >> (place * 5) & 31).unwrap();
        char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[index])
    };
    let head: String = (0..10).rev().map(letter).collect();
    format!("AKIA{head}GONE00")
}

async fn nobodys(cloud: Arc<Cloud>) -> Started {
    let (scene, pair) = stranger(&cloud, "right-none").await;
    let call = cloud.iam.delete_access_key().user_name(&scene.user).access_key_id(&pair.id);
    call.send().await.unwrap();
    // Whose it is can only be asked for by account: the id's letters say which, and that account lets us in, and has
    // no such key either.
    let run = begin(&cloud, &id_of(MEMBER), &scene.user, |_| {}).await;
    Started::of(scene, run)
}

async fn members(cloud: Arc<Cloud>) -> Started {
    let (scene, pair) = stranger(&cloud.member(), "right-member").await;
    let run = begin(&cloud, &pair.id, &scene.user, |_| {}).await;
    Started::of(scene, run).until(TOLD)
}

async fn reported(cloud: Arc<Cloud>) -> Started {
    let (scene, pair) = stranger(&cloud, "right-report").await;
    let run = begin(&cloud, &pair.id, &scene.user, |doc| doc["reported"] = json!(true)).await;
    Started::of(scene, run).until(TOLD)
}

async fn stubborn(cloud: Arc<Cloud>) -> Started {
    let of_user = stranger(&cloud, "right-stubborn").await;
    stubborn_key(cloud, of_user).await
}

async fn stubborn_member(cloud: Arc<Cloud>) -> Started {
    let of_user = stranger(&cloud.member(), "right-stubborn").await;
    stubborn_key(cloud, of_user).await
}

async fn stubborn_key(cloud: Arc<Cloud>, (scene, pair): (Scene, Pair)) -> Started {
    let (alarm, event) = (Alarm::prepared(&cloud), exposed(&pair.id, &scene.user));
    let incident = alarm.incident_about(&event);
    // A failure that is not a refusal: no right of anybody's is in question.
    cloud.fault(refusal(&incident.id, ("iam", "UpdateAccessKey"), 500, "ServiceFailure")).await;
    start(&cloud, &incident, &alarm.document_about(&event)).await;
    Started::of(scene, incident).until("WaitToTryAgain")
}

async fn full(cloud: Arc<Cloud>) -> Started {
    let (scene, pair) = stranger(&cloud, "right-full").await;
    // Close to the 2,048 characters that all of a user's own policies have.
    let sids: Vec<Value> = (0..18)
        .map(|number| {
            json!({ "Sid": format!("Filler{number:06}"), "Effect": "Deny", "Action": "s3:DeleteBucketWebsite", "Resource": format!("arn:aws:s3:::none-{number:04}") })
        })
        .collect();
    let document = json!({ "Version": "2012-10-17", "Statement": sids }).to_string();
    assert!((1_900..2_048).contains(&document.len()), "{} characters", document.len());
    let call = cloud.iam.put_user_policy().user_name(&scene.user).policy_name("theirs");
    call.policy_document(document).send().await.unwrap();
    let run = begin(&cloud, &pair.id, &scene.user, |_| {}).await;
    Started::of(scene, run).until(TOLD)
}

/// The document of an incident that has denied sessions a day and a half ago.
fn over(
    doc: &mut Value,
    (scene, pair): (&Scene, &Pair),
    policy: &str,
    arn: Option<&str>,
    cut_off: Timestamp,
) {
    doc["user"] = json!(scene.user);
    doc["keys"] = json!([pair.id]);
    doc["known"] = json!([pair.id]);
    doc["contained_at"] = json!(cut_off - SignedDuration::from_mins(1));
    doc["phase"] = json!("look");
    doc["looks"] = json!(1);
    doc["deny"] = json!({ "policy": policy, "cut_off": cut_off, "until": Timestamp::now() });
    if let Some(arn) = arn {
        doc["deny"]["arn"] = json!(arn);
    }
}

fn long_ago() -> Timestamp {
    let at = Timestamp::now() - SignedDuration::from_hours(37);
    Timestamp::from_second(at.as_second()).unwrap()
}

/// A role of the account that anybody here may assume.
async fn role(cloud: &Cloud, scene: &Scene) -> String {
    let name = format!("role-{}", scene.user);
    let trust = json!({ "Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Principal": { "AWS": format!("arn:aws:iam::{}:root", cloud.account()) },
        "Action": "sts:AssumeRole",
    }] });
    let made = cloud.iam.create_role().role_name(&name).assume_role_policy_document(trust.to_string());
    made.send().await.unwrap();
    name
}

/// What CloudTrail will have told is in the document already.
async fn assumed(cloud: Arc<Cloud>) -> Started {
    let (scene, pair) = stranger(&cloud, "right-assumed").await;
    let role = role(&cloud, &scene).await;
    let arn = format!("arn:aws:iam::{}:role/{role}", cloud.account());
    let change = |doc: &mut Value| {
        let session = json!({ "who": arn, "name": "thief", "calls": 1 });
        doc["findings"] = json!({ "at": Timestamp::now(), "events": 1, "roles": { "list": [session] } });
    };
    let run = begin(&cloud, &pair.id, &scene.user, change).await;
    Started::of(scene, run).until(TOLD)
}

async fn lifted_role(cloud: Arc<Cloud>) -> Started {
    let (scene, pair) = stranger(&cloud, "right-role").await;
    scene.set_key(&pair.id, StatusType::Inactive).await;
    let (role, cut_off) = (role(&cloud, &scene).await, long_ago());
    let (name, names) = (format!("keywheel-deny-sessions-{}", pair.id), ["thief".to_owned()].into());
    let put = cloud.iam.put_role_policy().role_name(&role).policy_name(&name);
    put.policy_document(keywheel::sessions::deny_role_sessions(cut_off, &names)).send().await.unwrap();
    let change = |doc: &mut Value| {
        over(doc, (&scene, &pair), &name, None, cut_off);
        doc["roles"] = json!([{ "role": role, "policy": name, "sessions": names, "cut_off": cut_off }]);
    };
    let run = begin(&cloud, &pair.id, &scene.user, change).await;
    Started::of(scene, run)
}

async fn lifted(cloud: Arc<Cloud>) -> Started {
    let (scene, pair) = stranger(&cloud, "right-lift").await;
    scene.set_key(&pair.id, StatusType::Inactive).await;
    let (name, cut_off) = (format!("keywheel-deny-sessions-{}", pair.id), long_ago());
    let call = cloud.iam.put_user_policy().user_name(&scene.user).policy_name(&name);
    call.policy_document(keywheel::sessions::deny_before(cut_off)).send().await.unwrap();
    let run =
        begin(&cloud, &pair.id, &scene.user, |doc| over(doc, (&scene, &pair), &name, None, cut_off)).await;
    Started::of(scene, run)
}

async fn lifted_managed(cloud: Arc<Cloud>) -> Started {
    let (scene, pair) = stranger(&cloud, "right-managed").await;
    scene.set_key(&pair.id, StatusType::Inactive).await;
    let (name, cut_off) = (format!("keywheel-deny-sessions-{}-1", pair.id), long_ago());
    let made = cloud.iam.create_policy().policy_name(&name);
    let made = made.policy_document(keywheel::sessions::deny_before(cut_off)).send().await.unwrap();
    let arn = made.policy().unwrap().arn().unwrap().to_owned();
    cloud.iam.attach_user_policy().user_name(&scene.user).policy_arn(&arn).send().await.unwrap();
    let change = |doc: &mut Value| over(doc, (&scene, &pair), &name, Some(&arn), cut_off);
    let run = begin(&cloud, &pair.id, &scene.user, change).await;
    Started::of(scene, run)
}

async fn denied(cloud: Arc<Cloud>) -> Started {
    let (scene, pair) = stranger(&cloud, "right-denied").await;
    // An incident that began later, and got there first, has denied more than this one would.
    let later = Timestamp::now() + SignedDuration::from_mins(5);
    let later = Timestamp::from_second(later.as_second()).unwrap();
    let call = cloud.iam.put_user_policy().user_name(&scene.user);
    let call = call.policy_name(format!("keywheel-deny-sessions-{}", pair.id));
    call.policy_document(keywheel::sessions::deny_before(later)).send().await.unwrap();
    let run = begin(&cloud, &pair.id, &scene.user, |_| {}).await;
    Started::of(scene, run).until(TOLD)
}

/// Starts an emergency with CloudTrail's record of a key that was made so long ago that its history is complete.
async fn begin_watch(cloud: &Arc<Cloud>, pair: &Pair, scene: &Scene) -> Run {
    let (alarm, user, account) = (Alarm::prepared(cloud), &scene.user, scene.secret.split(':').nth(4));
    let made = json!({
        "source": "aws.iam", "detail-type": "AWS API Call via CloudTrail",
        "detail": {
            "eventSource": "iam.amazonaws.com", "eventName": "CreateAccessKey",
            "eventTime": Timestamp::now() - SignedDuration::from_mins(20), "recipientAccountId": account,
            "userIdentity": { "type": "IAMUser", "arn": "arn:aws:iam::111122223333:user/admin" },
            "requestParameters": { "userName": user },
            "responseElements": { "accessKey": { "userName": user, "accessKeyId": pair.id } },
        },
    });
    alarm.start(&made).await;
    let id = keywheel::RunId::standing_for(&alarm.arn).to_string();
    Run::of(cloud, &id, &alarm.arn)
}

async fn odd(cloud: Arc<Cloud>) -> Started {
    let (scene, _) = Scene::managed(&cloud, "right-odd").await;
    made(&cloud, scene).await
}

async fn odd_there(cloud: Arc<Cloud>) -> Started {
    let (scene, _) = Scene::managed(&cloud.member(), "right-odd").await;
    made(&cloud, scene).await
}

async fn made(cloud: &Arc<Cloud>, scene: Scene) -> Started {
    let pair = scene.make_key().await;
    let run = begin_watch(cloud, &pair, &scene).await;
    Started::of(scene, run)
}

async fn burst(cloud: Arc<Cloud>) -> Started {
    let (scene, pair) = stranger(&cloud, "right-burst").await;
    let run = begin_watch(&cloud, &pair, &scene).await;
    Started::of(scene, run)
}
