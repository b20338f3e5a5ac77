//! Which keys were meant: by an id, by a user, or by the secret that is tagged for one.

use facts::iam::User;
use keywheel::key::KeyFacts;
use keywheel::{AccessKeyId, StepError, UserName};

use crate::error::{Result, Trouble};
use crate::managed;
use crate::names::{self, TypedUser};
use crate::place::Place;

/// A user, and those of its keys that were meant.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) user: User,
    pub(super) keys: Vec<KeyFacts>,
}

/// Finds it; trouble that says where it is instead where that is known.
pub(super) async fn find(place: &Place, typed: &str) -> Result<Subject> {
    let text = typed.trim();
    if looks_secret(text) {
        return Err(Trouble::new(
            "What was given looks like the secret half of a pair, and is not repeated.",
            "Give the key's id, which looks like AKIAIOSFODNN7EXAMPLE; and if the secret half was shown to anybody, revoke the key.",
        ));
    }
    if text.contains(":secretsmanager:") {
        return by_secret(place, text).await;
    }
    match names::user(text) {
        Ok(TypedUser::Key(key)) => by_key(place, &key).await,
        Ok(TypedUser::Name(_, Some(account))) if account != place.account => {
            Err(elsewhere(place, text, &account))
        }
        Ok(TypedUser::Name(name, account)) => match facts::iam::user(&place.iam(), &name).await? {
            Some(user) => all(place, user).await,
            None if account.is_some() => {
                Err(Trouble::new(format!("There is no user {text}."), "Check the name."))
            }
            None => by_secret(place, text).await.map_err(|trouble| {
                Trouble::new(format!("There is no IAM user {text}. {}", trouble.text), trouble.remedy)
            }),
        },
        // What no user can be called, a secret can: a name with a slash in it.
        Err(_) if !text.starts_with("arn:") && !text.is_empty() => by_secret(place, text).await,
        Err(_) => Err(Trouble::new(
            "What was given names no key, no user and no secret.",
            "Give a key's id, a user's name or ARN, or a secret's name or ARN.",
        )),
    }
}

/// Whether it may be the secret half of a pair: forty letters, digits and the two marks of its alphabet.
fn looks_secret(text: &str) -> bool {
    text.len() == 40
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'/' || b == b'+')
        && text.bytes().any(|b| b.is_ascii_uppercase())
        && text.bytes().any(|b| b.is_ascii_lowercase())
}

fn elsewhere(place: &Place, what: &str, account: &str) -> Trouble {
    Trouble::new(
        format!(
            "{what} belongs to account {account}, and these credentials are for account {}.",
            place.account
        ),
        "Choose that account's profile with --profile.",
    )
}

/// All keys of a user.
async fn all(place: &Place, user: User) -> Result<Subject> {
    let keys = facts::iam::keys(&place.iam(), &user.facts.name).await?;
    Ok(Subject { user, keys })
}

/// The keys of the user that a secret is tagged for.
async fn by_secret(place: &Place, typed: &str) -> Result<Subject> {
    let secret = managed::secret(place, typed).await?;
    let Some(name) = &secret.user else {
        return Err(Trouble::new(
            format!("Secret {} is tagged for no user, and its value is not read here.", secret.name),
            "Give the user, or the key's id.",
        ));
    };
    let user = managed::user(place, name).await?;
    all(place, user).await
}

/// The key of that id, by whom IAM names as its owner.
async fn by_key(place: &Place, key: &AccessKeyId) -> Result<Subject> {
    let owner = match facts::iam::owner(&place.iam(), key).await {
        Ok(Some(owner)) => owner,
        // IAM refuses a key of another account, and calls a deleted one unknown: STS tells them apart.
        Ok(None) => return Err(not_here(place, key, account(place, key).await)),
        Err(error @ StepError::Refused(_)) => {
            return Err(match account(place, key).await {
                Ok(Some(account)) if account != place.account => {
                    elsewhere(place, &format!("Key {key}"), &account)
                }
                _ => error.into(),
            });
        }
        Err(error) => return Err(error.into()),
    };
    of_owner(place, key, &owner).await
}

async fn of_owner(place: &Place, key: &AccessKeyId, owner: &UserName) -> Result<Subject> {
    let gone = || {
        Trouble::new(
            format!("Key {key} of user {owner} was deleted while this command looked."),
            "Run it again.",
        )
    };
    let user = facts::iam::user(&place.iam(), owner).await?.ok_or_else(gone)?;
    let mut subject = all(place, user).await?;
    subject.keys.retain(|known| known.id == *key);
    if subject.keys.is_empty() { Err(gone()) } else { Ok(subject) }
}

fn not_here(place: &Place, key: &AccessKeyId, account: Result<Option<String>>) -> Trouble {
    match account {
        Ok(Some(account)) if account != place.account => elsewhere(place, &format!("Key {key}"), &account),
        Ok(Some(account)) => Trouble::new(
            format!(
                "Key {key} is of account {account}, and no user there has it: it was deleted, or is the root user's."
            ),
            format!("If it leaked, `keywheel incident {key}` shows what is kept of it."),
        ),
        Ok(None) => Trouble::new(format!("There is no key {key}."), "Check the id."),
        Err(trouble) => Trouble::new(
            format!(
                "No user of account {} has key {key}. Whose it is could not be read: {}",
                place.account, trouble.text
            ),
            trouble.remedy,
        ),
    }
}

/// The account of a key, whoever has it; `None` where AWS knows of none.
async fn account(place: &Place, key: &AccessKeyId) -> Result<Option<String>> {
    let call = aws_sdk_sts::Client::new(place.config()).get_access_key_info();
    match call.access_key_id(key.as_str()).send().await {
        Ok(reply) => Ok(reply.account),
        Err(error) => match StepError::from_sdk("sts:GetAccessKeyInfo", &error) {
            error if error.is_refused(&["ValidationError"]) => Ok(None),
            error => Err(error.into()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_half_is_known_by_its_looks_and_names_are_not_taken_for_one() {
        let half = format!("{}/+{}", "aB3".repeat(9), "y".repeat(11));
        assert_eq!(half.len(), 40);
        assert!(looks_secret(&half));
        for name in
            ["AKIAIOSFODNN7EXAMPLE", "app/mail", &"a".repeat(40), "app/mail-with-a-name-of-forty-lettersXYZ"]
        {
            assert!(!looks_secret(name), "{name}");
        }
    }
}
