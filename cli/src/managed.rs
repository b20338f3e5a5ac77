//! Managed users: a user and a secret whose tags name each other.

use facts::iam::User;
use facts::secrets::Secret;
use keywheel::{AccessKeyId, UserName};

use crate::error::{Result, Trouble};
use crate::names::{self, TypedUser};
use crate::place::Place;

/// A user and its secret, each named by the other's tag.
#[derive(Debug, Clone)]
pub(crate) struct Managed {
    pub(crate) user: User,
    pub(crate) secret: Secret,
}

impl Managed {
    /// The user's name.
    pub(crate) fn name(&self) -> &str {
        self.user.facts.name.as_str()
    }
}

/// The user that was meant; trouble with a suggestion where there is none.
pub(crate) async fn user(place: &Place, typed: &str) -> Result<User> {
    let name = match names::user(typed)? {
        TypedUser::Key(key) => return Err(key_for_user(place, &key).await),
        TypedUser::Name(_, Some(account)) if account != place.account => {
            return Err(Trouble::new(
                format!(
                    "{typed} is a user of account {account}, and these credentials are for account {}.",
                    place.account
                ),
                "Choose that account's profile with --profile.",
            ));
        }
        TypedUser::Name(name, _) => name,
    };
    match facts::iam::user(&place.iam(), &name).await? {
        Some(user) => Ok(user),
        None => Err(no_such_user(place, &name).await),
    }
}

async fn key_for_user(place: &Place, key: &AccessKeyId) -> Trouble {
    let text = format!("{key} is an access key id, not a user's name.");
    let owner = place.iam().get_access_key_last_used().access_key_id(key.as_str()).send().await;
    match owner.ok().and_then(|reply| reply.user_name) {
        Some(owner) => Trouble::new(text, format!("It belongs to user {owner}: give --user {owner}.")),
        None => Trouble::new(text, format!("No user of account {} is known to own it.", place.account)),
    }
}

/// How many pages of names are read for a suggestion; one more would make a typo expensive.
const SUGGESTION_PAGES: usize = 10;

async fn no_such_user(place: &Place, name: &UserName) -> Trouble {
    let text = format!("There is no IAM user {name} in account {}.", place.account);
    let mut known = Vec::new();
    let mut pages = place.iam().list_users().into_paginator().send();
    for _ in 0..SUGGESTION_PAGES {
        // A suggestion is a courtesy: without the right to list, there is none.
        let Some(Ok(page)) = pages.next().await else { break };
        known.extend(page.users().iter().map(|user| user.user_name().to_owned()));
    }
    match names::nearest(name.as_str(), known.iter().map(String::as_str)) {
        Some(near) => Trouble::new(text, format!("Did you mean {near}?")),
        None => Trouble::new(
            text,
            "Check the name, and with --profile the account; `keywheel status` lists managed users.",
        ),
    }
}

/// The secret that was meant; trouble with a suggestion where there is none.
pub(crate) async fn secret(place: &Place, typed: &str) -> Result<Secret> {
    let typed = names::secret(typed)?;
    let region = match &typed.place {
        Some((_, account)) if *account != place.account => {
            return Err(Trouble::new(
                format!(
                    "Secret {} is of account {account}, and these credentials are for account {}.",
                    typed.id, place.account
                ),
                "Choose that account's profile with --profile.",
            ));
        }
        Some((region, _)) => region.clone(),
        None => place.region.clone(),
    };
    match facts::secrets::describe(&place.secrets(&region), &typed.id).await {
        Ok(secret) => Ok(secret),
        Err(error) if error.is_refused(&["ResourceNotFoundException"]) => {
            Err(no_such_secret(place, &typed.id, &region).await)
        }
        Err(error) => Err(error.into()),
    }
}

async fn no_such_secret(place: &Place, id: &str, region: &str) -> Trouble {
    let text = format!("There is no secret {id} in {region} of account {}.", place.account);
    let mut known = Vec::new();
    let mut pages = place.secrets(region).list_secrets().max_results(100).into_paginator().send();
    for _ in 0..SUGGESTION_PAGES {
        let Some(Ok(page)) = pages.next().await else { break };
        known.extend(page.secret_list().iter().filter_map(|entry| entry.name().map(str::to_owned)));
    }
    match names::nearest(id, known.iter().map(String::as_str)) {
        Some(near) => Trouble::new(text, format!("Did you mean {near}?")),
        None if id.starts_with("arn:") => Trouble::new(
            text,
            "Check the ARN: the six characters at its end change when a secret is made anew.",
        ),
        None => Trouble::new(text, "A secret in another region is named by its ARN, or with --region."),
    }
}

/// A managed user by its name.
pub(crate) async fn by_user(place: &Place, typed: &str) -> Result<Managed> {
    let user = user(place, typed).await?;
    let Some(arn) = user.secret.clone() else {
        return Err(Trouble::new(
            format!(
                "User {} is not managed by Keywheel: it has no tag {}.",
                user.facts.name,
                facts::iam::TAG_SECRET
            ),
            format!(
                "`keywheel enroll --user {} --secret <secret>` puts it under management.",
                user.facts.name
            ),
        ));
    };
    let secret = secret(place, &arn).await.map_err(|trouble| {
        let text =
            format!("User {} is tied to a secret that cannot be read: {}", user.facts.name, trouble.text);
        Trouble::new(text, trouble.remedy)
    })?;
    both(user, secret)
}

/// A managed user by its secret.
pub(crate) async fn by_secret(place: &Place, typed: &str) -> Result<Managed> {
    let secret = secret(place, typed).await?;
    let Some(name) = secret.user.clone() else {
        return Err(Trouble::new(
            format!(
                "Secret {} is not managed by Keywheel: it has no tag {}.",
                secret.name,
                facts::secrets::TAG_USER
            ),
            format!("`keywheel enroll --user <name> --secret {}` puts it under management.", secret.name),
        ));
    };
    let user = user(place, &name).await?;
    both(user, secret)
}

/// The tag of one side alone proves nothing: whoever may tag secrets could name any user.
fn both(user: User, secret: Secret) -> Result<Managed> {
    let name = &user.facts.name;
    let fix =
        format!("Take the wrong tag off, then `keywheel enroll --user {name} --secret {}`.", secret.name);
    if user.secret.as_deref() != Some(secret.arn.as_str()) {
        let other =
            user.secret.as_deref().map_or("no secret".to_owned(), |arn| format!("another secret, {arn}"));
        return Err(Trouble::new(
            format!("Secret {} names user {name}, but the user's tag names {other}.", secret.name),
            fix,
        ));
    }
    match secret.user.as_deref() {
        Some(tag) if tag == name.as_str() => Ok(Managed { user, secret }),
        tag => {
            let other = tag.map_or("no user".to_owned(), |tag| format!("another user, {tag}"));
            Err(Trouble::new(
                format!("User {name} names secret {}, but the secret's tag names {other}.", secret.name),
                fix,
            ))
        }
    }
}

/// The ARNs of all secrets that name a user, to the last page.
pub(crate) async fn all(place: &Place) -> Result<Vec<String>> {
    let tagged = facts::estate::tagged(place.config(), &place.region).await?;
    Ok(tagged.into_iter().map(|secret| secret.arn.as_str().to_owned()).collect())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use keywheel::rotation::UserFacts;

    const ARN: &str = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:app/mail-AbCdEf";

    fn pair(user_tag: Option<&str>, secret_tag: Option<&str>) -> Result<Managed> {
        let facts = UserFacts { name: "svc-mail".parse().unwrap(), arn: String::new(), id: String::new() };
        let secret = user_tag.map(str::to_owned);
        let tags = std::collections::BTreeMap::new();
        let user = User { facts, secret, retire: None, keep: None, unused: false, tags };
        let secret = Secret {
            arn: ARN.parse().unwrap(),
            name: "app/mail".into(),
            deleted: false,
            primary_region: None,
            replication: Vec::new(),
            user: secret_tag.map(str::to_owned),
            tags: std::collections::BTreeMap::new(),
            versions: std::collections::BTreeMap::new(),
        };
        both(user, secret)
    }

    pub(crate) fn managed() -> Managed {
        pair(Some(ARN), Some("svc-mail")).unwrap()
    }

    #[test]
    fn only_a_pair_that_names_each_other_is_managed() {
        assert!(pair(Some(ARN), Some("svc-mail")).is_ok());
        for (user_tag, secret_tag) in [
            (Some(ARN), None),
            (Some(ARN), Some("eve")),
            (None, Some("svc-mail")),
            (Some("x"), Some("svc-mail")),
        ] {
            let trouble = pair(user_tag, secret_tag).unwrap_err();
            assert!(
                trouble.remedy.contains("keywheel enroll --user svc-mail --secret app/mail"),
                "{trouble}"
            );
        }
    }
}
