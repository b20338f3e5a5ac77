//! Keys of other accounts, which let the hub in through a role of theirs.

use keywheel::RunId;
use keywheel::incident::Way;
use keywheel::notice::NoticeKind;
use keywheel::rotation::Outcome;
use serde_json::{Value, json};
use support::alarm::finding;
use support::faults::{Fault, Kind, Plan};
use support::world::{USER, World};

use crate::{minutes, on_topic, path_to_inactive, writes};

const MEMBER: &str = "444455556666";

/// A finding that speaks of another account.
fn finding_in(account: &str, key: &str, user: &str) -> Value {
    let mut event = finding(key, user);
    event["detail"]["accountId"] = json!(account);
    event
}

/// A user of another account that is called like the managed one here, and its leaked key.
fn leaked_in_a_member() -> (World, String) {
    let world = World::leaked();
    let key = world.member(MEMBER, USER);
    world.leak(&key);
    (world, key)
}

/// Nothing that was done touched the user of the same name in the hub's account.
fn assert_ours_untouched(world: &World) {
    assert!(world.is_active(&world.current_key()));
    assert_eq!(world.policies(USER), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_key_of_another_account_is_contained_there_after_two_calls_more() {
    let (world, key) = leaked_in_a_member();
    let before = world.fake.state().now();
    world.fake.state().use_key(&key, "s3", before);
    let theirs = format!("{MEMBER}/{USER}");
    let watch = async {
        tokio::time::sleep(minutes(10)).await;
        assert!(world.fake.state().denies_session(&theirs, before));
        assert_ours_untouched(&world);
    };
    let (alarm, ()) = tokio::join!(world.alarm(finding_in(MEMBER, &key, USER)), watch);
    let incident = alarm.incident();
    incident.expect(Outcome::Contained, "Contained");
    let path = ["sts:GetAccessKeyInfo", "sts:AssumeRole", "iam:GetAccessKeyLastUsed", "iam:UpdateAccessKey"];
    assert_eq!(path_to_inactive(&world), (path.map(str::to_owned).to_vec(), 1));
    assert!(!world.is_active(&key));
    assert!(!world.fake.state().denies_session(&theirs, before), "the longest session has ended");
    assert_eq!(incident.doc.account.as_deref(), Some(MEMBER));
    assert_eq!(incident.doc.failed, Vec::<String>::new());
    // What the key did is asked there, and there only.
    assert!(incident.doc.findings.as_ref().is_some_and(|findings| findings.events > 0), "{:?}", incident.doc);
    assert_eq!(alarm.rotations.len(), 0);
    assert_ours_untouched(&world);
    world.assert_promises();
}

/// The managed user is of the other account, with a consumer.
fn managed_there() -> (World, String) {
    let world = World::elsewhere(MEMBER);
    world.containment("on");
    world.consumer();
    let key = world.current_key();
    (world, key)
}

#[tokio::test(start_paused = true)]
async fn the_application_of_a_managed_user_there_gets_another_key() {
    let (world, key) = managed_there();
    world.leak(&key);
    let alarm = world.alarm(finding_in(MEMBER, &key, USER)).await;
    let incident = alarm.incident();
    incident.expect(Outcome::Contained, "Contained");
    let replacement = incident.doc.replacement.as_ref().unwrap();
    assert_eq!((replacement.way, replacement.working), (Way::New, true), "{replacement:?}");
    let current = world.current_key();
    assert!(current != key && world.is_active(&current) && !world.is_active(&key));
    assert!(!world.fake.state().denies_keys(&format!("{MEMBER}/{USER}")));
    world.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn p1_what_a_rotation_there_has_just_made_is_no_part_of_the_leak() {
    let (world, old) = managed_there();
    let work = async {
        tokio::time::sleep(minutes(1)).await;
        let new = world.current_key();
        assert_ne!(new, old);
        world.leak(&old);
        let alarm = world.alarm(finding_in(MEMBER, &old, USER)).await;
        alarm.incident().expect(Outcome::Contained, "Contained");
        assert_eq!(alarm.incident().doc.replacement.as_ref().unwrap().way, Way::NotNeeded);
        assert!(!world.is_active(&old) && world.is_active(&new));
    };
    world.beside(RunId::random(), json!({"secret": world.secret_arn()}), work).await;
    world.assert_promises();
}

#[tokio::test(start_paused = true)]
async fn whose_it_is_says_sts_and_not_the_event() {
    // The event calls it ours.
    let (world, key) = leaked_in_a_member();
    world.alarm(finding(&key, USER)).await.incident().expect(Outcome::Contained, "Contained");
    assert!(!world.is_active(&key));
    assert_ours_untouched(&world);
    // The event calls ours another account's, also where STS does not say.
    for silent in [false, true] {
        let world = World::leaked();
        world.member(MEMBER, USER);
        if silent {
            world.fake.state().denied.insert("sts:GetAccessKeyInfo".into());
        }
        let ours = world.current_key();
        world.alarm(finding_in(MEMBER, &ours, USER)).await.incident().expect(Outcome::Contained, "Contained");
        assert!(!world.is_active(&ours), "silent: {silent}");
    }
}

#[tokio::test(start_paused = true)]
async fn where_sts_does_not_say_the_events_word_is_tried() {
    let (world, key) = leaked_in_a_member();
    world.fake.state().denied.insert("sts:GetAccessKeyInfo".into());
    let alarm = world.alarm(finding_in(MEMBER, &key, USER)).await;
    alarm.incident().expect(Outcome::Contained, "Contained");
    assert!(!world.is_active(&key));
    // And where it is wrong, nothing is taken for gone: it is tried until STS says.
    let (world, key) = leaked_in_a_member();
    world.fake.state().denied.insert("sts:GetAccessKeyInfo".into());
    let mended = async {
        tokio::time::sleep(minutes(30)).await;
        assert!(on_topic(&world, NoticeKind::NotContained) > 0);
        world.fake.state().denied.clear();
    };
    let (alarm, ()) = tokio::join!(world.alarm(finding(&key, USER)), mended);
    alarm.incident().expect(Outcome::Contained, "Contained");
    assert!(!world.is_active(&key));
    assert_ours_untouched(&world);
}

#[tokio::test(start_paused = true)]
async fn an_account_that_lets_nobody_in_is_told_and_one_that_opens_late_is_entered() {
    let (world, key) = leaked_in_a_member();
    world.fake.state().open.clear();
    let alarm = world.alarm(finding_in(MEMBER, &key, USER)).await;
    let incident = alarm.incident();
    incident.expect(Outcome::Blocked, "ForeignAccount");
    assert!(incident.text().contains(MEMBER), "{}", incident.text());
    assert_eq!((writes(&world), on_topic(&world, NoticeKind::Ended)), (Vec::new(), 1));
    // Its role was made a moment ago.
    let (world, key) = leaked_in_a_member();
    world.fake.state().plan = Plan::new([Fault::on("sts:AssumeRole", Kind::Refused)]);
    let alarm = world.alarm(finding_in(MEMBER, &key, USER)).await;
    alarm.incident().expect(Outcome::Contained, "Contained");
}

#[tokio::test(start_paused = true)]
async fn a_session_of_another_account_is_not_taken_for_that_of_a_user_of_the_same_name() {
    for members in [false, true] {
        let (world, _) = leaked_in_a_member();
        let session = "ASIAMEMBERSESSION000";
        world.fake.state().foreign.insert(session.into(), MEMBER.into());
        if !members {
            world.fake.state().external_id = None;
        }
        let alarm = world.alarm(finding_in(MEMBER, session, USER)).await;
        assert_ours_untouched(&world);
        let (outcome, why) = if members {
            (Outcome::Contained, "SessionDenied")
        } else {
            (Outcome::Blocked, "ForeignAccount")
        };
        alarm.incident().expect(outcome, why);
        let put = writes(&world).iter().filter(|name| *name == "iam:PutUserPolicy").count();
        assert_eq!(put, usize::from(members), "members: {members}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_user_whose_policies_are_full_is_denied_by_a_managed_policy_of_its_own_account() {
    let (world, key) = leaked_in_a_member();
    world.fake.state().fill_inline(&format!("{MEMBER}/{USER}"), 100);
    world.fake.state().plan = Plan::new([Fault::on("iam:CreatePolicy", Kind::LostAfter)]);
    let alarm = world.alarm(finding_in(MEMBER, &key, USER)).await;
    alarm.incident().expect(Outcome::Contained, "Contained");
    assert!(world.fake.state().managed.is_empty());
    world.assert_promises();
}

/// While IAM refuses there, the user is denied everything there, and a door that shuts meanwhile frees no key.
#[tokio::test(start_paused = true)]
async fn p3_while_iam_refuses_there_the_user_is_denied_everything_there_and_a_shut_door_ends_nothing() {
    let (world, key) = leaked_in_a_member();
    let theirs = format!("{MEMBER}/{USER}");
    world.fake.state().denied.insert("iam:UpdateAccessKey".into());
    let watch = async {
        tokio::time::sleep(minutes(5)).await;
        assert!(world.fake.state().denies_keys(&theirs));
        assert!(!world.fake.state().denies_keys(USER), "a user of the same name here");
        world.fake.state().open.clear();
        tokio::time::sleep(minutes(60)).await;
        assert!(world.is_active(&key) && on_topic(&world, NoticeKind::Ended) == 0, "given up");
        assert!(world.fake.state().denies_keys(&theirs));
        let mut state = world.fake.state();
        state.open.insert(MEMBER.into());
        state.denied.clear();
    };
    let (alarm, ()) = tokio::join!(world.alarm(finding_in(MEMBER, &key, USER)), watch);
    alarm.incident().expect(Outcome::Contained, "Contained");
    assert!(!world.is_active(&key));
    assert_eq!(world.policies(&theirs), Vec::<String>::new());
    assert_ours_untouched(&world);
}

/// Nothing is contained any more, and the account cannot be entered to say so.
#[tokio::test(start_paused = true)]
async fn p1_where_the_user_cannot_be_freed_there_people_are_told() {
    let (world, key) = leaked_in_a_member();
    world.fake.state().denied.insert("iam:UpdateAccessKey".into());
    let person = async {
        tokio::time::sleep(minutes(5)).await;
        world.fake.state().open.clear();
        world.clear(&key, USER);
        tokio::time::sleep(minutes(60)).await;
        assert_eq!(on_topic(&world, NoticeKind::Stuck), 1);
        world.fake.state().open.insert(MEMBER.into());
    };
    let (alarm, ()) = tokio::join!(world.alarm(finding_in(MEMBER, &key, USER)), person);
    alarm.incident().expect(Outcome::Blocked, "FalseAlarm");
    assert_eq!(world.policies(&format!("{MEMBER}/{USER}")), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn an_account_that_shuts_its_door_after_containment_leaves_an_incident_with_an_outcome() {
    let (world, key) = leaked_in_a_member();
    let shut = async {
        tokio::time::sleep(std::time::Duration::from_secs(10)).await;
        world.fake.state().open.clear();
        tokio::time::sleep(minutes(30)).await;
        assert_eq!(on_topic(&world, NoticeKind::Ended), 1);
        tokio::time::sleep(minutes(60 * 40)).await;
        world.fake.state().open.insert(MEMBER.into());
    };
    let (alarm, ()) = tokio::join!(world.alarm(finding_in(MEMBER, &key, USER)), shut);
    alarm.incident().expect(Outcome::Contained, "Contained");
    assert!(alarm.incident().text().contains("could not be looked at again"), "{}", alarm.incident().text());
    assert_eq!(world.policies(&format!("{MEMBER}/{USER}")), Vec::<String>::new());
}
