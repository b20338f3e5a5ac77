//! S3: one bucket that keeps every version of its objects.

use super::account::Object;
use super::state::State;
use super::wire::{Answer, Body, Request, refuse_with};
use crate::functions::BUCKET;

impl State {
    pub(super) fn s3(&mut self, request: &Request) -> Answer {
        if request.text("Bucket") != BUCKET {
            return refuse_with(404, "NoSuchBucket", "The specified bucket does not exist");
        }
        let key = request.text("Key").to_owned();
        match request.action.as_str() {
            "PutObject" => {
                let (text, version) = (request.text("Body").to_owned(), format!("version-{}", self.next()));
                self.objects.push(Object { key, text, version: version.clone() });
                Ok(Body::Object(String::new(), version))
            }
            "GetObject" => {
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

    /// The newest version of an object.
    pub fn object(&self, key: &str) -> Option<&str> {
        self.objects.iter().rev().find(|object| object.key == key).map(|object| object.text.as_str())
    }
}
