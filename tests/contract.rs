//! What must agree across files: states, crates, resources and samples; error names; parameters and variables;
//! permissions and calls; documents of this release and of the first.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, where a panic with its place is what should be seen"
)]

#[path = "contract/deployer.rs"]
mod deployer;
#[path = "contract/documents.rs"]
mod documents;
#[path = "contract/pages.rs"]
mod pages;
#[path = "contract/permissions.rs"]
mod permissions;
#[path = "contract/platform.rs"]
mod platform;
#[path = "contract/release.rs"]
mod release;
#[path = "contract/template.rs"]
mod template;
#[path = "contract/traps.rs"]
mod traps;

use std::collections::BTreeSet;

use keywheel::{Outcome, StepError};
use serde_json::Value;
use support::functions::NAMES;
use support::repository::{MACHINES, machine, scope_states, scopes, states, text, texts, without_tests};
use support::walker::function;

/// The functions that a machine calls. What it asks of a service itself is none.
pub(crate) fn called(machine: &Value) -> BTreeSet<String> {
    let resources = states(machine).into_iter().filter_map(|(_, state)| state.get("Resource")?.as_str());
    resources.filter(|resource| !is_own_service(resource)).map(function).collect()
}

/// Whether a state asks a service itself: to start an execution, to start one and wait for its answer, for an object.
pub(crate) fn is_own_service(resource: &str) -> bool {
    ["${StartExecutionArn}", "${StartExecutionAndWaitArn}", "${GetObjectArn}"].contains(&resource)
}

/// Every state that a state leads to.
fn edges(state: &Value) -> Vec<&str> {
    let lists = ["Choices", "Catch"].into_iter().filter_map(|list| state.get(list)?.as_array()).flatten();
    let nexts = lists.filter_map(|rule| rule.get("Next"));
    nexts.chain(state.get("Next")).chain(state.get("Default")).filter_map(Value::as_str).collect()
}

fn words<'a>(state: &'a Value, list: &str) -> Vec<&'a str> {
    let rules = state.get(list).and_then(Value::as_array).into_iter().flatten();
    rules.flat_map(|rule| rule["ErrorEquals"].as_array().unwrap()).filter_map(Value::as_str).collect()
}

/// Step Functions' and Lambda's own names that a task can fail with.
const PLATFORM: [&str; 10] = [
    "States.ALL",
    "States.Timeout",
    "Sandbox.Timedout",
    "Lambda.Unknown",
    "Runtime.ExitError",
    "Lambda.ServiceException",
    "Lambda.AWSLambdaException",
    "Lambda.SdkClientException",
    "Lambda.TooManyRequestsException",
    "Lambda.ClientExecutionTimeoutException",
];

#[test]
fn every_function_has_a_state_and_every_state_a_function() {
    let called: BTreeSet<String> = MACHINES.iter().flat_map(|name| called(&machine(name))).collect();
    assert_eq!(called, NAMES.map(str::to_owned).into());
}

#[test]
fn every_function_has_its_crate_and_its_sample() {
    for name in NAMES {
        let manifest = text(&format!("functions/{name}/Cargo.toml"));
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
        serde_json::from_str::<Value>(&text(&format!("events/{name}.json"))).unwrap();
    }
}

#[test]
fn a_crate_for_which_no_test_program_is_made_holds_no_test() {
    for name in NAMES {
        let left_out = text(&format!("functions/{name}/Cargo.toml")).contains("test = false");
        let tests = texts(&format!("functions/{name}/src")).into_iter().filter(|(_, source)| {
            source.contains("#[test]") || source.contains("::test]") || source.contains("```")
        });
        let tests: Vec<String> = tests.map(|(path, _)| path).collect();
        assert!(!left_out || tests.is_empty(), "{name}: nobody would run the tests of {tests:?}");
    }
}

#[test]
fn every_state_is_reached_and_every_edge_leads_somewhere() {
    for machine in MACHINES.map(machine) {
        for scope in scopes(&machine) {
            let mut reached = BTreeSet::from([scope["StartAt"].as_str().unwrap()]);
            loop {
                let next: BTreeSet<&str> =
                    reached.iter().flat_map(|&name| edges(&scope["States"][name])).collect();
                let before = reached.len();
                reached.extend(next);
                if reached.len() == before {
                    break;
                }
            }
            let all: BTreeSet<&str> = scope_states(scope).into_iter().map(|(name, _)| name).collect();
            assert_eq!(reached, all);
        }
    }
}

#[test]
fn errors_are_named_as_the_steps_name_them() {
    // What Step Functions itself answers to StartExecution, and says of a Map's object that it could not read.
    let own = ["StepFunctions.ExecutionAlreadyExistsException", "States.ItemReaderFailed"];
    // What a rotation answers to whoever waits for it, where it has not promoted its key.
    let answers = Outcome::ALL.map(|outcome| format!("Keywheel.{}", outcome.name()));
    let answers: Vec<&str> = answers.iter().map(String::as_str).collect();
    let known: Vec<&str> = StepError::NAMES.into_iter().chain(PLATFORM).chain(own).collect();
    for machine in MACHINES.map(machine) {
        for (name, state) in states(&machine) {
            let waits = state["Resource"] == "${StartExecutionAndWaitArn}";
            for word in words(state, "Retry").into_iter().chain(words(state, "Catch")) {
                let answer = waits && answers.contains(&word);
                assert!(answer || known.contains(&word), "{name} waits for {word}, which nothing is named");
            }
        }
        let used: BTreeSet<&str> = states(&machine)
            .into_iter()
            .flat_map(|(_, state)| [words(state, "Retry"), words(state, "Catch")].concat())
            .filter(|word| word.starts_with("Keywheel.") && !answers.contains(word))
            .collect();
        assert_eq!(used, StepError::NAMES.into(), "the machine answers every error of a step by its name");
    }
}

#[test]
fn every_task_that_can_fail_is_retried_where_that_helps_and_caught_in_the_end() {
    let machines = MACHINES.map(machine);
    for (name, state) in machines.iter().flat_map(states) {
        if state["Type"] != "Task" {
            continue;
        }
        assert_eq!(
            words(state, "Catch").last(),
            Some(&"States.ALL"),
            "{name} has a way out that nobody catches"
        );
        let retried = words(state, "Retry");
        let all = retried.contains(&"States.ALL");
        for platform in PLATFORM.into_iter().filter(|word| *word != "States.ALL") {
            assert!(all || retried.contains(&platform), "{name} does not retry {platform}");
        }
        if !name.starts_with("Notify") {
            for again in ["Keywheel.Throttled", "Keywheel.NotYetVisible", "Keywheel.Ambiguous"] {
                assert!(all || retried.contains(&again), "{name} does not retry {again}");
            }
            for never in ["Keywheel.Refused", "Keywheel.Conflict", "Keywheel.BadInput"] {
                assert!(!retried.contains(&never), "{name} retries {never}, which does not help");
            }
        }
    }
}

/// The edges, for people who review a change of a machine.
#[test]
fn the_machines_have_these_edges() {
    for name in MACHINES {
        let machine = machine(name);
        let mut lines = String::new();
        for (name, state) in states(&machine) {
            let to: Vec<&str> = edges(state).into_iter().fold(Vec::new(), |mut to, next| {
                if !to.contains(&next) {
                    to.push(next);
                }
                to
            });
            lines += &[name, " -> ", &to.join(", "), "\n"].concat();
        }
        insta::assert_snapshot!(format!("{name}_edges"), lines);
    }
}

#[test]
fn no_account_partition_or_host_is_written_into_the_code() {
    let templates = ["infra/template.yaml", "infra/intake.yaml", "infra/member.yaml"];
    let places = ["functions", "cli/src", "statemachine"].into_iter().chain(templates);
    let mut found = Vec::new();
    for (path, source) in places.flat_map(texts) {
        for (number, line) in without_tests(&path, &source).lines().enumerate() {
            if is_of_one_partition(line) {
                found.push(format!("{path}:{}: {line}", number + 1));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// Whether a line of code or of a template says what is so in one partition only. A service's principal has the same
/// name in all of them, and in words for people a placeholder follows.
fn is_of_one_partition(line: &str) -> bool {
    let line = line.trim();
    if line.starts_with("//") || line.starts_with('#') && !line.starts_with("#[") {
        return false;
    }
    let literal = ["arn:aws:", "arn:aws-us-gov:", "arn:aws-cn:"].iter().any(|arn| line.contains(arn));
    let hosts = ["amazonaws.com", "amazonaws.cn", "aws.amazon.com", "amazonwebservices.com", "api.aws"];
    let principal = line.contains("Principal: {Service: ");
    literal && !line.contains('<') || !principal && hosts.iter().any(|host| line.contains(host))
}

#[test]
fn a_name_of_one_partition_is_seen_wherever_it_is_written() {
    for line in [
        "Resource: arn:aws:iam::aws:policy/ReadOnlyAccess",
        r#"let arn = format!("arn:aws-cn:iam::{account}:role/x");"#,
        "Endpoint: !Sub https://sts.${AWS::Region}.amazonaws.com",
        r#"let link = "https://console.aws.amazon.com/iam";"#,
        r#"StringEquals: {"kms:ViaService": secretsmanager.eu-west-1.amazonaws.com}"#,
    ] {
        assert!(is_of_one_partition(line), "{line}");
    }
    for line in [
        "/// arn:aws:iam::111122223333:user/x",
        "# amazonaws.com.cn in China",
        "            Principal: {Service: lambda.amazonaws.com}",
        "Resource: !Sub arn:${AWS::Partition}:iam::${AWS::AccountId}:user/*",
    ] {
        assert!(!is_of_one_partition(line), "{line}");
    }
}
