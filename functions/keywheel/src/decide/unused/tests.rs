use super::*;
use crate::ids::RunId;
use crate::incident::RecordState;
use crate::key::KeyStatus;
use crate::policy::Span;

const KEY: &str = "AKIAOOOOOOOOOOOOOOOO";
const DAY: i64 = 24 * 60 * 60;
/// When the key was made, and used last, in seconds.
const MADE: i64 = 1_000_000;
const USED: i64 = MADE + 10 * DAY;
/// How long it may go unused, and its grace, in days.
const AFTER: u64 = 120;
const GRACE: i64 = 30 * DAY;
/// When it may go, and when its grace is over.
const DUE: i64 = USED + 120 * DAY;
const OVER: i64 = DUE + GRACE;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn key() -> AccessKeyId {
    KEY.parse().unwrap()
}

fn keys(status: KeyStatus) -> Vec<KeyFacts> {
    vec![KeyFacts { id: key(), status, created: Some(at(MADE)) }]
}

fn facts(now: i64, status: KeyStatus) -> Facts {
    Facts {
        now: at(now),
        mode: Mode::Live,
        frozen: None,
        user: Some(Owner { id: "AIDA".into(), allows: true, spared: Vec::new() }),
        keys: keys(status),
        used: Used::At(at(USED)),
        held: Some(vec!["AKIACCCCCCCCCCCCCCCC".parse().unwrap()]),
        leaked: None,
    }
}

fn active(now: i64) -> Facts {
    facts(now, KeyStatus::Active)
}

fn inactive(now: i64) -> Facts {
    facts(now, KeyStatus::Inactive)
}

fn with(facts: Facts, change: impl FnOnce(&mut Facts)) -> Facts {
    let mut facts = facts;
    change(&mut facts);
    facts
}

fn removal() -> Removal {
    Removal { disable_after: Span::days(AFTER), delete_after: Some(Span::days(30)) }
}

fn disable(facts: &Facts) -> Disable {
    super::disable(facts, &Run { key: &key(), user_id: "AIDA", unused: removal() })
}

fn delete(facts: &Facts) -> Delete {
    super::delete(facts, &Run { key: &key(), user_id: "AIDA", unused: removal() }, at(OVER), at(USED))
}

fn left(facts: &Facts) -> (&'static str, String) {
    match disable(facts) {
        Disable::Leave(stay) => (stay.code, stay.text),
        other => panic!("{other:?}"),
    }
}

fn kept(facts: &Facts) -> (&'static str, String) {
    match delete(facts) {
        Delete::Keep(stay) => (stay.code, stay.text),
        other => panic!("{other:?}"),
    }
}

fn waits(facts: &Facts) -> (i64, String) {
    match delete(facts) {
        Delete::Wait(until, why) => (until.as_second(), why),
        other => panic!("{other:?}"),
    }
}

fn record() -> Record {
    Record {
        schema: 1,
        key: key(),
        user: "svc-old".parse().unwrap(),
        account: None,
        incident: RunId::standing_for("incident"),
        at: at(MADE),
        state: RecordState::Contained,
        until: None,
        note: None,
    }
}

/// What stands for a key in either step: the change, and its code.
type Standing = (fn(&mut Facts), &'static str);

const STANDING: [Standing; 4] = [
    (|facts| facts.leaked = Some(record()), "Leaked"),
    (|facts| facts.held = Some(vec![key()]), "InSecret"),
    (|facts| facts.user.as_mut().unwrap().spared.push(key()), "Spared"),
    (|facts| facts.user.as_mut().unwrap().allows = false, "NotAllowed"),
];

#[test]
fn a_key_goes_at_the_very_second_and_not_a_day_earlier() {
    assert_eq!(disable(&active(DUE)), Disable::Yes(at(USED)));
    for early in [DUE - 1, DUE - DAY] {
        let (code, text) = left(&active(early));
        assert_eq!(code, "InUse", "{text}");
        assert!(text.contains("120days have not passed"), "{text}");
    }
    // One that was never used counts from the day on which it was made, as does one that has a use from before.
    let never = |now| with(active(now), |facts| facts.used = Used::Never);
    assert_eq!(disable(&never(MADE + 120 * DAY)), Disable::Yes(at(MADE)));
    assert_eq!(left(&never(MADE + 120 * DAY - 1)).0, "InUse");
    let odd = |now| with(active(now), |facts| facts.used = Used::At(at(MADE - DAY)));
    assert_eq!(disable(&odd(MADE + 120 * DAY)), Disable::Yes(at(MADE)));
    assert_eq!(left(&odd(MADE + 120 * DAY - 1)).0, "InUse");
}

#[test]
fn what_is_not_known_counts_as_in_use() {
    let late = || active(DUE + 400 * DAY);
    assert_eq!(left(&with(late(), |facts| facts.used = Used::Unknown)).0, "UseUnknown");
    assert_eq!(left(&with(late(), |facts| facts.held = None)).0, "SecretsUnknown");
    for used in [Used::Never, Used::At(at(USED))] {
        let undated = with(late(), |facts| {
            facts.keys[0].created = None;
            facts.used = used;
        });
        assert_eq!(left(&undated).0, "AgeUnknown");
    }
}

#[test]
fn what_stands_for_a_key_keeps_it_active_and_in_its_grace() {
    for (change, code) in STANDING {
        assert_eq!(left(&with(active(DUE), change)).0, code);
        assert_eq!(kept(&with(inactive(OVER), change)).0, code);
        // On the first day already.
        assert_eq!(kept(&with(inactive(DUE + DAY), change)).0, code);
    }
    let untagged = |facts: Facts| with(facts, |facts| facts.user.as_mut().unwrap().allows = false);
    let tag = "if its user carried the tag keywheel:unused = remove";
    assert_eq!(left(&untagged(active(DUE))).1, format!("it would be made Inactive {tag}"));
    assert_eq!(kept(&untagged(inactive(OVER))).1, format!("it would be deleted {tag}"));
}

#[test]
fn who_is_gone_or_another_is_left_alone() {
    assert_eq!(left(&with(active(DUE), |facts| facts.user = None)).0, "UserGone");
    assert_eq!(left(&with(active(DUE), |facts| facts.keys.clear())).0, "KeyGone");
    let another = |facts: Facts| with(facts, |facts| facts.user.as_mut().unwrap().id = "AIDB".into());
    assert_eq!(left(&another(active(DUE))).0, "AnotherUser");
    assert_eq!(kept(&another(inactive(OVER))).0, "AnotherUser");
    assert_eq!(delete(&with(inactive(OVER), |facts| facts.keys.clear())), Delete::Gone);
}

#[test]
fn an_inactive_key_is_found_to_be_so_whatever_else_holds() {
    assert_eq!(disable(&inactive(DUE)), Disable::Inactive);
    for (change, _) in STANDING {
        assert_eq!(disable(&with(inactive(DUE), change)), Disable::Inactive);
    }
    assert_eq!(disable(&with(inactive(0), |facts| facts.used = Used::Unknown)), Disable::Inactive);
}

#[test]
fn nothing_is_made_inactive_unless_the_installation_is_live_and_nothing_is_frozen() {
    for mode in [Mode::DryRun, Mode::Paused] {
        let (code, text) = left(&with(active(DUE), |facts| facts.mode = mode));
        assert_eq!(
            (code, text),
            ("NotNow", format!("the installation is {mode}; else it would be made Inactive"))
        );
    }
    for until in [None, Some(at(DUE + DAY))] {
        let frozen = Frozen { until, why: "a freeze holds".into() };
        let (code, text) = left(&with(active(DUE), |facts| facts.frozen = Some(frozen)));
        assert_eq!((code, text.as_str()), ("NotNow", "a freeze holds; else it would be made Inactive"));
    }
}

#[test]
fn only_an_inactive_key_past_its_grace_and_unused_since_is_deleted() {
    assert_eq!(delete(&inactive(OVER)), Delete::Yes);
    assert_eq!(delete(&with(inactive(OVER), |facts| facts.used = Used::Never)), Delete::Yes);
    assert_eq!(kept(&facts(OVER, KeyStatus::Active)).0, "Reactivated");
    assert_eq!(kept(&facts(DUE + DAY, KeyStatus::Active)).0, "Reactivated");
    for now in [DUE + DAY, OVER, OVER + DAY] {
        let used = with(inactive(now), |facts| facts.used = Used::At(at(USED + 1)));
        let (code, text) = kept(&used);
        assert_eq!(code, "Used");
        assert!(text.contains("after all"), "{text}");
    }
}

#[test]
fn a_grace_is_looked_at_daily_until_its_end() {
    assert_eq!(waits(&inactive(DUE)), (DUE + DAY, "the grace is not over".into()));
    assert_eq!(waits(&inactive(OVER - DAY / 2)), (OVER, "the grace is not over".into()));
    assert_eq!(waits(&inactive(OVER - 1)).0, OVER);
}

#[test]
fn what_cannot_be_read_is_asked_for_again_for_a_day_and_then_the_key_is_kept() {
    type Change = fn(&mut Facts);
    let unread: [(Change, &str); 2] = [
        (|facts| facts.used = Used::Unknown, "its last use could not be read"),
        (|facts| facts.held = None, "whether a secret holds it could not be read"),
    ];
    for (change, why) in unread {
        assert_eq!(waits(&with(inactive(DUE), change)), (DUE + DAY, why.into()));
        assert_eq!(waits(&with(inactive(OVER), change)), (OVER + 3600, why.into()));
        assert_eq!(waits(&with(inactive(OVER + DAY - 1), change)).0, OVER + DAY + 3599);
        assert_eq!(kept(&with(inactive(OVER + DAY), change)), ("Unknown", format!("{why} for a day")));
    }
}

#[test]
fn a_freeze_and_a_pause_last_longer_than_the_grace() {
    let frozen = |now: i64, until: Option<i64>| {
        let frozen = Frozen { until: until.map(at), why: "a freeze holds".into() };
        with(inactive(now), |facts| facts.frozen = Some(frozen))
    };
    assert_eq!(waits(&frozen(OVER, Some(OVER + 10))), (OVER + 10, "a freeze holds".into()));
    assert_eq!(waits(&frozen(OVER, Some(OVER + 9 * DAY))).0, OVER + DAY);
    // However long it holds, where its end is known.
    assert_eq!(waits(&frozen(OVER + 200 * DAY, Some(OVER + 300 * DAY))).0, OVER + 201 * DAY);
    // A freeze whose end nobody knows is a pause.
    let endless = |facts: &mut Facts| {
        facts.frozen = Some(Frozen { until: None, why: "the installation is paused".into() });
    };
    let changes: [fn(&mut Facts); 2] = [|facts| facts.mode = Mode::Paused, endless];
    for change in changes {
        let held = |now| with(inactive(now), change);
        assert_eq!(waits(&held(OVER)), (OVER + 3600, "the installation is paused".into()));
        assert_eq!(waits(&held(OVER + 2 * DAY)).0, OVER + 2 * DAY + 2 * 3600);
        assert_eq!(waits(&held(OVER + 60 * DAY)).0, OVER + 61 * DAY);
        assert_eq!(waits(&held(OVER + 90 * DAY - 1)).0, OVER + 91 * DAY - 1);
        let (code, text) = kept(&held(OVER + 90 * DAY));
        assert_eq!((code, text.as_str()), ("Paused", "the installation is paused, for a long time"));
    }
}
