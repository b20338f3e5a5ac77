//! How fast a leaked key is Inactive: from `PutEvents` to the read back, with nothing skipped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_sfn::types::HistoryEvent;
use jiff::Timestamp;

use super::{Alarm, finding, put};
use crate::cloud::{Cloud, Pair};
use crate::requests::Request;
use crate::run::Run;
use crate::scene::Scene;
use support::figures::say;

/// How many findings come one after another, and how many at once.
const ONE_BY_ONE: usize = 30;
const AT_ONCE: usize = 20;

/// What the whole is made of: from `PutEvents` to the execution's start, then by state.
const PARTS: [&str; 4] = ["Delivery", "Triage", "StartIncidents", "Contain"];
/// The calls from a finding to denied sessions. The first two stand before Inactive; then it is read back and kept on
/// record, and whether a later leak has denied more is asked before the deny is written.
const CALLS: [&str; 6] = [
    "iam:GetAccessKeyLastUsed",
    "iam:UpdateAccessKey",
    "iam:ListAccessKeys",
    "ssm:PutParameter",
    "iam:GetUserPolicy",
    "iam:PutUserPolicy",
];

/// One finding's way.
struct Way {
    whole: Duration,
    /// By part: how long it took.
    parts: BTreeMap<String, Duration>,
    /// The calls before the key's sessions were denied.
    calls: Vec<String>,
}

fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

fn moment(event: &HistoryEvent) -> Timestamp {
    Timestamp::from_millisecond(event.timestamp().to_millis().unwrap()).unwrap()
}

/// How long each state of a history took until the `end` of the whole, the first visit of each.
fn spans(history: &[HistoryEvent], end: Timestamp) -> BTreeMap<String, Duration> {
    let mut spans = BTreeMap::new();
    for event in history {
        let Some(name) = event.state_entered_event_details().map(|entered| entered.name().to_owned()) else {
            continue;
        };
        let left = history.iter().find(|left| {
            left.id() > event.id()
                && left.state_exited_event_details().is_some_and(|left| left.name() == name)
        });
        if let Some(left) = left {
            spans.entry(name).or_insert_with(|| between(moment(event), moment(left).min(end)));
        }
    }
    spans
}

async fn way(cloud: &Arc<Cloud>, (scene, pair): &(Scene, Pair)) -> Way {
    let began = Timestamp::now();
    let id = put(cloud, &finding(&pair.id, &scene.user)).await;
    let alarm = Alarm::of_event(cloud, &id).await;
    let [incident] = &alarm.incidents().await[..] else { panic!("not one incident") };
    incident.reaches("DenySessions").await;
    let doc = incident.given_to("DenySessions").await;
    let contained: Timestamp = doc["contained_at"].as_str().unwrap().parse().unwrap();
    assert_eq!(scene.keys().await.get(&pair.id), Some(&false));
    let started = Run::of(cloud, "", &alarm.arn).history().await;
    let mut parts = spans(&started, contained);
    parts.extend(spans(&incident.history().await, contained));
    parts.insert("Delivery".to_owned(), between(began, moment(&started[0])));
    parts.retain(|name, _| PARTS.contains(&name.as_str()));
    incident.reaches("AfterDeny").await;
    let mut calls: Vec<Request> = incident.requests().await;
    let denied = calls.iter().position(|call| call.action == "PutUserPolicy").unwrap();
    calls.truncate(denied + 1);
    incident.stop().await;
    Way { whole: between(began, contained), parts, calls: calls.iter().map(Request::name).collect() }
}

fn median<T: Copy + PartialOrd>(values: &[T]) -> T {
    let mut values = values.to_vec();
    values.sort_by(|one, other| one.partial_cmp(other).unwrap());
    values[values.len() / 2]
}

#[tokio::test]
async fn p3_a_key_is_inactive_within_seconds_one_after_another_and_twenty_at_once() {
    let Some(cloud) = Cloud::alone().await else { return };
    let mut subjects = Vec::new();
    for _ in 0..ONE_BY_ONE + AT_ONCE {
        let scene = Scene::stranger(&cloud, "leak-fast").await;
        let pair = scene.make_key().await;
        subjects.push((scene, pair));
    }
    let mut ways = Vec::new();
    for subject in &subjects[..ONE_BY_ONE] {
        ways.push(way(&cloud, subject).await);
    }
    let alone: Vec<Duration> = ways.iter().map(|way| way.whole).collect();
    let mut running = tokio::task::JoinSet::new();
    for subject in subjects.drain(ONE_BY_ONE..) {
        let cloud = Arc::clone(&cloud);
        running.spawn(async move { way(&cloud, &subject).await });
    }
    let together = running.join_all().await;
    let crowd: Vec<Duration> = together.iter().map(|way| way.whole).collect();
    ways.extend(together);
    for part in PARTS {
        let took = |way: &Way| Some((*way.parts.get(part)?, way.whole));
        let took: Vec<(Duration, Duration)> = ways.iter().filter_map(took).collect();
        let times: Vec<Duration> = took.iter().map(|(time, _)| *time).collect();
        let shares: Vec<f64> = took.iter().map(|(time, whole)| time.div_duration_f64(*whole)).collect();
        say(&format!(
            "{part:<16} median {:>6.0?}, {:>3.0} % of the whole, of {}",
            median(&times),
            100.0 * median(&shares),
            took.len()
        ));
    }
    let all: Vec<Duration> = [alone.clone(), crowd.clone()].concat();
    let worst = all.iter().max().unwrap();
    say(&format!(
        "to Inactive read back: median {:.0?} ({ONE_BY_ONE} one after another {:.0?}, {AT_ONCE} at once {:.0?}), \
         worst of {} {worst:.0?}",
        median(&all),
        median(&alone),
        median(&crowd),
        all.len()
    ));
    for way in &ways {
        let mut calls = way.calls.clone();
        // What may speak against it is read beside the first of them, and counts for the switch.
        calls.retain(|call| call != "ssm:GetParameters");
        assert_eq!(calls, CALLS);
    }
    // With those that come at once, and without them.
    for times in [&all, &alone] {
        assert!(median(times) <= Duration::from_secs(1), "{times:?}");
    }
    assert!(*worst <= Duration::from_secs(3), "{all:?}");
}
