//! What may delay or prevent containment: the switch, the policy, a person's word. What cannot be read may not.

use keywheel::incident::Record;
use keywheel::notice::NoticeKind;
use keywheel::rotation::Outcome;
use serde_json::json;
use support::alarm::finding;
use support::functions::STAGE;
use support::world::{USER, World, hours};

use crate::{minutes, on_topic, writes};

#[tokio::test(start_paused = true)]
async fn switched_to_page_or_off_nothing_is_changed_and_it_says_what_it_would_do() {
    for switch in ["page", "off", "", "On"] {
        let world = World::leaked();
        world.containment(switch);
        let key = world.current_key();
        let alarm = world.alarm(finding(&key, USER)).await;
        let incident = alarm.incident();
        incident.expect(Outcome::Blocked, "NotSwitchedOn");
        assert!(incident.text().contains("make it Inactive and deny its sessions"), "{}", incident.text());
        assert!(world.is_active(&key) && alarm.rotations.is_empty());
        assert_eq!(writes(&world), Vec::<String>::new());
        assert_eq!(on_topic(&world, NoticeKind::Ended), usize::from(switch != "off"), "{switch:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_fresh_installation_only_tells() {
    let world = World::new();
    let key = world.current_key();
    world.leak(&key);
    world.alarm(finding(&key, USER)).await.incident().expect(Outcome::Blocked, "NotSwitchedOn");
    assert!(world.is_active(&key));
}

#[tokio::test(start_paused = true)]
async fn a_switch_that_cannot_be_read_stops_nothing() {
    let world = World::leaked();
    world.containment("page");
    world.fake.state().denied.insert("ssm:GetParameters".into());
    let key = world.current_key();
    world.alarm(finding(&key, USER)).await.incident().expect(Outcome::Contained, "Contained");
    assert!(!world.is_active(&key));
}

#[tokio::test(start_paused = true)]
async fn a_person_can_stop_what_the_policy_delays() {
    let world = World::leaked();
    world.emergency_policy(&json!({"rules": [{"then": {"after": 10}}]}));
    let key = world.current_key();
    let person = async {
        tokio::time::sleep(minutes(5)).await;
        assert!(world.is_active(&key));
        assert_eq!(on_topic(&world, NoticeKind::Delayed), 1);
        world.clear(&key, USER);
    };
    let (alarm, ()) = tokio::join!(world.alarm(finding(&key, USER)), person);
    alarm.incident().expect(Outcome::Blocked, "FalseAlarm");
    assert!(world.is_active(&key));
    assert_eq!(writes(&world), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn what_nobody_stops_in_time_is_contained() {
    // Nobody says anything; or the word is lost; or the policy is taken away or made longer meanwhile.
    for lost in ["silence", "garbled", "unread", "gone", "longer"] {
        let world = World::leaked();
        world.emergency_policy(&json!({"rules": [{"then": {"after": 10}}]}));
        let key = world.current_key();
        let watch = async {
            tokio::time::sleep(minutes(5)).await;
            assert!(world.is_active(&key), "{lost}");
            let record = Record::parameter(STAGE, &key.parse().unwrap());
            match lost {
                "garbled" => {
                    drop(world.fake.state().parameters.insert(record, "{\"state\":\"cleared\"".into()));
                }
                "unread" => drop(world.fake.state().denied.insert("ssm:GetParameters".into())),
                "gone" => drop(world.fake.state().parameters.remove(&format!("/keywheel/{STAGE}/emergency"))),
                "longer" => world.emergency_policy(&json!({"rules": [{"then": {"after": 60}}]})),
                _ => {}
            }
            tokio::time::sleep(minutes(5) + std::time::Duration::from_secs(5)).await;
            assert!(!world.is_active(&key), "{lost}");
        };
        let (alarm, ()) = tokio::join!(world.alarm(finding(&key, USER)), watch);
        alarm.incident().expect(Outcome::Contained, "Contained");
    }
}

#[tokio::test(start_paused = true)]
async fn the_replacement_may_come_first() {
    let world = World::leaked();
    world.consumer();
    world.emergency_policy(&json!({"rules": [{"user": "svc-*", "then": {"replace_first": 10}}]}));
    let key = world.current_key();
    let watch = async {
        tokio::time::sleep(minutes(2)).await;
        assert_ne!(world.current_key(), key);
        assert!(!world.is_active(&key), "replaced, and the bound is not waited for");
    };
    let (alarm, ()) = tokio::join!(world.alarm(finding(&key, USER)), watch);
    alarm.incident().expect(Outcome::Contained, "Contained");
    world.assert_replaced();
    // The application was never without a key.
    let state = world.fake.state();
    let moved = state.calls.iter().position(|call| call.params["VersionStage"] == "AWSCURRENT").unwrap();
    let off = state.calls.iter().position(|call| call.params["Status"] == "Inactive").unwrap();
    assert!(moved < off, "Inactive before it was replaced");
}

#[tokio::test(start_paused = true)]
async fn a_replacement_that_does_not_come_is_not_waited_for_past_the_bound() {
    for broken in ["paused", "denied", "never valid"] {
        let world = World::leaked();
        world.emergency_policy(&json!({"rules": [{"user": USER, "then": {"replace_first": 10}}]}));
        let key = world.current_key();
        match broken {
            "paused" => world.mode("paused"),
            "denied" => drop(world.fake.state().denied.insert("states:StartExecution".into())),
            _ => world.fake.state().options.valid_after = hours(2),
        }
        let watch = async {
            tokio::time::sleep(minutes(9)).await;
            assert!(world.is_active(&key), "{broken}");
            tokio::time::sleep(minutes(1) + std::time::Duration::from_secs(30)).await;
            assert!(!world.is_active(&key), "{broken}");
        };
        let (alarm, ()) = tokio::join!(world.alarm(finding(&key, USER)), watch);
        alarm.incident().expect(Outcome::Contained, "Contained");
    }
}

#[tokio::test(start_paused = true)]
async fn by_policy_a_person_decides() {
    let world = World::leaked();
    world.emergency_policy(&json!({"rules": [{"source": "guardduty", "then": "page"}]}));
    let key = world.current_key();
    let alarm = world.alarm(finding(&key, USER)).await;
    alarm.incident().expect(Outcome::Blocked, "ForAPerson");
    assert!(world.is_active(&key));
    assert_eq!((writes(&world).len(), on_topic(&world, NoticeKind::Ended)), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_cannot_be_understood_delays_nothing() {
    let world = World::leaked();
    world.emergency_policy(&json!({"rules": [{"then": {"after": 600}}]}));
    let key = world.current_key();
    let alarm = world.alarm(finding(&key, USER)).await;
    alarm.incident().expect(Outcome::Contained, "Contained");
    assert!(alarm.incident().text().contains("emergency policy"), "{}", alarm.incident().text());
}

#[tokio::test(start_paused = true)]
async fn a_false_alarm_is_respected_until_its_time_is_over() {
    let world = World::leaked();
    let key = world.current_key();
    let event = finding(&key, USER);
    world.clear(&key, USER);
    // GuardDuty repeats itself every six hours.
    for told in 1..=3 {
        world.alarm(event.clone()).await.incident().expect(Outcome::Blocked, "FalseAlarm");
        assert!(world.is_active(&key));
        assert_eq!((writes(&world).len(), on_topic(&world, NoticeKind::Ended)), (0, told));
        tokio::time::sleep(hours(6)).await;
    }
    tokio::time::sleep(hours(24 * 7)).await;
    world.alarm(event).await.incident().expect(Outcome::Contained, "Contained");
    assert!(!world.is_active(&key));
}

#[tokio::test(start_paused = true)]
async fn a_clearance_that_cannot_be_read_does_not_exist() {
    let world = World::leaked();
    let key = world.current_key();
    world.clear(&key, USER);
    world.fake.state().denied.insert("ssm:GetParameters".into());
    world.alarm(finding(&key, USER)).await.incident().expect(Outcome::Contained, "Contained");
    assert!(!world.is_active(&key));
}

#[tokio::test(start_paused = true)]
async fn a_false_alarm_undone_while_the_incident_goes_on_stays_undone() {
    let world = World::leaked();
    let key = world.stranger("alice");
    world.leak(&key);
    let event = finding(&key, "alice");
    let person = async {
        tokio::time::sleep(minutes(1)).await;
        world.clear(&key, "alice");
        world.switch_key(&key, true);
        // The same finding once more, while the first incident still waits for the sessions' end.
        tokio::time::sleep(hours(6)).await;
        let before = writes(&world);
        world.alarm(event.clone()).await.incident().expect(Outcome::Blocked, "FalseAlarm");
        assert!(world.is_active(&key));
        assert_eq!(writes(&world), before);
    };
    let (alarm, ()) = tokio::join!(world.alarm(event.clone()), person);
    alarm.incident().expect(Outcome::RolledBack, "FalseAlarm");
    assert!(world.is_active(&key));
}
