//! The installation's bucket: what is too large for a document, and kept longer than an execution.

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{Builder, RequestChecksumCalculation, ResponseChecksumValidation};
use aws_sdk_s3::primitives::ByteStream;
use aws_types::SdkConfig;
use keywheel::campaign::outcome_of;
use keywheel::{Campaign, StepError};

/// What S3 says of an object that is gone and whose versions it keeps.
const DELETE_MARKER: &str = "x-amz-delete-marker";

/// Whether a write was refused as another object lies there than was read, or none any more, or another write came in the
/// same moment.
pub fn is_another(error: &StepError) -> bool {
    error.is_refused(&["PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey"])
}

/// An object's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The text.
    pub text: String,
    /// The version that it is; `None` where the bucket keeps none.
    pub version: Option<String>,
    /// Its entity tag, by which a write tells whether it is still there.
    pub tag: Option<String>,
}

/// Somebody has deleted the object: versions of it are there, and a marker above them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deleted;

/// What must be there for a write: nobody has written since it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum If {
    /// The object with this entity tag.
    Is(String),
    /// No object.
    Absent,
}

/// The bucket.
pub struct Bucket {
    client: Client,
    name: String,
}

impl Bucket {
    /// The bucket of that name.
    pub fn new(config: &SdkConfig, name: &str) -> Self {
        // Signatures cover the body already; a checksum more would send it in chunks.
        let config = Builder::from(config)
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        Self { client: Client::from_conf(config.build()), name: name.to_owned() }
    }

    /// Where an object is, for people.
    pub fn address(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.name)
    }

    /// An object, or one version of it; `None` where there is none. Whoever may not list the bucket is refused instead.
    pub async fn read(&self, key: &str, version: Option<&str>) -> Result<Option<Stored>, StepError> {
        self.read_kept(key, version).await.map(Result::unwrap_or_default)
    }

    /// The same of an object that nobody has a reason to delete: one that was there, and is deleted, is told from one
    /// that never was.
    pub async fn read_kept(
        &self,
        key: &str,
        version: Option<&str>,
    ) -> Result<Result<Option<Stored>, Deleted>, StepError> {
        let call = self.client.get_object().bucket(&self.name).key(key);
        let reply = match call.set_version_id(version.map(str::to_owned)).send().await {
            Ok(reply) => reply,
            Err(error) => {
                let marker = error.raw_response().and_then(|reply| reply.headers().get(DELETE_MARKER));
                if version.is_none() && marker == Some("true") {
                    return Ok(Err(Deleted));
                }
                let error = StepError::from_sdk("s3:GetObject", &error);
                // The last is said of what no version can be called.
                let none = error.is_refused(&["NoSuchKey", "NoSuchVersion"])
                    || version.is_some() && error.is_refused(&["InvalidArgument"]);
                return if none { Ok(Ok(None)) } else { Err(error) };
            }
        };
        let version = reply.version_id().filter(|version| *version != "null").map(str::to_owned);
        let tag = reply.e_tag().map(str::to_owned);
        let text =
            reply.body.collect().await.map_err(|error| {
                StepError::NotYetVisible(format!("{} broke off: {error}", self.address(key)))
            })?;
        let text = String::from_utf8(text.to_vec())
            .map_err(|_| StepError::Conflict(format!("{} is no text", self.address(key))))?;
        Ok(Ok(Some(Stored { text, version, tag })))
    }

    /// Writes an object; its new version, where the bucket keeps versions.
    pub async fn write(
        &self,
        key: &str,
        media_type: &str,
        text: String,
    ) -> Result<Option<String>, StepError> {
        self.put(key, media_type, text, None).await
    }

    /// The same, unless another one lies there by now: then S3 refuses it, as [`is_another`] tells.
    pub async fn write_if(
        &self,
        there: If,
        key: &str,
        media_type: &str,
        text: String,
    ) -> Result<Option<String>, StepError> {
        self.put(key, media_type, text, Some(there)).await
    }

    async fn put(
        &self,
        key: &str,
        media_type: &str,
        text: String,
        there: Option<If>,
    ) -> Result<Option<String>, StepError> {
        let call = self.client.put_object().bucket(&self.name).key(key).content_type(media_type);
        let call = match there {
            Some(If::Is(tag)) => call.if_match(tag),
            Some(If::Absent) => call.if_none_match("*"),
            None => call,
        };
        let sent = call.body(ByteStream::from(text.into_bytes())).send().await;
        let reply = sent.map_err(|error| StepError::from_sdk("s3:PutObject", &error))?;
        Ok(reply.version_id().map(str::to_owned))
    }
}

/// Says that a campaign has its outcome, however long its notices may take.
pub async fn keep_outcome(bucket: &Bucket, doc: &Campaign) -> Result<(), StepError> {
    let text = serde_json::json!({ "campaign": doc.campaign, "outcome": doc.outcome, "why": doc.why });
    bucket.write(&outcome_of(&doc.execution), "application/json", text.to_string()).await.map(|_| ())
}
