//! Secrets Manager, in every region: versions, labels that move by compare-and-swap, and tokens that are versions' ids.

use serde_json::{Value, json};

use super::account::{Secret, Version};
use super::state::State;
use super::wire::{Answer, Body, Request, refuse};

const CURRENT: &str = "AWSCURRENT";
const PREVIOUS: &str = "AWSPREVIOUS";
/// Over all versions of a secret.
const MOST_LABELS: usize = 20;

impl State {
    pub(super) fn secrets_manager(&mut self, request: &Request) -> Answer {
        if request.action == "ListSecrets" {
            return Ok(self.list_secrets(request));
        }
        let (id, here) = (request.text("SecretId"), self.account_of_caller(request));
        let is_here = |secret: &Secret| {
            account_of(secret) == here && is_named(secret, id) && secret.region() == request.region
        };
        let Some(index) = self.secrets.iter().position(is_here) else {
            return refuse("ResourceNotFoundException", "Secrets Manager can't find the specified secret.");
        };
        let deleted = self.secrets[index].deleted.is_some();
        if deleted && request.action != "DescribeSecret" {
            let message =
                "You can't perform this operation on the secret because it was marked for deletion.";
            return refuse("InvalidRequestException", message);
        }
        let answer = match request.action.as_str() {
            "DescribeSecret" => {
                let mut reply = describe(&self.secrets[index]);
                if let Some(status) = self.replication_status(&self.secrets[index]) {
                    reply["ReplicationStatus"] = status;
                }
                return Ok(Body::Json(reply));
            }
            "GetSecretValue" => return get(&self.secrets[index], request),
            _ if self.secrets[index].is_replica() => {
                let message = "Operation not permitted on a replica secret. Call must be made in primary secret's region.";
                return refuse("InvalidParameterException", message);
            }
            "PutSecretValue" => self.put(index, request),
            "UpdateSecretVersionStage" => self.move_stage(index, request),
            _ => self.unknown(request),
        };
        self.mark_replicas();
        answer
    }

    fn list_secrets(&self, request: &Request) -> Body {
        let filters = request.params["Filters"].as_array().cloned().unwrap_or_default();
        let matches = |secret: &&Secret| {
            secret.deleted.is_none()
                && secret.region() == request.region
                && filters.iter().all(|filter| {
                    let wanted = filter["Values"].as_array().cloned().unwrap_or_default();
                    let starts = |text: &str| {
                        wanted.iter().filter_map(Value::as_str).any(|want| text.starts_with(want))
                    };
                    match filter["Key"].as_str() {
                        Some("tag-key") => secret.tags.keys().any(|name| starts(name)),
                        Some("tag-value") => secret.tags.values().any(|value| starts(value)),
                        _ => false,
                    }
                })
        };
        let here = self.account_of_caller(request);
        let found: Vec<&Secret> =
            self.secrets.iter().filter(|secret| account_of(secret) == here).filter(matches).collect();
        let asked = request.params["MaxResults"].as_u64().map_or(100, |max| usize::try_from(max).unwrap());
        let from: usize = request.text("NextToken").parse().unwrap_or(0);
        let to = (from + asked.min(self.options.page)).min(found.len());
        let mut reply = json!({"SecretList": found[from.min(to)..to].iter().map(|secret| {
            let mut entry = describe(secret);
            entry["SecretVersionsToStages"] = entry["VersionIdsToStages"].take();
            entry
        }).collect::<Vec<_>>()});
        if to < found.len() {
            reply["NextToken"] = to.to_string().into();
        }
        Body::Json(reply)
    }

    fn put(&mut self, index: usize, request: &Request) -> Answer {
        let token = request.text("ClientRequestToken").to_owned();
        if token.is_empty() {
            self.violations
                .push("PutSecretValue without a token: a retry would write a second version".into());
        }
        let text = request.params.get("SecretString").and_then(Value::as_str).map(str::to_owned);
        let created = self.now();
        let secret = &mut self.secrets[index];
        if let Some(known) = secret.versions.iter().find(|version| version.id == token) {
            // The same data is a repeat and changes nothing, not even labels.
            if known.text != text {
                let message = format!(
                    "You can't use ClientRequestToken {token} because that value is already in use for a version of secret {}.",
                    secret.arn
                );
                return refuse("ResourceExistsException", message);
            }
            return Ok(Body::Json(written(secret, &token)));
        }
        let mut stages: Vec<String> = serde_json::from_value(request.params["VersionStages"].clone())
            .unwrap_or_else(|_| vec![CURRENT.into()]);
        if secret.versions.is_empty() && !stages.iter().any(|stage| stage == CURRENT) {
            stages.push(CURRENT.into());
        }
        let stages_yet = std::collections::BTreeSet::new();
        secret.versions.push(Version { id: token.clone(), text, stages: stages_yet, created });
        for stage in stages {
            attach(secret, &stage, &token);
        }
        Ok(Body::Json(written(secret, &token)))
    }

    fn move_stage(&mut self, index: usize, request: &Request) -> Answer {
        let stage = request.text("VersionStage").to_owned();
        let field = |name: &str| request.params.get(name).and_then(Value::as_str).map(str::to_owned);
        let (from, to) = (field("RemoveFromVersionId"), field("MoveToVersionId"));
        let secret = &mut self.secrets[index];
        let holder = secret.labelled(&stage).map(|version| version.id.clone());
        if let Some(to) = &to
            && !secret.versions.iter().any(|version| version.id == *to)
        {
            return refuse(
                "ResourceNotFoundException",
                "Secrets Manager can't find the specified secret version.",
            );
        }
        match (&holder, &from) {
            (Some(holder), None) => {
                return refuse(
                    "InvalidParameterException",
                    format!(
                        "The parameter RemoveFromVersionId can't be empty. Staging label {stage} is currently attached to version {holder}, so you must explicitly reference that version in RemoveFromVersionId."
                    ),
                );
            }
            (holder, Some(from)) if holder.as_ref() != Some(from) => {
                return refuse(
                    "InvalidParameterException",
                    format!(
                        "The parameter RemoveFromVersionId is invalid. Staging label {stage} isn't attached to version {from}."
                    ),
                );
            }
            _ => {}
        }
        let labels = || secret.versions.iter().flat_map(|version| &version.stages);
        if to.is_some() && holder.is_none() && labels().count() >= MOST_LABELS {
            return refuse("LimitExceededException", "A secret has no more than 20 staging labels.");
        }
        match (from, to) {
            (_, Some(to)) => attach(secret, &stage, &to),
            (Some(_), None) if stage == CURRENT => {
                return refuse(
                    "InvalidParameterException",
                    "You can't remove the staging label AWSCURRENT; move it.",
                );
            }
            (Some(from), None) => {
                secret.versions.iter_mut().filter(|version| version.id == from).for_each(|version| {
                    version.stages.remove(&stage);
                });
            }
            (None, None) => return refuse("InvalidParameterException", "Nothing to do."),
        }
        Ok(Body::Json(json!({"ARN": secret.arn, "Name": secret.name})))
    }

    /// Writes a version as a person with the console would, with the label AWSCURRENT.
    pub fn put_current(&mut self, name: &str, text: &str) -> String {
        // The same in every run of a test, because code sorts versions by their ids.
        let bytes =
            u128::from(self.next()).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes();
        let id = uuid::Builder::from_random_bytes(bytes).into_uuid().to_string();
        let created = self.now();
        let secret = self.secrets.iter_mut().find(|secret| secret.name == name).unwrap();
        let version = Version {
            id: id.clone(),
            text: Some(text.to_owned()),
            stages: std::collections::BTreeSet::new(),
            created,
        };
        secret.versions.push(version);
        attach(secret, CURRENT, &id);
        self.mark_replicas();
        id
    }

    /// Moves AWSCURRENT as a person with the console would.
    pub fn move_current(&mut self, name: &str, version: &str) {
        attach(self.secret_mut(name), CURRENT, version);
        self.mark_replicas();
    }

    /// A secret by its name.
    pub fn secret(&self, name: &str) -> &Secret {
        self.secrets.iter().find(|secret| secret.name == name).unwrap()
    }

    /// A secret to change.
    pub fn secret_mut(&mut self, name: &str) -> &mut Secret {
        self.secrets.iter_mut().find(|secret| secret.name == name).unwrap()
    }
}

/// A label is on one version at a time; AWSPREVIOUS follows where AWSCURRENT was.
fn attach(secret: &mut Secret, stage: &str, to: &str) {
    let from = secret.labelled(stage).map(|version| version.id.clone());
    for version in &mut secret.versions {
        version.stages.remove(stage);
        if version.id == to {
            version.stages.insert(stage.to_owned());
        }
    }
    if let Some(from) = from.filter(|from| stage == CURRENT && from != to) {
        attach(secret, PREVIOUS, &from);
    }
}

fn account_of(secret: &Secret) -> &str {
    secret.arn.split(':').nth(4).unwrap_or_default()
}

fn is_named(secret: &Secret, id: &str) -> bool {
    secret.name == id || secret.arn == id || secret.arn.strip_prefix(id).is_some_and(|rest| rest.len() == 7)
}

fn stages(version: &Version) -> Value {
    version.stages.iter().cloned().collect()
}

fn written(secret: &Secret, id: &str) -> Value {
    let version = secret.versions.iter().find(|version| version.id == id).unwrap();
    json!({"ARN": secret.arn, "Name": secret.name, "VersionId": id, "VersionStages": stages(version)})
}

fn describe(secret: &Secret) -> Value {
    let labels: serde_json::Map<String, Value> = secret
        .versions
        .iter()
        .filter(|version| !version.stages.is_empty())
        .map(|version| (version.id.clone(), stages(version)))
        .collect();
    let tags: Vec<Value> =
        secret.tags.iter().map(|(name, value)| json!({"Key": name, "Value": value})).collect();
    let mut reply = json!({"ARN": secret.arn, "Name": secret.name, "Tags": tags});
    if !labels.is_empty() {
        reply["VersionIdsToStages"] = Value::Object(labels);
    }
    if let Some(deleted) = secret.deleted {
        reply["DeletedDate"] = deleted.as_second().into();
    }
    if let Some(changed) = secret.versions.iter().map(|version| version.created).max() {
        reply["LastChangedDate"] = changed.as_second().into();
    }
    if let Some(region) = &secret.primary_region {
        reply["PrimaryRegion"] = region.clone().into();
    }
    reply
}

fn get(secret: &Secret, request: &Request) -> Answer {
    let id = request.text("VersionId");
    let stage = Some(request.text("VersionStage")).filter(|stage| !stage.is_empty());
    let found = if id.is_empty() {
        secret.labelled(stage.unwrap_or(CURRENT))
    } else {
        secret
            .versions
            .iter()
            .find(|version| version.id == id && stage.is_none_or(|stage| version.stages.contains(stage)))
    };
    let Some(version) = found else {
        let what = if id.is_empty() {
            format!("staging label: {}", stage.unwrap_or(CURRENT))
        } else {
            format!("VersionId: {id}")
        };
        let message = format!("Secrets Manager can't find the specified secret value for {what}");
        return refuse("ResourceNotFoundException", message);
    };
    let mut reply = written(secret, &version.id);
    reply["CreatedDate"] = version.created.as_duration().as_secs_f64().into();
    match &version.text {
        Some(text) => reply["SecretString"] = text.clone().into(),
        None => reply["SecretBinary"] = "AAEC".into(),
    }
    Ok(Body::Json(reply))
}
