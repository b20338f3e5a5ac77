use super::super::samples::{ID, seen, t};
use super::*;

#[test]
fn a_campaign_is_named_by_its_id_or_its_arn() {
    let machine = "arn:aws:states:eu-west-1:111122223333:stateMachine:keywheel-prod-fleet";
    let arn = format!("arn:aws:states:eu-west-1:111122223333:execution:keywheel-prod-fleet:{ID}");
    for typed in [ID, arn.as_str(), &format!(" {}\n", ID.to_uppercase())] {
        assert_eq!(name(machine, typed).unwrap(), ID);
    }
    assert_eq!(name(machine, "Scheduled-Run_1").unwrap(), "Scheduled-Run_1");
    let elsewhere = arn.replace("fleet", "rotation");
    for wrong in ["", " ", "a b", elsewhere.as_str(), &"x".repeat(81)] {
        assert!(name(machine, wrong).is_err(), "{wrong}");
    }
}

#[test]
fn an_outcome_counts_while_the_last_notice_is_still_being_sent() {
    let under_way = seen(ExecutionStatus::Running, None);
    assert!(under_way.is_under_way());
    assert_eq!((under_way.word(), under_way.exit()), ("Running", Exit::Done));
    for (outcome, exit) in [
        (Outcome::Done, Exit::Done),
        (Outcome::Planned, Exit::Done),
        (Outcome::Stopped, Exit::Failed),
        (Outcome::Refused, Exit::Blocked),
    ] {
        // Neither a notice that is on its way nor one that nobody could be told changes it.
        for status in [ExecutionStatus::Running, ExecutionStatus::Succeeded, ExecutionStatus::Failed] {
            let ended = seen(status, Some(outcome));
            assert!(!ended.is_under_way());
            assert_eq!((ended.word(), ended.exit()), (outcome.name(), exit));
        }
    }
}

#[test]
fn a_campaign_without_an_outcome_has_failed_once_it_does_not_run() {
    for (status, word) in [
        (ExecutionStatus::Aborted, "Aborted"),
        (ExecutionStatus::TimedOut, "TimedOut"),
        (ExecutionStatus::Failed, "Failed"),
    ] {
        let broken = seen(status, None);
        assert_eq!((broken.word(), broken.exit()), (word, Exit::Failed));
        assert_eq!(broken.json()["exit_code"], 6);
    }
}

#[test]
fn what_states_were_given_tells_the_document_or_what_kept_it_from_being_made() {
    let doc = seen(ExecutionStatus::Running, None).document.unwrap();
    let text = serde_json::to_string(&doc).unwrap();
    assert_eq!(known(&text), Some(Known::Document(Box::new(doc))));
    let given = r#"{"reason": "manual", "error": {"Error": "Keywheel.Refused", "Cause": "{\"errorMessage\": \"denied\"}"}}"#;
    let Some(Known::Caught(caught)) = known(given) else { panic!("no error") };
    assert_eq!((caught.error.as_str(), caught.message().as_str()), ("Keywheel.Refused", "denied"));
    for nothing in ["{\"reason\": \"manual\"}", "[]", "nonsense", "{\"error\": 1}"] {
        assert_eq!(known(nothing), None, "{nothing}");
    }
}

#[test]
fn those_that_run_come_first_and_then_the_newest() {
    let of = |id: &str, status, second| {
        let mut seen = seen(status, None);
        (seen.id, seen.started) = (id.to_owned(), t(second));
        seen
    };
    let mut all = [
        of("old", ExecutionStatus::Succeeded, 1),
        of("new", ExecutionStatus::Succeeded, 9),
        of("runs", ExecutionStatus::Running, 5),
    ];
    order(&mut all);
    assert_eq!(all.each_ref().map(|seen| seen.id.as_str()), ["runs", "new", "old"]);
}

#[test]
fn programs_get_the_counts_the_waves_and_where_the_plan_lies() {
    let json = seen(ExecutionStatus::Running, None).json();
    assert_eq!((&json["campaign"], &json["status"]), (&json!(ID), &json!("RUNNING")));
    assert_eq!((&json["keys"], &json["promoted"], &json["failed"]), (&json!(30), &json!(10), &json!(1)));
    assert_eq!(json["plan"], format!("s3://bucket/campaigns/{ID}/plan.jsonl"));
    assert_eq!(json["waves"].as_array().map(Vec::len), Some(2));
    assert!(json["exit_code"].is_null() && json["outcome"].is_null());
}
