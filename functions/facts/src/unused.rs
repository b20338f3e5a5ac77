//! What is known of a key that nobody seems to use.

use aws_types::SdkConfig;
use keywheel::clock::Clock;
use keywheel::decide::unused::{Facts, Owner};
use keywheel::fleet::estate::Used;
use keywheel::fleet::freeze::Freezes;
use keywheel::{AccessKeyId, SecretArn, StepError, UserName, aws};

use crate::iam::{self, User};
use crate::{secrets, switch};

/// Which key is looked at, and where secrets may hold it.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Its user.
    pub user: &'a UserName,
    /// The key.
    pub key: &'a AccessKeyId,
    /// The regions whose secrets are asked.
    pub regions: &'a [String],
}

/// Everything that decides about the key, and what the parameter of the freezes is not understood as, where it is not.
/// A read that AWS refuses is unknown; one that may succeed later is an error.
pub async fn look(
    config: &SdkConfig,
    stage: &str,
    asked: Asked<'_>,
    clock: &Clock,
) -> Result<(Facts, Option<String>), StepError> {
    let ssm = aws_sdk_ssm::Client::new(config);
    let client = aws_sdk_iam::Client::new(config);
    let (mode, freezes, leaked) = switch::mode_freezes_and_leaked(&ssm, stage, asked.key).await?;
    let user = iam::user(&client, asked.user).await?;
    let mut held = None;
    if let Some(user) = &user {
        // On the heap, as all of this is nested in the step that asks.
        held = known(Box::pin(keys_held(config, user, asked)).await)?;
    }
    let last_use = known(iam::used(&client, asked.user, asked.key).await)?.unwrap_or(Used::Unknown);
    // Last of all: any read may take a quarter of a minute, IAM deletes Active keys as well, and whoever makes this one
    // so meanwhile must be seen.
    let keys = iam::keys(&client, asked.user).await?;
    let now = clock.now();
    let misread = match &freezes {
        Freezes::Known(_) => None,
        Freezes::Unknown(why) => Some(why.clone()),
    };
    let user =
        user.map(|user| Owner { spared: spared(&user, asked.key), id: user.facts.id, allows: user.unused });
    let frozen = freezes.holding(now);
    Ok((Facts { now, mode, frozen, user, keys, used: last_use, held, leaked }, misread))
}

/// The keys that secrets hold which name the user, and the one that the user itself names.
async fn keys_held(config: &SdkConfig, user: &User, asked: Asked<'_>) -> Result<Vec<AccessKeyId>, StepError> {
    let store = |region: &str| aws_sdk_secretsmanager::Client::new(&aws::in_region(config, region));
    let mut naming: Vec<SecretArn> = Vec::new();
    if let Some(own) = &user.secret {
        let own: SecretArn =
            own.parse().map_err(|error| StepError::Conflict(format!("the user's tag: {error}")))?;
        naming.push(own);
    }
    for region in asked.regions {
        for arn in secrets::naming(&store(region), asked.user).await? {
            if !naming.contains(&arn) {
                naming.push(arn);
            }
        }
    }
    let mut keys = Vec::new();
    for arn in &naming {
        for value in secrets::values_held(&store(arn.region()), arn, asked.user).await? {
            keys.extend(value.key());
            // No rotation is about a key under a name of somebody's own, and consumers may be.
            keys.extend(value.names(asked.key).then(|| asked.key.clone()));
        }
    }
    Ok(keys)
}

/// The keys that the user's other tags name; the one that is asked for also where something stands beside it there.
fn spared(user: &User, key: &AccessKeyId) -> Vec<AccessKeyId> {
    let mut tags = [iam::TAG_RETIRE, iam::TAG_KEEP].into_iter().filter_map(|tag| user.tags.get(tag));
    let own = tags.any(|tag| tag.to_ascii_uppercase().contains(key.as_str()));
    user.retire.iter().chain(&user.keep).cloned().chain(own.then(|| key.clone())).collect()
}

fn known<T>(read: Result<T, StepError>) -> Result<Option<T>, StepError> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(StepError::Refused(_) | StepError::Conflict(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
