use jiff::SignedDuration;
use serde_json::{Value, json};

use super::*;
use crate::fleet::estate::{Blind, Slot, Source, Tagged};
use crate::fleet::rules::{TAG_OWNER, TAG_POLICY};

const DAY: i64 = 24 * 60 * 60;

fn now() -> Timestamp {
    "2026-06-30T12:00:00Z".parse().unwrap()
}

fn later(seconds: i64) -> Timestamp {
    now() + SignedDuration::from_secs(seconds)
}

fn policy(document: Value) -> FleetPolicy {
    FleetPolicy::read(document).unwrap()
}

/// Keys of ninety days are due, and told of a week before.
fn week() -> FleetPolicy {
    policy(json!({"defaults": {"warn": "7d"}}))
}

/// A key that is as it is since then, in seconds from now.
fn key(since: i64) -> Slot {
    Slot { active: true, since: Some(later(since)), ..Slot::default() }
}

fn row(user: &str, keys: Vec<Slot>) -> Row {
    Row { user: user.into(), path: "/".into(), keys }
}

fn secret(user: &str) -> Tagged {
    let arn = format!("arn:aws:secretsmanager:eu-west-1:111122223333:secret:{user}-AbCdEf");
    let (arn, tags) = (arn.parse().unwrap(), BTreeMap::new());
    Tagged { arn, user: user.into(), tags, changed: None, replica_of: None, runs: Vec::new(), pending: false }
}

/// These users, each with a secret of its own.
fn estate(users: Vec<Row>) -> Estate {
    Estate {
        account: "111122223333".into(),
        regions: vec!["eu-west-1".into()],
        source: Source::Report(now()),
        secrets: users.iter().map(|row| secret(&row.user)).collect(),
        users,
        root_key: Some(false),
        running: None,
        blind: Vec::new(),
    }
}

/// A user whose one key is due in that many seconds.
fn due_in(user: &str, seconds: i64) -> Row {
    row(user, vec![key(seconds - 90 * DAY)])
}

fn soon(policy: &FleetPolicy, estate: &Estate) -> Vec<String> {
    calendar(policy, estate, now()).soon.into_iter().map(|soon| soon.user).collect()
}

#[test]
fn a_key_is_soon_from_the_instant_of_its_warning_to_before_it_is_due() {
    for (seconds, told) in
        [(7 * DAY + 1, false), (7 * DAY, true), (DAY, true), (1, true), (0, false), (-1, false)]
    {
        let found = calendar(&week(), &estate(vec![due_in("a", seconds)]), now());
        assert_eq!(found.soon.len(), usize::from(told), "{seconds}");
        assert_eq!(found.due, BTreeMap::from([("a".to_owned(), Some(later(seconds)))]));
        assert!(found.complete);
        if let [soon] = &found.soon[..] {
            assert_eq!(soon.due, later(seconds));
        }
    }
}

#[test]
fn what_is_told_names_the_user_its_secret_its_owner_and_the_keys_age() {
    let mut estate = estate(vec![due_in("a", 7 * DAY), due_in("b", 7 * DAY - 1)]);
    estate.secrets[1].tags.insert(TAG_OWNER.into(), "eve".into());
    let found = calendar(&week(), &estate, now());
    // The one that is due first comes first.
    let [b, a] = &found.soon[..] else { panic!("{found:?}") };
    assert_eq!((b.user.as_str(), b.owner.as_deref(), b.age_days), ("b", Some("eve"), 83));
    let whole = Soon {
        user: "a".into(),
        account: "111122223333".into(),
        secret: secret("a").arn,
        owner: None,
        age_days: 83,
        due: later(7 * DAY),
    };
    assert_eq!(*a, whole);
}

#[test]
fn of_keys_that_are_due_together_the_users_are_in_order() {
    let found = soon(&week(), &estate(vec![due_in("b", 5), due_in("a", 5), due_in("c", 4)]));
    assert_eq!(found, ["c", "a", "b"]);
}

#[test]
fn nobody_is_told_where_no_setting_says_so_or_an_exemption_holds() {
    let estate = estate(vec![due_in("a", 5), due_in("b", 5)]);
    assert_eq!(soon(&FleetPolicy::default(), &estate), [""; 0]);
    let of_b = policy(json!({"rules": [{"name": "b", "match": {"user": "b"}, "set": {"warn": "1d"}}]}));
    assert_eq!(soon(&of_b, &estate), ["b"]);
    let exempt = |until: &str| {
        policy(json!({
            "defaults": {"warn": "7d"},
            "exemptions": [{"user": "b", "owner": "o", "reason": "r", "until": until}],
        }))
    };
    assert_eq!(soon(&exempt("2026-06-30"), &estate), ["a"]);
    assert_eq!(soon(&exempt("2026-06-29"), &estate), ["a", "b"]);
    // When their keys are due is known all the same.
    for policy in [FleetPolicy::default(), exempt("2026-06-30")] {
        assert_eq!(calendar(&policy, &estate, now()).due["b"], Some(later(5)));
    }
}

#[test]
fn the_newest_active_key_is_the_current_one_and_a_secret_may_be_older() {
    let off = |since| Slot { active: false, ..key(since) };
    let due = |keys: Vec<Slot>, changed: Option<i64>| {
        let mut estate = estate(vec![row("a", keys)]);
        estate.secrets[0].changed = changed.map(later);
        calendar(&week(), &estate, now()).due["a"]
    };
    let days = |days: i64| Some(later(days * DAY));
    // The overlap and the grace of a rotation, and a key that somebody has switched off since.
    assert_eq!(due(vec![key(-95 * DAY), key(-5 * DAY)], None), days(85));
    assert_eq!(due(vec![off(-95 * DAY), key(-5 * DAY)], Some(-4 * DAY)), days(85));
    assert_eq!(due(vec![key(-85 * DAY), off(-5 * DAY)], None), days(5));
    // Switched off and on again, a key looks young, and is no younger than what its secret holds.
    assert_eq!(due(vec![key(-5 * DAY)], Some(-85 * DAY)), days(5));
    // What is not known.
    assert_eq!(due(Vec::new(), None), None);
    assert_eq!(due(vec![off(-5 * DAY)], Some(-5 * DAY)), None);
    let undated = Slot { since: None, ..key(0) };
    assert_eq!(due(vec![key(-85 * DAY), undated], None), None);
}

#[test]
fn who_is_not_managed_is_not_in_it_and_what_stands_against_a_user_makes_its_day_unknown() {
    let users = ["twice", "lost", "alone", "fine"].map(|user| due_in(user, 5)).to_vec();
    let mut estate = estate(users);
    estate.secrets.retain(|secret| secret.user != "alone");
    estate.secrets.push(secret("twice"));
    estate.secrets[1].tags.insert(TAG_POLICY.into(), "gone".into());
    let found = calendar(&week(), &estate, now());
    let known: Vec<(&str, bool)> =
        found.due.iter().map(|(user, due)| (user.as_str(), due.is_some())).collect();
    assert_eq!(known, [("fine", true), ("lost", false), ("twice", false)]);
    assert_eq!(found.soon.len(), 1);
    assert!(found.complete);
    estate.blind.push(Blind::Region { region: "eu-north-1".into(), why: "denied".into() });
    assert!(!calendar(&week(), &estate, now()).complete);
}

#[test]
fn users_of_other_accounts_are_told_apart_from_those_of_the_same_name_here() {
    let here = estate(vec![due_in("a", 2 * DAY), due_in("b", 4 * DAY)]);
    let there = Estate { account: "444455556666".into(), ..estate(vec![due_in("a", 3 * DAY)]) };
    let all = calendar_of_all(&week(), &[&here, &there], now());
    let named: Vec<String> = all.soon.iter().map(|soon| all.name_of(soon)).collect();
    assert_eq!(named, ["a", "444455556666/a", "b"]);
    assert_eq!(all.due.keys().collect::<Vec<_>>(), ["444455556666/a", "a", "b"]);
    assert!(all.complete);
    assert_eq!(calendar_of_all(&week(), &[&here], now()), calendar(&week(), &here, now()));
    // One that cannot be read is no reason to forget whom its owners were warned of.
    let dark = Estate::unread("444455556666", &[], "denied".into());
    assert!(!calendar_of_all(&week(), &[&here, &dark], now()).complete);
}

#[test]
fn a_warning_may_come_a_year_ahead() {
    let year = policy(json!({"defaults": {"max_age": "366d", "warn": "365d"}}));
    assert_eq!(soon(&year, &estate(vec![row("a", vec![key(-2 * DAY)])])), ["a"]);
    assert_eq!(soon(&year, &estate(vec![row("a", vec![key(DAY / 2)])])), [""; 0]);
}
