//! What concerns all keys of an account: the fleet's policy, and the plan made from it.

mod explain;
mod plan;
mod read;

use std::path::Path;

use keywheel::fleet::FleetPolicy;
use keywheel::policy::PolicyOverride;
use serde_json::json;

use crate::args::PlanArgs;
use crate::error::{Exit, Result};
use crate::managed::Managed;
use crate::output::Out;
use crate::place::Place;

/// `keywheel policy check`: speaks to nobody.
pub(crate) fn check(out: &Out, file: &Path) -> Result<Exit> {
    let text = read::text(file)?;
    match read::policy(&text) {
        Ok(policy) => {
            out.lines(&explain::words(&policy));
            out.json(&json!({ "valid": true, "policy": policy }));
            Ok(Exit::Done)
        }
        Err(mistakes) => {
            let mistakes_json: Vec<_> = mistakes.iter().map(read::Located::json).collect();
            out.json(&json!({ "valid": false, "mistakes": mistakes_json }));
            for mistake in &mistakes {
                out.note(&format!("{}:{mistake}", file.display()));
            }
            out.note(&format!("keywheel: {}", read::refusal(&mistakes)));
            Ok(Exit::Refused)
        }
    }
}

/// `keywheel policy explain`
pub(crate) async fn explain(place: &Place, out: &Out, user: &str, file: Option<&Path>) -> Result<Exit> {
    out.note(&place.line());
    explain::run(place, out, user, &given(out, file)?).await
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

/// `keywheel plan`
pub(crate) async fn plan(place: &Place, out: &Out, args: &PlanArgs) -> Result<Exit> {
    out.note(&place.line());
    let policy = given(out, args.policy.as_deref())?;
    plan::run(place, out, &policy, args.all).await
}

/// The policy of a file, or the defaults.
fn given(out: &Out, file: Option<&Path>) -> Result<FleetPolicy> {
    if let Some(file) = file {
        return read::file(file);
    }
    let usual = FleetPolicy::default();
    out.note(&format!("No --policy: the defaults hold, and a key is due at {}.", usual.usual().max_age));
    Ok(usual)
}
