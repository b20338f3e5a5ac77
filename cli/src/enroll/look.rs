//! What there is before an enrolment changes anything.

use std::collections::BTreeMap;

use facts::iam::User;
use facts::secrets::{CURRENT, Secret, Which};
use keywheel::key::KeyFacts;
use keywheel::secret::SecretValue;
use keywheel::{AccessKeyId, SecretArn};

use super::plan::{self, Checked, Known, Offered, Plan, Refusal};
use crate::error::{Result, Trouble};
use crate::keys::{self, Held};
use crate::place::Place;
use crate::{managed, names};

/// What somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) user: String,
    pub(super) secret: String,
    pub(super) owner: Option<String>,
    pub(super) retire: Option<AccessKeyId>,
    /// Whether the secret is made where there is none.
    pub(super) create: bool,
}

/// What was found.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) user: User,
    pub(super) secret: Secret,
    /// Whether the secret is there; else it is as it will be, but for the end of its ARN.
    pub(super) exists: bool,
    pub(super) rivals: Vec<SecretArn>,
    pub(super) keys: Vec<KeyFacts>,
    pub(super) held: Held,
    /// Fields of the value that look like a credential and are none of ours.
    pub(super) alike: Vec<String>,
}

impl Seen {
    /// What is to be done for it.
    pub(super) fn plan(&self, wish: &Wish, offered: Option<Offered<'_>>) -> Checked<Plan> {
        let mut plan = plan::plan(&Known {
            user: &self.user,
            secret: &self.secret,
            rivals: &self.rivals,
            keys: &self.keys,
            held: &self.held,
            retire: wish.retire.as_ref(),
            owner: wish.owner.as_deref(),
            offered,
        })?;
        if !self.alike.is_empty() {
            plan.warnings.push(format!(
                "The secret has fields that Keywheel leaves as they are: {}. Whoever reads those keeps the old key: let consumers read UserName, AccessKeyId and SecretAccessKey first.",
                self.alike.join(", ")
            ));
        }
        Ok(plan)
    }

    /// Whether both tags are there already, so that a run may be at work.
    pub(super) fn is_enrolled(&self) -> bool {
        self.exists && self.user.secret.as_deref() == Some(self.secret.arn.as_str())
    }
}

/// Looks. Nothing is changed.
pub(super) async fn look(place: &Place, wish: &Wish) -> Checked<Seen> {
    let of = |field: &'static str| move |trouble: Trouble| Refusal::new(field, trouble);
    let user = managed::user(place, &wish.user).await.map_err(of("user"))?;
    let (secret, exists) = secret(place, &wish.secret, wish.create).await.map_err(of("secret"))?;
    let name = &user.facts.name;
    let rivals = facts::secrets::rivals(&place.secrets(secret.arn.region()), name, &secret.arn).await;
    let rivals = rivals.map_err(|error| Refusal::new("user", error.into()))?;
    let keys = facts::iam::keys(&place.iam(), name).await;
    let keys = keys.map_err(|error| Refusal::new("user", error.into()))?;
    let held = keys::held(place, &secret, name, CURRENT).await;
    let alike =
        if held == Held::Nothing { alike(place, &secret).await.map_err(of("secret"))? } else { Vec::new() };
    Ok(Seen { user, secret, exists, rivals, keys, held, alike })
}

/// The secret, and whether it is there.
async fn secret(place: &Place, typed: &str, create: bool) -> Result<(Secret, bool)> {
    let named = names::secret(typed)?;
    // An ARN is that of something that was made already.
    if !create || named.place.is_some() {
        return Ok((managed::secret(place, typed).await?, true));
    }
    match facts::secrets::describe(&place.secrets(&place.region), &named.id).await {
        Ok(secret) => Ok((secret, true)),
        Err(error) if error.is_refused(&["ResourceNotFoundException"]) => {
            Ok((to_be_made(place, &named.id)?, false))
        }
        Err(error) => Err(error.into()),
    }
}

/// The secret as it will be. AWS chooses the six characters at the end of its ARN.
fn to_be_made(place: &Place, name: &str) -> Result<Secret> {
    if !is_secret_name(name) {
        return Err(Trouble::new(
            format!("{name:?} cannot be the name of a secret."),
            "It has 1 to 512 letters, digits or any of /_+=.@-.",
        ));
    }
    let arn = format!(
        "arn:{}:secretsmanager:{}:{}:secret:{name}-??????",
        place.partition, place.region, place.account
    );
    Ok(Secret {
        arn: arn.parse().map_err(|error| Trouble::new(format!("{error}."), ""))?,
        name: name.to_owned(),
        deleted: false,
        primary_region: None,
        replication: Vec::new(),
        user: None,
        tags: BTreeMap::new(),
        versions: BTreeMap::new(),
    })
}

fn is_secret_name(name: &str) -> bool {
    (1..=512).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"/_+=.@-".contains(&b))
}

/// Reads a value that holds no key of ours for what else it may hold: names of fields, no value of any.
async fn alike(place: &Place, secret: &Secret) -> Result<Vec<String>> {
    let Some(version) = secret.labelled(CURRENT) else { return Ok(Vec::new()) };
    let client = place.secrets(secret.arn.region());
    let Some(value) = facts::secrets::value(&client, &secret.arn, Which::Version(&version)).await? else {
        return Ok(Vec::new());
    };
    let value = SecretValue::of_anybody(value.text.as_deref());
    Ok(value.map(|value| value.look_alikes()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_aws_would_refuse_is_refused_before() {
        for right in ["app/mail", "a", "A+b=c.d@e-f_g"] {
            assert!(is_secret_name(right), "{right}");
        }
        let long = "a".repeat(513);
        for wrong in ["", "a b", "a*", "ä", long.as_str()] {
            assert!(!is_secret_name(wrong), "{wrong}");
        }
    }
}
