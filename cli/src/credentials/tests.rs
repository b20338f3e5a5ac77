use aws_sdk_secretsmanager::operation::get_secret_value::GetSecretValueOutput;
use serde_json::{Value, json};

use super::*;

const ID: &str = "AKIAIOSFODNN7EXAMPLE";

fn asked(cache: &str, session: Option<&str>) -> Credentials {
    Credentials {
        secret: "app/mail".into(),
        cache: cache.parse().unwrap(),
        session: session.map(|span| span.parse().unwrap()),
    }
}

fn reply(text: &str) -> GetSecretValueOutput {
    GetSecretValueOutput::builder().secret_string(text).build()
}

/// Why nothing is handed out.
fn refusal(reply: &GetSecretValueOutput) -> Trouble {
    match held("app/mail", reply) {
        Err(trouble) => trouble,
        Ok(_) => panic!("a pair"),
    }
}

#[test]
fn durations_stay_within_what_rotations_and_sts_allow() {
    for (cache, session) in
        [("30m", None), ("1h", None), ("1s", None), ("30m", Some("15m")), ("30m", Some("36h"))]
    {
        assert_eq!(checked(&asked(cache, session)), Ok(()), "{cache} {session:?}");
    }
    for (cache, session, word) in [
        ("61m", None, "longer than 1h"),
        ("0s", None, "expired already"),
        ("30m", Some("899s"), "15m to 1day 12h"),
        ("30m", Some("37h"), "15m to 1day 12h"),
    ] {
        let trouble = checked(&asked(cache, session)).unwrap_err().to_string();
        assert!(trouble.contains(word), "{trouble}");
    }
}

#[test]
fn the_document_is_what_every_sdk_reads() {
    let secret = SecretAccessKey::new("s".repeat(40));
    let at: Timestamp = "2026-03-01T12:30:00.999Z".parse().unwrap();
    let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let plain = pair(&ID.parse().unwrap(), &secret, at).unwrap();
    assert_eq!(
        read(&plain),
        json!({
            "Version": 1,
            "AccessKeyId": ID,
            "SecretAccessKey": "s".repeat(40),
            "Expiration": "2026-03-01T12:30:00Z",
        })
    );
    assert!(!plain.contains('\n'));
    let token = Zeroizing::new("t".repeat(60));
    let session = document("ASIAIOSFODNN7EXAMPLE", secret.for_consumer(), Some(&token), at).unwrap();
    assert_eq!(read(&session)["SessionToken"], "t".repeat(60));
}

#[test]
fn a_value_that_is_no_pair_is_named_without_a_word_of_it() {
    let secret = "s".repeat(40);
    let whole = json!({ "UserName": "svc-mail", "AccessKeyId": ID, "SecretAccessKey": secret }).to_string();
    let (id, _) = held("app/mail", &reply(&whole)).unwrap();
    assert_eq!(id.as_str(), ID);
    let placeholder = refusal(&reply(r#"{"UserName":"svc-mail"}"#));
    assert!(placeholder.text.contains("waits for its first key"), "{placeholder}");
    let half = json!({ "UserName": "svc-mail", "SecretAccessKey": secret }).to_string();
    for wrong in [half.as_str(), secret.as_str(), "[]"] {
        let trouble = refusal(&reply(wrong)).to_string();
        assert!(trouble.contains("app/mail") && !trouble.contains("sss"), "{trouble}");
    }
    assert!(refusal(&GetSecretValueOutput::builder().build()).text.contains("binary"));
}
