//! `keywheel policy push`: shows what a policy changes, and then makes it the one that campaigns follow and whose
//! freezes hold runs under way.

use std::collections::BTreeSet;

use jiff::Timestamp;
use keywheel::clock::Clock;
use keywheel::decide::due;
use keywheel::fleet::FleetPolicy;
use keywheel::{SecretArn, StepError};
use serde_json::json;

use super::compare::{Changes, Side, within};
use super::pushed::{Pushed, Store, fitting, named};
use super::{explain, plan};
use crate::error::{Exit, Result, Trouble};
use crate::output::Out;
use crate::place::Place;

/// Shows, asks and writes. Run again with the same policy, it changes nothing.
pub(super) async fn run(place: &Place, out: &Out, policy: &FleetPolicy, yes: bool) -> Result<Exit> {
    let left = policy.limits.freezes_left(Timestamp::now());
    let freezes = fitting(&left)?;
    let store = Store::find(place).await?;
    let there = store.read_replaced().await?;
    let before = match there.as_ref().map(|there| (there.name(), &there.policy)) {
        None => {
            out.note("No policy was pushed yet: until now the careful defaults hold.");
            FleetPolicy::default()
        }
        Some((_, Ok(before))) if before == policy => {
            let told = store.is_known(&left).await?;
            return so_already(out, &store, there.as_ref(), (!told).then_some(freezes), yes).await;
        }
        Some((_, Ok(before))) => before.clone(),
        Some((name, Err(why))) => {
            out.note(&format!(
                "The policy that is there ({name}) cannot be understood, and no campaign follows it: {why}. What changes is shown against the careful defaults."
            ));
            FleetPolicy::default()
        }
    };
    let say = |text: &str| if out.is_json() { out.note(text) } else { out.line(text) };
    for line in difference(&explain::words(&before), &explain::words(policy)) {
        say(&line);
    }
    match changes(place, &before, policy).await {
        Ok(changes) => {
            out.json(&changes.json());
            for line in changes.lines() {
                say(&line);
            }
            out.notes(&changes.gaps());
            if let Some(note) = plan::elsewhere(policy, &place.account) {
                out.note(&note);
            }
        }
        Err(error) => {
            let why = Trouble::from(error);
            out.json(&json!({ "unread": [{ "user": "", "why": why.text }] }));
            out.note(&format!(
                "The account could not be read, so whom the policy concerns is not known: {why}"
            ));
        }
    }
    out.confirm("Push this policy?", yes)?;
    let version = store.replace(there.as_ref(), policy, freezes).await?;
    out.line(&format!("The policy is pushed to {} ({}).", store.address(), named(version.as_deref())));
    out.line("The next campaign follows it; one that runs goes on as it was planned.");
    if !left.is_empty() {
        out.line("Its freezes hold runs under way as well: in them no old key is made Inactive or deleted.");
    }
    out.json(&json!({
        "pushed": true,
        "freezes_written": true,
        "object": store.address(),
        "version": version,
        "before": there.as_ref().and_then(|there| there.version.as_deref()),
    }));
    Ok(Exit::Done)
}

/// The policy lies there already. Its freezes, where runs under way do not know them, are written all the same: an
/// earlier release has pushed it, or somebody has changed the parameter.
async fn so_already(
    out: &Out,
    store: &Store,
    there: Option<&Pushed>,
    freezes: Option<String>,
    yes: bool,
) -> Result<Exit> {
    let name = there.map_or_else(String::new, Pushed::name);
    let untold = freezes.is_some();
    if let Some(freezes) = freezes {
        out.line(&format!("The policy is so already ({name}), and runs under way do not know its freezes."));
        out.confirm("Tell them?", yes)?;
        store.write_freezes(freezes).await?;
        out.line("From now on its freezes hold them, and no others.");
    } else {
        out.line(&format!("The policy is so already ({name}); nothing was changed."));
    }
    let version = there.and_then(|there| there.version.as_deref());
    out.json(&json!({
        "pushed": false,
        "freezes_written": untold,
        "object": store.address(),
        "version": version,
    }));
    Ok(Exit::Done)
}

/// What a policy changes, by one reading of the account.
async fn changes(
    place: &Place,
    before: &FleetPolicy,
    after: &FleetPolicy,
) -> std::result::Result<Changes, StepError> {
    let (of_before, of_after) = (plan::regions(place, before), plan::regions(place, after));
    let mut regions = of_before.clone();
    regions.extend(of_after.iter().filter(|region| !of_before.contains(region)).cloned());
    let (config, installation) = (place.config(), plan::installation(place));
    let all =
        facts::estate::read(config, Some(&installation), &place.account, &regions, &Clock::System).await?;
    let now = Timestamp::now();
    let (was, is) = (within(&all, &of_before), within(&all, &of_after));
    let first: BTreeSet<(String, SecretArn)> = due::to_look_at(before, &was, now).into_iter().collect();
    let (again, more): (Vec<_>, Vec<_>) =
        due::to_look_at(after, &is, now).into_iter().partition(|one| first.contains(one));
    let seen_before = facts::estate::look(config, &installation, first.into_iter().collect(), now).await;
    let mut seen_after = facts::estate::look(config, &installation, more, now).await;
    for (user, _) in again {
        if let Some(look) = seen_before.get(&user) {
            seen_after.insert(user, look.clone());
        }
    }
    let plan_before = due::plan(before, &was, &seen_before, now);
    let plan_after = due::plan(after, &is, &seen_after, now);
    Ok(Changes::between(
        &Side { policy: before.clone(), estate: was, plan: plan_before },
        &Side { policy: after.clone(), estate: is, plan: plan_after },
    ))
}

/// The lines that go and come.
fn difference(before: &[String], after: &[String]) -> Vec<String> {
    let gone = before.iter().filter(|line| !after.contains(line)).map(|line| format!("- {line}"));
    let come = after.iter().filter(|line| !before.contains(line)).map(|line| format!("+ {line}"));
    gone.chain(come).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(policy: serde_json::Value) -> Vec<String> {
        explain::words(&FleetPolicy::read(policy).unwrap())
    }

    #[test]
    fn what_goes_and_comes_is_told_in_the_words_of_a_policy() {
        let usual = words(json!({}));
        assert_eq!(difference(&usual, &usual), Vec::<String>::new());
        let other = words(json!({ "limits": { "keys_per_run": 7 }, "regions": ["eu-west-1"] }));
        assert_eq!(
            difference(&usual, &other),
            [
                "- A plan rotates 50 keys at most.",
                "+ A plan rotates 7 keys at most.",
                "+ Secrets are looked for in eu-west-1."
            ]
        );
    }
}
