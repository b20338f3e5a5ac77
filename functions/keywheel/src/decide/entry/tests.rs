use super::*;
use crate::key::KeyStatus::{self, Active, Inactive};

const C: &str = "AKIACCCCCCCCCCCCCCCC";
const K: &str = "AKIAKKKKKKKKKKKKKKKK";
const L: &str = "AKIALLLLLLLLLLLLLLLL";

fn id(text: &str) -> AccessKeyId {
    text.parse().unwrap()
}

fn key(text: &str, status: KeyStatus) -> KeyFacts {
    KeyFacts { id: id(text), status, created: None }
}

fn at(day: i64) -> Timestamp {
    Timestamp::from_second(1_767_000_000 + day * 24 * 3600).unwrap()
}

fn run() -> RunId {
    "5b0c1a52-9c3e-4c60-8f5d-2f6a3f1e7d10".parse().unwrap()
}

/// A managed user with one key, which the secret holds.
fn facts(keys: &[(&str, KeyStatus)]) -> Facts {
    Facts {
        now: at(0),
        evidence: None,
        reason: Reason::Manual,
        roll_back: false,
        dry_run: false,
        mode: Mode::Live,
        rivals: Vec::new(),
        current: Some(CurrentVersion { version: run().version(), key: Some(id(C)) }),
        current_run: RunState::NotOurs,
        previous_key: None,
        pending: None,
        keys: keys.iter().map(|(text, status)| key(text, *status)).collect(),
        retire: None,
        keep: None,
    }
}

fn pending(text: Option<&str>, run: RunState) -> Pending {
    let version = "11111111-1111-4111-8111-111111111111".parse().unwrap();
    Pending { version, key: text.map(id), same_fields: true, run }
}

fn code(facts: &Facts) -> String {
    match decide(facts, "svc") {
        Entry::Blocked(why) => {
            assert!(!why.text.is_empty() && !why.remedy.is_empty(), "{why:?}");
            why.code
        }
        Entry::At(start) => format!("{:?}", start.phase),
    }
}

fn start(facts: &Facts) -> Start {
    match decide(facts, "svc") {
        Entry::At(start) => start,
        Entry::Blocked(why) => panic!("blocked: {why:?}"),
    }
}

#[test]
fn one_key_that_the_secret_holds_is_rotated() {
    let start = start(&facts(&[(C, Active)]));
    assert_eq!(start.phase, Phase::Create);
    assert_eq!(start.old, Some(OldKey { key: id(C), was_current: true }));
}

#[test]
fn an_installation_that_is_not_live_blocks_with_the_plan() {
    for (mode, dry_run, expected) in
        [(Mode::DryRun, false, "DryRun"), (Mode::Paused, false, "Paused"), (Mode::Live, true, "DryRun")]
    {
        let facts = Facts { dry_run, mode, ..facts(&[(C, Active)]) };
        let Entry::Blocked(why) = decide(&facts, "svc") else { panic!("not blocked") };
        assert_eq!(why.code, expected);
        assert!(why.text.contains("would make a new key for svc"), "{}", why.text);
    }
    // What is wrong anyway is said rather than what would be done.
    let facts = Facts { mode: Mode::Paused, ..facts(&[]) };
    assert_eq!(code(&facts), "CurrentKeyUnknown");
}

#[test]
fn a_current_key_that_does_not_work_blocks_unless_it_leaked() {
    assert_eq!(code(&facts(&[(K, Active)])), "CurrentKeyUnknown");
    assert_eq!(code(&facts(&[(C, Inactive)])), "CurrentKeyInactive");
    let leaked = |keys: &[(&str, KeyStatus)]| Facts { reason: Reason::Leaked, ..facts(keys) };
    assert_eq!(code(&leaked(&[(C, Inactive)])), "Create");
    assert_eq!(code(&leaked(&[])), "Create");
    // What is in the slot that the replacement needs is found out first, unless that is known.
    let taken = leaked(&[(C, Inactive), (K, Active)]);
    assert_eq!(code(&taken), "Clear");
    assert_eq!(start(&taken).suspects[0].key, id(K));
    assert_eq!(code(&Facts { retire: Some(id(K)), ..taken.clone() }), "SlotsFull");
    assert_eq!(code(&Facts { previous_key: Some(id(K)), ..taken }), "SlotsFull");
}

#[test]
fn a_second_secret_for_the_user_blocks() {
    let rival = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:b-AbCdEf".parse().unwrap();
    assert_eq!(code(&Facts { rivals: vec![rival], ..facts(&[(C, Active)]) }), "TwoManagedSecrets");
}

#[test]
fn a_strangers_key_is_attributed_never_removed_on_sight() {
    for status in [Active, Inactive] {
        let start = start(&facts(&[(C, Active), (K, status)]));
        assert_eq!(start.phase, Phase::Clear);
        assert_eq!(start.suspects[0].stored_by, None);
    }
    assert_eq!(code(&facts(&[(C, Active), (K, Active), (L, Active)])), "SlotsFull");
}

#[test]
fn a_key_that_the_secret_named_before_is_ours_only_where_a_run_of_ours_superseded_it() {
    let before = |run, status| Facts {
        previous_key: Some(id(K)),
        current_run: run,
        ..facts(&[(C, Active), (K, status)])
    };
    assert_eq!(code(&before(RunState::NotOurs, Active)), "SlotsFull");
    assert_eq!(code(&before(RunState::Running(run()), Active)), "RunInProgress");
    assert_eq!(code(&before(RunState::Ended(run()), Inactive)), "TakeOver");
    let start = start(&before(RunState::Ended(run()), Active));
    assert_eq!(start.phase, Phase::TakeOver);
    assert_eq!(start.new.unwrap().key, id(C));
    assert_eq!(start.old, Some(OldKey { key: id(K), was_current: true }));
    let kept = Facts { keep: Some(id(K)), ..before(RunState::Ended(run()), Active) };
    assert_eq!(code(&kept), "OldKeyKept");
}

#[test]
fn a_leaked_key_is_evidence_until_its_owner_lets_go_of_it() {
    let leaked = Facts {
        previous_key: Some(id(K)),
        current_run: RunState::EndedLeaked(run()),
        ..facts(&[(C, Active), (K, Inactive)])
    };
    assert_eq!(code(&leaked), "LeakedKeyKept");
    let back = Facts { roll_back: true, ..leaked.clone() };
    assert_eq!(code(&back), "LeakedKeyKept");
    let at_work = RunState::RunningLeaked(run());
    assert_eq!(code(&Facts { current_run: at_work, ..back }), "LeakedKeyKept");
    assert_eq!(code(&Facts { current_run: at_work, ..leaked.clone() }), "RunInProgress");
    assert_eq!(code(&Facts { retire: Some(id(K)), ..leaked }), "TakeOver");
}

#[test]
fn a_leaked_key_goes_when_its_incident_is_closed_and_its_evidence_time_is_over() {
    let facts = |state, day, used: Option<Timestamp>| {
        let record = Record {
            schema: 1,
            key: id(K),
            user: "svc".parse().unwrap(),
            account: None,
            incident: run(),
            at: at(0),
            state,
            until: None,
            note: None,
        };
        let last_use = LastUse { at: used, service: None, region: None };
        let evidence = Some(Evidence { record, last_use: Some(last_use) });
        Facts { now: at(day), evidence, ..facts(&[(C, Active), (K, Inactive)]) }
    };
    let (closed, open) = (RecordState::Closed, RecordState::Contained);
    assert_eq!(code(&facts(open, 40, None)), "LeakedKeyKept");
    assert_eq!(code(&facts(closed, 29, None)), "EvidenceKept");
    // It works 3 to 4 seconds longer than it reads Inactive.
    for used in [None, Some(at(-3)), Some(after(at(0), DIES_LATE))] {
        let start = start(&facts(closed, 30, used));
        assert_eq!((start.phase, start.leaked), (Phase::TakeOver, false));
        assert_eq!(start.old, Some(OldKey { key: id(K), was_current: false }));
        assert_eq!(start.new.map(|new| new.key), Some(id(C)));
    }
    assert_eq!(code(&facts(closed, 40, Some(at(1)))), "EvidenceUsed");
    // The key that its record speaks of, Inactive, and nothing that its owner has said.
    let old = facts(closed, 40, None);
    let other = Facts { keys: vec![key(C, Active), key(L, Inactive)], ..old.clone() };
    assert_eq!(code(&other), "Clear");
    let on = Facts { keys: vec![key(C, Active), key(K, Active)], ..old.clone() };
    assert_eq!(code(&on), "Clear");
    assert_eq!(code(&Facts { retire: Some(id(K)), ..facts(open, 1, None) }), "TakeOver");
    assert_eq!(code(&Facts { reason: Reason::Leaked, ..old.clone() }), "SlotsFull");
    // One that a run of ours had superseded is in the way of the gate as one that was current.
    let superseded = |used| Facts {
        previous_key: Some(id(K)),
        current_run: RunState::EndedLeaked(run()),
        ..facts(closed, 40, used)
    };
    for used in [Some(at(-3)), None] {
        assert_eq!(start(&superseded(used)).old, Some(OldKey { key: id(K), was_current: true }));
    }
    let mut unread = old.clone();
    unread.evidence.as_mut().unwrap().last_use = None;
    assert_eq!(code(&unread), "LeakedKeyKept");
}

#[test]
fn a_leaked_key_that_its_own_run_left_active_is_made_inactive_by_the_next() {
    let at_large = Facts {
        previous_key: Some(id(K)),
        current_run: RunState::EndedLeaked(run()),
        ..facts(&[(C, Active), (K, Active)])
    };
    let again = Facts { reason: Reason::Leaked, ..at_large.clone() };
    for facts in [&at_large, &again, &Facts { keep: Some(id(K)), ..again.clone() }] {
        let start = start(facts);
        assert_eq!(start.phase, Phase::TakeOver);
        assert!(start.leaked, "without overlap, and kept as evidence");
        assert_eq!(start.old, Some(OldKey { key: id(K), was_current: true }));
    }
    assert_eq!(code(&Facts { keep: Some(id(K)), ..at_large.clone() }), "OldKeyKept");
    assert_eq!(
        code(&Facts { current_run: RunState::RunningLeaked(run()), ..again.clone() }),
        "RunInProgress"
    );
    assert_eq!(code(&Facts { current_run: RunState::Ended(run()), ..again }), "SlotsFull");
}

#[test]
fn a_retired_key_goes_through_overlap_and_grace_whatever_it_was() {
    let retire = |keys: &[(&str, KeyStatus)]| Facts { retire: Some(id(K)), ..facts(keys) };
    let start = start(&retire(&[(C, Active), (K, Active)]));
    assert_eq!((start.phase, start.old.unwrap().was_current), (Phase::TakeOver, false));
    assert_eq!(code(&retire(&[(C, Active), (K, Inactive)])), "TakeOver");
    // The word is for one key only.
    assert_eq!(code(&retire(&[(C, Active), (L, Active)])), "Clear");
}

#[test]
fn first_adoption_leaves_a_strangers_key_and_supersedes_a_retired_one() {
    let empty = |keys: &[(&str, KeyStatus)], retire| Facts { current: None, retire, ..facts(keys) };
    assert_eq!(start(&empty(&[], None)).old, None);
    assert_eq!(start(&empty(&[(K, Active)], None)).old, None);
    let old = start(&empty(&[(K, Active)], Some(id(K)))).old.unwrap();
    assert_eq!((old.key, old.was_current), (id(K), false));
    assert_eq!(code(&empty(&[(K, Active), (L, Active)], None)), "SlotsFull");
}

#[test]
fn a_pending_version_belongs_to_its_run() {
    let with = |p| Facts { pending: Some(p), ..facts(&[(C, Active), (K, Active)]) };
    assert_eq!(code(&with(pending(Some(K), RunState::Running(run())))), "RunInProgress");
    assert_eq!(code(&with(pending(Some(K), RunState::NotOurs))), "PendingNotOurs");
    assert_eq!(code(&with(pending(Some(K), RunState::Ended(run())))), "Validate");
    // Edited since, or half undone: cleared on the strength of the stored version, not taken over.
    let edited = Pending { same_fields: false, ..pending(Some(K), RunState::Ended(run())) };
    let start = start(&with(edited));
    assert_eq!((start.phase, start.suspects[0].stored_by), (Phase::Clear, Some(run())));
    let half = Facts {
        keys: vec![key(C, Active), key(K, Inactive)],
        ..with(pending(Some(K), RunState::Ended(run())))
    };
    assert_eq!(code(&half), "Clear");
    // A pending version whose key is gone stands in nobody's way.
    let gone = Facts { pending: Some(pending(Some(L), RunState::Ended(run()))), ..facts(&[(C, Active)]) };
    assert_eq!(code(&gone), "Create");
}

#[test]
fn going_back_needs_the_key_before() {
    let back = |previous: Option<&str>, keys: &[(&str, KeyStatus)]| Facts {
        roll_back: true,
        previous_key: previous.map(id),
        current_run: RunState::Running(run()),
        ..facts(keys)
    };
    let start = start(&back(Some(K), &[(C, Active), (K, Inactive)]));
    assert_eq!((start.phase, start.old.unwrap().key), (Phase::Backwards, id(K)));
    assert_eq!(code(&back(None, &[(C, Active), (K, Active)])), "NothingToRollBack");
    assert_eq!(code(&back(Some(K), &[(C, Active)])), "NothingToRollBack");
    let by_hand = Facts { current_run: RunState::NotOurs, ..back(Some(K), &[(C, Active), (K, Active)]) };
    assert_eq!(code(&by_hand), "NothingToRollBack");
}

#[test]
fn of_two_runs_on_one_version_the_one_at_work_counts_and_a_leak_said_by_either() {
    use RunState::{Ended, EndedLeaked, NotOurs, Running, RunningLeaked};
    let other: RunId = "6c1d2b63-ad4f-4d71-9f6e-3a7b4a2f8e21".parse().unwrap();
    assert_eq!(NotOurs.and(Ended(run())), Ended(run()));
    assert_eq!(Ended(run()).and(Running(other)), Running(other));
    assert_eq!(EndedLeaked(run()).and(Running(other)), RunningLeaked(other));
    assert_eq!(Running(run()).and(EndedLeaked(other)), RunningLeaked(run()));
    assert_eq!(Ended(run()).and(EndedLeaked(other)), EndedLeaked(run()));
}

#[test]
fn the_plan_says_what_becomes_of_the_old_key() {
    let plan = |reason| start(&Facts { reason, ..facts(&[(C, Active)]) }).plan;
    assert!(plan(Reason::Leaked).contains("leave the leaked key"), "{}", plan(Reason::Leaked));
    assert!(plan(Reason::Manual).contains("after overlap and grace"), "{}", plan(Reason::Manual));
}
