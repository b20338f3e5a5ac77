//! Counts a run from the cloud's own log of requests.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::consumer;
use crate::demo::history::Visit;
use crate::requests::{Kind, Request};

/// Calls that are counted apart from the budget, each group by its number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Apart {
    /// `GetAccessKeyLastUsed`, and the gate's `ListSecrets`.
    pub(crate) gate_polls: u32,
    /// Reads of the installation's switch.
    pub(crate) switch_reads: u32,
    /// The bus, the topic, task tokens.
    pub(crate) notices: u32,
    /// Roles taken over.
    pub(crate) assume_roles: u32,
}

/// One state's visit, with the calls made in it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Step {
    /// The state.
    pub(crate) state: String,
    /// Calls that count.
    pub(crate) calls: u32,
    /// Calls counted apart.
    pub(crate) apart: u32,
    /// How long it lasted.
    pub(crate) seconds: f64,
}

/// One write of the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Write {
    /// When it reached the cloud.
    pub(crate) at: Timestamp,
    /// The action.
    pub(crate) action: String,
    /// Whether it was refused.
    pub(crate) failed: bool,
}

/// A key's life.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Life {
    /// Its id.
    pub(crate) key: String,
    /// When it was made.
    pub(crate) created: Option<Timestamp>,
    /// When AWSCURRENT came to it.
    pub(crate) current_from: Option<Timestamp>,
    /// When AWSCURRENT left it.
    pub(crate) current_to: Option<Timestamp>,
    /// When it was made Inactive.
    pub(crate) inactive: Option<Timestamp>,
    /// When it was deleted.
    pub(crate) deleted: Option<Timestamp>,
}

/// The consumer's calls as the cloud saw them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Consumer {
    /// All of them.
    pub(crate) logged: u64,
    /// Those that failed.
    pub(crate) failed: u64,
    /// With the old key, after AWSCURRENT had left it.
    pub(crate) old_after_promotion: u64,
    /// With the new key, before the old one was made Inactive.
    pub(crate) new_before_deactivation: u64,
    /// With the new key, after the old one was deleted.
    pub(crate) after_delete: u64,
    /// Calls and failures by key and stage.
    pub(crate) stages: BTreeMap<(String, Span), (u64, u64)>,
}

/// A stretch of the run, as the consumer lives through it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Span {
    /// Until AWSCURRENT moves.
    Before,
    /// Both keys are Active.
    Overlap,
    /// The old key is Inactive.
    Grace,
    /// The old key is gone.
    After,
}

/// All that is counted.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Tally {
    /// Calls that count to the budget, writes among them.
    pub(crate) calls: u32,
    /// Writes, in their order.
    pub(crate) writes: Vec<Write>,
    /// Calls that count apart.
    pub(crate) apart: Apart,
    /// State by state.
    pub(crate) steps: Vec<Step>,
    /// The old key and the new one.
    pub(crate) keys: [Life; 2],
    /// The consumer.
    pub(crate) consumer: Consumer,
}

impl Tally {
    /// Counts the calls of the run whose application name is `app`, made in `visits`, with the consumer's
    /// beside them.
    pub(crate) fn count(log: &[Request], app: &str, visits: &[Visit], old: &str, new: &str) -> Self {
        let mut tally = Self::default();
        let mut steps: Vec<(&Visit, Step)> = visits
            .iter()
            .filter(|visit| visit.task || visit.wait)
            .map(|visit| (visit, Step::of(visit)))
            .collect();
        let mut outside = Step { state: "(outside)".into(), calls: 0, apart: 0, seconds: 0.0 };
        for request in log.iter().filter(|request| request.is_of_run(app)) {
            let step = steps.iter_mut().rev().find(|(visit, _)| visit.task && visit.covers(request.time));
            let step = step.map_or(&mut outside, |(_, step)| step);
            let kind = request.kind(Some(&step.state));
            tally.add(request, kind);
            match kind {
                Kind::Write | Kind::Read => step.calls += 1,
                _ => step.apart += 1,
            }
        }
        tally.steps = steps.into_iter().map(|(_, step)| step).collect();
        if outside.calls + outside.apart > 0 {
            tally.steps.push(outside);
        }
        tally.keys = tally.lives(log, old, new);
        tally.consumer = tally.consumer(log, old, new);
        tally
    }

    fn add(&mut self, request: &Request, kind: Kind) {
        match kind {
            Kind::Write => {
                let (at, action) = (request.time, request.action.clone());
                self.writes.push(Write { at, action, failed: request.failed() });
                self.calls += 1;
            }
            Kind::Read => self.calls += 1,
            Kind::GatePoll => self.apart.gate_polls += 1,
            Kind::SwitchRead => self.apart.switch_reads += 1,
            Kind::Notice => self.apart.notices += 1,
            Kind::AssumeRole => self.apart.assume_roles += 1,
        }
    }

    /// When the run's write of this name succeeded.
    pub(crate) fn wrote(&self, action: &str) -> Option<Timestamp> {
        self.writes.iter().rev().find(|write| write.action == action && !write.failed).map(|write| write.at)
    }

    fn lives(&self, log: &[Request], old: &str, new: &str) -> [Life; 2] {
        let made = |key: &str| {
            let of =
                |request: &&Request| request.reply.as_ref().is_some_and(|pair| pair.access_key_id == key);
            log.iter().find(of).map(|request| request.time)
        };
        let stored = log.iter().find(|request| request.action == "CreateSecret").map(|request| request.time);
        let promoted = self.wrote("UpdateSecretVersionStage");
        [
            Life {
                key: old.to_owned(),
                created: made(old),
                current_from: stored,
                current_to: promoted,
                inactive: self.wrote("UpdateAccessKey"),
                deleted: self.wrote("DeleteAccessKey"),
            },
            Life { key: new.to_owned(), created: made(new), current_from: promoted, ..Life::default() },
        ]
    }

    fn consumer(&self, log: &[Request], old: &str, new: &str) -> Consumer {
        let [promoted, inactive, deleted] =
            ["UpdateSecretVersionStage", "UpdateAccessKey", "DeleteAccessKey"]
                .map(|action| self.wrote(action));
        let passed = |mark: Option<Timestamp>, at: Timestamp| mark.is_some_and(|mark| at > mark);
        let mut consumer = Consumer::default();
        let calls = log.iter().filter(|request| request.app == consumer::APP && request.service == "sts");
        for call in calls {
            let failed = u64::from(call.failed());
            consumer.logged += 1;
            consumer.failed += failed;
            let span = match call.time {
                at if passed(deleted, at) => Span::After,
                at if passed(inactive, at) => Span::Grace,
                at if passed(promoted, at) => Span::Overlap,
                _ => Span::Before,
            };
            let counts = consumer.stages.entry((call.key_id.clone(), span)).or_default();
            counts.0 += 1;
            counts.1 += failed;
            consumer.old_after_promotion += u64::from(call.key_id == old && span >= Span::Overlap);
            consumer.new_before_deactivation += u64::from(call.key_id == new && span <= Span::Overlap);
            consumer.after_delete += u64::from(call.key_id == new && span == Span::After);
        }
        consumer
    }
}

impl Step {
    fn of(visit: &Visit) -> Self {
        // Milliseconds are what the history knows.
        let seconds = (visit.seconds() * 1000.0).round() / 1000.0;
        Self { state: visit.state.clone(), calls: 0, apart: 0, seconds }
    }
}

#[cfg(test)]
#[path = "tally_tests.rs"]
mod tests;
