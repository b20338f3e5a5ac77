//! An installation in which all is well, and what is said of it when one thing is broken.

use jiff::SignedDuration;
use keywheel::StepError;
use keywheel::error::Failure;

use super::clock::Told;
use super::installed::{Machine, State};
use super::look::Rule;
use super::policy::Pushed;
use super::reach::Region;
use super::tags::Tags;
use super::*;

fn rule(enabled: bool) -> Rule {
    Rule { name: "keywheel-prod-leak-health".into(), enabled, sources: vec!["aws.health".into()] }
}

fn region(name: &str, rules: Vec<Rule>, used: std::result::Result<bool, String>) -> Region {
    Region { name: name.into(), rules: Ok(rules), used }
}

/// All is well.
fn whole() -> Found {
    let machine = |name| Machine { name, state: State::Same };
    Found {
        region: "eu-west-1".into(),
        global: "us-east-1".into(),
        stage: "prod".into(),
        alarms: Some(alarms::whole("prod")),
        topic: "arn:aws:sns:eu-west-1:111122223333:keywheel-prod".into(),
        switches: Some(Switches::of_values("live", "on")),
        machines: Some(["rotation", "emergency", "incident", "fleet"].map(machine).to_vec()),
        buses: Some(vec![("keywheel-prod".into(), true), ("keywheel-prod-leaks".into(), true)]),
        policy: Some(Pushed::Version("version v1".into())),
        tags: Some(Tags { all: 3, looked: 3, broken: Vec::new() }),
        clock: Some(Told::Ahead(SignedDuration::from_secs(1))),
        regions: vec![
            region("us-east-1", vec![rule(true)], Ok(true)),
            region("eu-west-2", vec![rule(true)], Ok(true)),
            region("sa-east-1", Vec::new(), Ok(false)),
        ],
        trail: Some(true),
        subscribers: Some((1, 0)),
        drill: Some(json!({ "passed": true, "at": "2026-03-01T10:00:00Z", "inactive_ms": 900 })),
        ..Found::default()
    }
}

fn denied(call: &'static str) -> Trouble {
    let (code, message) = ("AccessDenied".into(), "no".into());
    StepError::Refused(Failure { call, code, message, request_id: None }).into()
}

type Break = fn(&mut Found);

/// What is broken, the line that says so, a word of it, and a word of what to do.
const BROKEN: [(Break, &str, &str, &str); 24] = [
    (
        |found| found.switches = Some(Switches::of_values("live", "page")),
        "switches",
        "page",
        "containment on",
    ),
    (|found| found.switches = Some(Switches::of_values("paused", "on")), "switches", "paused", "mode live"),
    (
        |found| found.unread.push(("the trails", denied("cloudtrail:DescribeTrails"))),
        "rights",
        "cloudtrail:DescribeTrails",
        "--profile",
    ),
    (
        |found| found.machines.as_mut().unwrap()[3].state = State::Gone,
        "machines",
        "fleet",
        "infra/template.yaml",
    ),
    (
        |found| found.machines.as_mut().unwrap()[0].state = State::Other,
        "versions",
        "rotation",
        "of this version",
    ),
    (|found| found.buses.as_mut().unwrap()[0].1 = false, "bus", "keywheel-prod", "infra/template.yaml"),
    (|found| found.buses.as_mut().unwrap()[1].1 = false, "bus", "keywheel-prod-leaks", "infra/template.yaml"),
    (
        |found| found.subscribers = Some((0, 0)),
        "people",
        "no subscriber",
        "aws sns subscribe --topic-arn arn:",
    ),
    (|found| found.subscribers = Some((0, 2)), "people", "2 subscriptions wait", "Follow the link"),
    (
        |found| drop(found.alarms.as_mut().unwrap().remove(0)),
        "alarms",
        "missing: keywheel-prod-",
        "infra/template.yaml",
    ),
    (
        |found| found.alarms.as_mut().unwrap()[1].tells = false,
        "alarms",
        "tell nobody",
        "enable-alarm-actions",
    ),
    (|found| found.alarms.as_mut().unwrap()[2].raised = true, "alarms", "raised", "keywheel status"),
    (|found| found.trail = Some(false), "trail", "no trail", "create-trail --is-multi-region-trail"),
    (
        |found| found.regions[1].rules = Ok(Vec::new()),
        "intake",
        "eu-west-2, and it is in use",
        "HubRegion=eu-west-1",
    ),
    (
        |found| found.regions[1].rules = Ok(vec![rule(false)]),
        "intake",
        "disabled in eu-west-2",
        "Enable them",
    ),
    (
        |found| found.regions[1].rules = Err("denied".into()),
        "intake",
        "eu-west-2 could not be read",
        "events:ListRuleNamesByTarget",
    ),
    (
        |found| found.regions[2].used = Err("denied".into()),
        "intake",
        "sa-east-1, and whether",
        "infra/intake.yaml",
    ),
    // What the whole partition's services say comes from there, whatever else is done there.
    (
        |found| found.regions[0] = region("us-east-1", Vec::new(), Ok(false)),
        "intake",
        "us-east-1",
        "infra/intake.yaml",
    ),
    (
        |found| {
            found.tags.as_mut().unwrap().broken =
                vec![Trouble::new("Secret app/mail names nobody.", "Enroll it.")];
        },
        "tags",
        "app/mail",
        "Enroll it.",
    ),
    (|found| found.policy = Some(Pushed::Nothing), "policy", "no policy was pushed", "keywheel policy push"),
    (
        |found| found.policy = Some(Pushed::Unfit("rules[0]: no name".into())),
        "policy",
        "rules[0]",
        "keywheel policy push",
    ),
    (
        |found| found.clock = Some(Told::Ahead(SignedDuration::from_secs(-400))),
        "clock",
        "400 s behind",
        "NTP",
    ),
    (|found| found.clock = Some(Told::Nothing), "clock", "no date", "NTP"),
    (|found| found.drill = None, "drill", "never", "keywheel drill"),
];

#[test]
fn each_thing_that_is_broken_has_its_line_and_its_remedy_and_nothing_else_has() {
    assert!(
        checks(&whole()).iter().all(|check| check.good && check.remedy.is_empty()),
        "{:?}",
        checks(&whole())
    );
    for (breaks, what, says, remedy) in BROKEN {
        let mut found = whole();
        breaks(&mut found);
        let bad: Vec<Check> = checks(&found).into_iter().filter(|check| !check.good).collect();
        let [check] = bad.as_slice() else { panic!("{what}, {says}: {bad:?}") };
        assert!(
            check.what == what && check.text.contains(says) && check.remedy.contains(remedy),
            "{check:?}"
        );
    }
}

#[test]
fn what_could_not_be_read_has_no_line_of_its_own() {
    let mut found = whole();
    (found.switches, found.machines, found.buses, found.trail) = (None, None, None, None);
    (found.tags, found.policy, found.clock, found.subscribers) = (None, None, None, None);
    found.alarms = None;
    found.drill = None;
    found.unread.push((look::DRILL, denied("ssm:GetParameter")));
    let checks = checks(&found);
    assert_eq!(checks.iter().map(|check| check.what).collect::<Vec<_>>(), ["rights", "intake"]);
    assert!(!checks[0].good);
}

#[test]
fn of_an_installation_that_is_not_there_no_version_is_told() {
    let mut found = whole();
    for machine in found.machines.as_mut().unwrap() {
        machine.state = State::Gone;
    }
    let told = checks(&found);
    assert!(told.iter().any(|check| check.what == "machines" && !check.good));
    assert!(told.iter().all(|check| check.what != "versions"));
}

#[test]
fn how_many_pairs_were_looked_at_is_told() {
    let tags = Some(Tags { all: 4_000, looked: 100, broken: Vec::new() });
    let told = checks(&Found { tags, ..whole() });
    let tags = told.iter().find(|check| check.what == "tags").unwrap();
    assert!(tags.good && tags.text.contains("the first 100 of 4000"), "{tags:?}");
}

#[test]
fn a_drill_that_failed_is_no_evidence() {
    let of = |seen: serde_json::Value| drill(&Found { drill: Some(seen), ..Found::default() });
    let good = json!({ "passed": true, "at": "2026-03-01T10:00:00Z", "inactive_ms": 900 });
    assert_eq!(of(good).text, "the last drill, 2026-03-01 10:00:00 UTC: the key was Inactive after 900 ms");
    let failed = json!({ "passed": false, "failures": ["the application got no key within 5m"] });
    let bad = of(failed);
    assert!(!bad.good && bad.text.contains("got no key"), "{bad:?}");
}
