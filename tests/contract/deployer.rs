//! What whoever installs is allowed, against what the template makes.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use support::repository::{template, text};

/// The call that makes a resource, by its type.
const MAKERS: [(&str, &str); 20] = [
    ("AWS::CloudWatch::Alarm", "cloudwatch:PutMetricAlarm"),
    ("AWS::Events::ApiDestination", "events:CreateApiDestination"),
    ("AWS::Events::Connection", "events:CreateConnection"),
    ("AWS::Events::EventBus", "events:CreateEventBus"),
    ("AWS::Events::EventBusPolicy", "events:PutPermission"),
    ("AWS::Events::Rule", "events:PutRule"),
    ("AWS::IAM::Role", "iam:CreateRole"),
    ("AWS::Lambda::Alias", "lambda:CreateAlias"),
    ("AWS::Lambda::Version", "lambda:PublishVersion"),
    ("AWS::Logs::LogGroup", "logs:CreateLogGroup"),
    ("AWS::S3::Bucket", "s3:CreateBucket"),
    ("AWS::S3::BucketPolicy", "s3:PutBucketPolicy"),
    ("AWS::SNS::Topic", "sns:CreateTopic"),
    ("AWS::SNS::TopicPolicy", "sns:SetTopicAttributes"),
    ("AWS::SQS::Queue", "sqs:CreateQueue"),
    ("AWS::SQS::QueuePolicy", "sqs:SetQueueAttributes"),
    ("AWS::SSM::Parameter", "ssm:PutParameter"),
    ("AWS::Scheduler::Schedule", "scheduler:CreateSchedule"),
    ("AWS::Serverless::Function", "lambda:CreateFunction"),
    ("AWS::Serverless::StateMachine", "states:CreateStateMachine"),
];

/// What the transform makes of a function with an alias.
const OF_FUNCTIONS: [&str; 2] = ["AWS::Lambda::Alias", "AWS::Lambda::Version"];

fn statements() -> Vec<Value> {
    let policy: Value = serde_json::from_str(&text("infra/deployer-policy.json")).unwrap();
    policy["Statement"].as_array().unwrap().clone()
}

fn list(value: &Value) -> Vec<String> {
    let one = std::slice::from_ref(value);
    value.as_array().map_or(one, Vec::as_slice).iter().map(|one| one.as_str().unwrap().to_owned()).collect()
}

/// The resources on which an action is allowed.
fn allowed() -> BTreeMap<String, Vec<String>> {
    let mut allowed: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for statement in statements() {
        for action in list(&statement["Action"]) {
            allowed.entry(action).or_default().extend(list(&statement["Resource"]));
        }
    }
    allowed
}

#[test]
fn whoever_installs_may_make_every_resource_of_the_template() {
    let (template, allowed) = (template(), allowed());
    let resources = template["Resources"].as_object().unwrap().values();
    let types: BTreeSet<&str> = resources.map(|one| one["Type"].as_str().unwrap()).collect();
    let known: BTreeSet<&str> = MAKERS.iter().map(|(kind, _)| *kind).collect();
    let made: BTreeSet<&str> = types.into_iter().chain(OF_FUNCTIONS).collect();
    assert_eq!(made, known, "a type of the template whose maker is not known here, or none of it any more");
    for (kind, action) in MAKERS {
        assert!(allowed.contains_key(action), "{kind}: nobody may call {action}");
    }
}

#[test]
fn whoever_installs_may_do_nothing_by_a_pattern_and_little_everywhere() {
    for (action, resources) in allowed() {
        assert!(!action.contains('*'), "{action}");
        let reads = ["List", "Describe", "Get"]
            .iter()
            .any(|verb| action.split(':').nth(1).unwrap().starts_with(verb));
        assert!(reads || !resources.contains(&"*".to_owned()), "{action} is allowed everywhere");
        if action.starts_with("iam:") && !reads {
            let own = |one: &String| one.ends_with(":role${RolePath}${Stack}-*");
            assert!(
                resources.iter().all(own),
                "{action} is allowed on more than the stack's roles: {resources:?}"
            );
        }
        assert!(resources.iter().all(|one| !one.contains("arn:aws:")), "{action} names a partition");
    }
}

/// Whoever may hand a role to a service may do with that service what the role may.
#[test]
fn roles_are_handed_to_the_services_that_the_template_hands_them_to() {
    let template = template();
    let roles =
        template["Resources"].as_object().unwrap().values().filter(|one| one["Type"] == "AWS::IAM::Role");
    let services: BTreeSet<String> = roles
        .map(|role| {
            role.pointer("/Properties/AssumeRolePolicyDocument/Statement/0/Principal/Service").unwrap()
        })
        .flat_map(list)
        .collect();
    let pass = statements().into_iter().find(|one| one["Action"] == "iam:PassRole").unwrap();
    let passed = list(&pass["Condition"]["StringEquals"]["iam:PassedToService"]);
    assert_eq!(passed.into_iter().collect::<BTreeSet<_>>(), services);
}

/// An organization that wants a path or a boundary wants it on all of them.
#[test]
fn every_role_has_the_path_and_the_boundary_of_the_installation() {
    let template = template();
    let mut roles = 0;
    for (name, role) in template["Resources"].as_object().unwrap() {
        if role["Type"] == "AWS::IAM::Role" {
            roles += 1;
            assert_eq!(role["Properties"]["Path"]["!Ref"], "RolePath", "{name}");
            let boundary = &role["Properties"]["PermissionsBoundary"]["!If"];
            assert_eq!(
                (&boundary[0], &boundary[1]["!Ref"]),
                (&"HasBoundary".into(), &"PermissionsBoundary".into()),
                "{name}"
            );
        }
    }
    assert!(roles >= support::functions::NAMES.len(), "{roles}");
}
