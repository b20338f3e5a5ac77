//! What an enrolment would do, from the facts alone.

use facts::iam::{TAG_KEEP, TAG_RETIRE, TAG_SECRET, User};
use facts::secrets::{Secret, TAG_USER};
use keywheel::fleet::rules::TAG_OWNER;
use keywheel::key::KeyFacts;
use keywheel::{AccessKeyId, SecretArn};

use crate::error::Trouble;
use crate::keys::Held;

/// A refusal, with the column of a list that it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) field: &'static str,
    pub(crate) trouble: Trouble,
}

impl Refusal {
    /// A refusal because of this column.
    pub(crate) fn new(field: &'static str, trouble: Trouble) -> Self {
        Self { field, trouble }
    }
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        refusal.trouble
    }
}

/// What may be refused for the sake of a column.
pub(crate) type Checked<T> = std::result::Result<T, Refusal>;

/// What is known before anything is changed.
#[derive(Debug, Clone)]
pub(crate) struct Known<'a> {
    pub(crate) user: &'a User,
    pub(crate) secret: &'a Secret,
    /// Other secrets whose tag names this user.
    pub(crate) rivals: &'a [SecretArn],
    pub(crate) keys: &'a [KeyFacts],
    /// What the secret holds. Whoever enrols need not be allowed to read it.
    pub(crate) held: &'a Held,
    /// The key to be retired.
    pub(crate) retire: Option<&'a AccessKeyId>,
    /// Whom to tell of the key.
    pub(crate) owner: Option<&'a str>,
    /// The pair that is to be stored.
    pub(crate) offered: Option<Offered<'a>>,
}

/// A pair that was shown to be the user's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Offered<'a> {
    pub(crate) id: &'a AccessKeyId,
    /// Whether the secret holds this very pair.
    pub(crate) stored: bool,
}

/// What would be changed, and what follows from it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Plan {
    /// Tags to set on the user.
    pub(crate) user_tags: Vec<(&'static str, String)>,
    /// Tags to take off the user.
    pub(crate) user_untag: Vec<&'static str>,
    /// Tags to set on the secret.
    pub(crate) secret_tags: Vec<(&'static str, String)>,
    /// Whether the pair that was given is to be stored.
    pub(crate) store: bool,
    /// Sentences on what rotation will do with each key.
    pub(crate) consequences: Vec<String>,
    /// Sentences that a careful person wants to have read.
    pub(crate) warnings: Vec<String>,
}

impl Plan {
    /// Whether everything is as asked already.
    pub(crate) fn is_empty(&self) -> bool {
        self.user_tags.is_empty() && self.user_untag.is_empty() && self.secret_tags.is_empty() && !self.store
    }
}

/// Plans, or refuses.
pub(crate) fn plan(known: &Known<'_>) -> Checked<Plan> {
    refuse_other_ties(known)?;
    let held = match known.held {
        Held::Unfit(trouble) => return Err(Refusal::new("secret", trouble.clone())),
        Held::Unreadable(trouble) if known.retire.is_some() || known.offered.is_some() => {
            return Err(unreadable(known, trouble));
        }
        held => held.key(),
    };
    refuse_unfit_keys(known, held)?;
    let store = store(known, held)?;
    let held = known.offered.map(|offered| offered.id).or(held);
    refuse_retired_current(known, held)?;
    let (user, secret) = (known.user, known.secret);
    let mut plan = Plan { store, ..Plan::default() };
    if user.secret.is_none() {
        plan.user_tags.push((TAG_SECRET, secret.arn.as_str().to_owned()));
    }
    if secret.user.is_none() {
        plan.secret_tags.push((TAG_USER, user.facts.name.as_str().to_owned()));
    }
    if let Some(owner) = known.owner.filter(|owner| secret.tags.get(TAG_OWNER).is_none_or(|has| has != owner))
    {
        plan.secret_tags.push((TAG_OWNER, fit_owner(owner)?.to_owned()));
    }
    if let Some(retire) = known.retire {
        if user.retire.as_ref() != Some(retire) {
            plan.user_tags.push((TAG_RETIRE, retire.as_str().to_owned()));
        }
        if user.keep.as_ref() == Some(retire) {
            plan.user_untag.push(TAG_KEEP);
        }
    }
    tell(known, held, &mut plan);
    Ok(plan)
}

fn unreadable(known: &Known<'_>, trouble: &Trouble) -> Refusal {
    let (field, unknown) = match known.retire {
        Some(_) => ("retire", "whether --retire names it"),
        None => ("secret", "whether another pair is there"),
    };
    let text = format!(
        "The key in secret {} could not be read, so it is not known {unknown}: {}",
        known.secret.name, trouble.text
    );
    Refusal::new(field, Trouble::new(text, trouble.remedy.clone()))
}

/// Whether the pair is to be stored. One that is in use is never overwritten: moving a secret from one key to another
/// is what a rotation does, with its overlap.
fn store(known: &Known<'_>, held: Option<&AccessKeyId>) -> Checked<bool> {
    let Some(offered) = known.offered else { return Ok(false) };
    match held {
        Some(held) if held != offered.id => Err(Refusal::new(
            "secret",
            Trouble::new(
                format!(
                    "Secret {} holds key {held} already, and its consumers use that one: key {} is not put over it.",
                    known.secret.name, offered.id
                ),
                format!("Leave the import away; if nobody needs {0}: --retire {0}.", offered.id),
            ),
        )),
        _ => Ok(!offered.stored),
    }
}

/// A tag's value as AWS takes it.
fn fit_owner(owner: &str) -> Checked<&str> {
    let fits = (1..=256).contains(&owner.chars().count())
        && owner.chars().all(|c| c.is_alphanumeric() || " _.:/=+-@".contains(c));
    if fits {
        Ok(owner)
    } else {
        Err(Refusal::new(
            "owner",
            Trouble::new(
                "The owner is not one that a tag can hold.",
                "Give 1 to 256 letters, digits, blanks or any of _.:/=+-@, such as an address.",
            ),
        ))
    }
}

fn refuse_other_ties(known: &Known<'_>) -> Checked<()> {
    let (user, secret) = (known.user, known.secret);
    let name = &user.facts.name;
    if secret.deleted {
        return Err(Refusal::new(
            "secret",
            Trouble::new(
                format!("Secret {} is scheduled for deletion.", secret.name),
                "Restore it first, or choose another one.",
            ),
        ));
    }
    if let Some(region) = &secret.primary_region {
        return Err(Refusal::new(
            "secret",
            Trouble::new(
                format!("Secret {} is a replica here; its primary is in {region}.", secret.name),
                format!(
                    "Enrol the primary: give its ARN, or --region {region} where Keywheel is installed there."
                ),
            ),
        ));
    }
    if let Some(arn) = user.secret.as_deref().filter(|arn| *arn != secret.arn.as_str()) {
        return Err(Refusal::new(
            "user",
            Trouble::new(
                format!("User {name} is already tied to another secret: {arn}."),
                format!(
                    "If that is over: `aws iam untag-user --user-name {name} --tag-keys {TAG_SECRET}`, then enrol again."
                ),
            ),
        ));
    }
    if let Some(other) = secret.user.as_deref().filter(|other| *other != name.as_str()) {
        return Err(Refusal::new(
            "secret",
            Trouble::new(
                format!("Secret {} is already tied to another user: {other}.", secret.name),
                format!(
                    "If that is over: `aws secretsmanager untag-resource --secret-id {} --tag-keys {TAG_USER}`, then enrol again.",
                    secret.arn
                ),
            ),
        ));
    }
    if let Some(rival) = known.rivals.first() {
        return Err(Refusal::new(
            "user",
            Trouble::new(
                format!("Another secret is tagged for user {name} as well: {rival}."),
                format!("A user's key lives in one secret: take the tag {TAG_USER} off the other one."),
            ),
        ));
    }
    Ok(())
}

fn refuse_unfit_keys(known: &Known<'_>, held: Option<&AccessKeyId>) -> Checked<()> {
    let name = &known.user.facts.name;
    let has = |id: &AccessKeyId| known.keys.iter().any(|key| key.id == *id);
    if let Some(held) = held.filter(|held| !has(held)) {
        return Err(Refusal::new(
            "secret",
            Trouble::new(
                format!("Secret {} holds key {held}, which is not a key of user {name}.", known.secret.name),
                "Check that user and secret belong together; else store the pair that is in use in the secret.",
            ),
        ));
    }
    let Some(retire) = known.retire else { return Ok(()) };
    if !has(retire) {
        let ids: Vec<&str> = known.keys.iter().map(|key| key.id.as_str()).collect();
        let ids =
            if ids.is_empty() { "it has none".to_owned() } else { format!("it has {}", ids.join(" and ")) };
        return Err(Refusal::new(
            "retire",
            Trouble::new(format!("Key {retire} is not a key of user {name}: {ids}."), "Check the id."),
        ));
    }
    Ok(())
}

/// The key in the secret, or about to be there, is not retired apart.
fn refuse_retired_current(known: &Known<'_>, held: Option<&AccessKeyId>) -> Checked<()> {
    let Some(retire) = known.retire else { return Ok(()) };
    if held == Some(retire) {
        return Err(Refusal::new(
            "retire",
            Trouble::new(
                format!(
                    "Key {retire} is the one in the secret: every rotation supersedes it, so it is not retired apart."
                ),
                "Leave --retire away, or name the other key.",
            ),
        ));
    }
    Ok(())
}

fn tell(known: &Known<'_>, held: Option<&AccessKeyId>, plan: &mut Plan) {
    let name = &known.user.facts.name;
    let retire = known.retire.or(known.user.retire.as_ref());
    if let Some(offered) = known.offered.filter(|offered| !offered.stored && known.held.key().is_some()) {
        plan.warnings.push(format!(
            "The secret holds another secret access key beside {}, which is not that of the pair given: it is replaced.",
            offered.id
        ));
    }
    if let Held::Unreadable(trouble) = known.held {
        plan.warnings.push(format!(
            "The key in the secret could not be read here ({}) The first run checks it.",
            trouble.text
        ));
    }
    if *known.held == Held::Nothing && known.offered.is_none() {
        plan.consequences
            .push("The secret holds no key yet: the first run makes one and stores it.".to_owned());
    }
    // Of a managed user, a second key may be one that a run of ours made or superseded.
    let enrolled = known.user.secret.is_some() && known.secret.user.is_some();
    let inactive = |id: &AccessKeyId| known.keys.iter().any(|key| key.id == *id && !key.is_active());
    if let Some(held) = held.filter(|held| inactive(held)) {
        plan.warnings.push(format!(
            "Key {held} in the secret is Inactive: a run is Blocked until it is Active again."
        ));
    }
    for key in known.keys {
        let id = &key.id;
        let says = if held == Some(id) {
            format!("{id} is current: a rotation supersedes it, then overlap, gate, grace, delete.")
        } else if retire == Some(id) {
            format!(
                "{id} is retired: the next run takes it through overlap, gate and grace, then deletes it."
            )
        } else if enrolled {
            format!("{id}: see `keywheel status --user {name}`.")
        } else {
            format!("{id} is left alone.")
        };
        plan.consequences.push(says);
    }
    let strangers = known.keys.iter().filter(|key| Some(&key.id) != held && Some(&key.id) != retire);
    if known.keys.len() >= 2
        && !enrolled
        && !matches!(known.held, Held::Unreadable(_))
        && let Some(stranger) = strangers.map(|key| &key.id).next()
    {
        plan.warnings.push(format!(
            "User {name} has {} keys, so there is no room for a new one: a run is Blocked while Keywheel does not know {stranger}. \
             If nobody needs it, enrol with --retire {stranger}.",
            known.keys.len()
        ));
    }
}

#[cfg(test)]
mod tests;
