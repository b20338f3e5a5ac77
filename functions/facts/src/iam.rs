//! What IAM knows of users and keys.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_iam::Client;
use aws_sdk_iam::types::{AccessKeyMetadata, StatusType};
use keywheel::clock::Clock;
use keywheel::fleet::estate::Used;
use keywheel::key::{self, KeyFacts, KeyStatus, LastUse};
use keywheel::rotation::UserFacts;
use keywheel::{AccessKeyId, StepError, UserName, unused};

use crate::timestamp;

/// The user's tag that names its secret's ARN.
pub const TAG_SECRET: &str = "keywheel:secret";
/// The user's tag that names a key its owner wants superseded.
pub const TAG_RETIRE: &str = "keywheel:retire";
/// The user's tag that names a superseded key its owner wants kept.
pub const TAG_KEEP: &str = "keywheel:keep";

/// A user with the tags that concern us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Name, ARN and unique id.
    pub facts: UserFacts,
    /// The secret that the user names.
    pub secret: Option<String>,
    /// The key to be retired.
    pub retire: Option<AccessKeyId>,
    /// The key to be kept.
    pub keep: Option<AccessKeyId>,
    /// Whether its unused keys may go.
    pub unused: bool,
    /// All its tags.
    pub tags: BTreeMap<String, String>,
}

/// All tags of the user, or `None` where there is none.
pub async fn tags(iam: &Client, name: &UserName) -> Result<Option<BTreeMap<String, String>>, StepError> {
    Ok(user(iam, name).await?.map(|user| user.tags))
}

/// The user, or `None` where there is none.
pub async fn user(iam: &Client, name: &UserName) -> Result<Option<User>, StepError> {
    let reply = match iam.get_user().user_name(name.as_str()).send().await {
        Ok(reply) => reply,
        Err(error) => {
            let error = StepError::from_sdk("iam:GetUser", &error);
            return if error.is_refused(&["NoSuchEntity", "NoSuchEntityException"]) {
                Ok(None)
            } else {
                Err(error)
            };
        }
    };
    let Some(user) = reply.user else {
        return Err(StepError::Conflict(format!("IAM answered for user {name} without the user")));
    };
    let tags: BTreeMap<String, String> =
        user.tags().iter().map(|tag| (tag.key().to_owned(), tag.value().to_owned())).collect();
    let tag = |name: &str| tags.get(name).cloned();
    let key = |name: &str| tag(name).and_then(|id| id.parse().ok());
    Ok(Some(User {
        facts: UserFacts { name: name.clone(), arn: user.arn().to_owned(), id: user.user_id().to_owned() },
        secret: tag(TAG_SECRET),
        retire: key(TAG_RETIRE),
        keep: key(TAG_KEEP),
        unused: tag(unused::TAG).as_deref() == Some(unused::REMOVE),
        tags,
    }))
}

/// All keys of the user, read to the last page; none where the user is gone.
pub async fn keys(iam: &Client, user: &UserName) -> Result<Vec<KeyFacts>, StepError> {
    let mut pages = iam.list_access_keys().user_name(user.as_str()).into_paginator().send();
    let mut keys = Vec::new();
    while let Some(page) = pages.next().await {
        let page = match page {
            Ok(page) => page,
            Err(error) => {
                let error = StepError::from_sdk("iam:ListAccessKeys", &error);
                let gone = error.is_refused(&["NoSuchEntity", "NoSuchEntityException"]);
                return if gone { Ok(Vec::new()) } else { Err(error) };
            }
        };
        for row in page.access_key_metadata() {
            keys.push(key(row)?);
        }
    }
    Ok(keys)
}

fn key(row: &AccessKeyMetadata) -> Result<KeyFacts, StepError> {
    let id = row.access_key_id().unwrap_or_default();
    let id: AccessKeyId =
        id.parse().map_err(|error| StepError::Conflict(format!("ListAccessKeys: {error}")))?;
    let status = match row.status() {
        Some(StatusType::Active) => KeyStatus::Active,
        Some(StatusType::Inactive) => KeyStatus::Inactive,
        // IAM's set of states is open; what we do not know we do not touch.
        other => return Err(StepError::Conflict(format!("key {id} has the unknown status {other:?}"))),
    };
    Ok(KeyFacts { id, status, created: row.create_date().and_then(timestamp) })
}

/// The owner of a key of this account; `None` where there is no such key.
pub async fn owner(iam: &Client, key: &AccessKeyId) -> Result<Option<UserName>, StepError> {
    let reply = match iam.get_access_key_last_used().access_key_id(key.as_str()).send().await {
        Ok(reply) => reply,
        Err(error) => {
            let error = StepError::from_sdk("iam:GetAccessKeyLastUsed", &error);
            let none = error.is_refused(&["NoSuchEntity", "NoSuchEntityException"]);
            return if none { Ok(None) } else { Err(error) };
        }
    };
    let name = reply.user_name().unwrap_or_default();
    name.parse().map(Some).map_err(|error| StepError::Conflict(format!("GetAccessKeyLastUsed: {error}")))
}

/// IAM is read back until it shows what was done.
const READ_BACK: [Duration; 5] = [
    Duration::from_secs(0),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];

/// Makes a key Inactive, and reads it back. The caller has decided that it may.
pub async fn deactivate(
    iam: &Client,
    user: &UserName,
    id: &AccessKeyId,
    clock: &Clock,
) -> Result<(), StepError> {
    iam.update_access_key()
        .user_name(user.as_str())
        .access_key_id(id.as_str())
        .status(StatusType::Inactive)
        .send()
        .await
        .map_err(|error| StepError::from_sdk("iam:UpdateAccessKey", &error))?;
    for pause in READ_BACK {
        clock.sleep(pause).await;
        let keys = keys(iam, user).await?;
        if !key::find(&keys, id).is_some_and(KeyFacts::is_active) {
            return Ok(());
        }
    }
    Err(StepError::NotYetVisible(format!("key {id} does not read Inactive yet")))
}

/// When a key of this user was used last, where IAM knows of no use told apart from where it tells nothing.
pub async fn used(iam: &Client, user: &UserName, key: &AccessKeyId) -> Result<Used, StepError> {
    let reply = iam
        .get_access_key_last_used()
        .access_key_id(key.as_str())
        .send()
        .await
        .map_err(|error| StepError::from_sdk("iam:GetAccessKeyLastUsed", &error))?;
    if reply.user_name() != Some(user.as_str()) {
        return Err(StepError::Conflict(format!("IAM does not say that key {key} is one of {user}")));
    }
    let Some(last) = reply.access_key_last_used() else { return Ok(Used::Unknown) };
    Ok(match last.last_used_date() {
        Some(at) => timestamp(at).map_or(Used::Unknown, Used::At),
        None if last.service_name() == "N/A" => Used::Never,
        None => Used::Unknown,
    })
}

/// What IAM has recorded of a key's use.
pub async fn last_use(iam: &Client, key: &AccessKeyId) -> Result<LastUse, StepError> {
    let reply = iam
        .get_access_key_last_used()
        .access_key_id(key.as_str())
        .send()
        .await
        .map_err(|error| StepError::from_sdk("iam:GetAccessKeyLastUsed", &error))?;
    let used = reply.access_key_last_used();
    // IAM writes N/A where it knows nothing.
    let word = |text: &str| (!text.is_empty() && text != "N/A").then(|| text.to_owned());
    Ok(LastUse {
        at: used.and_then(|used| used.last_used_date()).and_then(timestamp),
        service: used.and_then(|used| word(used.service_name())),
        region: used.and_then(|used| word(used.region())),
    })
}
