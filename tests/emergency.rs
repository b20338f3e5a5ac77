//! What an emergency promises, over its machines: a leak that nothing disturbs here, the others beside it.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, where a panic with its place is what should be seen"
)]

#[path = "emergency/alone.rs"]
mod alone;
#[path = "emergency/evidence.rs"]
mod evidence;
#[path = "emergency/faults.rs"]
mod faults;
#[path = "emergency/gap.rs"]
mod gap;
#[path = "emergency/making.rs"]
mod making;
#[path = "emergency/member.rs"]
mod member;
#[path = "emergency/policy.rs"]
mod policy;
#[path = "emergency/replacement.rs"]
mod replacement;
#[path = "emergency/roles.rs"]
mod roles;
#[path = "emergency/sessions.rs"]
mod sessions;
#[path = "emergency/subjects.rs"]
mod subjects;

use std::time::Duration;

use jiff::SignedDuration;
use keywheel::notice::NoticeKind;
use keywheel::rotation::Outcome;
use support::alarm::finding;
use support::fake::Call;
use support::world::{USER, World};

const fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(minutes * 60)
}

/// The calls that stand between an event and an Inactive key, those to the parameter store apart.
fn path_to_inactive(world: &World) -> (Vec<String>, usize) {
    let state = world.fake.state();
    let of_contain = |call: &&Call| call.function.as_deref() == Some("contain");
    let calls: Vec<&str> = state.calls.iter().filter(of_contain).map(|call| call.name.as_str()).collect();
    let end = calls.iter().position(|name| *name == "iam:UpdateAccessKey").unwrap();
    let (ssm, path): (Vec<&str>, Vec<&str>) = calls[..=end].iter().partition(|name| name.starts_with("ssm:"));
    (path.into_iter().map(str::to_owned).collect(), ssm.len())
}

/// The writes that took effect, but for notices and records.
fn writes(world: &World) -> Vec<String> {
    let is_write = |call: &&Call| {
        call.status == 200
            && (call.name.starts_with("iam:") || call.name.starts_with("secretsmanager:"))
            && !["Get", "List", "Describe"].iter().any(|read| call.name.contains(&format!(":{read}")))
    };
    world.fake.state().calls.iter().filter(is_write).map(|call| call.name.clone()).collect()
}

/// How many notices of a kind have reached the topic.
fn on_topic(world: &World, kind: NoticeKind) -> usize {
    let end = format!("/{}", kind.name());
    let texts = world.fake.state().topic.iter().map(ToString::to_string).collect::<Vec<_>>();
    texts
        .iter()
        .filter(|text| text.contains(&format!("{end}\"")) || text.contains(&format!("{end}/")))
        .count()
}

#[tokio::test(start_paused = true)]
async fn a_leaked_key_is_inactive_after_two_calls() {
    let world = World::leaked();
    world.consumer();
    let key = world.current_key();
    let started = world.fake.state().now();
    let alarm = world.alarm(finding(&key, USER)).await;
    let incident = alarm.incident();
    incident.expect(Outcome::Contained, "Contained");
    assert_eq!(
        path_to_inactive(&world),
        (vec!["iam:GetAccessKeyLastUsed".to_owned(), "iam:UpdateAccessKey".to_owned()], 1)
    );
    let contained = incident.doc.contained_at.unwrap();
    assert!(contained.duration_since(started) < SignedDuration::from_secs(1), "{contained}");
    assert_eq!(incident.doc.failed, Vec::<String>::new());
    assert!(!world.is_active(&key) && world.keys().contains(&key), "Inactive, and kept as evidence");
    for kind in [NoticeKind::Contained, NoticeKind::Replacement, NoticeKind::Ended, NoticeKind::SessionsFree]
    {
        assert_eq!(on_topic(&world, kind), if kind == NoticeKind::Ended { 2 } else { 1 }, "{kind:?}");
    }
    // The application works again, by a rotation that waited for nobody.
    alarm.rotation().expect(Outcome::Contained);
    world.assert_replaced();
    let deletes = world.fake.call_names().iter().filter(|name| *name == "iam:DeleteAccessKey").count();
    assert_eq!(deletes, 0);
}

#[tokio::test(start_paused = true)]
async fn every_step_of_an_emergency_may_run_twice() {
    let world = World::leaked();
    let mut states = Vec::new();
    let event = finding(&world.current_key(), USER);
    world
        .alarm_watched(event, &mut |machine, state, _| {
            states.push((machine.to_owned(), state.to_owned()));
            support::walker::Control::Go
        })
        .await;
    assert!(states.len() > 25, "{states:?}");
    for twice in &states {
        for control in [support::walker::Control::Twice, support::walker::Control::Late] {
            let world = World::leaked();
            world.consumer();
            let key = world.current_key();
            let alarm = world
                .alarm_watched(finding(&key, USER), &mut |machine, state, _| {
                    let here = machine == twice.0 && state == twice.1;
                    if here { control } else { support::walker::Control::Go }
                })
                .await;
            alarm.incident().expect(Outcome::Contained, "Contained");
            assert!(!world.is_active(&key), "{twice:?}");
            assert_eq!((world.keys().len(), alarm.rotations.len()), (2, 1), "{twice:?}");
            world.assert_replaced();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_call_of_an_emergency_carries_its_run_and_its_own_role() {
    let world = World::leaked();
    let event = finding(&world.current_key(), USER);
    world.alarm(event).await;
    let state = world.fake.state();
    for call in state.calls.iter().filter(|call| call.function.is_some()) {
        assert!(call.run.is_some(), "{} without a run in its User-Agent", call.name);
        if let Some(role) = state.role_of(&call.signer) {
            let own = support::functions::role(call.function.as_deref().unwrap());
            assert!(role.arn.ends_with(&format!("/{own}")), "{} by {}", call.name, role.arn);
        }
    }
}
