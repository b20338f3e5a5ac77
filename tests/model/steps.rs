//! The steps of the rotation, call by call, each in the order of the function that it names. What is decided from
//! the replies is decided by the product's own functions.

use keywheel::decide::create::Create;
use keywheel::decide::delete::{self, Delete};
use keywheel::decide::entry::{self, Entry, Pending, RunState};
use keywheel::decide::gate::{self, Gate};
use keywheel::decide::orphan::{Attribution, CreateRecord};
use keywheel::key::LastUse;
use keywheel::rotation::{Outcome, Phase, Reason};
use keywheel::switch::Mode;

use super::account::{Execution, KeyNo, Labels, Maker, RunNo, Version, VersionNo, version_of};
use super::facts::{self, Kind, POLICY, START};
use super::io::{Call, Io, Reply, Stop};

/// The document, as far as a decision reads it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Doc {
    pub(crate) stage: Stage,
    /// The current version of the baseline, and its key.
    pub(crate) baseline: Option<(VersionNo, KeyNo)>,
    /// The keys of the baseline, each with whether it was Active.
    pub(crate) keys: Vec<(KeyNo, bool)>,
    pub(crate) new: Option<(KeyNo, Option<VersionNo>)>,
    /// The superseded key, and whether AWSCURRENT ever named it.
    pub(crate) old: Option<(KeyNo, bool)>,
    pub(crate) suspects: Vec<(KeyNo, Option<RunNo>)>,
    pub(crate) cleared: u8,
    pub(crate) undoing: bool,
    /// How it ended, and the code of the reason.
    pub(crate) end: Option<(&'static str, String)>,
}

/// The document's phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum Stage {
    #[default]
    Create,
    Validate,
    Promote,
    TakeOver,
    Overlap,
    Grace,
    Clear,
    Backwards,
    Ended,
}

impl From<Phase> for Stage {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Create => Self::Create,
            Phase::Validate => Self::Validate,
            Phase::Promote => Self::Promote,
            Phase::TakeOver => Self::TakeOver,
            Phase::Overlap => Self::Overlap,
            Phase::Grace => Self::Grace,
            Phase::Clear => Self::Clear,
            Phase::Backwards => Self::Backwards,
            Phase::Ended => Self::Ended,
        }
    }
}

impl Doc {
    fn ended(mut self, outcome: Outcome, code: &str) -> Self {
        self.stage = Stage::Ended;
        self.end = Some((outcome.name(), code.to_owned()));
        self
    }

    /// `Rotation::stand_down`
    fn stand_down(self, current: VersionNo) -> Self {
        if self.baseline.map(|(version, _)| version) == Some(current) {
            self.ended(Outcome::RolledBack, "TurnedBack")
        } else {
            self.ended(Outcome::Held, "CurrentMoved")
        }
    }

    fn at(mut self, stage: Stage) -> Self {
        self.stage = stage;
        self
    }
}

fn active(keys: &[(KeyNo, bool)], key: KeyNo) -> bool {
    keys.contains(&(key, true))
}

fn has(keys: &[(KeyNo, bool)], key: KeyNo) -> bool {
    keys.iter().any(|(no, _)| *no == key)
}

/// `facts::executions::state_of`
fn state_of(io: &mut Io<'_>, run: RunNo) -> Call<RunState> {
    if run == io.me {
        return Ok(RunState::Ended(facts::run_id(run)));
    }
    Ok(match io.execution(run)?.1 {
        Execution::Unborn => RunState::NotOurs,
        Execution::Running => RunState::Running(facts::run_id(run)),
        Execution::Ended => RunState::Ended(facts::run_id(run)),
    })
}

/// `facts::executions::at_work`
fn at_work(io: &mut Io<'_>, runs: &[RunNo]) -> Call<RunState> {
    let mut found = RunState::NotOurs;
    for run in runs {
        match state_of(io, *run)? {
            RunState::NotOurs => {}
            running @ RunState::Running(_) => return Ok(running),
            ended => found = ended,
        }
    }
    Ok(found)
}

/// functions/look/src/lib.rs
pub(crate) fn look(io: &mut Io<'_>, kind: Kind) -> Call<Doc> {
    let labels = io.labels()?;
    let keys = io.keys()?;
    let Some((written, value)) = io.value(|labels| Some(labels.current))? else { return Err(Stop::Caught) };
    let mut doc = Doc { baseline: Some((value.id, value.key)), keys: keys.clone(), ..Doc::default() };
    let mut pending = None;
    if let Some(version) = labels.pending.filter(|id| *id != labels.current && Some(*id) != labels.previous) {
        let stored = io.value(|_| Some(version))?;
        let newer = stored.is_some_and(|(place, _)| place >= written);
        let run = at_work(io, &labels.runs_on(version))?;
        pending = newer.then(|| Pending {
            version: facts::version_id(version),
            key: stored.map(|(_, stored)| facts::key_id(stored.key)),
            same_fields: stored.is_some_and(|(_, stored)| stored.fields == value.fields),
            run,
        });
    }
    let (mut previous_key, mut current_run) = (None, RunState::NotOurs);
    if keys.iter().any(|(no, _)| *no != value.key) {
        previous_key = io.value(|labels| labels.previous)?.map(|(_, previous)| facts::key_id(previous.key));
        current_run = at_work(io, &labels.runs_on(value.id))?;
    }
    let known = entry::Facts {
        now: facts::START,
        evidence: None,
        reason: Reason::Manual,
        roll_back: kind == Kind::TurnBack,
        dry_run: false,
        mode: Mode::Live,
        rivals: Vec::new(),
        current: Some(facts::current(value.id, value.key)),
        current_run,
        previous_key,
        pending,
        keys: facts::keys(&keys),
        retire: None,
        keep: None,
    };
    match (io.decisions.entry)(&known, "svc") {
        Entry::Blocked(why) => Ok(doc.ended(Outcome::Blocked, &why.code)),
        Entry::At(start) => {
            doc.new =
                start.new.map(|new| (facts::key_no(&new.key), new.version.as_ref().map(facts::version_no)));
            doc.old = start.old.map(|old| (facts::key_no(&old.key), old.was_current));
            doc.suspects = start.suspects.iter().map(facts::from_suspect).collect();
            Ok(doc.at(start.phase.into()))
        }
    }
}

/// functions/create-key/src/lib.rs
pub(crate) fn create_key(io: &mut Io<'_>, mut doc: Doc) -> Call<Doc> {
    let keys = io.keys()?;
    let Some((_, value)) = io.value(|labels| Some(labels.current))? else { return Err(Stop::Caught) };
    let now = facts::version_id(value.id);
    let own = version_of(io.me);
    match (io.decisions.create)(&facts::baseline(&doc), Reason::Manual, &facts::keys(&keys), Some(&now)) {
        Create::Appeared(suspects) => {
            let suspects: Vec<_> = suspects.iter().map(facts::from_suspect).collect();
            let stored = io.value(|_| Some(own))?.map(|(_, stored)| stored.key);
            if let Some(key) = stored.filter(|key| suspects.iter().any(|(suspect, _)| suspect == key)) {
                doc.new = Some((key, Some(own)));
                return Ok(doc.at(Stage::Validate));
            }
            doc.suspects = suspects;
            Ok(doc.at(Stage::Clear))
        }
        Create::Conflict(_) => Ok(doc.ended(Outcome::Blocked, "Conflict")),
        Create::Yes => {
            let Some(key) = io.create()? else { return Ok(doc.ended(Outcome::Blocked, "LimitExceeded")) };
            if io.put_pending(key, value.fields)? {
                doc.new = Some((key, Some(own)));
                return Ok(doc.at(if io.decisions.validate { Stage::Validate } else { Stage::Promote }));
            }
            doc.new = Some((key, None));
            doc.undoing = true;
            Ok(doc)
        }
    }
}

/// functions/validate-key/src/lib.rs
pub(crate) fn validate_key(io: &mut Io<'_>, doc: Doc) -> Call<Doc> {
    let (key, version) = doc.new.ok_or(Stop::Caught)?;
    let stored = io.value(|_| version)?;
    if stored.is_none_or(|(_, stored)| stored.key != key) {
        return Err(Stop::Caught);
    }
    // A key that does not answer is asked until the machine has no retry left.
    if io.answers(key)? { Ok(doc.at(Stage::Promote)) } else { Err(Stop::Caught) }
}

/// functions/promote-key/src/lib.rs
pub(crate) fn promote_key(io: &mut Io<'_>, doc: Doc) -> Call<Doc> {
    let (_, version) = doc.new.ok_or(Stop::Caught)?;
    let version = version.ok_or(Stop::Caught)?;
    if doc.stage == Stage::TakeOver {
        return match make_findable(io, doc, version, &[version])? {
            Ok(doc) => take_over(doc),
            Err(ended) => Ok(ended),
        };
    }
    let (expected, _) = doc.baseline.ok_or(Stop::Caught)?;
    let mut doc = doc;
    if version != version_of(io.me) {
        doc = match make_findable(io, doc, version, &[expected, version])? {
            Ok(doc) => doc,
            Err(ended) => return Ok(ended),
        };
    }
    swap(io, expected, version)?;
    Ok(promoted(doc))
}

fn promoted(doc: Doc) -> Doc {
    match doc.old {
        Some(_) => doc.at(Stage::Overlap),
        None => doc.ended(Outcome::Completed, "Adopted"),
    }
}

fn swap(io: &mut Io<'_>, from: VersionNo, to: VersionNo) -> Call<()> {
    let error = match io.move_current(from, to)? {
        Reply::Yes(true) => return Ok(()),
        Reply::Lost => Stop::Again,
        _ => Stop::Caught,
    };
    let now = io.labels()?.current;
    if now == to {
        Ok(())
    } else if now == from {
        Err(error)
    } else {
        Err(Stop::Caught)
    }
}

/// `claim` of functions/promote-key/src/lib.rs: the document of a run that has ended, or goes on.
fn make_findable(
    io: &mut Io<'_>,
    doc: Doc,
    version: VersionNo,
    expected: &[VersionNo],
) -> Call<Result<Doc, Doc>> {
    let me = io.me;
    for round in 0..2 {
        let mut ended: Vec<RunNo> = Vec::new();
        let labels = io.labels()?;
        if !expected.contains(&labels.current) {
            if doc.stage != Stage::TakeOver {
                return Err(Stop::Caught);
            }
            leave(io, &labels, version)?;
            return Ok(Err(doc.ended(Outcome::Blocked, "Conflict")));
        }
        let first = round == 0 && !labels.claims.contains(&(version, me));
        for run in labels.claims.iter().map(|(_, run)| *run).filter(|run| *run != me) {
            match state_of(io, run)? {
                RunState::Running(_) if first || run < me => {
                    leave(io, &labels, version)?;
                    return Ok(Err(doc.ended(Outcome::Blocked, "RunInProgress")));
                }
                RunState::Ended(_) => ended.push(run),
                _ => {}
            }
        }
        if round == 0 {
            claim(io, &labels, version)?;
        } else {
            let_go(io, &labels, &ended, None)?;
        }
    }
    Ok(Ok(doc))
}

fn take_over(doc: Doc) -> Call<Doc> {
    let (old, _) = doc.old.ok_or(Stop::Caught)?;
    let next = if active(&doc.keys, old) { Stage::Overlap } else { Stage::Grace };
    Ok(doc.at(next))
}

/// `facts::secrets::claim`
fn claim(io: &mut Io<'_>, labels: &Labels, version: VersionNo) -> Call<()> {
    if labels.claims.contains(&(version, io.me)) { Ok(()) } else { io.label(version, io.me, true) }
}

/// `facts::executions::leave`
fn leave(io: &mut Io<'_>, labels: &Labels, version: VersionNo) -> Call<()> {
    let me = io.me;
    for other in labels.runs_on(version).into_iter().filter(|other| *other != me) {
        let state = state_of(io, other)?;
        if state.ended().is_some() || state != RunState::NotOurs && version_of(other) == version {
            return io.label(version, me, false);
        }
    }
    Ok(())
}

/// `facts::secrets::let_go`
fn let_go(io: &mut Io<'_>, labels: &Labels, ended: &[RunNo], kept: Option<VersionNo>) -> Call<()> {
    let stale = |(version, run): &&(VersionNo, RunNo)| ended.contains(run) && Some(*version) != kept;
    for (stale, run) in labels.claims.iter().filter(stale) {
        io.label(*stale, *run, false)?;
    }
    Ok(())
}

/// functions/deactivate-key/src/lib.rs
pub(crate) fn deactivate_key(io: &mut Io<'_>, doc: Doc) -> Call<Doc> {
    let (new, old) = (facts::new_key(&doc), facts::old_key(&doc));
    let (_, version) = doc.new.ok_or(Stop::Caught)?;
    let (old_no, _) = doc.old.ok_or(Stop::Caught)?;
    let current = io.labels()?.current;
    let keys = io.keys()?;
    let (first, last) = facts::gate_times();
    let mut known = gate::Facts {
        now: first,
        mode: Mode::Live,
        frozen: None,
        current: Some(facts::version_id(current)),
        keys: facts::keys(&keys),
        rivals: None,
        replicas: Vec::new(),
        last_use: None,
    };
    if Some(current) == version && active(&keys, old_no) {
        known.rivals = Some(Vec::new());
        let late = io.used_late()?;
        // Looking again and again changes nothing until the last look.
        known.now = if late { last } else { first };
        known.last_use = Some(LastUse {
            at: Some(if late { facts::late_use() } else { START }),
            service: None,
            region: None,
        });
    }
    let run =
        gate::Run { new: &new, old: &old, promoted_at: START, reached: None, policy: &POLICY, leaked: false };
    Ok(match (io.decisions.gate)(&known, &run) {
        Gate::Open => {
            io.set_active(old_no, false)?;
            if active(&io.keys()?, old_no) {
                return Err(Stop::Again);
            }
            doc.at(Stage::Grace)
        }
        Gate::AlreadyInactive => doc.at(Stage::Grace),
        Gate::Gone => doc.ended(Outcome::Completed, "OldKeyGone"),
        Gate::StandDown => doc.stand_down(current),
        Gate::Wait(..) => doc.at(Stage::Overlap),
        Gate::Held(_) => doc.ended(Outcome::Held, "StillInUse"),
    })
}

/// functions/delete-key/src/lib.rs
pub(crate) fn delete_key(io: &mut Io<'_>, doc: Doc) -> Call<Doc> {
    let (new, old) = (facts::new_key(&doc), facts::old_key(&doc));
    let (old_no, _) = doc.old.ok_or(Stop::Caught)?;
    let current = io.labels()?.current;
    let keys = io.keys()?;
    let mut last_use = None;
    if has(&keys, old_no) && !active(&keys, old_no) {
        let at = Some(if io.used_late()? { facts::late_use() } else { START });
        last_use = Some(LastUse { at, service: None, region: None });
    }
    let known = delete::Facts {
        now: facts::grace_over(),
        mode: Mode::Live,
        frozen: None,
        current: Some(facts::version_id(current)),
        keys: facts::keys(&keys),
        replicas: Vec::new(),
        last_use,
        leaked: None,
    };
    let run = delete::Run {
        version: new.version.as_ref(),
        new: &new.key,
        old: &old.key,
        disabled_at: START,
        grace: POLICY.grace.get(),
    };
    Ok(match (io.decisions.delete)(&known, &run) {
        Delete::Yes => {
            io.delete(old_no)?;
            doc.ended(Outcome::Completed, "Completed")
        }
        Delete::Gone => doc.ended(Outcome::Completed, "Completed"),
        Delete::StandDown => doc.stand_down(current),
        Delete::Wait(..) => doc.at(Stage::Grace),
        Delete::Held(_) => doc.ended(Outcome::Held, "UsedInGrace"),
        Delete::Paused(_) => doc.ended(Outcome::Held, "Paused"),
        Delete::Behind(_) => doc.ended(Outcome::Held, "ReplicaBehind"),
        Delete::Evidence(_) => doc.ended(Outcome::Contained, "LeakedKeyKept"),
    })
}

/// functions/roll-back/src/lib.rs
pub(crate) fn roll_back(io: &mut Io<'_>, doc: Doc) -> Call<Doc> {
    match doc.stage {
        Stage::Clear => clear(io, doc),
        Stage::Backwards => backwards(io, doc),
        _ => undo(io, doc),
    }
}

/// functions/roll-back/src/undo.rs
fn undo(io: &mut Io<'_>, mut doc: Doc) -> Call<Doc> {
    let labels = io.labels()?;
    let version = facts::own_version(&doc, io.me);
    if doc.stage == Stage::TakeOver {
        leave(io, &labels, version)?;
        return Ok(doc.ended(Outcome::Blocked, "Caught"));
    }
    let taken_over = version != version_of(io.me);
    if taken_over {
        let others: Vec<RunNo> = labels.runs_on(version).into_iter().filter(|run| *run != io.me).collect();
        if let RunState::Running(_) = at_work(io, &others)? {
            leave(io, &labels, version)?;
            return Ok(doc.ended(Outcome::Blocked, "RunInProgress"));
        }
    }
    if labels.current == version {
        if taken_over {
            claim(io, &labels, version)?;
        }
        if let Some((key, _)) = doc.new {
            io.set_active(key, true)?;
        }
        doc.undoing = false;
        return Ok(promoted(doc));
    }
    let before = doc.baseline.map(|(version, _)| version);
    let mut edited = false;
    if let Some((key, _)) = doc.new.filter(|_| Some(labels.current) != before) {
        edited = io.value(|_| Some(labels.current))?.is_some_and(|(_, current)| current.key == key);
    }
    if labels.previous == Some(version) || edited {
        return Ok(doc.stand_down(labels.current));
    }
    let stored = io.value(|_| Some(version))?.map(|(_, stored)| stored.key);
    if doc.new.is_none() {
        doc.new = stored.map(|key| (key, Some(version)));
    }
    let pending = (labels.pending == Some(version)).then_some(version);

    let keys = io.keys()?;
    let current = doc.baseline.map(|(_, key)| key);
    let mine = doc.new.map(|(key, _)| key).filter(|key| Some(*key) != current);
    if let Some(key) = mine.filter(|key| has(&keys, *key)) {
        io.set_active(key, false)?;
        let now = io.labels()?.current;
        if doc.new.is_some_and(|(_, version)| version == Some(now)) {
            io.set_active(key, true)?;
            doc.undoing = false;
            return Ok(promoted(doc));
        }
        io.delete(key)?;
    }
    if let Some(version) = pending {
        io.take_off_pending(version)?;
    }
    if doc.stage == Stage::Create && doc.suspects.is_empty() {
        let unknown = |key: &KeyNo| Some(*key) != mine && !has(&doc.keys, *key);
        doc.suspects = keys.iter().map(|(no, _)| *no).filter(unknown).map(|no| (no, None)).collect();
        if !doc.suspects.is_empty() {
            doc.undoing = true;
            return clear(io, doc.at(Stage::Clear));
        }
    }
    Ok(finish(doc))
}

fn finish(doc: Doc) -> Doc {
    let outcome = if doc.new.is_some() || doc.cleared > 0 { Outcome::RolledBack } else { Outcome::Blocked };
    doc.ended(outcome, "Caught")
}

/// functions/roll-back/src/orphans.rs
fn clear(io: &mut Io<'_>, mut doc: Doc) -> Call<Doc> {
    let keys = io.keys()?;
    let suspects = std::mem::take(&mut doc.suspects);
    for (index, suspect) in suspects.iter().enumerate() {
        if !has(&keys, suspect.0) {
            continue;
        }
        match attribute(io, &doc, *suspect)? {
            Attribution::Ours => {
                io.set_active(suspect.0, false)?;
                io.delete(suspect.0)?;
                doc.cleared += 1;
            }
            Attribution::Wait(_) => {
                doc.suspects.extend_from_slice(&suspects[index..]);
                break;
            }
            Attribution::AtWork(_) if !doc.undoing => {
                return Ok(doc.ended(Outcome::Blocked, "RunInProgress"));
            }
            Attribution::NotOurs(_) if !doc.undoing => return Ok(doc.ended(Outcome::Blocked, "SlotsFull")),
            Attribution::AtWork(_) | Attribution::NotOurs(_) => {}
        }
    }
    if !doc.suspects.is_empty() {
        return Ok(doc.at(Stage::Clear));
    }
    if doc.undoing || doc.cleared >= 2 {
        return Ok(finish(doc));
    }
    Ok(doc.at(Stage::Create))
}

fn attribute(io: &mut Io<'_>, doc: &Doc, suspect: (KeyNo, Option<RunNo>)) -> Call<Attribution> {
    let labels = io.labels()?;
    let before = doc.baseline.map(|(version, _)| version);
    for version in [Some(labels.current), labels.pending, labels.previous].into_iter().flatten() {
        if Some(version) == before || version == version_of(io.me) {
            continue;
        }
        if let RunState::Running(run) = at_work(io, &labels.runs_on(version))? {
            return Ok(Attribution::AtWork(run));
        }
    }
    let decide = io.decisions.orphan;
    let known = facts::suspect(suspect);
    if suspect.1.is_some() {
        return Ok(decide(&known, None, true, START));
    }
    let maker = io.account.key(suspect.0).maker;
    let record = io.recorded()?.then(|| record(maker));
    let mut ended = false;
    if let Some(run) = record.as_ref().and_then(|record| record.run).map(facts::run_no) {
        ended = run == io.me || io.execution(run)?.1 != Execution::Running;
        let stored: Option<Version> = io.value(|_| Some(version_of(run)))?.map(|(_, stored)| stored);
        if stored.is_some_and(|stored| stored.key == suspect.0) {
            return Ok(Attribution::NotOurs(String::new()));
        }
    }
    Ok(decide(&known, record.as_ref(), ended, START))
}

/// What CloudTrail tells of the making of a key.
fn record(maker: Maker) -> CreateRecord {
    match maker {
        Maker::Run(run) => CreateRecord {
            role: Some(facts::ROLE.to_owned()),
            run: Some(facts::run_id(run)),
            by: String::new(),
        },
        Maker::Owner | Maker::Stranger => CreateRecord { role: None, run: None, by: "a person".into() },
    }
}

/// functions/roll-back/src/backwards.rs
fn backwards(io: &mut Io<'_>, mut doc: Doc) -> Call<Doc> {
    let (abandoned, from) = doc.new.ok_or(Stop::Caught)?;
    let from = from.ok_or(Stop::Caught)?;
    let (back, _) = doc.old.ok_or(Stop::Caught)?;
    let labels = io.labels()?;
    let moved = labels.current != from;
    let to = if moved { labels.current } else { labels.previous.ok_or(Stop::Caught)? };
    if io.value(|_| Some(to))?.is_none_or(|(_, value)| value.key != back) {
        return Ok(doc.ended(Outcome::Held, "CurrentMoved"));
    }
    let me = io.me;
    let mut runs = labels.runs_on(from);
    runs.extend(labels.runs_on(to));
    let mut ended = Vec::new();
    for run in runs.into_iter().filter(|run| *run != me) {
        match state_of(io, run)? {
            RunState::NotOurs => continue,
            RunState::Running(_) | RunState::RunningLeaked(_) => io.stop_execution(run)?,
            RunState::Ended(_) | RunState::EndedLeaked(_) => {}
        }
        ended.push(run);
    }
    claim(io, &labels, to)?;
    if io.decisions.patient && !has(&io.keys_when_nothing_is_in_flight()?, back) {
        return Ok(doc.ended(Outcome::Held, "OldKeyGone"));
    }
    io.set_active(back, true)?;
    if !io.answers(back)? {
        return Err(Stop::Caught);
    }
    keep_active(io, back)?;
    if !moved {
        swap(io, from, to)?;
    }
    let_go(io, &labels, &ended, Some(to))?;
    doc.new = Some((back, Some(to)));
    doc.old = Some((abandoned, true));
    Ok(doc.at(Stage::Overlap))
}

fn keep_active(io: &mut Io<'_>, back: KeyNo) -> Call<()> {
    let keys = io.keys()?;
    if !has(&keys, back) {
        return Err(Stop::Caught);
    }
    if active(&keys, back) { Ok(()) } else { io.set_active(back, true) }
}
