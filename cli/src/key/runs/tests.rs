use std::collections::BTreeMap;

use super::*;
use crate::managed::tests::managed;
use crate::run::tests::{document, run};
use aws_sdk_sfn::types::ExecutionStatus;
use keywheel::Phase;
use keywheel::rotation::{Baseline, CurrentVersion, NewKey, OldKey, Why};

fn t(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn id(number: u32) -> AccessKeyId {
    format!("AKIAFAKE{number:012}").parse().unwrap()
}

fn version(number: u128) -> VersionId {
    format!("{number:032}").parse().unwrap()
}

/// A rotation from key 1 to key 2, in its grace, started at that second.
fn rotated(started: i64) -> Run {
    let mut doc = document();
    let user = managed().user.facts;
    let current = Some(CurrentVersion { version: version(1), key: Some(id(1)) });
    let baseline = Baseline { at: t(0), secret_name: "app/mail".into(), user, current, keys: Vec::new() };
    doc.baseline = Some(baseline);
    doc.new = Some(NewKey { key: id(2), version: Some(version(2)) });
    doc.old = Some(OldKey { key: id(1), was_current: true });
    doc.phase = Phase::Grace;
    (doc.promoted_at, doc.disabled_at) = (Some(t(100)), Some(t(200)));
    let mut run = run(ExecutionStatus::Running, Some(doc));
    run.started = t(started);
    run
}

fn known(mut runs: Vec<Run>) -> Known {
    let mut secret = managed().secret;
    secret.versions = BTreeMap::from([
        (version(1).as_str().to_owned(), vec!["AWSPREVIOUS".to_owned()]),
        (version(2).as_str().to_owned(), vec!["AWSCURRENT".to_owned(), RunId::random().label()]),
    ]);
    runs.sort_by_key(|run| std::cmp::Reverse(run.started));
    let management = Management::Managed(Box::new(secret));
    Known { management, runs, runs_read: true, notes: Vec::new() }
}

#[test]
fn a_run_tells_of_both_its_keys() {
    let known = known(vec![rotated(0)]);
    let (old, new) = (known.trace(&id(1)), known.trace(&id(2)));
    assert_eq!(old.version, Some((version(1), vec!["AWSPREVIOUS".to_owned()])));
    assert_eq!(new.version, Some((version(2), vec!["AWSCURRENT".to_owned()])));
    assert!(old.made_by.is_none() && new.made_by.is_some() && new.superseded.is_none());
    let superseded = old.superseded.unwrap();
    assert_eq!((superseded.by, superseded.at, superseded.disabled_at), (Some(&id(2)), t(100), Some(t(200))));
    assert!(superseded.comes_back && !superseded.leaked);
    let stranger = known.trace(&id(3));
    assert!(stranger.run.is_none() && stranger.version.is_none() && stranger.runs_read);
}

#[test]
fn a_leaked_key_comes_back_by_no_rollback_and_one_that_was_not_promoted_over_is_not_superseded() {
    let mut leaked = rotated(0);
    leaked.document.as_mut().unwrap().request.reason = Reason::Leaked;
    let book = known(vec![leaked]);
    let superseded = book.trace(&id(1)).superseded.unwrap();
    assert!(superseded.leaked && !superseded.comes_back);
    let mut early = rotated(0);
    early.document.as_mut().unwrap().promoted_at = None;
    assert!(known(vec![early]).trace(&id(1)).superseded.is_none());
    let mut undone = rotated(0);
    undone.document.as_mut().unwrap().end(t(300), Outcome::RolledBack, Why::new("TurnedBack", "", ""));
    assert!(known(vec![undone]).trace(&id(1)).superseded.is_none());
}

#[test]
fn the_latest_run_has_the_last_word_and_one_that_touched_nothing_has_none() {
    let mut back = rotated(500);
    let doc = back.document.as_mut().unwrap();
    doc.request.roll_back = true;
    doc.new = Some(NewKey { key: id(1), version: Some(version(1)) });
    doc.old = Some(OldKey { key: id(2), was_current: true });
    let mut blocked = rotated(900);
    blocked.document.as_mut().unwrap().end(t(900), Outcome::Blocked, Why::new("SlotsFull", "", ""));
    let (first, last) = (rotated(0), back.id.clone());
    let made = first.id.clone();
    let known = known(vec![first, back, blocked]);
    let (one, two) = (known.trace(&id(1)), known.trace(&id(2)));
    assert!(one.superseded.is_none() && one.made_by.is_none());
    assert_eq!(one.run.map(|run| &run.id), Some(&last));
    assert_eq!(two.superseded.unwrap().by, Some(&id(1)));
    assert_eq!(two.made_by.map(|run| &run.id), Some(&made));
}
