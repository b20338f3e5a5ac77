//! The installation's bucket: what is too large for a document, and kept longer than an execution.

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{Builder, RequestChecksumCalculation, ResponseChecksumValidation};
use aws_sdk_s3::primitives::ByteStream;
use aws_types::SdkConfig;
use keywheel::StepError;

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

    /// Writes an object.
    pub async fn write(&self, key: &str, media_type: &str, text: String) -> Result<(), StepError> {
        let call = self.client.put_object().bucket(&self.name).key(key).content_type(media_type);
        let sent = call.body(ByteStream::from(text.into_bytes())).send().await;
        sent.map(|_| ()).map_err(|error| StepError::from_sdk("s3:PutObject", &error))
    }
}
