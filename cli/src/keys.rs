//! The keys of a managed user as people see them: state, label, last use.
//!
//! Which key a version holds is in its value, so the value is read, parsed for the id, and dropped.

use std::fmt;

use facts::secrets::{CURRENT, PENDING, PREVIOUS, Secret, Which};
use keywheel::key::{KeyFacts, LastUse};
use keywheel::secret::{SecretValue, ValueError};
use keywheel::{AccessKeyId, UserName};

use crate::error::{Result, Trouble};
use crate::managed::Managed;
use crate::place::Place;

/// What a key is to its secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Label {
    /// The version that consumers read holds it.
    Current,
    /// The version before it does.
    Previous,
    /// It is stored and not yet promoted.
    Pending,
    /// No labelled version that could be read holds it.
    Unknown,
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Current => "current",
            Self::Previous => "previous",
            Self::Pending => "pending",
            Self::Unknown => "unknown",
        })
    }
}

/// One key of a user.
#[derive(Debug, Clone)]
pub(crate) struct KeyRow {
    pub(crate) key: KeyFacts,
    pub(crate) label: Label,
    /// `None` where it could not be read.
    pub(crate) last_use: Option<LastUse>,
}

/// The user's keys with label and last use, and what could not be read.
pub(crate) async fn all(place: &Place, managed: &Managed) -> Result<(Vec<KeyRow>, Vec<String>)> {
    let mut remarks = Vec::new();
    let mut labels: Vec<(AccessKeyId, Label)> = Vec::new();
    for (stage, label) in [(CURRENT, Label::Current), (PREVIOUS, Label::Previous), (PENDING, Label::Pending)]
    {
        match held(place, &managed.secret, &managed.user.facts.name, stage).await {
            Held::Key(key) => labels.push((key, label)),
            Held::Nothing => {}
            Held::Unfit(why) | Held::Unreadable(why) => {
                remarks.push(format!("The key that {stage} holds is not known: {}", why.text));
            }
        }
    }
    let iam = place.iam();
    let mut rows = Vec::new();
    for key in facts::iam::keys(&iam, &managed.user.facts.name).await? {
        let label = labels.iter().find(|(id, _)| *id == key.id).map_or(Label::Unknown, |(_, label)| *label);
        let last_use = facts::iam::last_use(&iam, &key.id).await.ok();
        rows.push(KeyRow { key, label, last_use });
    }
    Ok((rows, remarks))
}

/// What a labelled version of a secret holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Held {
    /// This key.
    Key(AccessKeyId),
    /// No key: there is no such version, or it waits for its first one.
    Nothing,
    /// A value that cannot be rotated.
    Unfit(Trouble),
    /// It could not be read.
    Unreadable(Trouble),
}

impl Held {
    /// The key, where it is known.
    pub(crate) fn key(&self) -> Option<&AccessKeyId> {
        match self {
            Self::Key(key) => Some(key),
            _ => None,
        }
    }
}

/// Reads which key a labelled version holds. The value is parsed and dropped.
pub(crate) async fn held(place: &Place, secret: &Secret, user: &UserName, label: &str) -> Held {
    let Some(version) = secret.labelled(label) else { return Held::Nothing };
    let client = place.secrets(secret.arn.region());
    match facts::secrets::value(&client, &secret.arn, Which::Version(&version)).await {
        Err(error) => Held::Unreadable(error.into()),
        Ok(None) => Held::Nothing,
        Ok(Some(value)) => match SecretValue::parse(value.text.as_deref(), user) {
            Ok(value) => value.key().map_or(Held::Nothing, Held::Key),
            Err(error) => Held::Unfit(unfit(&error, &secret.name, user)),
        },
    }
}

/// Why a value is not one that can be rotated, without a word of it.
fn unfit(error: &ValueError, secret: &str, user: &UserName) -> Trouble {
    if *error == ValueError::OtherUser {
        return Trouble::new(
            format!("Secret {secret} holds the key of another user than {user}: so its field UserName says."),
            "Check that user and secret belong together.",
        );
    }
    Trouble::new(
        format!("Secret {secret} cannot be rotated: {error}."),
        "It must be a JSON object with UserName, AccessKeyId and SecretAccessKey; other fields are kept as they are.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unfit_value_is_named_without_a_word_of_it() {
        let user: UserName = "svc-mail".parse().unwrap();
        let trouble = unfit(&ValueError::OtherUser, "app/mail", &user);
        assert!(trouble.text.contains("another user than svc-mail"), "{trouble}");
        let trouble = unfit(&ValueError::NotAnObject, "app/mail", &user);
        assert!(trouble.text.starts_with("Secret app/mail cannot be rotated: "), "{trouble}");
    }
}
