use serde_json::{Value, json};

use super::*;

const KEY: &str = "AKIAQ3EGX7B2MTESTKEY";
const SESSION: &str = "ASIAQ3EGX7B2MTESTKEY";
const ACCOUNT: &str = "111122223333";

fn class(event: &Value) -> Class {
    judge(event).class
}

fn guardduty(details: &Value) -> Value {
    json!({
        "source": "aws.guardduty",
        "detail-type": "GuardDuty Finding",
        "account": ACCOUNT,
        "detail": {
            "accountId": "444455556666",
            "type": "UnauthorizedAccess:IAMUser/TorIPCaller",
            "severity": 5.0,
            "resource": {"resourceType": "AccessKey", "accessKeyDetails": details},
            "service": {"serviceName": "guardduty", "archived": false},
        },
    })
}

fn record(call: &str, asked: &Value, answered: &Value) -> Value {
    json!({
        "source": "aws.iam",
        "detail-type": "AWS API Call via CloudTrail",
        "account": ACCOUNT,
        "detail": {
            "eventSource": "iam.amazonaws.com",
            "eventName": call,
            "recipientAccountId": ACCOUNT,
            "userAgent": "console",
            "userIdentity": {"type": "IAMUser", "arn": "arn:aws:iam::111122223333:user/ops/caller"},
            "requestParameters": asked,
            "responseElements": answered,
        },
    })
}

#[test]
fn the_finding_says_whose_credential_it_is() {
    for (key, user, kind, expected) in [
        (json!(KEY), json!("svc"), "IAMUser", Class::RevokeUserKey),
        (json!(SESSION), json!("svc"), "IAMUser", Class::UserSession),
        (json!(SESSION), json!("svc"), "FederatedUser", Class::UserSession),
        (json!(SESSION), json!("web"), "AssumedRole", Class::SessionOnly),
        (json!(SESSION), json!("web"), "Role", Class::SessionOnly),
        (json!(SESSION), json!("web"), "Unheard", Class::SessionResolve),
        (json!(SESSION), json!("Root"), "Root", Class::Root),
        (json!(KEY), json!("Root"), "Root", Class::Root),
        (json!(null), json!("svc"), "IAMUser", Class::ResolveUserKeys),
        (json!(""), json!("svc"), "IAMUser", Class::ResolveUserKeys),
        (json!(null), json!("web"), "AssumedRole", Class::SessionResolve),
        (json!(SESSION), json!("x"), "AWSAccount", Class::NotOursNotify),
        (json!("AKIA"), json!("svc"), "IAMUser", Class::Reject),
        (json!(null), json!(null), "IAMUser", Class::Reject),
    ] {
        let event = guardduty(&json!({"accessKeyId": key, "userName": user, "userType": kind}));
        assert_eq!(class(&event), expected, "{key} {user} {kind}");
    }
}

#[test]
fn the_finding_speaks_of_its_own_account() {
    let verdict = judge(&guardduty(&json!({"accessKeyId": KEY, "userName": "svc", "userType": "IAMUser"})));
    let target = &verdict.targets[0];
    assert_eq!(target.account.as_deref(), Some("444455556666"), "not that of the envelope");
    assert_eq!(target.severity, Severity::Medium);
    assert_eq!(target.kind, Kind::LongTerm);
}

#[test]
fn actors_of_an_attack_sequence_are_all_seen() {
    let mut event = guardduty(&json!(null));
    event["detail"]["type"] = json!("AttackSequence:S3/CompromisedData");
    event["detail"]["resource"] = json!({"resourceType": "AttackSequence"});
    assert_eq!(class(&event), Class::NotifyOnly);
    event["detail"]["service"]["detection"] = json!({"sequence": {"actors": [
        {"id": "1", "user": {"name": "svc", "type": "IAMUser", "credentialUid": KEY, "account": {"uid": ACCOUNT}}},
        {"id": "2", "user": {"name": "web", "type": "AssumedRole", "credentialUid": SESSION}},
        {"id": "3", "user": {"name": "\u{202e}", "type": 7, "credentialUid": {}}},
    ]}});
    let verdict = judge(&event);
    assert_eq!(verdict.class, Class::RevokeUserKey);
    assert_eq!(verdict.targets.len(), 2);
    assert_eq!(verdict.targets[1].class, Class::SessionOnly);
}

#[test]
fn what_was_archived_or_made_up_is_no_leak() {
    let details = json!({"accessKeyId": KEY, "userName": "svc", "userType": "IAMUser"});
    let mut archived = guardduty(&details);
    archived["detail"]["service"]["archived"] = json!(true);
    assert_eq!(class(&archived), Class::Ignore);
    for info in [json!({"sample": true}), json!({"value": "{\"sample\":true}", "type": "default"})] {
        let mut sample = guardduty(&details);
        sample["detail"]["service"]["additionalInfo"] = info;
        assert_eq!(class(&sample), Class::Sample);
    }
}

#[test]
fn any_quarantine_by_aws_and_nothing_like_it() {
    for (policy, expected) in [
        ("arn:aws:iam::aws:policy/AWSCompromisedKeyQuarantine", Class::ResolveUserKeys),
        ("arn:aws:iam::aws:policy/AWSCompromisedKeyQuarantineV3", Class::ResolveUserKeys),
        ("arn:aws-us-gov:iam::aws:policy/AWSCompromisedKeyQuarantineV12", Class::ResolveUserKeys),
        ("arn:aws:iam::111122223333:policy/AWSCompromisedKeyQuarantineV2", Class::Ignore),
        ("arn:aws:iam::aws:policy/AWSCompromisedKeyQuarantineVX", Class::Ignore),
        ("arn:aws:iam::aws:policy/ReadOnlyAccess", Class::Ignore),
    ] {
        let asked = json!({"userName": "svc", "policyArn": policy});
        let event = record("AttachUserPolicy", &asked, &json!(null));
        assert_eq!(class(&event), expected, "{policy}");
        let mut refused = event.clone();
        refused["detail"]["errorCode"] = json!("AccessDenied");
        assert_eq!(class(&refused), Class::Ignore, "what was refused has not happened");
    }
    let quarantine =
        json!({"userName": "svc", "policyArn": "arn:aws:iam::aws:policy/AWSCompromisedKeyQuarantineV2"});
    assert_eq!(class(&record("DetachUserPolicy", &quarantine, &json!(null))), Class::Observe);
}

#[test]
fn a_key_switched_on_again_is_told_unless_we_did_it() {
    let asked = json!({"userName": "svc", "accessKeyId": KEY, "status": "Active"});
    let event = record("UpdateAccessKey", &asked, &json!(null));
    assert_eq!(class(&event), Class::RevokeAgainIfLeaked);
    let off = json!({"userName": "svc", "accessKeyId": KEY, "status": "Inactive"});
    assert_eq!(class(&record("UpdateAccessKey", &off, &json!(null))), Class::Observe);
    let mut ours = event.clone();
    ours["detail"]["userAgent"] = json!("aws-sdk-rust/1.3 app/keywheel-5b0c1a52-9c3e-4c60-8f5d-2f6a3f1e7d10");
    assert_eq!(class(&ours), Class::RevokeAgainIfLeaked, "anybody may call themselves so");
    ours["detail"]["userIdentity"] = json!({
        "type": "AssumedRole",
        "arn": "arn:aws:sts::111122223333:assumed-role/x-RollBackRole-1/keywheel-prod-roll-back",
    });
    assert_eq!(class(&ours), Class::Observe);
    // Whoever knows our roles does not go by names, which anybody may choose who may assume a role.
    let role = "arn:aws:iam::111122223333:role/x-RollBackRole-1".to_owned();
    let knowing = |event: &Value| judge_knowing(event, std::slice::from_ref(&role)).class;
    assert_eq!(knowing(&ours), Class::RevokeAgainIfLeaked, "without the role that the session is of");
    ours["detail"]["userIdentity"]["sessionContext"] =
        json!({"sessionIssuer": {"type": "Role", "arn": role}});
    assert_eq!(knowing(&ours), Class::Observe);
    ours["detail"]["userIdentity"]["sessionContext"]["sessionIssuer"]["arn"] =
        json!("arn:aws:iam::111122223333:role/Admin");
    assert_eq!(knowing(&ours), Class::RevokeAgainIfLeaked);
    assert_eq!(knowing(&event), Class::RevokeAgainIfLeaked);
    assert_eq!(knowing(&record("UpdateAccessKey", &off, &json!(null))), Class::Observe);
    // For oneself, no name is given.
    let own = json!({"accessKeyId": KEY, "status": "Active"});
    let verdict = judge(&record("UpdateAccessKey", &own, &json!(null)));
    assert_eq!(verdict.targets[0].user.as_ref().unwrap().as_str(), "caller");
}

#[test]
fn a_new_key_is_named_by_the_answer() {
    let answer = json!({"accessKey": {"userName": "svc", "accessKeyId": KEY, "status": "Active"}});
    for asked in [json!({"userName": "svc"}), json!(null)] {
        let verdict = judge(&record("CreateAccessKey", &asked, &answer));
        assert_eq!(verdict.class, Class::Observe);
        assert_eq!(verdict.targets[0].key_id.as_ref().unwrap().as_str(), KEY);
    }
    assert_eq!(class(&record("CreateAccessKey", &json!({"userName": "svc"}), &json!(null))), Class::Reject);
}

fn health(code: &str, entities: &Value) -> Value {
    json!({
        "source": "aws.health",
        "detail-type": "AWS Health Event",
        "account": "999999999999",
        "detail": {
            "service": "RISK",
            "eventTypeCode": code,
            "statusCode": "open",
            "affectedAccount": ACCOUNT,
            "affectedEntities": entities,
            "page": "1",
            "totalPages": "3",
        },
    })
}

#[test]
fn every_code_of_health_names_keys_of_the_affected_account() {
    for code in [
        "AWS_RISK_CREDENTIALS_EXPOSED",
        "AWS_RISK_CREDENTIALS_COMPROMISED",
        "AWS_RISK_CREDENTIALS_EXPOSURE_SUSPECTED",
        "AWS_RISK_CREDENTIALS_COMPROMISE_SUSPECTED",
        "AWS_RISK_IAM_QUARANTINE",
    ] {
        let verdict = judge(&health(code, &json!([{"entityValue": KEY}])));
        assert_eq!(verdict.class, Class::RevokeUserKey, "{code}");
        assert_eq!(verdict.targets[0].account.as_deref(), Some(ACCOUNT));
        assert!(verdict.reason.contains("page 1 of 3"), "{}", verdict.reason);
    }
    assert_eq!(class(&health("AWS_RISK_SOMETHING_NEW", &json!([]))), Class::NotifyOnly);
    assert_eq!(class(&health("AWS_EC2_SOMETHING", &json!([]))), Class::Ignore);
    let user = json!([{"entityValue": "arn:aws:iam::111122223333:user/apps/svc"}]);
    assert_eq!(class(&health("AWS_RISK_IAM_QUARANTINE", &user)), Class::ResolveUserKeys);
    assert_eq!(class(&health("AWS_RISK_CREDENTIALS_EXPOSED", &user)), Class::Reject);
    assert_eq!(class(&health("AWS_RISK_CREDENTIALS_EXPOSED", &json!([]))), Class::NotifyResolve);
}

#[test]
fn of_a_hundred_entities_one_that_is_odd_hides_no_other() {
    let mut entities: Vec<Value> =
        (0..99).map(|number| json!({"entityValue": format!("AKIAQ3EGX7B2MTEST{number:03}")})).collect();
    entities.insert(40, json!({"entityValue": ["no text"]}));
    let verdict = judge(&health("AWS_RISK_CREDENTIALS_EXPOSED", &json!(entities)));
    assert_eq!((verdict.class, verdict.targets.len()), (Class::RevokeUserKey, 99));
    assert!(verdict.reason.contains("1 of its entities"), "{}", verdict.reason);
}

fn hub(finding: &Value) -> Value {
    json!({
        "source": "aws.securityhub",
        "detail-type": "Security Hub Findings - Imported",
        "account": ACCOUNT,
        "detail": {"findings": [finding]},
    })
}

#[test]
fn security_hub_relays_a_finding_until_it_is_settled() {
    let finding = json!({
        "AwsAccountId": ACCOUNT,
        "ProductArn": "arn:aws:securityhub:eu-west-1::product/aws/guardduty",
        "Types": ["TTPs/UnauthorizedAccess:IAMUser-MaliciousIPCaller"],
        "Severity": {"Label": "HIGH", "Normalized": 70},
        "RecordState": "ACTIVE",
        "Workflow": {"Status": "NEW"},
        "Resources": [{
            "Type": "AwsIamAccessKey",
            "Id": format!("AWS::IAM::AccessKey:{KEY}"),
            "Details": {"AwsIamAccessKey": {"PrincipalType": "IAMUser", "PrincipalName": "svc"}},
        }],
    });
    let verdict = judge(&hub(&finding));
    assert_eq!((verdict.class, verdict.targets[0].severity), (Class::RevokeUserKey, Severity::High));
    for (field, value) in [
        ("Workflow", json!({"Status": "SUPPRESSED"})),
        ("Workflow", json!({"Status": "RESOLVED"})),
        ("RecordState", json!("ARCHIVED")),
    ] {
        let mut settled = finding.clone();
        settled[field] = value;
        assert_eq!(class(&hub(&settled)), Class::Ignore);
    }
    let mut other = finding.clone();
    other["ProductArn"] = json!("arn:aws:securityhub:eu-west-1:111122223333:product/111122223333/default");
    assert_eq!(class(&hub(&other)), Class::PolicyDecides);
    other["Resources"].as_array_mut().unwrap().push(json!({"Type": "AwsS3Bucket", "Id": "arn:aws:s3:::b"}));
    assert_eq!(class(&hub(&other)), Class::NotCredentialLeakNotify);
}

#[test]
fn the_new_security_hub_is_read_as_well() {
    let finding = json!({
        "cloud": {"account": {"uid": ACCOUNT}},
        "metadata": {"product": {"name": "GuardDuty", "uid": "arn:aws:securityhub:eu-west-1::productv2/aws/guardduty"}},
        "finding_info": {"title": "…", "types": ["CredentialAccess:IAMUser/AnomalousBehavior"]},
        "resources": [{
            "type": "AWS::IAM::AccessKey",
            "uid": "AKIAQ3EGX7B2MTES",
            "data": {"access_key_id": KEY, "user_name": "svc", "user_type": "IAMUser"},
        }],
        "severity": "High",
        "status": "New",
        "status_id": 1,
    });
    let event = |finding: &Value| {
        json!({
            "source": "aws.securityhub", "detail-type": "Findings Imported V2", "detail": {"findings": [finding]},
        })
    };
    let verdict = judge(&event(&finding));
    assert_eq!(verdict.class, Class::RevokeUserKey);
    assert_eq!(verdict.targets[0].key_id.as_ref().unwrap().as_str(), KEY, "not the resource's uid");
    let mut session = finding.clone();
    session["resources"][0]["data"] =
        json!({"access_key_id": SESSION, "user_name": "web", "user_type": "AssumedRole"});
    assert_eq!(class(&event(&session)), Class::SessionOnly);
    let mut suppressed = finding;
    suppressed["status_id"] = json!(3);
    assert_eq!(class(&event(&suppressed)), Class::Ignore);
}

#[test]
fn a_message_of_a_topic_or_a_queue_is_unwrapped() {
    let event = guardduty(&json!({"accessKeyId": KEY, "userName": "svc", "userType": "IAMUser"}));
    let sns = json!({"Records": [{"EventSource": "aws:sns", "Sns": {"Message": event.to_string()}}]});
    let topic = json!({"Type": "Notification", "TopicArn": "arn:…", "Message": event.to_string()});
    let sqs = json!({"Records": [
        {"eventSource": "aws:sqs", "body": topic.to_string()},
        {"eventSource": "aws:sqs", "body": "{"},
    ]});
    for wrapped in [&event, &event["detail"], &sns, &topic, &sqs] {
        assert_eq!(class(wrapped), Class::RevokeUserKey);
    }
    let mut deep = event;
    for _ in 0..10 {
        deep = json!({"Records": [{"body": deep.to_string()}]});
    }
    assert_eq!(class(&deep), Class::Reject);
}

fn own(detail: &Value) -> Value {
    json!({"source": "keywheel.leak", "detail-type": "Leaked Access Key", "account": ACCOUNT, "detail": detail})
}

#[test]
fn our_own_event_is_strict() {
    assert_eq!(class(&own(&json!({"schema": 1, "keys": [{"key_id": KEY}]}))), Class::RevokeUserKey);
    let suspected = json!({"schema": 1, "certainty": "suspected", "keys": [{"key_id": KEY}]});
    assert_eq!(class(&own(&suspected)), Class::PolicyDecides);
    let one_odd = json!({"schema": 1, "keys": [{"key_id": KEY}, {"key_id": "nonsense"}, {"user": "svc"}, 7]});
    let verdict = judge(&own(&one_odd));
    assert_eq!((verdict.class, verdict.targets.len()), (Class::RevokeUserKey, 1));
    assert!(verdict.reason.contains("3 of its keys"), "{}", verdict.reason);
    let many: Vec<Value> = (0..=MOST_TARGETS).map(|_| json!({"key_id": KEY})).collect();
    for wrong in [
        json!({"keys": [{"key_id": KEY}]}),
        json!({"schema": 2, "keys": [{"key_id": KEY}]}),
        json!({"schema": 1, "keys": []}),
        json!({"schema": 1, "keys": {"key_id": KEY}}),
        json!({"schema": 1, "certainty": "maybe", "keys": [{"key_id": KEY}]}),
        json!({"schema": 1, "keys": many}),
    ] {
        assert_eq!(class(&own(&wrong)), Class::Reject);
    }
}

#[test]
fn what_is_no_event_is_refused_and_never_repeated() {
    for text in
        ["", " \n", "{", "[]", "null", "7", "\"AKIA\"", "{}", "{\"source\": \"aws.guardduty\"}", "\u{feff}"]
    {
        assert_eq!(triage(text.as_bytes()).class, Class::Reject, "{text:?}");
    }
    let secret = "a value that might be a secret";
    for event in [
        guardduty(&json!({"accessKeyId": secret, "userName": secret, "userType": secret})),
        own(&json!({"schema": 1, "keys": [{"key_id": secret}]})),
        health(secret, &json!([{"entityValue": secret}])),
        json!({"source": secret, "detail-type": secret, "detail": secret}),
    ] {
        let said = serde_json::to_string(&judge(&event)).unwrap();
        assert!(!said.contains(secret), "{said}");
    }
}

#[test]
fn an_events_time_counts_where_it_can_be_when_the_source_has_said_it() {
    let arrived: Timestamp = "2026-03-02T09:00:01.5Z".parse().unwrap();
    let said = |kind: &str, time: Value| {
        let event = json!({"source": "aws.guardduty", "detail-type": kind, "time": time});
        said_at(&event, arrived).map(|at| at.to_string())
    };
    let finding = |time: &str| said("GuardDuty Finding", json!(time));
    for (time, at) in [
        ("2026-03-02T09:00:00Z", "2026-03-02T09:00:00Z"),
        ("2026-03-02T10:00:00+01:00", "2026-03-02T09:00:00Z"),
        ("2026-03-02T09:00:01.5Z", "2026-03-02T09:00:01.5Z"),
        ("2026-03-01T09:00:01.5Z", "2026-03-01T09:00:01.5Z"),
    ] {
        assert_eq!(finding(time).as_deref(), Some(at), "{time}");
    }
    // Later than its arrival, older than any delivery, no time at all.
    for time in ["2026-03-02T09:00:02Z", "2026-03-01T09:00:01Z", "1970-01-01T00:00:00Z", "now", ""] {
        assert_eq!(finding(time), None, "{time}");
    }
    assert_eq!(said("GuardDuty Finding", json!(1_772_442_000)), None);
    assert_eq!(said_at(&json!({"detail-type": "GuardDuty Finding"}), arrived), None);
    // The time of a call, which nobody could have known then.
    assert_eq!(said(cloudtrail::API_CALL, json!("2026-03-02T09:00:00Z")), None);
}
