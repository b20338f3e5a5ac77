//! The SDK's configuration inside a Lambda.
//!
//! Built by hand from the Lambda's environment instead of through `aws-config`, whose provider chain (profiles,
//! SSO, instance metadata) a Lambda never uses and would pay for at every cold start.
//!
//! TLS is rustls with the ring provider: the SDK's default, AWS-LC, spends 33 to 49 ms of CPU gathering jitter
//! entropy in its first handshake, which at 128 MB is half a second. The price is one more
//! cryptography library to follow for advisories than the SDK's own choice.

use std::time::Duration;

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_async::rt::sleep::{SharedAsyncSleep, TokioSleep};
use aws_smithy_async::time::{SharedTimeSource, SystemTimeSource};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::behavior_version::BehaviorVersion;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use aws_types::SdkConfig;
use aws_types::app_name::AppName;
use aws_types::region::Region;

use crate::ids::RunId;

/// The HTTP client that all service clients of one process share.
pub fn http_client() -> SharedHttpClient {
    aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https()
}

/// The configuration from the Lambda's environment: its role's credentials, its region, and an endpoint
/// where one is set.
pub fn lambda_config() -> SdkConfig {
    let var = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let credentials = Credentials::new(
        var("AWS_ACCESS_KEY_ID").unwrap_or_default(),
        var("AWS_SECRET_ACCESS_KEY").unwrap_or_default(),
        var("AWS_SESSION_TOKEN"),
        None,
        "LambdaEnvironment",
    );
    let mut config = base(http_client(), credentials).into_builder();
    config.set_region(var("AWS_REGION").or_else(|| var("AWS_DEFAULT_REGION")).map(Region::new));
    config.set_endpoint_url(var("AWS_ENDPOINT_URL"));
    config.set_use_fips(var("AWS_USE_FIPS_ENDPOINT").map(|value| value == "true"));
    config.build()
}

/// A configuration with our time-outs and retries around the given client and credentials.
///
/// Three attempts of five seconds each: a step must learn of a dead service well within its own time-out, and
/// the machine's retries, which look first, do the rest.
pub fn base(http: SharedHttpClient, credentials: Credentials) -> SdkConfig {
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(http)
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .sleep_impl(SharedAsyncSleep::new(TokioSleep::new()))
        .time_source(SharedTimeSource::new(SystemTimeSource::new()))
        .retry_config(RetryConfig::standard().with_max_attempts(3))
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(Duration::from_secs(2))
                .operation_attempt_timeout(Duration::from_secs(5))
                .build(),
        )
        .build()
}

/// The configuration whose calls carry the run's id in their User-Agent, and so in CloudTrail.
pub fn for_run(config: &SdkConfig, run: RunId) -> SdkConfig {
    let mut builder = config.clone().into_builder();
    // A prefix and a UUID: always a legal application name.
    builder.set_app_name(AppName::new(run.app_name()).ok());
    builder.build()
}

/// The same configuration in another region.
pub fn in_region(config: &SdkConfig, region: &str) -> SdkConfig {
    config.clone().into_builder().region(Region::new(region.to_owned())).build()
}
