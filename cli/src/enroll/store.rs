//! What an enrolment writes: the secret, made where there is none and given the imported pair, and the tags.

use aws_sdk_secretsmanager::types::Tag;
use facts::iam::TAG_SECRET;
use facts::secrets::{self, CURRENT, PENDING, Secret, TAG_USER, Which};
use keywheel::fleet::rules::TAG_OWNER;
use keywheel::secret::{SecretValue, for_store};
use keywheel::{RunId, StepError, UserName};

use super::import::Pair;
use super::look::{Seen, Wish};
use super::plan::Plan;
use super::readers::{self, Change};
use super::{set_user_tags, take_off_user};
use crate::error::{Result, Trouble};
use crate::place::Place;

/// Does what was planned. If it dies half way, the pair is not managed yet, and running the command again finishes.
pub(super) async fn apply(
    place: &Place,
    wish: &Wish,
    seen: &Seen,
    mut plan: Plan,
    pair: Option<&Pair>,
    readers: Option<&Change>,
) -> Result<Secret> {
    let user = &seen.user.facts.name;
    let mut secret = seen.secret.clone();
    if !seen.exists {
        secret = make(place, &secret, user, wish.owner.as_deref(), pair).await?;
        plan = made(plan, &secret);
    }
    // The user's tags last: until they are there, none of Keywheel's roles may change a thing.
    if !plan.secret_tags.is_empty() {
        set_secret_tags(place, &secret, &plan.secret_tags).await?;
    }
    if let Some(pair) = pair.filter(|_| plan.store) {
        put(place, &secret, user, pair).await?;
    }
    if let Some(change) = readers {
        readers::apply(place, &secret, change).await?;
    }
    if !plan.user_tags.is_empty() {
        set_user_tags(place, user.as_str(), &plan.user_tags).await?;
    }
    for tag in &plan.user_untag {
        take_off_user(place, user.as_str(), tag).await?;
    }
    Ok(secret)
}

/// What is left to do once the secret was made, with its tags and its value.
fn made(mut plan: Plan, secret: &Secret) -> Plan {
    plan.secret_tags.clear();
    plan.store = false;
    for (_, arn) in plan.user_tags.iter_mut().filter(|(tag, _)| *tag == TAG_SECRET) {
        secret.arn.as_str().clone_into(arn);
    }
    plan
}

async fn set_secret_tags(place: &Place, secret: &Secret, tags: &[(&'static str, String)]) -> Result<()> {
    let mut call = place.secrets(secret.arn.region()).tag_resource().secret_id(secret.arn.as_str());
    for (key, value) in tags {
        call = call.tags(Tag::builder().key(*key).value(value).build());
    }
    call.send().await.map_err(|error| StepError::from_sdk("secretsmanager:TagResource", &error))?;
    Ok(())
}

/// Makes a secret with its tags: with the pair, or waiting for its first key. Repeated by the SDK it stays one, since
/// its version's id is chosen here.
async fn make(
    place: &Place,
    secret: &Secret,
    user: &UserName,
    owner: Option<&str>,
    pair: Option<&Pair>,
) -> Result<Secret> {
    let client = place.secrets(secret.arn.region());
    let text = match pair {
        Some(pair) => for_store(&SecretValue::empty().with_pair(user, &pair.id, &pair.secret)),
        None => SecretValue::placeholder(user),
    };
    let tag = |key: &str, value: &str| Tag::builder().key(key).value(value).build();
    let mut call = client
        .create_secret()
        .name(&secret.name)
        .description(format!("The access key of IAM user {user}, rotated by Keywheel"))
        .client_request_token(RunId::random().to_string())
        .secret_string(text)
        .tags(tag(TAG_USER, user.as_str()));
    if let Some(owner) = owner {
        call = call.tags(tag(TAG_OWNER, owner));
    }
    if let Err(error) = call.send().await {
        let error = StepError::from_sdk("secretsmanager:CreateSecret", &error);
        if error.is_refused(&["ResourceExistsException"]) {
            return Err(Trouble::new(
                format!("Somebody has made secret {} in this moment.", secret.name),
                "Run the command again: it looks first.",
            ));
        }
        return Err(error.into());
    }
    Ok(secrets::describe(&client, &secret.name).await?)
}

/// Whether the secret holds this pair as it is: the same id may stand beside another secret access key.
pub(super) async fn holds(place: &Place, secret: &Secret, user: &UserName, pair: &Pair) -> Result<bool> {
    let client = place.secrets(secret.arn.region());
    let Some(value) = secrets::value(&client, &secret.arn, Which::Label(CURRENT)).await? else {
        return Ok(false);
    };
    let value = SecretValue::parse(value.text.as_deref(), user).ok().and_then(|value| value.pair());
    Ok(value.is_some_and(|(id, stored)| id == pair.id && stored.is(&pair.secret)))
}

/// Stores the pair; every other field of the value stays. AWSCURRENT moves only from the version that was read, so
/// that whoever stored something meanwhile is not undone.
async fn put(place: &Place, secret: &Secret, user: &UserName, pair: &Pair) -> Result<()> {
    let client = place.secrets(secret.arn.region());
    let before = secrets::value(&client, &secret.arn, Which::Label(CURRENT)).await?;
    let value = match &before {
        Some(before) => SecretValue::parse(before.text.as_deref(), user)
            .map_err(|error| Trouble::new(format!("Secret {}: {error}.", secret.name), ""))?,
        None => SecretValue::empty(),
    };
    if let Some(other) = value.key().filter(|other| *other != pair.id) {
        return Err(moved(&format!("holds key {other} now"), &secret.name));
    }
    let version = RunId::random().to_string();
    let text = value.with_pair(user, &pair.id, &pair.secret);
    // Without a label it would become current at once, whatever was stored meanwhile.
    let label = if before.is_some() { PENDING } else { CURRENT };
    let call = client.put_secret_value().secret_id(secret.arn.as_str()).client_request_token(&version);
    let stored = call.version_stages(label).secret_string(for_store(&text)).send().await;
    stored.map_err(|error| StepError::from_sdk("secretsmanager:PutSecretValue", &error))?;
    let Some(before) = before else { return Ok(()) };
    let call = client.update_secret_version_stage().secret_id(secret.arn.as_str()).version_stage(CURRENT);
    let call = call.move_to_version_id(&version).remove_from_version_id(before.version.as_str());
    let Err(error) = call.send().await else { return Ok(()) };
    let error = StepError::from_sdk("secretsmanager:UpdateSecretVersionStage", &error);
    // The call may have taken effect all the same.
    match secrets::current(&client, &secret.arn).await? {
        Some(current) if current.as_str() == version => Ok(()),
        Some(current) if current == before.version => Err(error.into()),
        _ => Err(moved("was changed meanwhile", &secret.name)),
    }
}

fn moved(how: &str, secret: &str) -> Trouble {
    Trouble::new(
        format!("Secret {secret} {how}, so the imported pair is not current."),
        "Find out who else writes it, then run the command again: it looks first.",
    )
}
