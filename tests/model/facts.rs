//! From the model's numbers to the facts that the product decides from, and back.

use std::sync::LazyLock;
use std::time::Duration;

use jiff::Timestamp;
use keywheel::clock::after;
use keywheel::decide::{create, delete, entry, gate, orphan};
use keywheel::key::{KeyFacts, KeyStatus};
use keywheel::policy::Policy;
use keywheel::rotation::{Baseline, CurrentVersion, NewKey, OldKey, Reason, Suspect, UserFacts};
use keywheel::{AccessKeyId, RunId, VersionId};

use super::account::{KeyNo, RunNo, VersionNo, version_of, writer};
use super::steps::Doc;

/// Why a run was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// An ordinary rotation.
    Rotate,
    /// A rotation backwards.
    TurnBack,
}

/// Every wait begins here: the model tells times apart by what they are, not by when.
pub(crate) const START: Timestamp = Timestamp::UNIX_EPOCH;

/// The role under which the model's runs make keys.
pub(crate) const ROLE: &str = "arn:aws:iam::111122223333:role/keywheel-create-key";

pub(crate) static POLICY: LazyLock<Policy> = LazyLock::new(Policy::default);

static RUNS: LazyLock<Vec<RunId>> = LazyLock::new(|| {
    (0..8).map(|no| format!("00000000-0000-4000-8000-00000000000{no}").parse().unwrap()).collect()
});
static KEYS: LazyLock<Vec<AccessKeyId>> =
    LazyLock::new(|| (0..10).map(|no| format!("AKIAMODELMODELMODEL{no}").parse().unwrap()).collect());
static VERSIONS: LazyLock<Vec<VersionId>> = LazyLock::new(|| {
    (0..16)
        .map(|no| {
            writer(no).map_or_else(|| format!("{no:032}").parse().unwrap(), |run| run_id(run).version())
        })
        .collect()
});

pub(crate) fn run_id(no: RunNo) -> RunId {
    RUNS[usize::from(no)]
}

pub(crate) fn run_no(id: RunId) -> RunNo {
    number(&RUNS, &id)
}

pub(crate) fn key_id(no: KeyNo) -> AccessKeyId {
    KEYS[usize::from(no)].clone()
}

pub(crate) fn key_no(id: &AccessKeyId) -> KeyNo {
    number(&KEYS, id)
}

pub(crate) fn version_id(no: VersionNo) -> VersionId {
    VERSIONS[usize::from(no)].clone()
}

pub(crate) fn version_no(id: &VersionId) -> VersionNo {
    number(&VERSIONS, id)
}

fn number<T: PartialEq>(all: &[T], one: &T) -> u8 {
    all.iter().position(|known| known == one).and_then(|no| u8::try_from(no).ok()).unwrap()
}

/// The keys that `ListAccessKeys` told, each with whether it was Active.
pub(crate) fn keys(seen: &[(KeyNo, bool)]) -> Vec<KeyFacts> {
    let status = |active| if active { KeyStatus::Active } else { KeyStatus::Inactive };
    seen.iter()
        .map(|(no, active)| KeyFacts { id: key_id(*no), status: status(*active), created: Some(START) })
        .collect()
}

pub(crate) fn current(version: VersionNo, key: KeyNo) -> CurrentVersion {
    CurrentVersion { version: version_id(version), key: Some(key_id(key)) }
}

pub(crate) fn baseline(doc: &Doc) -> Baseline {
    Baseline {
        at: START,
        secret_name: String::new(),
        user: UserFacts { name: "svc".parse().unwrap(), arn: String::new(), id: String::new() },
        current: doc.baseline.map(|(version, key)| current(version, key)),
        keys: keys(&doc.keys),
    }
}

pub(crate) fn suspect((key, stored_by): (KeyNo, Option<RunNo>)) -> Suspect {
    Suspect { key: key_id(key), created: Some(START), stored_by: stored_by.map(run_id) }
}

pub(crate) fn from_suspect(suspect: &Suspect) -> (KeyNo, Option<RunNo>) {
    (key_no(&suspect.key), suspect.stored_by.map(run_no))
}

pub(crate) fn new_key(doc: &Doc) -> NewKey {
    let (key, version) = doc.new.unwrap();
    NewKey { key: key_id(key), version: version.map(version_id) }
}

pub(crate) fn old_key(doc: &Doc) -> OldKey {
    let (key, was_current) = doc.old.unwrap();
    OldKey { key: key_id(key), was_current }
}

/// When a quiet key is first looked at, and when the longest overlap is over.
pub(crate) fn gate_times() -> (Timestamp, Timestamp) {
    gate::window(START, &POLICY)
}

/// When a grace is over.
pub(crate) fn grace_over() -> Timestamp {
    after(START, POLICY.grace.get())
}

/// A use that speaks against everything: after the settling time, and after the key became Inactive.
pub(crate) fn late_use() -> Timestamp {
    after(START, POLICY.settling() + Duration::from_mins(1))
}

/// The product's decisions, each of which a test of the harness may break.
#[derive(Clone, Copy)]
pub(crate) struct Decisions {
    pub(crate) entry: fn(&entry::Facts, &str) -> entry::Entry,
    pub(crate) create: fn(&Baseline, Reason, &[KeyFacts], Option<&VersionId>) -> create::Create,
    pub(crate) gate: fn(&gate::Facts, &gate::Run<'_>) -> gate::Gate,
    pub(crate) delete: fn(&delete::Facts, &delete::Run<'_>) -> delete::Delete,
    pub(crate) orphan: fn(&Suspect, Option<&orphan::CreateRecord>, bool, Timestamp) -> orphan::Attribution,
    /// Whether AWSCURRENT is moved by compare-and-swap.
    pub(crate) swap: bool,
    /// Whether validation comes before the label moves.
    pub(crate) validate: bool,
    /// Whether a way back waits, before AWSCURRENT moves, for what is in flight.
    pub(crate) patient: bool,
}

impl Decisions {
    /// The product's own.
    pub(crate) fn real() -> Self {
        Self {
            entry: entry::decide,
            create: create::decide,
            gate: gate::decide,
            delete: delete::decide,
            orphan: |suspect, record, ended, now| orphan::decide(suspect, record, ROLE, |_| ended, now),
            swap: true,
            validate: true,
            patient: true,
        }
    }
}

/// The version that the document's new key is in, or would be in.
pub(crate) fn own_version(doc: &Doc, me: RunNo) -> VersionNo {
    doc.new.and_then(|(_, version)| version).unwrap_or_else(|| version_of(me))
}
