//! Deliberately broken variants of the product: what the promises would look like broken.
//!
//! A harness that has never seen a promise broken proves nothing. Each variant makes one step, one call or the
//! machine do what a careless author might have written, at the place where that author would have written it:
//! in the machine's definition, in what a step takes or returns, in a call, in what a step makes of an answer, or
//! in calls it makes besides.

use aws_sdk_iam::types::StatusType;
use serde_json::{Value, json};

use crate::fake::{Answer, Body, Fake, Request, State};
use crate::functions::role;
use crate::world::SECRET;

/// One broken variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// Makes the old key Inactive before the new one exists.
    OldKeyOffFirst,
    /// Moves AWSCURRENT before the new key was validated.
    PromotesUnvalidated,
    /// Takes a secret with replicas for one without.
    IgnoresTheReplicas,
    /// Stores the new key without naming a label, which moves AWSCURRENT at once.
    StoresWithoutLabel,
    /// Frees a slot by deleting the oldest key that is not current.
    DeletesTheOldest,
    /// Takes a key that appeared for an orphan of its own, without asking `CloudTrail`.
    OrphanByAge,
    /// Lets the grace be over at once.
    CutsTheGrace,
    /// Deletes the promoted key as soon as the promotion is turned back.
    RollBackDeletesAtOnce,
    /// Lets a leaked key wait until it is quiet.
    LeakedWaitsForQuiet,
    /// Lets a run for a leaked key end with the step that failed to tell people.
    ContainmentBehindNotice,
    /// Brings a leaked key back when a promotion is turned back.
    RevivesTheLeakedKey,
    /// Returns the secret with its document.
    ReturnsTheSecret,
    /// Logs the secret.
    LogsTheSecret,
    /// Puts the secret into a notice.
    TellsTheSecret,
    /// Lets a step's failure end the run as a success.
    SwallowsFailure,
    /// Says that nothing was touched after making a key.
    SaysBlocked,
    /// Says that the old key is gone without looking.
    SaysDeleted,
    /// Takes a last use that cannot be read for none.
    ErrorReadAsUnused,
    /// Reads the first page of a list.
    FirstPageOnly,
    /// Takes the switch for live.
    IgnoresTheSwitch,
    /// Takes a freeze for none.
    IgnoresTheFreeze,
    /// Marks notices as sent before they are.
    MarksAsSent,
    /// Loses a notice that waits.
    LosesANotice,
    /// Takes AWSPREVIOUS off after the promotion, to be tidy.
    TidiesLabels,
    /// Writes the promoted pair once more, under a version of its own.
    WritesTwice,
    /// Takes every other key of the owner of a leaked one for leaked.
    ContainsEveryKey,
    /// Denies the user everything where only sessions are meant.
    DeniesTheUser,
    /// Takes the deny off as soon as it was written.
    LiftsTheDenyAtOnce,
    /// Finds out first what a leaked key did, and contains it then.
    InvestigatesFirst,
    /// Takes the key for Inactive without looking whether it is.
    ContainsUnread,
    /// Says that the deny is gone without taking it off.
    SaysLifted,
    /// Takes the switch of containment for on.
    IgnoresContainment,
    /// Loses the notice that the key is Inactive.
    LosesTheContainment,
}

impl Broken {
    /// Every variant, with the promise that must be found broken.
    pub const ALL: [(Self, &'static str); 33] = [
        (Self::OldKeyOffFirst, "P1"),
        (Self::PromotesUnvalidated, "P1"),
        (Self::StoresWithoutLabel, "P1"),
        (Self::IgnoresTheReplicas, "P1"),
        (Self::DeletesTheOldest, "P2"),
        (Self::OrphanByAge, "P2"),
        (Self::CutsTheGrace, "P2"),
        (Self::RollBackDeletesAtOnce, "P2"),
        (Self::LeakedWaitsForQuiet, "P3"),
        (Self::ContainmentBehindNotice, "P3"),
        (Self::RevivesTheLeakedKey, "P3"),
        (Self::ReturnsTheSecret, "P4"),
        (Self::LogsTheSecret, "P4"),
        (Self::TellsTheSecret, "P4"),
        (Self::SwallowsFailure, "P5"),
        (Self::SaysBlocked, "P5"),
        (Self::SaysDeleted, "P5"),
        (Self::ErrorReadAsUnused, "P6"),
        (Self::FirstPageOnly, "P6"),
        (Self::IgnoresTheSwitch, "P6"),
        (Self::IgnoresTheFreeze, "P6"),
        (Self::MarksAsSent, "P7"),
        (Self::LosesANotice, "P7"),
        (Self::TidiesLabels, "P8"),
        (Self::WritesTwice, "P8"),
        (Self::ContainsEveryKey, "P2"),
        (Self::DeniesTheUser, "P2"),
        (Self::LiftsTheDenyAtOnce, "P2"),
        (Self::InvestigatesFirst, "P3"),
        (Self::ContainsUnread, "P3"),
        (Self::SaysLifted, "P5"),
        (Self::IgnoresContainment, "P6"),
        (Self::LosesTheContainment, "P7"),
    ];

    /// Breaks the definition of the rotation.
    pub(crate) fn rotation(self, definition: &mut Value) {
        let states = &mut definition["States"];
        match self {
            Self::PromotesUnvalidated => {
                for choice in states["AfterCreate"]["Choices"].as_array_mut().unwrap() {
                    if choice["Next"] == "ValidateKey" {
                        choice["Next"] = json!("PromoteKey");
                    }
                }
            }
            Self::ContainmentBehindNotice => {
                for name in ["Retry", "Catch"] {
                    states["NotifyPromoted"].as_object_mut().unwrap().remove(name);
                }
            }
            Self::SwallowsFailure => {
                for catcher in states["DeleteKey"]["Catch"].as_array_mut().unwrap() {
                    catcher["Next"] = json!("Ended");
                }
            }
            _ => {}
        }
    }

    /// Breaks the definition of an incident.
    pub(crate) fn incident(self, definition: &mut Value) {
        if self == Self::InvestigatesFirst {
            let mut first = definition["States"]["InvestigateAgain"].clone();
            for name in ["Retry", "Catch"] {
                first.as_object_mut().unwrap().remove(name);
            }
            first["Next"] = json!("Contain");
            definition["States"]["InvestigateFirst"] = first;
            definition["StartAt"] = json!("InvestigateFirst");
        }
    }

    /// What a step does before it begins.
    pub(crate) async fn before(self, fake: &Fake, function: &str, doc: &mut Value) {
        match (self, function) {
            (Self::OldKeyOffFirst, "create-key") => {
                let key = current_key(fake);
                set(fake, function, &key, StatusType::Inactive).await;
            }
            (Self::DeletesTheOldest, "look") => {
                let key = oldest_other(&fake.state());
                if let Some(key) = key {
                    delete(fake, function, &key).await;
                }
            }
            (Self::OrphanByAge, "roll-back") => {
                let run = doc["run"].clone();
                for suspect in doc["suspects"].as_array_mut().into_iter().flatten() {
                    suspect["stored_by"] = run.clone();
                }
            }
            (Self::LeakedWaitsForQuiet, "promote-key" | "deactivate-key") => {
                doc["request"]["reason"] = json!("manual");
            }
            (Self::RevivesTheLeakedKey, "notify") => {
                let key = doc["old"]["key"].as_str().map(str::to_owned);
                if let Some(key) = key.filter(|_| doc["outcome"] == "Contained") {
                    set(fake, function, &key, StatusType::Active).await;
                }
            }
            (Self::LogsTheSecret, "validate-key") => {
                let secret = a_secret(&fake.state());
                tracing::info!(target: "validate_key", "Validating with {secret}");
            }
            _ => {}
        }
    }

    /// What a step makes of its result.
    pub(crate) async fn after(self, fake: &Fake, function: &str, doc: &mut Value) {
        match (self, function) {
            (Self::CutsTheGrace, "deactivate-key") if doc["phase"] == "grace" => {
                doc["policy"]["grace"] = json!("0s");
                doc["wait_until"] = json!(fake.state().now());
            }
            (Self::RollBackDeletesAtOnce, "roll-back") if doc["phase"] == "overlap" => {
                let key = doc["old"]["key"].as_str().unwrap_or_default().to_owned();
                set(fake, function, &key, StatusType::Inactive).await;
                delete(fake, function, &key).await;
            }
            (Self::ReturnsTheSecret, "create-key") => doc["debug"] = json!(a_secret(&fake.state())),
            (Self::TellsTheSecret, "validate-key") => {
                doc["notices"][0]["text"] = json!(a_secret(&fake.state()));
            }
            (Self::SaysBlocked, "roll-back") if doc["outcome"] == "RolledBack" => {
                doc["outcome"] = json!("Blocked");
            }
            (Self::MarksAsSent, "notify") => {
                for notice in doc["notices"].as_array_mut().into_iter().flatten() {
                    notice["on_bus"] = json!(true);
                    notice["on_topic"] = json!(true);
                }
                doc["delivery"] = json!("done");
            }
            (Self::LosesANotice, "deactivate-key") => {
                if let Some(notices) = doc["notices"].as_array_mut() {
                    notices.retain(|notice| notice["kind"] != "Deactivated");
                }
            }
            (Self::ContainsEveryKey, "contain") if doc["phase"] == "deny" => {
                for key in active_keys(fake, doc["user"].as_str().unwrap_or_default()) {
                    set(fake, function, &key, StatusType::Inactive).await;
                }
            }
            (Self::LiftsTheDenyAtOnce, "deny-sessions") if doc["deny"].is_object() => {
                let iam = aws_sdk_iam::Client::new(&fake.config_of(&role(function)));
                let name = |at: &str| doc.pointer(at).and_then(Value::as_str).unwrap_or_default();
                let call =
                    iam.delete_user_policy().user_name(name("/user")).policy_name(name("/deny/policy"));
                let _ = call.send().await;
            }
            (Self::LosesTheContainment, "contain") => {
                if let Some(notices) = doc.get_mut("notices").and_then(Value::as_array_mut) {
                    notices.retain(|notice| notice["kind"] != "Contained");
                }
            }
            (Self::TidiesLabels, "promote-key") => {
                let version =
                    fake.state().secret(SECRET).labelled("AWSPREVIOUS").map(|version| version.id.clone());
                let store = aws_sdk_secretsmanager::Client::new(&fake.config_of(&role(function)));
                let call = store.update_secret_version_stage().secret_id(SECRET).version_stage("AWSPREVIOUS");
                let _ = call.set_remove_from_version_id(version).send().await;
            }
            (Self::WritesTwice, "promote-key") => {
                let text = fake
                    .state()
                    .secret(SECRET)
                    .labelled("AWSCURRENT")
                    .and_then(|version| version.text.clone());
                let store = aws_sdk_secretsmanager::Client::new(&fake.config_of(&role(function)));
                let call = store.put_secret_value().secret_id(SECRET).client_request_token("w".repeat(36));
                let _ = call.set_secret_string(text).send().await;
            }
            _ => {}
        }
    }

    /// What becomes of a call on its way.
    pub(crate) fn request(self, mut request: Request) -> Request {
        if self == Self::StoresWithoutLabel && request.action == "PutSecretValue" {
            request.params.as_object_mut().unwrap().remove("VersionStages");
        }
        if self == Self::DeniesTheUser && request.action == "PutUserPolicy" {
            let all = json!({"Effect": "Deny", "Action": "*", "Resource": "*"});
            request.params["PolicyDocument"] =
                json!({"Version": "2012-10-17", "Statement": all}).to_string().into();
        }
        request
    }

    /// What the step reads into an answer, or into none.
    pub(crate) fn answer(self, request: &Request, answered: Option<&Answer>) -> Option<Answer> {
        match (self, request.action.as_str(), answered) {
            (Self::ErrorReadAsUnused, "GetAccessKeyLastUsed", None | Some(Err(_))) => {
                let used = "<LastUsedDate>2025-01-02T03:04:05Z</LastUsedDate><ServiceName>s3</ServiceName><Region>us-east-1</Region>";
                Some(Ok(Body::Xml(format!("<AccessKeyLastUsed>{used}</AccessKeyLastUsed>"))))
            }
            (Self::FirstPageOnly, "ListSecrets", Some(Ok(Body::Json(value)))) => {
                let mut value = value.clone();
                value.as_object_mut()?.remove("NextToken");
                Some(Ok(Body::Json(value)))
            }
            (Self::IgnoresTheReplicas, "DescribeSecret", Some(Ok(Body::Json(value)))) => {
                let mut value = value.clone();
                value.as_object_mut()?.remove("ReplicationStatus");
                Some(Ok(Body::Json(value)))
            }
            (Self::IgnoresTheSwitch, "GetParameter", Some(Ok(Body::Json(value)))) => {
                let mut value = value.clone();
                value["Parameter"]["Value"] = json!("live");
                Some(Ok(Body::Json(value)))
            }
            (Self::IgnoresTheFreeze, "GetParameters", Some(Ok(Body::Json(value)))) => {
                let mut value = value.clone();
                value["Parameters"].as_array_mut()?.retain(|parameter| {
                    parameter["Name"].as_str().is_none_or(|name| !name.ends_with("/freeze"))
                });
                Some(Ok(Body::Json(value)))
            }
            (Self::IgnoresContainment, "GetParameters", Some(Ok(Body::Json(value)))) => {
                let mut value = value.clone();
                for parameter in value["Parameters"].as_array_mut()? {
                    if parameter["Name"].as_str().is_some_and(|name| name.ends_with("/containment")) {
                        parameter["Value"] = json!("on");
                    }
                }
                Some(Ok(Body::Json(value)))
            }
            (Self::ContainsUnread, "ListAccessKeys", Some(Ok(Body::Xml(text)))) => {
                Some(Ok(Body::Xml(text.replace(">Active<", ">Inactive<"))))
            }
            _ if self.pretends(request) => Some(Ok(Body::Xml(String::new()))),
            _ => None,
        }
    }

    /// Whether the call is answered without being made.
    pub(crate) fn pretends(self, request: &Request) -> bool {
        match self {
            Self::SaysDeleted => request.action == "DeleteAccessKey",
            Self::ContainsUnread => request.action == "UpdateAccessKey",
            Self::SaysLifted => request.action == "DeleteUserPolicy",
            _ => false,
        }
    }
}

fn current_key(fake: &Fake) -> String {
    fake.state().secret(SECRET).current_key().unwrap()
}

fn active_keys(fake: &Fake, user: &str) -> Vec<String> {
    let state = fake.state();
    let keys = state.users.get(user).into_iter().flat_map(|user| &user.keys);
    keys.filter(|key| key.exists() && key.is_active()).map(|key| key.id.clone()).collect()
}

fn oldest_other(state: &State) -> Option<String> {
    let current = state.secret(SECRET).current_key();
    let keys = state.users.values().flat_map(|user| &user.keys);
    keys.filter(|key| key.exists() && Some(&key.id) != current.as_ref()).map(|key| key.id.clone()).next()
}

fn a_secret(state: &State) -> String {
    state.users.values().flat_map(|user| &user.keys).map(|key| key.secret.clone()).next_back().unwrap()
}

fn user_of(fake: &Fake, key: &str) -> String {
    fake.state().key(key).map(|(user, _)| user.name.clone()).unwrap_or_default()
}

async fn set(fake: &Fake, function: &str, key: &str, status: StatusType) {
    let iam = aws_sdk_iam::Client::new(&fake.config_of(&role(function)));
    let call = iam.update_access_key().user_name(user_of(fake, key)).access_key_id(key);
    let _ = call.status(status).send().await;
}

async fn delete(fake: &Fake, function: &str, key: &str) {
    let iam = aws_sdk_iam::Client::new(&fake.config_of(&role(function)));
    let _ = iam.delete_access_key().user_name(user_of(fake, key)).access_key_id(key).send().await;
}
