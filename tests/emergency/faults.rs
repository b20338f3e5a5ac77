//! Every call of an alarm fails in every way, one after the other, and the leaked key still ends Inactive.
//!
//! The calls are counted, not named: a new one is covered the day it is written. One that fails for good does so
//! for six hours: then somebody has mended it. Meanwhile a key that is still Active was told of. Two calls fail as
//! well: of the many pairs some hundred on every change.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::Duration;

use keywheel::RunId;
use keywheel::incident::Way;
use keywheel::notice::NoticeKind;
use keywheel::rotation::Outcome;
use serde_json::json;
use support::alarm::{Alarm, Ended, finding, report};
use support::fake::{Call, Maker};
use support::faults::{Fault, Kind, Plan};
use support::figures::{everything, hand_over, say};
use support::world::{USER, World, hours, paused, request};

use crate::{minutes, on_topic};

/// What is disturbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scene {
    /// The managed user's current key leaks.
    Current,
    /// A thief mints another key in the gap, and makes the leaked one Active.
    Gap,
    /// The user's inline policies are full.
    Full,
    /// The key is another account's.
    Member,
    /// The current key leaks in the overlap of its rotation, so that the superseded one is brought back.
    Back,
    /// The policy gives people ten minutes.
    Delayed,
    /// The policy lets the replacement come first.
    ReplaceFirst,
    /// A sender of ours reports the key over the bus.
    Reported,
    /// A session of the user leaks, and nobody names the key that minted it.
    Session,
}

/// The account that lets the hub in.
const MEMBER: &str = "444455556666";
/// The session that leaks.
const SESSION: &str = "ASIAUSERSSESSION0000";

/// Mends what goes on failing, six hours after it first failed.
async fn mend(world: &World) -> ! {
    let mut since = Duration::ZERO;
    loop {
        tokio::time::sleep(minutes(10)).await;
        let lasts = world.fake.state().plan.lasts();
        since += if lasts { minutes(10) } else { Duration::ZERO };
        if since >= hours(6) {
            world.fake.state().plan = Plan::default();
            since = Duration::ZERO;
        }
    }
}

/// Says which case it was, where a promise breaks inside.
struct Case<'a>(&'a str);

impl Drop for Case<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            say(&format!("in the case of {}", self.0));
        }
    }
}

/// Plays the scene with these faults; how many calls were hit.
async fn play(scene: Scene, faults: Vec<Fault>, case: &str) -> usize {
    let named = format!("{scene:?}, {case}");
    let _case = Case(&named);
    // There it is not the key that is current now which leaks.
    let other = matches!(scene, Scene::Back | Scene::Session);
    let world = if other { World::new() } else { World::leaked() };
    world.containment("on");
    world.consumer();
    if scene != Scene::Back {
        return disturbed(&world, scene, faults, case).await;
    }
    let work = async {
        tokio::time::sleep(hours(2)).await;
        disturbed(&world, scene, faults, case).await
    };
    world.beside(RunId::random(), request(), work).await
}

/// What is left of the scene once the world is as it should be: the leak, with the faults.
async fn disturbed(world: &World, scene: Scene, faults: Vec<Fault>, case: &str) -> usize {
    let key = match scene {
        Scene::Member => world.member(MEMBER, USER),
        Scene::Session => SESSION.to_owned(),
        _ => world.current_key(),
    };
    world.leak(&key);
    match scene {
        Scene::Full => world.fake.state().fill_inline(USER, 100),
        Scene::Delayed => world.emergency_policy(&json!({"rules": [{"then": {"after": 10}}]})),
        Scene::ReplaceFirst => world.emergency_policy(&json!({"rules": [{"then": {"replace_first": 2}}]})),
        _ => {}
    }
    world.fake.state().plan = Plan::new(faults);
    let issued = world.fake.state().now();
    let thief = async {
        if scene == Scene::Gap {
            tokio::time::sleep(Duration::from_secs(2)).await;
            world.fake.state().add_key(USER, Maker::Stranger);
            world.switch_key(&key, true);
        }
        tokio::time::sleep(minutes(30)).await;
        let told = on_topic(world, NoticeKind::NotContained) > 0 || scene == Scene::Gap || shut(world);
        assert!(!world.is_active(&key) || told, "{case}: Active for half an hour, and nobody was told");
        let told = told || on_topic(world, NoticeKind::SessionsNotDenied) > 0;
        let denied = scene != Scene::Session || world.fake.state().denies_session(USER, issued);
        assert!(denied || told, "{case}: the session does all for half an hour, and nobody was told");
    };
    let event = match scene {
        Scene::Reported => report([key.as_str()]),
        _ => finding(&key, USER),
    };
    let alarm = async { tokio::join!(world.alarm(event), thief) };
    let (alarm, ()) = tokio::select! {
        biased;
        done = alarm => done,
        never = mend(world) => never,
    };
    let hit: Vec<Call> =
        world.fake.state().calls.iter().filter(|call| call.fault.is_some()).cloned().collect();
    let first: Vec<_> = hit.iter().take(2).map(|call| (&call.name, &call.function)).collect();
    let case = format!("{scene:?}, {case}, {first:?}");
    ends_well(world, &key, &alarm, &case);
    assert!(!hit.is_empty() || goes_its_way(scene, &alarm), "{case}: {:?}", alarm.incident().doc);
    hit.len()
}

/// Whether an alarm that nothing has disturbed is about what its scene is about.
fn goes_its_way(scene: Scene, alarm: &Alarm) -> bool {
    let incident = alarm.incident();
    match scene {
        Scene::Current | Scene::Gap | Scene::Full | Scene::Member => true,
        Scene::Back => incident.doc.replacement.as_ref().is_some_and(|found| found.way == Way::Back),
        Scene::Delayed | Scene::ReplaceFirst => incident.told(NoticeKind::Delayed),
        Scene::Reported => incident.doc.reported,
        Scene::Session => incident.why() == "SessionDenied",
    }
}

/// Whether the other account has refused, again and again, to let us in: then people are told, and that is all.
fn shut(world: &World) -> bool {
    let state = world.fake.state();
    let refused = |call: &&Call| call.name == "sts:AssumeRole" && call.fault == Some(Kind::Refused);
    state.calls.iter().filter(refused).count() >= 3
}

/// An alarm about a key of another account: contained and denied there, and nothing left of it.
fn ends_well_in_a_member(world: &World, key: &str, alarm: &Alarm, case: &str) {
    let ended = |incident: &Ended| incident.doc.outcome;
    if shut(world) && alarm.incidents.iter().all(|incident| ended(incident) == Some(Outcome::Blocked)) {
        assert!(on_topic(world, NoticeKind::Ended) > 0, "{case}");
    } else {
        assert!(!world.is_active(key), "{case}: {:?}", alarm.walk.states());
        assert!(alarm.incidents.iter().all(|incident| ended(incident) == Some(Outcome::Contained)), "{case}");
    }
    assert_eq!(world.policies(&format!("{MEMBER}/{USER}")), Vec::<String>::new(), "{case}");
    // The user of the same name here.
    assert!(world.is_active(&world.current_key()), "{case}");
    assert_eq!(world.policies(USER), Vec::<String>::new(), "{case}");
    world.assert_promises();
}

/// An alarm about a session: it is denied until it has ended, and no key is touched for it.
fn ends_well_of_a_session(world: &World, alarm: &Alarm, case: &str) {
    // Where not even the incident could be started, nobody denies anything; people were told so.
    assert!(!alarm.incidents.is_empty() || on_topic(world, NoticeKind::SessionsNotDenied) > 0, "{case}");
    for incident in &alarm.incidents {
        assert_eq!(incident.doc.outcome, Some(Outcome::Contained), "{case}: {:?}", incident.walk.states());
    }
    assert!(world.is_active(&world.current_key()) && alarm.rotations.is_empty(), "{case}");
    assert_eq!(world.policies(USER), Vec::<String>::new(), "{case}");
    world.assert_promises();
}

/// Whether a report was held because it was not known, again and again, how many there were: then people are told.
fn held(world: &World, alarm: &Alarm) -> bool {
    let state = world.fake.state();
    let uncounted = |call: &&Call| {
        let counts = call.name == "states:ListExecutions" && call.function.as_deref() == Some("contain");
        counts && call.fault.is_some()
    };
    state.calls.iter().filter(uncounted).count() >= 3
        && alarm.incidents.iter().any(|incident| incident.why() == "Braked")
}

fn ends_well(world: &World, key: &str, alarm: &Alarm, case: &str) {
    if case.starts_with("Member") {
        return ends_well_in_a_member(world, key, alarm, case);
    }
    if case.starts_with("Session") {
        return ends_well_of_a_session(world, alarm, case);
    }
    if case.starts_with("Reported") && held(world, alarm) {
        assert!(on_topic(world, NoticeKind::Ended) > 0 && world.is_active(key), "{case}");
        assert_eq!(world.policies(USER), Vec::<String>::new(), "{case}");
        return world.assert_promises();
    }
    if alarm.incidents.is_empty() && case.starts_with("Gap") {
        // Where not even the incident could be started, nobody looks again; people were told so.
        assert!(on_topic(world, NoticeKind::Contained) > 0, "{case}");
        return;
    }
    assert!(!world.is_active(key), "{case}: {:?}", alarm.walk.states());
    for incident in &alarm.incidents {
        let states = || incident.walk.states().join(" ");
        assert_eq!(incident.doc.outcome, Some(Outcome::Contained), "{case}: {}", states());
    }
    let told_minted = on_topic(world, NoticeKind::KeyMinted) > 0 && case.contains("lasting: true");
    let state = world.fake.state();
    let minted = state.users[USER].keys.iter().filter(|key| key.maker == Maker::Stranger);
    // Whether it is one of ours was not known for hours: then it is for people.
    assert!(told_minted || minted.into_iter().all(|key| !key.is_active()), "{case}: a minted key is Active");
    assert!(!state.denies_keys(USER), "{case}: the user is denied everything");
    assert!(
        !state.users[USER].inline.keys().any(|name| name.starts_with("keywheel-"))
            || alarm.incidents.is_empty(),
        "{case}: {:?}",
        state.users[USER].inline.keys()
    );
    drop(state);
    if world.current_key() == *key {
        // A failure that passes keeps nobody waiting. A refusal, one that lasts, or a slot that the thief holds is told.
        let needs_people = ["lasting: true", "Refused", "Gap"].iter().any(|word| case.contains(word));
        assert!(needs_people, "{case}: not replaced");
        let said = alarm.incidents.iter().any(|incident| {
            incident.told(NoticeKind::Replacement) || incident.text().contains("On the way failed")
        });
        let by_run = alarm.rotations.iter().any(|run| run.outcome().is_some() || run.walk.status == "FAILED");
        assert!(said || by_run || alarm.incidents.is_empty(), "{case}: not replaced, and nobody was told");
    }
    world.assert_promises();
}

async fn every_call(scene: Scene, kind: Kind, lasting: bool) {
    // A session has no key to be replaced.
    let least = if scene == Scene::Session { 20 } else { 30 };
    for number in 0.. {
        let fault = Fault::at(number, kind);
        let fault = if lasting { fault.for_good() } else { fault };
        let case = format!("call {number}, {kind:?}, lasting: {lasting}");
        if play(scene, vec![fault], &case).await == 0 {
            assert!(number > least, "an alarm makes more calls than {number}");
            return;
        }
        assert!(number < 250, "the alarm does not end");
    }
}

/// How many pairs of calls are tried on every change, spread evenly over all of them.
const PAIRS: usize = 400;
/// In how many pairs of ways each of all pairs fails, where everything is asked for.
const WAYS: usize = 4;

/// Two calls fail: some hundred pairs, each in one pair of ways; every pair in several, where everything is asked for.
#[test]
fn every_pair_of_failed_calls_of_an_alarm_ends_well() {
    let calls = paused(async {
        let world = World::leaked();
        world.consumer();
        world.alarm(finding(&world.current_key(), USER)).await;
        world.fake.state().calls.len()
    });
    // An alarm that meets the first fault makes some calls more.
    let all: Vec<(usize, usize)> =
        (0..calls).flat_map(|first| (first + 1..calls + 12).map(move |second| (first, second))).collect();
    let (every, ways) = if everything() { (1, WAYS) } else { (all.len().div_ceil(PAIRS), 1) };
    let (next, told) = (Mutex::new(all.into_iter().step_by(every)), Mutex::new((0_usize, Vec::new())));
    let threads = if everything() { std::thread::available_parallelism().map_or(2, usize::from) } else { 1 };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((first, second)) = { next.lock().unwrap().next() } {
                    if everything() && second == first + 1 {
                        say(&format!("pairs of an alarm: call {first} of {calls}"));
                    }
                    for way in 0..ways {
                        let met = pair(first, second, way);
                        let mut told = told.lock().unwrap();
                        match met {
                            Ok(both) => told.0 += usize::from(both),
                            Err(case) => told.1.push(case),
                        }
                    }
                }
            });
        }
    });
    let (pairs, wrong) = told.into_inner().unwrap();
    say(&format!("pairs: {pairs} alarms with two faults, of some {calls} calls each"));
    hand_over(
        "pairs-emergency",
        &json!({"schedules": pairs, "faults": pairs * 2, "violations": wrong.len()}),
    );
    assert!(pairs > 200, "{pairs}");
    assert!(wrong.is_empty(), "{} cases, see above: {:#?}", wrong.len(), &wrong[..wrong.len().min(9)]);
}

/// The alarm whose two faults fall on these calls: whether it met both, or its name where it went wrong.
fn pair(first: usize, second: usize, way: usize) -> Result<bool, String> {
    let kinds = Kind::ALL.len();
    // Far enough from each other that neighbours fail in other ways.
    let drawn = first * 41 + second * 7 + way * 27;
    let (one, other) = (Kind::ALL[drawn / kinds % kinds], Kind::ALL[drawn % kinds]);
    let faults = vec![Fault::at(first, one), Fault::at(second, other)];
    let case = format!("calls {first} {one:?} and {second} {other:?}");
    // The SDK draws the pauses between its retries from here.
    fastrand::seed(u64::try_from(drawn).unwrap());
    let played = catch_unwind(AssertUnwindSafe(|| paused(play(Scene::Current, faults, &case))));
    played.map(|hit| hit == 2).map_err(|_| case)
}

macro_rules! every_failed_call_of_an_alarm_ends_well {
    ($($name:ident: $kind:ident),*) => {
        mod every_failed_call_of_an_alarm_ends_well {
            mod once {
                use super::super::{Kind, Scene, every_call};
                $(#[tokio::test(start_paused = true)]
                async fn $name() { every_call(Scene::Current, Kind::$kind, false).await; })*
            }
            mod for_good {
                use super::super::{Kind, Scene, every_call};
                $(#[tokio::test(start_paused = true)]
                async fn $name() { every_call(Scene::Current, Kind::$kind, true).await; })*
            }
        }
    };
}

every_failed_call_of_an_alarm_ends_well! {
    refused: Refused,
    throttled: Throttled,
    lost_before: LostBefore,
    lost_after: LostAfter,
    error_before: ErrorBefore,
    garbled_after: GarbledAfter,
    timeout_before: TimeoutBefore,
    timeout_after: TimeoutAfter,
    killed_before: KilledBefore,
    killed_after: KilledAfter
}

/// The other ways through the machines, under the faults that a retry does not simply absorb.
macro_rules! every_failed_call_of_another_way_ends_well {
    ($($name:ident: $scene:ident),*) => {
        mod every_failed_call_of_another_way_ends_well {
            use super::{Kind, Scene, every_call};
            $(mod $name {
                use super::{Kind, Scene, every_call};
                #[tokio::test(start_paused = true)]
                async fn refused_for_good() { every_call(Scene::$scene, Kind::Refused, true).await; }
                #[tokio::test(start_paused = true)]
                async fn killed_after() { every_call(Scene::$scene, Kind::KilledAfter, false).await; }
            })*
            // What a reply that gets lost comes to does not depend on how the way began.
            mod lost_after_for_good {
                use super::{Kind, Scene, every_call};
                #[tokio::test(start_paused = true)]
                async fn gap() { every_call(Scene::Gap, Kind::LostAfter, true).await; }
                #[tokio::test(start_paused = true)]
                async fn full() { every_call(Scene::Full, Kind::LostAfter, true).await; }
                #[tokio::test(start_paused = true)]
                async fn member() { every_call(Scene::Member, Kind::LostAfter, true).await; }
                #[tokio::test(start_paused = true)]
                async fn replace_first() { every_call(Scene::ReplaceFirst, Kind::LostAfter, true).await; }
            }
        }
    };
}

every_failed_call_of_another_way_ends_well! {
    gap: Gap,
    full: Full,
    member: Member,
    back: Back,
    delayed: Delayed,
    replace_first: ReplaceFirst,
    reported: Reported,
    session: Session
}
