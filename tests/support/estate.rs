//! An account of many users: what a plan is made for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::json;

use crate::fake::{Maker, Secret, State, User, random_secret};
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
        let keys = self.managed_without_value(name, ages);
        self.store(name, &keys);
    }

    /// The same in another account, which lets the hub in; no other secret has its name.
    pub fn managed_in(&self, account: &str, name: &str, ages: &[u64]) {
        self.lets_in(account);
        let keys = self.add_managed(Some(account), name, ages);
        self.store(name, &keys);
    }

    /// Opens an account to the hub.
    pub fn lets_in(&self, account: &str) {
        let mut state = self.fake.state();
        state.external_id.get_or_insert_with(random_secret);
        state.open.insert(account.to_owned());
    }

    /// Stores these keys one after another.
    fn store(&self, name: &str, keys: &[String]) {
        for key in keys {
            let mut state = self.fake.state();
            let secret = state.key(key).unwrap().1.secret.clone();
            let text = json!({"UserName": name, "AccessKeyId": key, "SecretAccessKey": secret}).to_string();
            state.put_current(name, &text);
        }
    }

    /// Adds a managed user with keys of these ages in days, and a secret that holds none of them.
    pub fn managed_without_value(&self, name: &str, ages: &[u64]) -> Vec<String> {
        self.add_managed(None, name, ages)
    }

    fn add_managed(&self, account: Option<&str>, name: &str, ages: &[u64]) -> Vec<String> {
        let mut state = self.fake.state();
        let arn = format!(
            "arn:{}:secretsmanager:{}:{}:secret:{name}-AbCdEf",
            state.partition,
            state.region,
            account.unwrap_or(&state.account)
        );
        let tags = BTreeMap::from([("keywheel:secret".to_owned(), arn.clone())]);
        let user = User {
            name: name.into(),
            account: account.map(str::to_owned),
            path: "/apps/".into(),
            id: format!("AIDA{name}"),
            tags,
            keys: Vec::new(),
            inline: BTreeMap::new(),
            attached: BTreeSet::new(),
        };
        let kept = account.map_or_else(|| name.to_owned(), |account| format!("{account}/{name}"));
        state.users.insert(kept.clone(), user);
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
            let (id, at) = (state.add_key(&kept, Maker::Owner), state.ago(hours(1)));
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
