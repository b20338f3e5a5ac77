//! The harness can fail: every deliberately broken variant of the product is caught, by the promise it breaks.
//!
//! Each plays on one way through the machine that an intact product goes without a word, so that what is caught
//! is the variant and nothing else.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, where a panic with its place is what should be seen"
)]

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use keywheel::SecretArn;
use serde_json::json;
use support::alarm::finding;
use support::broken::Broken;
use support::fake::{Maker, Secret};
use support::faults::{Fault, Kind, Plan};
use support::figures::{hand_over, say};
use support::world::{SECRET, USER, World, hours};
use support::woven::{Schedule, Way, play, promises_in, words};

/// Where a variant shows.
enum Scene {
    /// On a way of a rotation.
    Way(Way, fn(&mut World)),
    /// When a key leaks.
    Leak(fn(&mut World)),
}

/// The scene in which a variant shows, and what else must be so.
fn scene(broken: Broken) -> Scene {
    let nothing: fn(&mut World) = |_| {};
    let (way, prepare): (Way, fn(&mut World)) = match broken {
        Broken::DeniesTheUser
        | Broken::LiftsTheDenyAtOnce
        | Broken::ContainsUnread
        | Broken::SaysLifted
        | Broken::LosesTheContainment => return Scene::Leak(nothing),
        Broken::ContainsEveryKey => {
            return Scene::Leak(|world| {
                world.fake.state().add_key(USER, Maker::Stranger);
            });
        }
        Broken::InvestigatesFirst => {
            return Scene::Leak(|world| {
                fault(world, Fault::on("cloudtrail:LookupEvents", Kind::KilledBefore).for_good());
            });
        }
        Broken::IgnoresContainment => return Scene::Leak(|world| world.containment("page")),
        Broken::OrphanByAge | Broken::DeletesTheOldest => (Way::Stranger, nothing),
        Broken::RollBackDeletesAtOnce => (Way::BackInOverlap, nothing),
        Broken::LeakedWaitsForQuiet | Broken::RevivesTheLeakedKey => (Way::Leaked, nothing),
        Broken::ContainmentBehindNotice => (Way::Leaked, |world| {
            fault(world, Fault::on("sns:Publish", Kind::KilledBefore).for_good());
        }),
        Broken::SaysBlocked => (Way::NeverAnswers, nothing),
        Broken::SwallowsFailure => (Way::Rotation, |world| {
            fault(world, Fault::on("iam:DeleteAccessKey", Kind::Refused).for_good());
        }),
        Broken::ErrorReadAsUnused => (Way::Rotation, |world| {
            fault(world, Fault::on("iam:GetAccessKeyLastUsed", Kind::Throttled).for_good());
        }),
        Broken::MarksAsSent => (Way::Rotation, |world| {
            fault(world, Fault::on("sns:Publish", Kind::Refused).for_good());
        }),
        Broken::FirstPageOnly => (Way::Rotation, |world| {
            let mut state = world.fake.state();
            // What an intact run makes of a second secret is to leave both to people.
            state.hands_on_labels = true;
            let arn = state.secret(SECRET).arn.replace(SECRET, "app/other");
            assert!(arn.parse::<SecretArn>().is_ok());
            let tags = BTreeMap::from([("keywheel:user".into(), USER.into())]);
            let name = "app/other".into();
            state.secrets.push(Secret {
                name,
                arn,
                tags,
                versions: Vec::new(),
                deleted: None,
                primary_region: None,
            });
        }),
        Broken::IgnoresTheReplicas => (Way::Rotation, |world| {
            // Later than the gate's first look, and sooner than its second.
            let region = world.other_region();
            world.fake.state().replicate(SECRET, &region, hours(27));
        }),
        Broken::IgnoresTheSwitch => (Way::DryRun, nothing),
        Broken::IgnoresTheFreeze => (Way::Rotation, |world| {
            // From the evening of the day on which every world begins, over the gate's first look.
            world.freeze(
                r#"[{"from": "2026-01-05T20:00:00Z", "until": "2026-01-11T20:00:00Z", "reason": "a move"}]"#,
            );
        }),
        _ => (Way::Rotation, nothing),
    };
    Scene::Way(way, prepare)
}

fn fault(world: &World, fault: Fault) {
    world.fake.state().standing = Plan::new([fault]);
}

/// Plays the scene with the product broken, or whole; what was found broken.
fn played(broken: Broken, break_it: bool) -> Result<(), String> {
    let set = |world: &mut World, prepare: fn(&mut World)| {
        prepare(world);
        if break_it {
            world.break_it(broken);
        }
    };
    match scene(broken) {
        Scene::Way(way, prepare) => {
            let page = if broken == Broken::FirstPageOnly { 1 } else { 100 };
            let result = play(&Schedule::undisturbed(way).paged(page), |world| set(world, prepare));
            result.map(|_| ()).map_err(|story| story.what)
        }
        Scene::Leak(prepare) => catch_unwind(AssertUnwindSafe(|| leaked(|world| set(world, prepare))))
            .map_err(|panic| words(&*panic)),
    }
}

/// The managed user's current key leaks, and whatever comes of it ends.
fn leaked(set: impl FnOnce(&mut World)) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut world = World::leaked();
        set(&mut world);
        let event = finding(&world.current_key(), USER);
        // Longer than the longest session lives.
        let ended = tokio::time::timeout(hours(24 * 10), world.alarm(event)).await;
        world.assert_promises();
        assert!(ended.is_ok(), "it does not end");
    });
}

#[test]
fn every_broken_variant_is_caught_by_the_promise_it_breaks() {
    let mut missed = Vec::new();
    for (broken, promise) in Broken::ALL {
        match played(broken, true) {
            Ok(()) => missed.push(format!("{broken:?}: nobody noticed")),
            Err(what) if promises_in(&what).contains(&promise) => {}
            Err(what) => missed.push(format!("{broken:?}: {promise} was not named, but: {what}")),
        }
    }
    let (all, caught) = (Broken::ALL.len(), Broken::ALL.len() - missed.len());
    say(&format!("sensitivity: {caught} of {all} broken variants caught by the promise they break"));
    hand_over("sensitivity", &json!({"mutants": all, "mutants_caught": caught}));
    assert!(missed.is_empty(), "{missed:#?}");
}

#[test]
fn the_same_ways_are_quiet_where_nothing_is_broken() {
    for (broken, _) in Broken::ALL {
        if let Err(what) = played(broken, false) {
            panic!("{broken:?}: {what}");
        }
    }
}

#[test]
fn every_promise_has_two_variants_at_least() {
    for promise in ["P1", "P2", "P3", "P4", "P5", "P6", "P7", "P8"] {
        let count = Broken::ALL.iter().filter(|(_, breaks)| *breaks == promise).count();
        assert!(count >= 2, "{promise} has {count}");
    }
}
