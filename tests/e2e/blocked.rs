//! Where a run must not start, or not go on: it ends with a named reason and what to do, and nothing has changed.

use std::pin::Pin;
use std::sync::Arc;

use aws_sdk_iam::types::StatusType;
use aws_sdk_secretsmanager::primitives::Blob;
use serde_json::{Value, json};

use crate::cloud::{Cloud, Pair, fresh};
use crate::run::{all, new_id};
use crate::scene::{Scene, make_user};

/// What a case has prepared: the scene, and how the run's input differs.
type Prepared = (Scene, Value);
type Prepare = Pin<Box<dyn Future<Output = Prepared> + Send>>;

/// A refusal of one call of one run.
pub(crate) fn refusal(run: &str, (service, action): (&str, &str), status: u16, code: &str) -> Value {
    json!({
        "service": service, "action": action, "app_contains": run, "status": status, "code": code,
        "message": "Access is denied for a test.", "times": null,
    })
}

/// A case for the table below: the run's id is known while it is prepared.
macro_rules! case {
    ($name:literal, $code:literal, |$cloud:ident, $id:ident| $prepare:block) => {{
        type Case = (&'static str, &'static str, fn(Arc<Cloud>, String) -> Prepare);
        let case: Case = ($name, $code, |$cloud, $id| {
            Box::pin(async move {
                let _ = &$id;
                $prepare
            })
        });
        case
    }};
}

/// A managed user whose secret then gets another value.
async fn with_value(cloud: &Arc<Cloud>, change: impl FnOnce(&mut Value)) -> Prepared {
    let (scene, pair) = Scene::managed(cloud, "value").await;
    let mut value: Value = serde_json::from_str(&scene.value(&pair)).unwrap();
    change(&mut value);
    scene.put(&value.to_string()).await;
    (scene, json!({}))
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table, one case after another")]
async fn each_reason_to_block_has_its_name_and_its_remedy_and_changes_nothing() {
    let Some(cloud) = Cloud::here().await else { return };
    let table = [
        case!("no such secret", "NoSuchSecret", |cloud, _id| {
            let (scene, _) = Scene::managed(&cloud, "none").await;
            (scene, json!({ "secret": format!("e2e/none-{}", fresh()) }))
        }),
        case!("secret pending deletion", "SecretPendingDeletion", |cloud, _id| {
            let (scene, _) = Scene::managed(&cloud, "deleted").await;
            cloud
                .store
                .delete_secret()
                .secret_id(&scene.secret)
                .recovery_window_in_days(7)
                .send()
                .await
                .unwrap();
            (scene, json!({}))
        }),
        case!("not JSON", "NotJson", |cloud, _id| {
            let (scene, _) = Scene::managed(&cloud, "text").await;
            scene.put("user=me;key=mine").await;
            (scene, json!({}))
        }),
        case!("binary", "NotJson", |cloud, _id| {
            let (scene, _) = Scene::managed(&cloud, "binary").await;
            let call = cloud.store.put_secret_value().secret_id(&scene.secret);
            call.secret_binary(Blob::new(b"{}".to_vec())).send().await.unwrap();
            (scene, json!({}))
        }),
        case!("a field is missing", "FieldsMissing", |cloud, _id| {
            with_value(&cloud, |value| drop(value.as_object_mut().unwrap().remove("SecretAccessKey"))).await
        }),
        case!("the key id is none", "FieldsMissing", |cloud, _id| {
            with_value(&cloud, |value| value["AccessKeyId"] = json!("not an id")).await
        }),
        case!("another user's name", "UserMismatch", |cloud, _id| {
            with_value(&cloud, |value| value["UserName"] = json!("somebody")).await
        }),
        case!("another user's key", "CurrentKeyUnknown", |cloud, _id| {
            let (_, other) = Scene::managed(&cloud, "other").await;
            with_value(&cloud, move |value| value["AccessKeyId"] = json!(other.id)).await
        }),
        case!("the current key is Inactive", "CurrentKeyInactive", |cloud, _id| {
            let (scene, pair) = Scene::managed(&cloud, "inactive").await;
            scene.set_key(&pair.id, StatusType::Inactive).await;
            (scene, json!({}))
        }),
        case!("no such user", "NoSuchUser", |cloud, _id| {
            let (scene, pair) = Scene::managed(&cloud, "gone").await;
            let delete = cloud.iam.delete_access_key().user_name(&scene.user).access_key_id(&pair.id);
            delete.send().await.unwrap();
            cloud.iam.delete_user().user_name(&scene.user).send().await.unwrap();
            (scene, json!({}))
        }),
        case!("a secret that names a user who does not name it", "NotMutual", |cloud, _id| {
            // Were this enough, whoever may create secrets could obtain any user's key.
            let (victim, pair) = Scene::managed(&cloud, "victim").await;
            let tag = aws_sdk_secretsmanager::types::Tag::builder().key("keywheel:user").value(&victim.user);
            let call = cloud.store.create_secret().name(format!("e2e/theft-{}", fresh())).tags(tag.build());
            let theft = call.secret_string(victim.value(&pair)).send().await.unwrap();
            (victim, json!({ "secret": theft.arn() }))
        }),
        case!("a user that names no secret", "NotMutual", |cloud, _id| {
            let (scene, _) = Scene::managed(&cloud, "untagged").await;
            let call = cloud.iam.untag_user().user_name(&scene.user).tag_keys("keywheel:secret");
            call.send().await.unwrap();
            (scene, json!({}))
        }),
        case!("a secret that names no user", "NotManaged", |cloud, _id| {
            let scene = Scene::untagged(&cloud, &format!("e2e-plain-{}", fresh())).await;
            let pair = scene.make_key().await;
            scene.put(&scene.value(&pair)).await;
            (scene, json!({}))
        }),
        case!("two managed secrets for one user", "TwoManagedSecrets", |cloud, _id| {
            let (scene, _) = Scene::managed(&cloud, "two").await;
            let tag = aws_sdk_secretsmanager::types::Tag::builder().key("keywheel:user").value(&scene.user);
            let call = cloud.store.create_secret().name(format!("{}-second", scene.name));
            call.tags(tag.build()).send().await.unwrap();
            (scene, json!({}))
        }),
        case!("a stranger's Active key fills the slots", "SlotsFull", |cloud, _id| {
            let (scene, _) = Scene::managed(&cloud, "full").await;
            scene.make_key().await;
            (scene, json!({}))
        }),
        case!("a stranger's Inactive key fills the slots", "SlotsFull", |cloud, _id| {
            let (scene, _) = Scene::managed(&cloud, "full-off").await;
            let stranger = scene.make_key().await;
            scene.set_key(&stranger.id, StatusType::Inactive).await;
            (scene, json!({}))
        }),
        case!("AWSPENDING of somebody else", "PendingNotOurs", |cloud, _id| {
            let (scene, _) = Scene::managed(&cloud, "pending").await;
            let second = scene.make_key().await;
            let call = cloud.store.put_secret_value().secret_id(&scene.secret).version_stages("AWSPENDING");
            call.secret_string(scene.value(&second)).send().await.unwrap();
            (scene, json!({}))
        }),
        case!("nothing to roll back", "NothingToRollBack", |cloud, _id| {
            let (scene, _) = Scene::managed(&cloud, "back").await;
            (scene, json!({ "roll_back": true }))
        }),
        case!("a dry run", "DryRun", |cloud, _id| {
            let (scene, _) = Scene::managed(&cloud, "dry").await;
            (scene, json!({ "dry_run": true }))
        }),
        case!("a misspelt field", "BadInput", |cloud, _id| {
            let (scene, _) = Scene::managed(&cloud, "typo").await;
            (scene, json!({ "dryrun": true }))
        }),
        case!("a policy that contradicts itself", "BadInput", |cloud, _id| {
            let (scene, _) = Scene::managed(&cloud, "policy").await;
            (scene, json!({ "policy": { "overlap": "2h", "max_overlap": "1h" } }))
        }),
        case!("KMS denies the value", "SecretUnreadable", |cloud, id| {
            let (scene, _) = Scene::managed(&cloud, "kms").await;
            let call = ("secretsmanager", "GetSecretValue");
            cloud.fault(refusal(&id, call, 400, "AccessDeniedException")).await;
            (scene, json!({}))
        }),
        case!("IAM denies the user", "AccessDenied", |cloud, id| {
            let (scene, _) = Scene::managed(&cloud, "iam").await;
            cloud.fault(refusal(&id, ("iam", "GetUser"), 403, "AccessDenied")).await;
            (scene, json!({}))
        }),
        case!("the switch cannot be read", "AccessDeniedException", |cloud, id| {
            let (scene, _) = Scene::managed(&cloud, "switch").await;
            cloud.fault(refusal(&id, ("ssm", "GetParameter"), 400, "AccessDeniedException")).await;
            (scene, json!({}))
        }),
    ];
    let run = |cloud: Arc<Cloud>, code: &'static str, prepare: fn(Arc<Cloud>, String) -> Prepare| async move {
        let id = new_id();
        let (scene, input) = prepare(cloud, id.clone()).await;
        let before = scene.truth().await;
        let run = scene.start_with(&id, input).await;
        run.end().await.expect("Blocked").expect_code(code);
        assert_eq!(scene.truth().await, before, "{code}");
        assert!(run.writes().await.is_empty(), "{code}: {:?}", run.writes().await);
    };
    let cases = table.map(|(name, code, prepare)| (name.to_owned(), run(Arc::clone(&cloud), code, prepare)));
    all(6, cases.into()).await;
}

#[tokio::test]
async fn each_refusal_before_the_promotion_ends_with_everything_as_it_was() {
    let Some(cloud) = Cloud::here().await else { return };
    let table = [
        ("iam", "CreateAccessKey", 403, "AccessDenied", "Blocked", "AccessDenied"),
        (
            "secretsmanager",
            "PutSecretValue",
            400,
            "AccessDeniedException",
            "RolledBack",
            "AccessDeniedException",
        ),
        ("secretsmanager", "PutSecretValue", 400, "DecryptionFailure", "RolledBack", "DecryptionFailure"),
        ("sts", "GetCallerIdentity", 403, "AccessDenied", "RolledBack", "Keywheel.Refused"),
        (
            "secretsmanager",
            "UpdateSecretVersionStage",
            400,
            "AccessDeniedException",
            "RolledBack",
            "Keywheel.Refused",
        ),
    ];
    let run = |cloud: Arc<Cloud>,
               call: (&'static str, &'static str),
               status,
               refused: &'static str,
               end,
               code| async move {
        let (scene, _) = Scene::managed(&cloud, "refused").await;
        let (id, before) = (new_id(), scene.truth().await);
        let mut fault = refusal(&id, call, status, refused);
        // Once: what undoes the run must not meet the same fault.
        fault["times"] = json!(1);
        cloud.fault(fault).await;
        let run = scene.start_with(&id, json!({})).await;
        run.end().await.expect(end).expect_code(code);
        assert_eq!(scene.truth().await, before);
        scene.expect_one_working_key().await;
        // The next run finds nothing in its way.
        scene.rotate().await.expect("Completed");
    };
    let cases = table.map(|(service, action, status, refused, end, code)| {
        (
            format!("{action} {refused}"),
            run(Arc::clone(&cloud), (service, action), status, refused, end, code),
        )
    });
    all(5, cases.into()).await;
}

/// A delay of one call of one run: time for somebody else to act in the middle.
pub(crate) fn delay(run: &str, (service, action): (&str, &str), milliseconds: u32) -> Value {
    json!({ "service": service, "action": action, "app_contains": run, "delay_ms": milliseconds })
}

#[tokio::test]
async fn a_secret_changed_between_create_and_promote_stays_as_its_owner_wrote_it() {
    let Some(cloud) = Cloud::here().await else { return };
    let (scene, pair) = Scene::managed(&cloud, "changed").await;
    let (id, keys) = (new_id(), scene.keys().await);
    cloud.fault(delay(&id, ("secretsmanager", "UpdateSecretVersionStage"), 2500)).await;
    let run = scene.start_with(&id, json!({})).await;
    run.reaches("PromoteKey").await;
    scene.put(&scene.value(&pair).replace("5.870e2", "25")).await;
    let theirs = scene.truth().await;
    run.end().await.expect("RolledBack").expect_code("Keywheel.Conflict");
    let after = scene.truth().await;
    assert_eq!((after.keys, &after.labels["AWSCURRENT"]), (keys, &theirs.labels["AWSCURRENT"]));
    assert!(!after.labels.contains_key("AWSPENDING"), "{:?}", after.labels);
    assert!(scene.current_text().await.contains(r#""Port": 25,"#), "the owner's change is gone");
    scene.expect_one_working_key().await;
}

#[tokio::test]
async fn a_user_made_anew_under_the_same_name_is_another_user() {
    let Some(cloud) = Cloud::here().await else { return };
    // Without a first key nothing else tells the two users apart.
    let scene = Scene::bare(&cloud, "anew").await;
    let id = new_id();
    cloud.fault(delay(&id, ("iam", "CreateAccessKey"), 2500)).await;
    let run = scene.start_with(&id, json!({})).await;
    run.reaches("CreateKey").await;
    cloud.iam.delete_user().user_name(&scene.user).send().await.unwrap();
    make_user(&cloud, &scene.user).await;
    scene.tag("keywheel:secret", &scene.secret).await;
    run.end().await.expect("RolledBack").expect_code("Keywheel.Conflict");
    assert!(scene.keys().await.is_empty(), "the other user got a key");
    let Pair { id: current, .. } = scene.current().await;
    assert!(current.is_empty(), "AWSCURRENT names {current}");
}
