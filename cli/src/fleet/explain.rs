//! `keywheel policy explain`: which rule decides about a user, why those before it do not, and what it says.

use std::collections::BTreeMap;

use aws_sdk_secretsmanager::types::Tag;
use facts::iam::User;
use jiff::Timestamp;
use keywheel::fleet::FleetPolicy;
use keywheel::fleet::policy::{AccountId, Match, Terms};
use keywheel::fleet::rules::{Decided, Standing, Subject};
use keywheel::{SecretArn, StepError};
use serde_json::json;

use crate::error::{Exit, Result, Trouble};
use crate::managed;
use crate::output::Out;
use crate::place::Place;

/// Explains.
pub(super) async fn run(place: &Place, out: &Out, typed: &str, policy: &FleetPolicy) -> Result<Exit> {
    let mut user = managed::user(place, typed).await?;
    let mut secret_tags = None;
    if user.secret.is_some() {
        // A tag of one side alone is no management: a plan leaves such a user alone.
        let managed = managed::by_user(place, typed).await?;
        secret_tags = Some(tags(place, &managed.secret.arn).await?);
        user = managed.user;
    }
    let name = user.facts.name.as_str();
    let path = facts::estate::path(&user.facts.arn, name);
    let subject = Subject { account: &place.account, user: name, path: &path, tags: secret_tags.as_ref() };
    let decided = decided(place, &user, secret_tags.as_ref(), policy)?;
    let now = Timestamp::now();
    let exemption = policy.exemption(&subject, now);
    let frozen = policy.limits.frozen(now);
    out.json(&json!({
        "user": name,
        "account": place.account,
        "path": path,
        "secret": user.secret,
        "rule": decided.rule,
        "terms": decided.terms,
        "passed": decided.passed.iter().map(|passed| json!({"rule": passed.rule, "why": passed.why})).collect::<Vec<_>>(),
        "exemption": exemption.map(|(exemption, standing)| json!({"until": exemption.until, "owner": exemption.owner,
            "reason": exemption.reason, "holds": standing == Standing::Holds})),
        "frozen": frozen,
    }));
    for passed in &decided.passed {
        out.line(&format!("Rule {} is not for {name}: {}.", passed.rule, passed.why));
    }
    let by = if decided.by_tag { ", which its secret's tag names," } else { "" };
    out.line(&format!("Rule {}{by} decides: {}.", decided.rule, said(&decided.terms)));
    match exemption {
        Some((exemption, Standing::Holds)) => out.line(&format!(
            "It is exempt until {} ({}: {}), and not rotated.",
            exemption.until, exemption.owner, exemption.reason
        )),
        Some((exemption, Standing::Expired)) => {
            out.line(&format!("Its exemption ended on {} ({}).", exemption.until, exemption.owner));
        }
        None => {}
    }
    if let Some(freeze) = frozen {
        out.line(&format!("Nothing is rotated until {} ({}).", freeze.until, freeze.reason));
    }
    if user.secret.is_none() {
        out.line("The user is not managed: no run is started for it.");
    }
    Ok(Exit::Done)
}

/// What a policy decides about a user.
pub(super) fn decided(
    place: &Place,
    user: &User,
    tags: Option<&BTreeMap<String, String>>,
    policy: &FleetPolicy,
) -> Result<Decided> {
    let name = user.facts.name.as_str();
    let path = facts::estate::path(&user.facts.arn, name);
    let subject = Subject { account: &place.account, user: name, path: &path, tags };
    policy.decide(&subject).map_err(|why| {
        Trouble::new(format!("No rule decides about {name}: {why}."), "It is not rotated until one does.")
    })
}

/// The tags of a secret.
pub(super) async fn tags(place: &Place, secret: &SecretArn) -> Result<BTreeMap<String, String>> {
    let reply = place.secrets(secret.region()).describe_secret().secret_id(secret.as_str()).send().await;
    let reply = reply.map_err(|error| StepError::from_sdk("secretsmanager:DescribeSecret", &error))?;
    let tag = |tag: &Tag| Some((tag.key()?.to_owned(), tag.value()?.to_owned()));
    Ok(reply.tags().iter().filter_map(tag).collect())
}

/// Terms, in a sentence's part.
fn said(terms: &Terms) -> String {
    let policy = &terms.policy;
    let owner = terms.owner.as_deref().map_or_else(String::new, |owner| format!(", owner {owner}"));
    let warn = terms.warn.map_or_else(String::new, |warn| format!(", told {warn} before"));
    let unused = terms.unused.map_or_else(String::new, |unused| format!(", unused keys {unused}"));
    format!(
        "due at {}{warn}, overlap {} to {}, quiet window {}, grace {}, wave {}{owner}{unused}",
        terms.max_age, policy.overlap, policy.max_overlap, policy.quiet_window, policy.grace, terms.wave
    )
}

/// A whole policy, for people.
pub(super) fn words(policy: &FleetPolicy) -> Vec<String> {
    let usual = policy.usual();
    let mut lines = vec![format!("By default: {}.", said(&usual))];
    lines.extend(
        policy
            .rules
            .iter()
            .map(|rule| format!("{}: {}: {}.", rule.name, whom(&rule.matches), said(&usual.with(&rule.set)))),
    );
    lines.extend(policy.exemptions.iter().map(|exemption| {
        format!(
            "Exempt until {}: {} ({}: {}).",
            exemption.until, exemption.user, exemption.owner, exemption.reason
        )
    }));
    let limits = &policy.limits;
    lines.push(format!("A plan rotates {} keys at most.", limits.keys_per_run));
    lines.extend(limits.freeze.iter().map(|freeze| {
        let (from, until, reason) = (freeze.from, freeze.until, &freeze.reason);
        format!("Nothing is rotated, and no old key is taken away, from {from} to {until} ({reason}).")
    }));
    if !policy.regions.is_empty() {
        lines.push(format!("Secrets are looked for in {}.", policy.regions.join(", ")));
    }
    if !policy.accounts.is_empty() {
        let accounts: Vec<&str> = policy.accounts.iter().map(AccountId::as_str).collect();
        lines.push(format!("Users of {} are rotated as well.", accounts.join(", ")));
    }
    lines.push(format!("A key is reported after {} without use.", policy.unused_after));
    lines
}

fn whom(matches: &Match) -> String {
    let mut parts = Vec::new();
    parts.extend(matches.user.as_ref().map(|user| format!("users {user}")));
    parts.extend(matches.path.as_ref().map(|path| format!("path {path}")));
    parts.extend(matches.account.as_ref().map(|account| format!("account {}", account.as_str())));
    parts.extend(matches.tags.iter().map(|(name, value)| format!("tag {name}={value}")));
    if parts.is_empty() { "everybody".to_owned() } else { parts.join(", ") }
}
