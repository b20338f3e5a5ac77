use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::*;
use crate::fleet::estate::{Blind, Slot, Used};
use crate::fleet::rules::TAG_POLICY;
use crate::ids::AccessKeyId;
use crate::key::KeyStatus;

const NOW: &str = "2026-06-30T12:00:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn ago(days: i64) -> Timestamp {
    now() - SignedDuration::from_hours(24 * days)
}

fn policy(document: Value) -> FleetPolicy {
    FleetPolicy::read(document).unwrap()
}

fn slot(days: i64) -> Slot {
    Slot { active: true, since: Some(ago(days)), used: Used::At(ago(0)), ..Slot::default() }
}

fn row(user: &str, ages: &[i64]) -> Row {
    Row { user: user.into(), path: "/".into(), keys: ages.iter().map(|days| slot(*days)).collect() }
}

fn arn(user: &str) -> SecretArn {
    format!("arn:aws:secretsmanager:eu-west-1:111122223333:secret:{user}-AbCdEf").parse().unwrap()
}

fn tagged(user: &str, tags: &[(&str, &str)]) -> Tagged {
    let tags: BTreeMap<String, String> =
        tags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Tagged {
        arn: arn(user),
        user: user.into(),
        tags,
        changed: None,
        replica_of: None,
        runs: Vec::new(),
        pending: false,
    }
}

fn estate(users: Vec<Row>, secrets: Vec<Tagged>) -> Estate {
    Estate {
        account: "111122223333".into(),
        regions: vec!["eu-west-1".into()],
        source: Source::Report(ago(0)),
        users,
        root_key: Some(false),
        secrets,
        running: Some(BTreeSet::new()),
        blind: Vec::new(),
    }
}

/// Each of the users with a secret of its own.
fn all_managed(users: Vec<Row>) -> Estate {
    let secrets = users.iter().map(|row| tagged(&row.user, &[])).collect();
    estate(users, secrets)
}

fn key_id(number: usize) -> AccessKeyId {
    format!("AKIAFAKE{number:012}").parse().unwrap()
}

fn close(user: &str, ages: &[i64]) -> Close {
    let key = |(number, days): (usize, &i64)| KeyFacts {
        id: key_id(number),
        status: KeyStatus::Active,
        created: Some(ago(*days)),
    };
    let keys = ages.iter().enumerate().map(key).collect();
    let current = if ages.is_empty() { Current::Nothing } else { Current::Key(key_id(0)) };
    Close { secret: Some(arn(user).as_str().to_owned()), retire: None, keep: None, keys, current, left: None }
}

/// The verdict on a user whose key is a hundred days old by the report, after a closer look.
fn after_look(look: Look) -> Line {
    let looks = [("a".to_owned(), look)].into_iter().collect();
    let plan = plan(&FleetPolicy::default(), &all_managed(vec![row("a", &[100])]), &looks, now());
    assert_eq!(plan.lines.len(), 1, "{:?}", plan.lines);
    plan.lines.into_iter().next().unwrap()
}

/// What is seen where IAM says the same of every user as its report, and the first key is current.
fn looks(policy: &FleetPolicy, estate: &Estate) -> Looks {
    to_look_at(policy, estate, now())
        .into_iter()
        .map(|(user, _)| {
            let row = estate.users.iter().find(|row| row.user == user).unwrap();
            let ages: Vec<i64> =
                row.keys.iter().map(|key| now().duration_since(key.since.unwrap()).as_hours() / 24).collect();
            let close = close(&user, &ages);
            (user, Look::Seen(close))
        })
        .collect()
}

/// The plan where that is seen.
fn planned(policy: &FleetPolicy, estate: &Estate) -> Plan {
    plan(policy, estate, &looks(policy, estate), now())
}

/// The plan over these accounts, where that is seen in each.
fn planned_over(policy: &FleetPolicy, estates: &[&Estate]) -> Plan {
    let seen: Vec<Looks> = estates.iter().map(|estate| looks(policy, estate)).collect();
    let all: Vec<(&Estate, &Looks)> = estates.iter().copied().zip(&seen).collect();
    plan_over(policy, &all, now())
}

/// The account is another one.
fn there(estate: Estate) -> Estate {
    Estate { account: "444455556666".into(), ..estate }
}

fn codes(plan: &Plan) -> Vec<(&str, Action, &str)> {
    plan.lines.iter().map(|line| (line.user.as_str(), line.action, line.code)).collect()
}

#[test]
fn a_key_is_due_on_the_day_it_reaches_its_age() {
    let estate = all_managed(vec![row("a", &[89]), row("b", &[90]), row("c", &[])]);
    let plan = planned(&FleetPolicy::default(), &estate);
    assert_eq!(
        codes(&plan),
        [("b", Action::Rotate, "Due"), ("a", Action::Skip, "NotDue"), ("c", Action::Skip, "NoKey")]
    );
    let due = &plan.lines[0];
    assert_eq!((due.age_days, due.wave, due.rule.as_deref()), (Some(90), Some(1), Some("defaults")));
    assert_eq!((due.key_id.clone(), due.secret.clone()), (Some(key_id(0)), Some(arn("b"))));
    assert_eq!(plan.lines[1].why, "Its key is due on 2026-07-01.");
    assert_eq!(due.terms.as_ref().map(|terms| terms.wave), Some(1));
    assert!(!due.is_ordinary() && plan.lines[1].is_ordinary());
}

#[test]
fn only_users_that_may_be_due_are_looked_at() {
    let policy = policy(json!({
        "exemptions": [{"user": "exempt", "owner": "o", "reason": "r", "until": "2026-12-31"}]}));
    let mut off = row("off", &[3]);
    off.keys[0].active = false;
    let mut grace = row("grace", &[100, 1]);
    grace.keys[0].active = false;
    let mut undated = row("undated", &[3]);
    undated.keys[0].since = None;
    let mut users = vec![row("due", &[100]), row("young", &[3]), row("exempt", &[100]), off, grace, undated];
    users.extend([row("both", &[100, 200]), row("overlap", &[100, 1]), row("unmanaged", &[400])]);
    users.push(row("toggled", &[3]));
    let secrets =
        users.iter().filter(|row| row.user != "unmanaged").map(|row| tagged(&row.user, &[])).collect();
    let mut estate = estate(users, secrets);
    // Its key was switched off and on again: the report's date is that of the switch, the secret is older.
    estate.secrets.last_mut().unwrap().changed = Some(ago(91));
    let named: Vec<String> = to_look_at(&policy, &estate, now()).into_iter().map(|(user, _)| user).collect();
    // The oldest first, as they are rotated; one whose date nobody knows is the last.
    assert_eq!(named, ["both", "due", "grace", "overlap", "off", "toggled", "undated"]);
    // Where it is not known which runs run, a second key alone says nothing.
    estate.running = None;
    let named: Vec<String> = to_look_at(&policy, &estate, now()).into_iter().map(|(user, _)| user).collect();
    assert_eq!(named, ["both", "due", "overlap", "off", "toggled", "undated"]);
}

#[test]
fn no_more_users_are_looked_at_than_the_limit_lets_be_rotated() {
    let policy = policy(json!({
        "rules": [{"name": "canary", "match": {"user": "late-*"}, "set": {"wave": 0}}],
        "limits": {"keys_per_run": 2}}));
    let users = vec![row("a", &[100]), row("b", &[200]), row("c", &[300]), row("late-d", &[95])];
    let estate = all_managed(users);
    let wanted = to_look_at(&policy, &estate, now());
    let order: Vec<&str> = wanted.iter().map(|(user, _)| user.as_str()).collect();
    assert_eq!(order, ["late-d", "c", "b", "a"]);
    let mut looks = Looks::new();
    assert_eq!(room(&policy, &estate, &looks, now()), 2);
    // Whom nobody has looked at is not cut off by a limit that is not reached.
    assert!(plan(&policy, &estate, &looks, now()).lines.iter().all(|line| line.code == "Unread"));
    // One of the first two has been rotated since the report.
    looks.insert("late-d".to_owned(), Look::Seen(close("late-d", &[95])));
    looks.insert("c".to_owned(), Look::Seen(close("c", &[1])));
    assert_eq!(room(&policy, &estate, &looks, now()), 1);
    looks.insert("b".to_owned(), Look::Seen(close("b", &[200])));
    assert_eq!(room(&policy, &estate, &looks, now()), 0);
    let plan = plan(&policy, &estate, &looks, now());
    assert_eq!(
        codes(&plan),
        [
            ("late-d", Action::Rotate, "Due"),
            ("b", Action::Rotate, "Due"),
            ("a", Action::Skip, "Limit"),
            ("c", Action::Skip, "NotDue")
        ]
    );
    assert!(!plan.lines[2].is_unread() && plan.lines[2].why.contains("the next"), "{}", plan.lines[2].why);
}

#[test]
fn what_cannot_be_read_is_skipped_and_never_rotated() {
    let unread = after_look(Look::Unread("iam:ListAccessKeys: AccessDenied".into()));
    assert_eq!((unread.action, unread.code), (Action::Skip, "Unread"));
    assert!(unread.why.contains("AccessDenied") && unread.is_unread() && !unread.is_ordinary());
    assert_eq!(after_look(Look::Gone).code, "NoSuchUser");
    let nobody = plan(&FleetPolicy::default(), &all_managed(vec![row("a", &[100])]), &Looks::new(), now());
    assert_eq!(codes(&nobody), [("a", Action::Skip, "Unread")]);
}

#[test]
fn what_a_run_would_find_decides_and_not_the_report() {
    let verdict = |close: Close| {
        let line = after_look(Look::Seen(close));
        (line.action, line.code)
    };
    let skip = |code| (Action::Skip, code);
    let with = |current: Current, ages: &[i64]| Close { current, ..close("a", ages) };
    assert_eq!(verdict(close("a", &[100])), (Action::Rotate, "Due"));
    assert_eq!(verdict(close("a", &[90])), (Action::Rotate, "Due"));
    assert_eq!(verdict(close("a", &[89])), skip("NotDue"));
    assert_eq!(verdict(close("a", &[])), skip("NoKey"));
    // In an overlap the new key is current.
    assert_eq!(verdict(close("a", &[0, 100])), skip("NotDue"));
    // A colleague's young key beside an old current one hides nothing.
    assert_eq!(verdict(close("a", &[100, 0])), skip("TwoKeys"));
    assert_eq!(verdict(close("a", &[100, 100, 100])), skip("TwoKeys"));
    assert_eq!(verdict(Close { secret: None, ..close("a", &[100]) }), skip("TagsDisagree"));
    assert_eq!(verdict(close("other", &[100])), skip("TagsDisagree"));
    assert_eq!(verdict(with(Current::Nothing, &[100])), skip("NothingStored"));
    assert_eq!(verdict(with(Current::Key(key_id(7)), &[100])), skip("CurrentKeyUnknown"));
    assert_eq!(verdict(with(Current::Unfit("no JSON".into()), &[100])), skip("Unfit"));
    // Who may not read the value still learns what is due, as long as there is only one key.
    assert_eq!(verdict(with(Current::Hidden("denied".into()), &[100])), (Action::Rotate, "Due"));
    assert_eq!(verdict(with(Current::Hidden("denied".into()), &[100, 100])), skip("TwoKeys"));
    let mut inactive = close("a", &[100]);
    inactive.keys[0].status = KeyStatus::Inactive;
    let line = after_look(Look::Seen(inactive));
    assert_eq!(line.code, "CurrentInactive");
    assert!(line.why.contains("keywheel incident") && line.why.contains("--reason leaked"), "{}", line.why);
    let mut undated = close("a", &[100]);
    undated.keys[0].created = None;
    let line = after_look(Look::Seen(undated));
    assert!(line.code == "AgeUnknown" && line.is_unread());
}

#[test]
fn a_key_whose_owner_wants_it_retired_goes_first_unless_it_is_kept() {
    let two = || close("a", &[100, 300]);
    let line = after_look(Look::Seen(Close { retire: Some(key_id(1)), ..two() }));
    assert_eq!((line.action, line.code, line.key_id), (Action::Rotate, "Retire", Some(key_id(1))));
    for odd in [
        // The tag names the current key, another user's, or one that is also to be kept.
        Close { retire: Some(key_id(0)), ..two() },
        Close { retire: Some(key_id(7)), ..two() },
        Close { retire: Some(key_id(1)), keep: Some(key_id(1)), ..two() },
        two(),
    ] {
        assert_eq!(after_look(Look::Seen(odd)).code, "TwoKeys");
    }
    // Who may not read the value takes the other one for current, also where it is the second.
    for (retired, current) in [(1, 100), (0, 300)] {
        let hidden = Current::Hidden("denied".into());
        let line = after_look(Look::Seen(Close { retire: Some(key_id(retired)), current: hidden, ..two() }));
        assert_eq!((line.code, line.key_id, line.age_days), ("Retire", Some(key_id(retired)), Some(current)));
    }
    let kept = Close { retire: Some(key_id(1)), keep: Some(key_id(0)), ..two() };
    assert_eq!(after_look(Look::Seen(kept)).code, "Retire");
    let mut off = Close { retire: Some(key_id(1)), ..two() };
    off.keys[0].status = KeyStatus::Inactive;
    assert_eq!(after_look(Look::Seen(off)).code, "CurrentInactive");
}

#[test]
fn the_canary_goes_first_then_the_oldest_and_the_limit_cuts_the_rest() {
    let policy = policy(json!({
        "rules": [{"name": "canary", "match": {"user": "canary"}, "set": {"wave": 0}}],
        "limits": {"keys_per_run": 2}}));
    let estate = all_managed(vec![row("a", &[100]), row("b", &[200]), row("canary", &[91])]);
    let plan = planned(&policy, &estate);
    assert_eq!(
        codes(&plan),
        [("canary", Action::Rotate, "Due"), ("b", Action::Rotate, "Due"), ("a", Action::Skip, "Limit")]
    );
    assert_eq!(plan.with(Action::Rotate).count(), 2);
}

#[test]
fn in_a_freeze_nothing_is_rotated_and_everything_is_still_said() {
    let policy = policy(json!({"limits": {"freeze": [
        {"from": "2026-06-30T00:00:00Z", "until": "2026-07-02T00:00:00Z", "reason": "half-year's end"}]}}));
    let plan = planned(&policy, &all_managed(vec![row("a", &[100]), row("b", &[1])]));
    assert_eq!(codes(&plan), [("a", Action::Skip, "Frozen"), ("b", Action::Skip, "NotDue")]);
    assert!(
        plan.lines[0].why.ends_with("until 2026-07-02T00:00:00Z (half-year's end)."),
        "{}",
        plan.lines[0].why
    );
}

#[test]
fn an_exemption_skips_warns_before_it_ends_and_is_told_after() {
    let plan_of = |user: &str, until: &str| {
        let policy =
            policy(json!({"exemptions": [{"user": user, "owner": "o", "reason": "r", "until": until}]}));
        let plan = planned(&policy, &all_managed(vec![row("a", &[100])]));
        plan.lines.iter().map(|line| line.code).collect::<Vec<_>>()
    };
    assert_eq!(plan_of("a", "2026-12-31"), ["Exempt"]);
    assert_eq!(plan_of("A", "2026-12-31"), ["Exempt"]);
    assert_eq!(plan_of("a", "2026-07-13"), ["Exempt", "ExemptionEnds"]);
    assert_eq!(plan_of("a", "2026-07-14"), ["Exempt"]);
    assert_eq!(plan_of("a", "2026-06-30"), ["Exempt", "ExemptionEnds"]);
    assert_eq!(plan_of("a", "2026-06-29"), ["Due", "ExemptionExpired"]);
    assert_eq!(plan_of("b", "2026-12-31"), ["Due", "ExemptionFitsNobody"]);
    // One of another account says nothing here; one that another outlives neither.
    let policy = policy(json!({"exemptions": [
        {"user": "b", "account": "444455556666", "owner": "o", "reason": "r", "until": "2026-12-31"},
        {"user": "*", "owner": "o", "reason": "r", "until": "2026-07-01"},
        {"user": "old", "owner": "o", "reason": "r", "until": "2026-12-31"}]}));
    let lonely = planned(&policy, &estate(vec![row("old", &[400])], Vec::new()));
    assert_eq!(codes(&lonely), [("", Action::Find, ""); 0]);
}

#[test]
fn over_several_accounts_waves_ages_and_limits_are_those_of_all_together() {
    let policy = policy(json!({
        "rules": [{"name": "there", "match": {"account": "444455556666"}, "set": {"wave": 0}}],
        "limits": {"keys_per_run": 2}}));
    let here = all_managed(vec![row("a", &[100]), row("b", &[300]), row("young", &[1])]);
    let there = there(all_managed(vec![row("a", &[95]), row("young", &[1])]));
    let plan = planned_over(&policy, &[&here, &there]);
    let lines: Vec<(&str, &str, &str)> =
        plan.lines.iter().map(|line| (line.account.as_str(), line.user.as_str(), line.code)).collect();
    assert_eq!(
        lines,
        [
            ("444455556666", "a", "Due"),
            ("111122223333", "b", "Due"),
            ("111122223333", "a", "Limit"),
            ("111122223333", "young", "NotDue"),
            ("444455556666", "young", "NotDue"),
        ]
    );
    assert_eq!(plan.lines[0].rule.as_deref(), Some("there"));
}

#[test]
fn an_account_that_could_not_be_read_is_one_finding_and_no_others_matter() {
    let here = all_managed(vec![row("a", &[100])]);
    let regions = ["eu-west-1".to_owned()];
    let dark = Estate::unread("777788889999", &regions, "denied".into());
    let policy = FleetPolicy::default();
    let plan = planned_over(&policy, &[&here, &dark]);
    assert_eq!(codes(&plan), [("a", Action::Rotate, "Due"), ("", Action::Find, "AccountUnread")]);
    let line = &plan.lines[1];
    assert!(line.is_unread() && line.why.contains("(denied)"), "{}", line.why);
    assert_eq!((plan.lines[0].account.as_str(), line.account.as_str()), ("111122223333", "777788889999"));
    assert!(dark.is_unread() && !here.is_unread());
}

#[test]
fn an_exemption_for_every_account_fits_nobody_only_where_it_does_so_in_all_of_them() {
    let policy = policy(json!({"exemptions": [
        {"user": "b", "owner": "o", "reason": "r", "until": "2026-12-31"},
        {"user": "c", "account": "444455556666", "owner": "o", "reason": "r", "until": "2026-12-31"}]}));
    let here = all_managed(vec![row("a", &[1])]);
    let (without, with) = (there(here.clone()), there(all_managed(vec![row("b", &[1])])));
    let dark = Estate::unread("777788889999", &[], "denied".into());
    let found = |estates: &[&Estate]| {
        let plan = planned_over(&policy, estates);
        let lines = plan.lines.iter().filter(|line| line.code == "ExemptionFitsNobody");
        lines.map(|line| line.user.clone()).collect::<Vec<_>>()
    };
    assert_eq!(found(&[&here]), ["b"]);
    assert_eq!(found(&[&here, &without]), ["b", "c"]);
    assert_eq!(found(&[&here, &with]), ["c"]);
    assert_eq!(found(&[&here, &without, &dark]), ["c"]);
}

#[test]
fn two_secrets_a_replica_or_a_rule_that_is_not_there_leave_the_user_alone() {
    let mut two = all_managed(vec![row("a", &[100])]);
    two.secrets.push(tagged("a", &[]));
    assert_eq!(codes(&planned(&FleetPolicy::default(), &two)), [("a", Action::Skip, "TwoManagedSecrets")]);
    // A replica follows its primary: beside it it counts for nothing, alone it says where to look.
    two.secrets[1].replica_of = Some("eu-north-1".into());
    assert_eq!(codes(&planned(&FleetPolicy::default(), &two)), [("a", Action::Rotate, "Due")]);
    two.secrets.remove(0);
    let plan = planned(&FleetPolicy::default(), &two);
    assert_eq!(codes(&plan), [("a", Action::Skip, "PrimaryElsewhere")]);
    assert!(plan.lines[0].why.contains("eu-north-1"));
    let named = estate(vec![row("a", &[100])], vec![tagged("a", &[(TAG_POLICY, "gone")])]);
    assert_eq!(codes(&planned(&FleetPolicy::default(), &named)), [("a", Action::Skip, "NoSuchRule")]);
}

#[test]
fn keys_that_nobody_manages_are_found_and_left_alone() {
    let mut root = estate(vec![row("old", &[100]), row("two", &[5, 6]), row("fine", &[5])], Vec::new());
    root.root_key = Some(true);
    let plan = planned(&FleetPolicy::default(), &root);
    assert_eq!(
        codes(&plan),
        [
            (ROOT, Action::Find, "RootKey"),
            ("old", Action::Find, "OverAge"),
            ("two", Action::Find, "TwoActive")
        ]
    );
    // Where a region is dark nobody knows who is managed there.
    root.root_key = None;
    root.blind.push(Blind::Row { line: 7, user: "odd".into(), why: "odd".into() });
    root.blind.push(Blind::User { user: "shy".into(), why: "denied".into() });
    // A secret that names them is no stranger's.
    root.secrets.extend([tagged("odd", &[]), tagged("shy", &[])]);
    assert!(codes(&planned(&FleetPolicy::default(), &root)).contains(&("old", Action::Find, "OverAge")));
    root.blind.push(Blind::Region { region: "eu-north-1".into(), why: "AccessDenied".into() });
    let plan = planned(&FleetPolicy::default(), &root);
    assert!(codes(&plan).contains(&("old", Action::Find, "PerhapsUnmanaged")));
    assert!(codes(&plan).contains(&("", Action::Find, "RegionUnread")));
    for (user, code) in [("odd", "RowUnread"), ("shy", "UserUnread"), (ROOT, "RootUnread")] {
        assert!(codes(&plan).contains(&(user, Action::Find, code)), "{code}");
        assert!(plan.lines.iter().all(|line| line.code != code || line.is_unread()));
    }
    assert!(plan.lines.iter().all(|line| line.code != "NoSuchUser"));
}

#[test]
fn unused_keys_are_found_by_date_or_by_never_and_unknown_says_nothing() {
    let found = |active: bool, made: i64, used: Used| {
        let mut lonely = row("a", &[made]);
        lonely.keys[0] = Slot { active, used, ..slot(made) };
        let policy = policy(json!({"defaults": {"max_age": "366d"}, "unused_after": "30d"}));
        let plan = planned(&policy, &estate(vec![lonely], Vec::new()));
        plan.lines.iter().any(|line| line.code == "Unused")
    };
    assert!(found(true, 40, Used::At(ago(30))));
    assert!(!found(true, 40, Used::At(ago(29))));
    assert!(found(true, 30, Used::Never));
    assert!(!found(true, 29, Used::Never));
    assert!(!found(true, 300, Used::Unknown));
    assert!(!found(false, 300, Used::Never));
}

#[test]
fn two_keys_for_longer_than_an_overlap_and_a_grace_are_said() {
    let plan_of = |ages: &[i64]| {
        let plan = planned(&FleetPolicy::default(), &all_managed(vec![row("a", ages)]));
        plan.lines.iter().filter(|line| line.code == "TwoKeys").map(|line| line.action).collect::<Vec<_>>()
    };
    // 14 days and 7 days.
    assert_eq!(plan_of(&[20, 89]), []);
    assert_eq!(plan_of(&[21, 89]), [Action::Find]);
    assert_eq!(plan_of(&[30]), []);
    // Where the verdict says it already, it is not said twice.
    assert_eq!(plan_of(&[100, 100]), [Action::Skip]);
}

#[test]
fn a_secret_whose_user_iam_does_not_know_is_said() {
    let lost = estate(vec![row("a", &[1])], vec![tagged("a", &[]), tagged("ghost", &[])]);
    let plan = planned(&FleetPolicy::default(), &lost);
    assert_eq!(codes(&plan), [("a", Action::Skip, "NotDue"), ("ghost", Action::Skip, "NoSuchUser")]);
}
