//! `keywheel enroll`: ties a user and a secret to each other with a tag on both, and brings along what a user that was
//! looked after by hand has: its pair, its secret, its readers, its second key.

mod import;
mod list;
mod look;
mod plan;
mod readers;
mod store;
mod terraform;

use aws_sdk_iam::types::Tag;
use jiff::Timestamp;
use keywheel::StepError;
use serde_json::json;

use crate::args::Enroll;
use crate::error::{Exit, Result, Trouble};
use crate::output::{Out, table};
use crate::place::Place;
use crate::{find, names, time};
use import::Pair;
use look::{Seen, Wish};
use plan::{Offered, Plan};

/// Runs the command. A second time it changes nothing. If it dies between the two tags, the pair is not
/// managed yet, and running it again finishes.
pub(crate) async fn run(place: &Place, out: &Out, args: &Enroll) -> Result<Exit> {
    match (&args.from, &args.user, &args.secret) {
        (Some(file), _, _) => list::run(place, out, file, args).await,
        (None, Some(user), Some(secret)) => {
            let wish = Wish {
                user: user.clone(),
                secret: secret.clone(),
                owner: args.owner.clone(),
                retire: args.retire.as_deref().map(names::key).transpose()?,
                create: args.create_secret,
            };
            one(place, out, args, &wish).await
        }
        // The command line asks for one of the two.
        _ => Err(Trouble::new("Nobody is named.", "Give --user and --secret, or --from.")),
    }
}

async fn one(place: &Place, out: &Out, args: &Enroll, wish: &Wish) -> Result<Exit> {
    out.note(&place.line());
    let pair = import::read(args).await?;
    let seen = look::look(place, wish).await?;
    let name = seen.user.facts.name.clone();
    let offered = match &pair {
        Some(pair) => Some(proved(place, &seen, pair).await?),
        None => None,
    };
    let plan = seen.plan(wish, offered)?;
    if plan.store && seen.is_enrolled() {
        refuse_beside_a_run(place, &seen).await?;
    }
    let readers = if args.readers.is_empty() {
        None
    } else {
        readers::plan(place, &seen.secret, seen.exists, &args.readers).await?
    };
    let terraform = advice(args, &seen)?;
    show(place, out, &seen, offered, &plan).await;
    let say = |text: &str| if out.is_json() { out.note(text) } else { out.line(text) };
    for line in readers.iter().flat_map(|change| &change.lines).chain(&terraform) {
        say(line);
    }
    let changed = !seen.exists || !plan.is_empty() || readers.is_some();
    let (consequences, warnings) = (plan.consequences.clone(), plan.warnings.clone());
    let (imported, mut arn) = (pair.is_some() && (plan.store || !seen.exists), seen.secret.arn.clone());
    if changed {
        out.confirm("Do this?", args.yes)?;
        arn = store::apply(place, wish, &seen, plan, pair.as_ref(), readers.as_ref()).await?.arn;
        out.line(&format!("Done: {name} is managed. `keywheel rotate --user {name}` starts a run."));
    } else {
        out.line("Everything is set already; nothing was changed.");
    }
    out.json(&json!({
        "user": name,
        "secret": arn,
        "current_key": offered.map(|offered| offered.id).or(seen.held.key()),
        "retire": wish.retire,
        "changed": changed,
        "secret_made": !seen.exists,
        "imported": imported,
        "readers_written": readers.is_some(),
        "consequences": consequences,
        "warnings": warnings,
        "terraform": terraform,
    }));
    Ok(Exit::Done)
}

/// Shows that the pair is the user's, and looks whether the secret holds it.
async fn proved<'a>(place: &Place, seen: &Seen, pair: &'a Pair) -> Result<Offered<'a>> {
    import::prove(place, &seen.user, &seen.keys, pair).await?;
    let stored = seen.exists && store::holds(place, &seen.secret, &seen.user.facts.name, pair).await?;
    Ok(Offered { id: &pair.id, stored })
}

/// A pair is not stored under the hands of a run that is about to store one.
async fn refuse_beside_a_run(place: &Place, seen: &Seen) -> Result<()> {
    match find::at_work(place, &seen.secret.arn, &seen.secret.name).await? {
        None => Ok(()),
        Some(run) => Err(Trouble::new(
            format!("Run {} is at work on user {}.", run.id, seen.user.facts.name),
            format!("`keywheel status --user {}` shows where it is; import after it.", seen.user.facts.name),
        )),
    }
}

/// What to write in Terraform, where it keeps the user or a state was given.
fn advice(args: &Enroll, seen: &Seen) -> Result<Vec<String>> {
    let name = seen.user.facts.name.as_str();
    if let Some(file) = &args.terraform_state {
        let known = terraform::read(file, name, &[seen.secret.arn.as_str(), &seen.secret.name])?;
        return Ok(terraform::advice(name, Some(&known)));
    }
    let kept = terraform::signs(&seen.user.tags) || terraform::signs(&seen.secret.tags);
    Ok(if kept { terraform::advice(name, None) } else { Vec::new() })
}

async fn show(place: &Place, out: &Out, seen: &Seen, offered: Option<Offered<'_>>, plan: &Plan) {
    let Seen { user, secret, .. } = seen;
    let say = |text: String| if out.is_json() { out.note(&text) } else { out.line(&text) };
    say(format!("User    {}  ({})", user.facts.name, user.facts.arn));
    say(format!("Secret  {}  ({})", secret.name, secret.arn));
    let now = Timestamp::now();
    let mut rows = vec![["KEY", "STATE", "IN SECRET", "AGE", "LAST USE"].map(str::to_owned).to_vec()];
    for key in &seen.keys {
        let last = facts::iam::last_use(&place.iam(), &key.id).await;
        let last = match last {
            Ok(last) => time::ago(last.at, now).unwrap_or_else(|| "none recorded".into()),
            Err(_) => "could not be read".into(),
        };
        rows.push(vec![
            key.id.to_string(),
            format!("{:?}", key.status),
            if seen.held.key() == Some(&key.id) { "yes" } else { "" }.to_owned(),
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
    if !seen.exists {
        say(format!("Will make the secret {}, under the KMS key of Secrets Manager", secret.name));
    }
    if let Some(offered) = offered.filter(|_| plan.store) {
        say(format!("Will store the pair of {}, to which AWS has answered as this user", offered.id));
    }
    for (tag, value) in &plan.user_tags {
        say(format!("Will set on the user: {tag} = {value}"));
    }
    for tag in &plan.user_untag {
        say(format!("Will take off the user: {tag}"));
    }
    for (tag, value) in &plan.secret_tags {
        say(format!("Will set on the secret: {tag} = {value}"));
    }
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
