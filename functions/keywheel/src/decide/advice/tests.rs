//! Twelve histories, eight of which show a way, and the borders between them.

use jiff::SignedDuration;
use serde_json::json;

use super::*;

const LAMBDA: &str = "Boto3/1.34.0 md/Botocore#1.34.0 ua/2.0 os/linux#5.10 lang/python#3.12.1 exec-env/AWS_Lambda_python3.12 Botocore/1.34.0";
const FARGATE: &str = "aws-sdk-java/2.28.29 md/io#async ua/2.0 os/Linux#5.10 lang/java#17.0.13 exec-env/AWS_ECS_FARGATE cfg/retry-mode#legacy";
const WINDOWS: &str = "aws-cli/2.15.42 Python/3.11.8 Windows/2019Server exec-env/EC2 exe/AMD64 prompt/off";
const CLI: &str = "aws-cli/2.15.42 Python/3.11.8 Linux/5.15.0 exe/x86_64.ubuntu.22 prompt/off command/ec2.describe-instances";
const SDK: &str = "[aws-sdk-go-v2/1.30.4 os/linux lang/go#1.22 md/GOOS#linux md/GOARCH#amd64 api/sqs#1.34.0]";
const TERRAFORM: &str = "APN/1.0 HashiCorp/1.0 Terraform/1.9.8 (+https://www.terraform.io) terraform-provider-aws/5.70.0 aws-sdk-go-v2/1.30.4";

/// One call, so many hours after the first of March.
fn call(hour: i64, source: &str, agent: &str) -> Value {
    let start: Timestamp = "2026-03-01T00:00:00Z".parse().unwrap();
    json!({
        "eventTime": (start + SignedDuration::from_hours(hour)).to_string(),
        "eventSource": "ec2.amazonaws.com", "eventName": "DescribeInstances", "awsRegion": "eu-west-1",
        "sourceIPAddress": source, "userAgent": agent,
        "userIdentity": {"type": "IAMUser", "userName": "svc-mail"},
    })
}

/// A call a day, for so many days.
fn daily(days: i64, source: &str, agent: &str) -> Vec<Value> {
    (0..days).map(|day| call(day * 24, source, agent)).collect()
}

/// A call a day, each from another address of a net.
fn wandering(days: i64, net: &str, agent: &str) -> Vec<Value> {
    (0..days).map(|day| call(day * 24, &format!("{net}.{}", day + 1), agent)).collect()
}

/// A workflow's day: the action, and what runs after it on the same runner.
fn workflow(day: i64) -> Vec<Value> {
    let runner = format!("20.55.0.{}", day + 1);
    vec![call(day * 24, &runner, GITHUB), call(day * 24, &runner, CLI), call(day * 24, &runner, TERRAFORM)]
}

fn through_an_endpoint(days: i64) -> Vec<Value> {
    let mut calls = daily(days, "10.0.3.17", SDK);
    for call in &mut calls {
        call["vpcEndpointId"] = json!("vpce-0123456789abcdef0");
    }
    calls
}

/// What CloudFormation does for the caller, and what our own validation did with the new key.
fn beside() -> Vec<Value> {
    let mut for_us = call(30, "198.51.100.7", CLI);
    for_us["userIdentity"]["invokedBy"] = json!("cloudformation.amazonaws.com");
    let ours =
        format!("aws-sdk-rust/1.3 exec-env/AWS_Lambda_provided.al2023 app/keywheel-{}", uuid::Uuid::nil());
    vec![
        for_us,
        call(31, "cloudformation.amazonaws.com", "cloudformation.amazonaws.com"),
        call(32, "AWS Internal", "AWS Internal"),
        call(1, "3.120.0.9", &ours),
    ]
}

fn ranges() -> Ranges {
    let text = json!({
        "prefixes": [
            {"ip_prefix": "3.120.0.0/14", "region": "eu-central-1", "service": "AMAZON"},
            {"ip_prefix": "3.120.0.0/14", "region": "eu-central-1", "service": "EC2"},
            {"ip_prefix": "198.51.100.0/24", "region": "GLOBAL", "service": "CLOUDFRONT"},
        ],
        "ipv6_prefixes": [{"ipv6_prefix": "2a05:d014::/36", "region": "eu-central-1", "service": "EC2"}],
    });
    Ranges::read(&text.to_string()).unwrap()
}

fn history(records: &[Value]) -> History {
    let mut history = History::default();
    for record in records {
        history.add(record);
    }
    history
}

fn missing(region: &str) -> Gaps {
    Gaps { read: 1, missing: vec![region.to_owned()], cut: Vec::new() }
}

fn judged(records: &[Value]) -> Verdict {
    advise(&history(records), &Gaps::default(), Some("ec2"), Some(&ranges()))
}

fn reason(verdict: &Verdict) -> Option<Reason> {
    match verdict {
        Verdict::Silent(reason, _) => Some(*reason),
        Verdict::Fits(_) => None,
    }
}

#[test]
fn of_twelve_histories_eight_show_their_way_and_four_none() {
    let shown = [
        ("a function", daily(20, "3.120.0.9", LAMBDA), (Way::Role, Kind::Lambda)),
        ("a task", daily(20, "18.197.4.4", FARGATE), (Way::Role, Kind::Ecs)),
        ("a Windows instance", daily(20, "203.0.113.9", WINDOWS), (Way::Role, Kind::Ec2)),
        ("instances that come and go", wandering(20, "3.121.0", SDK), (Way::Role, Kind::Ec2)),
        ("something in a VPC", through_an_endpoint(20), (Way::Role, Kind::Vpc)),
        ("a workflow", (0..15).flat_map(workflow).collect::<Vec<Value>>(), (Way::Oidc, Kind::GitHub)),
        ("an own host", daily(20, "198.51.100.7", SDK), (Way::RolesAnywhere, Kind::Host)),
        (
            "an own host, and what services and we did meanwhile",
            [daily(20, "198.51.100.7", CLI), beside()].concat(),
            (Way::RolesAnywhere, Kind::Host),
        ),
    ];
    for (who, records, fits) in &shown {
        match judged(records) {
            Verdict::Fits(advice) => assert_eq!((advice.way, advice.caller), *fits, "{who}"),
            silent @ Verdict::Silent(..) => panic!("{who}: {silent:?}"),
        }
    }
    let silent = [
        (
            "a function and the office",
            [daily(20, "3.120.0.9", LAMBDA), daily(20, "198.51.100.7", CLI)].concat(),
            Reason::SeveralCallers,
        ),
        ("somebody's laptop", wandering(20, "203.0.113", CLI), Reason::Wanders),
        ("a key that was tried", daily(9, "3.120.0.9", LAMBDA), Reason::TooFewCalls),
    ];
    for (who, records, why) in &silent {
        assert_eq!(reason(&judged(records)), Some(*why), "{who}");
    }
    let partial = history(&daily(20, "3.120.0.9", LAMBDA));
    let partial = advise(&partial, &missing("us-east-1"), Some("ec2"), None);
    assert_eq!(reason(&partial), Some(Reason::Partial), "a function, read in part");
    assert_eq!((shown.len(), silent.len() + 1), (8, 4));
}

#[test]
fn a_week_and_ten_calls_are_enough_and_less_is_not() {
    let within = |hours: i64| {
        let calls: Vec<Value> =
            (0..12).map(|number| call(number * hours / 11, "3.120.0.9", LAMBDA)).collect();
        reason(&judged(&calls))
    };
    assert_eq!((within(167), within(168)), (Some(Reason::TooShort), None));
    assert_eq!(reason(&judged(&daily(10, "3.120.0.9", LAMBDA))), None);
}

#[test]
fn an_address_is_fixed_after_two_weeks_on_five_days() {
    let host = |days: i64| reason(&judged(&daily(days, "198.51.100.7", SDK)));
    assert_eq!((host(14), host(15)), (Some(Reason::Wanders), None));
    // Thirty calls, all of them on four days.
    let rare: Vec<Value> = (0..30).map(|n| call((n % 4) * 24 * 7 + n / 4, "198.51.100.7", SDK)).collect();
    assert_eq!(reason(&judged(&rare)), Some(Reason::Wanders));
    let fifth: Vec<Value> = (0..30).map(|n| call((n % 5) * 24 * 7 + n / 5, "198.51.100.7", SDK)).collect();
    assert_eq!(reason(&judged(&fifth)), None);
    let two = [daily(20, "198.51.100.7", SDK), daily(1, "198.51.100.8", SDK)].concat();
    assert_eq!(reason(&judged(&two)), Some(Reason::Wanders));
}

#[test]
fn without_the_ranges_nobody_says_that_an_address_is_ones_own() {
    let host = history(&daily(20, "3.120.0.9", SDK));
    let Verdict::Fits(advice) = advise(&host, &Gaps::default(), Some("ec2"), None) else { panic!("silent") };
    assert!(advice.how.starts_with("If the host is your own") && advice.how.contains("a role"), "{advice:?}");
    let Verdict::Fits(advice) = judged(&daily(20, "3.120.0.9", SDK)) else { panic!("silent") };
    assert_eq!((advice.way, advice.caller), (Way::Role, Kind::Ec2));
    let Verdict::Fits(advice) = judged(&daily(20, "2a05:d014:800::7", SDK)) else { panic!("silent") };
    assert_eq!(advice.caller, Kind::Ec2);
}

#[test]
fn what_marks_every_call_is_not_taken_for_the_calls_of_its_neighbours() {
    // A function behind the gateway through which another program calls too.
    let gateway = [daily(20, "198.51.100.7", LAMBDA), daily(20, "198.51.100.7", SDK)].concat();
    assert_eq!(reason(&judged(&gateway)), Some(Reason::SeveralCallers));
    // A workflow, and a laptop that the action never ran on.
    let both: Vec<Value> = (0..15).flat_map(workflow).chain(daily(20, "203.0.113.9", CLI)).collect();
    assert_eq!(reason(&judged(&both)), Some(Reason::SeveralCallers));
}

#[test]
fn a_use_that_the_history_does_not_show_silences() {
    let function = history(&daily(20, "3.120.0.9", LAMBDA));
    let of = |last| reason(&advise(&function, &Gaps::default(), last, None));
    assert_eq!((of(Some("s3")), of(Some("ec2")), of(None)), (Some(Reason::Unseen), None, None));
}

#[test]
fn what_was_seen_is_said_with_its_place() {
    let why = |records: &[Value]| match judged(records) {
        Verdict::Fits(advice) => advice.why,
        Verdict::Silent(_, why) => why,
    };
    assert_eq!(why(&daily(20, "3.120.0.9", LAMBDA)), "All 20 calls came from Lambda.");
    assert_eq!(why(&daily(20, "198.51.100.7", SDK)), "All 20 calls came from 198.51.100.7, on 20 days.");
    let both =
        [daily(20, "3.120.0.9", LAMBDA), daily(20, "18.197.4.4", FARGATE), through_an_endpoint(1)].concat();
    assert_eq!(why(&both), "Several kinds of caller use it: Lambda, ECS, a VPC's endpoint.");
    let span = history(&daily(20, "3.120.0.9", LAMBDA)).span().unwrap();
    assert_eq!(
        (span.0.to_string().as_str(), span.1.to_string().as_str()),
        ("2026-03-01T00:00:00Z", "2026-03-20T00:00:00Z")
    );
}

#[test]
fn a_history_that_was_cut_says_so() {
    let gaps = Gaps { cut: vec!["eu-west-1".to_owned()], ..Gaps::default() };
    let function = history(&daily(20, "3.120.0.9", LAMBDA));
    let Verdict::Fits(advice) = advise(&function, &gaps, Some("ec2"), None) else { panic!("silent") };
    assert!(advice.why.contains("read in part"), "{advice:?}");
}

#[test]
fn what_says_nothing_of_a_place_is_no_evidence() {
    let through = [beside(), beside(), beside(), beside(), beside()].concat();
    let history = history(&through);
    assert_eq!((history.calls(), history.through_services(), history.span()), (0, 15, None));
    assert_eq!(reason(&judged(&through)), Some(Reason::TooFewCalls));
    let unreadable: Vec<Value> = daily(20, "", SDK).into_iter().chain([Value::Null]).collect();
    assert_eq!(reason(&judged(&unreadable)), Some(Reason::SeveralCallers));
    let one = [daily(20, "3.120.0.9", LAMBDA), vec![Value::Null]].concat();
    assert_eq!(reason(&judged(&one)), Some(Reason::SeveralCallers), "one call from nowhere");
}

#[test]
fn a_person_in_the_console_has_sessions_already() {
    let shell =
        daily(20, "3.120.0.9", "aws-cli/2.15.0 Python/3.11.6 Linux/6.1 exec-env/CloudShell exe/x86_64");
    assert_eq!(reason(&judged(&shell)), Some(Reason::Person));
}

#[test]
fn a_range_holds_its_addresses_and_no_others() {
    let hold = |address: &str| ranges().hold(address.parse().unwrap());
    assert!(hold("3.120.0.0") && hold("3.123.255.255") && hold("2a05:d014:fff::1"));
    assert!(!hold("3.124.0.0") && !hold("3.119.255.255") && !hold("198.51.100.7") && !hold("2a05:d015::1"));
    let whole = Ranges::read(r#"{"prefixes": [{"ip_prefix": "0.0.0.0/0", "service": "EC2"}]}"#).unwrap();
    assert!(whole.hold("203.0.113.9".parse().unwrap()) && !whole.hold("::1".parse().unwrap()));
    let one = r#"{"prefixes": [{"ip_prefix": "203.0.113.9/32", "service": "EC2"}],
        "ipv6_prefixes": [{"ipv6_prefix": "2001:db8::7/128", "service": "EC2"}]}"#;
    let one = Ranges::read(one).unwrap();
    let hold = |address: &str| one.hold(address.parse().unwrap());
    assert!(hold("203.0.113.9") && !hold("203.0.113.8") && hold("2001:db8::7") && !hold("2001:db8::6"));
    for odd in [
        "nonsense",
        "{}",
        r#"{"prefixes": [{"ip_prefix": "3.120.0.0/33", "service": "EC2"}]}"#,
        r#"{"prefixes": [{"ip_prefix": "3.120.0.0", "service": "EC2"}]}"#,
    ] {
        assert!(Ranges::read(odd).is_err(), "{odd}");
    }
}
