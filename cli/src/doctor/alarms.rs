//! Whether the installation's alarms are there, tell somebody, and are quiet.
//!
//! It is one call of a service that nothing else here speaks to, and its SDK is as large as the largest that we have.
//! So the request is written and signed by hand, with the parts of the SDK that are here already.

use std::convert::Infallible;
use std::fmt;
use std::time::SystemTime;

use aws_sdk_ssm::config::endpoint::{DefaultResolver, Params, ResolveEndpoint};
use aws_sdk_sts::config::http::HttpRequest;
use aws_sdk_sts::config::{Credentials, ProvideCredentials};
use aws_sdk_sts::error::BoxError;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningParams, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_runtime::client::orchestrator::operation::Operation;
use aws_smithy_runtime_api::client::identity::Identity;
use aws_smithy_types::body::SdkBody;
use keywheel::StepError;
use keywheel::error::Failure;
use serde_json::{Value, json};

use super::{Check, list};
use crate::place::Place;

const CALL: &str = "cloudwatch:DescribeAlarms";
const TYPE: &str = "application/x-amz-json-1.0";
const TARGET: &str = "GraniteServiceVersion20100801.DescribeAlarms";

/// The template, whose alarms these are.
const TEMPLATE: &str = include_str!("../../../infra/template.yaml");

/// An alarm that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Alarm {
    pub(super) name: String,
    /// Whether somebody is told.
    pub(super) tells: bool,
    /// Whether it is raised.
    pub(super) raised: bool,
}

impl Alarm {
    fn read(alarm: &Value) -> Option<Self> {
        let actions = alarm["AlarmActions"].as_array().is_some_and(|actions| !actions.is_empty());
        Some(Self {
            name: alarm["AlarmName"].as_str()?.to_owned(),
            tells: actions && alarm["ActionsEnabled"] != false,
            raised: alarm["StateValue"] == "ALARM",
        })
    }
}

/// The alarms that the template makes for a stage.
fn expected(stage: &str) -> Vec<String> {
    let names = TEMPLATE.lines().filter_map(|line| line.trim().strip_prefix("AlarmName: !Sub "));
    names.map(|name| name.replace("${Stage}", stage)).collect()
}

/// Reads the alarms of the installation, to the last page.
pub(super) async fn read(place: &Place) -> Result<Vec<Alarm>, StepError> {
    let prefix = format!("keywheel-{}-", place.stage);
    let (mut alarms, mut token) = (Vec::new(), None);
    loop {
        let mut asked = json!({ "AlarmNamePrefix": prefix, "MaxRecords": 100 });
        if let Some(token) = token {
            asked["NextToken"] = token;
        }
        let mut page = call(place, asked.to_string()).await?;
        let list = page["MetricAlarms"].as_array();
        let list = list.ok_or_else(|| StepError::Conflict(format!("{CALL} named no list of alarms")))?;
        alarms.extend(list.iter().filter_map(Alarm::read));
        match page["NextToken"].take() {
            Value::Null => return Ok(alarms),
            more => token = Some(more),
        }
    }
}

/// A request that is signed. Its headers hold a session's token: they are not shown.
struct Signed {
    headers: Vec<(String, String)>,
    body: String,
}

impl fmt::Debug for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signed")
    }
}

impl Signed {
    fn new(url: &str, region: &str, credentials: Credentials, body: String) -> Result<Self, BoxError> {
        let identity: Identity = credentials.into();
        let params: SigningParams<'_> = v4::SigningParams::builder()
            .identity(&identity)
            .region(region)
            .name("monitoring")
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()?
            .into();
        let plain = [("content-type", TYPE), ("x-amz-target", TARGET)];
        let request =
            SignableRequest::new("POST", url, plain.into_iter(), SignableBody::Bytes(body.as_bytes()))?;
        let (instructions, _) = sign(request, &params)?.into_parts();
        let signed = instructions.headers().map(|(name, value)| (name.to_owned(), value.to_owned()));
        let plain = plain.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        let headers = plain.chain(signed).collect();
        Ok(Self { headers, body })
    }

    fn request(self) -> Result<HttpRequest, BoxError> {
        let mut request = HttpRequest::new(SdkBody::from(self.body));
        request.set_method("POST")?;
        for (name, value) in self.headers {
            request.headers_mut().try_insert(name, value)?;
        }
        Ok(request)
    }
}

fn failure(code: impl Into<String>, message: impl Into<String>) -> Failure {
    Failure { call: CALL, code: code.into(), message: message.into(), request_id: None }
}

/// Where `CloudWatch` is: beside Systems Manager, whose host the SDK knows in every partition.
async fn url(place: &Place) -> Result<String, StepError> {
    if let Some(endpoint) = place.config().endpoint_url() {
        return Ok(format!("{}/", endpoint.trim_end_matches('/')));
    }
    let unknown = |why: String| {
        StepError::Conflict(format!("where CloudWatch is in {} is not known here: {why}", place.region))
    };
    let params = Params::builder().region(place.region.clone()).build();
    let params = params.map_err(|error| unknown(error.to_string()))?;
    let resolver = DefaultResolver::new();
    let beside = ResolveEndpoint::resolve_endpoint(&resolver, &params).await;
    let beside = beside.map_err(|error| unknown(error.to_string()))?;
    let rest = beside.url().strip_prefix("https://ssm.");
    let rest = rest.ok_or_else(|| unknown(format!("Systems Manager is at {}", beside.url())))?;
    Ok(format!("https://monitoring.{rest}/"))
}

async fn call(place: &Place, body: String) -> Result<Value, StepError> {
    let unsent = |what: &str| StepError::BadInput(format!("{CALL}: {what}"));
    let (config, url) = (place.config(), url(place).await?);
    let provider = config.credentials_provider().ok_or_else(|| unsent("no credentials"))?;
    // Their errors name profiles and files, and `Place` has told them already.
    let credentials = provider.provide_credentials().await.map_err(|_| unsent("no credentials"))?;
    let signed = Signed::new(&url, &place.region, credentials, body)
        .map_err(|error| unsent(&format!("it could not be signed: {error}")))?;
    let (Some(http), Some(sleep), Some(patience)) =
        (config.http_client(), config.sleep_impl(), config.timeout_config())
    else {
        return Err(unsent("the configuration has no client"));
    };
    let operation = Operation::builder()
        .service_name("CloudWatch")
        .operation_name("DescribeAlarms")
        .http_client(http)
        .sleep_impl(sleep)
        .timeout_config(patience.clone())
        .endpoint_url(url.trim_end_matches('/'))
        .no_auth()
        .no_retry()
        .serializer(Signed::request)
        .deserializer::<_, Infallible>(|response| {
            let body = response.body().bytes().unwrap_or_default();
            Ok((response.status().as_u16(), String::from_utf8_lossy(body).into_owned()))
        })
        .build();
    let told = operation.invoke(signed).await;
    let (status, text) = told.map_err(|_| StepError::Ambiguous(failure("ConnectionFailed", "")))?;
    answer(status, &text)
}

/// What an answer says, which is an error's name where it is none.
fn answer(status: u16, text: &str) -> Result<Value, StepError> {
    let value: Value = serde_json::from_str(text).unwrap_or_default();
    if status == 200 && value.is_object() {
        return Ok(value);
    }
    let code = value["__type"].as_str().unwrap_or("UnreadableReply");
    let code = code.rsplit('#').next().unwrap_or(code);
    let message = value["message"].as_str().or(value["Message"].as_str()).unwrap_or_default();
    let failure = failure(code, message);
    Err(match status {
        _ if code.starts_with("Throttl") => StepError::Throttled(failure),
        400..=499 => StepError::Refused(failure),
        _ => StepError::Ambiguous(failure),
    })
}

/// Whether the alarms are there, and what they say.
pub(super) fn check(alarms: &[Alarm], stage: &str) -> Check {
    let expected = expected(stage);
    let is_there = |name: &str| alarms.iter().any(|alarm| alarm.name == name);
    let missing: Vec<&str> = expected.iter().map(String::as_str).filter(|name| !is_there(name)).collect();
    let with = |fits: fn(&Alarm) -> bool| -> Vec<&str> {
        alarms.iter().filter(|alarm| fits(alarm)).map(|alarm| alarm.name.as_str()).collect()
    };
    let (mute, raised) = (with(|alarm| !alarm.tells), with(|alarm| alarm.raised));
    if !missing.is_empty() {
        let text = format!("alarms are missing: {}", list(&missing));
        Check::bad("alarms", text, "Deploy infra/template.yaml again.")
    } else if !mute.is_empty() {
        let remedy = format!("`aws cloudwatch enable-alarm-actions --alarm-names {}`", mute.join(" "));
        Check::bad("alarms", format!("alarms tell nobody: {}", list(&mute)), remedy)
    } else if !raised.is_empty() {
        let remedy =
            "The topic's mail says why; `keywheel status` and `keywheel incident` show what asks for you.";
        Check::bad("alarms", format!("alarms are raised: {}", list(&raised)), remedy)
    } else {
        Check::good("alarms", format!("{} alarms are there, and none is raised", expected.len()))
    }
}

/// All alarms of a stage, quiet and telling.
#[cfg(test)]
pub(super) fn whole(stage: &str) -> Vec<Alarm> {
    expected(stage).into_iter().map(|name| Alarm { name, tells: true, raised: false }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_alarms_are_expected_under_the_stages_name() {
        let names = expected("test");
        assert_eq!(names.len(), TEMPLATE.matches("Type: AWS::CloudWatch::Alarm").count());
        assert!(names.contains(&"keywheel-test-not-contained".to_owned()), "{names:?}");
        assert!(
            names.iter().all(|name| name.starts_with("keywheel-test-") && !name.contains('$')),
            "{names:?}"
        );
    }

    #[test]
    fn an_alarm_without_an_action_tells_nobody() {
        let alarm = |actions: Value, enabled: bool| {
            let alarm = json!({ "AlarmName": "a", "AlarmActions": actions, "ActionsEnabled": enabled, "StateValue": "OK" });
            Alarm::read(&alarm).unwrap().tells
        };
        assert!(alarm(json!(["topic"]), true));
        assert!(!alarm(json!([]), true) && !alarm(json!(["topic"]), false));
        assert_eq!(Alarm::read(&json!({})), None);
    }

    #[test]
    fn an_answer_is_read_or_refused_by_its_name() {
        assert!(answer(200, "{\"MetricAlarms\": []}").is_ok());
        let denied =
            answer(400, "{\"__type\": \"com.amazon#AccessDenied\", \"Message\": \"no\"}").unwrap_err();
        assert!(denied.is_refused(&["AccessDenied"]), "{denied}");
        assert!(matches!(answer(400, "{\"__type\": \"Throttling\"}"), Err(StepError::Throttled(_))));
        assert!(matches!(answer(200, "<html>"), Err(StepError::Ambiguous(_))));
        assert!(matches!(answer(503, ""), Err(StepError::Ambiguous(_))));
    }

    #[test]
    fn a_request_is_signed_for_its_place_and_shows_nothing_of_it() {
        let secret = "s".repeat(40);
        let credentials =
            Credentials::new("AKIAIOSFODNN7EXAMPLE", &secret, Some("token".into()), None, "Test");
        let url = "https://monitoring.eu-west-1.amazonaws.com/";
        let signed = Signed::new(url, "eu-west-1", credentials, "{}".to_owned()).unwrap();
        assert_eq!(format!("{signed:?}"), "Signed");
        let request = signed.request().unwrap();
        let header = |name: &str| request.headers().get(name).unwrap_or_default().to_owned();
        let wanted = "/eu-west-1/monitoring/aws4_request";
        assert!(header("authorization").contains(wanted), "{}", header("authorization"));
        assert!(!header("authorization").contains(&secret));
        assert_eq!((header("x-amz-target").as_str(), request.method()), (TARGET, "POST"));
        assert_eq!(header("x-amz-security-token"), "token");
    }
}
