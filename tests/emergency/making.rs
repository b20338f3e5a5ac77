//! Odd key-making: a managed user's key that nobody of ours has made, and one principal that makes many.

use keywheel::incident::Course;
use keywheel::notice::NoticeKind;
use keywheel::rotation::Outcome;
use keywheel::switch::Containment;
use serde_json::{Value, json};
use support::alarm::made;
use support::fake::Maker;
use support::faults::{Fault, Kind, Plan};
use support::functions::{MEMBER_ROTATES, role};
use support::world::{USER, World, request};

use crate::{on_topic, writes};

const ADMIN: &str = "arn:aws:iam::111122223333:role/admin";
const MEMBER: &str = "444455556666";

fn session_of(role: &str, name: &str) -> Value {
    let session = format!("arn:aws:sts::111122223333:assumed-role/role/{name}");
    json!({"type": "AssumedRole", "arn": session, "sessionContext": {"sessionIssuer": {"type": "Role", "arn": role}}})
}

/// Somebody makes a key, and CloudTrail records it.
fn make(world: &World, user: &str, by: &Value, agent: &str) -> String {
    let mut state = world.fake.state();
    let key = state.add_key(user, Maker::Stranger);
    state.trail_made_by(&key, by, agent);
    key
}

fn admin_makes(world: &World, user: &str) -> String {
    make(world, user, &session_of(ADMIN, "alice"), "aws-cli/2.17")
}

/// New users, each with a key that the administrator has just made.
fn burst(world: &World, count: usize) -> Vec<String> {
    let key = |number| {
        let user = format!("vendor-{number}");
        world.stranger(&user);
        admin_makes(world, &user)
    };
    (0..count).map(key).collect()
}

fn calls_of_watch(world: &World) -> Vec<String> {
    let state = world.fake.state();
    let own = state.calls.iter().filter(|call| call.function.as_deref() == Some("watch"));
    own.map(|call| call.name.clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_key_that_a_run_of_ours_has_made_is_nobodys_business() {
    let world = World::new();
    world.consumer();
    world.containment("on");
    world.run(request()).await.expect(Outcome::Completed);
    let alarm = world.alarm(made(&world, &world.current_key())).await;
    assert_eq!((alarm.alert().course, alarm.incidents.len()), (Course::Nothing, 0));
    assert_eq!(calls_of_watch(&world), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_managed_users_key_that_somebody_else_has_made_is_told_at_once() {
    for switch in ["on", "page"] {
        let world = World::new();
        world.containment(switch);
        let key = admin_makes(&world, USER);
        let before = world.fake.state().now();
        let alarm = world.alarm(made(&world, &key)).await;
        let incident = alarm.incident();
        incident.expect(Outcome::Blocked, "OddKeyMaking");
        for words in [key.as_str(), USER, ADMIN, "a person decides"] {
            assert!(incident.text().contains(words), "{}", incident.text());
        }
        let remedy = &incident.doc.why.as_ref().unwrap().remedy;
        assert!(remedy.contains(&format!("keywheel revoke {key}")), "{remedy}");
        let ended = incident.doc.notices.iter().find(|notice| notice.kind == NoticeKind::Ended).unwrap();
        assert!(ended.at.duration_since(before).as_secs() < 60, "{}", ended.at);
        assert_eq!(on_topic(&world, NoticeKind::Ended), 1);
        assert_eq!(calls_of_watch(&world), ["iam:GetUser"]);
        assert_eq!(writes(&world), Vec::<String>::new());
        assert!(world.is_active(&key));
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_is_told_where_all_is_switched_off() {
    let world = World::new();
    world.containment(&Containment::Off.to_string());
    let key = admin_makes(&world, USER);
    let alarm = world.alarm(made(&world, &key)).await;
    alarm.incident().expect(Outcome::Blocked, "OddKeyMaking");
    assert!(world.fake.state().topic.is_empty());
}

#[tokio::test(start_paused = true)]
async fn nobody_passes_for_us_by_a_name_that_anybody_may_choose() {
    let world = World::new();
    world.containment("on");
    let agent = format!("aws-sdk-rust/1.3 app/keywheel-{}", keywheel::RunId::random());
    let forged = session_of(ADMIN, "keywheel-test-create-key");
    let key = make(&world, USER, &forged, &agent);
    world.alarm(made(&world, &key)).await.incident().expect(Outcome::Blocked, "OddKeyMaking");
}

#[tokio::test(start_paused = true)]
async fn one_principal_that_makes_many_keys_is_one_incident() {
    let world = World::new();
    world.containment("on");
    let keys = burst(&world, 6);
    let (mut incidents, before) = (Vec::new(), world.fake.state().now());
    for key in &keys {
        let alarm = world.alarm(made(&world, key)).await;
        assert_eq!(alarm.alert().course, Course::Incidents, "{key}");
        incidents.extend(alarm.incidents);
    }
    let [incident] = incidents.as_slice() else { panic!("{} incidents", incidents.len()) };
    incident.expect(Outcome::Blocked, "OddKeyMaking");
    assert!(incident.text().contains("has made 6 keys within 10 minutes"), "{}", incident.text());
    assert!(incident.text().contains(ADMIN), "{}", incident.text());
    assert_eq!(on_topic(&world, NoticeKind::Ended), 1, "once for all of them");
    // CloudTrail's history is late: nothing is counted before it shows what there was.
    let ended = incident.doc.notices.iter().map(|notice| notice.at).max().unwrap();
    assert!(ended.duration_since(before).as_secs() >= 15 * 60, "{ended}");
    assert_eq!(writes(&world), Vec::<String>::new());
    assert!(keys.iter().all(|key| world.is_active(key)));
}

#[tokio::test(start_paused = true)]
async fn as_many_as_are_usual_are_not_told() {
    let world = World::new();
    world.containment("on");
    for key in burst(&world, 5) {
        let alarm = world.alarm(made(&world, &key)).await;
        assert_eq!((alarm.alert().course, alarm.incidents.len()), (Course::Nothing, 0));
    }
    // By the policy of somebody who makes few.
    world.emergency_policy(&json!({"key_making": {"more_than": 1, "minutes": 60}}));
    let key = admin_makes(&world, "vendor-0");
    world.alarm(made(&world, &key)).await.incident().expect(Outcome::Blocked, "OddKeyMaking");
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_cannot_be_understood_does_not_hide_a_burst() {
    let world = World::new();
    world.containment("on");
    world.emergency_policy(&json!({"key_making": {"more_than": 1000, "hours": 1}}));
    let key = burst(&world, 6).remove(0);
    world.alarm(made(&world, &key)).await.incident().expect(Outcome::Blocked, "OddKeyMaking");
}

#[tokio::test(start_paused = true)]
async fn a_policy_may_contain_what_is_odd() {
    let world = World::new();
    world.containment("on");
    world.emergency_policy(&json!({"rules": [{"class": "ODD_KEY_MAKING", "user": USER, "then": "now"}]}));
    let (mine, key) = (world.current_key(), admin_makes(&world, USER));
    world.leak(&key);
    let alarm = world.alarm(made(&world, &key)).await;
    alarm.incident().expect(Outcome::Contained, "Contained");
    assert!(!world.is_active(&key) && world.is_active(&mine), "only the key that is odd");
    assert_eq!(world.current_key(), mine);
}

#[tokio::test(start_paused = true)]
async fn another_accounts_key_is_that_accounts_business() {
    let world = World::new();
    world.containment("on");
    let key = admin_makes(&world, USER);
    let mut event = made(&world, &key);
    event["detail"]["recipientAccountId"] = json!("999988887777");
    let alarm = world.alarm(event).await;
    assert_eq!((alarm.alert().course, alarm.incidents.len()), (Course::Nothing, 0));
    assert_eq!(calls_of_watch(&world), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_burst_is_told_though_its_keys_are_gone_again() {
    let world = World::new();
    world.containment("on");
    let keys = burst(&world, 7);
    let now = world.fake.state().now();
    for key in &keys {
        world.fake.state().key_mut(key).deleted = Some(now);
    }
    let alarm = world.alarm(made(&world, &keys[0])).await;
    alarm.incident().expect(Outcome::Blocked, "OddKeyMaking");
    assert!(alarm.incident().text().contains("has made 7 keys"), "{}", alarm.incident().text());
}

#[tokio::test(start_paused = true)]
async fn a_rule_that_contains_a_burst_contains_all_of_it() {
    let world = World::new();
    world.containment("on");
    world.emergency_policy(&json!({"rules": [{"class": "ODD_KEY_MAKING", "then": "now"}]}));
    let keys = burst(&world, 6);
    for key in &keys {
        world.leak(key);
        let alarm = world.alarm(made(&world, key)).await;
        alarm.incident().expect(Outcome::Contained, "Contained");
        let told = alarm.incident().notice(NoticeKind::Contained);
        assert!(told.contains("has made 6 keys") && !told.contains("leaked"), "{told}");
    }
    assert!(!keys.iter().any(|key| world.is_active(key)));
}

#[tokio::test(start_paused = true)]
async fn a_principal_whose_arn_may_not_be_repeated_is_counted_all_the_same() {
    let world = World::new();
    world.containment("on");
    let mut by = session_of("arn:aws:iam::111122223333:role/!/<x>", "alice");
    by["sessionContext"]["sessionIssuer"]["principalId"] = json!("AROA2OGYBAH6QROLEIDXX");
    let keys: Vec<String> = (0..6)
        .map(|number| {
            world.stranger(&format!("vendor-{number}"));
            make(&world, &format!("vendor-{number}"), &by, "aws-cli/2.17")
        })
        .collect();
    let alarm = world.alarm(made(&world, &keys[0])).await;
    alarm.incident().expect(Outcome::Blocked, "OddKeyMaking");
    assert!(
        alarm.incident().text().contains("AROA2OGYBAH6QROLEIDXX has made 6"),
        "{}",
        alarm.incident().text()
    );
}

/// Whatever one call of Watch meets, what is odd is told; and what stays unknown fails the execution, loudly.
#[tokio::test(start_paused = true)]
async fn a_fault_of_watch_hides_nothing() {
    let calls =
        [("iam:GetUser", USER), ("cloudtrail:LookupEvents", "vendor-0"), ("ssm:GetParameter", "vendor-0")];
    for (call, user) in calls {
        for kind in Kind::ALL {
            for for_good in [false, true] {
                let world = World::new();
                world.containment("on");
                let keys = burst(&world, 6);
                let key = if user == USER { admin_makes(&world, USER) } else { keys[0].clone() };
                let fault = Fault::on(call, kind);
                let fault = if for_good { fault.for_good() } else { fault };
                world.fake.state().plan = Plan::new([fault]);
                let alarm = world.alarm(made(&world, &key)).await;
                let told = alarm.incidents.iter().any(|one| one.why() == "OddKeyMaking");
                let failed =
                    alarm.walk.error.as_ref().is_some_and(|error| error.error == "Keywheel.NotWatched");
                assert!(told != failed, "{call} {kind:?} for good: {for_good}: {:?}", alarm.walk.error);
                let refused = matches!(kind, Kind::Refused | Kind::GarbledAfter);
                assert!(told || for_good || refused, "{call} {kind:?} once hides it");
                let killed = for_good && matches!(kind, Kind::KilledBefore | Kind::KilledAfter);
                assert!(
                    call != "ssm:GetParameter" || told || killed,
                    "the policy is not worth a failure: {kind:?}"
                );
                assert_eq!(writes(&world), Vec::<String>::new());
            }
        }
    }
}

/// A role, of the account that is named, makes a key of the managed user of another account.
fn make_elsewhere(world: &World, account: &str, role: &str) -> String {
    let by = session_of(&format!("arn:aws:iam::{account}:role/{role}"), "alice");
    make(world, &format!("{MEMBER}/{USER}"), &by, "aws-cli/2.17")
}

#[tokio::test(start_paused = true)]
async fn a_key_of_a_managed_user_elsewhere_that_somebody_else_has_made_is_told_and_one_of_ours_is_not() {
    // A role of the right name in a third account is nobody of ours.
    for (account, role) in [(MEMBER, "admin".to_owned()), ("777788889999", role(MEMBER_ROTATES))] {
        let world = World::elsewhere(MEMBER);
        world.containment("on");
        let key = make_elsewhere(&world, account, &role);
        let alarm = world.alarm(made(&world, &key)).await;
        alarm.incident().expect(Outcome::Blocked, "OddKeyMaking");
        assert!(alarm.incident().text().contains(&key), "{}", alarm.incident().text());
        assert_eq!(calls_of_watch(&world), ["sts:AssumeRole", "iam:GetUser"]);
        assert_eq!(writes(&world), Vec::<String>::new());
    }
    // The record of a run there is that of its account's own role.
    let world = World::elsewhere(MEMBER);
    world.consumer();
    world.run(json!({"secret": world.secret_arn()})).await.expect(Outcome::Completed);
    let key = world.current_key();
    let alarm = world.alarm(made(&world, &key)).await;
    assert_eq!((alarm.alert().course, alarm.incidents.len()), (Course::Nothing, 0));
    assert_eq!(calls_of_watch(&world), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn an_account_that_lets_nobody_in_has_no_managed_user_and_one_that_is_throttled_is_asked_again() {
    let world = World::elsewhere(MEMBER);
    world.fake.state().open.clear();
    let key = make_elsewhere(&world, MEMBER, "admin");
    let alarm = world.alarm(made(&world, &key)).await;
    assert_eq!((alarm.alert().course, alarm.incidents.len()), (Course::Nothing, 0));
    let world = World::elsewhere(MEMBER);
    world.containment("on");
    world.fake.state().plan = Plan::new([Fault::on("sts:AssumeRole", Kind::Throttled).times(4)]);
    let key = make_elsewhere(&world, MEMBER, "admin");
    world.alarm(made(&world, &key)).await.incident().expect(Outcome::Blocked, "OddKeyMaking");
}
