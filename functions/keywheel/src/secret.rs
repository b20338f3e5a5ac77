//! The secret's value: a JSON object of which Keywheel owns three fields and keeps all others as they are.
//!
//! Zeroizing narrows the time a copy stays in memory; the SDK's own buffers are beyond us.

use std::collections::BTreeMap;
use std::fmt;

use indexmap::IndexMap;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use crate::ids::{AccessKeyId, UserName};

/// The half of a key pair that must not be seen. No `Serialize`, no `Display`, no `Clone`.
#[derive(Debug)]
pub struct SecretAccessKey(SecretString);

impl SecretAccessKey {
    /// Takes the secret over; the caller's copy is gone.
    pub fn new(secret: String) -> Self {
        Self(SecretString::from(secret))
    }

    /// The secret, for signing a call.
    #[expect(clippy::disallowed_methods, reason = "the STS client signs with it")]
    pub fn for_signing(&self) -> &str {
        self.0.expose_secret()
    }

    /// The secret, for the standard output of `keywheel credentials` alone.
    #[expect(clippy::disallowed_methods, reason = "the user's own command hands it to the user's own SDK")]
    pub fn for_consumer(&self) -> &str {
        self.0.expose_secret()
    }

    /// Whether both are the same.
    #[expect(clippy::disallowed_methods, reason = "compared where it lies, and not kept")]
    pub fn is(&self, other: &Self) -> bool {
        self.0.expose_secret() == other.0.expose_secret()
    }
}

/// Why a value is not one that Keywheel can rotate. No text of the value is repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// A binary value.
    #[error("the secret's value is binary, not JSON")]
    Binary,
    /// Text that is not JSON, or JSON that is not an object.
    #[error("the secret's value is not a JSON object")]
    NotAnObject,
    /// A credential without its other half, or a field that is not text.
    #[error("the secret's value lacks the field {0}, or it is not text")]
    FieldMissing(&'static str),
    /// An `AccessKeyId` that is none.
    #[error("the secret's field AccessKeyId is not an access key id")]
    BadKeyId,
    /// A `UserName` other than the managed user's.
    #[error("the secret's field UserName names another user than its tag")]
    OtherUser,
}

impl ValueError {
    /// The name that a blocked run gives for it.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Binary | Self::NotAnObject => "NotJson",
            Self::FieldMissing(_) | Self::BadKeyId => "FieldsMissing",
            Self::OtherUser => "UserMismatch",
        }
    }
}

const USER: &str = "UserName";
const KEY: &str = "AccessKeyId";
const SECRET: &str = "SecretAccessKey";
/// What people call a credential's two halves, without case, signs and a leading `aws`.
const LOOK_ALIKES: [&str; 5] =
    ["accesskeyid", "accesskey", "secretaccesskey", "secretkey", "accesskeysecret"];

/// A value that was read and found to be one that Keywheel can rotate. `Debug` shows field names only.
///
/// The text is kept as it came and its fields are read where they lie: numbers, order and escapes of the
/// fields that are not ours stay exactly what somebody wrote.
pub struct SecretValue {
    text: Zeroizing<String>,
}

type Fields<'a> = IndexMap<String, &'a RawValue>;

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.fields().keys()).finish()
    }
}

impl SecretValue {
    /// Reads a value that belongs to `user`. Without any credential in it, it is one that waits for its
    /// first key; with half of one, it is an error.
    pub fn parse(text: Option<&str>, user: &UserName) -> Result<Self, ValueError> {
        let value = Self::of_anybody(text)?;
        match value.field(USER) {
            Some(name) if *name != user.as_str() => Err(ValueError::OtherUser),
            _ => Ok(value),
        }
    }

    /// Reads a value whoever it belongs to: for a consumer, who knows its secret and not its user.
    pub fn of_anybody(text: Option<&str>) -> Result<Self, ValueError> {
        let text = text.ok_or(ValueError::Binary)?;
        if serde_json::from_str::<Fields<'_>>(text).is_err() {
            return Err(ValueError::NotAnObject);
        }
        let value = Self { text: Zeroizing::new(text.to_owned()) };
        let fields = value.fields();
        if fields.contains_key(KEY) || fields.contains_key(SECRET) {
            for name in [USER, KEY, SECRET] {
                if value.field(name).is_none_or(|text| text.is_empty()) {
                    return Err(ValueError::FieldMissing(name));
                }
            }
            value.key().ok_or(ValueError::BadKeyId)?;
        }
        Ok(value)
    }

    /// The names of fields that look like a credential and are not ours: what reads them is not rotated. The value
    /// of none of them is looked at.
    pub fn look_alikes(&self) -> Vec<String> {
        let plain = |name: &str| -> String {
            name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
        };
        let looks = |name: &str| {
            let plain = plain(name);
            LOOK_ALIKES.contains(&plain.strip_prefix("aws").unwrap_or(&plain))
        };
        let names = self.fields().into_keys();
        names.filter(|name| ![USER, KEY, SECRET].contains(&name.as_str()) && looks(name)).collect()
    }

    /// A value without any field.
    pub fn empty() -> Self {
        Self { text: Zeroizing::new("{}".to_owned()) }
    }

    /// The key that the value holds.
    pub fn key(&self) -> Option<AccessKeyId> {
        self.field(KEY).and_then(|id| id.parse().ok())
    }

    /// Whether the key's id stands anywhere in the value, whatever its field is called.
    pub fn names(&self, key: &AccessKeyId) -> bool {
        self.text.contains(key.as_str())
    }

    /// The pair, for a call that is to be signed with it.
    pub fn pair(&self) -> Option<(AccessKeyId, SecretAccessKey)> {
        Some((self.key()?, SecretAccessKey::new(std::mem::take(&mut *self.field(SECRET)?))))
    }

    /// Whether all fields but the credentials are the same.
    pub fn same_but_credentials(&self, other: &Self) -> bool {
        let rest = |value: &Self| -> BTreeMap<String, String> {
            let fields = value.fields().into_iter().filter(|(name, _)| name != KEY && name != SECRET);
            fields.map(|(name, raw)| (name, raw.get().to_owned())).collect()
        };
        rest(self) == rest(other)
    }

    /// This value with another pair; every other field is kept, in its place.
    #[expect(clippy::disallowed_methods, reason = "it is written into the value that goes to the store")]
    pub fn with_pair(&self, user: &UserName, key: &AccessKeyId, secret: &SecretAccessKey) -> SecretString {
        let ours = [(USER, user.as_str()), (KEY, key.as_str()), (SECRET, secret.0.expose_secret())];
        let ours: Vec<(&str, Zeroizing<String>)> = ours
            .into_iter()
            .map(|(name, text)| (name, Zeroizing::new(Value::from(text).to_string())))
            .collect();
        let mut fields: IndexMap<String, &str> =
            self.fields().into_iter().map(|(name, raw)| (name, raw.get())).collect();
        for (name, text) in &ours {
            fields.insert((*name).to_owned(), text.as_str());
        }
        let lines: Vec<String> =
            fields.iter().map(|(name, raw)| format!("{}:{raw}", Value::from(name.as_str()))).collect();
        SecretString::from(format!("{{{}}}", lines.join(",")))
    }

    /// The value of a secret that waits for its first key.
    pub fn placeholder(user: &UserName) -> String {
        serde_json::json!({ USER: user.as_str() }).to_string()
    }

    fn fields(&self) -> Fields<'_> {
        // Checked when the value was made.
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    fn field(&self, name: &str) -> Option<Zeroizing<String>> {
        serde_json::from_str(self.fields().get(name)?.get()).ok().map(Zeroizing::new)
    }
}

/// The stored text, for the one call that stores it.
#[expect(clippy::disallowed_methods, reason = "PutSecretValue sends it")]
pub fn for_store(value: &SecretString) -> String {
    value.expose_secret().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user() -> UserName {
        "svc-mail".parse().unwrap()
    }

    fn full() -> String {
        // Assembled here, so that no line of the repository looks like a credential.
        let secret = "s".repeat(40);
        format!(
            r#"{{"note":"keep","UserName":"svc-mail","AccessKeyId":"AKIAIOSFODNN7EXAMPLE","SecretAccessKey":"{secret}","port":587,"rate":1.10,"big":123456789012345678901234567890}}"#
        )
    }

    #[test]
    fn other_fields_survive_in_their_place() {
        let value = SecretValue::parse(Some(&full()), &user()).unwrap();
        let next = value.with_pair(
            &user(),
            &"AKIAI44QH8DHBEXAMPLE".parse().unwrap(),
            &SecretAccessKey::new("n".repeat(40)),
        );
        let text = for_store(&next);
        assert!(
            text.starts_with(r#"{"note":"keep","UserName":"svc-mail","AccessKeyId":"AKIAI44QH8DHBEXAMPLE""#)
        );
        assert!(text.ends_with(r#""port":587,"rate":1.10,"big":123456789012345678901234567890}"#));
        let next = SecretValue::parse(Some(&text), &user()).unwrap();
        assert!(value.same_but_credentials(&next));
        assert!(!value.same_but_credentials(&SecretValue::empty()));
    }

    #[test]
    fn half_a_credential_is_an_error_and_none_is_a_beginning() {
        let parse = |text: &str| SecretValue::parse(Some(text), &user()).map(|value| value.key());
        assert_eq!(parse("{}"), Ok(None));
        assert_eq!(parse(r#"{"UserName":"svc-mail","note":"x"}"#), Ok(None));
        assert_eq!(parse(r#"{"UserName":"other"}"#), Err(ValueError::OtherUser));
        assert_eq!(parse("[]"), Err(ValueError::NotAnObject));
        assert_eq!(parse("AKIA…"), Err(ValueError::NotAnObject));
        assert_eq!(SecretValue::parse(None, &user()).unwrap_err(), ValueError::Binary);
        assert_eq!(
            parse(r#"{"UserName":"svc-mail","AccessKeyId":"AKIAIOSFODNN7EXAMPLE"}"#),
            Err(ValueError::FieldMissing("SecretAccessKey"))
        );
        assert_eq!(
            parse(r#"{"AccessKeyId":"AKIAIOSFODNN7EXAMPLE","SecretAccessKey":"x"}"#),
            Err(ValueError::FieldMissing("UserName"))
        );
        assert_eq!(
            parse(r#"{"UserName":"svc-mail","AccessKeyId":"AK","SecretAccessKey":"x"}"#),
            Err(ValueError::BadKeyId)
        );
    }

    #[test]
    fn a_consumer_reads_a_value_whoever_it_belongs_to() {
        let value = SecretValue::of_anybody(Some(&full())).unwrap();
        assert_eq!(value.key().unwrap().as_str(), "AKIAIOSFODNN7EXAMPLE");
        let (_, secret) = value.pair().unwrap();
        assert_eq!(secret.for_consumer(), "s".repeat(40));
        assert!(secret.is(&SecretAccessKey::new("s".repeat(40))));
        assert!(!secret.is(&SecretAccessKey::new("n".repeat(40))));
        assert_eq!(SecretValue::of_anybody(Some(r#"{"UserName":"eve"}"#)).unwrap().key(), None);
        assert_eq!(SecretValue::of_anybody(Some("[]")).unwrap_err(), ValueError::NotAnObject);
        assert_eq!(SecretValue::of_anybody(None).unwrap_err(), ValueError::Binary);
    }

    #[test]
    fn a_key_is_named_under_whatever_field() {
        let key: AccessKeyId = "AKIAIOSFODNN7EXAMPLE".parse().unwrap();
        let names = |text: &str| SecretValue::of_anybody(Some(text)).unwrap().names(&key);
        assert!(names(&full()) && names(r#"{"aws":{"access_key":"AKIAIOSFODNN7EXAMPLE"}}"#));
        assert!(!names(r#"{"aws":{"access_key":"AKIAI44QH8DHBEXAMPLE"}}"#));
    }

    #[test]
    fn a_credential_under_another_name_is_seen_by_its_name() {
        let names = |text: &str| SecretValue::of_anybody(Some(text)).unwrap().look_alikes();
        assert!(names(&full()).is_empty());
        let theirs =
            r#"{"aws_access_key_id":"a","AWS_SECRET_ACCESS_KEY":"b","accessKeyId":"c","host":"d","key":"e"}"#;
        assert_eq!(names(theirs), ["aws_access_key_id", "AWS_SECRET_ACCESS_KEY", "accessKeyId"]);
        assert_eq!(names(r#"{"SecretKey":"a","access-key":"b"}"#), ["SecretKey", "access-key"]);
    }

    #[test]
    fn nothing_of_a_value_is_printed() {
        let value = SecretValue::parse(Some(&full()), &user()).unwrap();
        let (_, secret) = value.pair().unwrap();
        let printed = format!("{value:?} {secret:?}");
        assert!(
            !printed.contains("ssss") && !printed.contains("keep") && !printed.contains("587"),
            "{printed}"
        );
    }
}
