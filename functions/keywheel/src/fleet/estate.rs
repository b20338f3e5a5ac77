//! The facts of an account that a plan is made from.
//!
//! They come with few calls: IAM's credential report names every user with the age and the use of its keys, the tagged
//! secrets are listed a hundred at a time, and only users whose key may be due are asked for by name.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::decide::entry::{Evidence, Pending, RunState};
use crate::decide::orphan::Attribution;
use crate::ids::{AccessKeyId, RunId, SecretArn};
use crate::key::KeyFacts;
use crate::rotation::{CurrentVersion, Why};

/// What is known of a key's last use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Used {
    /// It was used then.
    At(Timestamp),
    /// IAM has seen no use since it keeps records.
    Never,
    /// It was not asked for.
    #[default]
    Unknown,
}

/// One of a user's keys. The report names no ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slot {
    /// Whether IAM accepts it.
    pub active: bool,
    /// When it was made, or was switched on again since: the key itself may be older. `None` where IAM did not say.
    pub since: Option<Timestamp>,
    /// When it was used.
    pub used: Used,
    /// The service that it was used for last, where IAM says it.
    pub service: Option<String>,
    /// The region that it was used in last, where IAM says it.
    pub region: Option<String>,
    /// Its id, where the user's keys were listed.
    pub id: Option<AccessKeyId>,
}

/// One user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The name.
    pub user: String,
    /// The path, such as `/vendors/`.
    pub path: String,
    /// The keys.
    pub keys: Vec<Slot>,
}

/// A secret whose tag names a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tagged {
    /// The secret.
    pub arn: SecretArn,
    /// The user that its tag names.
    pub user: String,
    /// All its tags.
    pub tags: BTreeMap<String, String>,
    /// When anything of it was changed last: what AWSCURRENT names is no younger.
    pub changed: Option<Timestamp>,
    /// The primary's region, where this is a replica.
    pub replica_of: Option<String>,
    /// The runs that its labelled versions name: who wrote them, and who has taken them over.
    pub runs: Vec<RunId>,
    /// Whether a version is on its way: it has AWSPENDING, and is neither current nor the one before.
    pub pending: bool,
}

/// How the users were read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// From the credential report of this time: up to four hours old.
    Report(Timestamp),
    /// One by one, as IAM gave no report; the reason.
    Lists(String),
}

/// Something that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blind {
    /// The whole account.
    Account {
        /// Why not.
        why: String,
    },
    /// The secrets of a region.
    Region {
        /// Which.
        region: String,
        /// Why not.
        why: String,
    },
    /// A row of the report.
    Row {
        /// Its line.
        line: u64,
        /// Its user, as far as that can be told.
        user: String,
        /// Why not.
        why: String,
    },
    /// The keys of one user.
    User {
        /// Which.
        user: String,
        /// Why not.
        why: String,
    },
    /// Which rotations run.
    Runs {
        /// Why not.
        why: String,
    },
}

/// An account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Estate {
    /// Its number.
    pub account: String,
    /// The regions whose secrets were asked for.
    pub regions: Vec<String>,
    /// How its users were read.
    pub source: Source,
    /// Its users.
    pub users: Vec<Row>,
    /// Whether its root user has an Active access key; `None` where nobody says.
    pub root_key: Option<bool>,
    /// Its tagged secrets.
    pub secrets: Vec<Tagged>,
    /// The rotations that run; `None` where that could not be read.
    pub running: Option<BTreeSet<RunId>>,
    /// What could not be read.
    pub blind: Vec<Blind>,
}

impl Estate {
    /// An account that could not be read.
    pub fn unread(account: &str, regions: &[String], why: String) -> Self {
        Self {
            account: account.to_owned(),
            regions: regions.to_vec(),
            source: Source::Lists(why.clone()),
            users: Vec::new(),
            root_key: None,
            secrets: Vec::new(),
            running: None,
            blind: vec![Blind::Account { why }],
        }
    }

    /// Whether nothing of it could be read.
    pub fn is_unread(&self) -> bool {
        self.blind.iter().any(|blind| matches!(blind, Blind::Account { .. }))
    }
}

/// What AWSCURRENT names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Current {
    /// This key.
    Key(AccessKeyId),
    /// No key: the secret has no value, or a placeholder.
    Nothing,
    /// A value that no run could work with; why.
    Unfit(String),
    /// It may not be read with these credentials; why.
    Hidden(String),
}

/// What earlier runs have left of a secret, where its user has a key that it does not hold. A run finds the same at its
/// beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// What AWSCURRENT names.
    pub current: Option<CurrentVersion>,
    /// The run that the current version leads to.
    pub current_run: RunState,
    /// The key that AWSPREVIOUS holds.
    pub previous_key: Option<AccessKeyId>,
    /// The version on its way.
    pub pending: Option<Pending>,
    /// What is on record of the other key, where it was contained as leaked.
    pub evidence: Option<Evidence>,
    /// The last run on the current version that has ended.
    pub last: Option<RunId>,
    /// What that one said, where it has left the other key to a person.
    pub held: Option<Why>,
    /// Who made a key that no version names, as far as CloudTrail tells; `None` where it was not asked.
    pub orphan: Option<Attribution>,
}

/// What IAM and Secrets Manager say now of a user whose key may be due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close {
    /// The secret that the user's own tag names.
    pub secret: Option<String>,
    /// The key that its owner wants retired.
    pub retire: Option<AccessKeyId>,
    /// The superseded key that its owner wants kept.
    pub keep: Option<AccessKeyId>,
    /// The keys.
    pub keys: Vec<KeyFacts>,
    /// What its secret holds.
    pub current: Current,
    /// What earlier runs have left; `None` where there is nothing but the key that its secret holds, or where the value
    /// may not be read.
    pub left: Option<Box<Left>>,
}

/// A closer look at a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// What was seen.
    Seen(Close),
    /// The user is gone.
    Gone,
    /// It could not be read; why.
    Unread(String),
}

/// The closer looks, by user.
pub type Looks = BTreeMap<String, Look>;
