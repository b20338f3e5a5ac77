//! `keywheel enroll`: ties a user and a secret to each other with a tag on both.

mod plan;

use aws_sdk_iam::types::Tag;
use facts::secrets::CURRENT;
use jiff::Timestamp;
use keywheel::key::KeyFacts;
use keywheel::{AccessKeyId, StepError};
use serde_json::json;

use crate::args::Enroll;
use crate::error::{Exit, Result, Trouble};
use crate::keys;
use crate::managed::{self, Managed};
use crate::output::{Out, table};
use crate::place::Place;
use crate::{names, time};
use plan::{Known, Plan};

/// Runs the command. A second time it changes nothing. If it dies between the two tags, the pair is not
/// managed yet, and running it again finishes.
pub(crate) async fn run(place: &Place, out: &Out, args: &Enroll) -> Result<Exit> {
    out.note(&place.line());
    let retire = args.retire.as_deref().map(names::key).transpose()?;
    let user = managed::user(place, &args.user).await?;
    let secret = managed::secret(place, &args.secret).await?;
    let name = user.facts.name.clone();
    let rivals = facts::secrets::rivals(&place.secrets(secret.arn.region()), &name, &secret.arn).await?;
    let keys = facts::iam::keys(&place.iam(), &name).await?;
    let held = keys::held(place, &secret, &name, CURRENT).await;
    let known = Known {
        user: &user,
        secret: &secret,
        rivals: &rivals,
        keys: &keys,
        held: &held,
        retire: retire.as_ref(),
    };
    let plan = plan::plan(&known)?;
    let managed = Managed { user: user.clone(), secret: secret.clone() };
    show(place, out, &managed, &keys, held.key(), &plan).await;
    if plan.is_empty() {
        out.line("Everything is set already; nothing was changed.");
    } else {
        out.confirm("Set these tags?", args.yes)?;
        apply(place, &managed, &plan).await?;
        out.line(&format!(
            "The tags are set: {name} is managed. `keywheel rotate --user {name}` starts a run."
        ));
    }
    out.json(&json!({
        "user": name,
        "secret": secret.arn,
        "current_key": held.key(),
        "retire": retire,
        "changed": !plan.is_empty(),
        "consequences": plan.consequences,
        "warnings": plan.warnings,
    }));
    Ok(Exit::Done)
}

async fn show(
    place: &Place,
    out: &Out,
    managed: &Managed,
    keys: &[KeyFacts],
    held: Option<&AccessKeyId>,
    plan: &Plan,
) {
    let Managed { user, secret } = managed;
    let say = |text: String| if out.is_json() { out.note(&text) } else { out.line(&text) };
    say(format!("User    {}  ({})", user.facts.name, user.facts.arn));
    say(format!("Secret  {}  ({})", secret.name, secret.arn));
    let now = Timestamp::now();
    let mut rows = vec![["KEY", "STATE", "IN SECRET", "AGE", "LAST USE"].map(str::to_owned).to_vec()];
    for key in keys {
        let last = facts::iam::last_use(&place.iam(), &key.id).await;
        let last = match last {
            Ok(last) => time::ago(last.at, now).unwrap_or_else(|| "none recorded".into()),
            Err(_) => "could not be read".into(),
        };
        rows.push(vec![
            key.id.to_string(),
            format!("{:?}", key.status),
            if held == Some(&key.id) { "yes" } else { "" }.to_owned(),
            key.created.map_or_else(|| "unknown".into(), |created| time::short(time::between(created, now))),
            last,
        ]);
    }
    for line in table(&rows).iter().chain(&plan.consequences) {
        say(format!("  {line}"));
    }
    for line in &plan.warnings {
        say(format!("Warning: {line}"));
    }
    for (tag, value) in &plan.user_tags {
        say(format!("Will set on the user: {tag} = {value}"));
    }
    for tag in &plan.user_untag {
        say(format!("Will take off the user: {tag}"));
    }
    if let Some((tag, value)) = &plan.secret_tag {
        say(format!("Will set on the secret: {tag} = {value}"));
    }
}

async fn apply(place: &Place, managed: &Managed, plan: &Plan) -> Result<()> {
    let Managed { user, secret } = managed;
    // The secret's tag first: it grants nothing. The user's tag is what opens the user to Keywheel's roles.
    if let Some((tag, value)) = &plan.secret_tag {
        let tag = aws_sdk_secretsmanager::types::Tag::builder().key(*tag).value(value).build();
        place
            .secrets(secret.arn.region())
            .tag_resource()
            .secret_id(secret.arn.as_str())
            .tags(tag)
            .send()
            .await
            .map_err(|error| StepError::from_sdk("secretsmanager:TagResource", &error))?;
    }
    if !plan.user_tags.is_empty() {
        set_user_tags(place, user.facts.name.as_str(), &plan.user_tags).await?;
    }
    for tag in &plan.user_untag {
        take_off_user(place, user.facts.name.as_str(), tag).await?;
    }
    Ok(())
}

/// Sets tags on a user, in one call.
pub(crate) async fn set_user_tags(place: &Place, user: &str, tags: &[(&'static str, String)]) -> Result<()> {
    let mut call = place.iam().tag_user().user_name(user);
    for (key, value) in tags {
        let tag = Tag::builder().key(*key).value(value).build();
        call = call.tags(
            tag.map_err(|error| Trouble::new(format!("The tag {key} could not be built: {error}."), ""))?,
        );
    }
    call.send().await.map_err(|error| StepError::from_sdk("iam:TagUser", &error))?;
    Ok(())
}

/// Takes a tag off a user; one that is not there is no error.
pub(crate) async fn take_off_user(place: &Place, user: &str, tag: &str) -> Result<()> {
    place
        .iam()
        .untag_user()
        .user_name(user)
        .tag_keys(tag)
        .send()
        .await
        .map_err(|error| StepError::from_sdk("iam:UntagUser", &error))?;
    Ok(())
}
