//! `keywheel install`: puts a release into an account, or updates the one that is there. It needs no toolchain.
//!
//! What may go wrong is looked for before anything is written: files against their hashes, programs against the
//! architecture, the stack's state, machines that an earlier installation has left. Then CloudFormation says what it
//! would change, a person says yes, and CloudFormation does just that.

mod bucket;
mod changes;
mod dist;
mod policy;
mod zip;

use std::collections::BTreeMap;

use aws_sdk_cloudformation::types::ChangeSetType;
use keywheel::StepError;
use keywheel::package::{ARCHITECTURE_PARAMETER, Architecture, BUCKET_PARAMETER, Manifest};
use serde_json::{Value, json};

use crate::args::Install;
use crate::error::{Exit, Result, Trouble};
use crate::output::{Out, table};
use crate::place::Place;
use crate::stack::{self, Stack};
use bucket::Bucket;
use changes::{ChangeSet, Wish};
use dist::Dist;

/// The template's parameter of the stage, which --stage says.
const STAGE: &str = "Stage";

/// Runs the command.
pub(crate) async fn run(place: &Place, out: &Out, args: &Install) -> Result<Exit> {
    let bucket = args
        .bucket
        .clone()
        .unwrap_or_else(|| format!("keywheel-artefacts-{}-{}", place.account, place.region));
    let name = stack::name(place, args.stack.as_ref());
    let given = given(&args.parameter)?;
    if args.print_policy {
        return print_policy(place, out, &name, &bucket, &given);
    }
    out.note(&place.line());
    let dist = Dist::read(&args.from)?;
    let wanted = wanted(given, &dist.manifest, &place.stage, &bucket)?;
    let architecture = wanted[ARCHITECTURE_PARAMETER].parse::<Architecture>();
    dist.fits(architecture.map_err(|why| Trouble::new(format!("{why}."), "Nothing was changed."))?)?;
    let before = stack::find(place, &name).await?;
    let way = changes::way(before.as_ref())?;
    if way == ChangeSetType::Create {
        nothing_is_left(place).await?;
    }
    let bucket = Bucket::new(place, &bucket);
    bucket.ready(out, args.create_bucket).await?;
    bucket.upload(&dist).await?;
    let key = dist.template()?.key.clone().unwrap_or_default();
    let template = bucket.address(&key).await?;
    let parameters = changes::parameters(&dist.manifest.parameters, &wanted, before.as_ref());
    let wish =
        Wish { stack: &name, template: &template, parameters, tags: &args.tag, role: args.role.as_ref() };
    let set = changes::plan(place, wish, &way).await?;
    let version = &dist.manifest.version;
    if set.rows.is_empty() {
        changes::forget(place, &set, &way).await?;
        out.line(&format!("Nothing to change: stack {name} is as release {version} has it."));
        out.json(&json!({ "stack": name, "version": version, "changed": false }));
        return Ok(Exit::Done);
    }
    show(out, &set);
    let question = format!("Release {version}, stack {name}: {}. Do it?", changes::count(&set.rows));
    if let Err(trouble) = out.confirm(&question, args.yes) {
        changes::forget(place, &set, &way).await?;
        return Err(trouble);
    }
    let done = carry_out(place, out, &set, &way).await?;
    tell(place, out, &done, version, &way);
    out.json(&json!({
        "stack": name, "version": version, "changed": true, "status": done.status, "outputs": done.outputs,
    }));
    Ok(Exit::Done)
}

/// The parameters of the command line; a value of a file is read.
fn given(pairs: &[(String, String)]) -> Result<BTreeMap<String, String>> {
    let mut given = BTreeMap::new();
    for (name, value) in pairs {
        let value = match value.strip_prefix('@') {
            Some(file) => std::fs::read_to_string(file)
                .map(|text| text.trim_end().to_owned())
                .map_err(|error| Trouble::new(format!("{file} could not be read: {error}."), ""))?,
            None => value.clone(),
        };
        if given.insert(name.clone(), value).is_some() {
            return Err(Trouble::new(
                format!("The parameter {name} is given twice."),
                "Nothing was changed.",
            ));
        }
    }
    Ok(given)
}

/// The parameters that are given to CloudFormation, with those that this command knows.
fn wanted(
    mut given: BTreeMap<String, String>,
    manifest: &Manifest,
    stage: &str,
    bucket: &str,
) -> Result<BTreeMap<String, String>> {
    for (name, option) in [(STAGE, "--stage"), (BUCKET_PARAMETER, "--bucket")] {
        if given.contains_key(name) {
            return Err(Trouble::new(
                format!("The parameter {name} is given by {option}."),
                "Nothing was changed.",
            ));
        }
    }
    if let Some(unknown) = given.keys().find(|name| !manifest.parameters.contains(name)) {
        return Err(Trouble::new(
            format!("The template has no parameter {unknown}."),
            format!("Nothing was changed. It has {}.", manifest.parameters.join(", ")),
        ));
    }
    given.insert(STAGE.to_owned(), stage.to_owned());
    given.insert(BUCKET_PARAMETER.to_owned(), bucket.to_owned());
    given.entry(ARCHITECTURE_PARAMETER.to_owned()).or_insert_with(|| manifest.architecture.to_string());
    Ok(given)
}

fn print_policy(
    place: &Place,
    out: &Out,
    stack: &str,
    bucket: &str,
    given: &BTreeMap<String, String>,
) -> Result<Exit> {
    let text = |name: &str| given.get(name).map(String::as_str).filter(|value| !value.is_empty());
    let scope = policy::Scope {
        partition: &place.partition,
        region: &place.region,
        account: &place.account,
        stage: &place.stage,
        stack,
        bucket,
        role_path: text("RolePath").unwrap_or("/"),
        boundary: text("PermissionsBoundary"),
    };
    out.document(&format!("{:#}", policy::of(&scope)?));
    Ok(Exit::Done)
}

/// Refuses to install beside machines that an earlier installation has left: they have the names of the new ones, and
/// CloudFormation would fail on them half way.
async fn nothing_is_left(place: &Place) -> Result<()> {
    let own = place.own_machines();
    let mut pages = place.sfn().list_state_machines().into_paginator().send();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| StepError::from_sdk("states:ListStateMachines", &error))?;
        let mut machines = page.state_machines().iter();
        if let Some(left) = machines.find(|machine| own.iter().any(|own| own == machine.state_machine_arn()))
        {
            return Err(Trouble::new(
                format!("The machine {} is there already, and no stack of this name.", left.name()),
                "`keywheel uninstall` removes what an earlier installation has left; or --stack names the stack that it belongs to.",
            ));
        }
    }
    Ok(())
}

fn show(out: &Out, set: &ChangeSet) {
    let mut rows = vec![["CHANGE", "RESOURCE", "TYPE", "REPLACED"].map(str::to_owned).to_vec()];
    rows.extend(set.rows.iter().map(changes::Row::cells));
    out.lines(&table(&rows));
    let rows: Vec<Value> = set.rows.iter().map(changes::Row::json).collect();
    out.json(&json!({ "changes": rows }));
}

/// Has CloudFormation do it, and waits for its end.
async fn carry_out(place: &Place, out: &Out, set: &ChangeSet, way: &ChangeSetType) -> Result<Stack> {
    let since = stack::newest_event(place, &set.stack).await?;
    changes::execute(place, set, way).await?;
    stack::begun(place, &set.stack, since.as_deref()).await?;
    let done = stack::settled(place, out, &set.stack).await?;
    match done {
        Some(done) if succeeded(&done, way) => Ok(done),
        other => {
            let failures = stack::failures(place, &set.stack, since.as_deref()).await?;
            let (status, reason) = other
                .map_or_else(|| ("gone".to_owned(), String::new()), |stack| (stack.status, stack.reason));
            let first = failures.first().cloned().unwrap_or(reason);
            out.notes(&failures);
            Err(Trouble::new(
                format!("CloudFormation could not do it; the stack is {status}. {first}"),
                if *way == ChangeSetType::Create {
                    "Take away what stands against it; `keywheel uninstall` clears what is left, then install again."
                } else {
                    "The stack is as it was before. Take away what stands against it, then install again."
                },
            ))
        }
    }
}

/// Whether a stack came to the end that was meant.
fn succeeded(stack: &Stack, way: &ChangeSetType) -> bool {
    let wanted = if *way == ChangeSetType::Create { "CREATE_COMPLETE" } else { "UPDATE_COMPLETE" };
    stack.status == wanted
}

/// What to do next.
fn tell(place: &Place, out: &Out, done: &Stack, version: &str, way: &ChangeSetType) {
    if *way != ChangeSetType::Create {
        out.line(&format!("Updated to {version}. Runs under way go on with the new functions."));
        return;
    }
    let topic = done.outputs.get("TopicArn").map_or("TOPIC", String::as_str);
    out.line(&format!("Installed {version}. A new installation is dry-run and page: it changes nothing and says what it would do."));
    out.line("Next:");
    for line in [
        format!("  aws sns subscribe --topic-arn {topic} --protocol email --notification-endpoint YOU"),
        "  keywheel enroll --user NAME --secret ID".to_owned(),
        "  keywheel doctor            which reports of leaked keys reach it".to_owned(),
        "  keywheel mode live         rotates keys".to_owned(),
        "  keywheel containment on    makes leaked keys Inactive".to_owned(),
    ] {
        out.line(&line);
    }
    if place.region != "us-east-1" {
        out.line(
            "IAM's events and AWS Health's come from us-east-1: a stack of intake.yaml there forwards them.",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::dist::tests::release;
    use super::*;
    use crate::stack::tests::stack;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_command_knows_stage_bucket_and_architecture_itself() {
        let place = release("wanted", 183);
        let manifest = Dist::read(&place.0).unwrap().manifest;
        let wanted = |given: &[(&str, &str)]| wanted(map(given), &manifest, "test", "artefacts");
        let known = [("Stage", "test"), ("ArtefactBucket", "artefacts"), ("Architecture", "arm64")];
        assert_eq!(wanted(&[]), Ok(map(&known)));
        let other = wanted(&[("Architecture", "x86_64"), ("LogRetentionDays", "7")]).unwrap();
        assert_eq!((other["Architecture"].as_str(), other["LogRetentionDays"].as_str()), ("x86_64", "7"));
        assert!(wanted(&[("Stage", "prod")]).unwrap_err().text.contains("--stage"));
        assert!(wanted(&[("ArtefactBucket", "x")]).unwrap_err().text.contains("--bucket"));
        let trouble = wanted(&[("LogRetention", "7")]).unwrap_err();
        assert!(trouble.remedy.contains("LogRetentionDays"), "{trouble}");
    }

    #[test]
    fn a_value_may_come_from_a_file_and_only_once() {
        let file = std::env::temp_dir().join(format!("keywheel-webhook-{}", std::process::id()));
        std::fs::write(&file, "https://hooks.example.com/x\n").unwrap();
        let pair = ("SlackWebhookUrl".to_owned(), format!("@{}", file.display()));
        let read = given(std::slice::from_ref(&pair)).unwrap();
        assert_eq!(read, map(&[("SlackWebhookUrl", "https://hooks.example.com/x")]));
        assert!(given(&[pair.clone(), pair.clone()]).unwrap_err().text.contains("twice"));
        std::fs::remove_file(&file).unwrap();
        assert!(given(&[pair]).unwrap_err().text.contains("could not be read"));
    }

    #[test]
    fn a_stack_that_went_back_is_no_success() {
        assert!(succeeded(&stack("CREATE_COMPLETE"), &ChangeSetType::Create));
        assert!(succeeded(&stack("UPDATE_COMPLETE"), &ChangeSetType::Update));
        for status in ["ROLLBACK_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "CREATE_COMPLETE", "UPDATE_FAILED"] {
            assert!(!succeeded(&stack(status), &ChangeSetType::Update), "{status}");
        }
    }
}
