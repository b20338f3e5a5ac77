//! The bucket that a stack's functions and machines come from.

use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{Builder, RequestChecksumCalculation, ResponseChecksumValidation};
use aws_sdk_s3::error::BuildError;
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    BucketLocationConstraint, BucketVersioningStatus, CreateBucketConfiguration,
    PublicAccessBlockConfiguration, ServerSideEncryption, ServerSideEncryptionByDefault,
    ServerSideEncryptionConfiguration, ServerSideEncryptionRule, VersioningConfiguration,
};
use keywheel::StepError;

use super::dist::Dist;
use crate::error::{Result, Trouble};
use crate::output::Out;
use crate::place::Place;

/// How long one upload may take: some megabytes, over whatever line there is.
const PATIENCE: Duration = Duration::from_mins(5);
/// The region that a bucket is in when none is named.
const UNNAMED: &str = "us-east-1";

/// A bucket of this account. Every call names the account: whoever has taken the name gets nothing.
pub(super) struct Bucket<'a> {
    client: Client,
    name: &'a str,
    place: &'a Place,
}

impl<'a> Bucket<'a> {
    pub(super) fn new(place: &'a Place, name: &'a str) -> Self {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(Duration::from_secs(5))
            .operation_attempt_timeout(PATIENCE)
            .build();
        // Signatures cover the body already; a checksum more would send it in chunks.
        let config = Builder::from(place.config())
            .timeout_config(timeouts)
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        Self { client: Client::from_conf(config.build()), name, place }
    }

    /// Sees to it that the bucket is there. One that is made is encrypted, private and keeps versions; one that was
    /// there is left as its owner has it.
    pub(super) async fn ready(&self, out: &Out, create: bool) -> Result<()> {
        let call = self.client.head_bucket().bucket(self.name).expected_bucket_owner(&self.place.account);
        let Err(error) = call.send().await else { return Ok(()) };
        let error = StepError::from_sdk("s3:HeadBucket", &error);
        if !error.is_refused(&["NotFound", "NoSuchBucket"]) {
            let trouble = Trouble::from(error);
            return Err(Trouble::new(
                format!("The bucket {} cannot be used: {}", self.name, trouble.text),
                format!(
                    "It must be of account {} and region {}; --bucket names another one.",
                    self.place.account, self.place.region
                ),
            ));
        }
        if !create {
            return Err(Trouble::new(
                format!("There is no bucket {}.", self.name),
                "Give --create-bucket to have it made, or --bucket for one that you have.",
            ));
        }
        self.make().await?;
        out.note(&format!("Made the bucket {}.", self.name));
        Ok(())
    }

    async fn make(&self) -> Result<()> {
        let mut call = self.client.create_bucket().bucket(self.name);
        if self.place.region != UNNAMED {
            let region = BucketLocationConstraint::from(self.place.region.as_str());
            let place = CreateBucketConfiguration::builder().location_constraint(region).build();
            call = call.create_bucket_configuration(place);
        }
        call.send().await.map_err(|error| StepError::from_sdk("s3:CreateBucket", &error))?;
        let owner = &self.place.account;
        let private = PublicAccessBlockConfiguration::builder()
            .block_public_acls(true)
            .block_public_policy(true)
            .ignore_public_acls(true)
            .restrict_public_buckets(true)
            .build();
        let call = self.client.put_public_access_block().bucket(self.name).expected_bucket_owner(owner);
        let sent = call.public_access_block_configuration(private).send().await;
        sent.map_err(|error| StepError::from_sdk("s3:PutPublicAccessBlock", &error))?;
        let encrypted = encrypted().map_err(|error| Trouble::new(format!("{error}."), ""))?;
        let call = self.client.put_bucket_encryption().bucket(self.name).expected_bucket_owner(owner);
        let sent = call.server_side_encryption_configuration(encrypted).send().await;
        sent.map_err(|error| StepError::from_sdk("s3:PutBucketEncryption", &error))?;
        let versions = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
        let call = self.client.put_bucket_versioning().bucket(self.name).expected_bucket_owner(owner);
        let sent = call.versioning_configuration(versions).send().await;
        sent.map_err(|error| StepError::from_sdk("s3:PutBucketVersioning", &error))?;
        Ok(())
    }

    /// Uploads what a stack is made of, but for what is there: a key is a hash. Whoever may write into the bucket could
    /// replace an object at any time, so to write it again would make nothing safer.
    pub(super) async fn upload(&self, dist: &Dist) -> Result<()> {
        for (key, artefact) in dist.uploads() {
            if self.holds(key, artefact.bytes).await? {
                continue;
            }
            let body = ByteStream::from(dist.contents(artefact)?);
            let call = self.client.put_object().bucket(self.name).key(key).body(body);
            let sent = call.expected_bucket_owner(&self.place.account).send().await;
            sent.map_err(|error| StepError::from_sdk("s3:PutObject", &error))?;
        }
        Ok(())
    }

    /// Whether an object of this size is there.
    async fn holds(&self, key: &str, bytes: u64) -> Result<bool> {
        let call = self.client.head_object().bucket(self.name).key(key);
        match call.expected_bucket_owner(&self.place.account).send().await {
            Ok(reply) => Ok(reply.content_length().and_then(|size| u64::try_from(size).ok()) == Some(bytes)),
            Err(error) => {
                let error = StepError::from_sdk("s3:HeadObject", &error);
                if error.is_refused(&["NotFound", "NoSuchKey"]) { Ok(false) } else { Err(error.into()) }
            }
        }
    }

    /// The address of an object, as CloudFormation asks for a template: the one that the SDK would send to.
    pub(super) async fn address(&self, key: &str) -> Result<String> {
        let wrong =
            |what: String| Trouble::new(format!("The template's address could not be made: {what}."), "");
        let brief =
            PresigningConfig::expires_in(Duration::from_mins(1)).map_err(|error| wrong(error.to_string()))?;
        let signed = self.client.get_object().bucket(self.name).key(key).presigned(brief).await;
        let signed = signed.map_err(|error| StepError::from_sdk("s3:GetObject", &error))?;
        // Without the signature: CloudFormation reads with the rights of whoever calls it.
        Ok(signed.uri().split('?').next().unwrap_or_default().to_owned())
    }
}

fn encrypted() -> std::result::Result<ServerSideEncryptionConfiguration, BuildError> {
    let default =
        ServerSideEncryptionByDefault::builder().sse_algorithm(ServerSideEncryption::Aes256).build()?;
    let rule = ServerSideEncryptionRule::builder().apply_server_side_encryption_by_default(default).build();
    ServerSideEncryptionConfiguration::builder().rules(rule).build()
}
