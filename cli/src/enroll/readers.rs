//! Who reads the value of an enrolled secret: the secret's resource policy.
//!
//! In one account a policy's Allow only adds to what identities may do already, so a Deny is what leaves the others
//! out. It denies the reading of the value and nothing else. Whoever may change or delete the policy may do so as
//! before, the account's root user and whoever enrols keep reading, and so do our roles: nobody can lock himself, or
//! a rotation, out for good. `BlockPublicPolicy` has AWS refuse a policy that would let everybody in.

use std::collections::{BTreeMap, BTreeSet};

use facts::secrets::Secret;
use keywheel::StepError;
use serde_json::{Value, json};

use crate::error::{Result, Trouble};
use crate::place::Place;

const READERS: &str = "KeywheelReaders";
const OTHERS: &str = "KeywheelNobodyElse";
const READ: &str = "secretsmanager:GetSecretValue";
const PRINCIPAL: &str = "aws:PrincipalArn";

/// A policy that is to be written, with what to say of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    policy: String,
    pub(super) lines: Vec<String>,
}

/// What would be written; `None` where it is so already. A secret that is yet to be made has no policy.
pub(super) async fn plan(
    place: &Place,
    secret: &Secret,
    exists: bool,
    typed: &[String],
) -> Result<Option<Change>> {
    let readers: BTreeSet<String> =
        typed.iter().map(|reader| checked(reader, &place.partition)).collect::<Result<_>>()?;
    let there = if exists { read(place, secret).await? } else { None };
    let ours = our_roles(place).await?;
    let caller = caller(&place.caller);
    let root = format!("arn:{}:iam::{}:root", place.partition, place.account);
    let passed = ours.into_iter().chain(caller).chain([root]).collect();
    change(there.as_deref(), &readers, passed, &place.account)
}

/// Writes it.
pub(super) async fn apply(place: &Place, secret: &Secret, change: &Change) -> Result<()> {
    let client = place.secrets(secret.arn.region());
    let call = client.put_resource_policy().secret_id(secret.arn.as_str()).block_public_policy(true);
    let Err(error) = call.resource_policy(&change.policy).send().await else { return Ok(()) };
    let error = StepError::from_sdk("secretsmanager:PutResourcePolicy", &error);
    if error.is_refused(&["MalformedPolicyDocumentException"]) {
        return Err(Trouble::new(
            format!("AWS does not take the readers of secret {}: {error}.", secret.name),
            "It refuses whom it does not know: check that each role or user is there, and its path in the ARN.",
        ));
    }
    Err(error.into())
}

async fn read(place: &Place, secret: &Secret) -> Result<Option<String>> {
    let call = place.secrets(secret.arn.region()).get_resource_policy().secret_id(secret.arn.as_str());
    let reply =
        call.send().await.map_err(|error| StepError::from_sdk("secretsmanager:GetResourcePolicy", &error))?;
    Ok(reply.resource_policy().filter(|text| !text.trim().is_empty()).map(str::to_owned))
}

/// The roles of this installation that read values, as its template names them.
async fn our_roles(place: &Place) -> Result<Vec<String>> {
    let name = format!("/keywheel/{}/secret-roles", place.stage);
    let missing = || {
        Trouble::new(
            format!(
                "The parameter {name}, which names the roles that Keywheel reads secrets with, is not there."
            ),
            "Without them in it, a policy would lock every rotation out. Update the installation, or check --stage and --region.",
        )
    };
    let reply = place.ssm().get_parameter().name(&name).send().await.map_err(|error| {
        let error = StepError::from_sdk("ssm:GetParameter", &error);
        if error.is_refused(&["ParameterNotFound"]) { missing() } else { error.into() }
    })?;
    let text = reply.parameter().and_then(|parameter| parameter.value()).unwrap_or_default();
    let roles: Vec<String> =
        text.split(',').map(str::trim).filter(|role| !role.is_empty()).map(str::to_owned).collect();
    if roles.is_empty() { Err(missing()) } else { Ok(roles) }
}

/// A reader's ARN: a role's or a user's, whole.
fn checked(typed: &str, partition: &str) -> Result<String> {
    let text = typed.trim();
    let refuse = |why: &str, remedy: String| Err(Trouble::new(format!("--readers {text}: {why}."), remedy));
    let shape = format!("Give arn:{partition}:iam::<account>:role/<name>, or …:user/<name>.");
    if text.contains(['*', '?', '$']) {
        return refuse("a pattern would let in whoever makes a role of that name", shape);
    }
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    match parts.as_slice() {
        ["arn", of, "sts", "", _, session] if *of == partition && session.starts_with("assumed-role/") => {
            refuse("this is a session of a role, not the role", shape)
        }
        ["arn", of, "iam", "", account, name] if *of == partition => {
            let digits = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
            let named = ["role/", "user/"].iter().any(|kind| {
                name.strip_prefix(kind).is_some_and(|name| !name.is_empty() && !name.ends_with('/'))
            });
            if digits && named { Ok(text.to_owned()) } else { refuse("this is no role and no user", shape) }
        }
        _ => refuse("this is no role and no user", shape),
    }
}

/// How conditions name whoever calls. A session does not tell its role's path, and no two roles of an account have
/// the same name, whatever their paths.
fn caller(arn: &str) -> Vec<String> {
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    if let ["arn", partition, "sts", "", account, session] = parts.as_slice()
        && let Some(rest) = session.strip_prefix("assumed-role/")
    {
        let role = rest.split('/').next().unwrap_or_default();
        return vec![
            format!("arn:{partition}:iam::{account}:role/{role}"),
            format!("arn:{partition}:iam::{account}:role/*/{role}"),
        ];
    }
    vec![arn.to_owned()]
}

fn policy(readers: &BTreeSet<String>, passed: &BTreeSet<String>) -> Value {
    json!({
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": READERS,
                "Effect": "Allow",
                "Principal": { "AWS": readers },
                "Action": [READ, "secretsmanager:DescribeSecret"],
                "Resource": "*",
            },
            {
                "Sid": OTHERS,
                "Effect": "Deny",
                "Principal": "*",
                "Action": READ,
                "Resource": "*",
                "Condition": { "ArnNotLike": { PRINCIPAL: passed } },
            },
        ],
    })
}

/// Compares what is there with what is asked for. Whoever enrolled it before keeps reading.
fn change(
    there: Option<&str>,
    readers: &BTreeSet<String>,
    ours: BTreeSet<String>,
    account: &str,
) -> Result<Option<Change>> {
    let mut passed = ours;
    let there = there.map(present).transpose()?;
    let before = there.as_ref().map(|there| &there.readers).cloned().unwrap_or_default();
    if let Some(there) = &there {
        passed.extend(there.passed.difference(&before).cloned());
    }
    passed.extend(readers.iter().cloned());
    let policy = policy(readers, &passed);
    if there.is_some_and(|there| plain(&there.document) == plain(&policy)) {
        return Ok(None);
    }
    let mut lines: Vec<String> =
        readers.iter().map(|reader| format!("Will read the value: {reader}")).collect();
    lines.extend(before.difference(readers).map(|reader| format!("Will not read it any more: {reader}")));
    lines.push(
        "Beside them only Keywheel's roles, whoever enrols and the account's root user read it; all others are refused from then on."
            .to_owned(),
    );
    lines.extend(readers.iter().filter(|reader| reader.split(':').nth(4) != Some(account)).map(|reader| {
        format!("{reader} is of another account: it needs that right there too, and a KMS key of your own on the secret.")
    }));
    Ok(Some(Change { policy: policy.to_string(), lines }))
}

/// A policy of ours that is there.
struct Present {
    readers: BTreeSet<String>,
    passed: BTreeSet<String>,
    document: Value,
}

/// Reads a policy that is there. One with a statement that is not ours is somebody's, and is not replaced.
fn present(text: &str) -> Result<Present> {
    let document: Value = serde_json::from_str(text).unwrap_or_default();
    let statements: Vec<&Value> = match &document["Statement"] {
        Value::Array(all) => all.iter().collect(),
        Value::Null => Vec::new(),
        one => vec![one],
    };
    let named = |sid: &str| statements.iter().find(|statement| statement["Sid"] == sid);
    let theirs = statements.iter().any(|statement| statement["Sid"] != READERS && statement["Sid"] != OTHERS);
    let (Some(readers), Some(others), false) = (named(READERS), named(OTHERS), theirs) else {
        return Err(Trouble::new(
            "The secret has a resource policy that is not Keywheel's, and it is left as it is.",
            "`aws secretsmanager get-resource-policy` shows it. Take it off with delete-resource-policy, and name in --readers whom it lets in; or leave --readers away.",
        ));
    };
    let readers = set(&readers["Principal"]["AWS"]);
    let passed = set(&others["Condition"]["ArnNotLike"][PRINCIPAL]);
    Ok(Present { readers, passed, document })
}

fn set(value: &Value) -> BTreeSet<String> {
    match value {
        Value::Array(all) => all.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        one => one.as_str().map(str::to_owned).into_iter().collect(),
    }
}

/// The document without what AWS may write otherwise: a list of one, and the order of a list.
fn plain(value: &Value) -> Value {
    match value {
        Value::Array(all) => {
            let mut all: Vec<Value> = all.iter().map(plain).collect();
            all.sort_by_cached_key(ToString::to_string);
            match all.as_slice() {
                [one] => one.clone(),
                _ => Value::Array(all),
            }
        }
        Value::Object(fields) => {
            let sorted: BTreeMap<&String, Value> =
                fields.iter().map(|(name, value)| (name, plain(value))).collect();
            sorted.into_iter().map(|(name, value)| (name.clone(), value)).collect()
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests;
