//! The local cloud that these tests run against, found through the environment.
//!
//! Each test has clients of its own: they belong to its runtime. The switch of the installation is the one thing
//! that all runs share, so ordinary tests hold it together and a test that turns it holds it alone.

use std::env::var;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_runtime_api::client::identity::Identity;
use aws_smithy_types::timeout::TimeoutConfig;
use aws_types::SdkConfig;
use aws_types::app_name::AppName;
use aws_types::region::Region;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::sync::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use uuid::Uuid;

type Body = Full<std::io::Cursor<Vec<u8>>>;

/// How long a signed or control call may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// Held by every test; by one alone where it turns the installation's switch.
static SWITCH: RwLock<()> = RwLock::const_new(());
/// The emulator takes the whole list of faults at once, so a fault is added under this: what is left of the list
/// is read, lengthened and put back. Tests plan their faults before the run that meets them starts.
static FAULTS: Mutex<()> = Mutex::const_new(());

enum Guard {
    Shared { _held: RwLockReadGuard<'static, ()> },
    Of { _hub: Arc<Cloud> },
    Alone { _held: RwLockWriteGuard<'static, ()> },
}

/// The local cloud, as its account's root sees it.
pub(crate) struct Cloud {
    /// IAM.
    pub(crate) iam: aws_sdk_iam::Client,
    /// Secrets Manager.
    pub(crate) store: aws_sdk_secretsmanager::Client,
    /// Step Functions.
    pub(crate) sfn: aws_sdk_sfn::Client,
    /// The rotation machine.
    pub(crate) machine: String,
    /// The machine that events about leaks start.
    pub(crate) emergency: String,
    /// The machine of one leaked credential.
    pub(crate) incident: String,
    /// The bus that takes reports of leaked keys.
    pub(crate) leaks: String,
    /// The event bus.
    pub(crate) bus: String,
    /// The topic.
    pub(crate) topic: String,
    /// The installation's stage.
    pub(crate) stage: String,
    /// Where the log of requests stood when the test began.
    pub(crate) mark: u64,
    config: SdkConfig,
    root: Credentials,
    endpoint: String,
    control: String,
    http: Client<HttpConnector, Body>,
    _guard: Guard,
}

fn patience() -> TimeoutConfig {
    let patient = Duration::from_secs(30);
    TimeoutConfig::builder().connect_timeout(patient).operation_attempt_timeout(patient).build()
}

impl Cloud {
    /// The cloud, shared with other tests; `None` where there is none.
    pub(crate) async fn here() -> Option<Arc<Self>> {
        Self::found()?;
        let held = SWITCH.read().await;
        Some(Self::open(Guard::Shared { _held: held }).await)
    }

    /// The cloud for this test alone.
    pub(crate) async fn alone() -> Option<Arc<Self>> {
        Self::found()?;
        let held = SWITCH.write().await;
        Some(Self::open(Guard::Alone { _held: held }).await)
    }

    fn found() -> Option<()> {
        if var("KEYWHEEL_E2E").is_ok_and(|value| value == "1") {
            return Some(());
        }
        println!("skipped: no local cloud (`cargo xtask test` starts one)");
        None
    }

    async fn open(guard: Guard) -> Arc<Self> {
        let need = |name: &str| var(name).unwrap_or_else(|_| panic!("{name} is not set"));
        let root =
            Credentials::new(need("AWS_ACCESS_KEY_ID"), need("AWS_SECRET_ACCESS_KEY"), None, None, "Test");
        let endpoint = need("AWS_ENDPOINT_URL");
        let base = keywheel::aws::base(keywheel::aws::http_client(), root.clone()).into_builder();
        // The emulator is one process for everybody: what only looks waits longer for it than a Lambda may.
        let patient = patience();
        let config = base
            .endpoint_url(&endpoint)
            .region(Region::new(need("AWS_REGION")))
            .timeout_config(patient)
            .build();
        let config = named(&config, "e2e");
        let mut cloud = Self {
            iam: aws_sdk_iam::Client::new(&config),
            store: aws_sdk_secretsmanager::Client::new(&config),
            sfn: aws_sdk_sfn::Client::new(&config),
            machine: need("KEYWHEEL_ROTATION_ARN"),
            emergency: need("KEYWHEEL_EMERGENCY_ARN"),
            incident: need("KEYWHEEL_INCIDENT_ARN"),
            leaks: need("KEYWHEEL_LEAK_BUS"),
            bus: need("KEYWHEEL_BUS"),
            topic: need("KEYWHEEL_TOPIC_ARN"),
            stage: need("KEYWHEEL_STAGE"),
            mark: 0,
            config,
            root,
            endpoint,
            control: need("KEYWHEEL_LOCAL_CONTROL"),
            // The emulator closes idle connections, at times in the moment when one is taken up again.
            http: Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http(),
            _guard: guard,
        };
        cloud.mark = cloud.last_request().await;
        Arc::new(cloud)
    }

    /// Everything this is configured with, but with another pair and under the name `app`.
    pub(crate) fn sts(&self, pair: &Pair, app: &str) -> aws_sdk_sts::Client {
        let credentials = Credentials::new(&pair.id, &pair.secret, None, None, "Test");
        let config = aws_sdk_sts::config::Builder::from(&named(&self.config, app))
            .credentials_provider(credentials)
            // What the consumer is refused once must be counted, not tried again.
            .retry_config(aws_sdk_sts::config::retry::RetryConfig::disabled())
            .build();
        aws_sdk_sts::Client::from_conf(config)
    }

    /// The same in another region.
    pub(crate) fn sts_in(&self, region: &str, pair: &Pair, app: &str) -> aws_sdk_sts::Client {
        let config = self.config.clone().into_builder().region(Region::new(region.to_owned())).build();
        let credentials = Credentials::new(&pair.id, &pair.secret, None, None, "Test");
        let config =
            aws_sdk_sts::config::Builder::from(&named(&config, app)).credentials_provider(credentials);
        aws_sdk_sts::Client::from_conf(config.build())
    }

    /// An object of a bucket, by its `s3://` address.
    pub(crate) async fn object(&self, address: &str) -> String {
        let (bucket, key) = address.strip_prefix("s3://").and_then(|rest| rest.split_once('/')).unwrap();
        let store = aws_sdk_s3::Client::new(&self.config);
        let reply = store.get_object().bucket(bucket).key(key).send().await.unwrap();
        String::from_utf8(reply.body.collect().await.unwrap().to_vec()).unwrap()
    }

    /// Writes an object into the installation's bucket; its version.
    pub(crate) async fn put_object(&self, key: &str, text: &str) -> String {
        let ssm = aws_sdk_ssm::Client::new(&self.config);
        let bucket =
            ssm.get_parameter().name(format!("/keywheel/{}/bucket", self.stage)).send().await.unwrap();
        let bucket = bucket.parameter().and_then(|parameter| parameter.value()).unwrap().to_owned();
        let store = aws_sdk_s3::Client::new(&self.config);
        let body = aws_sdk_s3::primitives::ByteStream::from(text.as_bytes().to_vec());
        let put = store.put_object().bucket(bucket).key(key).body(body).send().await.unwrap();
        put.version_id().unwrap().to_owned()
    }

    /// Says that keys are so many days old.
    pub(crate) async fn age(&self, days: &Value) {
        self.post("/_keywheel/ages", days).await;
    }

    /// The region that everything is in.
    pub(crate) fn region(&self) -> String {
        self.config.region().unwrap().to_string()
    }

    /// The cloud as the root of an account sees it that lets the installation in; the machines stay the hub's.
    pub(crate) fn member(self: &Arc<Self>) -> Arc<Self> {
        self.of_account(&var("KEYWHEEL_MEMBER_ACCOUNT").unwrap())
    }

    /// The same of any account.
    pub(crate) fn of_account(self: &Arc<Self>, account: &str) -> Arc<Self> {
        // The emulator takes an account's number for its root's key.
        let root = Credentials::new(account, self.root.secret_access_key(), None, None, "Test");
        let mut config = self.config.clone().into_builder();
        config.set_credentials_provider(Some(SharedCredentialsProvider::new(root.clone())));
        let config = config.build();
        Arc::new(Self {
            iam: aws_sdk_iam::Client::new(&config),
            store: aws_sdk_secretsmanager::Client::new(&config),
            sfn: self.sfn.clone(),
            machine: self.machine.clone(),
            emergency: self.emergency.clone(),
            incident: self.incident.clone(),
            leaks: self.leaks.clone(),
            bus: self.bus.clone(),
            topic: self.topic.clone(),
            stage: self.stage.clone(),
            mark: self.mark,
            config,
            root,
            endpoint: self.endpoint.clone(),
            control: self.control.clone(),
            http: self.http.clone(),
            _guard: Guard::Of { _hub: Arc::clone(self) },
        })
    }

    /// The account's number.
    pub(crate) fn account(&self) -> String {
        self.machine.split(':').nth(4).unwrap().to_owned()
    }

    /// Turns the installation's switch.
    pub(crate) async fn switch(&self, mode: &str) {
        self.set_parameter("mode", mode).await;
    }

    /// Sets a parameter of the installation.
    pub(crate) async fn set_parameter(&self, name: &str, value: &str) {
        let client = aws_sdk_ssm::Client::new(&self.config);
        let call = client.put_parameter().name(format!("/keywheel/{}/{name}", self.stage)).value(value);
        let string = aws_sdk_ssm::types::ParameterType::String;
        call.r#type(string).overwrite(true).send().await.unwrap();
    }

    /// IAM as a session's credentials see it, each refusal seen at once.
    pub(crate) fn iam_as(&self, credentials: Credentials) -> aws_sdk_iam::Client {
        let config = aws_sdk_iam::config::Builder::from(&named(&self.config, "e2e-session"))
            .credentials_provider(credentials)
            .retry_config(aws_sdk_iam::config::retry::RetryConfig::disabled())
            .build();
        aws_sdk_iam::Client::from_conf(config)
    }

    /// Plans a fault. Its filters must fit only this test's own calls; see the emulator's README.
    pub(crate) async fn fault(&self, fault: Value) {
        let _held = FAULTS.lock().await;
        let Value::Array(mut planned) = self.get("/_keywheel/faults").await else { panic!("no list") };
        planned.push(fault);
        self.post("/_keywheel/faults", &Value::Array(planned)).await;
    }

    /// Reads a control endpoint.
    pub(crate) async fn get(&self, path: &str) -> Value {
        self.get_from(&self.control, path).await
    }

    /// Reads an endpoint of a server beside the cloud.
    pub(crate) async fn get_from(&self, server: &str, path: &str) -> Value {
        let request = Request::get(format!("{server}{path}")).body(body("")).unwrap();
        serde_json::from_str(&self.text(request).await).unwrap()
    }

    async fn post(&self, path: &str, value: &Value) {
        self.post_to(&self.control, path, value).await;
    }

    /// Posts to a server beside the cloud.
    pub(crate) async fn post_to(&self, server: &str, path: &str, value: &Value) {
        let request = Request::post(format!("{server}{path}")).body(body(&value.to_string()));
        self.text(request.unwrap()).await;
    }

    /// Calls an action of the JSON protocol; the reply's text.
    pub(crate) async fn raw(&self, service: &str, target: &str, input: &Value) -> String {
        let headers = [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", target)];
        self.signed(service, &headers, &input.to_string()).await
    }

    /// The same, with the reply read.
    pub(crate) async fn call(&self, service: &str, target: &str, input: &Value) -> Value {
        serde_json::from_str(&self.raw(service, target, input).await).unwrap_or_default()
    }

    /// All rows of a paged action of the JSON protocol.
    pub(crate) async fn pages(
        &self,
        service: &str,
        target: &str,
        mut input: Value,
        rows: &str,
    ) -> Vec<Value> {
        let mut found = Vec::new();
        loop {
            let mut reply = self.call(service, target, &input).await;
            if let Some(Value::Array(page)) = reply.get_mut(rows).map(Value::take) {
                found.extend(page);
            }
            match reply.get_mut("nextToken").map(Value::take) {
                Some(Value::String(token)) => input["nextToken"] = json!(token),
                _ => return found,
            }
        }
    }

    /// Calls an action of the query protocol; the reply's text.
    pub(crate) async fn query(&self, service: &str, fields: &[(&str, &str)]) -> String {
        let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        self.signed(service, &[("content-type", "application/x-www-form-urlencoded")], &form).await
    }

    async fn signed(&self, service: &str, headers: &[(&str, &str)], input: &str) -> String {
        let url = format!("{}/", self.endpoint);
        let mut request = Request::post(&url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(body(input)).unwrap();
        let identity: Identity = self.root.clone().into();
        let region = self.region();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&region)
            .name(service)
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()
            .unwrap()
            .into();
        let bytes = SignableBody::Bytes(input.as_bytes());
        let signable = SignableRequest::new("POST", &url, headers.iter().copied(), bytes).unwrap();
        let (instructions, _) = sign(signable, &params).unwrap().into_parts();
        instructions.apply_to_request_http1x(&mut request);
        self.text(request).await
    }

    async fn text(&self, request: Request<Body>) -> String {
        let what = format!("{} {}", request.method(), request.uri().path());
        let exchange = async {
            let reply = self.http.request(request).await.unwrap();
            let status = reply.status();
            let bytes = reply.into_body().collect().await.unwrap().to_bytes();
            (status, String::from_utf8_lossy(&bytes).into_owned())
        };
        let (status, text) =
            tokio::time::timeout(PATIENCE, exchange).await.unwrap_or_else(|_| panic!("{what}: no reply"));
        // The text of a refusal may repeat what was sent.
        assert!(status.is_success(), "{what}: status {status}");
        text
    }
}

/// A key pair. There is no `Debug`: a failed assertion must not print it.
#[derive(Clone)]
pub(crate) struct Pair {
    /// The key's id.
    pub(crate) id: String,
    /// The secret.
    pub(crate) secret: String,
}

impl Pair {
    /// Whether STS knows it, now and at once.
    pub(crate) async fn works(&self, cloud: &Cloud) -> bool {
        cloud.sts(self, "e2e-check").get_caller_identity().send().await.is_ok()
    }
}

/// A name that nobody else uses.
pub(crate) fn fresh() -> String {
    Uuid::new_v4().simple().to_string()[..12].to_owned()
}

fn named(config: &SdkConfig, app: &str) -> SdkConfig {
    let mut config = config.clone().into_builder();
    config.set_app_name(AppName::new(app.to_owned()).ok());
    config.build()
}

fn body(text: &str) -> Body {
    Full::new(std::io::Cursor::new(text.as_bytes().to_vec()))
}
