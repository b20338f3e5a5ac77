use keywheel::key::KeyStatus;

use super::*;

const A: &str = "AKIAAAAAAAAAAAAAAAAA";
const B: &str = "AKIABBBBBBBBBBBBBBBB";

/// A secret access key with the signs that theirs have.
fn secret() -> String {
    format!("{}/+{}=", "s".repeat(20), "S".repeat(17))
}

fn refusal(text: &str) -> String {
    match pair(text) {
        Err(trouble) => trouble.to_string(),
        Ok(pair) => panic!("a pair of {}", pair.id),
    }
}

#[test]
fn a_pair_is_read_in_every_form_that_people_have() {
    let secret = secret();
    let json = format!(r#"{{"AccessKeyId":"{A}","SecretAccessKey":"{secret}","port":587}}"#);
    let made = format!(
        r#"{{"AccessKey":{{"UserName":"svc-mail","AccessKeyId":"{A}","Status":"Active","SecretAccessKey":"{secret}"}}}}"#
    );
    let console = format!("Access key ID,Secret access key\r\n{A},{secret}\r\n");
    let file =
        format!("[mailer]\naws_access_key_id = {A}\naws_secret_access_key = {secret}\nregion = eu-west-1\n");
    let shell = format!("export AWS_ACCESS_KEY_ID={A}\nexport AWS_SECRET_ACCESS_KEY=\"{secret}\"\n");
    let small = format!(r#"{{"aws_access_key_id":"{A}","aws_secret_access_key":"{secret}"}}"#);
    for text in [&json, &made, &console, &file, &shell, &small] {
        let pair = pair(text).unwrap_or_else(|trouble| panic!("{trouble}"));
        assert_eq!(pair.id.as_str(), A);
        assert!(pair.secret.is(&SecretAccessKey::new(secret.clone())));
        assert_eq!(pair.user.is_some(), text == &made);
    }
}

#[test]
fn what_is_no_pair_is_refused_without_a_word_of_it() {
    let secret = secret();
    let several = format!("Access key ID,Secret access key\n{A},{secret}\n{B},{secret}\n");
    let half = format!(r#"{{"AccessKeyId":"{A}"}}"#);
    let other = format!(r#"{{"SecretAccessKey":"{secret}"}}"#);
    let session =
        format!(r#"{{"AccessKeyId":"{A}","SecretAccessKey":"{secret}","SessionToken":"{secret}"}}"#);
    let temporary = format!(r#"{{"AccessKeyId":"ASIAIOSFODNN7EXAMPLE","SecretAccessKey":"{secret}"}}"#);
    let swapped = format!(r#"{{"AccessKeyId":"{secret}","SecretAccessKey":"{A}"}}"#);
    let blank = format!(r#"{{"AccessKeyId":"{A}","SecretAccessKey":"{secret} x"}}"#);
    for (text, word) in [
        (several.as_str(), "several"),
        (half.as_str(), "secret access key is missing"),
        (other.as_str(), "id is missing"),
        (session.as_str(), "session token"),
        (temporary.as_str(), "temporary key"),
        (swapped.as_str(), "key id is none"),
        (blank.as_str(), "holds a blank"),
        (secret.as_str(), "not understood"),
        ("", "none of the known forms"),
        ("{", "none of the known forms"),
    ] {
        let said = refusal(text);
        assert!(said.contains(word) && !said.contains("ssss") && !said.contains("SSSS"), "{said}");
    }
}

#[test]
fn only_an_active_key_of_the_user_is_tried() {
    let key = |id: &str, status| KeyFacts { id: id.parse().unwrap(), status, created: None };
    let keys = [key(A, KeyStatus::Active), key(B, KeyStatus::Inactive)];
    let of = |id: &str, user: Option<&str>| Pair {
        id: id.parse().unwrap(),
        secret: SecretAccessKey::new(secret()),
        user: user.map(str::to_owned),
    };
    assert_eq!(fits("svc-mail", &keys, &of(A, None)).unwrap().id.as_str(), A);
    assert!(fits("svc-mail", &keys, &of(A, Some("svc-mail"))).is_ok());
    assert!(fits("svc-mail", &keys, &of(A, Some("eve"))).unwrap_err().text.contains("of user eve"));
    assert!(fits("svc-mail", &keys, &of(B, None)).unwrap_err().text.contains("Inactive"));
    let strange = of("AKIACCCCCCCCCCCCCCCC", None);
    assert!(fits("svc-mail", &keys, &strange).unwrap_err().text.contains("not a key of user"));
}
