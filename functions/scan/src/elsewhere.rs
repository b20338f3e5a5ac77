//! Other accounts, each read through a role of its own that may read and nothing else.
//!
//! What becomes of one is no other's business: one that lets nobody in, that is throttled, or that does not answer in
//! time is a finding, and its users are left alone. Values of secrets are not read there: which key is current is told
//! by the user's keys, as far as they tell, and the run looks itself. What an ended run has left there is in those values:
//! it is said of such a user that it has two keys, and nothing is taken over.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_types::SdkConfig;
use facts::estate::{self, Installation};
use facts::member::{self, Members};
use keywheel::campaign::Campaign;
use keywheel::clock::Clock;
use keywheel::fleet::FleetPolicy;
use keywheel::fleet::estate::{Estate, Looks};
use keywheel::{RunId, SecretArn, StepError};
use tokio::time::Instant;
use tracing::warn;

/// How long one account is waited for; a session there lasts 15 minutes.
const ONE: Duration = Duration::from_mins(3);
/// How long all of them are: the step itself has 15 minutes.
const ALL: Duration = Duration::from_mins(10);

/// An account and the closer looks at its users.
pub(crate) type Reading = (Estate, Looks);

/// How other accounts are read.
pub(crate) struct Elsewhere<'a> {
    members: Option<&'a Members>,
    /// For calls in the installation's own account.
    pub(crate) config: &'a SdkConfig,
    /// Whose runs are looked for, in whatever account.
    pub(crate) installation: &'a Installation,
    /// That account, and the machine's region.
    pub(crate) own: (String, String),
    partition: String,
    campaign: RunId,
}

impl<'a> Elsewhere<'a> {
    /// For this campaign; `own` is its machine's account and region.
    pub(crate) fn new(
        members: Option<&'a Members>,
        installation: &'a Installation,
        own: (String, String),
        doc: &Campaign,
    ) -> Self {
        let partition = doc.execution.split(':').nth(1).unwrap_or_default().to_owned();
        Self { members, config: &installation.config, installation, own, partition, campaign: doc.campaign }
    }

    /// The configuration for calls about a secret.
    pub(crate) async fn config_for(&self, secret: &SecretArn) -> Result<SdkConfig, StepError> {
        member::of_secret(self.members, self.config, secret, (&self.own.0, self.campaign)).await
    }

    /// Reads every account that the policy names beside the installation's own, four at a time.
    pub(crate) async fn read(&self, policy: &FleetPolicy, regions: &[String], clock: &Clock) -> Vec<Reading> {
        let accounts = policy.other_accounts(&self.own.0);
        let (next, end) = (AtomicUsize::new(0), Instant::now() + ALL);
        let worker = || async {
            let mut read = Vec::new();
            while let Some(account) = accounts.get(next.fetch_add(1, Ordering::Relaxed)) {
                let until = end.min(Instant::now() + ONE);
                let reading = self.read_one(account, policy, regions, clock);
                read.push(match tokio::time::timeout_at(until, reading).await {
                    Ok(Ok(reading)) => reading,
                    Ok(Err(error)) => self.unread(account, regions, error.to_string()),
                    Err(_) => self.unread(account, regions, "there was no time left for it".to_owned()),
                });
            }
            read
        };
        // On the heap: each holds the futures of all that it reads.
        let workers = (Box::pin(worker()), Box::pin(worker()), Box::pin(worker()), Box::pin(worker()));
        let (first, second, third, fourth) = tokio::join!(workers.0, workers.1, workers.2, workers.3);
        let mut all: Vec<Reading> = [first, second, third, fourth].into_iter().flatten().collect();
        all.sort_by(|(one, _), (other, _)| one.account.cmp(&other.account));
        all
    }

    fn unread(&self, account: &str, regions: &[String], why: String) -> Reading {
        warn!(rotation.id = %self.campaign, "Account {account} could not be read: {why}");
        (Estate::unread(account, regions, why), Looks::new())
    }

    async fn read_one(
        &self,
        account: &str,
        policy: &FleetPolicy,
        regions: &[String],
        clock: &Clock,
    ) -> Result<Reading, StepError> {
        let Some(members) = self.members else {
            return Err(StepError::Conflict("this installation enters no other account".into()));
        };
        let config = members.enter(self.config, &self.partition, account, self.campaign).await?;
        let estate =
            Box::pin(estate::read(&config, Some(self.installation), account, regions, clock)).await?;
        let looks = Box::pin(estate::look_at_keys_until_full(&config, (policy, &estate), clock.now())).await;
        Ok((estate, looks))
    }
}
