//! What Secrets Manager knows of secrets and their versions.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::types::{Filter, FilterNameStringType, ReplicationStatusType, StatusType};
use jiff::Timestamp;
use keywheel::replica::Follows;
use keywheel::secret::SecretValue;
use keywheel::{AccessKeyId, RunId, SecretArn, StepError, UserName, VersionId};

use crate::timestamp;

/// The secret's tag that names its user.
pub const TAG_USER: &str = "keywheel:user";

/// The label of the version that consumers read.
pub const CURRENT: &str = "AWSCURRENT";
/// The label of the version before it.
pub const PREVIOUS: &str = "AWSPREVIOUS";
/// The label of the version that is on its way.
pub const PENDING: &str = "AWSPENDING";

/// A secret without its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// Its full ARN.
    pub arn: SecretArn,
    /// Its name.
    pub name: String,
    /// Whether its deletion is scheduled.
    pub deleted: bool,
    /// The region of the primary, where this is a replica.
    pub primary_region: Option<String>,
    /// How its replicas are kept up, where it is a primary that has some.
    pub replication: Vec<Replication>,
    /// The user that its tag names.
    pub user: Option<String>,
    /// All its tags.
    pub tags: BTreeMap<String, String>,
    /// Its versions with their labels.
    pub versions: BTreeMap<String, Vec<String>>,
}

/// How a replica in another region is kept up, as its primary tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replication {
    /// The region.
    pub region: String,
    /// Whether it follows.
    pub follows: Follows,
}

impl Replication {
    fn read(status: &ReplicationStatusType) -> Self {
        let reason = || status.status_message().unwrap_or("no reason is given").to_owned();
        Self {
            // A replica without a region is one that cannot be read, not one that is not there.
            region: status.region().unwrap_or("(unnamed)").to_owned(),
            follows: match status.status() {
                Some(StatusType::InSync) => Follows::InSync,
                Some(StatusType::Failed) => Follows::NoMore(reason()),
                _ => Follows::Copying,
            },
        }
    }
}

impl Secret {
    /// The version that carries `label`.
    pub fn labelled(&self, label: &str) -> Option<VersionId> {
        let labels = |labels: &Vec<String>| labels.iter().any(|has| has == label);
        self.versions.iter().find(|(_, has)| labels(has)).and_then(|(id, _)| id.parse().ok())
    }

    /// The version that is on its way: it has AWSPENDING, and is neither the current nor the previous one.
    pub fn on_its_way(&self) -> Option<VersionId> {
        let version = self.labelled(PENDING)?;
        (!self.carries(&version, CURRENT) && !self.carries(&version, PREVIOUS)).then_some(version)
    }

    /// The runs that took work on this secret over, with the versions they work on.
    pub fn claims(&self) -> Vec<(VersionId, RunId)> {
        let of = |(id, labels): (&String, &Vec<String>)| -> Vec<(VersionId, RunId)> {
            let Ok(version) = id.parse::<VersionId>() else { return Vec::new() };
            labels
                .iter()
                .filter_map(|label| RunId::from_label(label))
                .map(|run| (version.clone(), run))
                .collect()
        };
        self.versions.iter().flat_map(of).collect()
    }

    /// The runs that may be at work on `version`: the one that wrote it, and those that took it over.
    pub fn runs_on(&self, version: &VersionId) -> Vec<RunId> {
        let wrote = version.as_str().parse().ok();
        let claims = self.claims().into_iter().filter(|(claimed, _)| claimed == version);
        wrote.into_iter().chain(claims.map(|(_, run)| run)).collect()
    }

    /// Whether `version` carries `label`.
    pub fn carries(&self, version: &VersionId, label: &str) -> bool {
        self.versions.get(version.as_str()).is_some_and(|has| has.iter().any(|has| has == label))
    }
}

/// The runs that versions with these ids and labels name: who wrote them, and who has taken them over.
pub fn runs<'a>(versions: impl Iterator<Item = (&'a String, &'a Vec<String>)>) -> Vec<RunId> {
    let of = |(id, labels): (&String, &Vec<String>)| -> Vec<RunId> {
        let wrote: Option<RunId> = id.parse().ok();
        wrote.into_iter().chain(labels.iter().filter_map(|label| RunId::from_label(label))).collect()
    };
    versions.flat_map(of).collect()
}

/// Describes a secret by name or ARN.
pub async fn describe(client: &Client, id: &str) -> Result<Secret, StepError> {
    let reply = client
        .describe_secret()
        .secret_id(id)
        .send()
        .await
        .map_err(|error| StepError::from_sdk("secretsmanager:DescribeSecret", &error))?;
    let arn = reply.arn().unwrap_or_default();
    let arn: SecretArn =
        arn.parse().map_err(|error| StepError::Conflict(format!("DescribeSecret: {error}")))?;
    let tag =
        |tag: &aws_sdk_secretsmanager::types::Tag| Some((tag.key()?.to_owned(), tag.value()?.to_owned()));
    let tags: BTreeMap<String, String> = reply.tags().iter().filter_map(tag).collect();
    let primary = reply.primary_region().map(str::to_owned).filter(|region| region != arn.region());
    let own: &[ReplicationStatusType] = if primary.is_none() { reply.replication_status() } else { &[] };
    Ok(Secret {
        replication: own.iter().map(Replication::read).collect(),
        name: reply.name().unwrap_or_default().to_owned(),
        deleted: reply.deleted_date().is_some(),
        primary_region: primary,
        user: tags.get(TAG_USER).cloned(),
        tags,
        versions: reply
            .version_ids_to_stages()
            .map(|map| map.clone().into_iter().collect())
            .unwrap_or_default(),
        arn,
    })
}

/// The version that AWSCURRENT names now; `None` where the secret is gone or about to be.
pub async fn current(client: &Client, arn: &SecretArn) -> Result<Option<VersionId>, StepError> {
    Ok(current_and_replication(client, arn).await?.0)
}

/// The same, and how its replicas are kept up.
pub async fn current_and_replication(
    client: &Client,
    arn: &SecretArn,
) -> Result<(Option<VersionId>, Vec<Replication>), StepError> {
    match describe(client, arn.as_str()).await {
        Ok(secret) if secret.deleted => Ok((None, Vec::new())),
        Ok(secret) => Ok((secret.labelled(CURRENT), secret.replication)),
        Err(error) if error.is_refused(&["ResourceNotFoundException"]) => Ok((None, Vec::new())),
        Err(error) => Err(error),
    }
}

/// Which version of a secret to read.
#[derive(Debug, Clone, Copy)]
pub enum Which<'a> {
    /// The one that carries a label.
    Label(&'a str),
    /// The one with this id.
    Version(&'a VersionId),
}

/// One version's id, and its text; `None` where the value is binary.
pub struct Value {
    /// The version's id.
    pub version: VersionId,
    /// When the version was written.
    pub created: Option<Timestamp>,
    /// The text. Never printed: there is no `Debug` for it.
    pub text: Option<String>,
}

/// Reads a version, or `None` where there is no such version.
pub async fn value(client: &Client, arn: &SecretArn, which: Which<'_>) -> Result<Option<Value>, StepError> {
    let call = client.get_secret_value().secret_id(arn.as_str());
    let call = match which {
        Which::Label(label) => call.version_stage(label),
        Which::Version(version) => call.version_id(version.as_str()),
    };
    let reply = match call.send().await {
        Ok(reply) => reply,
        Err(error) => {
            let error = StepError::from_sdk("secretsmanager:GetSecretValue", &error);
            return if error.is_refused(&["ResourceNotFoundException"]) { Ok(None) } else { Err(error) };
        }
    };
    let version = reply.version_id().unwrap_or_default();
    let version = version.parse().map_err(|error| StepError::Conflict(format!("GetSecretValue: {error}")))?;
    let created = reply.created_date().and_then(timestamp);
    Ok(Some(Value { version, created, text: reply.secret_string().map(str::to_owned) }))
}

/// Other secrets whose tag names this user.
///
/// The list is up to five minutes behind; it finds a second secret, and is never asked for labels.
pub async fn rivals(client: &Client, user: &UserName, own: &SecretArn) -> Result<Vec<SecretArn>, StepError> {
    let mut rivals = naming(client, user).await?;
    rivals.retain(|arn| arn != own);
    Ok(rivals)
}

/// All secrets of the client's region whose tag names this user.
pub async fn naming(client: &Client, user: &UserName) -> Result<Vec<SecretArn>, StepError> {
    let filter = |key: FilterNameStringType, value: &str| Filter::builder().key(key).values(value).build();
    let mut call = client.list_secrets().filters(filter(FilterNameStringType::TagKey, TAG_USER));
    // A filter takes fewer characters than a user's name may have. It matches prefixes, so the part before
    // the first such character narrows the list, and the comparison below decides.
    let prefix: String =
        user.as_str().chars().take_while(|c| c.is_ascii_alphanumeric() || " :_@/+=.-".contains(*c)).collect();
    if !prefix.is_empty() {
        call = call.filters(filter(FilterNameStringType::TagValue, &prefix));
    }
    let mut pages = call.max_results(100).into_paginator().send();
    let mut found = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| StepError::from_sdk("secretsmanager:ListSecrets", &error))?;
        for entry in page.secret_list() {
            let names_user = entry
                .tags()
                .iter()
                .any(|tag| tag.key() == Some(TAG_USER) && tag.value() == Some(user.as_str()));
            if names_user && let Some(arn) = entry.arn() {
                found
                    .push(arn.parse().map_err(|error| StepError::Conflict(format!("ListSecrets: {error}")))?);
            }
        }
    }
    Ok(found)
}

/// The keys that a secret holds for a user, in any version with a label: its current key, and whatever a rotation is
/// about. A value that cannot be understood may hold any key, and is an error.
pub async fn keys_held(
    client: &Client,
    arn: &SecretArn,
    user: &UserName,
) -> Result<Vec<AccessKeyId>, StepError> {
    Ok(values_held(client, arn, user).await?.iter().filter_map(SecretValue::key).collect())
}

/// The values of those versions.
pub async fn values_held(
    client: &Client,
    arn: &SecretArn,
    user: &UserName,
) -> Result<Vec<SecretValue>, StepError> {
    let secret = match describe(client, arn.as_str()).await {
        Ok(secret) => secret,
        Err(error) if error.is_refused(&["ResourceNotFoundException"]) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let odd = |error: &dyn std::fmt::Display| StepError::Conflict(format!("{arn}: {error}"));
    let mut values = Vec::new();
    for (id, _) in secret.versions.iter().filter(|(_, labels)| !labels.is_empty()) {
        let version: VersionId = id.parse().map_err(|error| odd(&error))?;
        let Some(value) = value(client, arn, Which::Version(&version)).await? else { continue };
        values.push(SecretValue::parse(value.text.as_deref(), user).map_err(|error| odd(&error))?);
    }
    Ok(values)
}

/// Makes `run` findable from the version whose work it takes over. `ended` are the runs that are known to have ended;
/// where the secret has no room for one label more (it holds 20), theirs make room for it.
///
/// Theirs come off by [`let_go`], and only by a run that stays: a run that turned a secret back to a version which no
/// run wrote is found by its label alone, and who dies or leaves between the two must not have taken that away.
pub async fn claim(
    client: &Client,
    secret: &Secret,
    version: &VersionId,
    run: RunId,
    ended: &[RunId],
) -> Result<(), StepError> {
    if secret.carries(version, &run.label()) {
        return Ok(());
    }
    match put_label(client, secret, version, run).await {
        Err(error) if error.is_refused(&["LimitExceededException"]) => {
            // One stays on each version: it may be all that leads from there to a run.
            let mut led: BTreeSet<VersionId> = BTreeSet::new();
            for (claimed, ended) in stale(secret, ended) {
                if !led.insert(claimed.clone()) {
                    disclaim(client, &secret.arn, &claimed, ended).await?;
                }
            }
            put_label(client, secret, version, run).await
        }
        other => other,
    }
}

/// Takes the labels of ended runs off all versions but `kept`, once the run that goes on in their place has left its
/// own.
pub async fn let_go(
    client: &Client,
    secret: &Secret,
    ended: &[RunId],
    kept: Option<&VersionId>,
) -> Result<(), StepError> {
    for (claimed, run) in stale(secret, ended).into_iter().filter(|(claimed, _)| Some(claimed) != kept) {
        disclaim(client, &secret.arn, &claimed, run).await?;
    }
    Ok(())
}

fn stale(secret: &Secret, ended: &[RunId]) -> Vec<(VersionId, RunId)> {
    secret.claims().into_iter().filter(|(_, run)| ended.contains(run)).collect()
}

async fn put_label(
    client: &Client,
    secret: &Secret,
    version: &VersionId,
    run: RunId,
) -> Result<(), StepError> {
    let call = client.update_secret_version_stage().secret_id(secret.arn.as_str());
    let moved = call.version_stage(run.label()).move_to_version_id(version.as_str()).send().await;
    moved.map(|_| ()).map_err(|error| StepError::from_sdk("secretsmanager:UpdateSecretVersionStage", &error))
}

/// Takes a run's label off a version; one that is not there any more is no error.
pub async fn disclaim(
    client: &Client,
    arn: &SecretArn,
    version: &VersionId,
    run: RunId,
) -> Result<(), StepError> {
    let call = client.update_secret_version_stage().secret_id(arn.as_str());
    let taken = call.version_stage(run.label()).remove_from_version_id(version.as_str()).send().await;
    match taken.map_err(|error| StepError::from_sdk("secretsmanager:UpdateSecretVersionStage", &error)) {
        Err(error) if !error.is_refused(&["InvalidParameterException"]) => Err(error),
        _ => Ok(()),
    }
}
