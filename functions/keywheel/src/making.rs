//! A key that somebody has made, as CloudTrail tells it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{AccessKeyId, UserName};

/// One successful `CreateAccessKey`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// The key.
    pub key: AccessKeyId,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserName>,
    /// The account's twelve digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// When.
    pub at: Timestamp,
    /// The ARN of the principal that asked, of a role's session the role's, or the unique id where the ARN may not be
    /// repeated; none where the record names nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

impl Made {
    /// The partition of the principal that asked, which is the key's.
    pub fn partition(&self) -> &str {
        self.by.as_deref().and_then(|arn| arn.split(':').nth(1)).unwrap_or("aws")
    }

    /// The principal, for people.
    pub fn by(&self) -> &str {
        self.by.as_deref().unwrap_or("somebody whom the record does not name")
    }
}
