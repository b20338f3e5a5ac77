//! What Secrets Manager knows of secrets and their versions.

use std::collections::BTreeMap;

use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::types::{Filter, FilterNameStringType};
use keywheel::{SecretArn, StepError, UserName, VersionId};

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
    /// The user that its tag names.
    pub user: Option<String>,
    /// Its versions with their labels.
    pub versions: BTreeMap<String, Vec<String>>,
}

impl Secret {
    /// The version that carries `label`.
    pub fn labelled(&self, label: &str) -> Option<VersionId> {
        let labels = |labels: &Vec<String>| labels.iter().any(|has| has == label);
        self.versions.iter().find(|(_, has)| labels(has)).and_then(|(id, _)| id.parse().ok())
    }

    /// Whether `version` carries `label`.
    pub fn carries(&self, version: &VersionId, label: &str) -> bool {
        self.versions.get(version.as_str()).is_some_and(|has| has.iter().any(|has| has == label))
    }
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
    let primary = reply.primary_region().map(str::to_owned).filter(|region| region != arn.region());
    Ok(Secret {
        name: reply.name().unwrap_or_default().to_owned(),
        deleted: reply.deleted_date().is_some(),
        primary_region: primary,
        user: reply
            .tags()
            .iter()
            .find(|tag| tag.key() == Some(TAG_USER))
            .and_then(|tag| tag.value())
            .map(str::to_owned),
        versions: reply
            .version_ids_to_stages()
            .map(|map| map.clone().into_iter().collect())
            .unwrap_or_default(),
        arn,
    })
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
    Ok(Some(Value { version, text: reply.secret_string().map(str::to_owned) }))
}

/// Other secrets whose tag names this user.
///
/// The list is up to five minutes behind; it finds a second secret, and is never asked for labels.
pub async fn rivals(client: &Client, user: &UserName, own: &SecretArn) -> Result<Vec<SecretArn>, StepError> {
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
    let mut rivals = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| StepError::from_sdk("secretsmanager:ListSecrets", &error))?;
        for entry in page.secret_list() {
            let names_user = entry
                .tags()
                .iter()
                .any(|tag| tag.key() == Some(TAG_USER) && tag.value() == Some(user.as_str()));
            if names_user && let Some(arn) = entry.arn().filter(|arn| *arn != own.as_str()) {
                rivals
                    .push(arn.parse().map_err(|error| StepError::Conflict(format!("ListSecrets: {error}")))?);
            }
        }
    }
    Ok(rivals)
}
