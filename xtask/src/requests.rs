//! The emulator's log of requests: what reached the cloud, whoever sent it.
//!
//! The demo counts here and not in its own processes: a call that nobody admits to is a call all the same.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::cloud::Cloud;
use crate::error::{Explain, Result};

/// One request. There is no `Debug`: the reply of `CreateAccessKey` holds the secret.
#[derive(Clone, Deserialize)]
pub(crate) struct Request {
    /// Its place in the log.
    pub(crate) seq: u64,
    /// When it came.
    #[serde(deserialize_with = "time")]
    pub(crate) time: Timestamp,
    /// The service, as it signs: `iam`, `sts`, `secretsmanager`, `events`, `states`.
    #[serde(default, deserialize_with = "word")]
    pub(crate) service: String,
    /// The action.
    #[serde(default, deserialize_with = "word")]
    pub(crate) action: String,
    /// The access key that signed it.
    #[serde(default, deserialize_with = "word")]
    pub(crate) key_id: String,
    /// Whose key it is.
    #[serde(default, deserialize_with = "word")]
    pub(crate) principal: String,
    /// The status of the reply.
    pub(crate) status: u16,
    /// The error's code.
    #[serde(default, deserialize_with = "word")]
    pub(crate) code: String,
    /// The application that the User-Agent names.
    #[serde(default, deserialize_with = "word")]
    pub(crate) app: String,
    /// What `CreateAccessKey` replied.
    #[serde(default)]
    pub(crate) reply: Option<NewPair>,
}

/// A key pair that the emulator gave out.
#[derive(Clone, Deserialize)]
pub(crate) struct NewPair {
    /// The key's id.
    pub(crate) access_key_id: String,
    /// Its secret, to look for where it must not be.
    pub(crate) secret_access_key: String,
}

/// Which budget a call of a run counts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A change of the key or the secret.
    Write,
    /// Any other call of the rotation.
    Read,
    /// A look at the gate.
    GatePoll,
    /// The installation's switch.
    SwitchRead,
    /// A notice.
    Notice,
    /// A role taken over.
    AssumeRole,
}

impl Request {
    /// Which budget it counts to, made by the state `state`.
    pub(crate) fn kind(&self, state: Option<&str>) -> Kind {
        let action = self.action.as_str();
        match (self.service.to_ascii_lowercase().as_str(), action) {
            ("iam", "GetAccessKeyLastUsed") => Kind::GatePoll,
            ("secretsmanager", "ListSecrets") if state == Some("DeactivateKey") => Kind::GatePoll,
            ("ssm", "GetParameter" | "GetParameters") => Kind::SwitchRead,
            ("events", "PutEvents") | ("sns", "Publish") => Kind::Notice,
            ("states", _) if action.starts_with("SendTask") => Kind::Notice,
            ("sts", _) if action.starts_with("AssumeRole") => Kind::AssumeRole,
            ("iam" | "secretsmanager", _) if !is_read(action) => Kind::Write,
            _ => Kind::Read,
        }
    }

    /// As one line, without the reply.
    pub(crate) fn line(&self) -> String {
        let Self { time, service, action, key_id, status, code, app, .. } = self;
        format!("{time} {service}:{action} {status} {code} key={key_id} app={app}")
    }

    /// Whether the run whose application name is `app` made it: it says so itself, or a Lambda made it. Nobody
    /// else assumes a role in the demo's cloud, and a call that forgets its run is a call all the same.
    pub(crate) fn is_of_run(&self, app: &str) -> bool {
        self.app == app || self.principal.contains(":assumed-role/")
    }

    /// Whether it was refused, or its reply was lost.
    pub(crate) fn failed(&self) -> bool {
        !(200..400).contains(&self.status)
    }
}

/// Whether an action only reads, as AWS names its actions.
fn is_read(action: &str) -> bool {
    ["Get", "List", "Describe", "BatchGet", "Lookup", "Simulate", "Validate"]
        .iter()
        .any(|prefix| action.starts_with(prefix))
}

/// The whole log of `cloud`, by the time of arrival.
pub(crate) async fn all(cloud: &Cloud) -> Result<Vec<Request>> {
    let log = cloud.http.get("/_keywheel/requests?after=0").await?;
    let mut log = Vec::<Request>::deserialize(log).explain("the emulator's log of requests")?;
    // It is written when a call is answered; a slow one comes after what it preceded.
    log.sort_by_key(|request| (request.time, request.seq));
    Ok(log)
}

fn word<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<String, D::Error> {
    Ok(Option::<String>::deserialize(from)?.unwrap_or_default())
}

fn time<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Timestamp, D::Error> {
    let value = Value::deserialize(from)?;
    timestamp(&value).ok_or_else(|| serde::de::Error::custom(format!("{value} is not a time")))
}

/// A time as text, or as seconds since 1970.
pub(crate) fn timestamp(value: &Value) -> Option<Timestamp> {
    match value {
        Value::String(text) => text.parse().ok(),
        // Milliseconds are as fine as the logs are; a float holds them exactly enough.
        #[expect(clippy::cast_possible_truncation, reason = "times of this century fit")]
        Value::Number(number) => Timestamp::from_millisecond((number.as_f64()? * 1000.0).round() as i64).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn request(service: &str, action: &str) -> Request {
        let line = json!({"seq": 1, "time": "2026-01-02T03:04:05.678Z", "service": service, "action": action,
            "key_id": null, "principal": "x", "status": 200});
        serde_json::from_value(line).unwrap()
    }

    #[test]
    fn every_call_counts_to_one_budget() {
        let kind = |service, action| request(service, action).kind(None);
        for (service, action) in [
            ("iam", "CreateAccessKey"),
            ("secretsmanager", "PutSecretValue"),
            ("secretsmanager", "UpdateSecretVersionStage"),
            ("iam", "UpdateAccessKey"),
            ("iam", "DeleteAccessKey"),
            ("iam", "TagUser"),
        ] {
            assert_eq!(kind(service, action), Kind::Write, "{service}:{action}");
        }
        for (service, action) in
            [("iam", "ListAccessKeys"), ("sts", "GetCallerIdentity"), ("states", "DescribeExecution")]
        {
            assert_eq!(kind(service, action), Kind::Read, "{service}:{action}");
        }
        assert_eq!(kind("iam", "GetAccessKeyLastUsed"), Kind::GatePoll);
        assert_eq!(kind("ssm", "GetParameter"), Kind::SwitchRead);
        assert_eq!(kind("ssm", "GetParameters"), Kind::SwitchRead);
        assert_eq!(kind("events", "PutEvents"), Kind::Notice);
        assert_eq!(kind("states", "SendTaskSuccess"), Kind::Notice);
        assert_eq!(kind("sts", "AssumeRole"), Kind::AssumeRole);
    }

    #[test]
    fn only_the_gates_own_search_for_rivals_is_apart() {
        let list = request("secretsmanager", "ListSecrets");
        assert_eq!(list.kind(Some("DeactivateKey")), Kind::GatePoll);
        assert_eq!(list.kind(Some("Look")), Kind::Read);
    }

    #[test]
    fn a_lambdas_call_counts_whether_it_names_its_run_or_not() {
        let mut request = request("ssm", "GetParameter");
        assert!(!request.is_of_run("keywheel-1"));
        request.app = "keywheel-1".into();
        assert!(request.is_of_run("keywheel-1"));
        request.app = String::new();
        request.principal = "arn:aws:sts::111122223333:assumed-role/keywheel-look/session".into();
        assert!(request.is_of_run("keywheel-1"));
    }

    #[test]
    fn a_lost_reply_is_a_failure() {
        let mut request = request("sts", "GetCallerIdentity");
        assert!(!request.failed());
        request.status = 0;
        assert!(request.failed());
        request.status = 403;
        assert!(request.failed());
    }

    #[test]
    fn times_come_as_text_or_as_seconds() {
        let time: Timestamp = "2026-01-02T03:04:05.678Z".parse().unwrap();
        assert_eq!(timestamp(&json!("2026-01-02T03:04:05.678Z")), Some(time));
        assert_eq!(timestamp(&json!(1_767_323_045.678)), Some(time));
        assert_eq!(timestamp(&json!(null)), None);
    }
}
