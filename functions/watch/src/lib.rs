//! The `Watch` state: whether the making of a key is odd.
//!
//! Two things are: a key of a managed user that none of our runs has made, which is told at once, and one principal
//! that makes more keys than the emergency policy takes for usual. CloudTrail's history shows a call up to a quarter
//! of an hour late, so for the second the machine waits that long and comes back. What is odd becomes an incident,
//! and by default a person decides.

use std::time::Duration;

use aws_types::SdkConfig;
use facts::member::{self, Members};
use facts::{switch, trail};
use jiff::Timestamp;
use keywheel::clock::{after, wait_time};
use keywheel::decide::making::{self, SHOWN_LATE, Usual};
use keywheel::emergency::Emergency;
use keywheel::incident::Course;
use keywheel::making::Made;
use keywheel::{Alert, Context, Step, StepError, aws};
use tracing::{info, warn};

/// Over how many seconds the looks into the history are spread.
const SPREAD: u8 = 180;

/// The step.
pub struct Watch {
    config: SdkConfig,
    members: Option<Members>,
    create_roles: Vec<String>,
    member_create_role: String,
}

impl Watch {
    /// A step that calls AWS with `config`, and reads other accounts where there are `members`. `create_roles` are the
    /// ARNs of the roles that make keys for Keywheel in this account, of whatever stage, and `member_create_role` is the
    /// name of the one that does so in any other.
    pub fn new(
        config: SdkConfig,
        members: Option<Members>,
        create_roles: Vec<String>,
        member_create_role: String,
    ) -> Self {
        Self { config, members, create_roles, member_create_role }
    }
}

impl Step for Watch {
    const NAME: &'static str = "watch";
    type Input = Alert;
    type Output = Alert;

    /// It only reads. Run twice, it says the same; the incident's name follows from what was odd, so that it is
    /// started once.
    async fn run(&self, mut alert: Alert, ctx: &Context) -> Result<Alert, StepError> {
        let made = alert.made.clone();
        let made = made.ok_or_else(|| StepError::BadInput("the alert names no key that was made".into()))?;
        let elsewhere = making::elsewhere(&made, alert.own_account());
        let mut roles = self.create_roles.clone();
        roles.extend(
            elsewhere.map(|account| member::role_in(&self.member_create_role, made.partition(), account)),
        );
        if let Some(why) = making::usual(&made, &roles) {
            return Ok(settled(alert, &made, why));
        }
        let now = ctx.clock.now();
        let config = aws::for_run(&self.config, alert.id);
        if alert.wait_until.is_none() {
            let managed = match elsewhere {
                Some(account) => self.is_managed_in(&config, &alert, &made, account).await?,
                None => is_managed(&config, &made).await?,
            };
            if managed {
                let odd = making::of_a_managed_user(&made);
                info!(rotation.id = %alert.id, key.id = %made.key, "{}", odd.reason);
                // One key, one incident, whatever the policy says.
                alert.open_odd(&made, odd, &Emergency::default(), now);
                return Ok(alert);
            }
            if elsewhere.is_some() {
                // How many keys are made there is for its own people to know.
                return Ok(settled(alert, &made, "it is another account's, of a user that is not managed"));
            }
            // Those of one burst wake one after another: all of them share two lookups a second.
            let spread = Duration::from_secs(u64::from(alert.id.spread(SPREAD)));
            alert.wait_until = Some(wait_time(after(made.at, SHOWN_LATE + spread)));
        }
        if alert.wait_until.is_some_and(|until| now < until) {
            return Ok(alert);
        }
        let policy = policy(&config, ctx, &alert).await;
        let usual = policy.key_making;
        let others = history(&config, &made, usual, now).await?;
        match making::burst(&made, &others, usual) {
            Some(odd) => {
                warn!(rotation.id = %alert.id, key.id = %made.key, "{}", odd.reason);
                alert.open_odd(&made, odd, &policy, now);
                Ok(alert)
            }
            None => Ok(settled(alert, &made, "no more keys were made than is usual")),
        }
    }
}

async fn is_managed(config: &SdkConfig, made: &Made) -> Result<bool, StepError> {
    let Some(user) = &made.user else { return Ok(false) };
    let user = facts::iam::user(&aws_sdk_iam::Client::new(config), user).await?;
    Ok(user.is_some_and(|user| user.secret.is_some()))
}

impl Watch {
    /// The same in another account. One that lets nobody in, or no user be read, has no user of ours.
    async fn is_managed_in(
        &self,
        config: &SdkConfig,
        alert: &Alert,
        made: &Made,
        account: &str,
    ) -> Result<bool, StepError> {
        let Some(members) = &self.members else { return Ok(false) };
        let partition = alert.execution.split(':').nth(1).unwrap_or_default();
        let managed = match members.enter(config, partition, account, alert.id).await {
            Ok(there) => is_managed(&there, made).await,
            Err(error) => Err(error),
        };
        match managed {
            Err(error @ StepError::Refused(_)) => {
                warn!(rotation.id = %alert.id, "Account {account} could not be read: {error}");
                Ok(false)
            }
            other => other,
        }
    }
}

/// The emergency policy; where it cannot be read, what holds without one.
async fn policy(config: &SdkConfig, ctx: &Context, alert: &Alert) -> Emergency {
    match switch::emergency(&aws_sdk_ssm::Client::new(config), &ctx.stage).await {
        Ok(policy) => policy,
        Err(error) => {
            warn!(rotation.id = %alert.id, "The emergency policy could not be read, so what is usual by default is: {error}");
            Emergency::default()
        }
    }
}

/// The keys that were made around this one.
async fn history(
    config: &SdkConfig,
    made: &Made,
    usual: Usual,
    now: Timestamp,
) -> Result<Vec<Made>, StepError> {
    let config = trail::iam_region(made.partition())
        .map_or_else(|| config.clone(), |region| aws::in_region(config, region));
    let span = usual.span();
    let since = made.at.checked_sub(span).unwrap_or(made.at);
    let trail = aws_sdk_cloudtrail::Client::new(&config);
    // More than enough is enough: of a burst the first page tells.
    let enough = |others: &[Made]| making::burst(made, others, usual).is_some();
    trail::made_between(&trail, since, after(made.at, span).min(now), enough).await
}

fn settled(mut alert: Alert, made: &Made, why: &str) -> Alert {
    info!(rotation.id = %alert.id, key.id = %made.key, "The making of key {} is not odd: {why}", made.key);
    alert.course = Course::Nothing;
    alert.wait_until = None;
    alert
}
