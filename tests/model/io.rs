//! One call at a time.
//!
//! A step is written as straight as the product's own. What it asks is answered from the replies that its process
//! has had so far; the first call without a reply is made on the account if it is this step's turn, and otherwise
//! the step stops there. So every other run's call may come between any two of its own, and all that a process
//! knows is the replies it had.

use super::account::{Account, By, Execution, KeyNo, Labels, Maker, RunNo, Version, VersionNo, promise};
use super::facts::{Decisions, Kind};

/// What a process remembers of one call.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Reply {
    Labels(Labels),
    Keys(Vec<(KeyNo, bool)>),
    Value(Option<(usize, Version)>),
    Execution(Kind, Execution),
    Made(KeyNo),
    Yes(bool),
    /// It took effect, and the reply was lost.
    Lost,
    /// AWS will not do it.
    Refused,
}

/// How the next call goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum How {
    /// As AWS means it.
    Well,
    /// As AWS may answer as well: a record that is not there yet, a key that is still used.
    Otherwise,
    /// It takes effect and the reply is lost.
    Lost,
    /// It takes effect and the process dies; the machine starts the step again.
    Killed,
    /// It takes effect, the process dies, and the machine has no retry left.
    KilledForGood,
    /// It is refused, without effect.
    Refused,
}

impl How {
    /// What may go wrong with a call that changes something. A call that is lost before its effect leaves what a
    /// process leaves that dies one call earlier.
    pub(crate) const FAULTS: [Self; 4] = [Self::Lost, Self::Killed, Self::KilledForGood, Self::Refused];
}

/// Why a step does not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It is somebody else's turn.
    Yield,
    /// The call cannot go that way.
    Impossible,
    /// The step is started again, from its document.
    Again,
    /// The machine catches an error.
    Caught,
}

/// What a call has to say.
pub(crate) type Call<T> = Result<T, Stop>;

/// A process that makes calls.
pub(crate) struct Io<'a> {
    pub(crate) account: &'a mut Account,
    pub(crate) decisions: &'a Decisions,
    pub(crate) me: RunNo,
    pub(crate) by: By,
    pub(crate) key_limit: usize,
    pub(crate) log: &'a mut Vec<Reply>,
    pub(crate) next: usize,
    pub(crate) turn: Option<How>,
}

impl Io<'_> {
    fn call(
        &mut self,
        writes: bool,
        otherwise: bool,
        effect: impl FnOnce(&mut Account, bool) -> Reply,
    ) -> Call<Reply> {
        if let Some(reply) = self.log.get(self.next) {
            self.next += 1;
            return Ok(reply.clone());
        }
        let how = self.turn.take().ok_or(Stop::Yield)?;
        let reply = match how {
            How::Well => effect(self.account, false),
            How::Otherwise if otherwise => effect(self.account, true),
            _ if !writes => return Err(Stop::Impossible),
            How::Refused => Reply::Refused,
            How::Lost => {
                effect(self.account, false);
                Reply::Lost
            }
            How::Killed => {
                effect(self.account, false);
                return Err(Stop::Again);
            }
            How::KilledForGood => {
                effect(self.account, false);
                return Err(Stop::Caught);
            }
            How::Otherwise => return Err(Stop::Impossible),
        };
        self.log.push(reply.clone());
        self.next += 1;
        Ok(reply)
    }

    fn read(&mut self, effect: impl FnOnce(&mut Account) -> Reply) -> Call<Reply> {
        self.call(false, false, |account, _| effect(account))
    }

    /// A write whose lost reply is an error that the machine retries.
    fn write(&mut self, effect: impl FnOnce(&mut Account)) -> Call<()> {
        let done = self.call(true, false, |account, _| {
            effect(account);
            Reply::Yes(true)
        })?;
        match done {
            Reply::Lost => Err(Stop::Again),
            Reply::Refused => Err(Stop::Caught),
            _ => Ok(()),
        }
    }

    /// secretsmanager:DescribeSecret
    pub(crate) fn labels(&mut self) -> Call<Labels> {
        match self.read(|account| Reply::Labels(account.labels.clone()))? {
            Reply::Labels(labels) => Ok(labels),
            _ => Err(Stop::Impossible),
        }
    }

    /// iam:ListAccessKeys
    pub(crate) fn keys(&mut self) -> Call<Vec<(KeyNo, bool)>> {
        let list = |account: &mut Account| {
            let there = account.keys.iter().zip(0_u8..).filter(|(key, _)| key.exists);
            Reply::Keys(there.map(|(key, no)| (no, key.active)).collect())
        };
        match self.read(list)? {
            Reply::Keys(keys) => Ok(keys),
            _ => Err(Stop::Impossible),
        }
    }

    /// secretsmanager:GetSecretValue of the version that `which` picks, with its place among the versions.
    pub(crate) fn value(
        &mut self,
        which: impl FnOnce(&Labels) -> Option<VersionNo>,
    ) -> Call<Option<(usize, Version)>> {
        let get = |account: &mut Account| {
            let id = which(&account.labels);
            let found = account.versions.iter().copied().enumerate();
            Reply::Value(found.into_iter().find(|(_, version)| Some(version.id) == id))
        };
        match self.read(get)? {
            Reply::Value(value) => Ok(value),
            _ => Err(Stop::Impossible),
        }
    }

    /// states:DescribeExecution
    pub(crate) fn execution(&mut self, run: RunNo) -> Call<(Kind, Execution)> {
        let describe = |account: &mut Account| {
            let (kind, execution) = account.executions[usize::from(run)];
            Reply::Execution(kind, execution)
        };
        match self.read(describe)? {
            Reply::Execution(kind, execution) => Ok((kind, execution)),
            _ => Err(Stop::Impossible),
        }
    }

    /// iam:ListAccessKeys, after a wait that is longer than a step in flight takes for its last call.
    pub(crate) fn keys_when_nothing_is_in_flight(&mut self) -> Call<Vec<(KeyNo, bool)>> {
        if self.next == self.log.len() && self.turn.is_some() && self.account.in_flight & !(1 << self.me) != 0
        {
            return Err(Stop::Impossible);
        }
        self.keys()
    }

    /// sts:GetCallerIdentity, signed with the key: whether it answers.
    pub(crate) fn answers(&mut self, key: KeyNo) -> Call<bool> {
        let ask = |account: &mut Account| {
            let key = account.key_mut(key);
            let answers = key.exists && key.active;
            key.validated |= answers;
            Reply::Yes(answers)
        };
        match self.read(ask)? {
            Reply::Yes(answers) => Ok(answers),
            _ => Err(Stop::Impossible),
        }
    }

    /// iam:GetAccessKeyLastUsed: whether it was used late.
    pub(crate) fn used_late(&mut self) -> Call<bool> {
        match self.call(false, true, |_, otherwise| Reply::Yes(otherwise))? {
            Reply::Yes(late) => Ok(late),
            _ => Err(Stop::Impossible),
        }
    }

    /// cloudtrail:LookupEvents: whether the record of a key's making is there.
    pub(crate) fn recorded(&mut self) -> Call<bool> {
        match self.call(false, true, |_, otherwise| Reply::Yes(!otherwise))? {
            Reply::Yes(there) => Ok(there),
            _ => Err(Stop::Impossible),
        }
    }

    /// iam:CreateAccessKey, sent once; `None` where AWS refuses it.
    pub(crate) fn create(&mut self) -> Call<Option<KeyNo>> {
        let (me, limit) = (self.me, self.key_limit);
        let twice = self.log.iter().any(|reply| matches!(reply, Reply::Made(_)));
        let make = |account: &mut Account, _| {
            if twice {
                account.broken |= promise::ONE_CREATION;
            }
            account.create_key(Maker::Run(me), limit).map_or(Reply::Refused, Reply::Made)
        };
        match self.call(true, false, make)? {
            Reply::Made(key) => Ok(Some(key)),
            Reply::Lost => Err(Stop::Again),
            _ => Ok(None),
        }
    }

    /// secretsmanager:PutSecretValue with AWSPENDING; `false` where it is refused. A lost reply is asked again.
    pub(crate) fn put_pending(&mut self, key: KeyNo, fields: u8) -> Call<bool> {
        loop {
            let me = self.me;
            let put = |account: &mut Account, _| {
                account.put_pending(me, key, fields);
                Reply::Yes(true)
            };
            match self.call(true, false, put)? {
                Reply::Lost => {}
                reply => return Ok(reply == Reply::Yes(true)),
            }
        }
    }

    /// secretsmanager:UpdateSecretVersionStage of AWSCURRENT: what the caller hears.
    pub(crate) fn move_current(&mut self, from: VersionNo, to: VersionNo) -> Call<Reply> {
        let compares = self.decisions.swap;
        self.call(true, false, |account, _| {
            if account.swap_current(from, to, compares) { Reply::Yes(true) } else { Reply::Refused }
        })
    }

    /// secretsmanager:UpdateSecretVersionStage that takes AWSPENDING off.
    pub(crate) fn take_off_pending(&mut self, version: VersionNo) -> Call<()> {
        self.write(|account| {
            if account.labels.pending == Some(version) {
                account.labels.pending = None;
            }
        })
    }

    /// secretsmanager:UpdateSecretVersionStage that leaves a run's label, or takes it off.
    pub(crate) fn label(&mut self, version: VersionNo, run: RunNo, on: bool) -> Call<()> {
        self.write(|account| {
            // A label is on one version at a time.
            account.labels.claims.retain(|(at, of)| *of != run || (!on && *at != version));
            if on {
                account.labels.claims.push((version, run));
                account.labels.claims.sort_unstable();
            }
        })
    }

    /// iam:UpdateAccessKey
    pub(crate) fn set_active(&mut self, key: KeyNo, active: bool) -> Call<()> {
        let by = self.by;
        self.write(|account| account.set_active(key, active, by))
    }

    /// iam:DeleteAccessKey
    pub(crate) fn delete(&mut self, key: KeyNo) -> Call<()> {
        let by = self.by;
        self.write(|account| account.delete_key(key, by))
    }

    /// states:StopExecution
    pub(crate) fn stop_execution(&mut self, run: RunNo) -> Call<()> {
        self.write(|account| account.executions[usize::from(run)].1 = Execution::Ended)
    }
}
