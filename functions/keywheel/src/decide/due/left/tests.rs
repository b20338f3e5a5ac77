use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::*;
use crate::decide::due::{self, to_look_at};
use crate::decide::entry::{Pending, RunState};
use crate::fleet::FleetPolicy;
use crate::fleet::estate::{Current, Estate, Look, Looks, Row, Slot, Source, Tagged, Used};
use crate::key::KeyStatus;
use crate::rotation::{CurrentVersion, Why};

fn now() -> Timestamp {
    "2026-06-30T12:00:00Z".parse().unwrap()
}

fn ago(days: i64) -> Timestamp {
    now() - SignedDuration::from_hours(24 * days)
}

fn id(number: usize) -> AccessKeyId {
    format!("AKIAFAKE{number:012}").parse().unwrap()
}

fn arn() -> crate::ids::SecretArn {
    "arn:aws:secretsmanager:eu-west-1:111122223333:secret:a-AbCdEf".parse().unwrap()
}

/// User `a`, whose keys are of these ages by IAM's report, and whose secret leads to these runs.
fn estate(ages: &[i64], runs: Vec<RunId>, running: &[RunId]) -> Estate {
    let slot = |days: &i64| Slot {
        active: true,
        since: Some(ago(*days)),
        used: Used::At(ago(0)),
        ..Slot::default()
    };
    let secret = Tagged {
        arn: arn(),
        user: "a".into(),
        tags: BTreeMap::new(),
        changed: None,
        replica_of: None,
        runs,
        pending: false,
    };
    Estate {
        account: "111122223333".into(),
        regions: vec!["eu-west-1".into()],
        source: Source::Report(ago(0)),
        users: vec![Row { user: "a".into(), path: "/".into(), keys: ages.iter().map(slot).collect() }],
        root_key: Some(false),
        secrets: vec![secret],
        running: Some(running.iter().copied().collect::<BTreeSet<_>>()),
        blind: Vec::new(),
    }
}

/// What a run has left that has promoted key 0 five days ago, and superseded key 1.
fn superseded(run: RunId) -> Close {
    let key = |number, days| KeyFacts { id: id(number), status: KeyStatus::Active, created: Some(ago(days)) };
    Close {
        secret: Some(arn().as_str().to_owned()),
        retire: None,
        keep: None,
        keys: vec![key(0, 5), key(1, 95)],
        current: Current::Key(id(0)),
        left: Some(Box::new(Left {
            current: Some(CurrentVersion { version: run.version(), key: Some(id(0)) }),
            current_run: RunState::Ended(run),
            previous_key: Some(id(1)),
            pending: None,
            evidence: None,
            last: None,
            held: None,
            orphan: None,
        })),
    }
}

/// The same with another end of what it has left.
fn but(close: &Close, change: impl FnOnce(&mut Left)) -> Close {
    let mut close = close.clone();
    change(close.left.as_deref_mut().unwrap());
    close
}

/// The lines of the plan over it.
fn lines(close: Close) -> Vec<Line> {
    let looks = [("a".to_owned(), Look::Seen(close))].into_iter().collect();
    due::plan(&FleetPolicy::default(), &estate(&[5, 95], Vec::new(), &[]), &looks, now()).lines
}

fn verdict(close: Close) -> (Action, &'static str) {
    let lines = lines(close);
    (lines[0].action, lines[0].code)
}

#[test]
fn an_overlap_and_a_grace_without_an_execution_are_taken_over_though_nothing_is_due() {
    let run = RunId::random();
    let mut close = superseded(run);
    for (status, phase) in [(KeyStatus::Active, "overlap"), (KeyStatus::Inactive, "grace")] {
        close.keys[1].status = status;
        let all = lines(close.clone());
        let [line] = &all[..] else { panic!("{all:?}") };
        assert_eq!(
            (line.action, line.code, line.key_id.as_ref()),
            (Action::Rotate, "TakeOver", Some(&id(1)))
        );
        assert!(line.why.contains(&format!("takes over run {run} at its {phase}")), "{}", line.why);
        assert!(line.only_retires() && line.terms.is_some());
        assert_eq!((line.wave, line.age_days), (Some(1), Some(95)));
    }
}

#[test]
fn limits_freezes_and_exemptions_hold_for_it_as_well() {
    let with = |policy: serde_json::Value| {
        let policy = FleetPolicy::read(policy).unwrap();
        let estate = estate(&[5, 95], Vec::new(), &[]);
        let look = |(user, _)| (user, Look::Seen(superseded(RunId::random())));
        let looks = to_look_at(&policy, &estate, now()).into_iter().map(look).collect();
        let plan = due::plan(&policy, &estate, &looks, now());
        plan.lines.iter().find(|line| line.user == "a").map(|line| (line.action, line.code)).unwrap()
    };
    assert_eq!(with(json!({})), (Action::Rotate, "TakeOver"));
    let exempt = json!({"exemptions": [{"user": "a", "owner": "o", "reason": "r", "until": "2026-12-31"}]});
    assert_eq!(with(exempt), (Action::Skip, "Exempt"));
    let frozen = json!({"limits": {"freeze": [
        {"from": "2026-06-30T00:00:00Z", "until": "2026-07-01T00:00:00Z", "reason": "r"}]}});
    assert_eq!(with(frozen), (Action::Skip, "Frozen"));
}

#[test]
fn a_run_that_runs_is_left_to_itself_and_nobody_is_asked() {
    let run = RunId::random();
    let under_way = estate(&[95, 5], vec![RunId::random(), run], &[run]);
    let policy = FleetPolicy::default();
    assert!(to_look_at(&policy, &under_way, now()).is_empty());
    let plan = due::plan(&policy, &under_way, &Looks::new(), now());
    let [line] = &plan.lines[..] else { panic!("{:?}", plan.lines) };
    assert_eq!((line.action, line.code), (Action::Skip, "RunInProgress"));
    assert!(line.is_ordinary());
    // The list was minutes old; a closer look sees it.
    let close = but(&superseded(run), |left| left.current_run = RunState::Running(run));
    assert_eq!(verdict(close), (Action::Skip, "RunInProgress"));
}

#[test]
fn what_was_left_to_a_person_stays_with_that_person_until_the_owner_decides() {
    let run = RunId::random();
    let held = but(&superseded(run), |left| left.held = Some(Why::new("StillInUse", "It is used.", "Look.")));
    let line = lines(held.clone()).remove(0);
    assert_eq!((line.action, line.code), (Action::Skip, "Held"));
    assert!(line.why.contains("StillInUse") && line.why.ends_with("Look."), "{}", line.why);
    assert!(!line.is_ordinary());
    assert_eq!(verdict(Close { retire: Some(id(1)), ..held.clone() }), (Action::Rotate, "TakeOver"));
    assert_eq!(verdict(Close { keep: Some(id(1)), ..held.clone() }), (Action::Skip, "NotDue"));
    // A leaked key that could not be made Inactive is not one to be decided on.
    let leaked = but(&held, |left| left.current_run = RunState::EndedLeaked(run));
    assert_eq!(verdict(leaked), (Action::Rotate, "TakeOver"));
}

#[test]
fn a_superseded_key_whose_run_nobody_knows_is_found_and_left_alone() {
    let gone = but(&superseded(RunId::random()), |left| left.current_run = RunState::NotOurs);
    let all = lines(gone.clone());
    let codes: Vec<_> = all.iter().map(|line| (line.action, line.code)).collect();
    assert_eq!(codes, [(Action::Skip, "NotDue"), (Action::Find, "RunGone")]);
    assert_eq!(all[1].key_id, Some(id(1)));
    assert!(all[1].why.contains("--retire") && all[1].why.contains("90 days"), "{}", all[1].why);
    // Its owner has said what is to become of it.
    for decided in [Close { retire: Some(id(1)), ..gone.clone() }, Close { keep: Some(id(1)), ..gone }] {
        assert!(lines(decided).iter().all(|line| line.code != "RunGone"));
    }
}

#[test]
fn a_key_that_was_stored_and_never_promoted_is_taken_over_or_cleared() {
    let (run, before) = (RunId::random(), RunId::random());
    let mut close = but(&superseded(before), |left| {
        left.current = Some(CurrentVersion { version: before.version(), key: Some(id(1)) });
        left.previous_key = None;
        left.pending = Some(Pending {
            version: run.version(),
            key: Some(id(0)),
            same_fields: true,
            run: RunState::Ended(run),
        });
    });
    close.current = Current::Key(id(1));
    for status in [KeyStatus::Active, KeyStatus::Inactive] {
        close.keys[0].status = status;
        let line = lines(close.clone()).remove(0);
        assert_eq!(
            (line.action, line.code, line.key_id.as_ref()),
            (Action::Rotate, "Reconcile", Some(&id(0)))
        );
        assert!(line.why.contains(&format!("takes over run {run} at its validation")), "{}", line.why);
        assert!(!line.only_retires());
    }
    // A first adoption: the secret holds a placeholder.
    let mut first = but(&close, |left| {
        left.current = Some(CurrentVersion { version: run.placeholder_version(), key: None });
    });
    first.keys = vec![KeyFacts { status: KeyStatus::Active, ..first.keys[0].clone() }];
    first.current = Current::Nothing;
    assert_eq!(verdict(first), (Action::Rotate, "Reconcile"));
    // Another rotation's version is none of ours.
    let theirs = but(&close, |left| left.pending.as_mut().unwrap().run = RunState::NotOurs);
    assert_eq!(verdict(theirs), (Action::Skip, "TwoKeys"));
    let runs = but(&close, |left| left.pending.as_mut().unwrap().run = RunState::Running(run));
    assert_eq!(verdict(runs), (Action::Skip, "RunInProgress"));
}

#[test]
fn only_an_orphan_that_cloudtrail_says_is_ours_starts_a_run() {
    let (run, suspect) = (RunId::random(), superseded(RunId::random()));
    let with = |orphan| verdict(but(&suspect, |left| (left.previous_key, left.orphan) = (None, orphan)));
    assert_eq!(with(Some(Attribution::Ours)), (Action::Rotate, "Reconcile"));
    assert_eq!(with(Some(Attribution::AtWork(run))), (Action::Skip, "RunInProgress"));
    for no in [
        None,
        Some(Attribution::Wait(now())),
        Some(Attribution::NotOurs("key AKIAFAKE000000000001 was made by a colleague".into())),
    ] {
        assert_eq!(with(no), (Action::Skip, "NotDue"));
    }
}

#[test]
fn a_strangers_key_and_one_that_its_owner_gives_up_wait_until_the_current_one_is_due() {
    let stranger = but(&superseded(RunId::random()), |left| {
        (left.previous_key, left.current_run) = (None, RunState::NotOurs);
    });
    assert_eq!(verdict(stranger.clone()), (Action::Skip, "NotDue"));
    let given_up = Close { retire: Some(id(1)), ..stranger };
    assert_eq!(verdict(given_up.clone()), (Action::Skip, "NotDue"));
    let mut due = given_up;
    due.keys[0].created = Some(ago(100));
    assert_eq!(verdict(due), (Action::Rotate, "Retire"));
}
