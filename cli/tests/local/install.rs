//! A release put into an account that has nothing, used there, and taken away again, with no toolchain to be found.
//!
//! The account is one of its own: another installation beside that of the other tests would hear of their leaks.

use std::env::var;
use std::path::PathBuf;
use std::process::Command;

use aws_credential_types::Credentials;
use aws_sdk_s3::types::BucketVersioningStatus;
use aws_types::SdkConfig;
use aws_types::region::Region;
use serde_json::{Value, json};

use crate::cloud::{Cloud, Said};

const ACCOUNT: &str = "777788889999";
const STAGE: &str = "trial";
const USER: &str = "svc-trial";
const SECRET: &str = "app/trial";

/// The account as its root sees it.
struct Account {
    iam: aws_sdk_iam::Client,
    store: aws_sdk_secretsmanager::Client,
    sfn: aws_sdk_sfn::Client,
    s3: aws_sdk_s3::Client,
    events: aws_sdk_eventbridge::Client,
    ssm: aws_sdk_ssm::Client,
    config: SdkConfig,
    dist: PathBuf,
    empty: PathBuf,
}

impl Account {
    fn new() -> Self {
        let need = |name: &str| var(name).unwrap_or_else(|_| panic!("{name} is not set"));
        // In the emulator an account's number is its root's key.
        let root = Credentials::new(ACCOUNT, need("AWS_SECRET_ACCESS_KEY"), None, None, "Test");
        let base = keywheel::aws::base(keywheel::aws::http_client(), root).into_builder();
        let config: SdkConfig =
            base.endpoint_url(need("AWS_ENDPOINT_URL")).region(Region::new(need("AWS_REGION"))).build();
        let empty = std::env::temp_dir().join(format!("keywheel-no-tools-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&empty).unwrap();
        Self {
            iam: aws_sdk_iam::Client::new(&config),
            store: aws_sdk_secretsmanager::Client::new(&config),
            sfn: aws_sdk_sfn::Client::new(&config),
            s3: aws_sdk_s3::Client::new(&config),
            events: aws_sdk_eventbridge::Client::new(&config),
            ssm: aws_sdk_ssm::Client::new(&config),
            config,
            dist: need("KEYWHEEL_DIST").into(),
            empty,
        }
    }

    /// Types a command there, on a machine with no program but this one.
    fn keywheel(&self, args: &[&str]) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keywheel"));
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("KEYWHEEL_") || text.starts_with("CARGO") || text.starts_with("RUST") {
                command.env_remove(&name);
            }
        }
        command.env("PATH", &self.empty).env("AWS_ACCESS_KEY_ID", ACCOUNT);
        let ended = command.args(["--json", "--stage", STAGE]).args(args).output().unwrap();
        let (out, err) = (String::from_utf8(ended.stdout).unwrap(), String::from_utf8(ended.stderr).unwrap());
        let json = out.lines().next_back().and_then(|line| serde_json::from_str(line).ok());
        Said { code: ended.status.code(), json: json.unwrap_or_default(), text: format!("{out}{err}") }
    }

    fn install(&self, more: &[&str]) -> Said {
        let from = self.dist.to_str().unwrap();
        // No campaign of its own begins, and the keys made here are no news.
        let fixed = ["install", "--from", from, "--yes", "--parameter", "WatchKeyMaking=off"];
        self.keywheel(&[&fixed[..], more].concat())
    }

    /// A user with one key, which is in a secret and in use: of one that was never used it is not known.
    async fn user(&self) -> String {
        self.iam.create_user().user_name(USER).send().await.unwrap();
        let made = self.iam.create_access_key().user_name(USER).send().await.unwrap();
        let key = made.access_key().unwrap();
        let pair = Credentials::new(key.access_key_id(), key.secret_access_key(), None, None, "Test");
        let provider = aws_credential_types::provider::SharedCredentialsProvider::new(pair);
        let theirs = self.config.clone().into_builder().credentials_provider(provider).build();
        aws_sdk_sts::Client::new(&theirs).get_caller_identity().send().await.unwrap();
        let value = json!({
            "UserName": USER, "AccessKeyId": key.access_key_id(), "SecretAccessKey": key.secret_access_key(),
        });
        self.store.create_secret().name(SECRET).secret_string(value.to_string()).send().await.unwrap();
        key.access_key_id().to_owned()
    }

    async fn current(&self) -> String {
        let read = self.store.get_secret_value().secret_id(SECRET).send().await.unwrap();
        let value: Value = serde_json::from_str(read.secret_string().unwrap()).unwrap();
        value["AccessKeyId"].as_str().unwrap().to_owned()
    }

    async fn keys(&self) -> Vec<String> {
        let list = self.iam.list_access_keys().user_name(USER).send().await.unwrap();
        list.access_key_metadata().iter().map(|row| row.access_key_id().unwrap().to_owned()).collect()
    }

    /// What is there of an installation: machines, roles, rules, policies.
    async fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        let machines = self.sfn.list_state_machines().send().await.unwrap();
        left.extend(machines.state_machines().iter().map(|one| one.name().to_owned()));
        let mut roles = self.iam.list_roles().into_paginator().send();
        while let Some(page) = roles.next().await {
            left.extend(page.unwrap().roles().iter().map(|one| one.role_name().to_owned()));
        }
        let listed = self.events.list_rules().send().await.unwrap();
        left.extend(listed.rules().iter().filter_map(|one| one.name().map(str::to_owned)));
        let local = aws_sdk_iam::types::PolicyScopeType::Local;
        let policies = self.iam.list_policies().scope(local).send().await.unwrap();
        left.extend(policies.policies().iter().filter_map(|one| one.policy_name().map(str::to_owned)));
        left.retain(|name| name.contains("keywheel"));
        left
    }

    async fn mode(&self) -> Option<String> {
        let read = self.ssm.get_parameter().name(format!("/keywheel/{STAGE}/mode")).send().await.ok()?;
        read.parameter()?.value().map(str::to_owned)
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.empty);
    }
}

#[tokio::test]
async fn a_release_is_installed_updated_used_and_taken_away_without_a_trace() {
    if Cloud::here().is_none() {
        return;
    }
    let account = Account::new();
    let none = account.install(&["--parameter", "FleetSchedule="]);
    assert_eq!(none.code, Some(1), "{}", none.text);
    assert!(none.text.contains("--create-bucket"), "{}", none.text);
    let first = account.install(&["--create-bucket", "--parameter", "FleetSchedule="]);
    assert_eq!((first.code, &first.json["status"]), (Some(0), &json!("CREATE_COMPLETE")), "{}", first.text);
    let bucket = format!("keywheel-artefacts-{ACCOUNT}-us-east-1");
    let versions = account.s3.get_bucket_versioning().bucket(&bucket).send().await.unwrap();
    assert_eq!(versions.status().map(BucketVersioningStatus::as_str), Some("Enabled"));
    let private = account.s3.get_public_access_block().bucket(&bucket).send().await.unwrap();
    let private = private.public_access_block_configuration().unwrap();
    assert_eq!((private.block_public_policy(), private.restrict_public_buckets()), (Some(true), Some(true)));

    // The same once more; then another setting, beside which the schedule stays empty.
    let same = account.install(&[]);
    assert_eq!((same.code, &same.json["changed"]), (Some(0), &json!(false)), "{}", same.text);
    let update = account.install(&["--parameter", "LogRetentionDays=30"]);
    assert_eq!(
        (update.code, &update.json["status"]),
        (Some(0), &json!("UPDATE_COMPLETE")),
        "{}",
        update.text
    );

    let old = account.user().await;
    for line in [
        &["enroll", "--user", USER, "--secret", SECRET, "--yes"][..],
        &["mode", "live"],
        &[
            "rotate",
            "--user",
            USER,
            "--wait",
            "--overlap",
            "1s",
            "--max-overlap",
            "20s",
            "--quiet-window",
            "1s",
            "--grace",
            "1s",
        ],
    ] {
        let said = account.keywheel(line);
        assert_eq!(said.code, Some(0), "{line:?}: {}", said.text);
    }
    let new = account.current().await;
    assert_ne!(new, old);
    assert_eq!(account.keys().await, std::slice::from_ref(&new));
    let status = account.keywheel(&["status"]);
    assert!(status.code == Some(0) && status.text.contains(USER), "{}", status.text);

    // A second key of a managed user is open business.
    let second = account.iam.create_access_key().user_name(USER).send().await.unwrap();
    let second = second.access_key().unwrap().access_key_id().to_owned();
    let refused = account.keywheel(&["uninstall", "--yes"]);
    assert_eq!(refused.code, Some(1), "{}", refused.text);
    assert!(refused.text.contains(&second) && refused.text.contains("--leave"), "{}", refused.text);
    assert!(!account.left().await.is_empty(), "nothing is removed while something is open");
    account.iam.delete_access_key().user_name(USER).access_key_id(&second).send().await.unwrap();

    let removed = account.keywheel(&["uninstall", "--untag", "--yes"]);
    assert_eq!((removed.code, &removed.json["remains"]), (Some(0), &json!([])), "{}", removed.text);
    assert_eq!(account.left().await, Vec::<String>::new());
    assert_eq!(account.mode().await, None, "a later installation must begin in dry-run");
    // What is the owner's is as it was.
    assert_eq!((account.current().await, account.keys().await), (new.clone(), vec![new]));
    let tags = account.iam.list_user_tags().user_name(USER).send().await.unwrap();
    assert!(tags.tags().iter().all(|tag| !tag.key().starts_with("keywheel:")), "{:?}", tags.tags());

    let again = account.install(&["--parameter", "FleetSchedule="]);
    assert_eq!((again.code, &again.json["status"]), (Some(0), &json!("CREATE_COMPLETE")), "{}", again.text);
    let gone = account.keywheel(&["uninstall", "--yes"]);
    assert_eq!(gone.code, Some(0), "{}", gone.text);
    assert_eq!(account.left().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_release_that_was_changed_is_refused_before_anything_is_written() {
    if Cloud::here().is_none() {
        return;
    }
    let account = Account::new();
    let copy = account.empty.join("dist");
    std::fs::create_dir_all(&copy).unwrap();
    for entry in std::fs::read_dir(&account.dist).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "template.yaml" {
            std::os::unix::fs::symlink(entry.path(), copy.join(entry.file_name())).unwrap();
        }
    }
    let template = std::fs::read_to_string(account.dist.join("template.yaml")).unwrap();
    let changed = template.replace("Effect: Deny", "Effect: Allow");
    assert_ne!(changed, template);
    std::fs::write(copy.join("template.yaml"), changed).unwrap();
    let from = copy.to_str().unwrap();
    let said =
        account.keywheel(&["install", "--from", from, "--bucket", "never-made", "--create-bucket", "--yes"]);
    assert_eq!(said.code, Some(1), "{}", said.text);
    assert!(said.text.contains("template.yaml is not as it was released"), "{}", said.text);
    assert!(account.s3.head_bucket().bucket("never-made").send().await.is_err());
}
