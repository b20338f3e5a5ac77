use super::*;
use crate::key::KeyStatus;
use crate::replica::{Follows, Names};

const NEW: &str = "AKIANNNNNNNNNNNNNNNN";
const OLD: &str = "AKIAOOOOOOOOOOOOOOOO";
/// When the key was made Inactive, and the grace, in seconds.
const D: i64 = 1_000_000;
const GRACE: i64 = 7 * 24 * 3600;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn version(digit: char) -> VersionId {
    digit.to_string().repeat(36).parse().unwrap()
}

#[expect(clippy::option_option, reason = "not read, read as never, read as then")]
fn facts(now: i64, status: Option<KeyStatus>, last_use: Option<Option<i64>>) -> Facts {
    Facts {
        now: at(now),
        mode: Mode::Live,
        frozen: None,
        current: Some(version('1')),
        keys: [(OLD, status), (NEW, Some(KeyStatus::Active))]
            .into_iter()
            .filter_map(|(id, status)| {
                Some(KeyFacts { id: id.parse().unwrap(), status: status?, created: None })
            })
            .collect(),
        replicas: Vec::new(),
        last_use: last_use.map(|used| LastUse { at: used.map(at), service: None, region: None }),
        leaked: None,
    }
}

fn decide(facts: &Facts) -> Delete {
    let (new, old) = (NEW.parse().unwrap(), OLD.parse().unwrap());
    let version = version('1');
    let grace = Duration::from_secs(GRACE.unsigned_abs());
    super::decide(facts, &Run { version: Some(&version), new: &new, old: &old, disabled_at: at(D), grace })
}

#[test]
fn only_an_inactive_unused_key_past_its_grace_is_deleted() {
    let off = Some(KeyStatus::Inactive);
    assert_eq!(decide(&facts(D + GRACE, off, Some(Some(D - 100)))), Delete::Yes);
    assert_eq!(decide(&facts(D + GRACE, off, Some(None))), Delete::Yes);
    // It works 3 to 4 seconds longer than it reads Inactive.
    assert_eq!(decide(&facts(D + GRACE, off, Some(Some(D + 4)))), Delete::Yes);
    assert_eq!(decide(&facts(D + GRACE, off, Some(Some(D + 15)))), Delete::Yes);
    assert!(matches!(decide(&facts(D + GRACE, off, Some(Some(D + 16)))), Delete::Held(_)));
    assert!(
        matches!(decide(&facts(D + GRACE - 1, off, Some(None))), Delete::Wait(until, _) if until == at(D + GRACE))
    );
    assert!(matches!(decide(&facts(D - 50, off, Some(None))), Delete::Wait(..)), "a clock that runs behind");
}

#[test]
fn a_replica_that_lags_keeps_the_key_for_a_day_and_then_for_a_person() {
    let lagging = |now, names| {
        let replicas = vec![Replica { region: "us-west-2".into(), names, follows: Follows::InSync }];
        decide(&Facts { replicas, ..facts(now, Some(KeyStatus::Inactive), Some(None)) })
    };
    let over = D + GRACE;
    for names in [Names::Version(version('2')), Names::Nothing, Names::Unknown("denied".into())] {
        let Delete::Wait(next, why) = lagging(over, names.clone()) else { panic!("{names:?}") };
        assert_eq!(next, at(over + 3600));
        assert!(why.contains("us-west-2"), "{why}");
        assert!(matches!(lagging(over + 24 * 3600 - 1, names.clone()), Delete::Wait(..)));
        assert!(matches!(lagging(over + 24 * 3600, names), Delete::Behind(_)));
    }
    assert_eq!(lagging(over, Names::Version(version('1'))), Delete::Yes);
}

#[test]
fn an_active_key_is_never_deleted() {
    for last_use in [Some(None), Some(Some(D - 100)), None] {
        assert!(matches!(decide(&facts(D + 10 * GRACE, Some(KeyStatus::Active), last_use)), Delete::Held(_)));
    }
}

#[test]
fn an_unknown_last_use_waits_a_day_and_then_asks_a_person() {
    let off = Some(KeyStatus::Inactive);
    assert!(matches!(decide(&facts(D + GRACE, off, None)), Delete::Wait(..)));
    assert!(matches!(decide(&facts(D + GRACE + 24 * 3600, off, None)), Delete::Held(_)));
}

#[test]
fn a_pause_a_moved_secret_and_a_missing_key_delete_nothing() {
    let off = Some(KeyStatus::Inactive);
    let paused = Facts { mode: Mode::Paused, ..facts(D + GRACE, off, Some(None)) };
    assert!(matches!(decide(&paused), Delete::Wait(..)));
    let moved = Facts { current: Some(version('2')), ..facts(D + GRACE, off, Some(None)) };
    assert_eq!(decide(&moved), Delete::StandDown);
    assert_eq!(decide(&facts(D + GRACE, None, None)), Delete::Gone);
}

#[test]
fn a_key_that_leaked_goes_when_its_incident_is_closed_and_its_evidence_time_is_over() {
    let days = |days: i64| days * 24 * 3600;
    let of = |state, contained: i64| {
        let record = Record {
            schema: 1,
            key: OLD.parse().unwrap(),
            user: "svc".parse().unwrap(),
            account: None,
            incident: "5b0c1a52-9c3e-4c60-8f5d-2f6a3f1e7d10".parse().unwrap(),
            at: at(contained),
            state,
            until: None,
            note: None,
        };
        let facts = facts(D + GRACE, Some(KeyStatus::Inactive), Some(None));
        decide(&Facts { leaked: Some(record), ..facts })
    };
    assert_eq!(of(RecordState::Closed, D + GRACE - days(30)), Delete::Yes);
    assert!(matches!(of(RecordState::Closed, D + GRACE - days(30) + 1), Delete::Evidence(_)));
    // Opened again in the grace, or never closed.
    assert!(matches!(of(RecordState::Contained, D + GRACE - days(90)), Delete::Evidence(_)));
}

#[test]
fn a_pause_is_waited_for_with_rarer_and_rarer_looks_and_for_ninety_days() {
    let hours = |hours: i64| hours * 3600;
    let paused = |since: i64| {
        let now = D + GRACE + hours(since);
        let facts = Facts { mode: Mode::Paused, ..facts(now, Some(KeyStatus::Inactive), Some(None)) };
        match decide(&facts) {
            Delete::Wait(until, _) => Some(until.as_second() - now),
            Delete::Paused(_) => None,
            other => panic!("{other:?}"),
        }
    };
    for (since, next) in [(0, 1), (24, 1), (48, 2), (240, 10), (576, 24), (2159, 24)] {
        assert_eq!(paused(since), Some(hours(next)), "after {since} hours");
    }
    assert_eq!(paused(2160), None);
}

#[test]
fn in_a_freeze_nothing_is_deleted_until_its_end_however_long_it_is() {
    let off = Some(KeyStatus::Inactive);
    let day = 24 * 3600;
    let in_freeze = |now: i64, until: i64| {
        let frozen = Some(Frozen { until: Some(at(until)), why: "a freeze holds".into() });
        decide(&Facts { frozen, ..facts(now, off, Some(None)) })
    };
    let over = D + GRACE;
    let wait = |next: i64| Delete::Wait(at(next), "a freeze holds".into());
    assert_eq!(in_freeze(over, over + 1), wait(over + 1));
    assert_eq!(in_freeze(over, over + day), wait(over + day));
    assert_eq!(in_freeze(over, over + day + 1), wait(over + day));
    // Longer than a pause is waited for.
    assert_eq!(in_freeze(over + 200 * day, over + 200 * day + 60), wait(over + 200 * day + 60));
    let both = Facts {
        mode: Mode::Paused,
        frozen: Some(Frozen { until: Some(at(over + 200 * day + 60)), why: "a freeze holds".into() }),
        ..facts(over + 200 * day, off, Some(None))
    };
    assert_eq!(decide(&both), wait(over + 200 * day + 60));
    assert_eq!(in_freeze(over - 1, over + day), Delete::Wait(at(over), "the grace is not over".into()));
    assert_eq!(decide(&facts(over + 200 * day + 60, off, Some(None))), Delete::Yes);
}

#[test]
fn a_freeze_without_a_known_end_is_a_pause() {
    let unknown = |since: i64| {
        let frozen = Some(Frozen { until: None, why: "nobody knows".into() });
        let now = D + GRACE + since * 3600;
        decide(&Facts { frozen, ..facts(now, Some(KeyStatus::Inactive), Some(None)) })
    };
    assert_eq!(unknown(0), Delete::Wait(at(D + GRACE + 3600), "nobody knows".into()));
    assert_eq!(unknown(2160), Delete::Paused("nobody knows".into()));
}

#[test]
fn the_only_way_back_stays_while_the_current_key_does_not_work() {
    for broken in [Some(KeyStatus::Inactive), None] {
        for old in [Some(KeyStatus::Inactive), None] {
            let mut facts = facts(D + GRACE, old, Some(None));
            facts.keys.retain(|key| key.id.as_str() != NEW);
            let new = broken.map(|status| KeyFacts { id: NEW.parse().unwrap(), status, created: None });
            facts.keys.extend(new);
            assert!(matches!(decide(&facts), Delete::Held(_)));
        }
    }
}

#[test]
fn a_leaked_key_that_no_run_looks_after_goes_only_when_its_evidence_time_has_passed_without_use() {
    let record = |state| Record {
        schema: 1,
        key: OLD.parse().unwrap(),
        user: "svc".parse().unwrap(),
        account: None,
        incident: crate::RunId::random(),
        at: at(D),
        state,
        until: None,
        note: None,
    };
    let closed = record(RecordState::Closed);
    let over = D + i64::try_from(EVIDENCE.as_secs()).unwrap();
    let inactive = facts(over, Some(KeyStatus::Inactive), None).keys;
    let used = |second: Option<i64>| LastUse { at: second.map(at), service: None, region: None };
    let why = |record: &Record, keys: &[KeyFacts], last_use: Option<LastUse>, now: i64| {
        kept_as_evidence(record, keys, last_use.as_ref(), at(now))
    };
    for before in [None, Some(D - 1), Some(D + 15)] {
        assert_eq!(why(&closed, &inactive, Some(used(before)), over), None);
    }
    let says = |kept: Option<String>, words: &str| {
        assert!(kept.as_ref().is_some_and(|kept| kept.contains(words)), "{kept:?}");
    };
    says(why(&closed, &inactive, Some(used(None)), over - 1), "as evidence until");
    says(why(&closed, &inactive, Some(used(Some(D + 16))), over), "was used at");
    says(why(&closed, &inactive, None, over), "could not be read");
    for state in [RecordState::Contained, RecordState::Cleared] {
        says(why(&record(state), &inactive, Some(used(None)), over), "not closed");
    }
    let active = facts(over, Some(KeyStatus::Active), None).keys;
    says(why(&closed, &active, Some(used(None)), over), "is Active");
    let gone = facts(over, None, None).keys;
    says(why(&closed, &gone, Some(used(None)), over), "gone already");
}
