//! What CloudFormation would change, worked out by it and shown before anything of it is done.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use aws_sdk_cloudformation::types::{
    Capability, Change, ChangeAction, ChangeSetStatus, ChangeSetType, Parameter, PolicyAction, Replacement,
    ResourceChange, Tag,
};
use keywheel::{RunId, StepError};
use serde_json::{Value, json};

use crate::error::{Result, Trouble};
use crate::place::Place;
use crate::stack::{self, Stack};

/// How long CloudFormation may think.
const PATIENCE: Duration = Duration::from_mins(5);

/// What is asked for.
pub(super) struct Wish<'a> {
    /// The stack's name.
    pub(super) stack: &'a str,
    /// Where the template lies.
    pub(super) template: &'a str,
    pub(super) parameters: Vec<Parameter>,
    pub(super) tags: &'a [(String, String)],
    pub(super) role: Option<&'a String>,
}

/// What CloudFormation makes of it.
#[derive(Debug)]
pub(super) struct ChangeSet {
    /// Its ARN.
    pub(super) id: String,
    /// The stack's ARN.
    pub(super) stack: String,
    /// Empty where nothing is to be changed.
    pub(super) rows: Vec<Row>,
}

/// One resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    what: &'static str,
    name: String,
    kind: String,
    replaced: &'static str,
}

impl Row {
    fn of(change: &ResourceChange) -> Self {
        let stays = change.policy_action() == Some(&PolicyAction::Retain);
        let what = match change.action().map(ChangeAction::as_str) {
            Some("Add") => "add",
            Some("Modify") => "change",
            Some("Remove") if stays => "let go",
            Some("Remove") => "remove",
            Some("Import") => "take over",
            // Anything may become of it.
            _ => "unknown",
        };
        let replaced = match change.replacement() {
            Some(Replacement::False) | None => "",
            Some(Replacement::True) => "yes",
            Some(_) => "perhaps",
        };
        Self {
            what,
            name: change.logical_resource_id().unwrap_or_default().to_owned(),
            kind: change.resource_type().unwrap_or_default().to_owned(),
            replaced,
        }
    }

    /// For a table.
    pub(super) fn cells(&self) -> Vec<String> {
        [self.what, &self.name, &self.kind, self.replaced].map(str::to_owned).to_vec()
    }

    pub(super) fn json(&self) -> Value {
        json!({ "change": self.what, "resource": self.name, "type": self.kind, "replaced": self.replaced })
    }
}

/// How many there are of each, for the question.
pub(super) fn count(rows: &[Row]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for row in rows {
        *counts.entry(row.what).or_default() += 1;
    }
    let words: Vec<String> = counts.iter().map(|(what, count)| format!("{what} {count}")).collect();
    words.join(", ")
}

/// The kind of change set that a stack takes.
pub(super) fn way(found: Option<&Stack>) -> Result<ChangeSetType> {
    let Some(stack) = found else { return Ok(ChangeSetType::Create) };
    if stack.is_only_planned() {
        return Ok(ChangeSetType::Create);
    }
    let status = stack.status.as_str();
    match status {
        "CREATE_COMPLETE"
        | "UPDATE_COMPLETE"
        | "UPDATE_ROLLBACK_COMPLETE"
        | "IMPORT_COMPLETE"
        | "IMPORT_ROLLBACK_COMPLETE" => Ok(ChangeSetType::Update),
        "ROLLBACK_COMPLETE" | "ROLLBACK_FAILED" | "CREATE_FAILED" | "DELETE_FAILED" => Err(Trouble::new(
            format!(
                "The stack is {status}: an earlier installation or removal failed, and it takes no update."
            ),
            "`keywheel uninstall` removes what is left of it; then install again.",
        )),
        _ if stack.is_under_way() => Err(Trouble::new(
            format!("CloudFormation is at work on the stack: it is {status}."),
            "Wait until it has ended, then run the same command again.",
        )),
        _ => Err(Trouble::new(
            format!("The stack is {status}, and takes no update."),
            "CloudFormation's console says why, and how it goes on.",
        )),
    }
}

/// The parameters of a change set: those that were given, and for the others what holds for the stack. One that the
/// stack does not have yet has the template's default.
pub(super) fn parameters(
    known: &[String],
    given: &BTreeMap<String, String>,
    before: Option<&Stack>,
) -> Vec<Parameter> {
    let one = |name: &String| {
        let builder = Parameter::builder().parameter_key(name);
        match given.get(name) {
            Some(value) => Some(builder.parameter_value(value).build()),
            None if before.is_some_and(|stack| stack.parameters.contains(name)) => {
                Some(builder.use_previous_value(true).build())
            }
            None => None,
        }
    };
    known.iter().filter_map(one).collect()
}

/// Has CloudFormation work out what it would change.
pub(super) async fn plan(place: &Place, wish: Wish<'_>, way: &ChangeSetType) -> Result<ChangeSet> {
    let tags: Vec<Tag> =
        wish.tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect();
    let name = format!("keywheel-{}", RunId::random());
    let call = place
        .stacks()
        .create_change_set()
        .stack_name(wish.stack)
        .change_set_name(&name)
        .change_set_type(way.clone())
        .template_url(wish.template)
        .set_parameters(Some(wish.parameters))
        // None at all leaves the stack's as they are.
        .set_tags((!tags.is_empty()).then_some(tags))
        .set_role_arn(wish.role.cloned())
        // Roles, and the transform that makes functions and machines of the template.
        .capabilities(Capability::CapabilityIam)
        .capabilities(Capability::CapabilityNamedIam)
        .capabilities(Capability::CapabilityAutoExpand);
    let reply = call.send().await;
    let reply = reply.map_err(|error| StepError::from_sdk("cloudformation:CreateChangeSet", &error))?;
    let (Some(id), Some(stack)) = (reply.id(), reply.stack_id()) else {
        return Err(Trouble::new("CloudFormation made a change set without a name.", "Nothing was changed."));
    };
    let mut set = ChangeSet { id: id.to_owned(), stack: stack.to_owned(), rows: Vec::new() };
    match rows(place, &set.id).await {
        Ok(rows) => set.rows = rows,
        Err(trouble) => {
            forget(place, &set, way).await?;
            return Err(trouble);
        }
    }
    Ok(set)
}

/// Waits for a change set, and reads it to the last page. None of its rows where there is nothing to change.
async fn rows(place: &Place, id: &str) -> Result<Vec<Row>> {
    let until = Instant::now() + PATIENCE;
    let (mut rows, mut token) = (Vec::new(), None);
    loop {
        let call = place.stacks().describe_change_set().change_set_name(id).set_next_token(token.clone());
        let reply = call.send().await;
        let reply = reply.map_err(|error| StepError::from_sdk("cloudformation:DescribeChangeSet", &error))?;
        let reason = reply.status_reason().unwrap_or_default();
        match reply.status().map(ChangeSetStatus::as_str) {
            Some("CREATE_COMPLETE") => {
                rows.extend(reply.changes().iter().filter_map(Change::resource_change).map(Row::of));
                token = reply.next_token().map(str::to_owned);
                if token.is_none() {
                    return Ok(rows);
                }
            }
            Some("CREATE_PENDING" | "CREATE_IN_PROGRESS") if Instant::now() < until => {
                tokio::time::sleep(stack::pause(place)).await;
            }
            Some("FAILED") if says_nothing_changes(reason) => return Ok(Vec::new()),
            status => {
                return Err(Trouble::new(
                    format!(
                        "CloudFormation cannot work out the changes ({}): {reason}.",
                        status.unwrap_or("no status")
                    ),
                    "Nothing was changed.",
                ));
            }
        }
    }
}

/// CloudFormation has two sentences for it, and no code.
fn says_nothing_changes(reason: &str) -> bool {
    ["didn't contain changes", "No updates are to be performed"].iter().any(|said| reason.contains(said))
}

/// Does what the change set says.
pub(super) async fn execute(place: &Place, set: &ChangeSet, way: &ChangeSetType) -> Result<()> {
    let token = set.id.rsplit('/').next().unwrap_or_default();
    let mut call = place.stacks().execute_change_set().change_set_name(&set.id).client_request_token(token);
    if *way == ChangeSetType::Create {
        // What was just made goes with a failure: machines that were kept would be in the next one's way.
        call = call.retain_except_on_create(true);
    }
    call.send().await.map_err(|error| StepError::from_sdk("cloudformation:ExecuteChangeSet", &error))?;
    Ok(())
}

/// Forgets a change set, and a stack that is nothing else.
pub(super) async fn forget(place: &Place, set: &ChangeSet, way: &ChangeSetType) -> Result<()> {
    let done = place.stacks().delete_change_set().change_set_name(&set.id).send().await;
    done.map_err(|error| StepError::from_sdk("cloudformation:DeleteChangeSet", &error))?;
    // Looked at once more: somebody else may have installed it meanwhile.
    if *way == ChangeSetType::Create
        && stack::find(place, &set.stack).await?.is_some_and(|stack| stack.is_only_planned())
    {
        let done = place.stacks().delete_stack().stack_name(&set.stack).send().await;
        done.map_err(|error| StepError::from_sdk("cloudformation:DeleteStack", &error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::tests::stack;

    fn change(action: ChangeAction) -> aws_sdk_cloudformation::types::builders::ResourceChangeBuilder {
        ResourceChange::builder()
            .action(action)
            .logical_resource_id("LookFunction")
            .resource_type("AWS::Lambda::Function")
    }

    #[test]
    fn a_stack_is_made_updated_or_refused_by_how_it_is() {
        assert_eq!(way(None), Ok(ChangeSetType::Create));
        assert_eq!(way(Some(&stack("REVIEW_IN_PROGRESS"))), Ok(ChangeSetType::Create));
        for status in ["CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE"] {
            assert_eq!(way(Some(&stack(status))), Ok(ChangeSetType::Update), "{status}");
        }
        let refused = |status: &str| way(Some(&stack(status))).unwrap_err();
        assert!(refused("ROLLBACK_COMPLETE").remedy.contains("keywheel uninstall"));
        assert!(refused("UPDATE_IN_PROGRESS").text.contains("at work"));
        assert!(refused("UPDATE_ROLLBACK_FAILED").text.contains("takes no update"));
        assert!(refused("").text.contains("takes no update"));
    }

    #[test]
    fn what_is_replaced_and_what_stays_is_shown() {
        let cells = |change: ResourceChange| Row::of(&change).cells().join(" ");
        assert_eq!(cells(change(ChangeAction::Add).build()), "add LookFunction AWS::Lambda::Function ");
        let replaced = change(ChangeAction::Modify).replacement(Replacement::True).build();
        assert_eq!(cells(replaced), "change LookFunction AWS::Lambda::Function yes");
        let perhaps = change(ChangeAction::Modify).replacement(Replacement::Conditional).build();
        assert_eq!(cells(perhaps), "change LookFunction AWS::Lambda::Function perhaps");
        let removed = change(ChangeAction::Remove);
        assert!(cells(removed.clone().build()).starts_with("remove "));
        assert!(cells(removed.policy_action(PolicyAction::Retain).build()).starts_with("let go "));
        assert!(cells(change(ChangeAction::from("Dynamic")).build()).starts_with("unknown "));
        let rows = [ChangeAction::Add, ChangeAction::Modify, ChangeAction::Add]
            .map(|action| Row::of(&change(action).build()));
        assert_eq!(count(&rows), "add 2, change 1");
    }

    #[test]
    fn parameters_that_are_not_given_stay_as_they_are() {
        let known = ["Stage", "LogRetentionDays", "FleetSchedule"].map(str::to_owned);
        let given = BTreeMap::from([("LogRetentionDays".to_owned(), "30".to_owned())]);
        let seen = |before: Option<&Stack>| -> Vec<(String, Option<String>, Option<bool>)> {
            let of = |one: &Parameter| {
                let value = one.parameter_value().map(str::to_owned);
                (one.parameter_key().unwrap().to_owned(), value, one.use_previous_value())
            };
            parameters(&known, &given, before).iter().map(of).collect()
        };
        let retention = ("LogRetentionDays".to_owned(), Some("30".to_owned()), None);
        assert_eq!(seen(None), std::slice::from_ref(&retention));
        let mut before = stack("CREATE_COMPLETE");
        before.parameters = ["Stage", "LogRetentionDays", "Gone"].map(str::to_owned).into();
        assert_eq!(seen(Some(&before)), [("Stage".to_owned(), None, Some(true)), retention]);
    }

    #[test]
    fn nothing_to_change_is_told_from_a_failure() {
        assert!(says_nothing_changes(
            "The submitted information didn't contain changes. Submit different information to create a change set."
        ));
        assert!(says_nothing_changes("No updates are to be performed."));
        assert!(!says_nothing_changes("Template error: unresolved condition dependency"));
    }
}
