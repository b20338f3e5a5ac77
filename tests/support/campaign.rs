//! A campaign: the fleet machine, and every rotation that it starts, walked beside each other.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use keywheel::RunId;
use keywheel::campaign::{Campaign, Item, Outcome, POLICY};
use keywheel::fleet::{FleetPolicy, freeze};
use serde_json::Value;

use crate::beside::{Walking, walk_all};
use crate::fake::{Call, Object, Secret};
use crate::invariants;
use crate::unused::Removal;
use crate::walker::{Control, Walk, Walker};
use crate::world::{Run, World, machine};

/// One campaign, when it and every rotation that it started have ended.
#[derive(Debug)]
pub struct Campaigned {
    /// Its id.
    pub id: RunId,
    /// The fleet machine's walk.
    pub walk: Walk,
    /// The document at its end; `None` where it was over before there was one.
    pub doc: Option<Campaign>,
    /// The rotations that it started, in the order of their starts.
    pub rotations: Vec<Run>,
    /// The removals of unused keys that it started, in that order.
    pub removals: Vec<Removal>,
}

impl Campaigned {
    /// The document at its end.
    pub fn doc(&self) -> &Campaign {
        self.doc
            .as_ref()
            .unwrap_or_else(|| panic!("no document: {:?} {:?}", self.walk.error, self.walk.output))
    }

    /// The code of the reason that it gave.
    pub fn why(&self) -> &str {
        let why = self.doc.as_ref().and_then(|doc| doc.why.as_ref());
        why.map_or("", |why| why.code.as_str())
    }

    /// Fails the test unless it succeeded with this outcome, for this reason.
    pub fn expect(&self, outcome: Outcome, code: &str) -> &Self {
        assert_eq!(
            (self.walk.status, self.doc.as_ref().and_then(|doc| doc.outcome), self.why()),
            ("SUCCEEDED", Some(outcome), code),
            "why: {:?}\nerror: {:?}\nstates: {:?}",
            self.doc.as_ref().and_then(|doc| doc.why.as_ref()),
            self.walk.error,
            self.walk.states()
        );
        self
    }

    /// When a state was entered, each time.
    pub fn entered(&self, state: &str) -> Vec<Timestamp> {
        self.walk.history.iter().filter(|entered| entered.state == state).map(|entered| entered.at).collect()
    }
}

/// One execution that is walked.
enum Going {
    Campaign(RunId, Walk),
    /// A rotation, and the secret that its input names.
    Rotation(Box<Run>, String),
    /// The removal of an unused key, and the campaign that its input names.
    Removal(Box<Removal>, RunId),
}

type Door<'a> = &'a dyn Fn(&str, &str, &Value) -> Control;

impl World {
    /// Starts the fleet machine and waits until it and every rotation that it starts have ended.
    pub async fn campaign(&self, input: Value) -> Campaigned {
        self.campaign_watched(input, &mut |_, _, _| Control::Go).await
    }

    /// The same; `at_door` sees each machine's states before they are entered. Where it stops the fleet machine, the
    /// rotations under way go on.
    pub async fn campaign_watched(
        &self,
        input: Value,
        at_door: &mut dyn FnMut(&str, &str, &Value) -> Control,
    ) -> Campaigned {
        self.campaigns(vec![(Duration::ZERO, input)], at_door).await.pop().unwrap()
    }

    /// The same for several campaigns, each started so long after now.
    pub async fn campaigns(
        &self,
        asked: Vec<(Duration, Value)>,
        at_door: &mut dyn FnMut(&str, &str, &Value) -> Control,
    ) -> Vec<Campaigned> {
        let fleet = machine("fleet");
        let fleet = &fleet;
        let at_door = RefCell::new(at_door);
        let door =
            |machine: &str, state: &str, document: &Value| (at_door.borrow_mut())(machine, state, document);
        let door: Door<'_> = &door;
        let executions = self.fake.state().machine("fleet").replacen(":stateMachine:", ":execution:", 1);
        let begin = |(after, input)| {
            self.in_campaign(fleet, format!("{executions}:{}", RunId::random()), after, input, door)
        };
        let first = asked.into_iter().map(begin).collect();
        let walking = |arn, input| self.in_campaign(fleet, arn, Duration::ZERO, input, door);
        let ended = walk_all(&self.fake, first, walking).await;
        let (mut campaigns, mut rotations, mut removals) = (Vec::new(), Vec::new(), Vec::new());
        for end in ended {
            match end {
                Going::Campaign(id, walk) => {
                    let doc = serde_json::from_value(walk.output.clone()).ok();
                    let (rotations, removals) = (Vec::new(), Vec::new());
                    campaigns.push(Campaigned { id, walk, doc, rotations, removals });
                }
                Going::Rotation(run, secret) => rotations.push((run, secret)),
                Going::Removal(removal, campaign) => removals.push((removal, campaign)),
            }
        }
        for (run, secret) in rotations {
            let whose = campaigns.iter_mut().find(|campaign| campaign.id.child(&secret) == run.id);
            whose.expect("a rotation is named after its campaign and its secret").rotations.push(*run);
        }
        for (removal, campaign) in removals {
            let whose = campaigns.iter_mut().find(|one| one.id == campaign);
            whose.expect("a removal names its campaign").removals.push(*removal);
        }
        campaigns
    }

    fn in_campaign<'a>(
        &'a self,
        fleet: &'a Value,
        arn: String,
        after: Duration,
        input: Value,
        door: Door<'a>,
    ) -> Walking<'a, Going> {
        Box::pin(async move {
            let id: RunId = arn.rsplit_once(':').and_then(|(_, name)| name.parse().ok()).unwrap();
            if arn.contains("-rotation:") {
                let secret = input["secret"].as_str().unwrap_or_default().to_owned();
                let mut door = |state: &str, document: &Value| door("rotation", state, document);
                let run = self.run_named(&arn, input, &mut door).await;
                return Going::Rotation(Box::new(Run { id, ..run }), secret);
            }
            if arn.contains("-unused:") {
                let campaign: RunId = input["campaign"].as_str().and_then(|id| id.parse().ok()).unwrap();
                let mut door = |state: &str, document: &Value| door("unused", state, document);
                let removal = self.removal_named(&arn, input, &mut door).await;
                return Going::Removal(Box::new(removal), campaign);
            }
            if !after.is_zero() {
                tokio::time::sleep(after).await;
            }
            let mut door = |state: &str, document: &Value| door("fleet", state, document);
            let walk = Walker::new(fleet, &self.functions, &self.fake, &arn, &mut door).walk(input).await;
            let doc: Option<Campaign> = serde_json::from_value(walk.output.clone()).ok();
            invariants::after_campaign(&mut self.fake.state(), &walk, doc.as_ref());
            self.assert_promises();
            Going::Campaign(id, walk)
        })
    }

    /// Puts a policy where `keywheel policy push` puts it; its version.
    pub fn push_policy(&self, policy: Value) -> String {
        let policy = FleetPolicy::read(policy).unwrap();
        let now = self.fake.state().now();
        self.freeze(&freeze::text(&policy.limits.freezes_left(now)).unwrap());
        self.push_policy_text(&serde_json::to_string(&policy).unwrap())
    }

    /// The same for any text.
    pub fn push_policy_text(&self, text: &str) -> String {
        let mut state = self.fake.state();
        let version = format!("policy-{}", state.next());
        let object = Object { key: POLICY.to_owned(), text: text.to_owned(), version: version.clone() };
        state.objects.push(object);
        version
    }

    /// The users whose lines in a campaign's plan have that action.
    pub fn planned(&self, doc: &Campaign, action: &str) -> BTreeSet<String> {
        let state = self.fake.state();
        let mut users = BTreeSet::new();
        for line in state.object(&doc.plan()).unwrap_or_default().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            if line["action"] == action {
                users.insert(line["user"].as_str().unwrap().to_owned());
            }
        }
        users
    }

    /// A campaign's batches.
    pub fn batches(&self, doc: &Campaign) -> Vec<Vec<Item>> {
        let state = self.fake.state();
        let count: usize = doc.waves.iter().map(|wave| wave.batches).sum();
        let batch = |number| serde_json::from_str(state.object(&doc.items(number)).unwrap()).unwrap();
        (1..=count).map(batch).collect()
    }

    /// The keys that consumers use, by their users.
    pub fn current_keys(&self) -> BTreeMap<String, String> {
        let of = |secret: &Secret| {
            let value = secret.current()?;
            let text = |name: &str| Some(value.get(name)?.as_str()?.to_owned());
            Some((text("UserName")?, text("AccessKeyId")?))
        };
        self.fake.state().secrets.iter().filter_map(of).collect()
    }

    /// By the names of their secrets, the runs that have promoted a key.
    pub fn promotions(&self) -> BTreeMap<String, BTreeSet<RunId>> {
        let state = self.fake.state();
        let mut found: BTreeMap<String, BTreeSet<RunId>> = BTreeMap::new();
        for call in state.calls.iter().filter(|call| is_promotion(call)) {
            let secret = state.secrets.iter().find(|secret| call.params["SecretId"] == *secret.arn).unwrap();
            found.entry(secret.name.clone()).or_default().extend(call.run);
        }
        found
    }

    /// The calls that have changed something about whom the name stands for, or have started to.
    pub fn writes_on(&self, name: &str) -> Vec<String> {
        let is_write = |call: &&Call| {
            let (service, action) = call.name.split_once(':').unwrap_or_default();
            ["iam", "secretsmanager", "states"].contains(&service)
                && !["Get", "List", "Describe", "Generate"].iter().any(|read| action.starts_with(read))
                && call.status == 200
                && call.params.to_string().contains(name)
        };
        self.fake.state().calls.iter().filter(is_write).map(|call| call.name.clone()).collect()
    }

    /// How many calls each function has made; those of a machine itself are nobody's.
    pub fn calls_by_function(&self) -> BTreeMap<String, usize> {
        let mut count = BTreeMap::new();
        for call in &self.fake.state().calls {
            *count.entry(call.function.clone().unwrap_or_default()).or_default() += 1;
        }
        count
    }

    /// Fails the test unless every secret opens a working key, no key is lost, and nobody was rotated twice.
    pub fn assert_all_sound(&self) {
        {
            let state = self.fake.state();
            for secret in &state.secrets {
                let good = invariants::current_is_good(&state, secret.current());
                good.unwrap_or_else(|why| panic!("{}: {why}", secret.name));
            }
            assert_eq!(invariants::orphans(&state), Vec::<String>::new(), "orphans");
        }
        self.assert_rotated_once();
        self.assert_promises();
    }

    /// Fails the test if two runs have promoted a key of the same secret.
    pub fn assert_rotated_once(&self) {
        for (secret, runs) in self.promotions() {
            assert_eq!(runs.len(), 1, "{secret} was rotated by {runs:?}");
        }
    }
}

/// Whether a call has moved AWSCURRENT to a new key.
pub fn is_promotion(call: &Call) -> bool {
    call.function.as_deref() == Some("promote-key")
        && call.name == "secretsmanager:UpdateSecretVersionStage"
        && call.status == 200
        && call.params["VersionStage"] == "AWSCURRENT"
}
