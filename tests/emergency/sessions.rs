//! What a leaked key has minted is denied, and nothing else, and no longer than it must be.

use keywheel::notice::NoticeKind;
use keywheel::rotation::Outcome;
use support::alarm::{finding, made_active};
use support::fake::Maker;
use support::world::{USER, World, hours};

use crate::{minutes, on_topic};

#[tokio::test(start_paused = true)]
async fn sessions_from_before_are_denied_and_later_ones_and_the_new_key_are_not() {
    let world = World::leaked();
    world.consumer();
    let (key, before) = (world.current_key(), world.fake.state().now());
    let watch = async {
        tokio::time::sleep(minutes(2)).await;
        {
            let state = world.fake.state();
            assert!(state.denies_session(USER, before));
            assert!(!state.denies_session(USER, state.now()), "a session of the new key");
            assert!(!state.denies_keys(USER), "the new key itself");
        }
        tokio::time::sleep(hours(35)).await;
        assert!(world.fake.state().denies_session(USER, before), "a session of 36 hours lives still");
    };
    let (alarm, ()) = tokio::join!(world.alarm(finding(&key, USER)), watch);
    alarm.incident().expect(Outcome::Contained, "Contained");
    assert!(!world.fake.state().denies_session(USER, before), "the longest session has ended");
    assert_eq!(world.policies(USER), Vec::<String>::new());
    assert!(alarm.incident().told(NoticeKind::SessionsFree));
    world.assert_replaced();
}

#[tokio::test(start_paused = true)]
async fn two_leaks_of_one_user_do_not_lift_each_others_deny() {
    let world = World::leaked();
    let first = world.stranger("alice");
    let second = world.fake.state().add_key("alice", Maker::Stranger);
    tokio::time::sleep(hours(1)).await;
    world.leak(&first);
    world.leak(&second);
    let later = async {
        tokio::time::sleep(hours(10)).await;
        world.alarm(finding(&second, "alice")).await
    };
    let watch = async {
        tokio::time::sleep(hours(5)).await;
        let minted = world.fake.state().now();
        tokio::time::sleep(hours(32)).await;
        assert_eq!(world.policies("alice"), [format!("keywheel-deny-sessions-{second}")]);
        assert!(world.fake.state().denies_session("alice", minted));
    };
    let (one, two, ()) = tokio::join!(world.alarm(finding(&first, "alice")), later, watch);
    one.incident().expect(Outcome::Contained, "Contained");
    two.incident().expect(Outcome::Contained, "Contained");
    assert_eq!(world.policies("alice"), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_second_leak_of_one_key_denies_anew_and_the_first_does_not_lift_it() {
    let world = World::leaked();
    let key = world.stranger("alice");
    world.leak(&key);
    let again = async {
        tokio::time::sleep(hours(10)).await;
        world.switch_key(&key, true);
        let minted = world.fake.state().now();
        let watch = async {
            // The first incident is over now.
            tokio::time::sleep(hours(30)).await;
            assert!(world.fake.state().denies_session("alice", minted), "a session of the second time");
        };
        let (alarm, ()) = tokio::join!(world.alarm(made_active(&key, "alice")), watch);
        alarm
    };
    let (one, two) = tokio::join!(world.alarm(finding(&key, "alice")), again);
    one.incident().expect(Outcome::Contained, "Contained");
    two.incident().expect(Outcome::Contained, "Contained");
    assert!(!world.is_active(&key));
    assert_eq!(world.policies("alice"), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn where_the_users_own_policies_are_full_a_managed_one_denies() {
    let world = World::leaked();
    let (key, before) = (world.current_key(), world.fake.state().now());
    world.fake.state().fill_inline(USER, 100);
    let watch = async {
        tokio::time::sleep(minutes(2)).await;
        let state = world.fake.state();
        assert!(state.denies_session(USER, before) && !state.denies_keys(USER));
        assert_eq!(state.users[USER].attached.len(), 1);
    };
    let (alarm, ()) = tokio::join!(world.alarm(finding(&key, USER)), watch);
    alarm.incident().expect(Outcome::Contained, "Contained");
    let state = world.fake.state();
    assert!(state.users[USER].attached.is_empty() && state.managed.is_empty(), "it is taken off and deleted");
    assert_eq!(state.users[USER].inline.keys().collect::<Vec<_>>(), ["theirs"]);
}

#[tokio::test(start_paused = true)]
async fn where_all_policies_are_full_people_are_told_and_it_is_tried_again() {
    let world = World::leaked();
    let (key, before) = (world.current_key(), world.fake.state().now());
    world.fake.state().fill_inline(USER, 100);
    world.fake.state().fill_attached(USER);
    let watch = async {
        tokio::time::sleep(hours(2)).await;
        assert!(!world.is_active(&key), "containment waits for no policy");
        assert!(!world.fake.state().denies_session(USER, before));
        assert_eq!(on_topic(&world, NoticeKind::SessionsNotDenied), 1);
        assert!(
            world.fake.state().managed.keys().all(|arn| arn.contains("theirs")),
            "a policy is left behind"
        );
        world.fake.state().users.get_mut(USER).unwrap().inline.clear();
        tokio::time::sleep(minutes(31)).await;
        assert!(world.fake.state().denies_session(USER, before), "there is room, and nothing is denied");
    };
    let (alarm, ()) = tokio::join!(world.alarm(finding(&key, USER)), watch);
    alarm.incident().expect(Outcome::Contained, "Contained");
    assert_eq!(world.policies(USER), Vec::<String>::new());
}
