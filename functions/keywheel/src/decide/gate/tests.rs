use super::*;
use crate::key::KeyStatus::{self, Active, Inactive};
use crate::policy::Span;
use crate::replica::{Follows, Names};

const NEW: &str = "AKIANNNNNNNNNNNNNNNN";
const OLD: &str = "AKIAOOOOOOOOOOOOOOOO";
/// The promotion, in seconds.
const P: i64 = 1_000_000;
const HOUR: i64 = 3600;
/// Cache time and IAM's span after the promotion.
const SETTLED: i64 = P + 4500;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn version(digit: char) -> VersionId {
    digit.to_string().repeat(36).parse().unwrap()
}

struct World {
    facts: Facts,
    new: NewKey,
    old: OldKey,
    policy: Policy,
    reached: Option<i64>,
    leaked: bool,
}

fn world(now: i64, last_used: Option<i64>) -> World {
    let key = |id: &str, status: KeyStatus| KeyFacts { id: id.parse().unwrap(), status, created: None };
    World {
        facts: Facts {
            now: at(now),
            mode: Mode::Live,
            frozen: None,
            current: Some(version('1')),
            keys: vec![key(OLD, Active), key(NEW, Active)],
            rivals: Some(Vec::new()),
            replicas: Vec::new(),
            last_use: Some(LastUse { at: last_used.map(at), service: Some("s3".into()), region: None }),
        },
        new: NewKey { key: NEW.parse().unwrap(), version: Some(version('1')) },
        old: OldKey { key: OLD.parse().unwrap(), was_current: true },
        policy: Policy::default(),
        reached: None,
        leaked: false,
    }
}

impl World {
    fn decide(&self) -> Gate {
        decide(
            &self.facts,
            &Run {
                new: &self.new,
                old: &self.old,
                promoted_at: at(P),
                reached: self.reached.map(at),
                policy: &self.policy,
                leaked: self.leaked,
            },
        )
    }
    fn set(&mut self, id: &str, status: KeyStatus) {
        self.facts.keys.iter_mut().filter(|key| key.id.as_str() == id).for_each(|key| key.status = status);
    }
}

/// A moment at which a quiet key may go: settled, and a quiet window of 24 h later.
const QUIET_AT: i64 = SETTLED + 24 * HOUR;

#[test]
fn opens_on_a_key_last_used_before_its_users_had_to_change() {
    assert_eq!(world(QUIET_AT, Some(P - 5)).decide(), Gate::Open);
    assert_eq!(world(QUIET_AT, Some(SETTLED)).decide(), Gate::Open);
}

#[test]
fn stays_shut_one_second_too_early() {
    assert_eq!(
        world(QUIET_AT - 1, Some(P)).decide(),
        Gate::Wait(at(QUIET_AT), "the overlap is not over".into())
    );
}

#[test]
fn a_use_after_settling_keeps_it_shut_until_the_longest_overlap_and_then_holds() {
    let late = |now| world(now, Some(SETTLED + 1)).decide();
    assert!(matches!(late(QUIET_AT), Gate::Wait(next, _) if next == at(QUIET_AT + 4 * HOUR)));
    let end = P + 14 * 24 * HOUR;
    assert!(matches!(late(end - 10), Gate::Wait(next, _) if next == at(end)));
    let Gate::Held(why) = late(end) else { panic!("not held") };
    assert!(why.contains("s3"), "{why}");
}

#[test]
fn the_owner_may_say_deactivate_and_then_only_after_the_longest_overlap() {
    let told = |now| {
        let mut world = world(now, Some(SETTLED + 1));
        world.policy.when_still_in_use = WhenStillInUse::Deactivate;
        world.decide()
    };
    let end = P + 14 * 24 * HOUR;
    assert!(matches!(told(end - 1), Gate::Wait(..)));
    assert_eq!(told(end), Gate::Open);
}

#[test]
fn what_is_not_known_counts_as_in_use() {
    let mut unread = world(QUIET_AT, Some(P));
    unread.facts.last_use = None;
    assert!(matches!(unread.decide(), Gate::Wait(..)));
    let mut unlisted = world(QUIET_AT, Some(P));
    unlisted.facts.rivals = None;
    assert!(matches!(unlisted.decide(), Gate::Wait(..)));
    // In service, yet without a date: unknown. Never in service and without a date: unused.
    assert!(matches!(world(QUIET_AT, None).decide(), Gate::Wait(..)));
    let mut retired = world(QUIET_AT, None);
    retired.old.was_current = false;
    assert_eq!(retired.decide(), Gate::Open);
}

#[test]
fn another_secret_that_may_hold_the_key_keeps_it_unless_it_leaked() {
    let rival = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:b-AbCdEf";
    for rivals in [None, Some(vec![rival.parse().unwrap()])] {
        let mut world = world(P + 15 * 24 * HOUR, Some(P));
        world.policy.when_still_in_use = WhenStillInUse::Deactivate;
        world.facts.rivals = rivals;
        assert!(matches!(world.decide(), Gate::Held(_)), "{:?}", world.decide());
        world.leaked = true;
        assert_eq!(world.decide(), Gate::Open);
    }
}

#[test]
fn a_replica_that_lags_keeps_it_shut_for_good_unless_the_key_leaked() {
    let end = P + 14 * 24 * HOUR;
    let of = |names: Names| Replica { region: "us-west-2".into(), names, follows: Follows::InSync };
    for names in [Names::Version(version('2')), Names::Nothing, Names::Unknown("denied".into())] {
        let mut world = world(QUIET_AT, Some(P));
        world.policy.when_still_in_use = WhenStillInUse::Deactivate;
        world.facts.replicas = vec![of(Names::Version(version('1'))), of(names)];
        assert!(matches!(world.decide(), Gate::Wait(next, _) if next == at(QUIET_AT + 4 * HOUR)));
        // The owner's word is about users who do not follow the secret. These cannot.
        world.facts.now = at(end);
        let Gate::Held(why) = world.decide() else { panic!("{:?}", world.decide()) };
        assert!(why.contains("us-west-2"), "{why}");
        world.leaked = true;
        assert_eq!(world.decide(), Gate::Open);
        // Once it has followed, the question is the usual one.
        world.leaked = false;
        world.facts.replicas[1] = of(Names::Version(version('1')));
        assert_eq!(world.decide(), Gate::Open);
    }
}

#[test]
fn no_policy_and_no_leak_opens_it_while_the_new_key_does_not_work() {
    for leaked in [false, true] {
        for break_it in [
            (|world: &mut World| world.set(NEW, Inactive)) as fn(&mut World),
            |world| world.facts.keys.retain(|key| key.id.as_str() != NEW),
            |world| world.facts.mode = Mode::Paused,
            |world| world.facts.mode = Mode::DryRun,
        ] {
            let mut world = world(P + 15 * 24 * HOUR, Some(P));
            world.policy.when_still_in_use = WhenStillInUse::Deactivate;
            world.leaked = leaked;
            break_it(&mut world);
            assert!(matches!(world.decide(), Gate::Held(_)), "{:?}", world.decide());
        }
    }
}

#[test]
fn a_leaked_key_waits_for_no_user() {
    let mut world = world(P + 1, Some(P + 1));
    world.leaked = true;
    assert_eq!(world.decide(), Gate::Open);
}

#[test]
fn stands_down_where_the_secret_moved_and_finishes_where_somebody_was_faster() {
    let mut moved = world(QUIET_AT, Some(P));
    moved.facts.current = Some(version('2'));
    assert_eq!(moved.decide(), Gate::StandDown);
    moved.facts.current = None;
    assert_eq!(moved.decide(), Gate::StandDown);
    let mut off = world(P + 1, Some(P));
    off.set(OLD, Inactive);
    assert_eq!(off.decide(), Gate::AlreadyInactive);
    let mut gone = world(P + 1, Some(P));
    gone.facts.keys.retain(|key| key.id.as_str() != OLD);
    assert_eq!(gone.decide(), Gate::Gone);
}

fn frozen(until: Option<i64>) -> Frozen {
    Frozen { until: until.map(at), why: "a freeze holds".into() }
}

#[test]
fn in_a_freeze_a_quiet_key_stays_until_its_end_and_is_looked_at_every_day() {
    let in_freeze = |now, until| {
        let mut world = world(now, Some(P));
        world.facts.frozen = Some(frozen(Some(until)));
        world.decide()
    };
    let wait = |next| Gate::Wait(at(next), "a freeze holds".into());
    assert_eq!(in_freeze(QUIET_AT, QUIET_AT + 1), wait(QUIET_AT + 1));
    assert_eq!(in_freeze(QUIET_AT, QUIET_AT + 24 * HOUR), wait(QUIET_AT + 24 * HOUR));
    assert_eq!(in_freeze(QUIET_AT, QUIET_AT + 24 * HOUR + 1), wait(QUIET_AT + 24 * HOUR));
    // What would wait all the same waits for its own reason.
    let early = Gate::Wait(at(QUIET_AT), "the overlap is not over".into());
    assert_eq!(in_freeze(QUIET_AT - 1, QUIET_AT + HOUR), early);
}

#[test]
fn a_freeze_lengthens_the_longest_overlap_and_holds_nobody() {
    let end = P + 14 * 24 * HOUR;
    for (when_still_in_use, then) in [(WhenStillInUse::Deactivate, true), (WhenStillInUse::Hold, false)] {
        let mut late = world(end, Some(SETTLED + 1));
        late.policy.when_still_in_use = when_still_in_use;
        late.facts.frozen = Some(frozen(Some(end + HOUR)));
        let Gate::Wait(next, why) = late.decide() else { panic!("{:?}", late.decide()) };
        assert_eq!(next, at(end + HOUR));
        // What stands against the key besides is said with it, where it would be held.
        let said = if then { "a freeze holds" } else { "a freeze holds, and it was used at" };
        assert!(why.starts_with(said) && then == (why == said), "{why}");
        // Then the question is the usual one.
        (late.facts.now, late.facts.frozen) = (next, None);
        assert_eq!(late.decide() == Gate::Open, then);
        assert_eq!(matches!(late.decide(), Gate::Held(_)), !then);
    }
    // A quiet key goes, however long the freeze was.
    let mut quiet = world(end + 90 * 24 * HOUR, Some(P));
    quiet.facts.frozen = Some(frozen(Some(end + 90 * 24 * HOUR + 1)));
    assert!(matches!(quiet.decide(), Gate::Wait(..)));
    quiet.facts.frozen = None;
    assert_eq!(quiet.decide(), Gate::Open);
}

#[test]
fn a_freeze_without_a_known_end_keeps_the_gate_shut_whoever_says_otherwise_and_then_holds() {
    let end = P + 14 * 24 * HOUR;
    for when_still_in_use in [WhenStillInUse::Hold, WhenStillInUse::Deactivate] {
        let unknown = |now| {
            let mut world = world(now, Some(P));
            world.policy.when_still_in_use = when_still_in_use;
            world.facts.frozen = Some(frozen(None));
            world.decide()
        };
        assert_eq!(unknown(QUIET_AT), Gate::Wait(at(QUIET_AT + 4 * HOUR), "a freeze holds".into()));
        assert_eq!(unknown(end - 1), Gate::Wait(at(end), "a freeze holds".into()));
        assert_eq!(unknown(end), Gate::Held("a freeze holds".into()));
    }
}

#[test]
fn no_freeze_holds_a_leaked_key_or_keeps_a_run_from_what_is_over() {
    for until in [None, Some(QUIET_AT + HOUR)] {
        let in_freeze = |now| {
            let mut world = world(now, Some(P));
            world.facts.frozen = Some(frozen(until));
            world
        };
        let mut leaked = in_freeze(P + 1);
        leaked.leaked = true;
        assert_eq!(leaked.decide(), Gate::Open);
        // One that cannot go, as the pair in its place does not work, is looked at as soon as ever.
        leaked.set(NEW, Inactive);
        assert!(matches!(leaked.decide(), Gate::Wait(_, why) if why.contains("is not Active")));
        leaked.facts.now = at(P + 14 * 24 * HOUR);
        assert!(matches!(leaked.decide(), Gate::Held(_)));
        let mut moved = in_freeze(QUIET_AT);
        moved.facts.current = Some(version('2'));
        assert_eq!(moved.decide(), Gate::StandDown);
        let mut off = in_freeze(QUIET_AT);
        off.set(OLD, Inactive);
        assert_eq!(off.decide(), Gate::AlreadyInactive);
        let mut gone = in_freeze(QUIET_AT);
        gone.facts.keys.retain(|key| key.id.as_str() != OLD);
        assert_eq!(gone.decide(), Gate::Gone);
    }
}

#[test]
fn whoever_reads_a_replica_that_came_late_has_as_long_to_change_over_as_all_had() {
    let late = 30 * HOUR;
    let world = |now, last_used, late: i64| World { reached: Some(P + late), ..world(now, Some(last_used)) };
    assert_eq!(world(QUIET_AT + late, P, late).decide(), Gate::Open);
    assert!(
        matches!(world(QUIET_AT + late - 1, P, late).decide(), Gate::Wait(next, _) if next == at(QUIET_AT + late))
    );
    // Its use before that is no use by those who should have changed over; one after it is.
    assert_eq!(world(QUIET_AT + late, SETTLED + late, late).decide(), Gate::Open);
    assert!(matches!(world(QUIET_AT + late, SETTLED + late + 1, late).decide(), Gate::Wait(..)));
    // It came as the longest overlap ended: there is one look more.
    let late = 14 * 24 * HOUR;
    assert!(matches!(world(P + late, P, late).decide(), Gate::Wait(next, _) if next == at(QUIET_AT + late)));
    assert!(matches!(world(QUIET_AT + late, SETTLED + late + 1, late).decide(), Gate::Held(_)));
}

#[test]
fn a_longest_overlap_shorter_than_the_first_useful_look_still_looks_once() {
    let policy = Policy { overlap: Span::hours(1), max_overlap: Span::hours(1), ..Policy::default() };
    let (earliest, last) = window(at(P), &policy);
    assert_eq!((earliest, last), (at(QUIET_AT), at(QUIET_AT)));
}

#[test]
fn no_gate_is_looked_at_more_often_than_a_history_can_hold() {
    const EVENTS_A_LOOK: i64 = 14;
    for (leaked, quiet_window) in [(false, Span::seconds(10)), (true, Span::hours(24))] {
        let mut world = world(P, Some(P + 13 * 24 * HOUR));
        world.policy.quiet_window = quiet_window;
        world.leaked = leaked;
        // Nothing opens the gate: the new key does not work.
        world.set(NEW, Inactive);
        let mut looks = 0;
        while let Gate::Wait(next, _) = world.decide() {
            assert!(next > world.facts.now, "leaked: {leaked}, the same look again and again");
            world.facts.now = next;
            looks += 1;
        }
        assert!(looks * EVENTS_A_LOOK < 25_000, "leaked: {leaked}, {looks} looks");
    }
}

#[test]
fn a_freeze_of_a_year_fits_into_a_history_beside_the_looks_that_come_before_it() {
    let year = P + 365 * 24 * HOUR;
    let (mut looks, mut world) = (0, world(P + 14 * 24 * HOUR, Some(P)));
    while world.facts.now < at(year) {
        world.facts.frozen = Some(frozen(Some(year)));
        let Gate::Wait(next, _) = world.decide() else { panic!("{:?}", world.decide()) };
        assert!(next > world.facts.now);
        (world.facts.now, looks) = (next, looks + 1);
    }
    assert!((500 + looks) * 14 < 25_000, "{looks} looks");
}

#[test]
fn a_gate_that_stays_shut_is_looked_at_after_half_a_quiet_window_and_a_leaked_one_sooner() {
    let mut rehearsal = world(P + 60, Some(P + 50));
    rehearsal.policy = Policy {
        overlap: Span::seconds(10),
        quiet_window: Span::seconds(20),
        max_overlap: Span::seconds(1000),
        ..Policy::default()
    };
    assert!(matches!(rehearsal.decide(), Gate::Wait(next, _) if next == at(P + 70)));
    // A third of a five-hundredth of the time from the first look to the last.
    let mut leaked = world(P + 1, Some(P));
    leaked.leaked = true;
    leaked.set(NEW, Inactive);
    let looks = after(at(P + 1), Duration::from_millis(745_800));
    assert!(matches!(leaked.decide(), Gate::Wait(next, _) if next == looks));
}
