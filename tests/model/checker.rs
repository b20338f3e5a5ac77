//! The model: what may happen next, and what must always hold.

use std::collections::BTreeSet;

use keywheel::rotation::Outcome;
use stateright::{Model, Property};

use super::account::{Account, By, Execution, KeyNo, Maker, RunNo, promise};
use super::facts::{Decisions, Kind};
use super::io::{How, Io, Reply, Stop};
use super::steps::{self, Doc, Stage};

/// One execution, between two calls.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Run {
    pub(crate) place: Place,
    pub(crate) doc: Doc,
    /// The replies that the process of this step has had.
    pub(crate) log: Vec<Reply>,
    /// How its step began, and what came between.
    pub(crate) by: By,
}

/// Where an execution is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    Unborn,
    Look,
    Create,
    Validate,
    Promote,
    Overlap,
    Deactivate,
    Grace,
    Delete,
    RollBack,
    AwaitRecord,
    /// It has ended, and so has its last process.
    Over,
}

impl Place {
    const fn waits(self) -> bool {
        matches!(self, Self::Overlap | Self::Grace)
    }
    const fn is_step(self) -> bool {
        !matches!(self, Self::Unborn | Self::Overlap | Self::Grace | Self::AwaitRecord | Self::Over)
    }
}

/// Everything, between two calls.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) account: Account,
    pub(crate) runs: Vec<Run>,
    pub(crate) faults: u8,
    pub(crate) deeds: u8,
    /// A person has done something.
    pub(crate) disturbed: bool,
}

/// What may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// Somebody starts the execution.
    Start(RunNo),
    /// The execution's next call is made.
    Call(RunNo, How),
    /// The execution's wait is over.
    Wake(RunNo),
    /// A person does something.
    Person(Deed),
}

/// What a person does at the console.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Deed {
    /// Makes a key for the user.
    AddKey,
    /// Makes an Inactive key Active again.
    Reactivate(KeyNo),
    /// Makes the current key Inactive, by mistake.
    DeactivateCurrent,
    /// Edits another field of the secret: a new current version.
    Edit,
    /// Moves AWSCURRENT back to AWSPREVIOUS.
    MoveBack,
    /// Stops an execution. A step that is in flight goes on to its end.
    Stop(RunNo),
}

/// A bounded world.
pub(crate) struct World {
    pub(crate) kinds: Vec<Kind>,
    /// How many calls may go wrong.
    pub(crate) faults: u8,
    /// How many things a person does.
    pub(crate) deeds: u8,
    /// How many keys IAM lets a user have: three where two creations race past the limit of two.
    pub(crate) key_limit: usize,
    pub(crate) decisions: Decisions,
}

impl World {
    /// Runs that nobody disturbs.
    pub(crate) fn of(kinds: &[Kind]) -> Self {
        Self { kinds: kinds.to_vec(), faults: 0, deeds: 0, key_limit: 2, decisions: Decisions::real() }
    }

    pub(crate) fn with(self, faults: u8, deeds: u8) -> Self {
        Self { faults, deeds, ..self }
    }

    /// Makes the next call of a run; `None` where it cannot go that way.
    fn step(&self, state: &mut State, no: RunNo, how: How) -> Option<()> {
        let State { account, runs, .. } = state;
        let run = &mut runs[usize::from(no)];
        if run.log.is_empty() {
            run.by = By { run: no, began_dark: !account.current_works(), surprised: false };
        }
        let mut io = Io {
            me: no,
            by: run.by,
            key_limit: self.key_limit,
            decisions: &self.decisions,
            account,
            log: &mut run.log,
            next: 0,
            turn: Some(how),
        };
        let doc = run.doc.clone();
        let made = match run.place {
            Place::Look => steps::look(&mut io, self.kinds[usize::from(no)]),
            Place::Create => steps::create_key(&mut io, doc),
            Place::Validate => steps::validate_key(&mut io, doc),
            Place::Promote => steps::promote_key(&mut io, doc),
            Place::Deactivate => steps::deactivate_key(&mut io, doc),
            Place::Delete => steps::delete_key(&mut io, doc),
            Place::RollBack => steps::roll_back(&mut io, doc),
            _ => return None,
        };
        account.look();
        match made {
            Err(Stop::Impossible) => return None,
            Err(Stop::Yield) => {
                note_in_flight(state);
                return Some(());
            }
            Err(Stop::Again) => {}
            Err(Stop::Caught) => run.place = caught(run.place),
            Ok(doc) => {
                run.place = next(run.place, doc.stage);
                run.doc = doc;
            }
        }
        run.log.clear();
        run.by = By::default();
        if account.executions[usize::from(no)].1 == Execution::Ended {
            // It was stopped while this step was in flight: nothing follows.
            run.place = Place::Over;
        }
        settle(account, run, no);
        note_in_flight(state);
        Some(())
    }

    fn may(state: &State, deed: Deed) -> bool {
        let account = &state.account;
        match deed {
            Deed::AddKey => account.count() < 2,
            Deed::Reactivate(key) => {
                let key = account.key(key);
                key.exists && !key.active
            }
            Deed::DeactivateCurrent => account.current_works(),
            Deed::Edit => true,
            Deed::MoveBack => account.labels.previous.is_some(),
            // A run that undoes is let end: see the head of tests/model.rs.
            Deed::Stop(no) => {
                let run = &state.runs[usize::from(no)];
                account.executions[usize::from(no)].1 == Execution::Running
                    && (run.log.is_empty() || run.place != Place::RollBack)
            }
        }
    }

    fn does(state: &mut State, deed: Deed) {
        let State { account, runs, .. } = state;
        match deed {
            Deed::AddKey => {
                account.create_key(Maker::Stranger, 2);
            }
            Deed::Reactivate(key) => account.turn(key, true),
            Deed::DeactivateCurrent => account.turn(account.current_key(), false),
            Deed::Edit => account.edit(),
            Deed::MoveBack => {
                if let Some(previous) = account.labels.previous {
                    account.move_current(previous);
                }
            }
            Deed::Stop(no) => {
                account.executions[usize::from(no)].1 = Execution::Ended;
            }
        }
        account.excuse();
        for run in runs.iter_mut().filter(|run| !run.log.is_empty()) {
            run.by.surprised = true;
        }
        note_in_flight(state);
    }
}

/// Stopped runs whose process goes on to the end of its step.
fn note_in_flight(state: &mut State) {
    let State { account, runs, .. } = state;
    let executions = account.executions.iter();
    account.in_flight = runs.iter().zip(executions).zip(0..).fold(0, |bits, ((run, (_, execution)), no)| {
        let flies = *execution == Execution::Ended && !run.log.is_empty();
        bits | (u8::from(flies) << no)
    });
    // A stopped run whose step had not begun ends there.
    for (run, (_, execution)) in runs.iter_mut().zip(&account.executions) {
        if *execution == Execution::Ended && run.log.is_empty() {
            run.place = Place::Over;
            run.doc = Doc { end: run.doc.end.take(), ..Doc::default() };
        }
    }
}

/// The Choice states of statemachine/rotation.asl.json.
#[expect(clippy::match_same_arms, reason = "one line for each of the machine's Choice states")]
fn next(step: Place, stage: Stage) -> Place {
    match (step, stage) {
        (_, Stage::Ended) => Place::Over,
        (Place::Look | Place::RollBack, Stage::Create) => Place::Create,
        (Place::Look | Place::Create, Stage::Validate) => Place::Validate,
        (Place::Look, Stage::Clear | Stage::Backwards) => Place::RollBack,
        (Place::Look, Stage::TakeOver) | (Place::Validate, _) => Place::Promote,
        // Only a variant that skips the validation.
        (Place::Create, Stage::Promote) => Place::Promote,
        (Place::Promote | Place::Deactivate | Place::RollBack, Stage::Overlap) => Place::Overlap,
        (Place::Promote | Place::Deactivate | Place::Delete, Stage::Grace) => Place::Grace,
        (Place::RollBack, Stage::Clear) => Place::AwaitRecord,
        (Place::Create | Place::Promote, _) => Place::RollBack,
        _ => Place::Over,
    }
}

/// The Catch of each Task.
fn caught(step: Place) -> Place {
    match step {
        Place::Create | Place::Validate | Place::Promote => Place::RollBack,
        _ => Place::Over,
    }
}

/// What the account and the document are once a step has ended.
fn settle(account: &mut Account, run: &mut Run, no: RunNo) {
    match run.place {
        Place::Over => {
            account.executions[usize::from(no)].1 = Execution::Ended;
            // How it ended is of no more consequence to anybody; only the fresh run's end is looked at.
            run.doc = Doc { end: run.doc.end.take(), ..Doc::default() };
        }
        Place::Overlap | Place::Grace => {
            // The keys of the baseline are not read again.
            run.doc.keys.clear();
            if run.place == Place::Grace
                && let Some((old, _)) = run.doc.old
                && !account.key(old).active
            {
                account.key_mut(old).resting |= 1 << no;
            }
        }
        _ => {}
    }
}

impl Model for World {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let run = Run { place: Place::Unborn, doc: Doc::default(), log: Vec::new(), by: By::default() };
        vec![State {
            account: Account::new(&self.kinds),
            runs: vec![run; self.kinds.len()],
            faults: self.faults,
            deeds: self.deeds,
            disturbed: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        // A step is over in minutes, the waits last hours and days: none ends while a step is at work.
        let still = state.runs.iter().all(|run| !run.place.is_step());
        for (run, no) in state.runs.iter().zip(0_u8..) {
            match run.place {
                // Of runs that are alike, the first one starts first.
                Place::Unborn => {
                    let before = &state.runs[..usize::from(no)];
                    if before.last().is_none_or(|before| before.place != Place::Unborn) {
                        actions.push(Action::Start(no));
                    }
                }
                Place::Overlap | Place::Grace if still => actions.push(Action::Wake(no)),
                Place::AwaitRecord => actions.push(Action::Wake(no)),
                place if place.is_step() => {
                    actions.extend([Action::Call(no, How::Well), Action::Call(no, How::Otherwise)]);
                    if state.faults > 0 {
                        actions.extend(How::FAULTS.map(|fault| Action::Call(no, fault)));
                    }
                }
                _ => {}
            }
        }
        if state.deeds > 0 {
            let keys = 0..KeyNo::try_from(state.account.keys.len()).unwrap_or(0);
            let runs = 0..RunNo::try_from(state.runs.len()).unwrap_or(0);
            let deeds = [Deed::AddKey, Deed::DeactivateCurrent, Deed::Edit, Deed::MoveBack];
            let deeds = deeds.into_iter().chain(keys.map(Deed::Reactivate)).chain(runs.map(Deed::Stop));
            actions.extend(deeds.filter(|deed| Self::may(state, *deed)).map(Action::Person));
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Start(no) => {
                state.account.executions[usize::from(no)].1 = Execution::Running;
                state.runs[usize::from(no)].place = Place::Look;
            }
            Action::Call(no, how) => {
                self.step(&mut state, no, how)?;
                if How::FAULTS.contains(&how) {
                    state.faults -= 1;
                }
                let run = &mut state.runs[usize::from(no)];
                if run.place == Place::Over {
                    run.doc.end = None;
                }
            }
            Action::Wake(no) => wake(&mut state, no),
            Action::Person(deed) => {
                Self::does(&mut state, deed);
                state.deeds -= 1;
                state.disturbed = true;
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("P1: AWSCURRENT names a working key", |_, state: &State| {
                state.account.broken & promise::WORKING_KEY == 0
            }),
            Property::always("P1: the current key is never deleted", |_, state: &State| {
                state.account.broken & promise::CURRENT_DELETED == 0
            }),
            Property::always("P2: nothing of a stranger's", |_, state: &State| {
                state.account.broken & promise::NOT_OURS == 0
            }),
            Property::always("no attempt makes two keys", |_, state: &State| {
                state.account.broken & promise::ONE_CREATION == 0
            }),
            Property::always("no version is passed over", |_, state: &State| {
                state.account.broken & promise::UNSEEN == 0
            }),
            Property::always("P5: the next run finishes what is left", finishes),
        ]
    }
}

fn wake(state: &mut State, no: RunNo) {
    let run = &mut state.runs[usize::from(no)];
    run.place = match run.place {
        Place::Overlap => Place::Deactivate,
        Place::Grace => {
            if let Some((old, _)) = run.doc.old {
                let key = state.account.key_mut(old);
                key.rested |= key.resting & (1 << no) != 0;
            }
            Place::Delete
        }
        _ => Place::RollBack,
    };
}

/// Where all runs are over, one more that nobody disturbs ends with one key, or says what a person has to do.
fn finishes(world: &World, state: &State) -> bool {
    if state.runs.iter().any(|run| !matches!(run.place, Place::Over | Place::Unborn)) {
        return true;
    }
    let Some((mut end, mut code, mut after)) = fresh_run(world, state) else { return false };
    if code == "CurrentKeyInactive" {
        // The person does what the reason says.
        let mut mended = state.clone();
        let current = mended.account.current_key();
        mended.account.turn(current, true);
        let Some(again) = fresh_run(world, &mended) else { return false };
        (end, code, after) = again;
    }
    let whole = after.account.count() == 1 && after.account.current_works();
    // Where creations race, a key may be left that was stored and that no label names any more.
    let lawful = if state.disturbed || world.key_limit > 2 {
        // What a person has left may be a person's to mend.
        let named =
            BTreeSet::from(["SlotsFull", "CurrentKeyInactive", "CurrentKeyUnknown", "PendingNotOurs"]);
        end == Outcome::Completed.name() || (end == Outcome::Blocked.name() && named.contains(code.as_str()))
    } else {
        end == Outcome::Completed.name() && whole
    };
    lawful && after.account.orphans() == 0 && after.account.broken == state.account.broken
}

/// Runs one more rotation to its end, alone.
fn fresh_run(world: &World, state: &State) -> Option<(&'static str, String, State)> {
    /// More calls than any run makes.
    const CALLS: usize = 200;
    let mut state = state.clone();
    let no = RunNo::try_from(state.runs.len()).ok()?;
    let mut kinds = world.kinds.clone();
    kinds.push(Kind::Rotate);
    let world = World { kinds, key_limit: 2, ..*world };
    state.account.executions.push((Kind::Rotate, Execution::Running));
    state.runs.push(Run { place: Place::Look, doc: Doc::default(), log: Vec::new(), by: By::default() });
    for _ in 0..CALLS {
        let run = &state.runs[usize::from(no)];
        match run.place {
            Place::Over => {
                let (end, code) = run.doc.end.clone()?;
                return Some((end, code, state));
            }
            place if place.waits() || place == Place::AwaitRecord => wake(&mut state, no),
            _ => world.step(&mut state, no, How::Well)?,
        }
    }
    None
}
