use jiff::SignedDuration;
use serde_json::json;

use super::*;
use crate::campaign::{Begin, Request};

fn now() -> Timestamp {
    "2026-06-30T06:00:00Z".parse().unwrap()
}

fn days(days: i64) -> Timestamp {
    now() + SignedDuration::from_hours(24 * days)
}

/// A campaign and its execution.
fn campaign(name: &str) -> (RunId, String) {
    (RunId::standing_for(name), format!("execution-{name}"))
}

/// A calendar in which these users' keys are due soon, in so many days, and everything could be read.
fn calendar(users: &[(&str, i64)]) -> Calendar {
    let soon = |(user, due): &(&str, i64)| Soon {
        user: (*user).to_owned(),
        account: "111122223333".into(),
        secret: format!("arn:aws:secretsmanager:eu-west-1:111122223333:secret:{user}").parse().unwrap(),
        owner: None,
        age_days: 83,
        due: days(*due),
    };
    Calendar {
        due: users.iter().map(|(user, due)| ((*user).to_owned(), Some(days(*due)))).collect(),
        soon: users.iter().map(soon).collect(),
        complete: true,
        ..Calendar::default()
    }
}

/// Who is told, by which campaign's notices.
type Told = Vec<(RunId, String)>;

/// What a campaign remembers and tells, where the executions before it have become of this.
fn told(before: &Warnings, carriers: &[(&str, Carrier)], calendar: &Calendar, by: &str) -> (Warnings, Told) {
    let (campaign, execution) = campaign(by);
    let carriers = carriers.iter().map(|(name, carrier)| (self::campaign(name).1, carrier.clone())).collect();
    let (after, telling) = tell(before, &carriers, calendar, (campaign, execution.as_str()), now());
    (after, telling.into_iter().map(|(by, soon)| (by, soon.user.clone())).collect())
}

/// So many users under the notices of one campaign.
fn by(name: &str, users: &[&str]) -> Told {
    users.iter().map(|user| (campaign(name).0, (*user).to_owned())).collect()
}

fn has_told(campaigns: &[&str]) -> Carrier {
    Carrier::Ended(campaigns.iter().map(|name| campaign(name).0).collect())
}

fn carried(warnings: &Warnings) -> Vec<(RunId, &str)> {
    let mut all: Vec<(RunId, &str)> =
        warnings.carried.iter().map(|(campaign, by)| (*campaign, by.as_str())).collect();
    all.sort_by_key(|(_, by)| *by);
    all
}

#[test]
fn an_owner_is_told_once_for_a_date_and_again_for_the_next() {
    let (first, now_told) = told(&Warnings::default(), &[], &calendar(&[("a", 3), ("b", 5)]), "first");
    assert_eq!(now_told, by("first", &["a", "b"]));
    assert_eq!(first.users["a"], Warned { due: days(3), warned: now(), by: campaign("first").0 });
    assert_eq!(carried(&first), [(campaign("first").0, "execution-first")]);
    // The next day one more is due soon.
    let next = calendar(&[("a", 3), ("b", 5), ("c", 7)]);
    let (second, now_told) = told(&first, &[("first", has_told(&["first"]))], &next, "second");
    assert_eq!(now_told, by("second", &["c"]));
    assert_eq!(carried(&second), [(campaign("second").0, "execution-second")]);
    let (third, now_told) = told(&second, &[("second", has_told(&["second"]))], &next, "third");
    assert_eq!((now_told.len(), third.users.len()), (0, 3));
    // Its next key is warned of in its turn.
    let (fourth, now_told) = told(&third, &[], &calendar(&[("a", 93)]), "fourth");
    assert_eq!(now_told, by("fourth", &["a"]));
    assert_eq!(fourth.users.len(), 1);
    assert_eq!(fourth.users["a"].due, days(93));
}

#[test]
fn a_step_that_runs_again_tells_the_same_and_nobody_else() {
    let (first, _) = told(&Warnings::default(), &[], &calendar(&[("a", 3)]), "first");
    let more = calendar(&[("a", 3), ("b", 7)]);
    let (again, now_told) = told(&first, &[], &more, "first");
    assert_eq!((again, now_told), (first.clone(), by("first", &["a"])));
    // So it is where the first attempt had nobody to warn.
    let (none, _) = told(&Warnings::default(), &[], &calendar(&[]), "first");
    assert_eq!(carried(&none).len(), 1);
    let (again, now_told) = told(&none, &[], &more, "first");
    assert_eq!((again, now_told.len()), (none, 0));
    // The other one is told by the next campaign.
    let (_, now_told) = told(&first, &[("first", has_told(&["first"]))], &more, "second");
    assert_eq!(now_told, by("second", &["b"]));
}

#[test]
fn what_a_campaign_could_not_tell_is_told_by_the_next_under_the_same_id() {
    let all = calendar(&[("a", 3), ("b", 5)]);
    let (first, _) = told(&Warnings::default(), &[], &calendar(&[("a", 3)]), "first");
    // Stopped, failed, or ended with another document than the one that carried them.
    for lost in [has_told(&[]), has_told(&["other"])] {
        let (second, now_told) = told(&first, &[("first", lost.clone())], &all, "second");
        assert_eq!(now_told, [by("first", &["a"]), by("second", &["b"])].concat());
        assert_eq!(second.users["a"], first.users["a"]);
        let both = [(campaign("first").0, "execution-second"), (campaign("second").0, "execution-second")];
        assert_eq!(second.carried, both.map(|(id, by)| (id, by.to_owned())).into());
        // Its own step runs again.
        let (again, now_again) = told(&second, &[], &all, "second");
        assert_eq!((&again, now_again), (&second, now_told.clone()));
        // It fares no better, and the third one tells both; or it has told one of them.
        let (third, now_told_again) = told(&second, &[("second", lost)], &all, "third");
        assert_eq!(now_told_again, now_told);
        assert!(third.carried.values().all(|by| by == "execution-third"));
        let (_, now_told) = told(&second, &[("second", has_told(&["first"]))], &all, "third");
        assert_eq!(now_told, by("second", &["b"]));
    }
}

#[test]
fn while_it_may_still_be_told_or_nobody_knows_it_is_left_alone_and_asked_again() {
    let all = calendar(&[("a", 3)]);
    let (first, _) = told(&Warnings::default(), &[], &all, "first");
    for unknown in [&[("first", Carrier::Open)][..], &[]] {
        let (second, now_told) = told(&first, unknown, &all, "second");
        assert!(now_told.is_empty(), "{now_told:?}");
        let asked = carriers(&second, "execution-second");
        assert_eq!(asked, BTreeSet::from(["execution-first"]));
    }
}

#[test]
fn executions_are_asked_once_and_only_where_somebody_hangs_on_them() {
    let (first, _) = told(&Warnings::default(), &[], &calendar(&[("a", 3)]), "first");
    assert_eq!(carriers(&first, "execution-second"), BTreeSet::from(["execution-first"]));
    assert_eq!(carriers(&first, "execution-first"), BTreeSet::new());
    let (none, _) = told(&Warnings::default(), &[], &calendar(&[]), "first");
    assert_eq!(carriers(&none, "execution-second"), BTreeSet::new());
    // And are forgotten then.
    let (second, _) = told(&none, &[], &calendar(&[("a", 3)]), "second");
    assert_eq!(carried(&second), [(campaign("second").0, "execution-second")]);
}

#[test]
fn users_that_are_gone_or_rotated_are_forgotten_and_unknown_ones_are_not() {
    let (first, _) = told(&Warnings::default(), &[], &calendar(&[("a", 3), ("b", 3)]), "first");
    let left = |calendar: &Calendar| {
        let (after, _) = told(&first, &[("first", has_told(&["first"]))], calendar, "second");
        after.users.into_keys().collect::<Vec<_>>()
    };
    let with = |due: Option<Timestamp>| Calendar {
        due: [("b".to_owned(), due)].into(),
        complete: true,
        ..Calendar::default()
    };
    // `a` is gone.
    assert_eq!(left(&with(Some(days(3)))), ["b"]);
    assert_eq!(left(&with(None)), ["b"]);
    assert_eq!(left(&with(Some(days(93)))), [""; 0]);
    // A region is dark, and `a` may be there.
    let dark = |due| Calendar { complete: false, ..with(due) };
    assert_eq!(left(&dark(Some(days(3)))), ["a", "b"]);
    assert_eq!(left(&dark(Some(days(93)))), ["a"]);
}

#[test]
fn only_an_output_that_says_so_proves_that_warnings_were_told() {
    let begin = Begin { input: json!({}), name: "x".into(), execution: "e".into(), started: now() };
    let mut doc = Campaign::new(&begin, Request::default(), "bucket");
    doc.carries = vec![campaign("first").0];
    assert_eq!(Carrier::ended(None), has_told(&[]));
    for (delivery, proof) in [
        (Delivery::Done, has_told(&["first"])),
        (Delivery::GaveUp, has_told(&[])),
        (Delivery::Pending, has_told(&[])),
    ] {
        doc.delivery = delivery;
        assert_eq!(Carrier::ended(Some(doc.clone())), proof, "{delivery:?}");
    }
}

#[test]
fn what_holds_keys_up_is_said_with_the_warning() {
    let freeze = Freeze { from: days(-1), until: days(1), reason: "year end ".repeat(100) };
    assert_eq!(held(Mode::Live, None), None);
    let text = held(Mode::Live, Some(&freeze)).unwrap();
    assert!(text.starts_with("Nothing is rotated until 2026-07-01T06:00:00Z (year end year"), "{text}");
    assert!(text.len() < 300, "{text}");
    for (mode, word) in [(Mode::DryRun, "is dry-run:"), (Mode::Paused, "is paused:")] {
        assert!(held(mode, Some(&freeze)).unwrap().contains(word), "{mode}");
    }
}
