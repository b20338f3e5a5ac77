//! Sessions of roles that were assumed with a leaked key, and outlive it.

use keywheel::notice::NoticeKind;
use keywheel::rotation::Outcome;
use serde_json::json;
use support::alarm::finding;
use support::faults::{Fault, Kind, Plan};
use support::world::{USER, World, hours};

use crate::{minutes, on_topic, writes};

const DENY: &str = "{\"role_sessions\": \"deny\"}";

/// The leaked key has assumed two roles of the account, one of another, and one that does not exist any more.
fn assumed(policy: Option<&str>) -> (World, String) {
    let world = World::leaked();
    world.consumer();
    if let Some(policy) = policy {
        world.emergency_policy(&serde_json::from_str(policy).unwrap());
    }
    let key = world.current_key();
    for (role, session) in [
        ("arn:aws:iam::111122223333:role/ops/deploy", "thief"),
        ("arn:aws:iam::111122223333:role/ops/deploy", "thief-2"),
        ("arn:aws:iam::111122223333:role/reader", "thief"),
        ("arn:aws:iam::111122223333:role/gone", "thief"),
        ("arn:aws:iam::999988887777:role/deploy", "elsewhere"),
    ] {
        world.fake.state().trail_assumed(&key, role, session);
    }
    for role in ["deploy", "reader", "unrelated"] {
        world.fake.state().their_roles.insert(role.into(), [("theirs".to_owned(), "{}".to_owned())].into());
    }
    (world, key)
}

fn left(world: &World) -> usize {
    world.fake.state().their_roles.values().map(|policies| policies.len() - 1).sum()
}

#[tokio::test(start_paused = true)]
async fn the_role_denies_those_sessions_and_no_others_until_they_have_ended() {
    let (world, key) = assumed(Some(DENY));
    let before = world.fake.state().now();
    let watch = async {
        tokio::time::sleep(minutes(10)).await;
        {
            let state = world.fake.state();
            for (role, session) in [("deploy", "thief"), ("deploy", "thief-2"), ("reader", "thief")] {
                assert!(state.role_denies(role, session, before), "{role} {session}");
                assert!(!state.role_denies(role, session, state.now()), "one that was issued later");
            }
            assert!(!state.role_denies("deploy", "alice", before), "somebody else's session");
            assert!(!state.role_denies("reader", "thief-2", before));
        }
        assert_eq!(left(&world), 2);
        tokio::time::sleep(hours(12)).await;
        assert_eq!(left(&world), 2, "a session may live for twelve hours");
    };
    let (alarm, ()) = tokio::join!(world.alarm(finding(&key, USER)), watch);
    let incident = alarm.incident();
    incident.expect(Outcome::Contained, "Contained");
    let told = incident.notice(NoticeKind::RoleSessions);
    for words in ["role deploy: thief, thief-2 denied until", "role reader: thief denied until"] {
        assert!(told.contains(words), "{told}");
    }
    assert_eq!((left(&world), on_topic(&world, NoticeKind::RoleSessions)), (0, 1));
    world.assert_promises();
}

#[tokio::test(start_paused = true)]
async fn by_default_people_are_told_and_no_role_is_touched() {
    let (world, key) = assumed(None);
    let alarm = world.alarm(finding(&key, USER)).await;
    alarm.incident().expect(Outcome::Contained, "Contained");
    assert!(!writes(&world).iter().any(|call| call.contains("RolePolicy")));
    assert!(alarm.incident().notice(NoticeKind::Contained).contains("not ended by this"));
    let mut notices = alarm.incident().doc.notices.iter();
    assert!(notices.any(|notice| notice.kind == NoticeKind::Investigated && notice.text.contains("deploy")));
}

#[tokio::test(start_paused = true)]
async fn what_iam_refuses_is_told_and_the_other_roles_deny_all_the_same() {
    let (world, key) = assumed(Some(DENY));
    world.fake.state().standing = Plan::new([Fault::on("iam:PutRolePolicy", Kind::Refused)]);
    let alarm = world.alarm(finding(&key, USER)).await;
    alarm.incident().expect(Outcome::Contained, "Contained");
    let told = alarm.incident().notice(NoticeKind::RoleSessions);
    assert!(told.contains("role deploy: thief, thief-2 could NOT be denied"), "{told}");
    assert!(told.contains("role reader: thief denied"), "{told}");
    assert_eq!(left(&world), 0);
}

#[tokio::test(start_paused = true)]
async fn every_fault_of_it_ends_with_nothing_left_and_people_told() {
    for call in ["iam:PutRolePolicy", "iam:GetRolePolicy", "iam:DeleteRolePolicy"] {
        for kind in Kind::ALL {
            for times in [1, 3, 12] {
                let (world, key) = assumed(Some(DENY));
                world.fake.state().standing = Plan::new([Fault::on(call, kind).times(times)]);
                let alarm = world.alarm(finding(&key, USER)).await;
                let case = format!("{call} {kind:?} {times} times");
                assert!(!world.is_active(&key), "{case}");
                assert_eq!(alarm.incident().doc.outcome, Some(Outcome::Contained), "{case}");
                assert!(on_topic(&world, NoticeKind::RoleSessions) > 0, "{case}: nobody was told");
                // Whoever dies at every try leaves what nobody knows of: it denies sessions that have ended.
                let dies = call == "iam:PutRolePolicy" && kind == Kind::KilledAfter && times == 12;
                assert!(left(&world) == 0 || dies, "{case}: {} left", left(&world));
                world.assert_promises();
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_a_person_has_changed_is_theirs() {
    let (world, key) = assumed(Some(DENY));
    let person = async {
        tokio::time::sleep(hours(2)).await;
        let mut state = world.fake.state();
        let policies = state.their_roles.get_mut("deploy").unwrap();
        let ours = policies.keys().find(|name| name.starts_with("keywheel-")).unwrap().clone();
        policies.insert(ours, json!({"Statement": [{"Effect": "Deny"}]}).to_string());
    };
    let (alarm, ()) = tokio::join!(world.alarm(finding(&key, USER)), person);
    assert_eq!(alarm.incidents.len(), 1);
    assert_eq!(left(&world), 1);
}
