//! What concerns all keys of an account: the fleet's policy, and the plan made from it.

mod compare;
mod explain;
mod plan;
mod push;
mod pushed;
mod read;

use std::path::Path;

use keywheel::fleet::FleetPolicy;
use keywheel::fleet::schema::SCHEMA;
use keywheel::policy::PolicyOverride;
use serde_json::json;

use crate::args::PlanArgs;
use crate::error::{Exit, Result, Trouble};
use crate::managed::Managed;
use crate::output::Out;
use crate::place::Place;
pub(crate) use plan::regions;
use pushed::Store;

/// `keywheel policy check`: speaks to nobody.
pub(crate) fn check(out: &Out, file: &Path) -> Result<Exit> {
    let Some(policy) = checked(out, file)? else { return Ok(Exit::Refused) };
    out.lines(&explain::words(&policy));
    out.json(&json!({ "valid": true, "policy": policy }));
    Ok(Exit::Done)
}

/// The policy of a file; `None` where it has mistakes, which are told.
fn checked(out: &Out, file: &Path) -> Result<Option<FleetPolicy>> {
    let text = read::text(file)?;
    match read::policy(&text) {
        Ok(policy) => Ok(Some(policy)),
        Err(mistakes) => {
            let mistakes_json: Vec<_> = mistakes.iter().map(read::Located::json).collect();
            out.json(&json!({ "valid": false, "mistakes": mistakes_json }));
            for mistake in &mistakes {
                out.note(&format!("{}:{mistake}", file.display()));
            }
            out.note(&format!("keywheel: {}", read::refusal(&mistakes)));
            Ok(None)
        }
    }
}

/// `keywheel policy schema`: speaks to nobody. The schema is one object of JSON, with --json as without.
pub(crate) fn schema(out: &Out) -> Exit {
    out.document(SCHEMA.trim_end());
    Exit::Done
}

/// `keywheel policy push`
pub(crate) async fn push(place: &Place, out: &Out, file: &Path, yes: bool) -> Result<Exit> {
    out.note(&place.line());
    let Some(policy) = checked(out, file)? else { return Ok(Exit::Refused) };
    push::run(place, out, &policy, yes).await
}

/// `keywheel policy explain`
pub(crate) async fn explain(
    place: &Place,
    out: &Out,
    user: &str,
    file: Option<&Path>,
    pushed: bool,
) -> Result<Exit> {
    out.note(&place.line());
    explain::run(place, out, user, &given(place, out, file, pushed).await?).await
}

/// What a policy says about the rotation of a managed user, as a run's input says it.
pub(crate) async fn wish(place: &Place, managed: &Managed, policy: &FleetPolicy) -> Result<PolicyOverride> {
    let tags = explain::tags(place, &managed.secret.arn).await?;
    Ok(explain::decided(place, &managed.user, Some(&tags), policy)?.terms.wish())
}

/// The policy of a file; trouble that names its mistakes where it has some.
pub(crate) fn file(file: &Path) -> Result<FleetPolicy> {
    read::file(file)
}

/// The version of the pushed policy, and why no campaign can follow it where none can; `None` where nobody has pushed one.
pub(crate) async fn standing(place: &Place) -> Result<Option<(String, std::result::Result<(), String>)>> {
    let there = Store::find(place).await?.read().await?;
    Ok(there.map(|pushed| (pushed.name(), pushed.policy.map(|_| ()))))
}

/// `keywheel plan`
pub(crate) async fn plan(place: &Place, out: &Out, args: &PlanArgs) -> Result<Exit> {
    out.note(&place.line());
    let policy = given(place, out, args.policy.as_deref(), args.pushed).await?;
    plan::run(place, out, &policy, args.all).await
}

/// The policy of a file, the pushed one, or the defaults.
pub(crate) async fn given(
    place: &Place,
    out: &Out,
    file: Option<&Path>,
    pushed: bool,
) -> Result<FleetPolicy> {
    if let Some(file) = file {
        return read::file(file);
    }
    let usual = FleetPolicy::default();
    let age = usual.usual().max_age;
    if !pushed {
        out.note(&format!(
            "No --policy: the defaults hold, and a key is due at {age}. --pushed takes the policy that campaigns follow."
        ));
        return Ok(usual);
    }
    let Some(there) = Store::find(place).await?.read().await? else {
        out.note(&format!("No policy was pushed: the defaults hold, and a key is due at {age}."));
        return Ok(usual);
    };
    out.note(&format!("By the pushed policy, {}.", there.name()));
    there.policy.map_err(|why| {
        Trouble::new(
            format!("The pushed policy cannot be understood: {why}."),
            "No campaign follows it. `keywheel policy push FILE` puts another one in its place.",
        )
    })
}
