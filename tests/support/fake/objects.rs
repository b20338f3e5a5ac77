//! S3: one bucket that keeps every version of its objects.

use super::account::Object;
use super::state::State;
use super::wire::{Answer, Body, Request, refuse_with};
use crate::functions::BUCKET;

/// What stands in the message where a delete marker is in the way; the answer's header says so to others.
pub(super) const MARKED: &str = "The specified key does not exist: it was deleted.";

/// An object's entity tag.
pub(super) fn entity_tag(text: &str) -> String {
    let digest = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("\"{digest:016x}\"")
}

fn precondition_failed() -> Answer {
    refuse_with(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold")
}

impl State {
    pub(super) fn s3(&mut self, request: &Request) -> Answer {
        if request.text("Bucket") != BUCKET {
            return refuse_with(404, "NoSuchBucket", "The specified bucket does not exist");
        }
        let key = request.text("Key").to_owned();
        match request.action.as_str() {
            "PutObject" => {
                // The condition is on the newest version; a marker is as good as none.
                let there = self.object(&key).map(entity_tag);
                let (is, none) = (request.params["IfMatch"].as_str(), request.params["IfNoneMatch"].as_str());
                match (is, none, there) {
                    (Some(_), _, None) => {
                        return refuse_with(404, "NoSuchKey", "The specified key does not exist.");
                    }
                    (Some(asked), _, Some(there)) if asked != there => return precondition_failed(),
                    (_, Some("*"), Some(_)) => return precondition_failed(),
                    _ => {}
                }
                let (text, version) = (request.text("Body").to_owned(), format!("version-{}", self.next()));
                self.deleted.remove(&key);
                self.objects.push(Object { key, text, version: version.clone() });
                Ok(Body::Object(String::new(), version))
            }
            "GetObject" => {
                if request.params["VersionId"].is_null() && self.deleted.contains(&key) {
                    return refuse_with(404, "NoSuchKey", MARKED);
                }
                let asked = request.params["VersionId"].as_str();
                let found =
                    self.objects.iter().rev().find(|object| {
                        object.key == key && asked.is_none_or(|asked| object.version == asked)
                    });
                match (found, asked) {
                    (Some(object), _) => Ok(Body::Object(object.text.clone(), object.version.clone())),
                    (None, None) => refuse_with(404, "NoSuchKey", "The specified key does not exist."),
                    (None, Some(_)) => {
                        refuse_with(404, "NoSuchVersion", "The specified version does not exist.")
                    }
                }
            }
            _ => self.unknown(request),
        }
    }

    /// Puts a delete marker above the versions of an object.
    pub fn delete_object(&mut self, key: &str) {
        self.deleted.insert(key.to_owned());
    }

    /// The newest version of an object that is not deleted.
    pub fn object(&self, key: &str) -> Option<&str> {
        if self.deleted.contains(key) {
            return None;
        }
        self.objects.iter().rev().find(|object| object.key == key).map(|object| object.text.as_str())
    }
}
