//! Keys that appear while another one is contained, and leaked ones that come back.

use std::time::Duration;

use keywheel::incident::Course;
use keywheel::notice::NoticeKind;
use keywheel::rotation::Outcome;
use serde_json::json;
use support::alarm::{finding, made_active};
use support::fake::Maker;
use support::faults::{Fault, Kind, Plan};
use support::world::{USER, World, hours};

use crate::{minutes, on_topic, writes};

#[tokio::test(start_paused = true)]
async fn a_key_minted_in_the_gap_is_part_of_the_leak() {
    for managed in [true, false] {
        let world = World::leaked();
        let (key, user) =
            if managed { (world.current_key(), USER) } else { (world.stranger("alice"), "alice") };
        world.leak(&key);
        let thief = async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            let minted = world.fake.state().add_key(user, Maker::Stranger);
            let issued = world.fake.state().now();
            tokio::time::sleep(Duration::from_secs(80)).await;
            assert!(!world.is_active(&minted), "managed: {managed}");
            // It may have minted sessions until it was found.
            tokio::time::sleep(minutes(10)).await;
            assert!(world.fake.state().denies_session(user, issued));
            minted
        };
        let (alarm, minted) = tokio::join!(world.alarm(finding(&key, user)), thief);
        let incident = alarm.incident();
        incident.expect(Outcome::Contained, "Contained");
        assert!(incident.told(NoticeKind::KeyMinted));
        assert!(incident.doc.keys.iter().any(|key| key.as_str() == minted));
        if managed {
            world.assert_replaced();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_appears_minutes_later_is_a_colleagues_and_is_only_told() {
    for managed in [true, false] {
        let world = World::leaked();
        let (key, user) =
            if managed { (world.current_key(), USER) } else { (world.stranger("alice"), "alice") };
        world.leak(&key);
        let colleague = async {
            tokio::time::sleep(Duration::from_secs(280)).await;
            world.fake.state().add_key(user, Maker::Stranger)
        };
        let (alarm, theirs) = tokio::join!(world.alarm(finding(&key, user)), colleague);
        alarm.incident().expect(Outcome::Contained, "Contained");
        assert!(world.is_active(&theirs), "managed: {managed}");
        assert!(alarm.incident().told(NoticeKind::KeyMinted), "managed: {managed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_minted_while_containment_takes_its_time_is_part_of_the_leak() {
    let world = World::leaked();
    let key = world.stranger("alice");
    world.leak(&key);
    world.fake.state().denied.insert("iam:UpdateAccessKey".into());
    let thief = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let minted = world.fake.state().add_key("alice", Maker::Stranger);
        tokio::time::sleep(minutes(10)).await;
        world.fake.state().denied.clear();
        minted
    };
    let (alarm, minted) = tokio::join!(world.alarm(finding(&key, "alice")), thief);
    alarm.incident().expect(Outcome::Contained, "Contained");
    assert!(!world.is_active(&key) && !world.is_active(&minted));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_people_make_while_the_policy_gives_them_time_is_only_told() {
    let world = World::leaked();
    let key = world.stranger("alice");
    world.leak(&key);
    world.emergency_policy(&serde_json::json!({"rules": [{"then": {"after": 10}}]}));
    let person = async {
        tokio::time::sleep(minutes(5)).await;
        world.fake.state().add_key("alice", Maker::Stranger)
    };
    let (alarm, theirs) = tokio::join!(world.alarm(finding(&key, "alice")), person);
    alarm.incident().expect(Outcome::Contained, "Contained");
    assert!(!world.is_active(&key) && world.is_active(&theirs));
    assert!(alarm.incident().told(NoticeKind::KeyMinted));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_cannot_be_read_makes_nobodys_key_part_of_the_leak() {
    // The replacement stores its key after the store was read last: what was read then says nothing of it.
    for call in ["iam:GetUser", "secretsmanager:DescribeSecret", "secretsmanager:GetSecretValue"] {
        let world = World::leaked();
        let key = world.current_key();
        let outage = async {
            tokio::time::sleep(Duration::from_secs(10)).await;
            world.fake.state().denied.insert(call.into());
            tokio::time::sleep(minutes(20)).await;
            world.fake.state().denied.clear();
        };
        let (alarm, ()) = tokio::join!(world.alarm(finding(&key, USER)), outage);
        alarm.incident().expect(Outcome::Contained, "Contained");
        world.assert_replaced();
    }
}

#[tokio::test(start_paused = true)]
async fn the_replacements_own_key_is_no_part_of_the_leak() {
    for slow in [0, 8, 40] {
        let world = World::leaked();
        world.consumer();
        let key = world.current_key();
        world.fake.state().options.valid_after = Duration::from_secs(slow);
        let alarm = world.alarm(finding(&key, USER)).await;
        alarm.incident().expect(Outcome::Contained, "Contained");
        assert!(!alarm.incident().told(NoticeKind::KeyMinted), "{:?}", alarm.incident().doc.notices);
        world.assert_replaced();
    }
}

#[tokio::test(start_paused = true)]
async fn a_leaked_key_that_somebody_makes_active_is_contained_again_at_the_next_look() {
    for after in [5, 100] {
        let world = World::leaked();
        let key = world.stranger("alice");
        world.leak(&key);
        let thief = async {
            tokio::time::sleep(Duration::from_secs(after)).await;
            world.switch_key(&key, true);
        };
        let (alarm, ()) = tokio::join!(world.alarm(finding(&key, "alice")), thief);
        alarm.incident().expect(Outcome::Contained, "Contained");
        assert!(!world.is_active(&key) && alarm.incident().told(NoticeKind::Reactivated));
    }
}

#[tokio::test(start_paused = true)]
async fn a_leaked_key_that_is_made_active_later_is_contained_by_its_record() {
    let world = World::leaked();
    let key = world.stranger("alice");
    world.leak(&key);
    let later = async {
        tokio::time::sleep(hours(24 * 3)).await;
        world.switch_key(&key, true);
        let alarm = world.alarm(made_active(&key, "alice")).await;
        alarm.incident().expect(Outcome::Contained, "Contained");
    };
    let (alarm, ()) = tokio::join!(world.alarm(finding(&key, "alice")), later);
    alarm.incident().expect(Outcome::Contained, "Contained");
    assert!(!world.is_active(&key));
}

#[tokio::test(start_paused = true)]
async fn nobody_makes_a_leaked_key_active_under_our_names() {
    let world = World::leaked();
    let key = world.stranger("alice");
    world.leak(&key);
    world.alarm(finding(&key, "alice")).await.incident().expect(Outcome::Contained, "Contained");
    world.switch_key(&key, true);
    let mut event = made_active(&key, "alice");
    event["detail"]["userAgent"] =
        json!(format!("aws-sdk-rust/1.3 app/keywheel-{}", keywheel::RunId::random()));
    event["detail"]["userIdentity"] = json!({
        "type": "AssumedRole", "arn": "arn:aws:sts::111122223333:assumed-role/Admin/keywheel-test-roll-back",
        "sessionContext": {"sessionIssuer": {"type": "Role", "arn": "arn:aws:iam::111122223333:role/Admin"}},
    });
    world.alarm(event).await.incident().expect(Outcome::Contained, "Contained");
    assert!(!world.is_active(&key));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_never_leaked_may_be_made_active() {
    let world = World::leaked();
    let key = world.stranger("alice");
    let alarm = world.alarm(made_active(&key, "alice")).await;
    assert_eq!(alarm.alert().course, Course::Incidents);
    alarm.incident().expect(Outcome::Blocked, "NotLeaked");
    assert!(world.is_active(&key));
    assert_eq!((writes(&world).len(), on_topic(&world, NoticeKind::Ended)), (0, 0), "nobody is bothered");
}

#[tokio::test(start_paused = true)]
async fn whether_a_key_leaked_that_cannot_be_read_is_for_a_person() {
    let world = World::leaked();
    let key = world.stranger("alice");
    world.fake.state().denied.insert("ssm:GetParameters".into());
    let alarm = world.alarm(made_active(&key, "alice")).await;
    alarm.incident().expect(Outcome::Blocked, "RecordUnreadable");
    assert!(world.is_active(&key));
    assert_eq!(on_topic(&world, NoticeKind::Ended), 1);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_cannot_be_read_at_once_is_asked_for_again() {
    let world = World::leaked();
    let key = world.current_key();
    world.alarm(finding(&key, USER)).await.incident().expect(Outcome::Contained, "Contained");
    world.switch_key(&key, true);
    world.fake.state().standing = Plan::new([Fault::on("ssm:GetParameters", Kind::TimeoutBefore).times(3)]);
    let alarm = world.alarm(made_active(&key, USER)).await;
    alarm.incident().expect(Outcome::Contained, "Contained");
    assert!(!world.is_active(&key));
}
