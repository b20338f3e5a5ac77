//! The flows that between them use every right of every role, each with its end and its calls.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_sdk_iam::types::StatusType;
use aws_sdk_sfn::types::ExecutionStatus;
use serde_json::{Value, json};

use super::roles::Role;
use crate::blocked::{delay, refusal};
use crate::cloud::{Cloud, fresh};
use crate::gate::Laggard;
use crate::requests::Request;
use crate::run::{Run, brief_but, new_id};
use crate::scene::Scene;
use crate::token::waiting_machine;

/// How long a flow may take before it is called hanging.
const PATIENCE: Duration = Duration::from_secs(90);

/// A flow that has been started: the run that is looked at, and what must live until it ends.
pub(super) struct Started {
    scene: Option<Scene>,
    run: Run,
    /// The runs that led there.
    before: Vec<Run>,
    /// The state whose entry is the flow's end, where the run goes on for long after it.
    until: Option<&'static str>,
    _laggard: Option<Laggard>,
}

type Start = fn(Arc<Cloud>) -> Pin<Box<dyn Future<Output = Started> + Send>>;

/// A flow by name.
pub(super) type Flow = (&'static str, Start);

/// The flows of a rotation. Which of them use which right is seen by running them.
pub(super) const ROTATION: [Flow; 13] = [
    ("a whole rotation, with a machine waiting", |cloud| Box::pin(whole(cloud))),
    ("a first adoption", |cloud| Box::pin(adoption(cloud))),
    ("a run that is blocked, with a machine waiting", |cloud| Box::pin(blocked(cloud))),
    ("a validation that fails", |cloud| Box::pin(failed(cloud))),
    ("an orphan that CloudTrail attributes", |cloud| Box::pin(orphan(cloud))),
    ("a stopped run that is taken over", |cloud| Box::pin(taken_over(cloud))),
    ("one that is taken over for the second time", |cloud| Box::pin(taken_over_again(cloud))),
    ("a run that is taken over before it promotes", |cloud| Box::pin(taken_over_early(cloud))),
    ("a promotion that is turned back", |cloud| Box::pin(turned_back(cloud))),
    ("an old key that stays in use", |cloud| Box::pin(held(cloud))),
    ("a leaked key whose evidence time is over", |cloud| Box::pin(evidence(cloud))),
    ("a whole rotation in another account", |cloud| Box::pin(elsewhere(cloud))),
    ("a validation that fails in another account", |cloud| Box::pin(failed_elsewhere(cloud))),
];

impl Started {
    pub(super) fn of(scene: Scene, run: Run) -> Self {
        Self { scene: Some(scene), run, before: Vec::new(), until: None, _laggard: None }
    }

    /// A run about no user of its own.
    pub(super) fn nobodys(run: Run) -> Self {
        Self { scene: None, run, before: Vec::new(), until: None, _laggard: None }
    }

    pub(super) fn until(self, state: &'static str) -> Self {
        Self { until: Some(state), ..self }
    }
}

/// A run that a machine of its own waits for.
async fn awaited(cloud: &Arc<Cloud>, secret: &str) -> Run {
    let machine = waiting_machine(cloud).await;
    let id = new_id();
    let input = json!({ "secret": secret, "run": id, "policy": brief_but(&json!({})) }).to_string();
    cloud.sfn.start_execution().state_machine_arn(machine).input(input).send().await.unwrap();
    let run = Run::known(cloud, &id);
    let until = Instant::now() + PATIENCE;
    while cloud.sfn.describe_execution().execution_arn(&run.arn).send().await.is_err() {
        assert!(Instant::now() < until, "run {id} was not started");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    run
}

async fn whole(cloud: Arc<Cloud>) -> Started {
    let (scene, _) = Scene::managed(&cloud, "right").await;
    let run = awaited(&cloud, &scene.secret).await;
    Started::of(scene, run)
}

async fn adoption(cloud: Arc<Cloud>) -> Started {
    let scene = Scene::bare(&cloud, "right-first").await;
    let run = scene.start().await;
    Started::of(scene, run)
}

async fn blocked(cloud: Arc<Cloud>) -> Started {
    let run = awaited(&cloud, &format!("e2e/none-{}", fresh())).await;
    Started::nobodys(run)
}

async fn elsewhere(cloud: Arc<Cloud>) -> Started {
    let (scene, _) = Scene::managed(&cloud.member(), "right-there").await;
    let run = scene.start().await;
    Started::of(scene, run)
}

async fn failed(cloud: Arc<Cloud>) -> Started {
    failing(&cloud).await
}

async fn failed_elsewhere(cloud: Arc<Cloud>) -> Started {
    failing(&cloud.member()).await
}

async fn failing(cloud: &Arc<Cloud>) -> Started {
    let (scene, _) = Scene::managed(cloud, "right-failed").await;
    let id = new_id();
    cloud.fault(refusal(&id, ("sts", "GetCallerIdentity"), 403, "AccessDenied")).await;
    let run = scene.start_with(&id, json!({})).await;
    Started::of(scene, run)
}

async fn orphan(cloud: Arc<Cloud>) -> Started {
    let (scene, _) = Scene::managed(&cloud, "right-orphan").await;
    let id = new_id();
    let mut lost = delay(&id, ("iam", "CreateAccessKey"), 0);
    (lost["when"], lost["drop"]) = (json!("after"), json!(true));
    cloud.fault(lost).await;
    let run = scene.start_with(&id, json!({})).await;
    Started::of(scene, run)
}

/// A rotation that has promoted its key and has a long overlap before it.
async fn overlapping(cloud: &Arc<Cloud>, what: &str) -> (Scene, Run) {
    let (scene, _) = Scene::managed(cloud, what).await;
    let run = waits_long(&scene).await;
    (scene, run)
}

/// A run of this scene that has reached a long overlap.
async fn waits_long(scene: &Scene) -> Run {
    let policy = brief_but(&json!({ "overlap": "60s", "max_overlap": "60s" }));
    let run = scene.start_with(&new_id(), json!({ "policy": policy })).await;
    run.reaches("Overlap").await;
    run
}

async fn taken_over(cloud: Arc<Cloud>) -> Started {
    let (scene, first) = overlapping(&cloud, "right-over").await;
    first.stop().await;
    let run = scene.start().await;
    Started { before: vec![first], ..Started::of(scene, run) }
}

async fn taken_over_again(cloud: Arc<Cloud>) -> Started {
    let (scene, first) = overlapping(&cloud, "right-again").await;
    first.stop().await;
    // Taken over once already: the label of the one who did so is what the promotion has to ask about.
    let second = waits_long(&scene).await;
    second.stop().await;
    let run = scene.start().await;
    Started { before: vec![first, second], ..Started::of(scene, run) }
}

async fn taken_over_early(cloud: Arc<Cloud>) -> Started {
    let (scene, _) = Scene::managed(&cloud, "right-early").await;
    let first = scene.start().await;
    first.reaches("ValidateKey").await;
    first.stop().await;
    let run = scene.start().await;
    Started { before: vec![first], ..Started::of(scene, run) }
}

async fn turned_back(cloud: Arc<Cloud>) -> Started {
    let (scene, first) = overlapping(&cloud, "right-back").await;
    let run =
        scene.start_with(&new_id(), json!({ "roll_back": true, "policy": brief_but(&json!({})) })).await;
    Started { before: vec![first], ..Started::of(scene, run) }
}

async fn held(cloud: Arc<Cloud>) -> Started {
    let (scene, old) = Scene::managed(&cloud, "right-held").await;
    let laggard = Laggard::start(&cloud, &old);
    let policy = brief_but(&json!({ "max_overlap": "5s" }));
    let run = scene.start_with(&new_id(), json!({ "policy": policy })).await;
    Started { _laggard: Some(laggard), ..Started::of(scene, run) }
}

async fn evidence(cloud: Arc<Cloud>) -> Started {
    let (scene, _) = Scene::managed(&cloud, "right-evidence").await;
    let leaked = scene.make_key().await;
    scene.set_key(&leaked.id, StatusType::Inactive).await;
    let record = json!({
        "schema": 1, "key": leaked.id, "user": scene.user, "incident": new_id(), "state": "closed",
        "at": jiff::Timestamp::now() - jiff::SignedDuration::from_hours(31 * 24),
    });
    cloud.set_parameter(&format!("incidents/{}", leaked.id), &record.to_string()).await;
    let run = scene.start().await;
    Started::of(scene, run)
}

/// How a flow ended, as far as a person or the next run can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is one thing that a person can tell")]
pub(super) struct End {
    status: ExecutionStatus,
    outcome: String,
    code: String,
    visited: BTreeSet<String>,
    delivered: String,
    answered: bool,
    callers_named: bool,
    active_keys: usize,
    inactive_keys: usize,
    /// Of an incident: which steps failed on the way, how the application gets a key, how many regions were read.
    failed: BTreeSet<String>,
    way: String,
    regions: u64,
    /// The policies that the user has.
    policies: usize,
    /// Of a campaign: what its plan says of the user, whether anybody was told ahead, and how much could not be read.
    plan: BTreeSet<String>,
    warned: bool,
    unread: u64,
    /// How many removals of unused keys it has started.
    removals: u64,
    /// Whether users were listed one by one, as no report was to be had.
    listed: bool,
}

/// A flow's end, and the calls of its run: by function and action, the moment of the first one.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// The end; `None` where the flow left its known way and was stopped there.
    pub(super) end: Option<End>,
    /// After how long each right was first used, counted from the flow's first preparation.
    pub(super) uses: BTreeMap<(String, String), Duration>,
    /// What the runs that led to it used.
    pub(super) needs: BTreeSet<(String, String)>,
    /// What was refused for want of a right.
    pub(super) denied: BTreeSet<(String, String)>,
}

/// Entered as often as the clock wants while a run waits for quiet; every other state has its number of visits.
const LOOP: [&str; 4] = ["Overlap", "DeactivateKey", "AfterDeactivate", "NotifyStillInUse"];
/// The looks at the keys after containment: a replacement that is just being stored is looked at once more.
const LOOKS: [&str; 4] = ["WaitSoon", "CheckReplacement", "LookAgain", "AfterLook"];

/// The way a run took: its states, and those that it came to again.
fn path(visited: Vec<String>) -> BTreeSet<String> {
    let mut path = BTreeSet::new();
    for state in visited.into_iter().filter(|state| !LOOKS.contains(&state.as_str())) {
        if path.contains(&state) && !LOOP.contains(&state.as_str()) {
            path.insert(format!("{state} again"));
        }
        path.insert(state);
    }
    path
}

/// Runs a flow. Where it enters a state that `known` has not, it is stopped: it differs already.
pub(super) async fn follow(
    cloud: &Arc<Cloud>,
    roles: &BTreeMap<String, Role>,
    (name, start): Flow,
    known: Option<&Seen>,
) -> Seen {
    let (began, clock) = (Instant::now(), jiff::Timestamp::now());
    let started = start(Arc::clone(cloud)).await;
    let run = &started.run;
    let known = known.and_then(|seen| seen.end.as_ref()).map(|end| &end.visited);
    let end = loop {
        let told = cloud.sfn.describe_execution().execution_arn(&run.arn).send().await.unwrap();
        if *told.status() != ExecutionStatus::Running {
            break Some(end(&started).await);
        }
        let visited = run.visited().await;
        if started.until.is_some_and(|until| visited.iter().any(|state| state == until)) {
            let end = end(&started).await;
            run.stop().await;
            break Some(end);
        }
        let visited = path(visited);
        if known.is_some_and(|known| !visited.is_subset(known)) {
            run.stop().await;
            break None;
        }
        assert!(began.elapsed() < PATIENCE, "{name} hangs: {visited:?}");
        tokio::time::sleep(Duration::from_millis(80)).await;
    };
    let right = |request: &Request| {
        let role = roles.values().find(|role| request.principal().contains(&format!("/{}/", role.name)))?;
        Some((role.function.clone(), request.name()))
    };
    let (mut uses, mut denied, mut needs) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
    for request in run.requests().await {
        // A failure that the flow itself plans comes before anybody asks for a right.
        let Some(right) = right(&request).filter(|_| request.status < 500) else { continue };
        let after = Duration::try_from(request.time.duration_since(clock)).unwrap_or_default();
        if request.refused() {
            denied.insert(right.clone());
        }
        uses.entry(right).or_insert(after);
    }
    for before in &started.before {
        needs.extend(before.requests().await.iter().filter_map(right));
    }
    let listed = uses.keys().any(|(_, call)| call == "iam:ListUsers");
    let end = end.map(|end| End { listed, ..end });
    Seen { end, uses, needs, denied }
}

/// How an execution stands: its status and its document, at its end or where the flow ends.
async fn standing(started: &Started) -> (ExecutionStatus, Value) {
    match started.until {
        Some(state) if started.run.goes_on().await => {
            (ExecutionStatus::Running, started.run.given_to(state).await)
        }
        _ => {
            let ended = started.run.end().await;
            (ended.status, ended.doc)
        }
    }
}

async fn end(started: &Started) -> End {
    let (status, doc) = standing(started).await;
    if let Some(run) = doc.pointer("/replacement/run").and_then(Value::as_str) {
        // What it makes of the keys belongs to the end.
        started.run.sibling(run).end().await;
    }
    let visited = started.run.visited().await;
    let (keys, policies) = match &started.scene {
        Some(scene) => (scene.keys().await, scene.policies().await),
        None => (BTreeMap::new(), 0),
    };
    let named = |gate: &Value| gate["callers"].as_array().is_some_and(|callers| !callers.is_empty());
    let text = |at: &str| doc.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
    let number = |at: &str| doc.pointer(at).and_then(Value::as_u64).unwrap_or_default();
    let why = ["/why/code", "/why/text", "/why/remedy"].map(text).join(" | ");
    let failed = doc["failed"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let step = |note: &str| note.split(':').next().unwrap_or_default().to_owned();
    End {
        status,
        outcome: text("/outcome"),
        code: text("/why/code"),
        visited: path(visited),
        delivered: text("/delivery"),
        answered: doc["answered"] == true,
        callers_named: named(&doc["gate"]) && why.contains("Seen: "),
        active_keys: keys.values().filter(|active| **active).count(),
        inactive_keys: keys.values().filter(|active| !**active).count(),
        failed: failed.map(step).collect(),
        way: text("/replacement/way"),
        regions: number("/findings/read"),
        policies,
        plan: plan(started, &doc).await,
        warned: number("/counts/warned") > 0,
        unread: number("/counts/unread"),
        removals: number("/counts/unused"),
        listed: false,
    }
}

/// What a campaign's plan says of the flow's user.
async fn plan(started: &Started, doc: &Value) -> BTreeSet<String> {
    let text = |at: &str| doc.pointer(at).and_then(Value::as_str);
    let place = (text("/bucket"), text("/campaign"), text("/attempt"));
    let (Some(scene), (Some(bucket), Some(campaign), Some(attempt))) = (&started.scene, place) else {
        return BTreeSet::new();
    };
    let plan = scene.cloud.object(&format!("s3://{bucket}/campaigns/{campaign}/{attempt}/plan.jsonl")).await;
    let lines = plan.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let own = lines.filter(|line| line["user"] == *scene.user);
    own.map(|line| format!("{} {}", line["action"], line["code"])).collect()
}
