use jiff::SignedDuration;
use serde_json::{Value, json};

use super::*;
use crate::fleet::estate::Source;
use crate::ids::AccessKeyId;
use crate::key::KeyStatus;

fn now() -> Timestamp {
    "2026-06-30T12:00:00Z".parse().unwrap()
}

/// So many seconds ago.
fn ago(seconds: i64) -> Timestamp {
    now() - SignedDuration::from_secs(seconds)
}

const DAY: i64 = 24 * 60 * 60;
const LONG: i64 = 120 * DAY;

fn policy() -> FleetPolicy {
    read(json!({"defaults": {"unused": {"disable_after": "120d"}, "owner": "ops"}}))
}

fn read(document: Value) -> FleetPolicy {
    FleetPolicy::read(document).unwrap()
}

fn slot(since: i64, used: Used) -> Slot {
    Slot { active: true, since: Some(ago(since)), used, ..Slot::default() }
}

fn estate(keys: Vec<Slot>) -> Estate {
    Estate {
        account: "111122223333".into(),
        regions: vec!["eu-west-1".into()],
        source: Source::Report(now()),
        users: vec![Row { user: "svc-old".into(), path: "/".into(), keys }],
        root_key: Some(false),
        secrets: Vec::new(),
        running: None,
        blind: Vec::new(),
    }
}

fn key(made: i64) -> KeyFacts {
    let id: AccessKeyId = "AKIAIOSFODNN7EXAMPLE".parse().unwrap();
    KeyFacts { id, status: KeyStatus::Active, created: Some(ago(made)) }
}

/// Whether a key is nominated that was made and used then, where the report has these rows.
fn nominated(slots: Vec<Slot>, made: i64, used: Used) -> bool {
    quiet(&policy(), &estate(slots), now()).iter().any(|quiet| quiet.means(&key(made), used))
}

#[test]
fn a_user_is_asked_for_at_the_very_second_and_not_a_day_earlier() {
    let found = |since, used| quiet(&policy(), &estate(vec![slot(since, used)]), now()).len();
    for (last, count) in [(LONG, 1), (LONG - 1, 0), (LONG - DAY, 0), (LONG + DAY, 1)] {
        assert_eq!(found(300 * DAY, Used::At(ago(last))), count, "used {last} s ago");
        assert_eq!(found(last, Used::Never), count, "made {last} s ago");
        // Made Active again since, it counts from that day.
        assert_eq!(found(last, Used::At(ago(300 * DAY))), count, "switched {last} s ago");
    }
    assert_eq!(found(300 * DAY, Used::Unknown), 0);
    let undated = Slot { since: None, ..slot(0, Used::At(ago(300 * DAY))) };
    assert!(quiet(&policy(), &estate(vec![undated]), now()).is_empty());
    let off = Slot { active: false, ..slot(300 * DAY, Used::Never) };
    assert!(quiet(&policy(), &estate(vec![off]), now()).is_empty());
}

#[test]
fn only_those_whose_rule_says_so_and_who_are_not_exempt() {
    let old = || estate(vec![slot(300 * DAY, Used::Never)]);
    let found = quiet(&policy(), &old(), now());
    assert_eq!((found[0].user.as_str(), found[0].rule.as_str()), ("svc-old", "defaults"));
    assert_eq!((found[0].owner.as_deref(), found[0].unused), (Some("ops"), policy().usual().unused.unwrap()));
    assert!(quiet(&FleetPolicy::default(), &old(), now()).is_empty());
    let other = json!({"rules": [{"name": "a", "match": {"user": "svc-new"}, "set": {"unused": {"disable_after": "30d"}}}]});
    assert!(quiet(&read(other), &old(), now()).is_empty());
    let mut exempt = serde_json::to_value(policy()).unwrap();
    exempt["exemptions"] = json!([{"user": "svc-*", "owner": "a", "reason": "b", "until": "2026-06-30"}]);
    assert!(quiet(&read(exempt.clone()), &old(), now()).is_empty());
    exempt["exemptions"][0]["until"] = json!("2026-06-29");
    assert_eq!(quiet(&read(exempt), &old(), now()).len(), 1);
}

#[test]
fn a_key_is_nominated_where_every_row_that_may_be_its_own_is_quiet() {
    let long = Used::At(ago(200 * DAY));
    assert!(nominated(vec![slot(300 * DAY, long)], 300 * DAY, long));
    // Beside one that is in use, by its own use.
    let beside = || vec![slot(100 * DAY, Used::At(ago(0))), slot(300 * DAY, long)];
    assert!(nominated(beside(), 300 * DAY, long));
    assert!(!nominated(beside(), 100 * DAY, Used::At(ago(0))));
    // The one that was used has another use by now than the report says: it stands in no row.
    assert!(!nominated(beside(), 100 * DAY, Used::At(ago(60))));
    // Two of which nobody knows which is which, and one of them was made Active again.
    let two = |since| vec![slot(since, Used::Never), slot(250 * DAY, Used::Never)];
    assert!(nominated(two(300 * DAY), 300 * DAY, Used::Never));
    assert!(!nominated(two(5 * DAY), 300 * DAY, Used::Never));
    assert!(!nominated(two(5 * DAY), 250 * DAY, Used::Never));
    // Made later than a row says, it is not that row's.
    assert!(nominated(vec![slot(200 * DAY, Used::Never)], 200 * DAY, Used::Never));
    assert!(!nominated(vec![slot(200 * DAY, Used::Never)], 200 * DAY - 1, Used::Never));
    // What a row does not know may be any key's.
    assert!(!nominated(vec![slot(300 * DAY, long), slot(300 * DAY, Used::Unknown)], 300 * DAY, long));
    let undated = Slot { since: None, ..slot(0, long) };
    assert!(!nominated(vec![slot(300 * DAY, long), undated], 300 * DAY, long));
    assert!(!nominated(vec![slot(300 * DAY, Used::Never)], 300 * DAY, long));
    assert!(!nominated(vec![slot(300 * DAY, long)], 300 * DAY, Used::Never));
}

#[test]
fn a_key_that_is_inactive_or_undated_is_not_nominated() {
    let found = quiet(&policy(), &estate(vec![slot(300 * DAY, Used::Never)]), now());
    let means = |key: KeyFacts| found[0].means(&key, Used::Never);
    assert!(means(key(300 * DAY)));
    assert!(!means(KeyFacts { status: KeyStatus::Inactive, ..key(300 * DAY) }));
    assert!(!means(KeyFacts { created: None, ..key(300 * DAY) }));
    // Of the same second, whatever a clock says of its parts.
    let made = ago(300 * DAY) + SignedDuration::from_millis(250);
    assert!(means(KeyFacts { created: Some(made), ..key(0) }));
}

#[test]
fn a_report_that_knows_of_more_inactive_keys_than_there_are_is_of_another_day() {
    let off = || Slot { active: false, ..slot(200 * DAY, Used::Never) };
    let inactive = || KeyFacts { status: KeyStatus::Inactive, ..key(300 * DAY) };
    let is_of = |slots: Vec<Slot>, keys: &[KeyFacts]| quiet(&policy(), &estate(slots), now())[0].is_of(keys);
    let old = || slot(250 * DAY, Used::Never);
    assert!(is_of(vec![old()], &[key(0)]));
    assert!(is_of(vec![old(), off()], &[key(0), inactive()]));
    // Made Active again, or deleted.
    assert!(!is_of(vec![old(), off()], &[key(0), key(0)]));
    assert!(!is_of(vec![old(), off()], &[key(0)]));
    // One that was made Inactive since is no row's any more.
    assert!(is_of(vec![old(), old()], &[key(0), inactive()]));
}

#[test]
fn a_line_names_the_key_its_age_and_its_owner() {
    let found = quiet(&policy(), &estate(vec![slot(300 * DAY, Used::Never)]), now());
    let line = found[0].line(Some(&key(300 * DAY + 7)), "UnusedDue", "x".into());
    assert_eq!(
        (line.age_days, line.owner.as_deref(), line.rule.as_deref()),
        (Some(300), Some("ops"), Some("defaults"))
    );
    assert_eq!((line.key_id, line.action), (Some(key(0).id), Action::Find));
    assert_eq!(found[0].line(None, "UnusedUnread", "x".into()).age_days, None);
}
