use serde_json::{Value, json};

use super::*;
use crate::campaign::{Begin, Phase, Request, batch_size};
use crate::fleet::policy::Terms;
use crate::ids::RunId;
use crate::notice::{NoticeKind, Outbox};
use crate::rotation::Reason;

const NOW: &str = "2026-06-30T12:00:00Z";
const NAME: &str = "0b5b3c52-6d3e-4b6e-9d5c-0d9f5a3a7f10";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn item(campaign: RunId, user: &str) -> Item {
    Item::new(campaign, &format!("arn-of-{user}"), Some(user), Reason::Scheduled, &Terms::default())
}

/// A campaign over waves of so many keys.
fn campaign(waves: &[(u32, usize)]) -> (Campaign, Vec<Vec<Item>>) {
    let begin = Begin {
        input: json!({}),
        name: NAME.into(),
        execution: format!("arn:aws:states:eu-west-1:111122223333:execution:keywheel-test-fleet:{NAME}"),
        started: now(),
    };
    let mut doc = Campaign::new(&begin, Request::default(), "bucket");
    doc.tolerance = 10;
    let mut items = Vec::new();
    for (wave, keys) in waves {
        items.extend((0..*keys).map(|number| (*wave, item(doc.campaign, &format!("user-{wave}-{number}")))));
    }
    let batches = doc.divide(items);
    (doc, batches)
}

fn code(next: &Next) -> (Option<Outcome>, &str) {
    match next {
        Next::Go => (None, ""),
        Next::End(outcome, why) => (Some(*outcome), &why.code),
    }
}

fn failed(code: &str) -> State {
    State::Failed { code: code.into(), text: "It did not work.".into() }
}

#[test]
fn a_batch_is_of_one_wave_and_begun_in_order() {
    let (mut doc, batches) = campaign(&[(0, 1), (1, 23), (7, 10)]);
    let sizes: Vec<usize> = batches.iter().map(Vec::len).collect();
    assert_eq!(sizes, [1, 10, 10, 3, 10]);
    assert_eq!(
        doc.waves.iter().map(|wave| (wave.wave, wave.keys, wave.batches)).collect::<Vec<_>>(),
        [(0, 1, 1), (1, 23, 3), (7, 10, 1)]
    );
    let mut begun = Vec::new();
    while doc.begin_batch(now()) {
        let batch = doc.batch.clone().unwrap();
        assert_eq!((doc.phase, batch.key), (Phase::Batch, doc.items(batch.number)));
        begun.push((batch.number, batch.wave));
        doc.note(Counted { promoted: sizes[batch.number - 1], ..Counted::default() });
    }
    assert_eq!(begun, [(1, 0), (2, 1), (3, 1), (4, 1), (5, 7)]);
    assert_eq!(doc.done(), (34, 0));
}

#[test]
fn a_large_campaign_has_few_batches_and_none_is_empty() {
    for keys in [1, 9, 10, 11, 2_000, 2_001, 10_000] {
        let (doc, batches) = campaign(&[(1, keys)]);
        assert!(batches.len() <= 200 && batches.iter().all(|batch| !batch.is_empty()), "{keys}");
        assert_eq!(batches.iter().map(Vec::len).sum::<usize>(), keys);
        assert!(batches.iter().all(|batch| batch.len() <= batch_size(doc.keys())), "{keys}");
    }
}

#[test]
fn a_rotations_id_follows_from_its_campaign_and_its_secret() {
    let (doc, _) = campaign(&[]);
    let other = RunId::random();
    assert_eq!(item(doc.campaign, "a").run, item(doc.campaign, "a").run);
    assert_ne!(item(doc.campaign, "a").run, item(doc.campaign, "b").run);
    assert_ne!(item(doc.campaign, "a").run, item(other, "a").run);
}

#[test]
fn nothing_begins_where_something_stands_against_it() {
    let freeze = |from: &str, until: &str| Freeze {
        from: from.parse().unwrap(),
        until: until.parse().unwrap(),
        reason: "year end".into(),
    };
    let cases: [(Value, Mode, usize, Option<Outcome>, &str); 8] = [
        (json!({"reason": "scheduled", "policy_version": "pushed"}), Mode::Live, 1, None, ""),
        (json!({"reason": "scheduled"}), Mode::Live, 1, Some(Outcome::Planned), "NoPolicy"),
        (json!({}), Mode::Live, 1, None, ""),
        (json!({}), Mode::Live, 0, Some(Outcome::Done), "NothingDue"),
        (json!({}), Mode::DryRun, 1, Some(Outcome::Planned), "ModeIsDryRun"),
        (json!({}), Mode::Paused, 1, Some(Outcome::Refused), "Paused"),
        (json!({"dry_run": true}), Mode::Live, 1, Some(Outcome::Planned), "DryRun"),
        (json!({"dry_run": true}), Mode::Paused, 0, Some(Outcome::Planned), "DryRun"),
    ];
    for (request, mode, keys, outcome, why) in cases {
        let (mut doc, _) = campaign(&[(1, keys)][..usize::from(keys > 0)]);
        doc.request = serde_json::from_value(request).unwrap();
        doc.policy_version = doc.request.policy_version.clone();
        assert_eq!(code(&begin(&doc, mode, now())), (outcome, why));
        doc.freeze = vec![freeze("2026-06-30T12:00:01Z", "2026-07-01T00:00:00Z")];
        assert_eq!(code(&begin(&doc, mode, now())), (outcome, why), "a freeze to come");
        doc.freeze.push(freeze("2026-06-30T12:00:00Z", "2026-06-30T12:00:01Z"));
        assert_eq!(code(&begin(&doc, mode, now())), (Some(Outcome::Refused), "Frozen"));
        doc.freeze.remove(0);
        doc.freeze[0].until = now();
        assert_eq!(code(&begin(&doc, mode, now())), (outcome, why), "a freeze that has just ended");
    }
}

#[test]
fn a_wave_stops_the_campaign_beyond_its_tolerance_and_not_at_it() {
    for (keys, failures, goes_on) in
        [(10, 1, true), (10, 2, false), (5, 1, false), (1, 1, false), (20, 2, true), (19, 2, false)]
    {
        let (mut doc, _) = campaign(&[(0, keys), (1, 1)]);
        while doc.waves[0].begun < doc.waves[0].batches {
            doc.begin_batch(now());
        }
        doc.waves[0].failed = failures;
        let next = go_on(&doc, Mode::Live, now());
        let wanted = if goes_on { (None, "") } else { (Some(Outcome::Stopped), "TooManyFailed") };
        assert_eq!(code(&next), wanted, "{failures} of {keys}");
    }
    // With no tolerance at all, none may fail.
    let (mut doc, _) = campaign(&[(0, 100), (1, 1)]);
    (doc.tolerance, doc.waves[0].failed) = (0, 1);
    assert_eq!(code(&go_on(&doc, Mode::Live, now())).1, "TooManyFailed");
    (doc.tolerance, doc.waves[0].failed) = (100, 100);
    assert_eq!(code(&go_on(&doc, Mode::Live, now())).0, None);
}

#[test]
fn between_two_batches_the_switch_and_the_freezes_are_looked_at() {
    let (mut doc, _) = campaign(&[(0, 1), (1, 1)]);
    doc.begin_batch(now());
    doc.note(Counted { promoted: 1, ..Counted::default() });
    assert_eq!(code(&go_on(&doc, Mode::Live, now())).0, None);
    for mode in [Mode::DryRun, Mode::Paused] {
        assert_eq!(code(&go_on(&doc, mode, now())), (Some(Outcome::Stopped), "SwitchedOff"));
    }
    let freeze = Freeze { from: now(), until: after(now(), LATE), reason: "sale".into() };
    doc.freeze = vec![freeze];
    assert_eq!(code(&go_on(&doc, Mode::Live, now())), (Some(Outcome::Stopped), "Frozen"));
    // What fails while it is switched off fails of that.
    doc.waves[0].failed = 1;
    assert_eq!(code(&go_on(&doc, Mode::Paused, now())).1, "SwitchedOff");
    (doc.waves[0].failed, doc.freeze) = (0, Vec::new());
    assert_eq!(code(&go_on(&doc, Mode::Live, after(now(), Duration::from_hours(23)))).0, None);
    assert_eq!(code(&go_on(&doc, Mode::Live, after(now(), VALID))), (Some(Outcome::Stopped), "PlanTooOld"));
    // After the last batch there is nothing left to be stopped.
    doc.begin_batch(now());
    doc.note(Counted { promoted: 1, ..Counted::default() });
    for mode in [Mode::Live, Mode::Paused] {
        assert_eq!(code(&go_on(&doc, mode, now())), (Some(Outcome::Done), "AllBegun"));
    }
}

#[test]
fn of_secrets_that_were_named_one_stops_no_other() {
    let (mut doc, _) = campaign(&[(1, 20)]);
    doc.request.secrets = vec!["app/mail".into()];
    doc.begin_batch(now());
    doc.waves[0].failed = 10;
    assert_eq!(code(&go_on(&doc, Mode::Live, now())).0, None);
    doc.begin_batch(now());
    assert_eq!(code(&go_on(&doc, Mode::Live, now())), (Some(Outcome::Stopped), "TooManyFailed"));
}

#[test]
fn an_account_that_could_not_be_read_is_no_success() {
    let (mut doc, _) = campaign(&[]);
    doc.counts.unread = 1;
    assert_eq!(code(&begin(&doc, Mode::Live, now())), (Some(Outcome::Stopped), "Unread"));
    doc.end(now(), Outcome::Done, Why::new("x", "y", "z"));
    assert!(doc.notices[0].text.contains("1 could not be read"), "{}", doc.notices[0].text);
}

#[test]
fn a_name_that_is_used_again_is_another_campaign() {
    let begin = |name: &str, started: Timestamp| Begin {
        input: json!({}),
        name: name.into(),
        execution: String::new(),
        started,
    };
    let id = |begin: Begin| Campaign::new(&begin, Request::default(), "bucket").campaign;
    assert_eq!(id(begin("quarterly", now())), id(begin("quarterly", now())));
    assert_ne!(id(begin("quarterly", now())), id(begin("quarterly", after(now(), LATE))));
    assert_eq!(id(begin(NAME, now())).to_string(), NAME);
}

#[test]
fn a_batch_is_looked_at_again_until_its_rotations_are_late() {
    let on_its_way = [State::Promoted, State::OnItsWay];
    let at = |minutes: u64| after(now(), Duration::from_mins(minutes));
    assert_eq!(look_again(now(), &[State::Promoted, failed("x")], at(0)), None);
    assert_eq!(look_again(now(), &on_its_way, now()), Some(after(now(), Duration::from_secs(30))));
    assert_eq!(look_again(now(), &on_its_way, at(40)), Some(at(50)));
    assert_eq!(look_again(now(), &on_its_way, at(110)), Some(at(120)));
    assert_eq!(look_again(now(), &on_its_way, at(120)), None);
}

#[test]
fn what_failed_or_is_late_is_counted_and_named() {
    let (doc, batches) = campaign(&[(3, 5)]);
    let states = [State::Promoted, State::OnItsWay, failed("SlotsFull"), State::not_started(), State::Left];
    let Counted { promoted, retiring, left, failed } = count(&batches[0], &states, 3);
    assert_eq!((promoted, retiring, left), (1, 0, 1));
    let named: Vec<(&str, &str)> =
        failed.iter().map(|failed| (failed.whom.as_str(), failed.code.as_str())).collect();
    assert_eq!(named, [("user-3-1", "Late"), ("user-3-2", "SlotsFull"), ("user-3-3", "NotStarted")]);
    assert!(failed.iter().all(|failed| failed.wave == 3));
    assert_eq!(failed[0].run, item(doc.campaign, "user-3-1").run);
}

#[test]
fn who_only_retires_an_old_key_is_not_counted_as_promoted() {
    let (mut doc, batches) = campaign(&[(3, 3)]);
    let mut items = batches[0].clone();
    items[0].only_retires = true;
    items[1].only_retires = true;
    let counted = count(&items, &[State::Promoted, State::Left, State::Promoted], 3);
    assert_eq!((counted.promoted, counted.retiring, counted.left), (1, 1, 1));
    // One that has not begun to is one that failed.
    let failing = count(&items, &[failed("SlotsFull"), State::OnItsWay, State::Promoted], 3);
    assert_eq!((failing.promoted, failing.retiring, failing.failed.len()), (1, 0, 2));
    doc.begin_batch(now());
    doc.note(counted);
    assert_eq!((doc.waves[0].retiring, doc.waves[0].counted(), doc.done()), (1, 3, (1, 0)));
}

#[test]
fn an_ended_rotation_counts_by_its_promotion() {
    let doc = |outcome: &str, promoted: bool| -> Rotation {
        let request = serde_json::from_value(json!({"secret": "a"})).unwrap();
        let mut doc =
            Rotation::new(RunId::random(), String::new(), now(), request, crate::policy::Policy::default());
        doc.outcome = rotation::Outcome::ALL.into_iter().find(|known| known.name() == outcome);
        doc.promoted_at = promoted.then(now);
        doc.why = Some(Why::new("Code", "A text.", ""));
        doc
    };
    for (outcome, promoted, counts) in [
        ("Completed", true, true),
        ("Contained", true, true),
        ("Held", true, true),
        ("Held", false, false),
        ("RolledBack", true, false),
        ("RolledBack", false, false),
        ("Blocked", false, false),
    ] {
        let state = State::of_ended("SUCCEEDED", Some(&doc(outcome, promoted)));
        assert_eq!(state == State::Promoted, counts, "{outcome}");
        if !counts {
            assert_eq!(state, State::Failed { code: "Code".into(), text: "A text.".into() });
        }
    }
    let mut blocked = doc("Blocked", false);
    blocked.why = Some(Why::new(IN_PROGRESS, "Another run.", ""));
    assert_eq!(State::of_ended("SUCCEEDED", Some(&blocked)), State::Left);
    for status in ["FAILED", "ABORTED", "TIMED_OUT"] {
        assert!(matches!(State::of_ended(status, None), State::Failed { code, .. } if code == status));
    }
}

#[test]
fn the_summary_names_those_that_failed_and_counts_the_rest() {
    let (mut doc, batches) = campaign(&[(0, 30), (1, 5)]);
    doc.begin_batch(now());
    let counted = count(&batches[0][..2], &[failed("SlotsFull"), State::OnItsWay], 0);
    doc.note(Counted { promoted: 7, left: 1, ..counted });
    let Next::End(outcome, why) = go_on(&Campaign { tolerance: 1, ..doc.clone() }, Mode::Live, now()) else {
        panic!("goes on")
    };
    doc.end(now(), outcome, why);
    let notice = doc.notices.last().unwrap();
    assert_eq!(notice.kind, NoticeKind::Ended);
    for part in [
        "Stopped",
        "35 keys",
        "7 were promoted",
        "2 were not, 1 were in another",
        "25 were not begun",
        "user-0-0 (SlotsFull)",
        "user-0-1 (Late)",
    ] {
        assert!(notice.text.contains(part), "{part}: {}", notice.text);
    }
    assert_eq!(doc.subject(notice), "[keywheel] Campaign Stopped: 7 keys promoted, 2 failed");
    assert_eq!(doc.detail(notice)["failed"][0]["code"], "SlotsFull");
}

#[test]
fn only_the_first_of_many_failures_are_carried_along() {
    let (mut doc, batches) = campaign(&[(0, 60)]);
    for batch in &batches {
        doc.begin_batch(now());
        let states: Vec<State> = batch.iter().map(|_| failed("x")).collect();
        doc.note(count(batch, &states, 0));
    }
    assert_eq!((doc.failed.len(), doc.done()), (crate::campaign::NAMED, (0, 60)));
    doc.end(now(), Outcome::Stopped, Why::new("x", "y", "z"));
    assert!(doc.notices[0].text.contains("and 40 more"), "{}", doc.notices[0].text);
    let size = serde_json::to_string(&doc).unwrap().len();
    assert!(size < 32 * 1024, "{size}");
}

#[test]
fn a_review_that_failed_for_good_stops_the_campaign_once() {
    let (mut doc, _) = campaign(&[(0, 1)]);
    doc.begin_batch(now());
    doc.error = Some(crate::rotation::Caught { error: "Keywheel.Refused".into(), cause: "no".into() });
    doc.conclude(now());
    assert_eq!((doc.outcome, doc.phase), (Some(Outcome::Stopped), Phase::Ended));
    doc.conclude(now());
    assert_eq!(doc.notices.len(), 1);
    assert!(doc.notices[0].text.contains("0 were not begun"), "{}", doc.notices[0].text);
}
