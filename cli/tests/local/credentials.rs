//! Programs that hold their key through `keywheel credentials`: an AWS SDK, through a rotation.

use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use aws_config::credential_process::CredentialProcessProvider;
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_types::SdkConfig;
use serde_json::{Value, json};

use crate::cloud::{Cloud, keywheel};

/// Types the command as an SDK does.
fn credentials(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_keywheel")).arg("credentials").args(args).output().unwrap()
}

/// As somebody else sees the cloud.
fn seen_by(cloud: &Cloud, provider: SharedCredentialsProvider) -> SdkConfig {
    cloud.config.clone().into_builder().credentials_provider(provider).build()
}

#[tokio::test]
async fn an_sdk_that_asks_the_command_has_no_failed_call_through_a_rotation() {
    let Some(cloud) = Cloud::here() else { return };
    let (user, old) = cloud.managed("process").await;
    // The SDK asks anew some seconds before the end, so that it keeps a pair for a few seconds.
    let line = format!("\"{}\" credentials --secret cli/{user} --cache 12s", env!("CARGO_BIN_EXE_keywheel"));
    let provider = SharedCredentialsProvider::new(CredentialProcessProvider::new(line));
    let sts = aws_sdk_sts::Client::new(&seen_by(&cloud, provider));
    let ended = Arc::new(AtomicBool::new(false));
    let consumer = {
        let (ended, user) = (Arc::clone(&ended), user.clone());
        tokio::spawn(async move {
            let (mut calls, mut failed) = (0_u32, Vec::new());
            while !ended.load(Ordering::Relaxed) {
                match sts.get_caller_identity().send().await {
                    Ok(reply) => assert!(reply.arn().is_some_and(|arn| arn.ends_with(&user))),
                    Err(error) => failed.push(format!("{error:?}")),
                }
                calls += 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            (calls, failed)
        })
    };
    let began = Instant::now();
    let name = user.clone();
    let rotated = tokio::task::spawn_blocking(move || {
        let spans = ["--overlap", "10s", "--max-overlap", "30s", "--quiet-window", "1s", "--grace", "1s"];
        keywheel(&[&["rotate", "--user", &name, "--wait"][..], &spans].concat())
    });
    let rotated = rotated.await.unwrap();
    // The old key is gone, and the consumer goes on.
    tokio::time::sleep(Duration::from_secs(1)).await;
    ended.store(true, Ordering::Relaxed);
    let (calls, failed) = consumer.await.unwrap();
    assert_eq!(rotated.code, Some(0), "{}", rotated.text);
    assert_eq!(cloud.is_active(&user, &old).await, None);
    assert_eq!(failed, Vec::<String>::new(), "of {calls} calls");
    assert!(calls > 50, "{calls} calls");
    println!("credential_process: {calls} calls, none failed, in {:?}", began.elapsed());
}

#[tokio::test]
async fn a_session_stands_for_the_pair_and_trouble_never_looks_like_one() {
    let Some(cloud) = Cloud::here() else { return };
    let (user, key) = cloud.managed("handed").await;
    let name = format!("cli/{user}");
    let pair = credentials(&["--secret", &name]);
    assert!(pair.status.success() && pair.stderr.is_empty());
    let pair: Value = serde_json::from_slice(&pair.stdout).unwrap();
    assert_eq!((&pair["Version"], &pair["AccessKeyId"]), (&json!(1), &json!(key)));
    let expires: jiff::Timestamp = pair["Expiration"].as_str().unwrap().parse().unwrap();
    let left = expires.duration_since(jiff::Timestamp::now()).as_secs();
    assert!((29 * 60..=30 * 60).contains(&left), "{left}");

    let session = credentials(&["--secret", &name, "--session", "15m"]);
    let session: Value = serde_json::from_slice(&session.stdout).unwrap();
    let text = |field: &str| session[field].as_str().unwrap().to_owned();
    assert!(text("AccessKeyId").starts_with("ASIA") && text("SecretAccessKey") != pair["SecretAccessKey"]);
    let token = Some(text("SessionToken"));
    let held = Credentials::new(text("AccessKeyId"), text("SecretAccessKey"), token, None, "Test");
    let sts = aws_sdk_sts::Client::new(&seen_by(&cloud, SharedCredentialsProvider::new(held)));
    assert!(sts.get_caller_identity().send().await.unwrap().arn().unwrap().ends_with(&user));

    let (placeholder, plain) = (format!("cli/{user}-waits"), format!("cli/{user}-plain"));
    let waits = json!({ "UserName": user }).to_string();
    for (name, value) in [(&placeholder, waits.as_str()), (&plain, "no JSON at all")] {
        cloud.store.create_secret().name(name).secret_string(value).send().await.unwrap();
    }
    let none = format!("cli/{user}-none");
    for (args, word) in [
        (["--secret", &placeholder].as_slice(), "waits for its first key"),
        (["--secret", &plain].as_slice(), "not a JSON object"),
        (["--secret", &none].as_slice(), "There is no secret"),
        (["--secret", &none, "--json"].as_slice(), "There is no secret"),
        (["--secret", &name, "--session", "10m"].as_slice(), "length that STS grants"),
        (["--secret", &name, "--cache", "2h"].as_slice(), "longer than 1h"),
    ] {
        let refused = credentials(args);
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(refused.status.code() == Some(1) && refused.stdout.is_empty(), "{args:?}: {said}");
        assert!(said.contains(word) && !said.contains("no JSON at all"), "{args:?}: {said}");
    }
}
