//! What the local cloud cannot enforce, pinned here grant by grant: logs, traces, KMS, the role of Step Functions,
//! and what `EventBridge` and `CloudWatch` may reach. An addition and a removal both fail. And which of all actions
//! may name no resource, each with the reason.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use support::repository::{MACHINES, intake, machine, template, walk};
use support::walker::kebab;

use crate::called;
use crate::template::{functions, machine_resource};

/// The actions for which AWS's service authorization reference lists no resource type: `*` is the only resource
/// that grants them.
const WITHOUT_RESOURCES: [(&str, &str); 13] = [
    ("cloudtrail:LookupEvents", "reads the account's event history, which has no ARN"),
    ("iam:GenerateCredentialReport", "makes the account's one report"),
    ("iam:GetCredentialReport", "reads the account's one report"),
    ("iam:GetAccountSummary", "counts what the account has"),
    ("iam:ListUsers", "lists; nobody is named before the list is there"),
    ("secretsmanager:ListSecrets", "lists; nothing is named before the list is there"),
    ("states:SendTaskSuccess", "takes a token, which names its execution by itself"),
    ("states:SendTaskFailure", "takes a token, which names its execution by itself"),
    ("sts:GetAccessKeyInfo", "asks whose a key is, which may be anybody's"),
    ("xray:PutTraceSegments", "X-Ray's segments have no ARN"),
    ("xray:PutTelemetryRecords", "X-Ray's daemon speaks for no resource"),
    ("xray:GetSamplingRules", "X-Ray's sampling is the account's"),
    ("xray:GetSamplingTargets", "X-Ray's sampling is the account's"),
];

/// Which functions read values of secrets, and which write them: what each needs of the key that encrypts them.
const KMS: [(&str, &[&str]); 8] = [
    ("look", &["kms:Decrypt"]),
    ("create-key", &["kms:Decrypt", "kms:GenerateDataKey"]),
    ("validate-key", &["kms:Decrypt"]),
    ("roll-back", &["kms:Decrypt"]),
    ("replace", &["kms:Decrypt"]),
    ("scan", &["kms:Decrypt"]),
    ("disable-unused", &["kms:Decrypt"]),
    ("delete-unused", &["kms:Decrypt"]),
];

fn list(value: &Value) -> Vec<String> {
    match value {
        Value::Array(rows) => rows.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        one => one.as_str().map(str::to_owned).into_iter().collect(),
    }
}

/// Every statement of a role's inline policies, those under a condition of the template too.
fn statements(role: &Value) -> Vec<Value> {
    let mut found = Vec::new();
    walk(&role["Properties"]["Policies"], &mut |value| {
        if value.get("Effect").is_some() {
            found.push(value.clone());
        }
    });
    found
}

fn of_service(role: &Value, service: &str) -> Vec<Value> {
    let mut found = statements(role);
    found.retain(|statement| list(&statement["Action"]).iter().any(|action| action.starts_with(service)));
    found
}

/// A function's role, by the function's name.
fn roles(template: &Value) -> BTreeMap<String, (String, &Value)> {
    let role = |function: &Value| {
        let name = function["Properties"]["Role"]["!GetAtt"].as_str().unwrap();
        let name = name.strip_suffix(".Arn").unwrap().to_owned();
        let role = &template["Resources"][&name];
        (name, role)
    };
    functions(template).into_iter().map(|(name, function)| (name, role(function))).collect()
}

#[test]
fn every_resource_is_as_narrow_as_its_action_allows() {
    let template = template();
    let mut used = BTreeSet::new();
    walk(&template["Resources"], &mut |value| {
        if value["Effect"] != "Allow" || value.get("Resource").is_none() {
            return;
        }
        let everything = list(&value["Resource"]).iter().any(|resource| resource == "*");
        for action in list(&value["Action"]) {
            let known = WITHOUT_RESOURCES.iter().find(|(name, _)| *name == action);
            // What a key that was deleted is evaluated on, if not on its user, nobody has written down.
            let may_be_gone = action == "iam:GetAccessKeyLastUsed" && value["Sid"] == "FindOwner";
            assert!(everything == known.is_some() || everything && may_be_gone, "{action} in {value}");
            used.extend(known.map(|(name, _)| *name));
        }
        if value["Sid"] == "EnterMembers" {
            // Another account's by its nature; that one has a word in it, and the organization too.
            assert_eq!(value["Action"], "sts:AssumeRole");
            return;
        }
        // One kind of thing in one account at the least, and never another account's.
        walk(&value["Resource"], &mut |resource| {
            if let Some(arn) = resource.as_str().filter(|text| text.starts_with("arn:")) {
                assert!(arn.contains("${AWS::AccountId}"), "{arn} is anybody's");
                let plain = arn.replace("AWS::", "");
                let kind = plain.splitn(6, ':').nth(5).unwrap();
                assert!(!kind.starts_with('*'), "{arn} is any kind of thing");
            }
        });
    });
    assert_eq!(used.len(), WITHOUT_RESOURCES.len(), "listed, but granted no more: {used:?} are");
}

#[test]
fn secrets_and_users_are_read_and_written_under_our_tags_or_described_only() {
    let template = template();
    // What may be called on a secret or a user that carries no tag of ours: no value is seen, nothing changes.
    let open = [
        "secretsmanager:DescribeSecret",
        "secretsmanager:ListSecrets",
        "iam:GetUser",
        "iam:ListAccessKeys",
        "iam:GetAccessKeyLastUsed",
        "iam:GenerateCredentialReport",
        "iam:GetCredentialReport",
        "iam:GetAccountSummary",
        "iam:ListUsers",
    ];
    // The emergency's two that change any user, each by one kind of call; these are pinned here.
    let any_user = json!({ "!Sub": "arn:${AWS::Partition}:iam::${AWS::AccountId}:user/*" });
    let denies =
        json!({ "!Sub": "arn:${AWS::Partition}:iam::${AWS::AccountId}:policy/keywheel-deny-sessions-*" });
    let emergency = [
        json!({ "Sid": "SwitchOff", "Effect": "Allow", "Action": "iam:UpdateAccessKey", "Resource": any_user }),
        json!({
            "Sid": "DenyInline", "Effect": "Allow", "Resource": any_user,
            "Action": ["iam:GetUserPolicy", "iam:PutUserPolicy", "iam:DeleteUserPolicy"],
        }),
        json!({
            "Sid": "MakeManaged", "Effect": "Allow", "Resource": denies,
            "Action": ["iam:CreatePolicy", "iam:DeletePolicy"],
        }),
        json!({
            "Sid": "DenyManaged", "Effect": "Allow", "Resource": any_user,
            "Action": ["iam:AttachUserPolicy", "iam:DetachUserPolicy"],
            "Condition": { "ArnLike": { "iam:PolicyARN": denies } },
        }),
        // Only where a parameter says so.
        json!({
            "Sid": "DenyRoles", "Effect": "Allow",
            "Action": ["iam:GetRolePolicy", "iam:PutRolePolicy", "iam:DeleteRolePolicy"],
            "Resource": { "!Sub": "arn:${AWS::Partition}:iam::${AWS::AccountId}:role/*" },
        }),
    ];
    for (name, (_, role)) in roles(&template) {
        let mut own = [of_service(role, "secretsmanager:"), of_service(role, "iam:")].concat();
        if ["contain", "deny-sessions"].contains(&name.as_str()) {
            own.retain(|statement| !emergency.contains(statement));
        }
        for statement in own {
            let condition = match &statement["Resource"]["!Sub"] {
                Value::String(arn) if arn.contains(":secret:") => {
                    json!({ "StringLike": { "secretsmanager:ResourceTag/keywheel:user": "?*" } })
                }
                _ if ["disable-unused", "delete-unused"].contains(&name.as_str()) => {
                    json!({ "StringEquals": { "aws:ResourceTag/keywheel:unused": "remove" } })
                }
                _ => json!({ "StringLike": { "aws:ResourceTag/keywheel:secret": "arn:*" } }),
            };
            let harmless = list(&statement["Action"]).iter().all(|action| open.contains(&action.as_str()));
            assert!(harmless || statement["Condition"] == condition, "{name}: {statement}");
        }
    }
}

#[test]
fn every_function_may_write_its_own_logs_and_traces_and_no_others() {
    let template = template();
    for (name, (resource, role)) in roles(&template) {
        let logs = resource.strip_suffix("Role").unwrap().to_owned() + "Logs";
        let own = json!([{
            "Sid": "Log", "Effect": "Allow", "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
            "Resource": { "!Sub": format!("${{{logs}.Arn}}:*") },
        }]);
        assert_eq!(Value::from(of_service(role, "logs:")), own, "{name}");
        let group = &template["Resources"][&logs]["Properties"]["LogGroupName"]["!Sub"];
        assert_eq!(*group, format!("/aws/lambda/keywheel-${{Stage}}-{name}"));
        let traces = json!([{
            "Sid": "Trace", "Effect": "Allow", "Action": ["xray:PutTraceSegments", "xray:PutTelemetryRecords"],
            "Resource": "*",
        }]);
        assert_eq!(Value::from(of_service(role, "xray:")), traces, "{name}");
    }
}

#[test]
fn the_secrets_key_serves_those_who_see_values_and_only_through_secrets_manager() {
    let template = template();
    let region = json!({ "!Select": [3, { "!Split": [":", { "!Ref": "SecretsKeyArn" }] }] });
    let service = json!({ "!Join": [".", ["secretsmanager", region, { "!Ref": "AWS::URLSuffix" }]] });
    let via = json!({ "StringEquals": { "kms:ViaService": service } });
    for (name, (_, role)) in roles(&template) {
        let expected: Vec<Value> = KMS
            .iter()
            .filter(|(function, _)| *function == name)
            .map(|(_, actions)| {
                json!({
                    "Sid": "UseSecretsKey", "Effect": "Allow", "Action": actions,
                    "Resource": { "!Ref": "SecretsKeyArn" }, "Condition": via,
                })
            })
            .collect();
        assert_eq!(of_service(role, "kms:"), expected, "{name}");
        // Whoever sees a value needs the key for it, and nobody else.
        let may: BTreeSet<String> =
            statements(role).iter().flat_map(|statement| list(&statement["Action"])).collect();
        assert_eq!(may.contains("kms:Decrypt"), may.contains("secretsmanager:GetSecretValue"), "{name}");
        assert_eq!(
            may.contains("kms:GenerateDataKey"),
            may.contains("secretsmanager:PutSecretValue"),
            "{name}"
        );
    }
    let mut anywhere = 0;
    walk(&template["Resources"], &mut |value| {
        let actions = value.get("Effect").map(|_| list(&value["Action"])).unwrap_or_default();
        anywhere += usize::from(actions.iter().any(|action| action.starts_with("kms:")));
    });
    assert_eq!(anywhere, KMS.len(), "the key is granted to somebody else too");
}

#[test]
fn functions_are_assumed_by_lambda_and_the_machine_by_step_functions_of_this_account() {
    let template = template();
    let mut trusted = BTreeMap::new();
    for (name, role) in template["Resources"].as_object().unwrap() {
        if role["Type"] == "AWS::IAM::Role" {
            let [trust] =
                role["Properties"]["AssumeRolePolicyDocument"]["Statement"].as_array().unwrap().as_slice()
            else {
                panic!("{name} trusts several");
            };
            assert_eq!(
                (&trust["Effect"], &trust["Action"]),
                (&json!("Allow"), &json!("sts:AssumeRole")),
                "{name}"
            );
            trusted.insert(name.clone(), (trust["Principal"].clone(), trust["Condition"].clone()));
        }
    }
    let of = |service: &str| {
        (
            json!({ "Service": service }),
            json!({ "StringEquals": { "aws:SourceAccount": { "!Ref": "AWS::AccountId" } } }),
        )
    };
    let mut expected: BTreeMap<String, (Value, Value)> = roles(&template)
        .into_values()
        .map(|(name, _)| (name, (json!({ "Service": "lambda.amazonaws.com" }), Value::Null)))
        .collect();
    for name in MACHINES {
        expected.insert(machine_resource(name) + "Role", of("states.amazonaws.com"));
    }
    for name in ["StartEmergencyRole", "SlackRole"] {
        expected.insert(name.into(), of("events.amazonaws.com"));
    }
    expected.insert("StartFleetRole".into(), of("scheduler.amazonaws.com"));
    assert_eq!(trusted, expected);
}

/// What a machine does without a function between.
fn beside_functions(machine: &str) -> Vec<Value> {
    match machine {
        // An execution for each incident, and nothing else.
        "emergency" => vec![json!({
            "Sid": "StartIncidents", "Effect": "Allow", "Action": "states:StartExecution",
            "Resource": { "!Ref": "IncidentMachine" },
        })],
        // A rotation for each item of a batch. The items are read from the bucket, and each is an execution of the
        // machine itself.
        "fleet" => {
            let own = |kind: &str, more: &str| {
                let account = "arn:${AWS::Partition}:states:${AWS::Region}:${AWS::AccountId}";
                json!({ "!Sub": format!("{account}:{kind}:keywheel-${{Stage}}-fleet{more}") })
            };
            vec![
                json!({
                    "Sid": "StartRotations", "Effect": "Allow", "Action": "states:StartExecution",
                    "Resource": { "!Ref": "RotationMachine" },
                }),
                json!({
                    "Sid": "ReadBatches", "Effect": "Allow", "Action": "s3:GetObject",
                    "Resource": { "!Sub": "${Bucket.Arn}/campaigns/*" },
                }),
                json!({
                    "Sid": "StartItems", "Effect": "Allow", "Action": "states:StartExecution",
                    "Resource": own("stateMachine", ""),
                }),
                json!({
                    "Sid": "FollowItems", "Effect": "Allow",
                    "Action": ["states:DescribeExecution", "states:StopExecution"],
                    "Resource": [own("execution", ":*"), own("execution", "/*:*")],
                }),
            ]
        }
        _ => Vec::new(),
    }
}

#[test]
fn a_machine_may_call_the_functions_of_its_states_by_alias_and_trace() {
    let template = template();
    for name in MACHINES {
        let called: BTreeSet<String> = called(&machine(name));
        let mut granted = statements(&template["Resources"][machine_resource(name) + "Role"]);
        let own = beside_functions(name);
        let before = granted.len();
        granted.retain(|statement| !own.contains(statement));
        assert_eq!(before - granted.len(), own.len(), "{name}");
        let [call, trace] = &granted[..] else { panic!("{name}'s role has other statements than two") };
        assert_eq!(call["Action"], "lambda:InvokeFunction");
        let granted: Vec<String> = call["Resource"]
            .as_array()
            .unwrap()
            .iter()
            .map(|target| {
                let target = target["!Ref"].as_str().unwrap();
                kebab(target.strip_suffix("Function.Alias").unwrap_or_else(|| panic!("{target} is no alias")))
            })
            .collect();
        assert_eq!(granted.len(), called.len(), "{granted:?}");
        assert_eq!(BTreeSet::from_iter(granted), called);
        let tracing = [
            "xray:PutTraceSegments",
            "xray:PutTelemetryRecords",
            "xray:GetSamplingRules",
            "xray:GetSamplingTargets",
        ];
        assert_eq!((&trace["Action"], &trace["Resource"]), (&json!(tracing), &json!("*")));
    }
}

#[test]
fn the_machines_role_is_kept_with_the_machine() {
    let template = template();
    let mut machines = 0;
    for (name, machine) in template["Resources"].as_object().unwrap() {
        if machine["Type"] == "AWS::Serverless::StateMachine" {
            machines += 1;
            let role =
                machine["Properties"]["Role"]["!GetAtt"].as_str().unwrap().strip_suffix(".Arn").unwrap();
            for when in ["DeletionPolicy", "UpdateReplacePolicy"] {
                // A machine that outlives its role cannot call a function: its runs would end in the overlap.
                assert_eq!(machine[when], template["Resources"][role][when], "{name} and {role}: {when}");
            }
            // Policies of their own would go with the stack, and leave the role empty.
            assert!(template["Resources"][role]["Properties"]["Policies"].is_array());
        }
    }
    assert_eq!(machines, MACHINES.len());
}

#[test]
fn rules_and_alarms_reach_the_topic_and_the_dead_letters_and_nothing_else() {
    let template = template();
    let resources = template["Resources"].as_object().unwrap();
    let of_type = |kind: &str| resources.iter().filter(|(_, one)| one["Type"] == kind).collect::<Vec<_>>();
    // A rule that tells needs no role: the topic and the queue let it in by policies of their own. One that starts an
    // emergency has a role that can do nothing else.
    let dead_letters = json!({ "!GetAtt": "DeadLetters.Arn" });
    let mut rules = Vec::new();
    for (name, rule) in of_type("AWS::Events::Rule") {
        let [target] = rule["Properties"]["Targets"].as_array().unwrap().as_slice() else {
            panic!("{name} has not one target")
        };
        assert_eq!(target["DeadLetterConfig"]["Arn"], dead_letters, "{name}");
        rules.push(json!({ "!GetAtt": format!("{name}.Arn") }));
        if name.starts_with("Slack") {
            continue;
        }
        let role = target.get("RoleArn");
        if name == "RunEndedBadlyRule" {
            assert_eq!((&target["Arn"], role), (&json!({ "!Ref": "Topic" }), None));
        } else {
            let starts = json!({ "!GetAtt": "StartEmergencyRole.Arn" });
            assert_eq!(
                (&target["Arn"], role),
                (&json!({ "!Ref": "EmergencyMachine" }), Some(&starts)),
                "{name}"
            );
        }
        // AWS's own families come from the default bus, our own event from the bus that names its senders.
        let source = &rule["Properties"]["EventPattern"]["source"];
        let bus = rule["Properties"].get("EventBusName");
        let expected = json!({ "!Ref": "LeakBus" });
        assert_eq!(bus, (*source == json!(["keywheel.leak"])).then_some(&expected), "{name}");
    }
    let start = statements(&template["Resources"]["StartEmergencyRole"]);
    assert_eq!(
        Value::from(start),
        json!([{ "Sid": "StartEmergency", "Effect": "Allow", "Action": "states:StartExecution",
                 "Resource": { "!Ref": "EmergencyMachine" } }])
    );
    let own = json!({ "AWS": { "!Sub": "arn:${AWS::Partition}:iam::${AWS::AccountId}:root" } });
    let services = json!({ "Service": ["events.amazonaws.com", "cloudwatch.amazonaws.com"] });
    let topic = json!([
        { "Sid": "OwnAccount", "Effect": "Allow", "Principal": own, "Action": ["sns:Publish", "sns:Subscribe"],
          "Resource": { "!Ref": "Topic" } },
        { "Sid": "Rules", "Effect": "Allow", "Principal": services, "Action": "sns:Publish",
          "Resource": { "!Ref": "Topic" },
          "Condition": { "StringEquals": { "aws:SourceAccount": { "!Ref": "AWS::AccountId" } } } },
    ]);
    // The queue lets in every rule that has it for its dead letters.
    let mut sources = template["Resources"]["DeadLettersPolicy"]["Properties"]["PolicyDocument"]["Statement"]
        [0]["Condition"]["ArnEquals"]["aws:SourceArn"]
        .as_array()
        .unwrap()
        .clone();
    for source in &mut sources {
        // Where there is no Slack, there is no such rule.
        if let Some(choice) = source.get("!If") {
            assert_eq!((&choice[0], &choice[2]), (&json!("HasSlack"), &json!({ "!Ref": "AWS::NoValue" })));
            *source = choice[1].clone();
        }
    }
    let by_text = |value: &Value| value.to_string();
    sources.sort_by_key(by_text);
    rules.sort_by_key(by_text);
    assert_eq!(sources, rules);
    let sources = &template["Resources"]["DeadLettersPolicy"]["Properties"]["PolicyDocument"]["Statement"][0]
        ["Condition"]["ArnEquals"]["aws:SourceArn"];
    let queue = json!([
        { "Sid": "FromOurRules", "Effect": "Allow", "Principal": { "Service": "events.amazonaws.com" },
          "Action": "sqs:SendMessage", "Resource": dead_letters,
          "Condition": { "ArnEquals": { "aws:SourceArn": sources } } },
    ]);
    let expected = BTreeMap::from([("TopicPolicy", topic), ("DeadLettersPolicy", queue)]);
    let policies: BTreeMap<&str, Value> =
        [of_type("AWS::SNS::TopicPolicy"), of_type("AWS::SQS::QueuePolicy")]
            .concat()
            .into_iter()
            .map(|(name, one)| (name.as_str(), one["Properties"]["PolicyDocument"]["Statement"].clone()))
            .collect();
    assert_eq!(policies, expected);
    for (name, alarm) in of_type("AWS::CloudWatch::Alarm") {
        assert_eq!(alarm["Properties"]["AlarmActions"], json!([{ "!Ref": "Topic" }]), "{name}");
    }
}

#[test]
fn a_schedule_starts_campaigns_and_keeps_what_it_could_not_start() {
    let template = template();
    let dead_letters = json!({ "!GetAtt": "DeadLetters.Arn" });
    let role = &template["Resources"]["StartFleetRole"];
    // The queue's own policy lets rules in; a schedule sends with its role.
    let granted = json!([
        { "Sid": "StartFleet", "Effect": "Allow", "Action": "states:StartExecution",
          "Resource": { "!Ref": "FleetMachine" } },
        { "Sid": "KeepDeadLetters", "Effect": "Allow", "Action": "sqs:SendMessage", "Resource": dead_letters },
    ]);
    assert_eq!(Value::from(statements(role)), granted);
    let schedule = &template["Resources"]["StartFleet"];
    let target = &schedule["Properties"]["Target"];
    assert_eq!(target["Arn"], json!({ "!Ref": "FleetMachine" }));
    assert_eq!(target["RoleArn"], json!({ "!GetAtt": "StartFleetRole.Arn" }));
    assert_eq!(target["DeadLetterConfig"]["Arn"], dead_letters);
    assert!(target["RetryPolicy"]["MaximumRetryAttempts"].as_u64() > Some(0));
    // Without an expression there is neither.
    let given = json!({ "!Not": [{ "!Equals": [{ "!Ref": "FleetSchedule" }, ""] }] });
    assert_eq!(template["Conditions"]["HasFleetSchedule"], given);
    for one in [schedule, role] {
        assert_eq!(one["Condition"], "HasFleetSchedule");
    }
}

#[test]
fn what_is_kept_in_the_bucket_has_its_readers_and_writers_and_no_others() {
    let template = template();
    let mut found = BTreeSet::new();
    for (name, (_, role)) in roles(&template) {
        for statement in of_service(role, "s3:") {
            let place = &statement["Resource"];
            let place = place["!Sub"].as_str().or(place["!GetAtt"].as_str()).unwrap().to_owned();
            let actions = list(&statement["Action"]);
            found.extend(actions.into_iter().map(|action| format!("{name} {action} {place}")));
        }
    }
    let expected = [
        "investigate s3:PutObject ${Bucket.Arn}/incidents/*",
        "review s3:GetObject ${Bucket.Arn}/campaigns/*",
        "review s3:PutObject ${Bucket.Arn}/campaigns/*",
        "scan s3:GetObject ${Bucket.Arn}/campaigns/outcomes/*",
        "scan s3:GetObject ${Bucket.Arn}/policy/fleet.json",
        "scan s3:GetObject ${Bucket.Arn}/warnings.json",
        "scan s3:GetObjectVersion ${Bucket.Arn}/policy/fleet.json",
        "scan s3:ListBucket Bucket.Arn",
        "scan s3:PutObject ${Bucket.Arn}/campaigns/*",
        "scan s3:PutObject ${Bucket.Arn}/warnings.json",
    ];
    assert_eq!(found, expected.map(str::to_owned).into());
}

#[test]
fn every_region_forwards_what_the_hub_takes_up_and_nothing_else() {
    let rules = |template: &Value| -> BTreeMap<String, Value> {
        let resources = template["Resources"].as_object().unwrap().iter();
        resources
            .filter(|(_, one)| one["Type"] == "AWS::Events::Rule")
            .map(|(name, one)| (name.clone(), one["Properties"]["EventPattern"].clone()))
            .collect()
    };
    let (hub, intake) = (rules(&template()), intake());
    let forwarded = rules(&intake);
    let aws: BTreeMap<String, Value> = hub
        .into_iter()
        .filter(|(name, _)| {
            !["RunEndedBadlyRule", "ReportedRule", "SlackRule", "SlackEndedBadlyRule"]
                .contains(&name.as_str())
        })
        .collect();
    assert_eq!(forwarded, aws);
    for (name, one) in intake["Resources"].as_object().unwrap() {
        if one["Type"] != "AWS::Events::Rule" {
            continue;
        }
        let [target] = one["Properties"]["Targets"].as_array().unwrap().as_slice() else { panic!("{name}") };
        // The default bus of the hub: only there do the rules trust an event's source.
        let bus = "arn:${AWS::Partition}:events:${HubRegion}:${HubAccountId}:event-bus/default";
        assert_eq!(target["Arn"]["!Sub"], bus, "{name}");
        assert!(target["DeadLetterConfig"]["Arn"].is_object(), "{name}");
    }
}

#[test]
fn whoever_deploys_an_intake_says_who_hears_of_what_it_could_not_forward() {
    let intake = intake();
    let parameter = &intake["Parameters"]["AlarmTopicArn"];
    assert!(parameter.get("Default").is_none(), "left out unawares, nobody hears of it");
    let given = json!({ "!Not": [{ "!Equals": [{ "!Ref": "AlarmTopicArn" }, "none"] }] });
    assert_eq!(intake["Conditions"]["HasAlarmTopic"], given);
    let alarm = &intake["Resources"]["DeadLettersAlarm"]["Properties"];
    let told = json!({ "!If": ["HasAlarmTopic", [{ "!Ref": "AlarmTopicArn" }], { "!Ref": "AWS::NoValue" }] });
    assert_eq!(alarm["AlarmActions"], told);
    assert_eq!(alarm["Dimensions"][0]["Value"], json!({ "!GetAtt": "DeadLetters.QueueName" }));
}

#[test]
fn what_slack_does_not_take_is_tried_for_a_day_and_then_kept() {
    let template = template();
    let rule = &template["Resources"]["SlackRule"]["Properties"];
    let [target] = rule["Targets"].as_array().unwrap().as_slice() else { panic!("{rule}") };
    // EventBridge itself waits as long as a 429 says; a day and 185 attempts are the most that it can be asked for.
    let most = json!({ "MaximumEventAgeInSeconds": 86_400, "MaximumRetryAttempts": 185 });
    assert_eq!(target["RetryPolicy"], most);
    assert_eq!(target["DeadLetterConfig"]["Arn"], json!({ "!GetAtt": "DeadLetters.Arn" }));
    assert_eq!(rule["EventBusName"], json!({ "!Ref": "Bus" }), "on the bus where nobody else speaks");
    let destination = &template["Resources"]["SlackDestination"]["Properties"];
    assert_eq!(destination["InvocationRateLimitPerSecond"], 1);
    let granted = statements(&template["Resources"]["SlackRole"]);
    let post = json!([{ "Sid": "Post", "Effect": "Allow", "Action": "events:InvokeApiDestination",
                        "Resource": { "!GetAtt": "SlackDestination.Arn" } }]);
    assert_eq!(Value::from(granted), post);
    // Whoever has the address may post: it is shown to nobody who looks at the stack.
    let parameter = &template["Parameters"]["SlackWebhookUrl"];
    assert_eq!((&parameter["NoEcho"], &parameter["Default"]), (&json!(true), &json!("")));
    // What ended before it could speak is heard by whoever reads the topic, and by Slack as well.
    let badly = |name: &str| template["Resources"][name]["Properties"]["EventPattern"].clone();
    assert_eq!(badly("SlackEndedBadlyRule"), badly("RunEndedBadlyRule"));
    // Of whatever machine.
    let told = badly("RunEndedBadlyRule")["detail"]["stateMachineArn"].clone();
    let told: BTreeSet<&str> =
        told.as_array().unwrap().iter().filter_map(|one| one["!Ref"].as_str()).collect();
    let machines = MACHINES.map(machine_resource);
    assert_eq!(told, machines.iter().map(String::as_str).collect());
    // The stages of a run that goes well, which the rule leaves out, are kinds of notices.
    let quiet = rule["EventPattern"]["detail"]["kind"][0]["anything-but"].as_array().unwrap();
    for kind in quiet {
        assert!(serde_json::from_value::<keywheel::notice::NoticeKind>(kind.clone()).is_ok(), "{kind}");
    }
    for (name, one) in template["Resources"].as_object().unwrap() {
        if name.starts_with("Slack") {
            assert_eq!(one["Condition"], "HasSlack", "{name}");
        }
    }
}
