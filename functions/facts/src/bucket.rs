//! The installation's bucket: what is too large for a document, and kept longer than an execution.

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{Builder, RequestChecksumCalculation, ResponseChecksumValidation};
use aws_sdk_s3::primitives::ByteStream;
use aws_types::SdkConfig;
use keywheel::campaign::outcome_of;
use keywheel::{Campaign, StepError};

/// An object's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The text.
    pub text: String,
    /// The version that it is; `None` where the bucket keeps none.
    pub version: Option<String>,
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
        let call = self.client.get_object().bucket(&self.name).key(key);
        let reply = match call.set_version_id(version.map(str::to_owned)).send().await {
            Ok(reply) => reply,
            Err(error) => {
                let error = StepError::from_sdk("s3:GetObject", &error);
                // The last is said of what no version can be called.
                let none = error.is_refused(&["NoSuchKey", "NoSuchVersion"])
                    || version.is_some() && error.is_refused(&["InvalidArgument"]);
                return if none { Ok(None) } else { Err(error) };
            }
        };
        let version = reply.version_id().filter(|version| *version != "null").map(str::to_owned);
        let text =
            reply.body.collect().await.map_err(|error| {
                StepError::NotYetVisible(format!("{} broke off: {error}", self.address(key)))
            })?;
        let text = String::from_utf8(text.to_vec())
            .map_err(|_| StepError::Conflict(format!("{} is no text", self.address(key))))?;
        Ok(Some(Stored { text, version }))
    }

    /// Writes an object; its new version, where the bucket keeps versions.
    pub async fn write(
        &self,
        key: &str,
        media_type: &str,
        text: String,
    ) -> Result<Option<String>, StepError> {
        let call = self.client.put_object().bucket(&self.name).key(key).content_type(media_type);
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
