//! The Lambdas' roles as deployed: what they may do, one action taken away in place, and all of it put back.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use support::repository::{machine, states};
use support::walker::function;

use crate::cloud::Cloud;

/// Enforced by AWS alone, the first three for every function's platform: the contract tests pin these. The last is what
/// AWS asks for before it says that an object is not there.
const UNENFORCED: [&str; 5] = ["logs:", "xray:", "kms:", "account:", "s3:ListBucket"];

/// A role with its inline policy, as it was deployed.
#[derive(Debug, Clone)]
pub(super) struct Role {
    /// The function that assumes it.
    pub(super) function: String,
    /// Its name.
    pub(super) name: String,
    policy: String,
    document: Value,
}

/// One action of one statement of one role.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Grant {
    /// The function whose role it is.
    pub(super) function: String,
    /// The statement's name.
    pub(super) statement: String,
    /// `service:Action`.
    pub(super) action: String,
}

impl Grant {
    /// The call, as the cloud's log names it: a version of an object is read by the same one.
    pub(super) fn call(&self) -> String {
        self.action.replace("GetObjectVersion", "GetObject")
    }
}

/// The functions that a machine's states call.
pub(super) fn functions_of(name: &str) -> BTreeSet<String> {
    let machine = machine(name);
    let states = states(&machine).into_iter();
    let called = states.filter_map(|(_, state)| state.get("Resource")?.as_str());
    called.filter(|resource| !resource.contains("StartExecution")).map(function).collect()
}

/// These functions' roles. Fails where a function shares one, or has policies of another kind.
pub(super) async fn deployed(cloud: &Cloud, functions: BTreeSet<String>) -> BTreeMap<String, Role> {
    let list = cloud.iam.list_roles().into_paginator().items().send();
    let names: Vec<String> = list
        .collect::<Result<Vec<_>, _>>()
        .await
        .unwrap()
        .iter()
        .map(|role| role.role_name().to_owned())
        .collect();
    let mut roles = BTreeMap::new();
    for function in &functions {
        let part = format!("-{}Role-", pascal(function));
        let own: Vec<&String> = names.iter().filter(|name| name.contains(&part)).collect();
        let [name] = own[..] else { panic!("{function} has the roles {own:?} of {names:?}") };
        roles.insert(function.clone(), Role::read(cloud, function, name).await);
    }
    roles
}

/// `deactivate-key` as the template's resources write it.
fn pascal(name: &str) -> String {
    let word = |word: &str| word[..1].to_uppercase() + &word[1..];
    name.split('-').map(word).collect()
}

fn list(value: &Value) -> Vec<String> {
    match value {
        Value::Array(rows) => rows.iter().map(|row| row.as_str().unwrap().to_owned()).collect(),
        one => vec![one.as_str().unwrap().to_owned()],
    }
}

/// The document of a policy, which IAM returns percent-encoded.
async fn read(cloud: &Cloud, role: &str, policy: &str) -> Value {
    let reply = cloud.iam.get_role_policy().role_name(role).policy_name(policy).send().await.unwrap();
    let text = reply.policy_document();
    if let Ok(document) = serde_json::from_str(text) {
        return document;
    }
    let plus = text.replace('+', "%2B");
    let (decoded, _) = form_urlencoded::parse(plus.as_bytes()).next().unwrap();
    serde_json::from_str(&decoded).unwrap()
}

impl Role {
    async fn read(cloud: &Cloud, function: &str, name: &str) -> Self {
        let policies = cloud.iam.list_role_policies().role_name(name).send().await.unwrap();
        let [policy] = policies.policy_names() else { panic!("{name} has {:?}", policies.policy_names()) };
        let attached = cloud.iam.list_attached_role_policies().role_name(name).send().await.unwrap();
        assert!(
            attached.attached_policies().is_empty(),
            "{name} has managed policies, which nobody takes apart"
        );
        let document = read(cloud, name, policy).await;
        Self { function: function.to_owned(), name: name.to_owned(), policy: policy.clone(), document }
    }

    fn statements(&self) -> &[Value] {
        self.document["Statement"].as_array().unwrap()
    }

    /// How many statements it has, and how many actions.
    pub(super) fn size(&self) -> (usize, usize) {
        let actions = self.statements().iter().map(|statement| list(&statement["Action"]).len()).sum();
        (self.statements().len(), actions)
    }

    /// What the local cloud enforces of it, action by action.
    pub(super) fn grants(&self) -> BTreeSet<Grant> {
        let mut grants = BTreeSet::new();
        for statement in self.statements() {
            assert_eq!(statement["Effect"], "Allow", "{statement}");
            for action in list(&statement["Action"]) {
                if !UNENFORCED.iter().any(|service| action.starts_with(service)) {
                    let (function, statement) =
                        (self.function.clone(), statement["Sid"].as_str().unwrap().to_owned());
                    let fresh = grants.insert(Grant { function, statement, action: action.clone() });
                    assert!(fresh, "{} grants {action} twice", self.name);
                }
            }
        }
        grants
    }

    /// Takes one action away, in place.
    pub(super) async fn take(&self, cloud: &Cloud, grant: &Grant) {
        let mut document = self.document.clone();
        let statements = document["Statement"].as_array_mut().unwrap();
        for statement in
            statements.iter_mut().filter(|statement| statement["Sid"] == grant.statement.as_str())
        {
            let mut actions = list(&statement["Action"]);
            actions.retain(|action| *action != grant.action);
            statement["Action"] = actions.into();
        }
        statements.retain(|statement| statement["Action"] != Value::Array(Vec::new()));
        assert_ne!(document, self.document, "{grant:?} is not in the policy");
        self.put(cloud, &document).await;
    }

    /// Puts back what was deployed.
    pub(super) async fn restore(&self, cloud: &Cloud) {
        self.put(cloud, &self.document).await;
    }

    async fn put(&self, cloud: &Cloud, document: &Value) {
        let call = cloud.iam.put_role_policy().role_name(&self.name).policy_name(&self.policy);
        call.policy_document(document.to_string()).send().await.unwrap();
        assert_eq!(read(cloud, &self.name, &self.policy).await, *document);
    }

    /// Fails where the role differs from what was deployed.
    pub(super) async fn expect_unchanged(&self, cloud: &Cloud) {
        let now = Self::read(cloud, &self.function, &self.name).await;
        assert_eq!(now.document, self.document, "{} was not put back", self.name);
    }
}
