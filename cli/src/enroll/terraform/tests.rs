use serde_json::json;

use super::*;

const A: &str = "AKIAAAAAAAAAAAAAAAAA";
const ARN: &str = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:app/mail-AbCdEf";

/// A state as Terraform writes it, with a secret made here.
fn state(secret: &str) -> Value {
    let key = |id: &str, user: &str| json!({ "id": id, "user": user, "secret": secret, "status": "Active" });
    json!({
        "version": 4, "terraform_version": "1.9.5", "serial": 3, "lineage": "x", "outputs": {},
        "resources": [
            { "mode": "managed", "type": "aws_iam_access_key", "name": "mailer", "provider": "p",
              "instances": [{ "schema_version": 0, "attributes": key(A, "svc-mail") }] },
            { "mode": "managed", "type": "aws_iam_access_key", "name": "other", "provider": "p",
              "instances": [{ "attributes": key("AKIACCCCCCCCCCCCCCCC", "svc-batch") }] },
            { "module": "module.users[\"a.b]\"].module.key", "mode": "managed", "type": "aws_iam_access_key",
              "name": "this", "instances": [
                { "index_key": 0, "attributes": key("AKIABBBBBBBBBBBBBBBB", "svc-mail") },
                { "index_key": "x", "attributes": null }] },
            { "mode": "data", "type": "aws_iam_access_key", "name": "seen",
              "instances": [{ "attributes": key(A, "svc-mail") }] },
            // Attributes of others have other types.
            { "mode": "managed", "type": "aws_thing", "name": "x",
              "instances": [{ "attributes": { "id": 7, "user": ["svc-mail"] } }] },
            { "mode": "managed", "type": "aws_secretsmanager_secret_version", "name": "mail",
              "instances": [{ "attributes": { "id": "x", "secret_id": ARN, "secret_string": secret } }] },
        ],
    })
}

#[test]
fn the_state_gives_the_keys_address_and_never_its_secret() {
    let secret = "s".repeat(40);
    let known = known(&state(&secret).to_string(), "svc-mail", &[ARN, "app/mail"]).unwrap();
    let addresses: Vec<&str> = known.keys.iter().map(|key| key.instance.as_str()).collect();
    assert_eq!(
        addresses,
        ["aws_iam_access_key.mailer", "module.users[\"a.b]\"].module.key.aws_iam_access_key.this[0]"]
    );
    assert_eq!(known.keys[1].resource, "module.users.module.key.aws_iam_access_key.this");
    let told = advice("svc-mail", Some(&known)).join("\n");
    assert!(told.contains(
        "removed {\n  from = aws_iam_access_key.mailer\n  lifecycle {\n    destroy = false\n  }\n}"
    ));
    let one = "terraform state rm 'module.users[\"a.b]\"].module.key.aws_iam_access_key.this[0]'";
    assert!(told.contains(one), "{told}");
    assert!(told.contains("in aws_secretsmanager_secret_version.mail leave the value"), "{told}");
    assert!(told.contains("key_prefixes = [\"keywheel:\"]"));
    assert!(!told.contains("sss") && !format!("{known:?}").contains("sss"));
    assert!(!told.contains("svc-batch") && !told.contains("seen"));
}

#[test]
fn a_state_without_the_key_says_so() {
    let known = known(&state("s").to_string(), "nobody", &["none"]).unwrap();
    assert_eq!(known, Known::default());
    let told = advice("nobody", Some(&known)).join("\n");
    assert!(told.contains("holds no key of user nobody") && !told.contains("removed {"), "{told}");
    assert!(!told.contains("secret_string"), "{told}");
}

#[test]
fn without_a_state_the_block_is_shown_all_the_same() {
    let told = advice("svc-mail", None).join("\n");
    assert!(told.contains("from = aws_iam_access_key.NAME") && told.contains("secret_string"), "{told}");
}

#[test]
fn what_is_no_state_of_version_4_is_refused() {
    for text in ["", "{}", "[]", r#"{"version":3,"modules":[]}"#, r#"{"encrypted_data":"x"}"#] {
        assert!(known(text, "a", &["b"]).is_none(), "{text}");
    }
    assert!(known(r#"{"version":4}"#, "a", &["b"]).is_some());
}

#[test]
fn signs_of_terraform_are_seen_in_names_and_values() {
    let tags = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
    for (name, value) in [("ManagedBy", "Terraform"), ("terraform:module", "x"), (A, "made by OpenTofu")] {
        assert!(signs(&tags(name, value)), "{name}={value}");
    }
    assert!(!signs(&tags("team", "platform")) && !signs(&BTreeMap::new()));
}
