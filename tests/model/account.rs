//! The small account: one user's keys, one secret's versions and labels, and the executions, with what each AWS
//! call of ours does to them. Whatever a call breaks is noted in the account, under the promise it breaks.

use super::facts::Kind;

/// A key, by the order in which keys were made; 0 is the one that the secret holds at the beginning.
pub(crate) type KeyNo = u8;
/// A run, by its number; a smaller number is a smaller id.
pub(crate) type RunNo = u8;
/// A version of the secret: 0 is the first, `1 + n` the one that run `n` writes, 8 and above are a person's.
pub(crate) type VersionNo = u8;

/// The version that a run writes.
pub(crate) const fn version_of(run: RunNo) -> VersionNo {
    run + 1
}

/// The run that writes this version.
pub(crate) const fn writer(version: VersionNo) -> Option<RunNo> {
    if version == 0 || version >= PERSONS { None } else { Some(version - 1) }
}

/// The first version of a person's.
pub(crate) const PERSONS: VersionNo = 8;

/// Who made a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Maker {
    /// The user's owner, before Keywheel came.
    Owner,
    /// A colleague, in the same minutes.
    Stranger,
    /// A run.
    Run(RunNo),
}

/// A key, there or deleted.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, and a state is compared by all"
)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) maker: Maker,
    pub(crate) active: bool,
    pub(crate) exists: bool,
    /// AWSCURRENT has named it.
    pub(crate) was_current: bool,
    /// STS has answered it.
    pub(crate) validated: bool,
    /// The runs whose grace has begun since it became Inactive, a bit each.
    pub(crate) resting: u8,
    /// It has been Inactive for a whole grace.
    pub(crate) rested: bool,
}

/// A version of the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Version {
    pub(crate) id: VersionNo,
    pub(crate) key: KeyNo,
    /// The other fields, by how often they were edited.
    pub(crate) fields: u8,
}

/// What `DescribeSecret` tells.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Labels {
    pub(crate) current: VersionNo,
    pub(crate) previous: Option<VersionNo>,
    pub(crate) pending: Option<VersionNo>,
    /// The labels by which runs that took work over are found.
    pub(crate) claims: Vec<(VersionNo, RunNo)>,
}

impl Labels {
    /// `Secret::runs_on`.
    pub(crate) fn runs_on(&self, version: VersionNo) -> Vec<RunNo> {
        let claims = self.claims.iter().filter(|(on, _)| *on == version).map(|(_, run)| *run);
        writer(version).into_iter().chain(claims).collect()
    }
}

/// What Step Functions knows of an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Execution {
    /// It has not been started.
    Unborn,
    /// It runs.
    Running,
    /// It has ended, however.
    Ended,
}

/// Who makes a call, and in what step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct By {
    pub(crate) run: RunNo,
    /// AWSCURRENT named no working key when the step began.
    pub(crate) began_dark: bool,
    /// A person did something between two calls of the step. IAM knows no conditional calls, so what a
    /// person does in the milliseconds between a step's look and its act is not seen by anybody.
    pub(crate) surprised: bool,
}

/// The promises, as bits of [`Account::broken`].
pub(crate) mod promise {
    /// AWSCURRENT names an Active, validated key.
    pub(crate) const WORKING_KEY: u8 = 1;
    /// Only keys that P2 allows are made Inactive or deleted.
    pub(crate) const NOT_OURS: u8 = 2;
    /// No attempt makes two keys.
    pub(crate) const ONE_CREATION: u8 = 4;
    /// The key that AWSCURRENT names is never deleted.
    pub(crate) const CURRENT_DELETED: u8 = 8;
    /// No run takes AWSCURRENT off a version that it has not seen.
    pub(crate) const UNSEEN: u8 = 16;
}

/// The account.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Account {
    pub(crate) keys: Vec<Key>,
    /// In the order in which they were written.
    pub(crate) versions: Vec<Version>,
    pub(crate) labels: Labels,
    pub(crate) executions: Vec<(Kind, Execution)>,
    /// AWSCURRENT names a working key, and no person has broken that.
    pub(crate) good: bool,
    /// Runs that were stopped while a step of theirs is in flight, a bit each.
    pub(crate) in_flight: u8,
    /// The broken promises.
    pub(crate) broken: u8,
}

impl Account {
    /// A managed user whose one key is in its secret, and runs that may be started.
    pub(crate) fn new(kinds: &[Kind]) -> Self {
        Self {
            keys: vec![Key { was_current: true, validated: true, ..Key::made_by(Maker::Owner) }],
            versions: vec![Version { id: 0, key: 0, fields: 0 }],
            labels: Labels { current: 0, previous: None, pending: None, claims: Vec::new() },
            executions: kinds.iter().map(|kind| (*kind, Execution::Unborn)).collect(),
            good: true,
            in_flight: 0,
            broken: 0,
        }
    }

    pub(crate) fn key(&self, key: KeyNo) -> &Key {
        &self.keys[usize::from(key)]
    }

    pub(crate) fn key_mut(&mut self, key: KeyNo) -> &mut Key {
        &mut self.keys[usize::from(key)]
    }

    /// How many keys there are.
    pub(crate) fn count(&self) -> usize {
        self.keys.iter().filter(|key| key.exists).count()
    }

    pub(crate) fn version(&self, id: VersionNo) -> Option<Version> {
        self.versions.iter().copied().find(|version| version.id == id)
    }

    /// The key that AWSCURRENT names.
    pub(crate) fn current_key(&self) -> KeyNo {
        self.version(self.labels.current).map_or(0, |version| version.key)
    }

    /// Whether AWSCURRENT names an Active, validated key.
    pub(crate) fn current_works(&self) -> bool {
        let key = self.key(self.current_key());
        key.exists && key.active && (key.validated || !matches!(key.maker, Maker::Run(_)))
    }

    /// Keys of ours that exist and that no version holds.
    pub(crate) fn orphans(&self) -> usize {
        let stored = |no: usize| self.versions.iter().any(|version| usize::from(version.key) == no);
        let orphan =
            |(no, key): &(usize, &Key)| key.exists && matches!(key.maker, Maker::Run(_)) && !stored(*no);
        self.keys.iter().enumerate().filter(orphan).count()
    }

    /// Notes what holds after any call.
    pub(crate) fn look(&mut self) {
        let current = self.current_key();
        self.key_mut(current).was_current = true;
        let works = self.current_works();
        if self.good && !works {
            self.broken |= promise::WORKING_KEY;
        }
        self.good |= works;
    }

    /// A person did something: if AWSCURRENT names no working key now, that is the person's doing.
    pub(crate) fn excuse(&mut self) {
        self.good = self.current_works();
        self.look();
    }

    /// `CreateAccessKey`; `None` where the limit refuses it.
    pub(crate) fn create_key(&mut self, maker: Maker, limit: usize) -> Option<KeyNo> {
        if self.count() >= limit {
            return None;
        }
        let no = KeyNo::try_from(self.keys.len()).ok()?;
        self.keys.push(Key::made_by(maker));
        Some(no)
    }

    /// `PutSecretValue` with AWSPENDING under the run's id.
    pub(crate) fn put_pending(&mut self, run: RunNo, key: KeyNo, fields: u8) {
        let id = version_of(run);
        // The same token with the same value is one request.
        if self.version(id).is_none() {
            self.versions.push(Version { id, key, fields });
            self.labels.pending = Some(id);
        }
    }

    /// `PutSecretValue` by a person at the console, who edits another field.
    pub(crate) fn edit(&mut self) {
        let Some(now) = self.version(self.labels.current) else { return };
        let theirs = self.versions.iter().filter(|version| version.id >= PERSONS).count();
        let id = PERSONS + VersionNo::try_from(theirs).unwrap_or(0);
        self.versions.push(Version { id, fields: now.fields + 1, ..now });
        self.labels.previous = Some(self.labels.current);
        self.labels.current = id;
    }

    /// `UpdateSecretVersionStage` of AWSCURRENT by a run that expects `from`: refused where another version carries
    /// it, if the run compares at all.
    pub(crate) fn swap_current(&mut self, from: VersionNo, to: VersionNo, compares: bool) -> bool {
        if from != self.labels.current {
            if compares {
                return false;
            }
            self.broken |= promise::UNSEEN;
        }
        self.move_current(to);
        true
    }

    /// Moves AWSCURRENT, whoever does it.
    pub(crate) fn move_current(&mut self, to: VersionNo) {
        if to != self.labels.current {
            self.labels.previous = Some(self.labels.current);
            self.labels.current = to;
        }
    }

    /// `UpdateAccessKey` by a run.
    pub(crate) fn set_active(&mut self, key: KeyNo, active: bool, by: By) {
        if !self.key(key).exists {
            return;
        }
        if !active {
            if !self.may_touch(by.run, key) {
                self.broken |= promise::NOT_OURS;
            }
            let works = self.key(key).active && self.key(key).was_current;
            if !by.surprised && (key == self.current_key() || (by.began_dark && works)) {
                self.broken |= promise::WORKING_KEY;
            }
        }
        self.turn(key, active);
        if by.surprised {
            self.excuse();
        }
    }

    /// Makes a key Active or Inactive, whoever does it.
    pub(crate) fn turn(&mut self, key: KeyNo, active: bool) {
        let key = self.key_mut(key);
        if key.active != active {
            key.active = active;
            key.resting = 0;
            key.rested = false;
        }
    }

    /// `DeleteAccessKey` by a run.
    pub(crate) fn delete_key(&mut self, key: KeyNo, by: By) {
        let known = *self.key(key);
        if !known.exists {
            return;
        }
        let early = known.active || (known.was_current && !known.rested);
        if !self.may_touch(by.run, key) || (early && !by.surprised) {
            self.broken |= promise::NOT_OURS;
        }
        if key == self.current_key() && !by.surprised {
            self.broken |= promise::CURRENT_DELETED;
        }
        *self.key_mut(key) = Key { exists: false, active: false, resting: 0, rested: false, ..known };
        if by.surprised {
            self.excuse();
        }
    }

    /// P2: what AWSCURRENT named once, what this run made, and what a run made that has ended.
    fn may_touch(&self, run: RunNo, key: KeyNo) -> bool {
        let key = self.key(key);
        match key.maker {
            Maker::Run(maker) => key.was_current || maker == run || self.ended(maker),
            Maker::Owner | Maker::Stranger => key.was_current,
        }
    }

    fn ended(&self, run: RunNo) -> bool {
        self.executions[usize::from(run)].1 == Execution::Ended
    }
}

impl Key {
    const fn made_by(maker: Maker) -> Self {
        Self {
            maker,
            active: true,
            exists: true,
            was_current: false,
            validated: false,
            resting: 0,
            rested: false,
        }
    }
}
