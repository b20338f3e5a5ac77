//! Policies of users, as far as they deny sessions: inline ones with their quota, and managed ones.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::state::State;
use super::wire::{Answer, Body, Request, refuse, refuse_with, tag};

/// What a user's inline policies may hold together, blanks not counted.
const INLINE: usize = 2_048;
/// How many managed policies a user may have.
const ATTACHED: usize = 10;

fn full(message: &str) -> Answer {
    refuse_with(409, "LimitExceeded", message)
}

fn no_policy(name: &str) -> Answer {
    refuse_with(404, "NoSuchEntity", format!("Policy {name} does not exist or is not attachable."))
}

fn malformed() -> Answer {
    refuse("MalformedPolicyDocument", "Syntax errors in policy.")
}

/// IAM's documents travel percent-encoded, as RFC 3986 has it.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

fn weight(document: &str) -> usize {
    document.chars().filter(|letter| !letter.is_whitespace()).count()
}

impl State {
    /// Whether the call is one about policies.
    pub(super) fn is_about_policies(action: &str) -> bool {
        action.ends_with("Policy")
    }

    pub(super) fn policies(&mut self, request: &Request) -> Answer {
        if request.action.ends_with("RolePolicy") {
            return self.role_policies(request);
        }
        let user = request.text("UserName").to_owned();
        let (name, arn) = (request.text("PolicyName").to_owned(), request.text("PolicyArn").to_owned());
        match request.action.as_str() {
            "GetUserPolicy" => match self.users[&user].inline.get(&name) {
                Some(document) => Ok(Body::Xml(
                    [
                        tag("UserName", &user),
                        tag("PolicyName", &name),
                        tag("PolicyDocument", encoded(document)),
                    ]
                    .concat(),
                )),
                None => no_policy(&name),
            },
            "PutUserPolicy" => self.put_user_policy(&user, name, request.text("PolicyDocument")),
            "DeleteUserPolicy" => match self.users.get_mut(&user).unwrap().inline.remove(&name) {
                Some(_) => Ok(Body::Xml(String::new())),
                None => no_policy(&name),
            },
            "CreatePolicy" => {
                let account = self.account_of_signer(&request.signer).unwrap_or(&self.account).to_owned();
                self.create_policy(&account, &name, request.text("PolicyDocument"))
            }
            "AttachUserPolicy" => self.attach(&user, arn),
            "DetachUserPolicy" => {
                if self.users.get_mut(&user).unwrap().attached.remove(&arn) {
                    Ok(Body::Xml(String::new()))
                } else {
                    no_policy(&arn)
                }
            }
            "DeletePolicy" => {
                if self.users.values().any(|user| user.attached.contains(&arn)) {
                    return refuse_with(
                        409,
                        "DeleteConflict",
                        "Cannot delete a policy attached to entities.",
                    );
                }
                self.managed.remove(&arn).map_or_else(|| no_policy(&arn), |_| Ok(Body::Xml(String::new())))
            }
            _ => self.unknown(request),
        }
    }

    fn role_policies(&mut self, request: &Request) -> Answer {
        let role = self.role_kept_as(request);
        let name = request.text("PolicyName").to_owned();
        let Some(policies) = self.their_roles.get_mut(&role) else {
            return refuse_with(404, "NoSuchEntity", format!("The role with name {role} cannot be found."));
        };
        match request.action.as_str() {
            "GetRolePolicy" => policies.get(&name).map_or_else(
                || no_policy(&name),
                |document| {
                    let fields = [
                        tag("RoleName", role),
                        tag("PolicyName", &name),
                        tag("PolicyDocument", encoded(document)),
                    ];
                    Ok(Body::Xml(fields.concat()))
                },
            ),
            "PutRolePolicy" => {
                let document = request.text("PolicyDocument");
                if serde_json::from_str::<Value>(document).is_err() {
                    return malformed();
                }
                policies.insert(name, document.to_owned());
                Ok(Body::Xml(String::new()))
            }
            "DeleteRolePolicy" => {
                policies.remove(&name).map_or_else(|| no_policy(&name), |_| Ok(Body::Xml(String::new())))
            }
            _ => self.unknown(request),
        }
    }

    fn role_kept_as(&self, request: &Request) -> String {
        let role = request.text("RoleName");
        self.account_of_signer(&request.signer)
            .map_or_else(|| role.to_owned(), |account| format!("{account}/{role}"))
    }

    /// Whether a role denies its session of that name, issued then.
    pub fn role_denies(&self, role: &str, session: &str, issued: Timestamp) -> bool {
        let policies = self.their_roles.get(role).into_iter().flat_map(BTreeMap::values);
        let statements = policies.filter_map(|text| serde_json::from_str::<Value>(text).ok());
        statements.flat_map(|policy| policy["Statement"].as_array().cloned().unwrap_or_default()).any(
            |statement| {
                let cut_off = statement["Condition"]["DateLessThan"]["aws:TokenIssueTime"].as_str();
                let ids = statement["Condition"]["StringLike"]["aws:userid"].as_array();
                statement["Effect"] == "Deny"
                    && cut_off
                        .and_then(|at| at.parse::<Timestamp>().ok())
                        .is_some_and(|cut_off| issued < cut_off)
                    && ids.is_some_and(|ids| ids.iter().any(|id| *id == format!("*:{session}")))
            },
        )
    }

    fn put_user_policy(&mut self, user: &str, name: String, document: &str) -> Answer {
        if serde_json::from_str::<Value>(document).is_err() {
            return malformed();
        }
        let inline = &mut self.users.get_mut(user).unwrap().inline;
        let others = inline.iter().filter(|(other, _)| **other != name);
        let held: usize = others.map(|(_, document)| weight(document)).sum();
        if held + weight(document) > INLINE {
            return full(&format!("Maximum policy size of {INLINE} bytes exceeded for user {user}"));
        }
        inline.insert(name, document.to_owned());
        Ok(Body::Xml(String::new()))
    }

    fn create_policy(&mut self, account: &str, name: &str, document: &str) -> Answer {
        if serde_json::from_str::<Value>(document).is_err() {
            return malformed();
        }
        let arn = format!("arn:{}:iam::{account}:policy/{name}", self.partition);
        if self.managed.contains_key(&arn) {
            let message = format!("A policy called {name} already exists. Duplicate names are not allowed.");
            return refuse_with(409, "EntityAlreadyExists", message);
        }
        self.managed.insert(arn.clone(), document.to_owned());
        let policy = [tag("PolicyName", name), tag("Arn", arn), tag("DefaultVersionId", "v1")].concat();
        Ok(Body::Xml(format!("<Policy>{policy}</Policy>")))
    }

    fn attach(&mut self, user: &str, arn: String) -> Answer {
        if !self.managed.contains_key(&arn) {
            return no_policy(&arn);
        }
        let attached = &mut self.users.get_mut(user).unwrap().attached;
        if attached.len() >= ATTACHED && !attached.contains(&arn) {
            return full(&format!("Cannot exceed quota for PoliciesPerUser: {ATTACHED}"));
        }
        attached.insert(arn);
        Ok(Body::Xml(String::new()))
    }

    /// Fills the user's inline policies with permissions, but for so many characters.
    pub fn fill_inline(&mut self, user: &str, left: usize) {
        let inline = &mut self.users.get_mut(user).unwrap().inline;
        let allow = |pad: usize| {
            let actions = json!(["s3:GetObject", "a".repeat(pad)]);
            let statement = json!({"Effect": "Allow", "Action": actions, "Resource": "*"});
            json!({"Version": "2012-10-17", "Statement": [statement]}).to_string()
        };
        let held: usize = inline.values().map(|document| weight(document)).sum::<usize>() + weight(&allow(0));
        inline.insert("theirs".into(), allow(INLINE - left - held));
    }

    /// Gives the user all managed policies that it may have.
    pub fn fill_attached(&mut self, user: &str) {
        for number in 0..ATTACHED {
            let arn = format!("arn:{}:iam::{}:policy/theirs-{number}", self.partition, self.account);
            let allow = json!({"Version": "2012-10-17", "Statement": []}).to_string();
            self.managed.insert(arn.clone(), allow);
            self.users.get_mut(user).unwrap().attached.insert(arn);
        }
    }

    /// Whether a session of the user that was issued then is denied now.
    pub fn denies_session(&self, user: &str, issued: Timestamp) -> bool {
        self.denies(user, Some(issued))
    }

    /// Whether what the user signs with a long-lived key is denied now.
    pub fn denies_keys(&self, user: &str) -> bool {
        self.denies(user, None)
    }

    fn denies(&self, user: &str, issued: Option<Timestamp>) -> bool {
        let user = &self.users[user];
        let managed = user.attached.iter().map(|arn| &self.managed[arn]);
        user.inline.values().chain(managed).any(|document| {
            let policy: Value = serde_json::from_str(document).unwrap();
            policy["Statement"].as_array().unwrap().iter().any(|statement| fits(statement, issued))
        })
    }
}

/// Whether a statement denies everything to a request with a session of that age, or with none. The two shapes
/// that are ours, and the one that must never be.
fn fits(statement: &Value, issued: Option<Timestamp>) -> bool {
    if statement["Effect"] != "Deny" {
        return false;
    }
    assert!(statement["Action"] == "*" && statement["Resource"] == "*", "the fake does not know {statement}");
    let Some(condition) = statement.get("Condition") else { return true };
    let only =
        condition.as_object().filter(|condition| condition.len() == 1).and_then(|only| only.iter().next());
    let (operator, values) = only.unwrap_or_else(|| panic!("the fake does not know {condition}"));
    let bound: Timestamp = values["aws:TokenIssueTime"].as_str().unwrap().parse().unwrap();
    match operator.as_str() {
        "DateLessThan" => issued.is_some_and(|issued| issued < bound),
        "DateLessThanIfExists" => issued.is_none_or(|issued| issued < bound),
        _ => panic!("the fake does not know {condition}"),
    }
}
