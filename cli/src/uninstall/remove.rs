//! Each thing that is removed, and what is looked for afterwards. Whatever is gone already is no error.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use keywheel::StepError;
use keywheel::switch::{Containment, Mode};

use super::holdings::{self, Deny, Holdings, On, TAGS};
use crate::error::{Result, Trouble};
use crate::output::Out;
use crate::place::Place;
use crate::stack::{self, Stack};

/// How IAM says that there is none.
const NONE: [&str; 2] = ["NoSuchEntity", "NoSuchEntityException"];
/// How long Step Functions may take to forget a machine.
const PATIENCE: Duration = Duration::from_mins(2);

type Sent = std::result::Result<(), StepError>;

fn gone_is_fine(sent: Sent, codes: &[&str]) -> Sent {
    sent.or_else(|error| if error.is_refused(codes) { Ok(()) } else { Err(error) })
}

/// Takes off the denies of sessions that have all ended.
pub(super) async fn denies(place: &Place, out: &Out, holdings: &Holdings, now: Timestamp) -> Result<()> {
    let over: Vec<&Deny> = holdings.denies.iter().filter(|deny| deny.is_over(now)).collect();
    for deny in &over {
        gone_is_fine(take_off(place, deny).await, &NONE)?;
        out.line(&format!("removed: {}", deny.words()));
    }
    // A managed policy goes when it is on nobody any more.
    let arns: BTreeSet<&str> = over.iter().filter_map(|deny| deny.arn.as_deref()).collect();
    for arn in arns {
        let sent = place.iam().delete_policy().policy_arn(arn).send().await;
        let sent = sent.map(|_| ()).map_err(|error| StepError::from_sdk("iam:DeletePolicy", &error));
        gone_is_fine(sent, &NONE)?;
    }
    Ok(())
}

async fn take_off(place: &Place, deny: &Deny) -> Sent {
    let (iam, name) = (place.iam(), deny.name.as_str());
    match (&deny.on, &deny.arn) {
        (On::User(user), None) => {
            let sent = iam.delete_user_policy().user_name(user).policy_name(name).send().await;
            sent.map(|_| ()).map_err(|error| StepError::from_sdk("iam:DeleteUserPolicy", &error))
        }
        (On::User(user), Some(arn)) => {
            let sent = iam.detach_user_policy().user_name(user).policy_arn(arn).send().await;
            sent.map(|_| ()).map_err(|error| StepError::from_sdk("iam:DetachUserPolicy", &error))
        }
        (On::Role(role), _) => {
            let sent = iam.delete_role_policy().role_name(role).policy_name(name).send().await;
            sent.map(|_| ()).map_err(|error| StepError::from_sdk("iam:DeleteRolePolicy", &error))
        }
        (On::Nobody, _) => Ok(()),
    }
}

/// Takes our tags off users and their secrets. The secret's first: a user whose tag still names it is found again.
pub(super) async fn tags(place: &Place, out: &Out, holdings: &Holdings) -> Result<()> {
    let here = facts::estate::tagged(place.config(), &place.region).await?;
    let mut secrets: BTreeSet<String> = here.into_iter().map(|one| one.arn.as_str().to_owned()).collect();
    secrets
        .extend(holdings.users.iter().map(|user| user.secret.clone()).filter(|arn| arn.starts_with("arn:")));
    for arn in &secrets {
        let region = arn.split(':').nth(3).unwrap_or(&place.region);
        let client = place.secrets(region);
        let secret = match facts::secrets::describe(&client, arn).await {
            // One that is on its way out takes no change.
            Ok(secret) if secret.deleted => continue,
            Ok(secret) => secret,
            Err(error) if error.is_refused(&["ResourceNotFoundException"]) => continue,
            Err(error) => return Err(error.into()),
        };
        let own: Vec<String> = secret.tags.into_keys().filter(|key| key.starts_with(TAGS)).collect();
        if !own.is_empty() {
            let sent = client.untag_resource().secret_id(arn).set_tag_keys(Some(own)).send().await;
            sent.map_err(|error| StepError::from_sdk("secretsmanager:UntagResource", &error))?;
            out.line(&format!("untagged: secret {}", secret.name));
        }
    }
    for user in &holdings.users {
        let call = place.iam().untag_user().user_name(&user.user).set_tag_keys(Some(user.tags.clone()));
        let sent =
            call.send().await.map(|_| ()).map_err(|error| StepError::from_sdk("iam:UntagUser", &error));
        gone_is_fine(sent, &NONE)?;
        out.line(&format!("untagged: user {}", user.user));
    }
    Ok(())
}

/// Removes the stack. Returns what stays of it for good, for people.
pub(super) async fn stack(place: &Place, out: &Out, found: Option<&Stack>) -> Result<Vec<String>> {
    let Some(found) = found else { return Ok(Vec::new()) };
    let kept = buckets(place, &found.id).await?;
    let since = stack::newest_event(place, &found.id).await?;
    let sent = place.stacks().delete_stack().stack_name(&found.id).send().await;
    sent.map_err(|error| StepError::from_sdk("cloudformation:DeleteStack", &error))?;
    if let Some(left) = stack::deleted(place, &found.id).await? {
        let failures = stack::failures(place, &found.id, since.as_deref()).await?;
        out.notes(&failures);
        let first = failures.first().cloned().unwrap_or(left.reason);
        return Err(Trouble::new(
            format!("CloudFormation could not remove the stack. {first}"),
            "Take away what stands against it, then run the same command again.",
        ));
    }
    out.line("removed: the stack");
    Ok(kept)
}

/// The stack's buckets, which hold evidence and are kept.
async fn buckets(place: &Place, id: &str) -> Result<Vec<String>> {
    let mut pages = place.stacks().list_stack_resources().stack_name(id).into_paginator().send();
    let mut buckets = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| StepError::from_sdk("cloudformation:ListStackResources", &error))?;
        for resource in page.stack_resource_summaries() {
            if resource.resource_type() == Some("AWS::S3::Bucket") {
                let name = resource.physical_resource_id().unwrap_or_default();
                buckets.push(format!("bucket {name}, with plans and the reports on leaked keys"));
            }
        }
    }
    Ok(buckets)
}

/// Removes the machines, which outlive the stack, and waits until their names are free.
pub(super) async fn machines(place: &Place, out: &Out) -> Result<()> {
    for arn in machines_left(place).await? {
        let sent = place.sfn().delete_state_machine().state_machine_arn(&arn).send().await;
        sent.map_err(|error| StepError::from_sdk("states:DeleteStateMachine", &error))?;
        out.line(&format!("removed: {arn}"));
    }
    let until = Instant::now() + PATIENCE;
    while !machines_left(place).await?.is_empty() && Instant::now() < until {
        tokio::time::sleep(stack::pause(place)).await;
    }
    Ok(())
}

async fn machines_left(place: &Place) -> Result<Vec<String>> {
    let mut left = Vec::new();
    for arn in place.own_machines() {
        let reply = place.sfn().describe_state_machine().state_machine_arn(&arn).send().await;
        match reply.map_err(|error| StepError::from_sdk("states:DescribeStateMachine", &error)) {
            Ok(_) => left.push(arn),
            Err(error) if error.is_refused(&["StateMachineDoesNotExist"]) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(left)
}

/// Removes the machines' roles, of this installation and of earlier ones.
pub(super) async fn roles(place: &Place, out: &Out, stack: &str) -> Result<()> {
    let holdings = Holdings::read(place).await?;
    for role in holdings.roles.iter().filter(|role| holdings::is_machine_role_of(stack, role)) {
        gone_is_fine(remove_role(place, role).await, &NONE)?;
        out.line(&format!("removed: role {role}"));
    }
    Ok(())
}

async fn remove_role(place: &Place, role: &str) -> Sent {
    let iam = place.iam();
    let mut pages = iam.list_role_policies().role_name(role).into_paginator().send();
    let mut names = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| StepError::from_sdk("iam:ListRolePolicies", &error))?;
        names.extend_from_slice(page.policy_names());
    }
    for name in names {
        let sent = iam.delete_role_policy().role_name(role).policy_name(name).send().await;
        sent.map_err(|error| StepError::from_sdk("iam:DeleteRolePolicy", &error))?;
    }
    let sent = iam.delete_role().role_name(role).send().await;
    sent.map(|_| ()).map_err(|error| StepError::from_sdk("iam:DeleteRole", &error))
}

/// Removes the switches: a later installation begins as careful as the first one did.
pub(super) async fn switches(place: &Place, out: &Out) -> Result<()> {
    let stage = &place.stage;
    for name in [Mode::parameter(stage), Containment::parameter(stage), format!("/keywheel/{stage}/drill")] {
        let sent = place.ssm().delete_parameter().name(&name).send().await;
        match sent.map_err(|error| StepError::from_sdk("ssm:DeleteParameter", &error)) {
            Ok(_) => out.line(&format!("removed: parameter {name}")),
            Err(error) if error.is_refused(&["ParameterNotFound"]) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// What is still there, asked of each service.
pub(super) async fn remains(place: &Place, stack: &str, untag: bool) -> Result<Vec<String>> {
    let mut remains = Vec::new();
    remains.extend(stack::find(place, stack).await?.map(|found| format!("stack {stack} ({})", found.status)));
    remains.extend(machines_left(place).await?);
    let holdings = Holdings::read(place).await?;
    let roles = holdings.roles.iter().filter(|role| holdings::is_role_of(stack, role));
    remains.extend(roles.map(|role| format!("role {role}")));
    remains.extend(holdings.denies.iter().map(Deny::words));
    if untag {
        remains.extend(holdings.users.iter().map(|user| format!("tags on user {}", user.user)));
    }
    remains.extend(rules(place).await?);
    Ok(remains)
}

/// The rules of this stage on the default bus; the others went with their buses.
async fn rules(place: &Place) -> Result<Vec<String>> {
    let own = format!("keywheel-{}-", place.stage);
    let events = place.events(&place.region);
    let (mut rules, mut token) = (Vec::new(), None);
    loop {
        let reply = events.list_rules().name_prefix(&own).set_next_token(token).send().await;
        let reply = reply.map_err(|error| StepError::from_sdk("events:ListRules", &error))?;
        let names = reply.rules().iter().filter_map(aws_sdk_eventbridge::types::Rule::name);
        rules.extend(names.filter(|name| is_rule_of(&own, name)).map(|name| format!("rule {name}")));
        token = reply.next_token().map(str::to_owned);
        if token.is_none() {
            return Ok(rules);
        }
    }
}

/// Whether a rule is one of this stage's: that of another one may begin with the same words.
fn is_rule_of(own: &str, name: &str) -> bool {
    let rest = name.strip_prefix(own);
    rest.is_some_and(|rest| {
        rest == "run-ended-badly" || ["leak-", "slack"].iter().any(|word| rest.starts_with(word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_another_stage_are_not_ours() {
        let own = "keywheel-prod-";
        for ours in ["leak-guard-duty", "slack", "slack-ended-badly", "run-ended-badly"] {
            assert!(is_rule_of(own, &format!("{own}{ours}")), "{ours}");
        }
        for other in ["keywheel-prod-eu-leak-health", "keywheel-production-slack", "keywheel-prod", "nightly"]
        {
            assert!(!is_rule_of(own, other), "{other}");
        }
    }
}
