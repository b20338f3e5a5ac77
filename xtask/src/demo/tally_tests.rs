//! A run of a few calls, counted.

use serde_json::json;

use super::*;

const APP: &str = "keywheel-run";

fn at(second: f64) -> Timestamp {
    #[expect(clippy::cast_possible_truncation, reason = "a few seconds")]
    Timestamp::from_millisecond((second * 1000.0) as i64).unwrap()
}

fn call(second: f64, name: &str, app: &str, key: &str, status: u16) -> Request {
    let (service, action) = name.split_once(':').unwrap();
    let line = json!({"seq": 1, "time": at(second).to_string(), "service": service, "action": action,
        "key_id": key, "status": status, "app": app});
    serde_json::from_value(line).unwrap()
}

fn visit(state: &str, from: f64, until: f64) -> Visit {
    Visit { state: state.into(), task: true, wait: false, from: at(from), until: Some(at(until)) }
}

fn counted() -> Tally {
    let ours = |second, name| call(second, name, APP, "ASIA", 200);
    let consumer = |second, key, status| call(second, "sts:GetCallerIdentity", consumer::APP, key, status);
    let log = [
        ours(1.1, "iam:ListAccessKeys"),
        ours(1.2, "iam:CreateAccessKey"),
        ours(1.3, "secretsmanager:PutSecretValue"),
        consumer(1.5, "old", 200),
        call(2.0, "sts:GetCallerIdentity", APP, "new", 403),
        call(2.1, "sts:GetCallerIdentity", APP, "new", 200),
        ours(3.0, "secretsmanager:UpdateSecretVersionStage"),
        consumer(3.1, "old", 200),
        consumer(3.2, "new", 200),
        ours(4.1, "ssm:GetParameters"),
        ours(4.2, "secretsmanager:ListSecrets"),
        ours(4.3, "iam:GetAccessKeyLastUsed"),
        ours(4.4, "iam:UpdateAccessKey"),
        consumer(4.5, "old", 403),
        ours(5.0, "iam:DeleteAccessKey"),
        consumer(5.5, "new", 200),
        ours(6.0, "events:PutEvents"),
        call(6.1, "iam:ListAccessKeys", "xtask", "test", 200),
    ];
    let visits = [
        visit("CreateKey", 1.0, 1.9),
        visit("ValidateKey", 1.9, 2.9),
        visit("PromoteKey", 2.9, 3.9),
        visit("DeactivateKey", 4.0, 4.8),
        visit("DeleteKey", 4.9, 5.4),
    ];
    Tally::count(&log, APP, &visits, "old", "new")
}

#[test]
fn only_the_runs_own_calls_count_and_each_group_is_told() {
    let tally = counted();
    assert_eq!(tally.writes.len(), 5);
    // Five writes, one list, and both calls with the new key, the refused one too.
    assert_eq!(tally.calls, 8);
    assert_eq!(tally.apart, Apart { gate_polls: 2, switch_reads: 1, notices: 1, assume_roles: 0 });
}

#[test]
fn every_call_is_found_in_one_step() {
    let tally = counted();
    let rows: Vec<_> = tally.steps.iter().map(|step| (step.state.as_str(), step.calls, step.apart)).collect();
    assert_eq!(
        rows,
        [
            ("CreateKey", 3, 0),
            ("ValidateKey", 2, 0),
            ("PromoteKey", 1, 0),
            ("DeactivateKey", 1, 3),
            ("DeleteKey", 1, 0),
            ("(outside)", 0, 1)
        ]
    );
    assert_eq!(tally.steps.iter().map(|step| step.calls).sum::<u32>(), tally.calls);
}

#[test]
fn the_consumer_is_counted_by_key_and_stage() {
    let consumer = counted().consumer;
    assert_eq!((consumer.logged, consumer.failed), (5, 1));
    assert_eq!(consumer.old_after_promotion, 2);
    assert_eq!(consumer.new_before_deactivation, 1);
    assert_eq!(consumer.after_delete, 1);
    assert_eq!(consumer.stages[&("old".to_owned(), Span::Grace)], (1, 1));
}

#[test]
fn a_keys_life_is_read_from_the_writes() {
    let [old, new] = counted().keys;
    assert_eq!((old.current_to, old.inactive, old.deleted), (Some(at(3.0)), Some(at(4.4)), Some(at(5.0))));
    assert_eq!((new.current_from, new.inactive, new.deleted), (Some(at(3.0)), None, None));
}
