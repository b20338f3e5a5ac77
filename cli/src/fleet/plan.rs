//! `keywheel plan`: what a run over all keys would do now, and why.

use std::collections::BTreeMap;

use facts::estate::Installation;
use jiff::Timestamp;
use keywheel::clock::Clock;
use keywheel::decide::due;
use keywheel::fleet::FleetPolicy;
use keywheel::fleet::estate::{Estate, Source};
use keywheel::fleet::plan::{Action, Line, Plan};
use serde_json::json;

use crate::error::{Exit, Result};
use crate::output::{Out, table};
use crate::place::Place;
use crate::rotate::caution;

/// Reads, plans, and shows the plan.
pub(super) async fn run(place: &Place, out: &Out, policy: &FleetPolicy, all: bool) -> Result<Exit> {
    caution(place, out, false).await;
    let regions = regions(place, policy);
    let installation = installation(place);
    let estate =
        facts::estate::read(place.config(), Some(&installation), &place.account, &regions, &Clock::System)
            .await?;
    let now = Timestamp::now();
    let looks = facts::estate::look_until_full(place.config(), &installation, (policy, &estate), now).await;
    let plan = due::plan(policy, &estate, &looks, now);
    show(out, &estate, &plan, all);
    if let Some(note) = elsewhere(policy, &place.account) {
        out.note(&note);
    }
    let unread = plan.lines.iter().any(Line::is_unread);
    Ok(if unread { Exit::Refused } else { Exit::Done })
}

/// That the policy names accounts which these credentials do not read, where it does.
pub(super) fn elsewhere(policy: &FleetPolicy, own: &str) -> Option<String> {
    let others = policy.other_accounts(own);
    (!others.is_empty()).then(|| {
        format!(
            "Not read: {}. Only the fleet's functions are let into other accounts: `keywheel fleet run --dry-run` plans their keys as well.",
            others.join(", ")
        )
    })
}

/// Whose runs are looked for. Which role makes its keys is for the stack to know: a key that lost its secret is told from
/// a stranger's by the campaign's own plan.
pub(super) fn installation(place: &Place) -> Installation {
    Installation {
        config: place.config().clone(),
        rotation: place.machine.clone(),
        stage: place.stage.clone(),
        create_role: None,
    }
}

/// Where secrets are looked for.
pub(crate) fn regions(place: &Place, policy: &FleetPolicy) -> Vec<String> {
    if policy.regions.is_empty() { vec![place.region.clone()] } else { policy.regions.clone() }
}

fn show(out: &Out, estate: &Estate, plan: &Plan, all: bool) {
    for line in &plan.lines {
        out.json(&json!(line));
    }
    out.note(&match &estate.source {
        Source::Report(at) => format!("{} users, by IAM's credential report of {at}.", estate.users.len()),
        Source::Lists(why) => format!(
            "{} users, listed one by one, as IAM gave no credential report ({why}); when their keys were used is not known.",
            estate.users.len()
        ),
    });
    let shown = |line: &&Line| all || !line.is_ordinary();
    let mut rows = vec![["USER", "KEY", "AGE", "RULE", "WAVE", "ACTION", "WHY"].map(str::to_owned).to_vec()];
    rows.extend(plan.lines.iter().filter(shown).map(row));
    if rows.len() > 1 {
        out.lines(&table(&rows));
    }
    out.line(&summary(plan));
    if !all && let Some(skipped) = skipped(plan) {
        out.line(&format!("Not shown: {skipped}. --all lists them."));
    }
}

fn row(line: &Line) -> Vec<String> {
    let action = match line.action {
        Action::Rotate => "rotate",
        Action::Skip => "skip",
        Action::Find => "find",
    };
    vec![
        line.user.clone(),
        line.key_id.as_ref().map_or_else(String::new, ToString::to_string),
        line.age_days.map_or_else(String::new, |days| format!("{days} d")),
        line.rule.clone().unwrap_or_default(),
        line.wave.map_or_else(String::new, |wave| wave.to_string()),
        action.to_owned(),
        format!("{}: {}", line.code, line.why),
    ]
}

fn summary(plan: &Plan) -> String {
    let count = |action| plan.with(action).count();
    format!(
        "{} to rotate, {} left alone, {} to look at.",
        count(Action::Rotate),
        count(Action::Skip),
        count(Action::Find)
    )
}

/// How many are not shown, by reason.
fn skipped(plan: &Plan) -> Option<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for line in plan.lines.iter().filter(|line| line.is_ordinary()) {
        *counts.entry(line.code).or_default() += 1;
    }
    let parts: Vec<String> = counts.iter().map(|(code, count)| format!("{count} {code}")).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}
