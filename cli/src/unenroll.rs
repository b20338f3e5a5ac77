//! `keywheel unenroll`: takes Keywheel's tags off a user and its secret. What is theirs stays as it is.

use facts::iam::User;
use facts::secrets::Secret;
use keywheel::key::KeyFacts;
use keywheel::{SecretArn, StepError};
use serde_json::json;

use crate::args::Unenroll;
use crate::error::{Exit, Result, Trouble};
use crate::output::Out;
use crate::place::Place;
use crate::{find, managed, names};

/// What our tags begin with.
const OURS: &str = "keywheel:";

/// The two sides, as far as they are there: half a tie is taken off as well.
#[derive(Debug, Default)]
struct Tie {
    user: Option<User>,
    secrets: Vec<Secret>,
}

/// Runs the command. A second time it changes nothing. If it dies half way the pair is not managed any more, and
/// running it again takes off the rest.
pub(crate) async fn run(place: &Place, out: &Out, args: &Unenroll) -> Result<Exit> {
    out.note(&place.line());
    let tie = find_tie(place, &args.what).await?;
    let user_tags = tie.user.as_ref().map(|user| ours(user.tags.keys())).unwrap_or_default();
    let secret_tags: Vec<(&Secret, Vec<String>)> = tie
        .secrets
        .iter()
        .map(|secret| (secret, ours(secret.tags.keys())))
        .filter(|(_, tags)| !tags.is_empty())
        .collect();
    let keys = match &tie.user {
        Some(user) => facts::iam::keys(&place.iam(), &user.facts.name).await?,
        None => Vec::new(),
    };
    let changed = !user_tags.is_empty() || !secret_tags.is_empty();
    if changed {
        refuse_beside_a_run(place, &tie).await?;
        show(out, &tie, &user_tags, &secret_tags, &keys);
        out.confirm("Take these tags off?", args.yes)?;
        apply(place, &tie, &user_tags, &secret_tags).await?;
        out.line("Done: Keywheel leaves them alone from now on. `keywheel enroll` brings them back.");
        // One may have begun between the look and the first tag; it finds the tags gone and stops where it is.
        if let Err(trouble) = refuse_beside_a_run(place, &tie).await {
            out.note(&format!("Look: {trouble}"));
        }
    } else {
        out.line("No tag of Keywheel's is there; nothing was changed.");
    }
    out.json(&json!({
        "user": tie.user.as_ref().map(|user| &user.facts.name),
        "secrets": tie.secrets.iter().map(|secret| &secret.arn).collect::<Vec<_>>(),
        "taken_off_user": user_tags,
        "taken_off_secrets": secret_tags.iter().flat_map(|(_, tags)| tags).collect::<Vec<_>>(),
        "keys": keys.iter().map(|key| &key.id).collect::<Vec<_>>(),
        "changed": changed,
    }));
    Ok(Exit::Done)
}

/// The names of our tags among these.
fn ours<'a>(tags: impl Iterator<Item = &'a String>) -> Vec<String> {
    tags.filter(|name| name.starts_with(OURS)).cloned().collect()
}

/// The user or secret that was meant, and what it is tied to, from either side.
async fn find_tie(place: &Place, typed: &str) -> Result<Tie> {
    let text = typed.trim();
    let is_secret = text.starts_with("arn:") && text.split(':').nth(2) == Some("secretsmanager");
    // No name of a user holds a slash, and most names of secrets do.
    if is_secret || !text.starts_with("arn:") && text.contains('/') {
        return of_secret(place, managed::secret(place, text).await?).await;
    }
    match managed::user(place, text).await {
        Ok(user) => of_user(place, user).await,
        Err(no_user) if text.starts_with("arn:") => Err(no_user),
        // A plain name may be a secret's. What is said of the user is the better word where neither is there.
        Err(no_user) => match lone_secret(place, text).await? {
            Some(secret) => of_secret(place, secret).await,
            None => Err(no_user),
        },
    }
}

async fn lone_secret(place: &Place, typed: &str) -> Result<Option<Secret>> {
    let typed = names::secret(typed)?;
    match facts::secrets::describe(&place.secrets(&place.region), &typed.id).await {
        Ok(secret) => Ok(Some(secret)),
        // A name that no secret can have is none of one.
        Err(error) if error.is_refused(&["ResourceNotFoundException", "ValidationException"]) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn of_user(place: &Place, user: User) -> Result<Tie> {
    let mut secrets = Vec::new();
    let arn = user.secret.as_deref().and_then(|arn| arn.parse::<SecretArn>().ok());
    if let Some(arn) = &arn {
        secrets.extend(theirs(place, arn, &user).await?);
    }
    // A secret may name a user that does not name it: here, and where the user's own tag leads.
    let region = arn.as_ref().map_or(place.region.as_str(), SecretArn::region);
    let none = format!("arn:{}:secretsmanager:{region}:{}:secret:-", place.partition, place.account);
    let own = match arn {
        Some(arn) => arn,
        None => none.parse().map_err(|error| Trouble::new(format!("{error}."), ""))?,
    };
    let rivals = facts::secrets::rivals(&place.secrets(own.region()), &user.facts.name, &own).await?;
    for rival in &rivals {
        secrets.extend(theirs(place, rival, &user).await?);
    }
    Ok(Tie { user: Some(user), secrets })
}

/// The secret, where it is there and names this user or nobody: another user's tie is not undone.
async fn theirs(place: &Place, arn: &SecretArn, user: &User) -> Result<Option<Secret>> {
    match facts::secrets::describe(&place.secrets(arn.region()), arn.as_str()).await {
        Ok(secret) => Ok(Some(secret).filter(|secret| {
            secret.user.as_deref().is_none_or(|name| name == user.facts.name.as_str()) && !secret.deleted
        })),
        Err(error) if error.is_refused(&["ResourceNotFoundException"]) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn of_secret(place: &Place, secret: Secret) -> Result<Tie> {
    let name = secret.user.as_deref().and_then(|name| name.parse().ok());
    let user = match &name {
        Some(name) => facts::iam::user(&place.iam(), name).await?,
        None => None,
    };
    // A user that names another secret is tied there, and stays so.
    let user = user.filter(|user| user.secret.as_deref().is_none_or(|arn| arn == secret.arn.as_str()));
    Ok(Tie { user, secrets: vec![secret] })
}

async fn refuse_beside_a_run(place: &Place, tie: &Tie) -> Result<()> {
    for secret in &tie.secrets {
        if let Some(run) = find::at_work(place, &secret.arn, &secret.name).await? {
            return Err(Trouble::new(
                format!("Run {} is at work on secret {}.", run.id, secret.name),
                "Nothing may take its tags off before it has ended: both keys would be left as they are then. `keywheel status` shows where it is; `keywheel rollback` ends an overlap.",
            ));
        }
    }
    Ok(())
}

fn show(
    out: &Out,
    tie: &Tie,
    user_tags: &[String],
    secret_tags: &[(&Secret, Vec<String>)],
    keys: &[KeyFacts],
) {
    let say = |text: String| if out.is_json() { out.note(&text) } else { out.line(&text) };
    if let Some(user) = &tie.user {
        say(format!("User    {}: {}", user.facts.name, list(user_tags)));
        for key in keys {
            say(format!("        key {} stays {:?}", key.id, key.status));
        }
    }
    for (secret, tags) in secret_tags {
        say(format!("Secret  {}: {}", secret.name, list(tags)));
    }
}

fn list(tags: &[String]) -> String {
    if tags.is_empty() { "no tag of Keywheel's".to_owned() } else { format!("takes off {}", tags.join(", ")) }
}

async fn apply(
    place: &Place,
    tie: &Tie,
    user_tags: &[String],
    secret_tags: &[(&Secret, Vec<String>)],
) -> Result<()> {
    // The user's tags first: without them none of Keywheel's roles may change the user.
    if let Some(user) = tie.user.as_ref().filter(|_| !user_tags.is_empty()) {
        let call = place.iam().untag_user().user_name(user.facts.name.as_str());
        let call = call.set_tag_keys(Some(user_tags.to_vec()));
        call.send().await.map_err(|error| StepError::from_sdk("iam:UntagUser", &error))?;
    }
    for (secret, tags) in secret_tags {
        let call = place.secrets(secret.arn.region()).untag_resource().secret_id(secret.arn.as_str());
        let call = call.set_tag_keys(Some(tags.clone()));
        call.send().await.map_err(|error| StepError::from_sdk("secretsmanager:UntagResource", &error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_tags_are_taken_off() {
        let names = ["keywheel:secret", "team", "keywheel:keep", "my-keywheel:x"].map(str::to_owned);
        assert_eq!(ours(names.iter()), ["keywheel:secret", "keywheel:keep"]);
        assert_eq!(list(&[]), "no tag of Keywheel's");
        assert_eq!(list(&ours(names.iter())), "takes off keywheel:secret, keywheel:keep");
    }
}
