//! Replicas of secrets: copies in other regions that nobody can write, and that follow their primary after a while, or not
//! at all.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::account::Secret;
use super::state::State;

/// How a secret is replicated to one region.
#[derive(Debug, Clone)]
pub struct Replica {
    /// The secret's name.
    pub secret: String,
    /// The region.
    pub region: String,
    /// How long after a change of the primary the copy has it.
    pub lag: Duration,
    /// Why the replication has failed: the copy follows no more.
    pub failed: Option<String>,
    /// Since when the primary is ahead of the copy.
    behind: Option<Timestamp>,
}

impl Secret {
    /// The region it is in.
    pub fn region(&self) -> &str {
        self.arn.split(':').nth(3).unwrap_or_default()
    }

    /// Whether it is a copy of another region's.
    pub fn is_replica(&self) -> bool {
        self.primary_region.as_deref().is_some_and(|primary| primary != self.region())
    }
}

impl State {
    /// Replicates a secret to a region, whose copy has each later change after `lag`.
    pub fn replicate(&mut self, name: &str, region: &str, lag: Duration) {
        let primary = self.secret_mut(name);
        let own = primary.region().to_owned();
        primary.primary_region = Some(own.clone());
        let mut copy = primary.clone();
        copy.arn = copy.arn.replacen(&format!(":{own}:"), &format!(":{region}:"), 1);
        self.secrets.push(copy);
        let (secret, region) = (name.to_owned(), region.to_owned());
        self.replicas.push(Replica { secret, region, lag, failed: None, behind: None });
    }

    /// How a secret is replicated to a region, to change it.
    pub fn replica_mut(&mut self, name: &str, region: &str) -> &mut Replica {
        let is = |replica: &&mut Replica| replica.secret == name && replica.region == region;
        self.replicas.iter_mut().find(is).unwrap()
    }

    /// Takes a secret's copy out of a region, as `RemoveRegionsFromReplication` does.
    pub fn end_replication(&mut self, name: &str, region: &str) {
        self.replicas.retain(|replica| replica.secret != name || replica.region != region);
        self.secrets
            .retain(|secret| secret.name != name || secret.region() != region || !secret.is_replica());
    }

    /// A secret by its name, as a region has it.
    pub fn secret_in(&self, name: &str, region: &str) -> &Secret {
        self.secrets.iter().find(|secret| secret.name == name && secret.region() == region).unwrap()
    }

    /// The regions in which a secret's copy names another current version than the primary does.
    pub fn lagging(&self, name: &str) -> Vec<String> {
        let current = |secret: &Secret| secret.labelled("AWSCURRENT").map(|version| version.id.clone());
        let own = current(self.secret(name));
        let copies = self.replicas.iter().filter(|replica| replica.secret == name);
        copies
            .filter(|replica| current(self.secret_in(name, &replica.region)) != own)
            .map(|replica| replica.region.clone())
            .collect()
    }

    /// Notes whose primary has changed; a copy without a lag has the change at once.
    pub(super) fn mark_replicas(&mut self) {
        let now = self.now();
        for index in 0..self.replicas.len() {
            let Replica { secret, region, .. } = &self.replicas[index];
            let (primary, copy) = (self.secret(secret), self.secret_in(secret, region));
            if primary.versions != copy.versions || primary.tags != copy.tags {
                let behind = &mut self.replicas[index].behind;
                *behind = behind.or(Some(now));
            }
        }
        self.copy_until(now);
    }

    /// When the next copy is due, if that is not later than `until`.
    pub(crate) fn next_copy(&self, until: Timestamp) -> Option<Timestamp> {
        self.replicas.iter().filter_map(Replica::due).min().filter(|at| *at <= until)
    }

    /// Makes the copies that are due by then.
    pub(crate) fn copy_until(&mut self, until: Timestamp) {
        for index in 0..self.replicas.len() {
            if self.replicas[index].due().is_none_or(|at| at > until) {
                continue;
            }
            self.replicas[index].behind = None;
            let Replica { secret, region, .. } = self.replicas[index].clone();
            let primary = self.secret(&secret).clone();
            let is = |copy: &&mut Secret| copy.name == secret && copy.region() == region;
            let copy = self.secrets.iter_mut().find(is).unwrap();
            (copy.versions, copy.tags) = (primary.versions, primary.tags);
        }
    }

    /// What a primary says of its copies.
    pub(super) fn replication_status(&self, secret: &Secret) -> Option<Value> {
        let own = self.replicas.iter().filter(|replica| replica.secret == secret.name);
        let said = |replica: &Replica| match (&replica.failed, replica.behind) {
            (Some(why), _) => json!({"Region": replica.region, "Status": "Failed", "StatusMessage": why}),
            (None, Some(_)) => json!({"Region": replica.region, "Status": "InProgress"}),
            (None, None) => json!({"Region": replica.region, "Status": "InSync"}),
        };
        let all: Vec<Value> = own.map(said).collect();
        (!all.is_empty() && !secret.is_replica()).then(|| all.into())
    }
}

impl Replica {
    /// When the copy has what the primary has.
    fn due(&self) -> Option<Timestamp> {
        let behind = self.behind.filter(|_| self.failed.is_none())?;
        Some(behind + SignedDuration::try_from(self.lag).unwrap())
    }
}
