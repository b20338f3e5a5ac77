//! What happens to a key while it is Inactive: whoever needs it keeps it.

use std::time::Duration;

use keywheel::unused::Outcome;
use serde_json::Value;
use support::estate::days;
use support::fake::Maker;
use support::faults::{Fault, Kind, Plan};
use support::unused::Removal;
use support::walker::Control;
use support::world::{World, hours};

use crate::{OLD, exists, scheduled, world};

/// A removal at whose look of that number something happens first.
async fn at_look(world: &World, key: &str, number: usize, happens: impl Fn()) -> Removal {
    let mut looks = 0;
    let mut door = |state: &str, _: &Value| {
        if state == "DeleteUnused" {
            looks += 1;
            if looks == number {
                happens();
            }
        }
        Control::Go
    };
    world.removal_watched(&world.removed(OLD, key), &mut door).await
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_made_active_again_stays_and_counts_from_that_day() {
    for look in [1, 7, 30] {
        let (world, key) = world(200);
        let removal = at_look(&world, &key, look, || world.switch_key(&key, true)).await;
        removal.expect(Outcome::Kept, "Reactivated");
        assert!(world.is_active(&key));
        // A campaign comes every day, and leaves it alone until it has gone unused as long again.
        world.days_pass(1).await;
        assert_eq!(scheduled(&world).await.removals.len(), 0);
        world.days_pass(118).await;
        assert_eq!(scheduled(&world).await.removals.len(), 0);
        assert!(world.is_active(&key));
        world.days_pass(1).await;
        scheduled(&world).await.removals[0].expect(Outcome::Removed, "Removed");
        assert!(!exists(&world, &key));
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_made_active_while_the_last_look_takes_long_is_not_deleted() {
    let (world, key) = world(200);
    let slow = || {
        let fault = Fault::within("DeleteUnused", 3, Kind::TimeoutBefore);
        world.fake.state().plan = Plan::new([fault]);
    };
    let back = async {
        tokio::time::sleep(hours(30 * 24 - 1)).await;
        for _ in 0..5_000 {
            if world.fake.state().plan.fired() > 0 {
                break;
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        world.switch_key(&key, true);
    };
    let (removal, ()) = tokio::join!(at_look(&world, &key, 30, slow), back);
    assert_eq!(world.fake.state().plan.fired(), 1);
    removal.expect(Outcome::Kept, "Reactivated");
    assert!(world.is_active(&key));
}

#[tokio::test(start_paused = true)]
async fn a_use_that_iam_shows_late_keeps_the_key() {
    let (world, key) = world(200);
    {
        let mut state = world.fake.state();
        state.options.last_used_lag = hours(4);
        let at = state.ago(hours(1));
        state.use_key(&key, "s3", at);
    }
    let removal = world.removal(&world.removed(OLD, &key)).await;
    removal.expect(Outcome::Kept, "Used");
    let why = removal.doc.as_ref().unwrap().why.clone().unwrap();
    assert_eq!(why.remedy, format!("`keywheel restore {key}` makes it Active again."));
    // On the first day.
    assert_eq!(removal.walk.states().iter().filter(|state| **state == "DeleteUnused").count(), 1);
    assert!(exists(&world, &key) && !world.is_active(&key));
}

#[tokio::test(start_paused = true)]
async fn a_key_whose_user_takes_its_word_back_or_that_is_stored_or_leaks_is_kept() {
    let (first, key) = world(200);
    let untag = || {
        first.fake.state().users.get_mut(OLD).unwrap().tags.clear();
    };
    at_look(&first, &key, 3, untag).await.expect(Outcome::Kept, "NotAllowed");
    assert!(exists(&first, &key));

    let (second, key) = world(200);
    let keep = || {
        second.fake.state().users.get_mut(OLD).unwrap().tags.insert("keywheel:keep".into(), key.clone());
    };
    at_look(&second, &key, 30, keep).await.expect(Outcome::Kept, "Spared");
    assert!(exists(&second, &key));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_somebody_deleted_meanwhile_is_gone() {
    let (world, key) = world(200);
    let delete = || {
        let mut state = world.fake.state();
        let now = state.now();
        state.key_mut(&key).deleted = Some(now);
    };
    at_look(&world, &key, 2, delete).await.expect(Outcome::Removed, "Gone");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_inactive_already_is_nobodys_to_delete() {
    let (world, key) = world(200);
    world.switch_key(&key, false);
    world.removal(&world.removed(OLD, &key)).await.expect(Outcome::Left, "AlreadyInactive");
    assert_eq!(scheduled(&world).await.removals.len(), 0);
    world.days_pass(400).await;
    assert!(exists(&world, &key));
}

#[tokio::test(start_paused = true)]
async fn a_pause_and_a_freeze_outlast_the_grace() {
    let (world, key) = world(200);
    let mut looks = 0;
    let mut door = |state: &str, _: &Value| {
        if state == "DeleteUnused" {
            looks += 1;
            match looks {
                29 => world.mode("paused"),
                // The grace was over an hour ago.
                31 => world.freeze(
                    r#"[{"from": "2026-01-01T00:00:00Z", "until": "2026-03-01T00:00:00Z", "reason": "a move"}]"#,
                ),
                32 => world.mode("live"),
                _ => {}
            }
        }
        Control::Go
    };
    let removal = world.removal_watched(&world.removed(OLD, &key), &mut door).await;
    removal.expect(Outcome::Removed, "Removed");
    let deleted = crate::when(&world, "iam:DeleteAccessKey", &key).unwrap();
    assert!(deleted >= "2026-03-01T00:00:00Z".parse().unwrap(), "{deleted}");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_stopped_anywhere_takes_nothing_more() {
    for stopped in [
        "NominateUnused",
        "Nominated",
        "DisableUnused",
        "AfterDisable",
        "NotifyDisabled",
        "Grace",
        "DeleteUnused",
    ] {
        let (world, key) = world(200);
        let mut stop = |state: &str, _: &Value| if state == stopped { Control::Stop } else { Control::Go };
        let removal = world.removal_watched(&world.removed(OLD, &key), &mut stop).await;
        assert_eq!(removal.walk.status, "ABORTED", "{stopped}");
        world.days_pass(100).await;
        assert!(exists(&world, &key), "{stopped}");
        // One that was not touched yet goes with the next campaign; one that is Inactive stays so, as told.
        let next = scheduled(&world).await;
        let touched = !["NominateUnused", "Nominated", "DisableUnused"].contains(&stopped);
        assert_eq!(next.removals.len(), usize::from(!touched), "{stopped}");
        assert_eq!(exists(&world, &key), touched, "{stopped}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_step_may_run_twice() {
    for twice in ["NominateUnused", "DisableUnused", "NotifyDisabled", "DeleteUnused", "NotifyOutcome"] {
        for control in [Control::Twice, Control::Late] {
            let (world, key) = world(200);
            let mut door = |state: &str, _: &Value| if state == twice { control } else { Control::Go };
            let removal = world.removal_watched(&world.removed(OLD, &key), &mut door).await;
            assert_eq!(removal.outcome(), Some(Outcome::Removed), "{twice}: {:?}", removal.doc);
            assert!(!exists(&world, &key), "{twice}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_of_a_managed_user_beside_its_current_one_goes_and_the_current_one_works() {
    let (world, _) = world(10);
    let user = support::world::USER;
    world.allow_removal(user);
    let key = {
        let mut state = world.fake.state();
        let key = state.add_key(user, Maker::Stranger);
        state.age_key(&key, 200);
        let at = state.ago(days(150));
        state.use_key(&key, "s3", at);
        key
    };
    let current = world.current_key();
    scheduled(&world).await.removals[0].expect(Outcome::Removed, "Removed");
    assert!(!exists(&world, &key) && world.is_active(&current));
    world.assert_sound();
}
