//! Whose credential it is: by IAM's word, never by the event's.

use keywheel::incident::Course;
use keywheel::notice::NoticeKind;
use keywheel::rotation::Outcome;
use serde_json::{Value, json};
use support::alarm::{exposed, finding, made_active, report};
use support::faults::{Fault, Kind, Plan};
use support::world::{USER, World, hours};

use crate::{minutes, on_topic, path_to_inactive, writes};

#[tokio::test(start_paused = true)]
async fn a_key_of_a_user_that_is_not_managed_is_contained_as_well() {
    let world = World::leaked();
    let key = world.stranger("alice");
    world.leak(&key);
    let alarm = world.alarm(finding(&key, "alice")).await;
    alarm.incident().expect(Outcome::Contained, "Contained");
    assert!(!world.is_active(&key) && world.is_active(&world.current_key()));
    assert_eq!(path_to_inactive(&world).0.len(), 2);
    assert!(alarm.rotations.is_empty(), "nothing of a stranger's is replaced");
    assert_eq!(world.policies("alice"), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn the_owner_is_whom_iam_names() {
    let world = World::leaked();
    let bystander = world.stranger("bob");
    let key = world.current_key();
    let watch = async {
        tokio::time::sleep(minutes(10)).await;
        assert_eq!(world.policies("bob"), Vec::<String>::new());
    };
    let (alarm, ()) = tokio::join!(world.alarm(finding(&key, "bob")), watch);
    let incident = alarm.incident();
    incident.expect(Outcome::Contained, "Contained");
    assert_eq!(incident.doc.user.as_ref().unwrap().as_str(), USER);
    assert!(!world.is_active(&key) && world.is_active(&bystander));
}

#[tokio::test(start_paused = true)]
async fn where_iam_does_not_tell_the_owner_the_events_own_pair_is_tried() {
    let world = World::leaked();
    let key = world.current_key();
    world.fake.state().denied.insert("iam:GetAccessKeyLastUsed".into());
    let alarm = world.alarm(finding(&key, USER)).await;
    let incident = alarm.incident();
    incident.expect(Outcome::Contained, "Contained");
    assert!(!world.is_active(&key));
    assert!(incident.text().contains("iam:GetAccessKeyLastUsed"), "{}", incident.text());
}

#[tokio::test(start_paused = true)]
async fn a_pair_that_does_not_match_is_never_touched() {
    let world = World::leaked();
    let key = world.current_key();
    let bystander = world.stranger("bob");
    world.fake.state().denied.insert("iam:GetAccessKeyLastUsed".into());
    let watch = async {
        tokio::time::sleep(hours(2)).await;
        assert_eq!(world.policies("bob"), Vec::<String>::new());
        assert!(world.is_active(&bystander) && world.is_active(&key));
        assert!(on_topic(&world, NoticeKind::NotContained) > 0, "nobody was told");
        world.fake.state().denied.clear();
        tokio::time::sleep(minutes(16)).await;
        assert!(!world.is_active(&key), "contained as soon as IAM tells");
    };
    let (alarm, ()) = tokio::join!(world.alarm(finding(&key, "bob")), watch);
    alarm.incident().expect(Outcome::Contained, "Contained");
    assert!(world.is_active(&bystander));
}

#[tokio::test(start_paused = true)]
async fn a_hundred_credentials_of_which_one_is_malformed() {
    let world = World::leaked();
    let mut keys = Vec::new();
    for number in 0..99 {
        let key = world.stranger(&format!("user-{number}"));
        world.leak(&key);
        keys.push(key);
    }
    let mut entities: Vec<&str> = keys.iter().map(String::as_str).collect();
    entities.insert(40, "no key; drop table");
    let event = exposed(entities);
    let alarm = world.alarm(event).await;
    assert_eq!(alarm.incidents.len(), 99);
    for incident in &alarm.incidents {
        incident.expect(Outcome::Contained, "Contained");
    }
    assert!(keys.iter().all(|key| !world.is_active(key)));
    assert!(world.is_active(&world.current_key()), "a key that the event does not name");
    // The one that could not be understood may be the gravest: it is told, once.
    let told = alarm.alert().notices.iter().map(|notice| &notice.text).collect::<Vec<_>>();
    assert!(told.len() == 1 && told[0].contains("1 of its entities could not be understood"), "{told:?}");
    assert_eq!(on_topic(&world, NoticeKind::Event), 1);
}

#[tokio::test(start_paused = true)]
async fn that_a_part_could_not_be_understood_is_tried_for_a_day() {
    let world = World::leaked();
    let key = world.stranger("alice");
    world.leak(&key);
    world.fake.state().denied.insert("sns:Publish".into());
    let mended = async {
        tokio::time::sleep(hours(3)).await;
        world.fake.state().denied.clear();
    };
    let event = report([key.as_str(), "no key at all"]);
    let (alarm, ()) = tokio::join!(world.alarm(event), mended);
    alarm.incident().expect(Outcome::Contained, "Contained");
    assert_eq!((alarm.walk.status, on_topic(&world, NoticeKind::Event)), ("SUCCEEDED", 1));
}

/// A finding of AWS about so many keys that are gone, and some that are there.
fn about_many(there: &[String], gone: u32) -> Value {
    let id = |number: u32| {
        let letter = |power: u32| char::from(b'A' + u8::try_from(number / 26_u32.pow(power) % 26).unwrap());
        format!("AKIAGONEGONEGONEG{}{}{}", letter(2), letter(1), letter(0))
    };
    let gone: Vec<String> = (0..gone).map(id).collect();
    exposed(gone.iter().chain(there).map(String::as_str))
}

#[tokio::test(start_paused = true)]
async fn a_finding_of_aws_has_as_many_credentials_as_it_has() {
    let world = World::leaked();
    let key = world.stranger("alice");
    world.leak(&key);
    let alarm = world.alarm(about_many(std::slice::from_ref(&key), 550)).await;
    assert_eq!((alarm.walk.status, alarm.incidents.len()), ("SUCCEEDED", 551));
    let triaged = alarm.walk.states().iter().filter(|state| state.starts_with("Triage")).count();
    assert!(triaged > 1, "one document held them all");
    assert!(!world.is_active(&key));
}

#[tokio::test(start_paused = true)]
async fn all_credentials_of_a_finding_have_their_turn_before_one_gets_another() {
    let world = World::leaked();
    let keys: Vec<String> = (0..8).map(|number| world.stranger(&format!("user-{number}"))).collect();
    for key in &keys {
        world.leak(key);
    }
    // No incident can be started, and the keys that are there cannot be made Inactive either, for some minutes.
    world.fake.state().plan = Plan::new(vec![
        Fault::within("StartIncident", 0, Kind::Refused).for_good(),
        Fault::on("iam:UpdateAccessKey", Kind::Refused).for_good(),
    ]);
    let mended = async {
        tokio::time::sleep(minutes(3)).await;
        world.fake.state().plan = Plan::default();
    };
    let (alarm, ()) = tokio::join!(world.alarm(about_many(&keys, 550)), mended);
    assert_eq!(alarm.walk.status, "SUCCEEDED", "{:?}", alarm.walk.error);
    let states = alarm.walk.states();
    let place = |name: &str| states.iter().position(|state| *state == name).unwrap();
    // The second document's credentials had their turn before those of the first got another.
    assert!(place("TriageRest") < place("WaitToBeginAnew"), "{states:?}");
    assert!(keys.iter().all(|key| !world.is_active(key)));
}

#[tokio::test(start_paused = true)]
async fn a_key_of_another_account_is_told_and_not_touched() {
    let world = World::leaked();
    let key = "AKIA9999FOREIGN00001";
    world.fake.state().foreign.insert(key.into(), "999988887777".into());
    // The event says that it is ours, and the user's name is one of ours.
    let alarm = world.alarm(finding(key, USER)).await;
    let incident = alarm.incident();
    incident.expect(Outcome::Blocked, "ForeignAccount");
    assert!(incident.text().contains("999988887777"), "{}", incident.text());
    assert_eq!(writes(&world), Vec::<String>::new());
    assert_eq!(on_topic(&world, NoticeKind::Ended), 1);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_nobody_knows_is_gone() {
    let world = World::leaked();
    world.alarm(finding("AKIANOBODYKNOWSME000", USER)).await.incident().expect(Outcome::Blocked, "KeyGone");
    let key = world.stranger("alice");
    world.leak(&key);
    let now = world.fake.state().now();
    world.fake.state().key_mut(&key).deleted = Some(now);
    world.alarm(finding(&key, "alice")).await.incident().expect(Outcome::Blocked, "KeyGone");
    assert_eq!(writes(&world), Vec::<String>::new());
}

fn finding_of(key: &str, kind: &str, name: &str) -> Value {
    let mut event = finding(key, name);
    event["detail"]["resource"]["accessKeyDetails"]["userType"] = json!(kind);
    event
}

#[tokio::test(start_paused = true)]
async fn the_root_and_roles_are_told_by_their_names_and_not_touched() {
    let world = World::leaked();
    let root = finding_of("AKIAROOTSOWNKEY00000", "Root", "Root");
    world.alarm(root).await.incident().expect(Outcome::Blocked, "Root");
    let role = finding_of("ASIAROLESSESSION0000", "AssumedRole", "worker");
    world.alarm(role).await.incident().expect(Outcome::Blocked, "RoleSession");
    assert_eq!(writes(&world), Vec::<String>::new());
    assert_eq!(on_topic(&world, NoticeKind::Ended), 2);
}

#[tokio::test(start_paused = true)]
async fn a_users_session_is_denied_and_a_person_finds_its_key() {
    let world = World::leaked();
    let key = world.current_key();
    let issued = world.fake.state().now();
    let watch = async {
        tokio::time::sleep(minutes(10)).await;
        let state = world.fake.state();
        assert!(state.denies_session(USER, issued) && !state.denies_keys(USER));
    };
    let event = finding_of("ASIAUSERSSESSION0000", "IAMUser", USER);
    let (alarm, ()) = tokio::join!(world.alarm(event), watch);
    let incident = alarm.incident();
    incident.expect(Outcome::Contained, "SessionDenied");
    assert!(incident.doc.why.as_ref().unwrap().remedy.contains(&key), "{:?}", incident.doc.why);
    assert!(world.is_active(&key), "which key minted it is not known");
    assert_eq!(world.policies(USER), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_detectors_sample_is_told_and_changes_nothing() {
    let world = World::leaked();
    let mut sample = finding(&world.current_key(), USER);
    sample["detail"]["service"]["additionalInfo"] = json!({"sample": true});
    let alarm = world.alarm(sample).await;
    assert_eq!(alarm.alert().course, Course::Tell);
    assert!(alarm.incidents.is_empty() && world.is_active(&world.current_key()));
    assert_eq!(writes(&world), Vec::<String>::new());
    assert_eq!(on_topic(&world, NoticeKind::Event), 1);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_understood_is_loud_and_changes_nothing() {
    let world = World::leaked();
    for event in
        [json!({}), json!({"source": "keywheel.leak", "detail-type": "Leaked Access Key", "detail": {}})]
    {
        let alarm = world.alarm(event).await;
        assert_eq!((alarm.walk.status, alarm.alert().course), ("FAILED", Course::Reject));
        assert_eq!(alarm.walk.error.as_ref().unwrap().error, "Keywheel.Rejected");
    }
    assert_eq!((writes(&world).len(), on_topic(&world, NoticeKind::Event)), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn a_repeat_says_so_once_and_starts_nothing() {
    let world = World::leaked();
    let key = world.current_key();
    let again = async {
        tokio::time::sleep(hours(6)).await;
        let (before, told) = (writes(&world), on_topic(&world, NoticeKind::Ended));
        let alarm = world.alarm(finding(&key, USER)).await;
        alarm.incident().expect(Outcome::Contained, "AlreadyContained");
        assert_eq!(alarm.incident().doc.notices.len(), 1);
        assert!(alarm.rotations.is_empty());
        assert_eq!((writes(&world), on_topic(&world, NoticeKind::Ended)), (before, told + 1));
    };
    let (alarm, ()) = tokio::join!(world.alarm(finding(&key, USER)), again);
    alarm.incident().expect(Outcome::Contained, "Contained");
    world.assert_replaced();
}

#[tokio::test(start_paused = true)]
async fn more_reports_over_the_bus_than_the_policy_allows_are_held() {
    let world = World::leaked();
    let keys: Vec<String> = (0..30).map(|number| world.stranger(&format!("user-{number}"))).collect();
    for key in &keys {
        world.leak(key);
    }
    let alarm = world.alarm(report(keys.iter().map(String::as_str))).await;
    for incident in &alarm.incidents {
        incident.expect(Outcome::Blocked, "Braked");
    }
    assert!(keys.iter().all(|key| world.is_active(key)));
    assert_eq!(on_topic(&world, NoticeKind::Ended), 30);
    // What AWS itself finds is never braked.
    world.alarm(finding(&keys[0], "user-0")).await.incident().expect(Outcome::Contained, "Contained");
    // A single report is acted on.
    tokio::time::sleep(hours(1)).await;
    let alarm = world.alarm(report([keys[1].as_str()])).await;
    alarm.incident().expect(Outcome::Contained, "Contained");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_report_does_not_pull_the_brake() {
    let world = World::leaked();
    let (key, other) = (world.current_key(), world.stranger("mallory"));
    // Whoever holds the key makes noise first.
    for _ in 0..30 {
        world.alarm(made_active(&other, "mallory")).await;
    }
    world.alarm(report([key.as_str()])).await.incident().expect(Outcome::Contained, "Contained");
    assert!(!world.is_active(&key));
}

#[tokio::test(start_paused = true)]
async fn a_report_that_was_admitted_is_not_let_go_of_for_what_comes_later() {
    let world = World::leaked();
    let key = world.current_key();
    world.emergency_policy(&json!({"rules": [{"then": {"after": 15}}]}));
    let other = world.stranger("mallory");
    world.leak(&other);
    // Whoever holds the key makes noise meanwhile.
    let noise = async {
        tokio::time::sleep(minutes(8)).await;
        for _ in 0..30 {
            world.alarm(report([other.as_str()])).await;
        }
    };
    let (alarm, ()) = tokio::join!(world.alarm(report([key.as_str()])), noise);
    alarm.incident().expect(Outcome::Contained, "Contained");
    assert!(!world.is_active(&key));
}
