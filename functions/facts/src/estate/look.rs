//! A closer look at users: their keys, the one that their secret holds, and what earlier runs have left of them.

use std::time::Duration;

use aws_sdk_iam::Client;
use aws_types::SdkConfig;
use jiff::Timestamp;
use keywheel::clock::after;
use keywheel::decide::due;
use keywheel::decide::orphan::{Attribution, RECORD_WITHIN};
use keywheel::fleet::FleetPolicy;
use keywheel::fleet::estate::{Close, Current, Estate, Left, Look, Looks};
use keywheel::key::KeyFacts;
use keywheel::rotation::Suspect;
use keywheel::{AccessKeyId, RunId, SecretArn, StepError, UserName, aws};
use tokio::task::JoinSet;

use super::{AT_ONCE, Installation};
use crate::left::{self, Versions};
use crate::{executions, iam, secrets};

/// How long CloudTrail keeps its records.
const RECORDED_FOR: Duration = Duration::from_hours(24 * 90);

/// Looks closer at the users that a plan needs, in its order, until it has as many to rotate as its limit allows.
pub async fn look_until_full(
    config: &SdkConfig,
    installation: &Installation,
    of: (&FleetPolicy, &Estate),
    now: Timestamp,
) -> Looks {
    until_full(config, Some(installation), of, now).await
}

/// The same with a role that may read no secret's value: which key is current is then told by the keys alone, and what runs
/// have left by nobody.
pub async fn look_at_keys_until_full(
    config: &SdkConfig,
    of: (&FleetPolicy, &Estate),
    now: Timestamp,
) -> Looks {
    until_full(config, None, of, now).await
}

async fn until_full(
    config: &SdkConfig,
    installation: Option<&Installation>,
    (policy, estate): (&FleetPolicy, &Estate),
    now: Timestamp,
) -> Looks {
    let mut wanted = due::to_look_at(policy, estate, now).into_iter();
    let mut looks = Looks::new();
    loop {
        let next: Vec<_> = wanted.by_ref().take(due::room(policy, estate, &looks, now)).collect();
        if next.is_empty() {
            return looks;
        }
        looks.extend(look_at(config, installation, next, now).await);
    }
}

/// Looks closer at these users and their secrets. One that cannot be read has its reason.
pub async fn look(
    config: &SdkConfig,
    installation: &Installation,
    users: Vec<(String, SecretArn)>,
    now: Timestamp,
) -> Looks {
    look_at(config, Some(installation), users, now).await
}

async fn look_at(
    config: &SdkConfig,
    installation: Option<&Installation>,
    users: Vec<(String, SecretArn)>,
    now: Timestamp,
) -> Looks {
    let mut waiting = users.into_iter();
    let (mut looks, mut calls) = (Looks::new(), JoinSet::new());
    loop {
        while calls.len() < AT_ONCE
            && let Some((user, secret)) = waiting.next()
        {
            let (config, installation) = (config.clone(), installation.cloned());
            calls.spawn(async move {
                let look = Box::pin(close((&config, installation.as_ref()), &user, &secret, now)).await;
                (user, look.unwrap_or_else(|error| Look::Unread(error.to_string())))
            });
        }
        match calls.join_next().await {
            None => return looks,
            Some(Ok((user, look))) => {
                looks.insert(user, look);
            }
            // Only a bug breaks a look off; its user is then one that nobody has looked at.
            Some(Err(_)) => {}
        }
    }
}

async fn close(
    (config, installation): (&SdkConfig, Option<&Installation>),
    user: &str,
    secret: &SecretArn,
    now: Timestamp,
) -> Result<Look, StepError> {
    let client = Client::new(config);
    let name: UserName =
        user.parse().map_err(|error| StepError::Conflict(format!("its name is none: {error}")))?;
    let Some(found) = iam::user(&client, &name).await? else { return Ok(Look::Gone) };
    let keys = iam::keys(&client, &name).await?;
    let Some(installation) = installation else {
        let current = Current::Hidden("no values are read in other accounts".to_owned());
        let (retire, keep) = (found.retire, found.keep);
        return Ok(Look::Seen(Close { secret: found.secret, retire, keep, keys, current, left: None }));
    };
    let store = aws_sdk_secretsmanager::Client::new(&aws::in_region(config, secret.region()));
    let (current, stored) = match left::current(&store, secret, &name).await {
        Ok(Ok(stored)) => (stored.key().cloned().map_or(Current::Nothing, Current::Key), Some(stored)),
        Ok(Err(error)) => (Current::Unfit(error.to_string()), None),
        Err(error @ StepError::Refused(_)) => (Current::Hidden(error.to_string()), None),
        Err(error) => return Err(error),
    };
    // Of a user that does not name this secret, or has no key but the one that it holds, no run has left anything.
    let ours = found.secret.as_deref() == Some(secret.as_str());
    let left = match stored.filter(|stored| ours && keys.iter().any(|key| Some(&key.id) != stored.key())) {
        Some(stored) => {
            let desk = Desk { config, installation, store: &store, name: &name, keys: &keys, now };
            Some(Box::new(Box::pin(desk.left(secret, stored)).await?))
        }
        None => None,
    };
    Ok(Look::Seen(Close {
        secret: found.secret,
        retire: found.retire,
        keep: found.keep,
        keys,
        current,
        left,
    }))
}

/// What is known of a user when it is asked what runs have left of it.
struct Desk<'a> {
    config: &'a SdkConfig,
    installation: &'a Installation,
    store: &'a aws_sdk_secretsmanager::Client,
    name: &'a UserName,
    keys: &'a [KeyFacts],
    now: Timestamp,
}

impl Desk<'_> {
    /// What earlier runs have left, as a run reads it at its beginning. Boxed in parts: the SDK's futures are deep, and the
    /// compiler counts their depth.
    async fn left(&self, arn: &SecretArn, current: left::Current) -> Result<Left, StepError> {
        let sfn = aws_sdk_sfn::Client::new(&self.installation.config);
        // Any execution of the machine leads to its others; this one there need not be.
        let execution = executions::of_machine(&self.installation.rotation, RunId::standing_for("a plan"));
        let secret = secrets::describe(self.store, arn.as_str()).await?;
        let runs = (&sfn, execution.as_str());
        let of = (&secret, self.name);
        let Versions { pending, previous_key, current_run, last, held } =
            Box::pin(left::versions(self.store, runs, of, &current, (self.keys, self.now))).await?;
        let (iam, ssm) = (Client::new(self.config), aws_sdk_ssm::Client::new(&self.installation.config));
        let stage = self.installation.stage.as_str();
        let evidence = left::evidence((&iam, &ssm, stage), self.keys, current.key()).await?;
        let others: Vec<&KeyFacts> = self.keys.iter().filter(|key| Some(&key.id) != current.key()).collect();
        let stored = |id: &AccessKeyId| {
            previous_key.as_ref() == Some(id)
                || pending.as_ref().is_some_and(|pending| pending.key.as_ref() == Some(id))
        };
        let orphan = match others[..] {
            [other] if current.key().is_some() && evidence.is_none() && !stored(&other.id) => {
                self.whose(runs, arn, other).await?
            }
            _ => None,
        };
        Ok(Left {
            current: current.version,
            current_run,
            last,
            previous_key,
            pending,
            evidence,
            held,
            orphan,
        })
    }

    /// Whose a key is that no version names; `None` where CloudTrail cannot have its record, yet or any more.
    async fn whose(
        &self,
        runs: (&aws_sdk_sfn::Client, &str),
        secret: &SecretArn,
        key: &KeyFacts,
    ) -> Result<Option<Attribution>, StepError> {
        let (Some(role), Some(created)) = (self.installation.create_role.as_deref(), key.created) else {
            return Ok(None);
        };
        if self.now < after(created, RECORD_WITHIN) || self.now >= after(created, RECORDED_FOR) {
            return Ok(None);
        }
        let suspect = Suspect { key: key.id.clone(), created: key.created, stored_by: None };
        let of = (self.store, secret, self.name);
        Box::pin(left::whose(self.config, runs, of, (&suspect, role), self.now)).await.map(Some)
    }
}
