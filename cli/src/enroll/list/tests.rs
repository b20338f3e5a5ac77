use facts::iam::User;
use facts::secrets::Secret;
use keywheel::rotation::UserFacts;

use super::*;
use crate::keys::Held;

const KEY: &str = "AKIAIOSFODNN7EXAMPLE";

fn read(text: &str) -> Vec<Row> {
    rows(text, false).unwrap()
}

#[test]
fn columns_may_stand_in_any_order_and_the_last_two_may_be_left_out() {
    let text = format!(
        "User, Secret,owner ,RETIRE\nsvc-mail,app/mail,,\n\nsvc-batch,app/batch,b@example.com,{KEY}\n"
    );
    let full = read(&text);
    let wish = full[0].wish.clone().unwrap();
    assert_eq!((wish.user.as_str(), wish.secret.as_str()), ("svc-mail", "app/mail"));
    assert_eq!((wish.owner, wish.retire), (None, None));
    let wish = full[1].wish.clone().unwrap();
    assert_eq!(wish.owner.as_deref(), Some("b@example.com"));
    assert_eq!(wish.retire.unwrap().as_str(), KEY);
    // A line that is left blank counts as a line.
    assert_eq!((full[0].line, full[1].line), (2, 4));
    let short = read("secret,user\napp/mail,svc-mail\n");
    assert_eq!(short[0].wish.as_ref().unwrap().user, "svc-mail");
}

#[test]
fn a_head_that_is_wrong_refuses_the_list() {
    for text in [
        "",
        "svc-mail,app/mail\n",
        "user,owner\na,b\n",
        "user,secret,retired\na,b,c\n",
        "user,secret,user\na,b,c\n",
    ] {
        let trouble = rows(text, false).unwrap_err();
        assert!(trouble.text.contains("first line"), "{text:?}: {trouble}");
    }
    assert!(rows("user,secret\n", false).unwrap_err().text.contains("names nobody"));
}

#[test]
fn a_wrong_row_names_its_field_and_keeps_none_of_the_others() {
    let pasted = "x".repeat(40);
    let text =
        format!("user,secret,owner,retire\na,s1,,\n,s2,,\nc,,,\nd,s4,,{pasted}/\ne,s5\nf,s6,\"x, y\",\n");
    let rows = read(&text);
    let fields: Vec<Option<&str>> =
        rows.iter().map(|row| row.wish.as_ref().err().map(|refusal| refusal.field)).collect();
    assert_eq!(fields, [None, Some("user"), Some("secret"), Some("retire"), Some("row"), None]);
    let lines: Vec<u64> = rows.iter().map(|row| row.line).collect();
    assert_eq!(lines, [2, 3, 4, 5, 6, 7]);
    let said = rows[3].wish.clone().unwrap_err().trouble.to_string();
    assert!(!said.contains("xxx"), "{said}");
}

/// A row that is to be enrolled.
fn job(line: u64, user: &str, secret: &str) -> Job {
    let arn = format!("arn:aws:secretsmanager:eu-west-1:111122223333:secret:{secret}-AbCdEf");
    let facts = UserFacts { name: user.parse().unwrap(), arn: String::new(), id: String::new() };
    let seen = Seen {
        user: User { facts, secret: None, retire: None, keep: None, unused: false, tags: BTreeMap::new() },
        secret: Secret {
            arn: arn.parse().unwrap(),
            name: secret.into(),
            deleted: false,
            primary_region: None,
            replication: Vec::new(),
            user: None,
            tags: BTreeMap::new(),
            versions: BTreeMap::new(),
        },
        exists: false,
        rivals: Vec::new(),
        keys: Vec::new(),
        held: Held::Nothing,
        alike: Vec::new(),
    };
    let wish = wish(user, secret, None, None, true).unwrap();
    let plan = seen.plan(&wish, None).unwrap();
    let state = State::Change(Box::new((wish, seen, plan)));
    Job { line, user: user.into(), secret: secret.into(), state }
}

#[test]
fn what_stands_twice_is_refused_where_it_stands_again() {
    let mut jobs = vec![job(2, "a", "s1"), job(3, "A", "s2"), job(4, "b", "s1"), job(5, "c", "s3")];
    refuse_doubles(&mut jobs);
    let fields: Vec<Option<&str>> = jobs
        .iter()
        .map(|job| match &job.state {
            State::Refused(refusal) => Some(refusal.field),
            _ => None,
        })
        .collect();
    assert_eq!(fields, [None, Some("user"), Some("secret"), None]);
    assert_eq!(refused(&jobs).collect::<Vec<_>>(), [3, 4]);
    assert!(jobs[1].json()["error"].as_str().unwrap().contains("line 2"));
}

#[test]
fn the_table_says_what_would_be_done_to_each() {
    let jobs = [job(2, "a", "s1")];
    let rows = words(&jobs);
    assert_eq!(rows[1][..3], ["2", "a", "s1"].map(str::to_owned));
    assert!(rows[1][3].starts_with("make the secret, tag the user: keywheel:secret"), "{:?}", rows[1]);
    assert_eq!(jobs[0].json()["action"], "enrol");
}

#[tokio::test]
async fn results_come_in_the_order_of_the_rows() {
    let work = |number: u64| async move {
        tokio::time::sleep(std::time::Duration::from_millis(20 - number)).await;
        number * 2
    };
    let doubled = each((0..10).collect(), 3, work).await.unwrap();
    assert_eq!(doubled, (0..10).map(|number| number * 2).collect::<Vec<_>>());
}
