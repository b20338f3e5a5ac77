//! An account of many users: what a plan is made for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::json;

use crate::fake::{Maker, Secret, State, User};
use crate::world::{World, hours};

/// So many days.
pub const fn days(days: u64) -> Duration {
    hours(24 * days)
}

impl State {
    /// Makes a key so many days old.
    pub fn age_key(&mut self, key: &str, age: u64) {
        let made = self.ago(days(age));
        let key = self.key_mut(key);
        key.changes[0].0 = made;
        key.created = made;
    }
}

impl World {
    /// Adds a managed user with its secret and keys of these ages in days; the last of them is current.
    pub fn managed(&self, name: &str, ages: &[u64]) {
        for key in self.managed_without_value(name, ages) {
            let mut state = self.fake.state();
            let secret = state.key(&key).unwrap().1.secret.clone();
            let text = json!({"UserName": name, "AccessKeyId": key, "SecretAccessKey": secret}).to_string();
            state.put_current(name, &text);
        }
    }

    /// Adds a managed user with keys of these ages in days, and a secret that holds none of them.
    pub fn managed_without_value(&self, name: &str, ages: &[u64]) -> Vec<String> {
        let mut state = self.fake.state();
        let arn = format!(
            "arn:{}:secretsmanager:{}:{}:secret:{name}-AbCdEf",
            state.partition, state.region, state.account
        );
        let tags = BTreeMap::from([("keywheel:secret".to_owned(), arn.clone())]);
        let user = User {
            name: name.into(),
            account: None,
            path: "/apps/".into(),
            id: format!("AIDA{name}"),
            tags,
            keys: Vec::new(),
            inline: BTreeMap::new(),
            attached: BTreeSet::new(),
        };
        state.users.insert(name.into(), user);
        state.secrets.push(Secret {
            name: name.into(),
            arn,
            tags: BTreeMap::from([("keywheel:user".into(), name.into())]),
            versions: Vec::new(),
            deleted: None,
            primary_region: None,
        });
        let mut ids = Vec::new();
        for age in ages {
            let (id, at) = (state.add_key(name, Maker::Owner), state.ago(hours(1)));
            state.age_key(&id, *age);
            state.use_key(&id, "s3", at);
            ids.push(id);
        }
        ids
    }

    /// Takes a user's tag, or its secret's, away.
    pub fn untag(&self, name: &str, whose: &str) {
        let mut state = self.fake.state();
        match whose {
            "user" => state.users.get_mut(name).unwrap().tags.clear(),
            _ => state.secret_mut(name).tags.clear(),
        }
    }
}
