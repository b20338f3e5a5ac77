//! The SDK's configuration inside a Lambda.
//!
//! Built by hand from the Lambda's environment instead of through `aws-config`, whose provider chain (profiles,
//! SSO, instance metadata) a Lambda never uses and would pay for at every cold start.
//!
//! TLS is rustls with the ring provider: the SDK's default, AWS-LC, spends 33 to 49 ms of CPU gathering jitter
//! entropy in its first handshake, which at 128 MB is half a second. With ring a whole cold start, handshakes
//! and roots included, takes 5 to 7 ms of CPU (`cargo xtask bench`). The price is one more
//! cryptography library to follow for advisories than the SDK's own choice.
//!
//! The roots are those of the operating system, found where OpenSSL finds them, or named by `SSL_CERT_FILE`.
//! Parsing a bundle of 140 costs 2 to 3 ms of that CPU, the largest single part, so it is done once a process.
//! Where the system also keeps each root in a file of its own, as Debian does, reading those costs as much again.
//! Two ways to save it were left: roots compiled in (a root that AWS takes up would need a release of ours, and
//! every partition its own list), and `SSL_CERT_FILE` in the template. With a path that is not there, a
//! release build logs a warning and refuses every connection (a debug build of the SDK's client panics): a rotation
//! would rest on a path that nothing here can check, to save some 3 ms.

use std::time::Duration;

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_async::rt::sleep::{SharedAsyncSleep, TokioSleep};
use aws_smithy_async::time::{SharedTimeSource, SystemTimeSource};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::behavior_version::BehaviorVersion;
use aws_smithy_runtime_api::client::connector_metadata::ConnectorMetadata;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use aws_types::SdkConfig;
use aws_types::app_name::AppName;
use aws_types::region::Region;
use aws_types::service_config::{LoadServiceConfig, ServiceConfigKey};

use crate::ids::RunId;

/// The HTTP client that all service clients of one process share.
pub fn http_client() -> SharedHttpClient {
    let client =
        aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    SharedHttpClient::new(OnFirstUse(client))
}

/// A client whose connector is made at the first call. The SDK's own makes one more for every service client
/// that is built, all roots parsed, and throws it away: that is to move the work before the first call, and in
/// a Lambda there is nothing before the first call.
#[derive(Debug)]
struct OnFirstUse(SharedHttpClient);

impl HttpClient for OnFirstUse {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        self.0.http_connector(settings, components)
    }

    fn connector_metadata(&self) -> Option<ConnectorMetadata> {
        self.0.connector_metadata()
    }
}

/// `AWS_ENDPOINT_URL_SECRETS_MANAGER` and its like, as every SDK reads them: interface endpoints of a VPC have
/// an address for each service.
#[derive(Debug)]
struct ServiceEndpoints;

impl LoadServiceConfig for ServiceEndpoints {
    fn load_config(&self, key: ServiceConfigKey<'_>) -> Option<String> {
        std::env::var(variable(&key)).ok().filter(|value| !value.is_empty())
    }
}

fn variable(key: &ServiceConfigKey<'_>) -> String {
    format!("{}_{}", key.env(), key.service_id().to_uppercase().replace(' ', "_"))
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
    config.set_service_config(Some(ServiceEndpoints));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_services_endpoint_is_named_as_every_sdk_names_it() {
        let key = |service| {
            let key = ServiceConfigKey::builder().service_id(service).profile("endpoint_url");
            key.env("AWS_ENDPOINT_URL").build().unwrap()
        };
        assert_eq!(variable(&key("IAM")), "AWS_ENDPOINT_URL_IAM");
        assert_eq!(variable(&key("Secrets Manager")), "AWS_ENDPOINT_URL_SECRETS_MANAGER");
    }
}
