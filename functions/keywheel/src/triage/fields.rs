//! Reading fields of a value that may be anything.
//!
//! The crate of event types that Lambdas usually take knows GuardDuty and Security Hub as free-form detail only, and
//! a strict type would refuse the whole of an event for one field that this does not need.

use serde_json::Value;

use super::Severity;
use crate::ids::{AccessKeyId, UserName};

/// A value whose fields are read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a>(pub(super) &'a Value);

impl<'a> Fields<'a> {
    /// A field that is there and not null.
    pub(super) fn get(self, name: &str) -> Option<Self> {
        self.0.get(name).filter(|value| !value.is_null()).map(Fields)
    }

    /// A field's text.
    pub(super) fn text(self, name: &str) -> Option<&'a str> {
        self.get(name).and_then(|value| value.0.as_str())
    }

    /// A field whose name begins with a small letter on the event bus and with a capital one in an SDK's answer.
    pub(super) fn any(self, name: &str) -> Option<Self> {
        self.get(name).or_else(|| {
            let mut letters = name.chars();
            let first = letters.next()?;
            self.get(&format!("{}{}", first.to_ascii_uppercase(), letters.as_str()))
        })
    }

    /// The text of such a field.
    pub(super) fn any_text(self, name: &str) -> Option<&'a str> {
        self.any(name).and_then(|value| value.0.as_str())
    }

    /// The members of a field that is a list.
    pub(super) fn list(self, name: &str) -> Option<Vec<Self>> {
        self.get(name)?.0.as_array().map(|members| members.iter().map(Fields).collect())
    }

    /// Whether it is an object.
    pub(super) fn is_object(self) -> bool {
        self.0.is_object()
    }

    /// An account's id, where the field is one.
    pub(super) fn account(self, name: &str) -> Option<String> {
        self.any_text(name).filter(|text| is_account(text)).map(str::to_owned)
    }
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A key's id as AWS makes them. Blanks around it are a copyist's; anything else is no id.
pub(super) fn key_id(text: &str) -> Option<AccessKeyId> {
    let id: AccessKeyId = text.trim().parse().ok()?;
    let formed = |prefix| id.as_str().strip_prefix(prefix).is_some_and(is_tail);
    (formed("AKIA") || formed("ASIA")).then_some(id)
}

fn is_tail(text: &str) -> bool {
    text.len() >= 12 && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}

/// An IAM name. Text that IAM would not take is nobody's name.
pub(super) fn name(text: &str) -> Option<UserName> {
    text.parse().ok()
}

/// The name at the end of the ARN of a user or a role.
pub(super) fn name_in_arn(arn: &str, kind: &str) -> Option<UserName> {
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let ["arn", _, "iam", _, _, resource] = parts.as_slice() else { return None };
    let path = resource.strip_prefix(kind)?.strip_prefix('/')?;
    name(path.rsplit('/').next()?)
}

/// How IAM's console, CloudTrail and Trusted Advisor call the root.
pub(super) fn is_root(text: &str) -> bool {
    ["root", "<root_account>", "root_account"].iter().any(|word| text.eq_ignore_ascii_case(word))
}

/// A severity as a number of at most `most`, which may be written as text.
pub(super) fn severity(value: Option<Fields<'_>>, most: f64) -> Severity {
    let number = value.and_then(|value| match value.0 {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    });
    match number.map(|number: f64| number / most * 10.0) {
        Some(number) if !(0.0..=10.0).contains(&number) => Severity::Unknown,
        Some(number) if number >= 9.0 => Severity::Critical,
        Some(number) if number >= 7.0 => Severity::High,
        Some(number) if number >= 4.0 => Severity::Medium,
        Some(_) => Severity::Low,
        None => Severity::Unknown,
    }
}

/// A severity as a word.
pub(super) fn severity_word(text: Option<&str>) -> Severity {
    match text.map(str::to_ascii_lowercase).as_deref() {
        Some("critical" | "fatal") => Severity::Critical,
        Some("high") => Severity::High,
        Some("medium" | "moderate") => Severity::Medium,
        Some("low" | "informational") => Severity::Low,
        _ => Severity::Unknown,
    }
}
