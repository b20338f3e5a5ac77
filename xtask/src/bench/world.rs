//! The account that a measured process calls: one user, its keys, one secret, just stateful enough that a step
//! takes its usual way and reads back what it did.
//!
//! It checks nothing and fails never. What AWS would refuse is the business of the tests' fake and of the
//! local cloud; a bench wants the same short answers for both languages.

mod fleet;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// A call that was made.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// The service, as it signs.
    pub(crate) service: String,
    /// The action.
    pub(crate) action: String,
    /// Its parameters.
    pub(crate) params: Map<String, Value>,
}

impl Call {
    /// As policies write it.
    pub(crate) fn name(&self) -> String {
        format!("{}:{}", self.service, self.action)
    }

    fn text(&self, name: &str) -> &str {
        self.params.get(name).and_then(Value::as_str).unwrap_or_default()
    }
}

/// An answer in the protocol of its service.
#[derive(Debug, PartialEq)]
pub(crate) enum Reply {
    /// The inside of `<ActionResult>`.
    Xml(String),
    /// A JSON object.
    Json(Value),
    /// An object's text.
    Object(String),
    /// No body at all: botocore takes any other to a call of S3 that writes for an error.
    Empty,
}

#[derive(Debug, Clone)]
struct Version {
    text: String,
    labels: Vec<String>,
}

/// The user, its keys and its secret.
#[derive(Debug, Clone)]
pub(crate) struct World {
    user: String,
    user_arn: String,
    user_id: String,
    secret: String,
    secret_arn: String,
    last_used: Timestamp,
    keys: Vec<(String, &'static str)>,
    versions: BTreeMap<String, Version>,
    /// A key that nobody uses.
    unused: Option<String>,
    /// The document of a rotation that all this is from.
    told: Value,
}

/// Where in a key's life the step comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// There is the old key only.
    Before,
    /// The new one is stored as AWSPENDING.
    Stored,
    /// The new one is current.
    Promoted,
    /// And the old one is Inactive.
    Disabled,
}

const MADE: &str = "2026-01-02T03:04:05Z";
/// When a key was made, and used last, that nobody uses.
const UNUSED: [&str; 2] = ["2025-01-02T03:04:05Z", "2025-02-03T04:05:06Z"];

/// Forty characters that nobody has ever seen.
fn secret_key() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple()).chars().take(40).collect()
}

impl World {
    /// The world that the document of a rotation tells of, at this moment.
    pub(crate) fn of(document: &Value, moment: Moment) -> Option<Self> {
        let text = |pointer: &str| document.pointer(pointer).and_then(Value::as_str);
        let promoted: Option<Timestamp> = text("/promoted_at").and_then(|at| at.parse().ok());
        let mut world = Self {
            user: text("/baseline/user/name")?.to_owned(),
            user_arn: text("/baseline/user/arn")?.to_owned(),
            user_id: text("/baseline/user/id")?.to_owned(),
            secret: text("/baseline/secret_name")?.to_owned(),
            secret_arn: text("/secret")?.to_owned(),
            // Used for the last time when its consumers were about to change over.
            last_used: promoted.unwrap_or_else(Timestamp::now),
            keys: Vec::new(),
            versions: BTreeMap::new(),
            unused: None,
            told: document.clone(),
        };
        let old = text("/baseline/current/key")?;
        let (before, run) = (text("/baseline/current/version")?, text("/run")?);
        let (old_status, labels): (_, [&[&str]; 2]) = match moment {
            Moment::Before => ("Active", [&["AWSCURRENT"], &[]]),
            Moment::Stored => ("Active", [&["AWSCURRENT"], &["AWSPENDING"]]),
            Moment::Promoted => ("Active", [&["AWSPREVIOUS"], &["AWSCURRENT", "AWSPENDING"]]),
            Moment::Disabled => ("Inactive", [&["AWSPREVIOUS"], &["AWSCURRENT", "AWSPENDING"]]),
        };
        world.keys.push((old.to_owned(), old_status));
        world.store(before, world.value(old), labels[0]);
        if moment != Moment::Before {
            let new = text("/new/key")?;
            world.keys.push((new.to_owned(), "Active"));
            world.store(run, world.value(new), labels[1]);
        }
        Some(world)
    }

    /// Gives the user a key that no secret holds and that nobody has used for long.
    pub(crate) fn add_unused(&mut self, key: &str, status: &'static str) {
        self.keys.push((key.to_owned(), status));
        self.unused = Some(key.to_owned());
    }

    fn is_unused(&self, key: &str) -> bool {
        self.unused.as_deref() == Some(key)
    }

    fn value(&self, key: &str) -> String {
        json!({"UserName": self.user, "AccessKeyId": key, "SecretAccessKey": secret_key(), "Host": "mail.example"})
            .to_string()
    }

    fn store(&mut self, id: &str, text: String, labels: &[&str]) {
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        self.versions.insert(id.to_owned(), Version { text, labels });
    }

    /// Answers a call; `None` where no measured step makes it.
    pub(crate) fn answer(&mut self, call: &Call) -> Option<Reply> {
        match call.service.as_str() {
            "iam" | "sts" => self.identity(call).map(Reply::Xml),
            "sns" => Some(Reply::Xml(tag("MessageId", Uuid::new_v4()))),
            "secretsmanager" => self.store_call(call).map(Reply::Json),
            "ssm" => Some(Reply::Json(parameters(call))),
            "states" => Some(Reply::Json(self.execution(call))),
            "s3" if call.action == "GetObject" => self.object(call.text("Key")).map(Reply::Object),
            // An object is taken without a word.
            "s3" => Some(Reply::Empty),
            "account" => Some(Reply::Json(
                json!({"Regions": [{"RegionName": "eu-west-1", "RegionOptStatus": "ENABLED_BY_DEFAULT"}]}),
            )),
            "cloudtrail" => Some(Reply::Json(json!({"Events": []}))),
            "events" => {
                let entries = call.params.get("Entries")?.as_array()?;
                let ids: Vec<Value> =
                    entries.iter().map(|_| json!({"EventId": Uuid::new_v4().to_string()})).collect();
                Some(Reply::Json(json!({"FailedEntryCount": 0, "Entries": ids})))
            }
            _ => None,
        }
    }

    fn identity(&mut self, call: &Call) -> Option<String> {
        let user = tag("UserName", &self.user);
        let (id, status) = (call.text("AccessKeyId"), call.text("Status"));
        Some(match call.action.as_str() {
            "GetCallerIdentity" => {
                [tag("Arn", &self.user_arn), tag("UserId", &self.user_id), tag("Account", "111122223333")]
                    .concat()
            }
            "GetUser" => {
                let one = |name: &str, value: &str| member(&[tag("Key", name), tag("Value", value)].concat());
                let tags = one("keywheel:secret", &self.secret_arn) + &one("keywheel:unused", "remove");
                let (id, arn) = (tag("UserId", &self.user_id), tag("Arn", &self.user_arn));
                let path = tag("Path", "/apps/");
                format!("<User>{path}{user}{id}{arn}{}<Tags>{tags}</Tags></User>", tag("CreateDate", MADE))
            }
            "ListAccessKeys" => {
                let row = |(id, status): &(String, &str)| {
                    let row = [user.clone(), tag("AccessKeyId", id), tag("Status", status)];
                    let made = if self.is_unused(id) { UNUSED[0] } else { MADE };
                    member(&(row.concat() + &tag("CreateDate", made)))
                };
                let rows: String = self.keys.iter().map(row).collect();
                format!("<AccessKeyMetadata>{rows}</AccessKeyMetadata><IsTruncated>false</IsTruncated>")
            }
            "CreateAccessKey" => {
                let id = format!("AKIA{}", &Uuid::new_v4().simple().to_string().to_uppercase()[..16]);
                let row = [user, tag("AccessKeyId", &id), tag("Status", "Active")].concat();
                self.keys.push((id, "Active"));
                let rest = tag("SecretAccessKey", secret_key()) + &tag("CreateDate", MADE);
                format!("<AccessKey>{row}{rest}</AccessKey>")
            }
            "UpdateAccessKey" => {
                let status = if status == "Active" { "Active" } else { "Inactive" };
                self.keys.iter_mut().find(|key| key.0 == id)?.1 = status;
                String::new()
            }
            "DeleteAccessKey" => {
                self.keys.retain(|key| key.0 != id);
                String::new()
            }
            // One that somebody has written in our policy's place: it is written anew.
            "GetUserPolicy" => {
                [user, tag("PolicyName", call.text("PolicyName")), tag("PolicyDocument", "%7B%7D")].concat()
            }
            "PutUserPolicy" => String::new(),
            "GetAccessKeyLastUsed" => {
                let (service, region) = (tag("ServiceName", "ses"), tag("Region", "eu-west-1"));
                let lately =
                    if self.is_unused(id) { UNUSED[1].to_owned() } else { self.last_used.to_string() };
                let last = [tag("LastUsedDate", lately), service, region].concat();
                format!("{user}<AccessKeyLastUsed>{last}</AccessKeyLastUsed>")
            }
            "GenerateCredentialReport" => tag("State", "COMPLETE"),
            "GetCredentialReport" => self.report(),
            _ => return None,
        })
    }

    fn store_call(&mut self, call: &Call) -> Option<Value> {
        let (arn, name) = (self.secret_arn.clone(), self.secret.clone());
        let labels = |version: &Version| json!(version.labels);
        let tags = json!([{"Key": "keywheel:user", "Value": self.user}]);
        Some(match call.action.as_str() {
            "DescribeSecret" => {
                let versions: Map<String, Value> =
                    self.versions.iter().map(|(id, version)| (id.clone(), labels(version))).collect();
                json!({"ARN": arn, "Name": name, "Tags": tags, "VersionIdsToStages": versions})
            }
            "ListSecrets" => {
                // Only a user's own is asked for by the tag's value as well.
                let filters = call.params.get("Filters").and_then(Value::as_array).map_or(0, Vec::len);
                let mut list = if filters > 1 { Vec::new() } else { fleet::secrets() };
                list.push(json!({"ARN": arn, "Name": name, "Tags": tags}));
                json!({"SecretList": list})
            }
            "GetSecretValue" => {
                let (id, stage) = (call.text("VersionId"), call.text("VersionStage"));
                let stage = if stage.is_empty() { "AWSCURRENT" } else { stage };
                let fits = |(key, version): &(&String, &Version)| {
                    if id.is_empty() { version.labels.iter().any(|label| label == stage) } else { *key == id }
                };
                let (id, version) = self.versions.iter().find(fits)?;
                json!({"ARN": arn, "Name": name, "VersionId": id, "SecretString": version.text,
                    "VersionStages": version.labels, "CreatedDate": 1_767_323_045.25})
            }
            "PutSecretValue" => {
                let (id, text) = (call.text("ClientRequestToken"), call.text("SecretString"));
                self.store(id, text.to_owned(), &["AWSPENDING"]);
                json!({"ARN": arn, "Name": name, "VersionId": id, "VersionStages": ["AWSPENDING"]})
            }
            "UpdateSecretVersionStage" => {
                let label = call.text("VersionStage").to_owned();
                if let Some(from) = self.versions.get_mut(call.text("RemoveFromVersionId")) {
                    from.labels.retain(|has| *has != label);
                }
                if let Some(to) = self.versions.get_mut(call.text("MoveToVersionId")) {
                    to.labels.push(label);
                }
                json!({"ARN": arn, "Name": name})
            }
            _ => return None,
        })
    }
}

/// The switches are on; whatever else might be asked for is not there.
fn parameters(call: &Call) -> Value {
    let row = |name: &str, value: &str| json!({"Name": name, "Type": "String", "Value": value, "Version": 1});
    match call.action.as_str() {
        "GetParameters" => {
            let names = call.params.get("Names").and_then(Value::as_array).cloned().unwrap_or_default();
            let (mut set, mut unset) = (Vec::new(), Vec::new());
            for name in names.iter().filter_map(Value::as_str) {
                match name.rsplit('/').next() {
                    Some("containment") => set.push(row(name, "on")),
                    Some("mode") => set.push(row(name, "live")),
                    _ => unset.push(name),
                }
            }
            json!({"Parameters": set, "InvalidParameters": unset})
        }
        "PutParameter" => json!({"Version": 1, "Tier": "Standard"}),
        _ => json!({"Parameter": row(call.text("Name"), "live")}),
    }
}

fn tag(name: &str, text: impl std::fmt::Display) -> String {
    format!("<{name}>{text}</{name}>")
}

fn member(inside: &str) -> String {
    tag("member", inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world(moment: Moment) -> World {
        let document = json!({"run": "new-version", "secret": "arn:secret", "new": {"key": "AKIANEW"},
            "baseline": {"secret_name": "app", "user": {"name": "u", "arn": "arn:u", "id": "AIDA"},
                "current": {"key": "AKIAOLD", "version": "old-version"}}});
        World::of(&document, moment).unwrap()
    }

    fn ask(world: &mut World, service: &str, action: &str, params: &Value) -> Reply {
        let params = params.as_object().unwrap().clone();
        world.answer(&Call { service: service.into(), action: action.into(), params }).unwrap()
    }

    #[test]
    fn what_a_step_did_is_what_it_reads_back() {
        let mut world = world(Moment::Before);
        ask(&mut world, "iam", "CreateAccessKey", &json!({"UserName": "u"}));
        assert_eq!(world.keys.len(), 2);
        ask(&mut world, "iam", "UpdateAccessKey", &json!({"AccessKeyId": "AKIAOLD", "Status": "Inactive"}));
        let Reply::Xml(list) = ask(&mut world, "iam", "ListAccessKeys", &json!({})) else { panic!() };
        assert!(list.contains("<AccessKeyId>AKIAOLD</AccessKeyId><Status>Inactive</Status>"), "{list}");
        ask(&mut world, "iam", "DeleteAccessKey", &json!({"AccessKeyId": "AKIAOLD"}));
        assert_eq!(world.keys.len(), 1);
    }

    #[test]
    fn labels_move_and_values_are_read_by_label_and_by_id() {
        let mut world = world(Moment::Stored);
        let swap = json!({"VersionStage": "AWSCURRENT", "RemoveFromVersionId": "old-version",
            "MoveToVersionId": "new-version"});
        ask(&mut world, "secretsmanager", "UpdateSecretVersionStage", &swap);
        for params in [json!({}), json!({"VersionStage": "AWSCURRENT"}), json!({"VersionId": "new-version"})]
        {
            let Reply::Json(value) = ask(&mut world, "secretsmanager", "GetSecretValue", &params) else {
                panic!()
            };
            assert_eq!(value["VersionId"], "new-version");
        }
    }

    #[test]
    fn an_unknown_call_has_no_answer() {
        let call = Call { service: "iam".into(), action: "CreateUser".into(), params: Map::new() };
        assert_eq!(world(Moment::Before).answer(&call), None);
    }
}
