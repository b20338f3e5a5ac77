//! Keys that nobody uses, and the runs that remove them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use keywheel::unused::{Outcome, Removed, Unused};
use keywheel::{AccessKeyId, RunId};
use serde_json::{Value, json};

use crate::fake::{Maker, User};
use crate::invariants;
use crate::walker::{Control, Walk, Walker};
use crate::world::{World, machine};

/// One removal, when it has ended.
#[derive(Debug)]
pub struct Removal {
    /// The walk.
    pub walk: Walk,
    /// The document at its end; `None` where it was over before there was one.
    pub doc: Option<Unused>,
}

impl Removal {
    /// How it ended.
    pub fn outcome(&self) -> Option<Outcome> {
        self.doc.as_ref().and_then(|doc| doc.outcome)
    }

    /// The code of the reason that it gave.
    pub fn why(&self) -> &str {
        self.doc.as_ref().and_then(|doc| doc.why.as_ref()).map_or("", |why| why.code.as_str())
    }

    /// Fails the test unless it succeeded with this outcome, for this reason.
    pub fn expect(&self, outcome: Outcome, code: &str) -> &Self {
        assert_eq!(
            (self.walk.status, self.outcome(), self.why()),
            ("SUCCEEDED", Some(outcome), code),
            "why: {:?}\nerror: {:?}\nstates: {:?}",
            self.doc.as_ref().and_then(|doc| doc.why.as_ref()),
            self.walk.error,
            self.walk.states()
        );
        self
    }
}

impl World {
    /// Gives a user a key that is so many days old, that no secret holds and that nobody has ever used.
    pub fn unused_key(&self, user: &str, age: u64) -> String {
        let mut state = self.fake.state();
        let key = state.add_key(user, Maker::Stranger);
        state.age_key(&key, age);
        key
    }

    /// Adds a user that nobody manages, without keys.
    pub fn unmanaged(&self, name: &str) {
        let user = User {
            name: name.into(),
            account: None,
            path: "/".into(),
            id: format!("AIDA{name}"),
            tags: BTreeMap::new(),
            keys: Vec::new(),
            inline: BTreeMap::new(),
            attached: BTreeSet::new(),
        };
        self.fake.state().users.insert(name.into(), user);
    }

    /// Tags a user so that its unused keys may go.
    pub fn allow_removal(&self, user: &str) {
        let mut state = self.fake.state();
        state.users.get_mut(user).unwrap().tags.insert("keywheel:unused".into(), "remove".into());
    }

    /// The input of a removal, as a campaign writes it for a policy of 120 and 30 days.
    pub fn removed(&self, user: &str, key: &str) -> Removed {
        let state = self.fake.state();
        let unused = json!({"disable_after": "120d", "delete_after": "30d"});
        Removed {
            account: state.account.clone(),
            user: user.parse().unwrap(),
            user_id: state.users[user].id.clone(),
            key: key.parse::<AccessKeyId>().unwrap(),
            unused: serde_json::from_value(unused).unwrap(),
            regions: vec![state.region.clone()],
            rule: "defaults".into(),
            owner: None,
            campaign: RunId::standing_for("campaign"),
        }
    }

    /// Starts a removal and waits for its end.
    pub async fn removal(&self, removed: &Removed) -> Removal {
        self.removal_watched(removed, &mut |_, _| Control::Go).await
    }

    /// The same; `at_door` sees each state before it is entered.
    pub async fn removal_watched(
        &self,
        removed: &Removed,
        at_door: &mut dyn FnMut(&str, &Value) -> Control,
    ) -> Removal {
        let (executions, now) = {
            let state = self.fake.state();
            (state.machine("unused").replacen(":stateMachine:", ":execution:", 1), state.now())
        };
        let arn = format!("{executions}:{}", removed.run(now));
        self.removal_named(&arn, serde_json::to_value(removed).unwrap(), at_door).await
    }

    /// An execution of the unused machine, of any name and input.
    pub async fn removal_named(
        &self,
        arn: &str,
        input: Value,
        at_door: &mut dyn FnMut(&str, &Value) -> Control,
    ) -> Removal {
        let definition = machine("unused");
        let walk = Walker::new(&definition, &self.functions, &self.fake, arn, at_door).walk(input).await;
        let doc: Option<Unused> = serde_json::from_value(walk.output.clone()).ok();
        invariants::after_removal(&mut self.fake.state(), &walk, doc.as_ref());
        self.assert_promises();
        Removal { walk, doc }
    }

    /// Walks the removals that were started and that nobody walks yet, one after the other.
    pub async fn removals(&self) -> Vec<Removal> {
        let fresh = std::mem::take(&mut self.fake.state().to_walk);
        let mut ended = Vec::new();
        for arn in fresh {
            assert!(arn.contains("-unused:"), "{arn}");
            let input = self.fake.state().executions[&arn].input.clone();
            let input = serde_json::from_str(&input).unwrap();
            ended.push(self.removal_named(&arn, input, &mut |_, _| Control::Go).await);
        }
        ended
    }

    /// Lets so many days pass.
    pub async fn days_pass(&self, days: u64) {
        self.fake.wait(Duration::from_hours(24 * days)).await;
    }
}
