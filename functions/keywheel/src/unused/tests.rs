use serde_json::json;

use super::*;
use crate::fleet::policy::{SHORTEST_UNUSED, UNUSED_GRACE};
use crate::notice::Outbox;
use crate::policy::Span;

const RUN: &str = "0b5b3c52-6d3e-4b6e-9d5c-0d9f5a3a7f10";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn begin(unused: &Value) -> Begin {
    Begin {
        input: json!({
            "account": "111122223333", "user": "svc-old", "user_id": "AIDAOLD", "key": "AKIAIOSFODNN7EXAMPLE",
            "unused": unused, "regions": ["eu-west-1"], "rule": "defaults", "owner": "ops@example.com",
            "campaign": "7c9e6679-7425-40de-944b-e07fc1f90ae7",
        }),
        name: RUN.into(),
        execution: format!("arn:aws:states:eu-west-1:111122223333:execution:keywheel-prod-unused:{RUN}"),
        started: at("2026-06-30T06:00:00Z"),
    }
}

fn doc(unused: &Value) -> Unused {
    let mut doc = Unused::new(&begin(unused)).unwrap();
    doc.quiet_since = Some(at("2026-02-01T00:00:00Z"));
    doc
}

fn told(doc: &Unused) -> Vec<(NoticeKind, &str)> {
    doc.notices.iter().map(|notice| (notice.kind, notice.text.as_str())).collect()
}

#[test]
fn what_no_policy_could_have_said_is_refused() {
    let refused = |unused: &Value| Unused::new(&begin(unused)).err().map(|error| error.to_string());
    assert_eq!(refused(&json!({"disable_after": SHORTEST_UNUSED, "delete_after": UNUSED_GRACE.0})), None);
    for (unused, what) in [
        (json!({"disable_after": "29d"}), "unused.disable_after: it is shorter than 30days"),
        (
            json!({"disable_after": "30d", "delete_after": "6d"}),
            "unused.delete_after: it is shorter than 7days",
        ),
        (json!({"disable_after": "30d", "delete_after": "181d"}), "unused.delete_after: it is longer than"),
        (json!({"delete_after": "7d"}), "missing field `disable_after`"),
    ] {
        let error = refused(&unused).unwrap();
        assert!(error.contains(what), "{error}");
    }
}

#[test]
fn a_key_of_another_account_and_one_that_no_secret_is_asked_for_are_refused() {
    let refused = |field: &str, value: Value| {
        let mut begin = begin(&json!({"disable_after": "30d"}));
        begin.input[field] = value;
        Unused::new(&begin).err().map(|error| error.to_string()).unwrap_or_default()
    };
    let error = refused("account", json!("444455556666"));
    assert!(error.contains("account is 444455556666, and keys of 111122223333 alone are removed"), "{error}");
    assert!(refused("regions", json!([])).contains("regions names none"));
    assert_eq!(refused("regions", json!(["us-east-1"])), "");
}

#[test]
fn a_run_of_a_day_has_one_name_and_that_of_the_next_day_another() {
    let removed = doc(&json!({"disable_after": "30d"})).removed;
    let other = Removed { key: "AKIAOOOOOOOOOOOOOOOO".parse().unwrap(), ..removed.clone() };
    let morning = removed.run(at("2026-06-30T00:00:00Z"));
    assert_eq!(morning, removed.run(at("2026-06-30T23:59:59Z")));
    assert_ne!(morning, removed.run(at("2026-07-01T00:00:00Z")));
    assert_ne!(morning, other.run(at("2026-06-30T00:00:00Z")));
}

#[test]
fn an_execution_of_any_name_has_an_id_of_its_own() {
    let mut begin = begin(&json!({"disable_after": "30d"}));
    assert_eq!(Unused::new(&begin).unwrap().run.to_string(), RUN);
    begin.name = "by-hand".into();
    assert_eq!(Unused::new(&begin).unwrap().run, RunId::standing_for(&begin.execution));
}

#[test]
fn a_grace_is_looked_at_daily_and_says_the_way_back() {
    let mut doc = doc(&json!({"disable_after": "120d", "delete_after": "30d"}));
    let now = at("2026-06-30T06:00:00.25Z");
    doc.begin_grace(now);
    assert_eq!((doc.phase, doc.wait_until), (Phase::Grace, Some(at("2026-07-01T06:00:01Z"))));
    assert_eq!(doc.grace().unwrap(), (at("2026-07-30T06:00:00.25Z"), at("2026-02-01T00:00:00Z")));
    assert_eq!(
        told(&doc),
        [(
            NoticeKind::Disabled,
            "Key AKIAIOSFODNN7EXAMPLE of svc-old is Inactive: nobody has used it since 2026-02-01. `keywheel restore AKIAIOSFODNN7EXAMPLE` makes it Active again. It is deleted at 2026-07-30T06:00:00.25Z unless somebody needs it."
        )]
    );
    let (mail, detail) = (doc.subject(&doc.notices[0]), doc.detail(&doc.notices[0]));
    assert_eq!(mail, "[keywheel] Unused key Disabled: svc-old");
    assert_eq!((&detail["key"], &detail["outcome"]), (&json!("AKIAIOSFODNN7EXAMPLE"), &Value::Null));
}

#[test]
fn a_key_that_is_never_deleted_ends_the_run_as_it_is() {
    let mut doc = doc(&json!({"disable_after": "120d"}));
    doc.begin_grace(at("2026-06-30T06:00:00Z"));
    assert_eq!((doc.phase, doc.outcome, doc.wait_until), (Phase::Ended, Some(Outcome::Disabled), None));
    assert!(doc.grace().is_err());
    let [(NoticeKind::Disabled, first), (NoticeKind::Ended, last)] = told(&doc)[..] else {
        panic!("{doc:?}")
    };
    assert!(first.ends_with("By the policy it is never deleted."), "{first}");
    assert_eq!(
        last,
        "Disabled: Key AKIAIOSFODNN7EXAMPLE of svc-old is Inactive. `keywheel restore AKIAIOSFODNN7EXAMPLE` makes it Active again."
    );
}

#[test]
fn a_step_that_failed_for_good_says_what_is_not_known() {
    let failed = |phase: Phase, outcome: Option<Outcome>| {
        let mut doc = doc(&json!({"disable_after": "120d", "delete_after": "30d"}));
        doc.phase = phase;
        doc.outcome = outcome;
        doc.error = Some(Caught { error: "Keywheel.Ambiguous".into(), cause: "lost".into() });
        doc.conclude(at("2026-06-30T06:00:00Z"));
        doc
    };
    for (phase, what) in [
        (Phase::Disable, "Whether key AKIAIOSFODNN7EXAMPLE of svc-old is Inactive is not known"),
        (Phase::Grace, "was made Inactive, and whether it is still there is not known"),
    ] {
        let doc = failed(phase, None);
        assert_eq!((doc.outcome, doc.phase), (Some(Outcome::Held), Phase::Ended));
        let why = doc.why.unwrap();
        assert!(why.code == "Keywheel.Ambiguous" && why.text.contains(what), "{why:?}");
    }
    assert_eq!(failed(Phase::Ended, Some(Outcome::Kept)).outcome, Some(Outcome::Kept));
}

#[test]
fn it_is_tried_for_a_day_after_the_outcome() {
    let mut doc = doc(&json!({"disable_after": "120d"}));
    assert_eq!(doc.last_words(), None);
    doc.begin_grace(at("2026-06-30T06:00:00Z"));
    let day = Span::days(1).get();
    assert_eq!(doc.last_words(), Some((at("2026-06-30T06:00:00Z"), day)));
    doc.deliver(Delivery::Pending, Some(at("2026-06-30T06:01:00Z")));
    assert_eq!(doc.wait_until, Some(at("2026-06-30T06:01:00Z")));
}
