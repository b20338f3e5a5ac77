//! An alarm: an event, what it is taken for, and every execution that comes of it, walked beside each other.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use keywheel::incident::{Record, RecordState};
use keywheel::notice::NoticeKind;
use keywheel::rotation::Outcome;
use keywheel::{Alert, Incident, RunId};
use serde_json::{Value, json};

use crate::beside::{Walking, walk_all};
use crate::fake::{Maker, User};
use crate::functions::STAGE;
use crate::invariants;
use crate::walker::{Control, Walk, Walker};
use crate::world::{Run, USER, World, hours};

/// What an event has led to, when all of it has ended.
#[derive(Debug)]
pub struct Alarm {
    /// The emergency machine's walk.
    pub walk: Walk,
    /// What the event was taken for; `None` where triage itself failed.
    pub alert: Option<Alert>,
    /// The incidents, as they were started.
    pub incidents: Vec<Ended>,
    /// The rotations that they started.
    pub rotations: Vec<Run>,
}

/// One incident and how it ended.
#[derive(Debug)]
pub struct Ended {
    /// The walk.
    pub walk: Walk,
    /// The document at the end.
    pub doc: Incident,
}

impl Alarm {
    /// What the event was taken for.
    pub fn alert(&self) -> &Alert {
        self.alert.as_ref().unwrap_or_else(|| panic!("no alert: {:?}", self.walk.error))
    }

    /// The one incident.
    pub fn incident(&self) -> &Ended {
        let [incident] = self.incidents.as_slice() else { panic!("{} incidents", self.incidents.len()) };
        incident
    }

    /// The one rotation.
    pub fn rotation(&self) -> &Run {
        let [rotation] = self.rotations.as_slice() else { panic!("{} rotations", self.rotations.len()) };
        rotation
    }
}

impl Ended {
    /// The code of the reason that the incident gave.
    pub fn why(&self) -> &str {
        self.doc.why.as_ref().map_or("", |why| why.code.as_str())
    }

    /// What the incident said of its end.
    pub fn text(&self) -> &str {
        self.doc.why.as_ref().map_or("", |why| why.text.as_str())
    }

    /// Fails the test unless the incident ended so, for this reason.
    pub fn expect(&self, outcome: Outcome, code: &str) -> &Self {
        assert_eq!(
            (self.walk.status, self.doc.outcome, self.why()),
            ("SUCCEEDED", Some(outcome), code),
            "why: {:?}\nerror: {:?}\nstates: {:?}",
            self.doc.why,
            self.walk.error,
            self.walk.states()
        );
        self
    }

    /// Whether the incident told of this.
    pub fn told(&self, kind: NoticeKind) -> bool {
        self.doc.notices.iter().any(|notice| notice.kind == kind)
    }

    /// The words of a notice.
    pub fn notice(&self, kind: NoticeKind) -> &str {
        let notice = self.doc.notices.iter().find(|notice| notice.kind == kind);
        let told = || self.doc.notices.iter().map(|notice| notice.kind).collect::<Vec<_>>();
        &notice.unwrap_or_else(|| panic!("no notice {kind:?}, only {:?}", told())).text
    }
}

/// A finding of GuardDuty about a long-term key, as EventBridge delivers it.
pub fn finding(key: &str, user: &str) -> Value {
    json!({
        "id": RunId::random().to_string(), "source": "aws.guardduty", "detail-type": "GuardDuty Finding",
        "detail": {
            "schemaVersion": "2.0", "accountId": "111122223333", "region": "eu-west-1", "severity": 8,
            "type": "UnauthorizedAccess:IAMUser/MaliciousIPCaller.Custom", "title": "A finding of a test",
            "resource": {
                "resourceType": "AccessKey",
                "accessKeyDetails": {"accessKeyId": key, "principalId": "AIDATEST", "userType": "IAMUser", "userName": user},
            },
            "service": {"serviceName": "guardduty", "count": 1},
        },
    })
}

/// Our own report of leaked keys, as EventBridge delivers it.
pub fn report<'a>(keys: impl IntoIterator<Item = &'a str>) -> Value {
    let keys: Vec<Value> = keys.into_iter().map(|key| json!({"key_id": key})).collect();
    json!({
        "id": RunId::random().to_string(), "source": "keywheel.leak", "detail-type": "Leaked Access Key",
        "detail": {"schema": 1, "keys": keys, "severity": "critical"},
    })
}

/// An event of AWS Health about keys that were found in public.
pub fn exposed<'a>(entities: impl IntoIterator<Item = &'a str>) -> Value {
    let entities: Vec<Value> = entities.into_iter().map(|entity| json!({"entityValue": entity})).collect();
    json!({
        "id": RunId::random().to_string(), "source": "aws.health", "detail-type": "AWS Health Event",
        "detail": {
            "service": "RISK", "eventTypeCode": "AWS_RISK_CREDENTIALS_EXPOSED", "eventTypeCategory": "issue",
            "affectedAccount": "111122223333", "affectedEntities": entities,
        },
    })
}

/// CloudTrail's record of a key that somebody made Active.
pub fn made_active(key: &str, user: &str) -> Value {
    json!({
        "id": RunId::random().to_string(), "source": "aws.iam", "detail-type": "AWS API Call via CloudTrail",
        "detail": {
            "eventSource": "iam.amazonaws.com", "eventName": "UpdateAccessKey",
            "recipientAccountId": "111122223333",
            "userIdentity": {"type": "IAMUser", "arn": "arn:aws:iam::111122223333:user/somebody"},
            "userAgent": "console.amazonaws.com",
            "requestParameters": {"userName": user, "accessKeyId": key, "status": "Active"},
        },
    })
}

/// CloudTrail's record of a key that was made, as EventBridge delivers it.
pub fn made(world: &World, key: &str) -> Value {
    let record = world.fake.state().record_of_making(key);
    json!({
        "id": RunId::random().to_string(), "source": "aws.iam", "detail-type": "AWS API Call via CloudTrail",
        "account": "111122223333", "detail": record.unwrap_or_else(|| panic!("no record of {key}")),
    })
}

/// One execution that is walked.
enum Going {
    Emergency(Walk),
    Incident(Walk),
    Rotation(Box<Run>),
}

type Door<'a> = &'a dyn Fn(&str, &str, &Value) -> Control;

impl World {
    /// A world whose switch of containment is on, and whose managed key is known to others.
    pub fn leaked() -> Self {
        let world = Self::new();
        world.containment("on");
        world.leak(&world.current_key());
        world
    }

    /// Starts the emergency machine with an event and waits until everything that comes of it has ended.
    pub async fn alarm(&self, event: Value) -> Alarm {
        self.alarm_watched(event, &mut |_, _, _| Control::Go).await
    }

    /// The same; `at_door` sees each machine's states before they are entered.
    pub async fn alarm_watched(
        &self,
        event: Value,
        at_door: &mut dyn FnMut(&str, &str, &Value) -> Control,
    ) -> Alarm {
        let at_door = RefCell::new(at_door);
        let door =
            |machine: &str, state: &str, document: &Value| (at_door.borrow_mut())(machine, state, document);
        let door: Door<'_> = &door;
        let arn = self.fake.state().machine("emergency").replacen(":stateMachine:", ":execution:", 1);
        let arn = format!("{arn}:{}", RunId::random());
        let first = vec![self.walking(arn, event, door)];
        let ended = walk_all(&self.fake, first, |arn, input| self.walking(arn, input, door)).await;
        self.told(ended)
    }

    fn walking<'a>(&'a self, arn: String, input: Value, door: Door<'a>) -> Walking<'a, Going> {
        Box::pin(async move {
            let machine = ["emergency", "incident", "rotation"];
            let machine = machine.into_iter().find(|name| arn.contains(&format!("-{name}:"))).unwrap();
            let mut door = |state: &str, document: &Value| door(machine, state, document);
            let definition = match machine {
                "emergency" => &self.emergency,
                "incident" => &self.incident,
                _ => return Going::Rotation(Box::new(self.run_named(&arn, input, &mut door).await)),
            };
            let walk =
                Walker::new(definition, &self.functions, &self.fake, &arn, &mut door).walk(input).await;
            if machine == "emergency" {
                return Going::Emergency(walk);
            }
            let doc: Option<Incident> = serde_json::from_value(walk.output.clone()).ok();
            invariants::after_incident(&mut self.fake.state(), &walk, doc.as_ref());
            self.assert_promises();
            Going::Incident(walk)
        })
    }

    fn told(&self, ended: Vec<Going>) -> Alarm {
        let (mut emergency, mut incidents, mut rotations) = (None, Vec::new(), Vec::new());
        for end in ended {
            match end {
                Going::Emergency(walk) => emergency = Some(walk),
                Going::Incident(walk) => {
                    let doc = serde_json::from_value(walk.output.clone()).unwrap();
                    incidents.push(Ended { walk, doc });
                }
                Going::Rotation(run) => rotations.push(*run),
            }
        }
        let walk = emergency.unwrap();
        let alert: Option<Alert> = serde_json::from_value(walk.output.clone()).ok();
        invariants::after_alarm(&mut self.fake.state(), &walk, alert.as_ref());
        self.assert_promises();
        Alarm { walk, alert, incidents, rotations }
    }

    /// Turns the switch of containment.
    pub fn containment(&self, switch: &str) {
        self.fake.state().parameters.insert(format!("/keywheel/{STAGE}/containment"), switch.into());
    }

    /// Sets the emergency policy.
    pub fn emergency_policy(&self, policy: &Value) {
        let name = format!("/keywheel/{STAGE}/emergency");
        self.fake.state().parameters.insert(name, policy.to_string());
    }

    /// Says that a key is known to others.
    pub fn leak(&self, key: &str) {
        self.fake.state().watch.leaked.insert(key.to_owned());
    }

    /// A person says that a key did not leak, for a week.
    pub fn clear(&self, key: &str, user: &str) {
        let until = keywheel::clock::after(self.fake.state().now(), hours(24 * 7));
        self.record(key, user, RecordState::Cleared, Some((until, "a scanner's test")));
    }

    /// An incident that is not walked here has contained a key.
    pub fn contained(&self, key: &str, user: &str) {
        self.record(key, user, RecordState::Contained, None);
    }

    fn record(&self, key: &str, user: &str, state: RecordState, note: Option<(jiff::Timestamp, &str)>) {
        let mut fake = self.fake.state();
        let record = Record {
            schema: keywheel::incident::SCHEMA,
            key: key.parse().unwrap(),
            user: user.parse().unwrap(),
            account: None,
            incident: RunId::random(),
            at: fake.now(),
            state,
            until: note.map(|(until, _)| until),
            note: note.map(|(_, note)| note.to_owned()),
        };
        let text = serde_json::to_string(&record).unwrap();
        fake.parameters.insert(Record::parameter(STAGE, &record.key), text);
    }

    /// A person says that everything about a leaked key was dealt with.
    pub fn close(&self, key: &str) {
        let mut state = self.fake.state();
        let name = Record::parameter(STAGE, &key.parse().unwrap());
        let mut record: Record = serde_json::from_str(&state.parameters[&name]).unwrap();
        record.state = RecordState::Closed;
        state.parameters.insert(name, serde_json::to_string(&record).unwrap());
    }

    /// A user that Keywheel does not manage, with one key of its own.
    pub fn stranger(&self, name: &str) -> String {
        self.add_user(name, None)
    }

    /// A user of an account that lets the hub in, with one key of its own.
    pub fn member(&self, account: &str, name: &str) -> String {
        self.lets_in(account);
        self.add_user(name, Some(account))
    }

    fn add_user(&self, name: &str, account: Option<&str>) -> String {
        let mut state = self.fake.state();
        let number = state.users.len();
        let user = User {
            name: name.into(),
            account: account.map(str::to_owned),
            path: "/".into(),
            id: format!("AIDAFAKESTRANGER{number:04}"),
            tags: BTreeMap::new(),
            keys: Vec::new(),
            inline: BTreeMap::new(),
            attached: BTreeSet::new(),
        };
        let kept = account.map_or_else(|| name.to_owned(), |account| format!("{account}/{name}"));
        state.users.insert(kept.clone(), user);
        let key = state.add_key(&kept, Maker::Stranger);
        let long_ago = state.ago(hours(24 * 50));
        state.key_mut(&key).changes[0].0 = long_ago;
        state.key_mut(&key).created = long_ago;
        key
    }

    /// Somebody switches a key on or off.
    pub fn switch_key(&self, key: &str, active: bool) {
        let mut state = self.fake.state();
        let now = state.now();
        state.key_mut(key).changes.push((now, active));
        state.watch.by_people.insert(key.to_owned());
    }

    /// Whether a key exists and is Active.
    pub fn is_active(&self, key: &str) -> bool {
        self.fake.state().key(key).is_some_and(|(_, key)| key.is_active())
    }

    /// The names of a user's own policies.
    pub fn policies(&self, user: &str) -> Vec<String> {
        self.fake.state().users[user].inline.keys().cloned().collect()
    }

    /// Fails the test unless the application of the managed user works again.
    pub fn assert_replaced(&self) {
        let current = self.current_key();
        let state = self.fake.state();
        assert!(!state.watch.leaked.contains(&current), "AWSCURRENT still names the leaked key {current}");
        assert!(!state.denies_keys(USER), "the user is denied everything");
        drop(state);
        self.assert_sound();
    }
}
