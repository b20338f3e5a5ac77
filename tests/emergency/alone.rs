//! P3: a leaked key ends Inactive, whatever else is on fire.

use jiff::SignedDuration;
use keywheel::notice::NoticeKind;
use keywheel::rotation::{Delivery, Outcome};
use serde_json::json;
use support::alarm::{exposed, finding, made_active, report};
use support::faults::{Fault, Kind, Plan};
use support::world::{USER, World, hours};

use crate::{minutes, on_topic};

#[tokio::test(start_paused = true)]
async fn p3_nothing_that_fails_beside_it_keeps_a_key_from_being_contained() {
    let world = World::leaked();
    let key = world.current_key();
    let started = world.fake.state().now();
    world.fake.state().denied.extend(
        [
            "secretsmanager:DescribeSecret",
            "secretsmanager:GetSecretValue",
            "secretsmanager:ListSecrets",
            "sns:Publish",
            "events:PutEvents",
            "cloudtrail:LookupEvents",
            "states:StartExecution",
            "ssm:GetParameters",
            "ssm:PutParameter",
            "iam:GetUser",
            "sts:GetAccessKeyInfo",
        ]
        .map(str::to_owned),
    );
    let alarm = world.alarm(finding(&key, USER)).await;
    let incident = alarm.incident();
    incident.expect(Outcome::Contained, "Contained");
    let contained = incident.doc.contained_at.unwrap();
    assert!(contained.duration_since(started) < SignedDuration::from_secs(1), "{contained}");
    for what in ["ssm:GetParameters", "ssm:PutParameter", "iam:GetUser"] {
        assert!(incident.text().contains(what), "{what} is not among what failed: {}", incident.text());
    }
    assert_eq!(incident.doc.delivery, Delivery::GaveUp);
}

#[tokio::test(start_paused = true)]
async fn p3_a_store_and_a_rotation_that_cannot_be_started_are_told() {
    for (call, said) in
        [("secretsmanager:DescribeSecret", "DescribeSecret"), ("states:StartExecution", "StartExecution")]
    {
        let world = World::leaked();
        let key = world.current_key();
        world.fake.state().denied.insert(call.into());
        let alarm = world.alarm(finding(&key, USER)).await;
        let incident = alarm.incident();
        incident.expect(Outcome::Contained, "Contained");
        assert!(incident.text().contains(said), "{}", incident.text());
        assert!(alarm.rotations.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn p3_an_incident_that_cannot_be_started_is_contained_by_the_emergency_itself() {
    let world = World::leaked();
    let key = world.current_key();
    world.fake.state().plan = Plan::new([Fault::within("StartIncident", 0, Kind::Refused).for_good()]);
    let alarm = world.alarm(finding(&key, USER)).await;
    assert!(alarm.incidents.is_empty());
    assert!(!world.is_active(&key));
    assert!(on_topic(&world, NoticeKind::Contained) > 0, "{:?}", world.fake.state().topic);
}

#[tokio::test(start_paused = true)]
async fn an_incident_whose_start_is_lost_is_started_once() {
    for kind in Kind::ALL {
        let world = World::leaked();
        let key = world.current_key();
        world.fake.state().plan = Plan::new([Fault::on("states:StartExecution", kind)]);
        let alarm = world.alarm(finding(&key, USER)).await;
        alarm.incident().expect(Outcome::Contained, "Contained");
        assert!(!alarm.walk.states().contains(&"ContainHere"), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn p3_while_iam_refuses_the_user_is_denied_everything() {
    let world = World::leaked();
    let key = world.current_key();
    let bystander = world.stranger("bob");
    world.fake.state().denied.insert("iam:UpdateAccessKey".into());
    let watch = async {
        tokio::time::sleep(minutes(2)).await;
        assert!(world.is_active(&key) && world.fake.state().denies_keys(USER));
        assert!(on_topic(&world, NoticeKind::NotContained) > 0, "nobody was told");
        tokio::time::sleep(minutes(58)).await;
        assert!(world.is_active(&key) && world.fake.state().denies_keys(USER));
        // The event names another user; the deny goes by IAM's word.
        assert_eq!(world.policies("bob"), Vec::<String>::new());
        world.fake.state().denied.clear();
        tokio::time::sleep(minutes(16)).await;
        assert!(!world.is_active(&key), "contained as soon as IAM allows it");
        let state = world.fake.state();
        assert!(!state.denies_keys(USER), "the stop-gap is still there");
        assert!(state.denies_session(USER, state.ago(hours(1))));
    };
    let (alarm, ()) = tokio::join!(world.alarm(finding(&key, "bob")), watch);
    alarm.incident().expect(Outcome::Contained, "Contained");
    assert!(world.is_active(&bystander));
    world.assert_replaced();
}

#[tokio::test(start_paused = true)]
async fn p3_where_nothing_answers_for_an_hour_it_is_contained_after_that() {
    let world = World::leaked();
    let key = world.current_key();
    world.fake.state().plan = Plan::new([
        Fault::within("StartIncident", 0, Kind::ErrorBefore).for_good(),
        Fault::within("ContainHere", 0, Kind::KilledBefore).for_good(),
    ]);
    let mend = async {
        tokio::time::sleep(hours(1)).await;
        assert!(world.is_active(&key) && on_topic(&world, NoticeKind::NotContained) > 0, "nobody was told");
        world.fake.state().plan = Plan::default();
        tokio::time::sleep(minutes(21)).await;
        assert!(!world.is_active(&key));
    };
    let (alarm, ()) = tokio::join!(world.alarm(finding(&key, USER)), mend);
    alarm.incident().expect(Outcome::Contained, "Contained");
    world.assert_replaced();
}

/// What happens while IAM refuses to switch the key off, and the user is denied everything.
#[tokio::test(start_paused = true)]
async fn a_stop_gap_ends_with_what_it_was_for() {
    for (meanwhile, why) in [
        ("another incident contains it", "Contained"),
        ("a person calls it a false alarm", "FalseAlarm"),
        ("containment is switched to page", "NotSwitchedOn"),
        ("the policy lets a person decide", "ForAPerson"),
        ("somebody deletes the key", "KeyGone"),
    ] {
        let world = World::leaked();
        let key = world.current_key();
        world.fake.state().denied.insert("iam:UpdateAccessKey".into());
        let happens = async {
            tokio::time::sleep(minutes(2)).await;
            assert!(world.fake.state().denies_keys(USER), "{meanwhile}");
            match why {
                "Contained" => {
                    world.contained(&key, USER);
                    world.switch_key(&key, false);
                }
                "FalseAlarm" => world.clear(&key, USER),
                "NotSwitchedOn" => world.containment("page"),
                "ForAPerson" => world.emergency_policy(&json!({"rules": [{"then": "page"}]})),
                _ => {
                    let mut state = world.fake.state();
                    let now = state.now();
                    state.key_mut(&key).deleted = Some(now);
                }
            }
            tokio::time::sleep(minutes(1)).await;
            world.fake.state().denied.clear();
            tokio::time::sleep(minutes(16)).await;
            assert!(!world.fake.state().denies_keys(USER), "denied everything after {meanwhile}");
        };
        let (alarm, ()) = tokio::join!(world.alarm(finding(&key, USER)), happens);
        assert_eq!(alarm.incident().why(), why, "{meanwhile}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_whose_replies_are_lost_is_inactive_all_the_same_and_denies_nobody_else() {
    for kind in [Kind::LostAfter, Kind::GarbledAfter, Kind::TimeoutAfter] {
        let world = World::leaked();
        world.consumer();
        let key = world.current_key();
        world.fake.state().plan = Plan::new([Fault::on("iam:UpdateAccessKey", kind).for_good()]);
        let alarm = world.alarm(finding(&key, USER)).await;
        alarm.incident().expect(Outcome::Contained, "Contained");
        assert!(!alarm.incident().walk.states().contains(&"StopGap"), "{kind:?}");
        world.assert_replaced();
    }
}

#[tokio::test(start_paused = true)]
async fn p3_a_key_that_shows_late_as_inactive_is_waited_for() {
    for lag in [3, 8, 12, 40] {
        let world = World::leaked();
        world.consumer();
        let key = world.current_key();
        {
            let mut state = world.fake.state();
            state.options.list_lag = std::time::Duration::from_secs(lag);
            state.options.dies_after = std::time::Duration::from_secs(4);
            state.options.valid_after = std::time::Duration::from_secs(8);
        }
        let alarm = world.alarm(finding(&key, USER)).await;
        alarm.incident().expect(Outcome::Contained, "Contained");
        world.assert_replaced();
    }
}

#[tokio::test(start_paused = true)]
async fn p3_a_parameter_store_that_hangs_delays_nothing() {
    let world = World::leaked();
    let key = world.current_key();
    let started = world.fake.state().now();
    world.fake.state().standing = Plan::new([Fault::on("ssm:GetParameters", Kind::TimeoutBefore).for_good()]);
    let alarm = world.alarm(finding(&key, USER)).await;
    let incident = alarm.incident();
    incident.expect(Outcome::Contained, "Contained");
    let contained = incident.doc.contained_at.unwrap();
    assert!(contained.duration_since(started) < SignedDuration::from_secs(4), "{contained}");
    assert!(incident.text().contains("no answer came in time"), "{}", incident.text());
}

#[tokio::test(start_paused = true)]
async fn p3_a_leaked_key_made_active_is_contained_though_iam_lists_nothing() {
    let world = World::leaked();
    let key = world.current_key();
    world.alarm(finding(&key, USER)).await;
    world.switch_key(&key, true);
    {
        let mut state = world.fake.state();
        let now = state.now();
        state.deeds.push((now, "somebody made the leaked key Active".into()));
    }
    // Whether the repeated finding is about a key that still is Inactive cannot be seen.
    world.fake.state().standing = Plan::new([Fault::on("iam:ListAccessKeys", Kind::Refused).times(2)]);
    let started = world.fake.state().now();
    world.alarm(finding(&key, USER)).await;
    assert!(!world.is_active(&key));
    let state = world.fake.state();
    let first = state.key(&key).unwrap().1.changes.iter().find(|(at, active)| *at >= started && !active);
    let took = first.unwrap().0.duration_since(started);
    assert!(took < SignedDuration::from_secs(2), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn p1_a_stop_gap_whose_answer_was_lost_does_not_stay() {
    for (way, put) in [
        ("lost", Fault::on("iam:PutUserPolicy", Kind::LostAfter).times(3)),
        ("killed", Fault::on("iam:PutUserPolicy", Kind::KilledAfter).times(6)),
        ("timed out", Fault::on("iam:PutUserPolicy", Kind::TimeoutAfter).times(3)),
    ] {
        let world = World::leaked();
        world.consumer();
        let key = world.current_key();
        let not_off = Fault::on("iam:UpdateAccessKey", Kind::Refused).times(1);
        world.fake.state().standing = Plan::new([not_off, put]);
        let alarm = world.alarm(finding(&key, USER)).await;
        alarm.incident().expect(Outcome::Contained, "Contained");
        assert_eq!(world.policies(USER), Vec::<String>::new(), "{way}");
        world.assert_replaced();
        world.assert_promises();
    }
}

/// Died after it had put the policy; when it runs again, IAM does not tell whose the key is.
#[tokio::test(start_paused = true)]
async fn p1_a_stop_gap_of_an_attempt_that_died_does_not_stay() {
    let world = World::leaked();
    world.consumer();
    let key = world.current_key();
    world.fake.state().standing = Plan::new([
        Fault::on("iam:UpdateAccessKey", Kind::Refused).times(1),
        Fault::within("StopGap", 1, Kind::KilledAfter),
        Fault::within("StopGap", 2, Kind::Throttled).times(3),
    ]);
    let alarm = world.alarm(finding(&key, USER)).await;
    alarm.incident().expect(Outcome::Contained, "Contained");
    assert_eq!(world.policies(USER), Vec::<String>::new());
    world.assert_replaced();
    world.assert_promises();
}

/// A person switches containment off while the user is denied everything, and IAM does not let go of the policy.
#[tokio::test(start_paused = true)]
async fn p1_where_the_stop_gap_cannot_be_taken_off_nothing_goes_on_as_if_the_key_were_contained() {
    let world = World::leaked();
    world.consumer();
    let key = world.current_key();
    world.fake.state().standing = Plan::new([
        Fault::on("iam:UpdateAccessKey", Kind::Refused),
        Fault::on("iam:DeleteUserPolicy", Kind::Refused).times(3),
    ]);
    let person = async {
        tokio::time::sleep(std::time::Duration::from_secs(10)).await;
        world.containment("page");
        tokio::time::sleep(minutes(10)).await;
        assert!(world.fake.state().denies_keys(USER));
        assert_eq!(on_topic(&world, NoticeKind::Stuck), 1, "denied everything, and nobody was told");
    };
    let (alarm, ()) = tokio::join!(world.alarm(finding(&key, USER)), person);
    let incident = alarm.incident();
    incident.expect(Outcome::Blocked, "NotSwitchedOn");
    assert!(incident.notice(NoticeKind::Stuck).contains(&format!("keywheel-stop-gap-{key}-")));
    assert_eq!(alarm.rotations.len(), 0, "nobody's key was taken away");
    assert!(world.is_active(&key) && world.current_key() == key);
    assert_eq!(world.policies(USER), Vec::<String>::new());
    world.assert_promises();
}

/// Whether it is one that leaked is not known for a while.
#[tokio::test(start_paused = true)]
async fn p3_a_key_made_active_while_its_record_cannot_be_read_is_contained_when_it_can() {
    let world = World::leaked();
    let key = world.stranger("alice");
    world.leak(&key);
    world.contained(&key, "alice");
    world.fake.state().denied.insert("ssm:GetParameters".into());
    let mended = async {
        tokio::time::sleep(minutes(20)).await;
        assert!(world.is_active(&key));
        assert_eq!(on_topic(&world, NoticeKind::NotContained), 1, "nobody was told");
        world.fake.state().denied.clear();
    };
    let (alarm, ()) = tokio::join!(world.alarm(made_active(&key, "alice")), mended);
    alarm.incident().expect(Outcome::Contained, "Contained");
    assert!(!world.is_active(&key));
}

/// No execution can be started, by a machine either: what is denied to a function is not denied to those.
fn nothing_starts(world: &World) {
    world.fake.state().plan = Plan::new([Fault::within("StartIncident", 0, Kind::Refused).for_good()]);
}

/// Neither the incident can be started nor its key switched off, and nobody hears of it.
#[tokio::test(start_paused = true)]
async fn p3_what_does_not_start_is_tried_again_though_nobody_can_be_told() {
    let world = World::leaked();
    let keys: Vec<String> = (0..45)
        .map(|number| {
            let key = world.stranger(&format!("vendor-{number}"));
            world.leak(&key);
            key
        })
        .collect();
    nothing_starts(&world);
    world
        .fake
        .state()
        .denied
        .extend(["iam:UpdateAccessKey", "sns:Publish", "events:PutEvents"].map(str::to_owned));
    let mended = async {
        tokio::time::sleep(minutes(5)).await;
        world.fake.state().denied.remove("iam:UpdateAccessKey");
        tokio::time::sleep(minutes(20)).await;
        let left = keys.iter().filter(|key| world.is_active(key)).count();
        assert_eq!(left, 0, "still Active after the second round");
        world.fake.state().denied.clear();
    };
    let event = exposed(keys.iter().map(String::as_str));
    let (alarm, ()) = tokio::join!(world.alarm(event), mended);
    assert!(alarm.incidents.is_empty());
    world.assert_promises();
}

/// Two reports of one key: what the one denies the user is not the other's to take off.
#[tokio::test(start_paused = true)]
async fn p3_an_incident_that_is_left_to_people_does_not_free_the_user_of_another() {
    let world = World::leaked();
    let key = world.current_key();
    world.emergency_policy(&json!({"rules": [{"source": "health", "then": "page"}]}));
    world.fake.state().denied.insert("iam:UpdateAccessKey".into());
    let second = async {
        tokio::time::sleep(minutes(2)).await;
        // Its first try dies, for whatever reason.
        let dead = Fault::on("iam:GetAccessKeyLastUsed", Kind::Throttled).times(40);
        world.fake.state().standing = Plan::new([dead]);
        let alarm = world.alarm(exposed([key.as_str()].into_iter())).await;
        alarm.incident().expect(Outcome::Blocked, "ForAPerson");
        assert!(world.fake.state().denies_keys(USER), "the first one's deny is gone");
        world.fake.state().denied.clear();
    };
    let (alarm, ()) = tokio::join!(world.alarm(finding(&key, USER)), second);
    alarm.incident().expect(Outcome::Contained, "Contained");
    assert_eq!(world.policies(USER), Vec::<String>::new());
}

/// The brake cannot count for a moment, after the key was made Inactive and the answer was lost.
#[tokio::test(start_paused = true)]
async fn a_report_whose_key_is_inactive_already_is_not_held_for_want_of_a_count() {
    let world = World::leaked();
    let key = world.current_key();
    world.fake.state().standing = Plan::new([
        Fault::on("iam:ListAccessKeys", Kind::Throttled).times(3),
        Fault::within("Contain", 8, Kind::Throttled).times(3),
    ]);
    let alarm = world.alarm(report([key.as_str()])).await;
    alarm.incident().expect(Outcome::Contained, "Contained");
    world.assert_replaced();
}

/// One credential waits for its policy's bound, and one for Notify; the third has nothing to do with that.
#[tokio::test(start_paused = true)]
async fn p3_no_credential_of_an_event_waits_for_another_one() {
    let world = World::leaked();
    let [patient, prompt] = ["patient", "prompt"].map(|name| {
        let key = world.stranger(name);
        world.leak(&key);
        key
    });
    world.emergency_policy(&json!({"rules": [{"user": "patient", "then": {"after": 60}}]}));
    nothing_starts(&world);
    world.fake.state().denied.insert("iam:UpdateAccessKey".into());
    let mended = async {
        tokio::time::sleep(minutes(5)).await;
        world.fake.state().denied.remove("iam:UpdateAccessKey");
        tokio::time::sleep(minutes(25)).await;
        assert!(!world.is_active(&prompt), "it waits for the other one's bound");
        assert!(world.is_active(&patient), "its people had an hour");
        tokio::time::sleep(minutes(40)).await;
        assert!(!world.is_active(&patient), "the bound has passed");
    };
    let event = exposed([patient.as_str(), prompt.as_str()].into_iter());
    let (alarm, ()) = tokio::join!(world.alarm(event), mended);
    assert!(alarm.incidents.is_empty());
    world.assert_promises();
}
