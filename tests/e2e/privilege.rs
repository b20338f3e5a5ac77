//! Least privilege, shown: each role may do what its function needs, and nothing that nobody would miss.
//!
//! The roles are read as they were deployed. Every action of every statement is taken away in place, the flows
//! that were seen to use it run again, and one of them must end worse than it did with the right. Rights whose
//! flows do not meet are taken away together, which halves the time: a flow is only run while every right that it
//! uses is there, but for the one in question, so that one alone can be what it fails for. And it is not enough
//! that a flow ends otherwise: the cloud's log must show that this very call was refused.
//!
//! What the local cloud does not enforce (logs, traces, KMS, the account's regions, the roles of Step Functions and
//! `EventBridge`) is pinned by the contract tests. So are the roles of other accounts, each of which many functions share:
//! that a function may enter one is taken away here, and what is called there is counted in process, call by call.

#[path = "privilege/fleet.rs"]
mod fleet;
#[path = "privilege/flows.rs"]
mod flows;
#[path = "privilege/incidents.rs"]
mod incidents;
#[path = "privilege/roles.rs"]
mod roles;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;

use crate::cloud::Cloud;
use fleet::FLEET;
use flows::{Flow, ROTATION, Seen, follow};
use incidents::INCIDENTS;
use roles::{Grant, Role, deployed, functions_of};

type Roles = Arc<BTreeMap<String, Role>>;
type Flows = &'static [Flow];
type Baseline = Arc<Vec<Seen>>;

/// A right that is to be taken away, and the flows not yet tried, the one that uses it soonest last.
struct Trial {
    grant: Grant,
    flows: Vec<usize>,
}

/// Used, and yet not missed at once: what comes of it shows in hours, and is for the tests in process.
const MISSED_LATER: [(&str, &str); 2] = [
    // IAM hands out the report that it has; only a later user is not in it.
    ("scan", "iam:GenerateCredentialReport"),
    // Whether a campaign that is over has told its warnings: nobody is warned twice, or a day later.
    ("scan", "states:DescribeExecution"),
];

/// Held by the contract test in process alone, which demands the call: no flow of a few seconds comes to it.
const IN_PROCESS: [(&str, &str); 1] = [
    // Who made a key is asked half an hour after its making and later, and the local cloud's trail has no such record:
    // a key can be made older there, its record cannot.
    ("scan", "cloudtrail:LookupEvents"),
];

/// Runs every flow with all rights in place.
async fn all_flows(cloud: &Arc<Cloud>, roles: &Roles, flows: Flows) -> Vec<Seen> {
    let mut running = JoinSet::new();
    for (index, flow) in flows.iter().copied().enumerate() {
        let (cloud, roles) = (Arc::clone(cloud), Arc::clone(roles));
        running.spawn(async move { (index, follow(&cloud, &roles, flow, None).await) });
    }
    let mut seen = running.join_all().await;
    seen.sort_by_key(|(index, _)| *index);
    seen.into_iter().map(|(_, seen)| seen).collect()
}

fn key(grant: &Grant) -> (String, String) {
    (grant.function.clone(), grant.call())
}

/// For every right the flows that use it. A right that none uses is one too many, or lacks its flow.
fn trials(roles: &Roles, baseline: &Baseline) -> Vec<Trial> {
    let mut trials = Vec::new();
    for grant in roles.values().flat_map(Role::grants) {
        if IN_PROCESS.contains(&(grant.function.as_str(), grant.action.as_str())) {
            continue;
        }
        let mut users: Vec<(Duration, usize)> = baseline
            .iter()
            .enumerate()
            // Without it, the flow would not even begin.
            .filter(|(_, seen)| !seen.needs.contains(&key(&grant)))
            .filter_map(|(index, seen)| Some((*seen.uses.get(&key(&grant))?, index)))
            .collect();
        let of_it = |seen: &Seen| {
            seen.uses.keys().filter(|(function, _)| *function == grant.function).cloned().collect::<Vec<_>>()
        };
        assert!(
            !users.is_empty(),
            "no flow uses {grant:?}, but {:?}",
            baseline.iter().map(of_it).collect::<Vec<_>>()
        );
        if MISSED_LATER.contains(&(grant.function.as_str(), grant.action.as_str())) {
            continue;
        }
        users.sort_by_key(|user| std::cmp::Reverse(*user));
        trials.push(Trial { grant, flows: users.into_iter().map(|(_, index)| index).collect() });
    }
    trials
}

/// Takes out of `waiting` as many trials as can go on beside each other: no role twice, no flow that uses another
/// one's right.
fn wave(waiting: &mut Vec<Trial>, baseline: &Baseline) -> Vec<Trial> {
    let mut wave: Vec<Trial> = Vec::new();
    let mut rest = Vec::new();
    let uses = |trial: &Trial, right: &(String, String)| {
        let flow = &baseline[*trial.flows.last().unwrap()];
        flow.uses.contains_key(right) || flow.needs.contains(right)
    };
    for trial in waiting.drain(..) {
        let fits = wave.iter().all(|other| {
            other.grant.function != trial.grant.function
                && !uses(other, &key(&trial.grant))
                && !uses(&trial, &key(&other.grant))
        });
        if fits { wave.push(trial) } else { rest.push(trial) }
    }
    *waiting = rest;
    wave
}

/// Whether the flow ended otherwise than it did with all rights, with the call refused. It may go through all the same,
/// and another flow has to miss the right: where a role may make a call for several things, each by a statement of its
/// own, and where the flow has the call fail for another reason.
async fn missed(cloud: Arc<Cloud>, roles: Roles, grant: Grant, (flow, known): (Flow, Seen)) -> bool {
    let seen = follow(&cloud, &roles, flow, Some(&known)).await;
    let refused = seen.denied.contains(&key(&grant));
    if !refused {
        println!("{grant:?} was not refused in {:?}", flow.0);
    }
    refused && seen.end != known.end
}

/// Takes the rights of a wave away, runs a flow for each, and puts them back whatever happens. What is left are
/// the trials whose flow went on as if nothing were missing.
async fn run(
    cloud: &Arc<Cloud>,
    roles: &Roles,
    (flows, baseline): (Flows, &Baseline),
    wave: Vec<Trial>,
) -> Vec<Trial> {
    let inner = (Arc::clone(cloud), Arc::clone(roles));
    let planned = wave.iter().map(|trial| {
        let index = *trial.flows.last().unwrap();
        (trial.grant.clone(), (flows[index], baseline[index].clone()))
    });
    let planned: Vec<(Grant, (Flow, Seen))> = planned.collect();
    // A task of its own: where it panics, the rights still come back.
    let result = tokio::spawn(async move {
        let (cloud, roles) = inner;
        let mut running = Vec::new();
        for (grant, _) in &planned {
            roles[&grant.function].take(&cloud, grant).await;
        }
        for (grant, flow) in planned {
            running.push(tokio::spawn(missed(Arc::clone(&cloud), Arc::clone(&roles), grant, flow)));
        }
        let mut missed = Vec::new();
        for running in running {
            missed.push(running.await);
        }
        missed
    })
    .await;
    for trial in &wave {
        roles[&trial.grant.function].restore(cloud).await;
    }
    let missed = result.unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic()));
    let mut survived = Vec::new();
    for (mut trial, missed) in wave.into_iter().zip(missed) {
        let missed = missed.unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic()));
        if !missed {
            trial.flows.pop();
            survived.push(trial);
        }
    }
    survived
}

#[tokio::test]
async fn every_right_of_a_rotations_roles_is_missed_when_it_is_gone() {
    let Some(cloud) = Cloud::alone().await else { return };
    every_right(&cloud, functions_of("rotation"), &ROTATION).await;
}

#[tokio::test]
async fn every_right_of_an_incidents_roles_is_missed_when_it_is_gone() {
    let Some(cloud) = Cloud::alone().await else { return };
    let own = |name| functions_of(name).difference(&functions_of("rotation")).cloned().collect();
    let (mut judges, functions): (BTreeSet<String>, BTreeSet<String>) = (own("emergency"), own("incident"));
    judges.retain(|function| !functions.contains(function));
    assert_eq!(judges, ["triage", "watch"].map(str::to_owned).into());
    for role in deployed(&cloud, BTreeSet::from(["triage".to_owned()])).await.values() {
        assert_eq!(role.grants(), BTreeSet::new(), "{} judges from the event alone", role.function);
    }
    let mut functions = functions;
    functions.insert("watch".to_owned());
    // More incidents than the brake lets pass; it is no right that is to be missed.
    let policy = json!({ "max_contain": 100_000, "key_making": { "more_than": 0, "minutes": 60 }, "role_sessions": "deny" });
    cloud.set_parameter("emergency", &policy.to_string()).await;
    every_right(&cloud, functions, &INCIDENTS).await;
    cloud.set_parameter("emergency", "{}").await;
}

#[tokio::test]
async fn every_right_of_the_fleets_roles_is_missed_when_it_is_gone() {
    let Some(cloud) = Cloud::alone().await else { return };
    let mut functions = functions_of("fleet");
    functions.extend(functions_of("unused"));
    let functions: BTreeSet<String> = functions.difference(&functions_of("rotation")).cloned().collect();
    assert_eq!(functions, ["delete-unused", "disable-unused", "review", "scan"].map(str::to_owned).into());
    fleet::prepare(&cloud).await;
    every_right(&cloud, functions, &FLEET).await;
    fleet::tidy(&cloud).await;
}

async fn every_right(cloud: &Arc<Cloud>, functions: BTreeSet<String>, flows: Flows) {
    let began = Instant::now();
    let roles: Roles = Arc::new(deployed(cloud, functions).await);
    let baseline: Baseline = Arc::new(all_flows(cloud, &roles, flows).await);
    for ((name, _), seen) in flows.iter().zip(baseline.iter()) {
        println!("{name}: {:?}", seen.end);
        // With its own rights a function is refused nothing, but where the flow is made to fail.
        assert!(seen.denied.is_empty(), "{name}: {:?}", seen.denied);
    }
    for function in roles.keys() {
        let used = baseline.iter().any(|seen| seen.uses.keys().any(|(user, _)| user == function));
        assert!(used, "no flow runs {function}");
    }

    let mut waiting = trials(&roles, &baseline);
    let (rights, mut removals, mut waves) = (waiting.len(), 0, 0);
    let mut unmissed: BTreeSet<Grant> = BTreeSet::new();
    while !waiting.is_empty() {
        let wave = wave(&mut waiting, &baseline);
        (removals, waves) = (removals + wave.len(), waves + 1);
        for trial in run(cloud, &roles, (flows, &baseline), wave).await {
            if trial.flows.is_empty() {
                unmissed.insert(trial.grant);
            } else {
                println!("{:?} was not missed at first", trial.grant);
                waiting.push(trial);
            }
        }
    }
    assert!(unmissed.is_empty(), "nothing fails without these: {unmissed:#?}");

    // All is as it was, and so are the flows.
    for role in roles.values() {
        role.expect_unchanged(cloud).await;
    }
    for ((before, after), flow) in baseline.iter().zip(all_flows(cloud, &roles, flows).await).zip(flows) {
        if before.end != after.end {
            // All at once they are in each other's way, and a notice may come too late for its first try.
            assert_eq!(before.end, follow(cloud, &roles, *flow, None).await.end, "{}", flow.0);
        }
    }
    let (statements, actions) =
        roles.values().map(Role::size).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    println!(
        "{} roles, {statements} statements, {actions} actions; {rights} enforced here, {removals} removals in \
         {waves} waves, {} flows, {:.0?}",
        roles.len(),
        removals + 2 * flows.len(),
        began.elapsed()
    );
}
