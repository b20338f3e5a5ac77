//! The template against the code: resources, substitutions, parameters, variables, time-outs.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use support::functions::NAMES;
use support::repository::{
    MACHINES, machine, references, states, template, text, texts, walk, without_tests,
};
use support::walker::{function, kebab};

use crate::is_own_service;

/// The functions of the template: crate and resource.
pub(crate) fn functions(template: &Value) -> BTreeMap<String, &Value> {
    let resources = template["Resources"].as_object().unwrap().iter();
    resources
        .filter(|(_, resource)| resource["Type"] == "AWS::Serverless::Function")
        .map(|(name, resource)| (kebab(name.strip_suffix("Function").unwrap()), resource))
        .collect()
}

#[test]
fn every_function_is_a_resource_with_its_own_crate_role_and_logs() {
    let template = template();
    let functions = functions(&template);
    assert_eq!(functions.keys().map(String::as_str).collect::<BTreeSet<_>>(), NAMES.into());
    let mut roles = BTreeSet::new();
    for (name, function) in &functions {
        let properties = &function["Properties"];
        assert_eq!(properties["CodeUri"], format!("../functions/{name}"));
        assert_eq!(function["Metadata"]["BuildProperties"]["Binary"], **name);
        assert_eq!(properties["FunctionName"]["!Sub"], format!("keywheel-${{Stage}}-{name}"));
        assert!(roles.insert(properties["Role"].to_string()), "{name} shares its role");
        assert!(properties["LoggingConfig"]["LogGroup"].is_object(), "{name} has no log group of its own");
    }
}

/// `incident` as its machine's resource is named.
pub(crate) fn machine_resource(name: &str) -> String {
    name[..1].to_uppercase() + &name[1..] + "Machine"
}

#[test]
fn every_substitution_of_a_machine_is_given_and_leads_to_its_function() {
    let template = template();
    for name in MACHINES {
        let resource = &template["Resources"][machine_resource(name)];
        let given = resource["Properties"]["DefinitionSubstitutions"].as_object().unwrap();
        let definition = text(&format!("statemachine/{name}.asl.json"));
        let asked: BTreeSet<&str> =
            definition.split("${").skip(1).filter_map(|rest| rest.split('}').next()).collect();
        assert_eq!(asked, given.keys().map(String::as_str).collect(), "{name}");
        for (name, target) in given {
            let resource = name.strip_suffix("Arn").unwrap();
            match resource {
                "IncidentMachine" | "RotationMachine" => assert_eq!(target["!Ref"], resource),
                "StartExecution" | "StartExecutionAndWait" | "GetObject" => {
                    let service = match resource {
                        "StartExecution" => "states:startExecution",
                        "StartExecutionAndWait" => "states:startExecution.waitForTaskToken",
                        _ => "s3:getObject",
                    };
                    assert_eq!(target["!Sub"], format!("arn:${{AWS::Partition}}:states:::{service}"));
                }
                // By alias: an execution outlives a deployment, and a deployment can be turned back.
                function => assert_eq!(target["!Ref"], format!("{function}.Alias")),
            }
        }
    }
}

#[test]
fn every_parameter_is_used_and_every_reference_is_defined() {
    let template = template();
    let used: BTreeSet<String> = ["Globals", "Conditions", "Resources", "Outputs"]
        .iter()
        .filter_map(|part| template.get(part))
        .flat_map(references)
        .collect();
    let names = |part: &str| -> BTreeSet<String> {
        template
            .get(part)
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .map(|(name, _)| name.clone())
            .collect()
    };
    let unused: Vec<_> = names("Parameters").difference(&used).cloned().collect();
    assert!(unused.is_empty(), "parameters that nothing reads: {unused:?}");
    let unused: Vec<_> = names("Conditions").difference(&used).cloned().collect();
    assert!(unused.is_empty(), "conditions that nothing reads: {unused:?}");
    let defined: BTreeSet<String> =
        ["Parameters", "Resources", "Conditions"].into_iter().flat_map(names).collect();
    let undefined: Vec<_> = used
        .difference(&defined)
        .filter(|name| !name.starts_with("AWS::") && !name.starts_with("aws:"))
        .collect();
    assert!(undefined.is_empty(), "{undefined:?}");
}

/// The settings that a crate's code reads.
fn settings(place: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (path, text) in texts(place) {
        for rest in without_tests(&path, &text).split("setting(\"").skip(1) {
            names.extend(rest.split('"').next().map(str::to_owned));
        }
    }
    names
}

#[test]
fn every_variable_is_read_and_every_setting_is_given() {
    let template = template();
    let names = |value: &Value| -> BTreeSet<String> {
        let variables = value.pointer("/Environment/Variables").and_then(Value::as_object);
        variables.into_iter().flatten().map(|(name, _)| name.clone()).collect()
    };
    let all = names(&template["Globals"]["Function"]);
    let common = settings("functions/keywheel/src");
    for (name, function) in functions(&template) {
        let own = names(&function["Properties"]);
        assert_eq!(settings(&format!("functions/{name}/src")), own, "{name}");
    }
    // The platform's own (certificates and the like) are read by what we link, not by us.
    let ours: BTreeSet<String> = all.into_iter().filter(|name| name.starts_with("KEYWHEEL_")).collect();
    assert_eq!(common, ours);
}

#[test]
fn a_function_times_out_before_its_state_does() {
    let template = template();
    let functions = functions(&template);
    let global = template.pointer("/Globals/Function/Timeout").and_then(Value::as_u64);
    let machines = MACHINES.map(machine);
    for (name, state) in machines.iter().flat_map(states) {
        let Some(resource) = state.get("Resource").and_then(Value::as_str) else { continue };
        if is_own_service(resource) {
            continue;
        }
        let own =
            functions[&function(resource)]["Properties"].get("Timeout").and_then(Value::as_u64).or(global);
        let (own, limit) = (own.unwrap(), state["TimeoutSeconds"].as_u64().unwrap());
        assert!(own < limit, "{name}: the function has {own} s, the state {limit} s");
    }
}

#[test]
fn alarms_watch_metrics_that_are_written() {
    let (template, code) = (template(), text("functions/keywheel/src/emf.rs"));
    for (name, resource) in template["Resources"].as_object().unwrap() {
        if resource["Type"] == "AWS::CloudWatch::Alarm"
            && resource["Properties"]["Namespace"] == keywheel::emf::NAMESPACE
        {
            let metric = resource["Properties"]["MetricName"].as_str().unwrap();
            assert!(code.contains(&format!("\"{metric}\"")), "{name} watches {metric}");
        }
    }
}

#[test]
fn every_count_of_something_that_went_wrong_has_an_alarm() {
    let template = template();
    let resources = template["Resources"].as_object().unwrap().values();
    let watched: BTreeSet<&str> = resources
        .filter(|one| one["Type"] == "AWS::CloudWatch::Alarm")
        .filter_map(|one| one["Properties"]["MetricName"].as_str())
        .collect();
    for metric in ["RunEnded", "NoticesGivenUp", "NotContained", "TimeToContain"] {
        assert!(watched.contains(metric), "nobody watches {metric}");
    }
}

/// Step Functions itself writes these metrics.
#[test]
fn every_end_that_a_machine_does_not_choose_has_an_alarm() {
    let template = template();
    let resources = template["Resources"].as_object().unwrap().values();
    let watched: BTreeSet<(&str, &str)> = resources
        .filter(|one| one["Type"] == "AWS::CloudWatch::Alarm")
        .map(|one| &one["Properties"])
        .filter(|alarm| alarm["Namespace"] == "AWS/States")
        .filter_map(|alarm| {
            Some((alarm["Dimensions"][0]["Value"]["!Ref"].as_str()?, alarm["MetricName"].as_str()?))
        })
        .collect();
    for name in MACHINES {
        let machine = machine_resource(name);
        // A rotation or a campaign that a person stops is that person's choice, and is told.
        let aborted = ["emergency", "incident"].contains(&name).then_some("ExecutionsAborted");
        for metric in ["ExecutionsFailed", "ExecutionsTimedOut"].into_iter().chain(aborted) {
            assert!(watched.contains(&(machine.as_str(), metric)), "nobody watches {metric} of {machine}");
        }
    }
}

#[test]
fn a_campaign_that_stops_has_an_alarm() {
    let template = template();
    let alarm = &template["Resources"]["FleetStoppedAlarm"]["Properties"];
    assert_eq!(alarm["MetricName"], "RunEnded");
    assert_eq!(alarm["Dimensions"][1]["Value"], keywheel::campaign::Outcome::Stopped.name());
}

#[test]
fn the_schedule_starts_a_campaign_as_the_sample_says() {
    let template = template();
    let schedule = &template["Resources"]["StartFleet"]["Properties"];
    let input: Value = serde_json::from_str(schedule["Target"]["Input"].as_str().unwrap()).unwrap();
    let sample: Value = serde_json::from_str(&text("events/fleet.json")).unwrap();
    assert_eq!(input, sample);
    assert_eq!(schedule["ScheduleExpression"]["!Ref"], "FleetSchedule");
    assert_eq!(schedule["FlexibleTimeWindow"]["Mode"], "OFF");
}

/// The command looks it up there.
#[test]
fn the_bucket_is_named_in_a_parameter_of_its_stage() {
    let template = template();
    let parameter = &template["Resources"]["BucketParameter"]["Properties"];
    assert_eq!(parameter["Name"]["!Sub"], "/keywheel/${Stage}/bucket");
    assert_eq!(parameter["Type"], "String");
    assert_eq!(parameter["Value"]["!Ref"], "Bucket");
}

/// A secret's policy lets these in and refuses everybody else: one that is missing could rotate nothing.
#[test]
fn the_roles_that_read_values_are_named_in_a_parameter_of_its_stage() {
    let template = template();
    let parameter = &template["Resources"]["SecretRolesParameter"]["Properties"];
    assert_eq!(parameter["Name"]["!Sub"], "/keywheel/${Stage}/secret-roles");
    assert_eq!(parameter["Type"], "StringList");
    assert_eq!(parameter["Value"]["!Join"][0], ",");
    let named: BTreeSet<&str> = parameter["Value"]["!Join"][1]
        .as_array()
        .unwrap()
        .iter()
        .map(|role| role["!GetAtt"].as_str().unwrap().strip_suffix(".Arn").unwrap())
        .collect();
    let reads = |resource: &Value| {
        let mut reads = false;
        walk(&resource["Properties"]["Policies"], &mut |value| {
            let actions = &value["Action"];
            let is_it = |action: &Value| action == "secretsmanager:GetSecretValue";
            reads |= is_it(actions) || actions.as_array().is_some_and(|all| all.iter().any(is_it));
        });
        reads
    };
    let resources = template["Resources"].as_object().unwrap().iter();
    let reading = resources.filter(|(_, resource)| resource["Type"] == "AWS::IAM::Role" && reads(resource));
    assert_eq!(named, reading.map(|(name, _)| name.as_str()).collect());
}

#[test]
fn what_people_need_later_is_kept_when_the_stack_goes() {
    let template = template();
    for name in MACHINES {
        let machine = &template["Resources"][machine_resource(name)];
        // Deleting a machine stops its runs, in the middle of an overlap or of a deny.
        assert_eq!(
            (machine["DeletionPolicy"].as_str(), machine["UpdateReplacePolicy"].as_str()),
            (Some("Retain"), Some("Retain"))
        );
        assert_eq!(machine["Properties"]["Type"], "STANDARD");
    }
}
