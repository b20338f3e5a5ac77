use super::*;
use jiff::Timestamp;
use keywheel::decide::due;
use keywheel::fleet::estate::{Close, Current, Look, Looks, Row, Slot, Source, Tagged, Used};
use keywheel::key::{KeyFacts, KeyStatus};

const NOW: &str = "2026-03-31T00:00:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn made(age: i64) -> Timestamp {
    Timestamp::from_second(now().as_second() - age * 86_400).unwrap()
}

fn secret(user: &str, region: &str) -> Tagged {
    Tagged {
        arn: format!("arn:aws:secretsmanager:{region}:111122223333:secret:{user}-AbCdEf").parse().unwrap(),
        user: user.to_owned(),
        tags: BTreeMap::new(),
        changed: None,
        replica_of: None,
        runs: Vec::new(),
        pending: false,
    }
}

fn id(user: &str) -> keywheel::AccessKeyId {
    format!("AKIA{:0>16}", user.to_uppercase().replace('-', "")).parse().unwrap()
}

/// An account whose users have one key each, of so many days, and a secret in eu-west-1.
fn estate(users: &[(&str, i64)]) -> Estate {
    let row = |(user, age): &(&str, i64)| Row {
        user: (*user).to_owned(),
        path: "/".to_owned(),
        keys: vec![Slot { active: true, since: Some(made(*age)), used: Used::At(now()), ..Slot::default() }],
    };
    Estate {
        account: "111122223333".to_owned(),
        regions: vec!["eu-west-1".to_owned()],
        source: Source::Report(now()),
        users: users.iter().map(row).collect(),
        root_key: Some(false),
        secrets: users.iter().map(|(user, _)| secret(user, "eu-west-1")).collect(),
        running: None,
        blind: Vec::new(),
    }
}

fn side(estate: &Estate, policy: Value) -> Side {
    let policy = FleetPolicy::read(policy).unwrap();
    let look = |(user, secret): (String, keywheel::SecretArn)| {
        let created = estate.users.iter().find(|row| row.user == user).and_then(|row| row.keys[0].since);
        let key = KeyFacts { id: id(&user), status: KeyStatus::Active, created };
        let close = Close {
            secret: Some(secret.as_str().to_owned()),
            retire: None,
            keep: None,
            current: Current::Key(key.id.clone()),
            keys: vec![key],
            left: None,
        };
        (user, Look::Seen(close))
    };
    let looks: Looks = due::to_look_at(&policy, estate, now()).into_iter().map(look).collect();
    let plan = due::plan(&policy, estate, &looks, now());
    Side { policy, estate: estate.clone(), plan }
}

fn users(changes: &Changes, kind: Kind) -> Vec<&str> {
    changes.with(kind).map(|change| change.user.as_str()).collect()
}

#[test]
fn a_shorter_age_makes_keys_due_and_other_durations_concern_everybody() {
    let estate = estate(&[("svc-a", 100), ("svc-b", 40), ("svc-c", 5)]);
    let before = side(&estate, json!({}));
    let after = side(&estate, json!({ "defaults": { "frequency": "monthly" } }));
    let changes = Changes::between(&before, &after);
    assert_eq!(users(&changes, Kind::Due), ["svc-b"]);
    assert_eq!(users(&changes, Kind::NotDue), [""; 0]);
    assert_eq!(users(&changes, Kind::Other), ["svc-a", "svc-c"]);
    assert_eq!(changes.unchanged, 0);
    let lines = changes.lines();
    assert!(lines[1].starts_with("svc-b  now due  Due: Its key is 40 days old"), "{lines:?}");
    assert!(lines[2].starts_with("svc-a, svc-c: max_age 90days -> 30days, max_overlap "), "{lines:?}");
    assert_eq!(lines[3], "1 now due, 0 no longer due, 2 otherwise changed, 0 as before.");
    let back = Changes::between(&after, &before);
    assert_eq!(users(&back, Kind::NotDue), ["svc-b"]);
    assert!(
        back.lines()[1].contains("no longer due  NotDue: Its key is due on 2026-05-20."),
        "{:?}",
        back.lines()
    );
}

#[test]
fn a_policy_that_says_the_same_changes_nothing() {
    let estate = estate(&[("svc-a", 100), ("svc-b", 40)]);
    let changes = Changes::between(
        &side(&estate, json!({})),
        &side(&estate, json!({ "defaults": { "frequency": "90d" }, "limits": { "keys_per_run": 7 } })),
    );
    assert_eq!((changes.users.len(), changes.unchanged), (0, 2));
    assert_eq!(changes.lines(), ["0 now due, 0 no longer due, 0 otherwise changed, 2 as before."]);
    assert!(changes.gaps().is_empty());
}

#[test]
fn another_rule_wave_or_exemption_is_told_of_whom_it_concerns() {
    let estate = estate(&[("svc-a", 100), ("svc-b", 100), ("svc-c", 5)]);
    let rule = json!({ "name": "first", "match": { "user": "svc-a" }, "set": { "wave": 0, "owner": "eve" } });
    let exempt =
        |user: &str| json!({ "user": user, "owner": "sap", "reason": "leave", "until": "2027-03-31" });
    let after = json!({ "rules": [rule], "exemptions": [exempt("svc-b"), exempt("svc-c")] });
    let changes = Changes::between(&side(&estate, json!({})), &side(&estate, after));
    assert_eq!(users(&changes, Kind::NotDue), ["svc-b"]);
    let words: Vec<String> = changes.with(Kind::Other).map(Change::words).collect();
    assert_eq!(words, ["rule defaults -> first, wave 1 -> 0, owner nobody -> eve", "NotDue -> Exempt"]);
    let json = changes.json();
    assert_eq!((&json["not_due"][0]["was"], &json["not_due"][0]["is"]), (&json!("Due"), &json!("Exempt")));
    assert_eq!(json["unchanged"], 0);
}

#[test]
fn a_warning_that_comes_earlier_is_told_of_whom_it_concerns() {
    let estate = estate(&[("svc-a", 40), ("svc-b", 5)]);
    let warned = |warn: &str| side(&estate, json!({ "defaults": { "warn": warn } }));
    for (before, after, words) in [
        (side(&estate, json!({})), warned("7d"), "warn never -> 7days"),
        (warned("7d"), warned("14d"), "warn 7days -> 14days"),
    ] {
        let changes = Changes::between(&before, &after);
        assert_eq!(users(&changes, Kind::Other), ["svc-a", "svc-b"]);
        assert_eq!(changes.users[0].words(), words);
    }
}

#[test]
fn keys_that_wait_for_their_turn_are_due_all_the_same() {
    let estate = estate(&[("svc-a", 100), ("svc-b", 99)]);
    let after = json!({ "limits": { "keys_per_run": 1 } });
    let changes = Changes::between(&side(&estate, json!({})), &side(&estate, after));
    let [change] = &changes.users[..] else { panic!("{changes:?}") };
    assert_eq!((change.kind, change.words().as_str()), (Kind::Other, "Due -> Limit"));
}

#[test]
fn each_policy_sees_its_own_regions_of_one_reading() {
    let mut both = estate(&[("svc-a", 100), ("svc-b", 100)]);
    both.secrets[1] = secret("svc-b", "us-east-1");
    both.regions.push("us-east-1".to_owned());
    both.blind = vec![
        Blind::Region { region: "us-east-1".into(), why: "denied".into() },
        Blind::User { user: "svc-z".into(), why: "throttled".into() },
    ];
    let here = within(&both, &["eu-west-1".to_owned()]);
    assert_eq!((here.secrets.len(), here.blind.len(), here.regions.len()), (1, 1, 1));
    let all = within(&both, &both.regions);
    assert_eq!(all, both);
    let before = side(&here, json!({}));
    let after = side(&all, json!({ "regions": ["eu-west-1", "us-east-1"] }));
    let changes = Changes::between(&before, &after);
    assert_eq!(users(&changes, Kind::Due), ["svc-b"]);
    assert_eq!(changes.users[0].was, NOT_MANAGED);
    let gone = Changes::between(&after, &before);
    assert_eq!(users(&gone, Kind::NotDue), ["svc-b"]);
    assert!(gone.users[0].why.contains("No secret in the policy's regions"), "{gone:?}");
    // What could not be read is told once, whichever plan lacks it.
    let gaps = gone.gaps();
    assert_eq!(gaps.len(), 3, "{gaps:?}");
    assert!(gaps[1].contains("us-east-1") && gaps[2].contains("svc-z"), "{gaps:?}");
}

#[test]
fn of_many_users_with_the_same_change_some_are_named() {
    assert_eq!(named(&["a"]), "a");
    assert_eq!(named(&["a", "b", "c"]), "a, b, c");
    assert_eq!(named(&["a", "b", "c", "d", "e"]), "a, b, c and 2 more");
}
