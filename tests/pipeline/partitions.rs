//! The whole suite of the rotation, in each partition: what is taken apart and put together from names must not rest on
//! those of the commercial one.

use keywheel::rotation::Outcome;
use support::place::Place;
use support::world::{World, request};

#[test]
fn the_suite_passes_in_govcloud() {
    Place::GovCloud.runs_all_again("partitions::the_suite");
}

#[test]
fn the_suite_passes_in_china() {
    Place::China.runs_all_again("partitions::the_suite");
}

#[tokio::test(start_paused = true)]
async fn every_name_and_every_host_is_of_the_partition() {
    let place = Place::here();
    let world = World::new();
    let run = world.run(request()).await;
    run.expect(Outcome::Completed);
    let own = format!("arn:{}:", place.partition());
    let document = serde_json::to_string(run.doc()).unwrap();
    let state = world.fake.state();
    let told = format!("{:?}{:?}", state.bus, state.topic);
    for (number, text) in [document, told].iter().enumerate() {
        let arns: Vec<&str> = text.match_indices("arn:").map(|(at, _)| &text[at..]).collect();
        assert!(!arns.is_empty(), "{number}");
        for arn in arns {
            assert!(arn.starts_with(&own), "{place:?}: {}", arn.chars().take(80).collect::<String>());
        }
    }
    for call in &state.calls {
        assert!(place.has_host(&call.host), "{place:?}: {} was sent to {}", call.name, call.host);
    }
    // IAM has one host for the whole partition, the others one for each region.
    let hosts_of = |service: &str| state.calls.iter().find(|call| call.name.starts_with(service)).unwrap();
    assert!(!hosts_of("iam:").host.contains(&state.region), "{}", hosts_of("iam:").host);
    assert!(hosts_of("secretsmanager:").host.contains(&state.region));
}
