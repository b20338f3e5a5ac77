//! Decisions that are broken on purpose: the search must find each of them, by the promise that it breaks.

use keywheel::decide::entry::{self, RunState};
use keywheel::decide::orphan::Attribution;
use keywheel::decide::{delete, gate};
use keywheel::key::{KeyFacts, KeyStatus, LastUse};
use stateright::{Checker, Model};

use super::checker::World;
use super::facts::Kind::{self, Rotate, TurnBack};
use super::facts::{Decisions, START};

const WORKING: &str = "P1: AWSCURRENT names a working key";
const DELETED: &str = "P1: the current key is never deleted";
const NOT_OURS: &str = "P2: nothing of a stranger's";
const PASSED_OVER: &str = "no version is passed over";

/// Fails the test unless the search finds that `broken` breaks `promise`.
fn caught(broken: Decisions, kinds: &[Kind], faults: u8, deeds: u8, promise: &'static str) {
    let world = World { decisions: broken, ..World::of(kinds).with(faults, deeds) };
    let checker = world.checker().spawn_bfs().join();
    assert!(
        checker.discovery(promise).is_some(),
        "{promise:?}: not found in {:?}",
        checker.discoveries().keys()
    );
}

fn with_status(keys: &[KeyFacts], status: KeyStatus) -> Vec<KeyFacts> {
    keys.iter().map(|key| KeyFacts { status, ..key.clone() }).collect()
}

#[test]
fn an_orphan_removed_on_age_alone_is_caught() {
    let broken = Decisions { orphan: |_, _, _, _| Attribution::Ours, ..Decisions::real() };
    caught(broken, &[Rotate], 0, 1, NOT_OURS);
}

#[test]
fn an_orphan_of_a_run_at_work_taken_for_one_of_an_ended_run_is_caught() {
    let orphan = |suspect: &_, record: Option<&_>, _: bool, now| {
        (Decisions::real().orphan)(suspect, record, true, now)
    };
    caught(Decisions { orphan, ..Decisions::real() }, &[Rotate, Rotate], 0, 0, NOT_OURS);
}

#[test]
fn a_gate_that_does_not_ask_whether_the_current_key_works_is_caught() {
    let gate = |facts: &gate::Facts, run: &gate::Run<'_>| {
        let keys = facts.keys.iter().map(|key| {
            if key.id == run.new.key {
                KeyFacts { status: KeyStatus::Active, ..key.clone() }
            } else {
                key.clone()
            }
        });
        gate::decide(&gate::Facts { keys: keys.collect(), ..facts.clone() }, run)
    };
    caught(Decisions { gate, ..Decisions::real() }, &[Rotate], 0, 1, WORKING);
}

#[test]
fn a_gate_that_does_not_ask_what_is_current_is_caught() {
    let gate = |facts: &gate::Facts, run: &gate::Run<'_>| {
        let known = gate::Facts {
            current: run.new.version.clone(),
            rivals: Some(Vec::new()),
            last_use: Some(LastUse { at: Some(START), service: None, region: None }),
            ..facts.clone()
        };
        gate::decide(&known, run)
    };
    caught(Decisions { gate, ..Decisions::real() }, &[Rotate], 0, 1, WORKING);
}

#[test]
fn a_label_that_moves_without_comparing_is_caught() {
    caught(Decisions { swap: false, ..Decisions::real() }, &[Rotate], 0, 1, PASSED_OVER);
}

#[test]
fn a_label_that_moves_before_the_validation_is_caught() {
    caught(Decisions { validate: false, ..Decisions::real() }, &[Rotate], 0, 0, WORKING);
}

#[test]
fn a_delete_that_takes_every_key_for_inactive_is_caught() {
    let delete = |facts: &delete::Facts, run: &delete::Run<'_>| {
        let mut keys = with_status(&facts.keys, KeyStatus::Inactive);
        keys.iter_mut().filter(|key| key.id == *run.new).for_each(|key| key.status = KeyStatus::Active);
        let last_use = Some(LastUse { at: None, service: None, region: None });
        delete::decide(&delete::Facts { keys, last_use, ..facts.clone() }, run)
    };
    caught(Decisions { delete, ..Decisions::real() }, &[Rotate], 0, 1, NOT_OURS);
}

#[test]
fn a_run_that_takes_a_running_one_for_ended_is_caught() {
    let entry = |facts: &entry::Facts, user: &str| {
        let mut facts = facts.clone();
        if let Some(pending) = &mut facts.pending
            && let RunState::Running(run) = pending.run
        {
            pending.run = RunState::Ended(run);
            pending.same_fields = false;
        }
        entry::decide(&facts, user)
    };
    let orphan = |_: &_, _: Option<&_>, _: bool, _| Attribution::Ours;
    caught(Decisions { entry, orphan, ..Decisions::real() }, &[Rotate, Rotate], 0, 0, NOT_OURS);
}

#[test]
fn a_way_back_that_does_not_wait_for_what_is_in_flight_is_caught() {
    let broken = Decisions { patient: false, ..Decisions::real() };
    caught(broken, &[Rotate, TurnBack], 0, 0, DELETED);
    caught(broken, &[Rotate, TurnBack], 0, 0, WORKING);
}
