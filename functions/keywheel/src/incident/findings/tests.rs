use serde_json::json;

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn record(call: (&str, &str), time: &str, more: &Value) -> Value {
    let mut record = json!({
        "eventSource": format!("{}.amazonaws.com", call.0), "eventName": call.1, "eventTime": time,
        "awsRegion": "eu-west-1", "sourceIPAddress": "198.51.100.9", "userAgent": "aws-cli/2.1",
    });
    record.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    record
}

fn tally(records: &[Value]) -> Findings {
    let mut tally = Tally::default();
    for record in records {
        tally.add(record);
    }
    tally.findings(at("2026-03-02T12:00:00Z"), Gaps { read: 1, ..Gaps::default() })
}

#[test]
fn calls_are_counted_with_their_first_and_last() {
    let found = tally(&[
        record(("s3", "ListBuckets"), "2026-03-02T10:00:00Z", &json!({})),
        record(("s3", "ListBuckets"), "2026-03-02T09:00:00Z", &json!({"sourceIPAddress": "203.0.113.1"})),
        record(
            ("ec2", "RunInstances"),
            "2026-03-02T09:30:00Z",
            &json!({"errorCode": "Client.UnauthorizedOperation"}),
        ),
        record(("s3", "GetBucketAcl"), "2026-03-02T09:40:00Z", &json!({"errorCode": "NoSuchBucket"})),
    ]);
    let span = Some((at("2026-03-02T09:00:00Z"), at("2026-03-02T10:00:00Z")));
    assert_eq!((found.events, found.denied_calls, found.span), (4, 1, span));
    assert_eq!(found.services.list[0], Seen { what: "s3".into(), calls: 3, span });
    assert_eq!((found.addresses.list[0].what.as_str(), found.addresses.list[0].calls), ("198.51.100.9", 3));
    assert_eq!(found.denied.list[0].what, "ec2:RunInstances");
    assert_eq!(
        found.notable,
        ["1 of 4 calls were denied.", "Calls came from 2 addresses, most of them from 198.51.100.9."]
    );
    assert!(!found.is_partial());
}

#[test]
fn what_outlives_the_key_comes_first_and_tokens_are_never_taken() {
    let credentials = json!({
        "accessKeyId": "ASIA2OGYBAH6QSESSION", "expiration": "Mar 2, 2026, 9:00:00 PM",
        "sessionToken": "FwoGZXIvYXdzTOKEN", "secretAccessKey": "wJalrSECRET",
    });
    let found = tally(&[
        record(
            ("sts", "AssumeRole"),
            "2026-03-02T09:00:00Z",
            &json!({
                "requestParameters": {"roleArn": "arn:aws:iam::111122223333:role/Admin", "roleSessionName": "me"},
                "responseElements": {"credentials": credentials},
            }),
        ),
        record(
            ("sts", "GetFederationToken"),
            "2026-03-02T09:00:00Z",
            &json!({"requestParameters": {"name": "bob", "durationSeconds": 129_600}}),
        ),
        record(
            ("sts", "AssumeRole"),
            "2026-03-01T09:00:00Z",
            &json!({"requestParameters": {"roleArn": "arn:aws:iam::111122223333:role/Old"}}),
        ),
        record(
            ("iam", "CreateAccessKey"),
            "2026-03-02T09:10:00Z",
            &json!({"responseElements": {"accessKey": {
                "accessKeyId": "AKIA2OGYBAH6QBACKDOR", "userName": "backdoor", "secretAccessKey": "wJalrSECRET"}}}),
        ),
        record(
            ("iam", "AttachUserPolicy"),
            "2026-03-02T09:11:00Z",
            &json!({"requestParameters": {"userName": "backdoor", "policyArn": "arn:aws:iam::aws:policy/AdministratorAccess"}}),
        ),
        record(
            ("iam", "CreateUser"),
            "2026-03-02T09:12:00Z",
            &json!({"errorCode": "AccessDenied", "requestParameters": {"userName": "never"}}),
        ),
    ]);
    assert_eq!(found.roles.list[0].until, Some(at("2026-03-02T21:00:00Z")));
    assert_eq!(found.roles.list[0].key, "ASIA2OGYBAH6QSESSION");
    assert_eq!(found.sessions.list[0].until, Some(at("2026-03-03T21:00:00Z")));
    assert_eq!(found.made.count(), 2, "a refused call made nothing");
    assert_eq!(
        found.notable[..3],
        [
            "It assumed a role; the sessions live until 2026-03-02T21:00:00Z at the latest: arn:aws:iam::111122223333:role/Admin as me.",
            "Sessions that it minted live until 2026-03-03T21:00:00Z at the latest: sts:GetFederationToken as bob.",
            "It made or changed: iam:AttachUserPolicy policy arn:aws:iam::aws:policy/AdministratorAccess to user backdoor, iam:CreateAccessKey key AKIA2OGYBAH6QBACKDOR of user backdoor.",
        ]
    );
    let text = serde_json::to_string(&found).unwrap();
    assert!(!text.contains("TOKEN") && !text.contains("wJalr"), "{text}");
}

#[test]
fn hostile_records_are_bounded_and_carry_nothing_unseen() {
    let mut all = Tally::default();
    for n in 0..3_000 {
        let agent = format!("\u{202e}\u{1b}[31m<!channel>\r\n{n} {}", "\"\\😀".repeat(200));
        all.add(&record(
            ("iam", "CreateUser"),
            "2026-03-02T09:00:00Z",
            &json!({"userAgent": agent, "sourceIPAddress": agent, "awsRegion": agent,
                "requestParameters": {"userName": agent}}),
        ));
        all.add(&record(
            ("sts", "AssumeRole"),
            "2026-03-02T11:30:00Z",
            &json!({"requestParameters": {"roleArn": agent, "roleSessionName": agent}}),
        ));
    }
    for odd in
        [json!(null), json!(7), json!([]), json!({"eventTime": 7, "eventName": {}, "eventSource": "x"})]
    {
        all.add(&odd);
    }
    let missing = (0..40).map(|n| format!("xx-somewhere-{n}")).collect();
    let found = all.findings(at("2026-03-02T12:00:00Z"), Gaps { read: 1, missing, cut: Vec::new() });
    let text = serde_json::to_string(&found).unwrap();
    assert!(text.len() <= LARGEST, "{}", text.len());
    assert_eq!(found.events, 6_004);
    assert!(found.truncated && found.agents.count() == 1_000, "what is not told apart is said");
    assert!(!text.contains("\\u00") && !text.contains("\\r") && !text.contains('\u{202e}'));
    assert!(found.notable.iter().all(|line| line.len() < 4_000 && !line.contains(['<', '!', '"', '\\'])));
    assert_eq!(serde_json::from_str::<Findings>(&text).unwrap(), found);
}

#[test]
fn unchanged_findings_tell_the_same_at_another_time() {
    let mut all = Tally::default();
    all.add(&record(("s3", "ListBuckets"), "2026-03-02T10:00:00Z", &json!({})));
    let before = all.findings(at("2026-03-02T12:00:00Z"), Gaps::default());
    let mut later = all.findings(at("2026-03-02T12:05:00Z"), Gaps::default());
    later.round = 1;
    assert!(before.tells_the_same_as(&later));
    all.add(&record(("s3", "ListBuckets"), "2026-03-02T10:01:00Z", &json!({})));
    assert!(!before.tells_the_same_as(&all.findings(at("2026-03-02T12:05:00Z"), Gaps::default())));
}

#[test]
fn findings_of_an_earlier_release_are_read() {
    let text = r#"{"at":"2026-03-02T12:00:00Z","events":3,"missing":["eu-west-3"]}"#;
    let found: Findings = serde_json::from_str(text).unwrap();
    assert!(found.is_partial());
    assert_eq!((found.round, found.roles.count()), (0, 0));
}
