use super::*;

const ACCOUNT: &str = "111122223333";
const ROOT: &str = "arn:aws:iam::111122223333:root";
const ADMIN: &str = "arn:aws:iam::111122223333:user/admin";
const OURS: &str = "arn:aws:iam::111122223333:role/keywheel-LookRole-X";
const MAILER: &str = "arn:aws:iam::111122223333:role/app/mailer";
const BATCH: &str = "arn:aws:iam::111122223333:role/batch";

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

fn asked(there: Option<&str>, readers: &[&str], caller: &str) -> Result<Option<Change>> {
    change(there, &names(readers), names(&[OURS, ROOT, caller]), ACCOUNT)
}

fn document(change: Option<Change>) -> Value {
    serde_json::from_str(&change.unwrap().policy).unwrap()
}

#[test]
fn others_are_denied_the_value_and_nothing_else_and_nobody_is_locked_out() {
    let policy = document(asked(None, &[MAILER], ADMIN).unwrap());
    let statements = policy["Statement"].as_array().unwrap();
    assert_eq!(statements.len(), 2);
    assert_eq!(set(&statements[0]["Principal"]["AWS"]), names(&[MAILER]));
    let deny = &statements[1];
    assert_eq!((&deny["Effect"], &deny["Principal"]), (&json!("Deny"), &json!("*")));
    // Who may put or delete the policy may still.
    assert_eq!(deny["Action"], READ);
    assert_eq!(set(&deny["Condition"]["ArnNotLike"][PRINCIPAL]), names(&[MAILER, OURS, ROOT, ADMIN]));
}

#[test]
fn a_second_time_nothing_is_changed_however_aws_writes_it() {
    let first = document(asked(None, &[MAILER], ADMIN).unwrap());
    let mut theirs = first.clone();
    theirs["Statement"][0]["Principal"]["AWS"] = json!(MAILER);
    theirs["Statement"][1]["Action"] = json!([READ]);
    theirs["Statement"].as_array_mut().unwrap().reverse();
    assert_eq!(asked(Some(&theirs.to_string()), &[MAILER], ADMIN).unwrap(), None);
    // Somebody has opened it.
    let mut open = first;
    open["Statement"][1]["Effect"] = json!("Allow");
    assert!(asked(Some(&open.to_string()), &[MAILER], ADMIN).unwrap().is_some());
}

#[test]
fn whoever_enrolled_before_keeps_reading_and_a_reader_left_out_does_not() {
    let first = document(asked(None, &[MAILER, BATCH], ADMIN).unwrap());
    let other = "arn:aws:iam::111122223333:user/other-admin";
    let change = asked(Some(&first.to_string()), &[BATCH], other).unwrap().unwrap();
    assert!(change.lines.contains(&format!("Will not read it any more: {MAILER}")));
    let policy: Value = serde_json::from_str(&change.policy).unwrap();
    let passed = set(&policy["Statement"][1]["Condition"]["ArnNotLike"][PRINCIPAL]);
    assert_eq!(passed, names(&[BATCH, OURS, ROOT, ADMIN, other]));
}

#[test]
fn somebodys_own_policy_is_not_replaced() {
    let theirs = json!({ "Version": "2012-10-17", "Statement": { "Sid": "Partner", "Effect": "Allow" } });
    let mut mixed = document(asked(None, &[MAILER], ADMIN).unwrap());
    mixed["Statement"].as_array_mut().unwrap().push(theirs["Statement"].clone());
    for there in [theirs.to_string(), mixed.to_string(), "{}".to_owned(), "no JSON".to_owned()] {
        let trouble = asked(Some(&there), &[MAILER], ADMIN).unwrap_err();
        assert!(trouble.text.contains("not Keywheel's"), "{trouble}");
    }
}

#[test]
fn a_reader_is_one_role_or_one_user() {
    for right in [MAILER, BATCH, ADMIN, " arn:aws:iam::444455556666:role/x "] {
        assert_eq!(checked(right, "aws").unwrap(), right.trim());
    }
    for wrong in [
        "*",
        "arn:aws:iam::111122223333:role/*",
        ROOT,
        "arn:aws:iam::111122223333:role/",
        "arn:aws:iam::111122223333:role/path/",
        "arn:aws:iam::1111:role/x",
        "arn:aws:iam::111122223333:group/x",
        "arn:aws-cn:iam::111122223333:role/x",
        "arn:aws:sts::111122223333:assumed-role/x/session",
        "mailer",
        "",
    ] {
        assert!(checked(wrong, "aws").is_err(), "{wrong}");
    }
    let far = asked(None, &["arn:aws:iam::444455556666:role/x"], ADMIN).unwrap().unwrap();
    assert!(far.lines.iter().any(|line| line.contains("of another account")), "{:?}", far.lines);
}

#[test]
fn a_session_passes_as_its_role_whatever_the_roles_path() {
    assert_eq!(
        caller("arn:aws-cn:sts::111122223333:assumed-role/AWSReservedSSO_Admin_1/jo@example.com"),
        [
            "arn:aws-cn:iam::111122223333:role/AWSReservedSSO_Admin_1",
            "arn:aws-cn:iam::111122223333:role/*/AWSReservedSSO_Admin_1"
        ]
    );
    assert_eq!(caller(ADMIN), [ADMIN]);
}
