//! What is known of an access key.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::AccessKeyId;

/// Whether IAM accepts the key. IAM's own type is open-ended; anything but these two is refused at the edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyStatus {
    /// IAM accepts it.
    Active,
    /// IAM refuses it; it can be made Active again.
    Inactive,
}

/// One row of `ListAccessKeys`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyFacts {
    /// The key's id.
    pub id: AccessKeyId,
    /// Active or Inactive.
    pub status: KeyStatus,
    /// When IAM made it; absent where IAM did not say.
    pub created: Option<Timestamp>,
}

impl KeyFacts {
    /// Whether IAM accepts it.
    pub fn is_active(&self) -> bool {
        self.status == KeyStatus::Active
    }
}

/// Finds a key by its id. Keys are never told apart by position: more than two can exist, in any order.
pub fn find<'a>(keys: &'a [KeyFacts], id: &AccessKeyId) -> Option<&'a KeyFacts> {
    keys.iter().find(|key| key.id == *id)
}

/// The last use that IAM has recorded: one entry per 15 minutes of use, and up to 4 hours late.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastUse {
    /// Start of the recorded use; `None` where IAM knows of no use at all.
    pub at: Option<Timestamp>,
    /// The service called, such as `s3`.
    pub service: Option<String>,
    /// The region called.
    pub region: Option<String>,
}
