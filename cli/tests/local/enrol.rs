//! What was looked after by hand comes under management: the commonest cases, and a list of two hundred.

use std::fmt::Write as _;

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_iam::types::StatusType;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::cloud::{Cloud, keywheel, keywheel_given};
use crate::plan::plan;

/// What the plan says of a user.
fn planned(user: &str) -> Value {
    let (_, lines) = plan(&json!({}), user);
    let of_user = lines.into_iter().find(|line| line["action"] != "find");
    of_user.unwrap_or_else(|| panic!("no plan for {user}"))
}

/// Says that a key is a hundred days old, and used today.
async fn grown_old(cloud: &Cloud, user: &str, key: &str) {
    cloud.consume(user).await;
    cloud.age(key, 100);
}

#[tokio::test]
async fn a_hand_made_key_without_a_secret_is_imported_once_it_answers_as_its_user() {
    let Some(cloud) = Cloud::here() else { return };
    let user = cloud.user("import").await;
    let (id, secret) = cloud.key(&user).await;
    let name = format!("cli/{user}");
    let args = ["enroll", "--user", &user, "--secret", &name, "--create-secret", "--import-stdin", "--yes"];
    let pair = |id: &str, secret: &str| json!({ "AccessKeyId": id, "SecretAccessKey": secret }).to_string();

    // Another's secret access key, and another's pair: nothing is made.
    let other = cloud.user("import-other").await;
    let (other_id, other_secret) = cloud.key(&other).await;
    for (text, word) in [
        (pair(&id, &other_secret), "does not accept the pair"),
        (pair(&other_id, &other_secret), "not a key of user"),
    ] {
        let refused = keywheel_given(&args, &text, &[]);
        assert_eq!(refused.code, Some(1), "{}", refused.text);
        assert!(refused.text.contains(word), "{}", refused.text);
        assert!(!refused.text.contains(&other_secret), "the secret is shown");
    }
    assert!(cloud.store.describe_secret().secret_id(&name).send().await.is_err());

    let done = keywheel_given(&args, &pair(&id, &secret), &[]);
    assert_eq!(done.code, Some(0), "{}", done.text);
    assert_eq!((&done.json["imported"], &done.json["secret_made"]), (&json!(true), &json!(true)));
    assert!(!done.text.contains(&secret), "the secret is shown");
    assert_eq!(cloud.current(&user).await, id);
    let again = keywheel_given(&args, &pair(&id, &secret), &[]);
    assert_eq!((again.code, &again.json["changed"]), (Some(0), &json!(false)), "{}", again.text);
    assert_eq!((&planned(&user)["action"], &planned(&user)["code"]), (&json!("skip"), &json!("NotDue")));
    grown_old(&cloud, &user, &id).await;
    let due = planned(&user);
    assert_eq!((&due["action"], &due["key_id"]), (&json!("rotate"), &json!(id)));

    // From a profile, into a secret that waits for its first key and has fields of its own.
    let name = format!("cli/{other}");
    let waiting = json!({ "Host": "mail.invalid", "UserName": other }).to_string();
    cloud.store.create_secret().name(&name).secret_string(waiting).send().await.unwrap();
    let file = std::env::temp_dir().join(format!("{other}.ini"));
    let profile = format!("[mine]\naws_access_key_id = {other_id}\naws_secret_access_key = {other_secret}\n");
    std::fs::write(&file, profile).unwrap();
    let args = ["enroll", "--user", &other, "--secret", &name, "--import-profile", "mine", "--yes"];
    let env = [("AWS_SHARED_CREDENTIALS_FILE", file.to_str().unwrap())];
    let done = keywheel_given(&args, "", &env);
    let again = keywheel_given(&args, "", &env);
    std::fs::remove_file(&file).unwrap();
    assert_eq!((done.code, &done.json["imported"]), (Some(0), &json!(true)), "{}", done.text);
    assert_eq!((again.code, &again.json["changed"]), (Some(0), &json!(false)), "{}", again.text);
    assert!(!done.text.contains(&other_secret), "the secret is shown");
    assert_eq!(cloud.current(&other).await, other_id);
    cloud.consume(&other).await;
    let stored = cloud.store.get_secret_value().secret_id(&name).send().await.unwrap();
    let stored: Value = serde_json::from_str(stored.secret_string().unwrap()).unwrap();
    assert_eq!(stored["Host"], "mail.invalid");
}

#[tokio::test]
async fn two_keys_of_which_one_is_stale_are_one_after_a_rotation() {
    let Some(cloud) = Cloud::here() else { return };
    let user = cloud.user("stale").await;
    let (id, secret) = cloud.key(&user).await;
    let (stale, _) = cloud.key(&user).await;
    let name = format!("cli/{user}");
    let value = json!({ "UserName": user, "AccessKeyId": id, "SecretAccessKey": secret }).to_string();
    cloud.store.create_secret().name(&name).secret_string(value).send().await.unwrap();
    let args = ["enroll", "--user", &user, "--secret", &name, "--retire", &stale, "--yes"];
    let done = keywheel(&args);
    assert_eq!((done.code, &done.json["retire"]), (Some(0), &json!(stale)), "{}", done.text);
    grown_old(&cloud, &user, &id).await;
    let due = planned(&user);
    assert_eq!(
        (&due["action"], &due["code"], &due["key_id"]),
        (&json!("rotate"), &json!("Retire"), &json!(stale))
    );
    let brief = ["--overlap", "1s", "--max-overlap", "20s", "--quiet-window", "1s", "--grace", "1s"];
    let rotated = keywheel(&[&["rotate", "--user", &user, "--wait"][..], &brief].concat());
    assert_eq!(rotated.code, Some(0), "{}", rotated.text);
    assert_eq!(cloud.is_active(&user, &stale).await, None);
    assert_eq!(cloud.is_active(&user, &id).await, Some(true));
}

#[tokio::test]
async fn what_a_rotator_by_age_has_left_is_told_and_retired() {
    let Some(cloud) = Cloud::here() else { return };
    let user = cloud.user("sample").await;
    let (old, _) = cloud.key(&user).await;
    let (id, secret) = cloud.key(&user).await;
    let call = cloud.iam.update_access_key().user_name(&user).access_key_id(&old);
    call.status(StatusType::Inactive).send().await.unwrap();
    let name = format!("cli/{user}");
    let value = json!({ "UserName": user, "AccessKeyId": id, "SecretAccessKey": secret }).to_string();
    cloud.store.create_secret().name(&name).secret_string(value).send().await.unwrap();
    let args = ["enroll", "--user", &user, "--secret", &name, "--yes"];
    let done = keywheel(&args);
    assert_eq!(done.code, Some(0), "{}", done.text);
    assert!(done.json["warnings"].to_string().contains(&format!("--retire {old}")), "{}", done.text);
    grown_old(&cloud, &user, &id).await;
    assert_eq!((&planned(&user)["action"], &planned(&user)["code"]), (&json!("skip"), &json!("TwoKeys")));
    let done = keywheel(&[&args[..], &["--retire", &old]].concat());
    assert_eq!(done.code, Some(0), "{}", done.text);
    let due = planned(&user);
    assert_eq!((&due["action"], &due["key_id"]), (&json!("rotate"), &json!(old)));
}

/// How many of a list are right, and how many are not.
const RIGHT: usize = 193;
const WRONG: usize = 7;
/// How many users are made in the same moment.
const AT_ONCE: usize = 8;

#[tokio::test]
async fn of_200_rows_the_7_that_are_wrong_are_named_and_the_others_done() {
    let Some(cloud) = Cloud::here() else { return };
    let (mut users, mut making) = (Vec::new(), JoinSet::new());
    for _ in 0..RIGHT {
        if making.len() == AT_ONCE {
            users.push(making.join_next().await.unwrap().unwrap());
        }
        let cloud = cloud.clone();
        making.spawn(async move { cloud.user("list").await });
    }
    users.extend(making.join_all().await);
    let (lone, first) = (cloud.user("list-lone").await, &users[0]);
    let wrong = [
        (format!("{lone}-none,cli/{lone}-1,,"), "user"),
        (format!("{lone},,,"), "secret"),
        (format!("{lone},cli/{lone},,AKIA"), "retire"),
        (format!("{lone},cli/{lone},a@example.com"), "row"),
        (format!("{lone},cli/{lone},,AKIAIOSFODNN7EXAMPLE"), "retire"),
        (format!("{first},cli/{lone},,"), "user"),
        (format!("{lone},cli/{lone},a;b,"), "owner"),
    ];
    assert_eq!(wrong.len(), WRONG);
    let mut text = "user,secret,owner,retire\n".to_owned();
    let mut at = Vec::new();
    for (number, user) in users.iter().enumerate() {
        writeln!(text, "{user},cli/{user},mail@example.com,").unwrap();
        if let Some((row, field)) = wrong.get(number) {
            writeln!(text, "{row}").unwrap();
            at.push((text.lines().count(), *field));
        }
    }
    let file = std::env::temp_dir().join(format!("{lone}.csv"));
    std::fs::write(&file, &text).unwrap();
    let args = ["enroll", "--create-secret", "--from", file.to_str().unwrap()];
    // Without a person's word nothing is done. One row of it is enough to see that.
    let short = format!("user,secret\n{lone},cli/{lone}\n");
    let asked = keywheel_given(&["enroll", "--create-secret", "--from", "-"], &short, &[]);
    assert!(asked.code == Some(1) && asked.text.contains("no terminal"), "{}", asked.text);
    assert!(cloud.store.describe_secret().secret_id(format!("cli/{lone}")).send().await.is_err());

    let yes = [&args[..], &["--yes"]].concat();
    let done = keywheel(&yes);
    let counted = |done: usize, same: usize| json!({ "rows": RIGHT + WRONG, "done": done, "unchanged": same, "failed": WRONG });
    assert_eq!((done.code, &done.json), (Some(1), &counted(RIGHT, 0)), "{}", done.text);
    for (line, field) in &at {
        let told = format!("{}:{line}: {field}: ", file.display());
        assert!(done.text.contains(&told), "{told}: {}", done.text);
    }
    let last = users.last().unwrap();
    let secret = cloud.store.describe_secret().secret_id(format!("cli/{last}")).send().await.unwrap();
    let tags = cloud.iam.list_user_tags().user_name(last).send().await.unwrap();
    let names =
        |tag: &aws_sdk_iam::types::Tag| tag.key() == "keywheel:secret" && secret.arn() == Some(tag.value());
    assert!(tags.tags().iter().any(names));
    for (key, value) in [("keywheel:user", last.as_str()), ("keywheel:owner", "mail@example.com")] {
        assert!(
            secret.tags().iter().any(|tag| tag.key() == Some(key) && tag.value() == Some(value)),
            "{key}"
        );
    }
    let again = keywheel(&yes);
    std::fs::remove_file(&file).unwrap();
    assert_eq!((again.code, &again.json), (Some(1), &counted(0, RIGHT)), "{}", again.text);
}

#[tokio::test]
async fn only_its_readers_read_a_value_and_rotations_go_on() {
    let Some(cloud) = Cloud::here() else { return };
    let (user, key) = cloud.managed("readers").await;
    let (reader, stranger) = (cloud.user("reader").await, cloud.user("stranger").await);
    let allow = json!({
        "Version": "2012-10-17",
        "Statement": { "Effect": "Allow", "Action": "secretsmanager:GetSecretValue", "Resource": "*" },
    });
    let call = cloud.iam.put_user_policy().user_name(&stranger).policy_name("all");
    call.policy_document(allow.to_string()).send().await.unwrap();
    let store_of = async |who: &str| {
        let (id, secret) = cloud.key(who).await;
        let pair = SharedCredentialsProvider::new(Credentials::new(id, secret, None, None, "Test"));
        let config = cloud.config.clone().into_builder().credentials_provider(pair).build();
        aws_sdk_secretsmanager::Client::new(&config)
    };
    let (theirs, others) = (store_of(&reader).await, store_of(&stranger).await);
    let name = format!("cli/{user}");
    let reads = async |store: &aws_sdk_secretsmanager::Client| {
        store.get_secret_value().secret_id(&name).send().await.is_ok()
    };
    assert_eq!((reads(&theirs).await, reads(&others).await), (false, true));
    let told = cloud.iam.get_user().user_name(&reader).send().await.unwrap();
    let arn = told.user().unwrap().arn().to_owned();
    let args = ["enroll", "--user", &user, "--secret", &name, "--yes", "--readers", &arn];
    let done = keywheel(&args);
    assert_eq!((done.code, &done.json["readers_written"]), (Some(0), &json!(true)), "{}", done.text);
    assert_eq!((reads(&theirs).await, reads(&others).await), (true, false));
    // Whoever enrols, and the roles that rotate, are not locked out.
    assert!(reads(&cloud.store).await);
    // A key of which IAM knows no use counts as in use.
    cloud.consume(&user).await;
    let brief = ["--overlap", "1s", "--max-overlap", "20s", "--quiet-window", "1s", "--grace", "1s"];
    let rotated = keywheel(&[&["rotate", "--user", &user, "--wait"][..], &brief].concat());
    assert_eq!(rotated.code, Some(0), "{}", rotated.text);
    assert_ne!(cloud.current(&user).await, key);
    let again = keywheel(&args);
    assert_eq!((again.code, &again.json["changed"]), (Some(0), &json!(false)), "{}", again.text);
}

#[tokio::test]
async fn nobody_is_let_go_in_the_middle_of_a_run() {
    let Some(cloud) = Cloud::here() else { return };
    let (user, key) = cloud.managed("leave").await;
    let name = format!("cli/{user}");
    let long = ["--overlap", "5m", "--max-overlap", "5m", "--quiet-window", "1s", "--grace", "1s"];
    let started = keywheel(&[&["rotate", "--user", &user][..], &long].concat());
    let run = started.json["started"].as_str().unwrap_or_else(|| panic!("{}", started.text)).to_owned();
    for what in [&user, &name] {
        let refused = keywheel(&["unenroll", what, "--yes"]);
        assert!(refused.code == Some(1) && refused.text.contains(&run), "{}", refused.text);
    }
    cloud.sfn.stop_execution().execution_arn(cloud.execution(&run)).send().await.unwrap();
    let left = keywheel(&["unenroll", &name, "--yes"]);
    assert_eq!((left.code, &left.json["changed"]), (Some(0), &json!(true)), "{}", left.text);
    let tags = cloud.iam.list_user_tags().user_name(&user).send().await.unwrap();
    assert_eq!(tags.tags().len(), 0);
    let secret = cloud.store.describe_secret().secret_id(&name).send().await.unwrap();
    assert_eq!(secret.tags().len(), 0);
    assert_eq!(cloud.is_active(&user, &key).await, Some(true));
    for what in [&user, &name] {
        let again = keywheel(&["unenroll", what, "--yes"]);
        assert_eq!((again.code, &again.json["changed"]), (Some(0), &json!(false)), "{}", again.text);
    }
}
