//! The small model of two slots and labels, searched exhaustively.
//!
//! One user, one secret, two or three executions, a person at the console and a few faults, in every order: between
//! any two AWS calls of one run (`model/io.rs`) any call of another may come, a process may die, a reply may be lost,
//! a call may be refused for good, an execution may be stopped. The steps (`model/steps.rs`) make the calls of the
//! functions that they name, in their order; what follows from the replies is decided by `keywheel::decide` itself.
//! The promises are looked at after each call, and wherever all runs are over one more is walked to its end.
//!
//! The search is stateright's: well kept, and since 0.31 without a web framework, 14 small crates in all.
//!
//! What the model takes for granted:
//! - IAM knows no conditional calls. What a person does in the moment between a step's last look and its act is not
//!   seen by anybody, and is not counted against the run.
//! - A step is over before any overlap or grace is; a retry begins when the call it repeats has landed.
//! - A stopped run whose step is still undoing is let end before another run takes its key over: for the seconds of
//!   that step its key could be made Inactive by the one while the other promotes it, until the undoing looks again.
//! - After a promotion whose reply was lost for good, nobody moves AWSCURRENT twice before `RollBack` looks: of two
//!   moves the labels keep no trace.
//! - First adoption, leaked keys, the switch and rival secrets are shown elsewhere; they add no race of their own.

#![expect(clippy::unwrap_used, reason = "a test, where a panic with its place is what should be seen")]

#[path = "model/account.rs"]
mod account;
#[path = "model/broken.rs"]
mod broken;
#[path = "model/checker.rs"]
mod checker;
#[path = "model/facts.rs"]
mod facts;
#[path = "model/io.rs"]
mod io;
#[path = "model/steps.rs"]
mod steps;

use std::fmt::Write as _;
use std::io::Write;
use std::time::Instant;

use checker::World;
use facts::Kind::{Rotate, TurnBack};
use stateright::{Checker, Model};

/// Fails the test unless all promises hold in every state there is.
fn search(name: &str, world: World) {
    let began = Instant::now();
    let checker = world.checker().threads(2).spawn_bfs().join();
    let (states, depth) = (checker.unique_state_count(), checker.max_depth());
    let mut out = std::io::stderr().lock();
    let _ = writeln!(out, "{name}: {states} states, {depth} deep, {:?}", began.elapsed());
    let mut story = String::new();
    for (property, path) in checker.discoveries() {
        let (actions, last) = (path.clone().into_actions(), path.last_state());
        let _ = writeln!(story, "{property}: {actions:?}\n{last:?}");
    }
    assert!(checker.is_done() && story.is_empty(), "{name}\n{story}");
}

#[test]
fn one_run_with_faults_and_a_person() {
    search("one run, 2 faults, 1 deed", World::of(&[Rotate]).with(2, 1));
}

#[test]
fn two_runs_with_faults_and_a_person() {
    search("two runs, 2 faults", World::of(&[Rotate, Rotate]).with(2, 0));
    search("two runs, 1 fault, 1 deed", World::of(&[Rotate, Rotate]).with(1, 1));
}

#[test]
fn two_runs_whose_creations_race_past_the_limit() {
    let world = World { key_limit: 3, ..World::of(&[Rotate, Rotate]).with(0, 1) };
    search("two runs that race, 1 deed", world);
}

#[test]
fn three_runs() {
    search("three runs", World::of(&[Rotate, Rotate, Rotate]));
}

#[test]
#[ignore = "takes a minute"]
fn three_runs_with_a_fault() {
    search("three runs, 1 fault", World::of(&[Rotate, Rotate, Rotate]).with(1, 0));
}

#[test]
fn a_way_back_with_a_fault_or_a_person() {
    search("a run and a way back, 1 fault", World::of(&[Rotate, TurnBack]).with(1, 0));
    search("a run and a way back, 1 deed", World::of(&[Rotate, TurnBack]).with(0, 1));
}
