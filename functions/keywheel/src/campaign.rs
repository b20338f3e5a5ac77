//! The document of the fleet machine: one run over all keys that are due, from its plan to its summary.
//!
//! What is long lies in the installation's bucket: the plan, and the rotations in batches of one wave each. The
//! document holds counts and their addresses, so that it fits into a state whatever the fleet's size. Everything in the
//! bucket is named after the campaign, the attempt that has planned it and the batch, and a rotation's id after the campaign
//! and the secret: a step that runs twice starts the same, and no plan is written over by another.

mod notices;
mod warnings;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::clock::wait_time;
use crate::decide::campaign::Counted;
use crate::fleet::policy::{Freeze, Terms};
use crate::ids::RunId;
use crate::notice::{Notice, NoticeKind};
use crate::policy::PolicyOverride;
use crate::rotation::{Caught, Delivery, Reason, Why};

/// The version of the document that this release writes.
pub const SCHEMA: u32 = 1;

/// Where the fleet's policy lies in the bucket.
pub const POLICY: &str = "policy/fleet.json";

/// How many rotations that failed the document names; all of them are in the report.
pub const NAMED: usize = 20;

/// The fewest rotations of a full batch. After each batch somebody looks whether to go on.
const BATCH: usize = 10;
/// The most batches of a campaign, about: a machine's history has its end.
const BATCHES: usize = 200;

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The machine's input, as its users write it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Why.
    #[serde(default)]
    pub reason: Reason,
    /// The names or ARNs of the secrets to be rotated, whatever their age. Empty: those that are due.
    #[serde(default, skip_serializing_if = "is_default")]
    pub secrets: Vec<String>,
    /// Make the plan, say what would be done, and end.
    #[serde(default)]
    pub dry_run: bool,
    /// The version of the policy's object; the newest where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_version: Option<String>,
}

/// What the machine hands its first step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Begin {
    /// The machine's input as it came.
    pub input: Value,
    /// The execution's name.
    pub name: String,
    /// The execution's ARN.
    pub execution: String,
    /// When the execution started.
    pub started: Timestamp,
}

/// One rotation that a batch starts. The machine reads these fields by their names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// The rotation's id.
    pub run: RunId,
    /// The secret, by ARN, or as the request names it.
    pub secret: String,
    /// The user, where it is known.
    pub user: Option<String>,
    /// Why the rotation is started.
    pub reason: Reason,
    /// Its durations.
    pub policy: PolicyOverride,
    /// Whether it makes no key current, and only takes an old one's way out to its end.
    #[serde(default, skip_serializing_if = "is_default")]
    pub only_retires: bool,
}

impl Item {
    /// The rotation of a secret by its terms.
    pub fn new(campaign: RunId, secret: &str, user: Option<&str>, reason: Reason, terms: &Terms) -> Self {
        Self {
            run: campaign.child(secret),
            secret: secret.to_owned(),
            user: user.map(str::to_owned),
            reason,
            policy: terms.wish(),
            only_retires: false,
        }
    }

    /// Whom it is about, for people.
    pub fn whom(&self) -> &str {
        self.user.as_deref().unwrap_or(&self.secret)
    }
}

/// What the machine does next. The ASL's Choice states read it by these names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Start the rotations of the batch, and wait for each.
    Batch,
    /// Look again later: a rotation of the batch is still on its way.
    Settle,
    /// The campaign has its outcome.
    Ended,
}

/// How a campaign ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Every batch was started; what failed stayed within the tolerance.
    Done,
    /// More failed than may, or it stopped before its end; what was not begun is untouched.
    Stopped,
    /// The plan was made, and nothing was to be started.
    Planned,
    /// Nothing was started, as something stands against it.
    Refused,
}

impl Outcome {
    /// Every outcome, for tables and tests.
    pub const ALL: [Self; 4] = [Self::Done, Self::Stopped, Self::Planned, Self::Refused];

    /// The name, as documents and metrics write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "Done",
            Self::Stopped => "Stopped",
            Self::Planned => "Planned",
            Self::Refused => "Refused",
        }
    }
}

/// What the plan says, counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// The users of all accounts; 0 where the request named its secrets.
    pub users: usize,
    /// Users whose key is to be rotated.
    pub rotate: usize,
    /// Managed users that are left alone.
    pub skip: usize,
    /// Findings.
    pub find: usize,
    /// Users, rows, regions and accounts that could not be read; they are among those left alone or found.
    pub unread: usize,
    /// Users whose owner is told that their key is due soon.
    #[serde(default, skip_serializing_if = "is_default")]
    pub warned: usize,
    /// Keys that nobody uses, and for which a run of their own was started.
    #[serde(default, skip_serializing_if = "is_default")]
    pub unused: usize,
}

/// Users that are rotated together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wave {
    /// Its number in the policy.
    pub wave: u32,
    /// How many keys it has.
    pub keys: usize,
    /// How many of its batches are begun.
    pub begun: usize,
    /// How many batches it has.
    pub batches: usize,
    /// How many of its rotations have promoted their key.
    pub promoted: usize,
    /// How many have taken an old key's way out over, and promote none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub retiring: usize,
    /// How many were left to another run, which was at work on their secret.
    #[serde(default, skip_serializing_if = "is_default")]
    pub left: usize,
    /// How many have not, and do not any more.
    pub failed: usize,
}

impl Wave {
    /// How many of its rotations are counted.
    pub fn counted(&self) -> usize {
        self.promoted + self.retiring + self.left + self.failed
    }
}

/// The batch that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// Its number in the campaign, from 1.
    pub number: usize,
    /// Its wave.
    pub wave: u32,
    /// Where its items lie in the bucket.
    pub key: String,
    /// When it was begun.
    pub began: Timestamp,
}

/// A rotation that did not promote its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// Its id.
    pub run: RunId,
    /// The user, or the secret as the request names it.
    pub whom: String,
    /// Its wave.
    pub wave: u32,
    /// Why, in one word for programs.
    pub code: String,
    /// Why, in a sentence.
    pub text: String,
}

/// One campaign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Campaign {
    /// The version of this document.
    pub schema: u32,
    /// The campaign's id.
    pub campaign: RunId,
    /// The execution's ARN.
    pub execution: String,
    /// When the execution started.
    pub started: Timestamp,
    /// What was asked.
    pub request: Request,
    /// The installation's bucket.
    pub bucket: String,
    /// The attempt that has made the plan, which Scan draws; `None` in documents of a release that knew none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<RunId>,
    /// The version of the policy that it holds to; `None` where nobody has pushed one and the careful defaults hold.
    pub policy_version: Option<String>,
    /// How many of a wave may fail, in percent.
    pub tolerance: u8,
    /// When nothing may be started.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub freeze: Vec<Freeze>,
    /// What the plan says.
    pub counts: Counts,
    /// The waves, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waves: Vec<Wave>,
    /// What comes next.
    pub phase: Phase,
    /// The batch that is under way.
    pub batch: Option<Batch>,
    /// When the next Wait ends.
    pub wait_until: Option<Timestamp>,
    /// The first of those that failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<Failed>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// Why.
    pub why: Option<Why>,
    /// The campaigns whose warnings of keys that are due soon are in the outbox: this one, and those before it that
    /// could not tell them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub carries: Vec<RunId>,
    /// The outbox, sent and unsent.
    #[serde(default)]
    pub notices: Vec<Notice>,
    /// How far the outbox is.
    #[serde(default)]
    pub delivery: Delivery,
    /// The error that the machine caught last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Caught>,
}

/// How many rotations each batch of a campaign of so many keys has, at most.
pub fn batch_size(keys: usize) -> usize {
    keys.div_ceil(BATCHES).max(BATCH)
}

/// The id of the campaign that an execution is. The schedule names its executions as it likes; where a person does, a
/// name may come again, and rotations of the first time must not pass for those of the second.
pub fn id(name: &str, started: Timestamp) -> RunId {
    name.parse().unwrap_or_else(|_| RunId::standing_for(&format!("{name} {}", started.as_millisecond())))
}

/// Where the outcome of an execution lies, as soon as it has one: it may live on for a day to tell it.
pub fn outcome_of(execution: &str) -> String {
    let name = execution.rsplit_once(':').map_or(execution, |(_, name)| name);
    format!("campaigns/outcomes/{name}.json")
}

impl Campaign {
    /// A document at its beginning.
    pub fn new(begin: &Begin, request: Request, bucket: &str) -> Self {
        Self {
            schema: SCHEMA,
            campaign: id(&begin.name, begin.started),
            execution: begin.execution.clone(),
            started: begin.started,
            request,
            bucket: bucket.to_owned(),
            attempt: None,
            policy_version: None,
            tolerance: 0,
            freeze: Vec::new(),
            counts: Counts::default(),
            waves: Vec::new(),
            phase: Phase::Ended,
            batch: None,
            wait_until: None,
            failed: Vec::new(),
            outcome: None,
            why: None,
            carries: Vec::new(),
            notices: Vec::new(),
            delivery: Delivery::Pending,
            error: None,
        }
    }

    /// Where something of this campaign lies in the bucket: under the attempt that has planned it, so that one that comes
    /// late writes over nothing.
    pub fn place(&self, name: &str) -> String {
        match self.attempt {
            Some(attempt) => format!("campaigns/{}/{attempt}/{name}", self.campaign),
            None => format!("campaigns/{}/{name}", self.campaign),
        }
    }

    /// Where the plan lies: a line of JSON for each user and finding.
    pub fn plan(&self) -> String {
        self.place("plan.jsonl")
    }

    /// Where the items of a batch lie.
    pub fn items(&self, number: usize) -> String {
        self.place(&format!("batch-{number:04}.json"))
    }

    /// Where it lies what has become of the rotations of a batch.
    pub fn results(&self, number: usize) -> String {
        self.place(&format!("batch-{number:04}-results.json"))
    }

    /// Puts the rotations, each with its wave and in the order of the waves, into batches, which are to be written.
    pub fn divide(&mut self, items: Vec<(u32, Item)>) -> Vec<Vec<Item>> {
        let size = batch_size(items.len());
        let mut batches: Vec<Vec<Item>> = Vec::new();
        self.waves.clear();
        for (number, item) in items {
            match self.waves.last_mut() {
                Some(wave) if wave.wave == number => wave.keys += 1,
                _ => self.waves.push(Wave {
                    wave: number,
                    keys: 1,
                    begun: 0,
                    batches: 0,
                    promoted: 0,
                    retiring: 0,
                    left: 0,
                    failed: 0,
                }),
            }
            let Some(wave) = self.waves.last_mut() else { continue };
            match batches.last_mut() {
                Some(batch) if wave.keys > 1 && batch.len() < size => batch.push(item),
                _ => {
                    wave.batches += 1;
                    batches.push(vec![item]);
                }
            }
        }
        batches
    }

    /// How many keys it is to rotate.
    pub fn keys(&self) -> usize {
        self.waves.iter().map(|wave| wave.keys).sum()
    }

    /// How many rotations have promoted, and how many have failed.
    pub fn done(&self) -> (usize, usize) {
        self.waves
            .iter()
            .fold((0, 0), |(promoted, failed), wave| (promoted + wave.promoted, failed + wave.failed))
    }

    /// Begins the next batch; false where there is none.
    pub fn begin_batch(&mut self, now: Timestamp) -> bool {
        let number = self.waves.iter().map(|wave| wave.begun).sum::<usize>() + 1;
        let Some(wave) = self.waves.iter_mut().find(|wave| wave.begun < wave.batches) else { return false };
        wave.begun += 1;
        let wave = wave.wave;
        self.batch = Some(Batch { number, wave, key: self.items(number), began: now });
        self.phase = Phase::Batch;
        self.wait_until = None;
        true
    }

    /// Looks again at that time.
    pub fn settle(&mut self, until: Timestamp) {
        self.phase = Phase::Settle;
        self.wait_until = Some(wait_time(until));
    }

    /// Notes what has become of the batch.
    pub fn note(&mut self, counted: Counted) {
        let Some(batch) = self.batch.take() else { return };
        if let Some(wave) = self.waves.iter_mut().find(|wave| wave.wave == batch.wave) {
            wave.promoted += counted.promoted;
            wave.retiring += counted.retiring;
            wave.left += counted.left;
            wave.failed += counted.failed.len();
        }
        let room = NAMED.saturating_sub(self.failed.len());
        self.failed.extend(counted.failed.into_iter().take(room));
    }

    /// Ends the campaign with its outcome, and puts the last notice into the outbox.
    pub fn end(&mut self, at: Timestamp, outcome: Outcome, why: Why) {
        self.phase = Phase::Ended;
        self.wait_until = None;
        self.outcome = Some(outcome);
        self.why = Some(why);
        self.announce(at, NoticeKind::Ended);
    }

    /// Puts a notice into the outbox, once.
    pub fn announce(&mut self, at: Timestamp, kind: NoticeKind) {
        self.tell(Notice::new(self.campaign, kind, "", at, self.sentence(kind)));
    }

    /// Puts a notice into the outbox, unless one of its id is there.
    fn tell(&mut self, notice: Notice) {
        if self.notices.iter().all(|known| known.id != notice.id) {
            self.notices.push(notice);
            self.delivery = Delivery::Pending;
        }
    }

    /// How many keys had their turn, or have it now.
    fn begun(&self) -> usize {
        // Batches of a wave are full but for its last.
        let size = batch_size(self.keys());
        self.waves.iter().map(|wave| wave.keys.min(wave.begun * size)).sum()
    }
}
