//! What a leaked key did, read from several regions of the fake's CloudTrail, some of which do not answer.

#![expect(clippy::unwrap_used, reason = "a test, where a panic with its place is what should be seen")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use investigate::Investigate;
use jiff::{SignedDuration, Timestamp};
use keywheel::clock::Clock;
use keywheel::incident::page;
use keywheel::notice::NoticeKind;
use keywheel::{Context, Incident, Step, StepError};
use serde_json::{Value, json};
use support::fake::{Fake, Request, TrailRecord};
use support::functions::BUCKET;

const KEY: &str = "AKIA2OGYBAH6QKEYWHEL";
const NOW: &str = "2026-03-02T12:00:00Z";

/// The fake, with regions that throttle every lookup.
#[derive(Debug, Clone)]
struct Regions {
    fake: Fake,
    throttled: Vec<String>,
    /// Every lookup: when, and in which region.
    lookups: Arc<Mutex<Vec<(Timestamp, String)>>>,
}

impl HttpConnector for Regions {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let read = Request::read(&request);
        if read.service == "cloudtrail" {
            self.lookups.lock().unwrap().push((self.fake.state().now(), read.region.clone()));
            if self.throttled.contains(&read.region) {
                let body = json!({"__type": "ThrottlingException", "message": "Rate exceeded"}).to_string();
                let reply = HttpResponse::new(400.try_into().unwrap(), SdkBody::from(body));
                return HttpConnectorFuture::ready(Ok(reply));
            }
        }
        self.fake.call(request)
    }
}

impl HttpClient for Regions {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

fn incident() -> Incident {
    let sample = include_str!("../events/investigate.json");
    let mut incident: Incident = serde_json::from_str(sample).unwrap();
    incident.started = NOW.parse().unwrap();
    incident
}

struct Scene {
    regions: Regions,
    step: Investigate,
    ctx: Context,
}

impl Scene {
    fn new(throttled: &[&str]) -> Self {
        let clock = Clock::starting_at(NOW.parse().unwrap());
        let fake = Fake::new(clock.clone());
        let throttled = throttled.iter().map(|region| (*region).to_owned()).collect();
        let regions = Regions { fake, throttled, lookups: Arc::default() };
        let config = regions.fake.config_of("keywheel-test-investigate").into_builder();
        let config = config.http_client(SharedHttpClient::new(regions.clone())).build();
        let ctx = Context { clock, stage: "test".into() };
        Self { regions, step: Investigate::new(config, None, BUCKET.into()), ctx }
    }

    /// Records of calls, each a second older than the one before.
    fn record(&self, region: &str, count: usize, more: &Value) {
        let mut state = self.regions.fake.state();
        for n in 0..count {
            let at =
                state.ago(Duration::from_hours(1)) - SignedDuration::from_secs(i64::try_from(n).unwrap());
            let mut record = json!({
                "eventSource": "s3.amazonaws.com", "eventName": "ListBuckets", "awsRegion": region, "eventTime": at,
                "sourceIPAddress": format!("198.51.100.{}", n % 3), "userAgent": "aws-cli/2.1",
                "userIdentity": {"type": "IAMUser", "accessKeyId": KEY},
            });
            record.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let name = record["eventName"].as_str().unwrap().to_owned();
            state.trail.push(TrailRecord { at, name, key: KEY.into(), account: None, record });
        }
    }

    async fn run(&self, doc: Incident) -> Result<Incident, StepError> {
        self.step.run(doc, &self.ctx).await
    }

    /// How many lookups were made in a region, and the most within a second.
    fn lookups(&self, region: &str) -> (usize, usize) {
        let lookups = self.regions.lookups.lock().unwrap();
        let at: Vec<Timestamp> = lookups.iter().filter(|call| call.1 == region).map(|call| call.0).collect();
        let second = SignedDuration::from_secs(1);
        let within = |from: &Timestamp| at.iter().filter(|at| *at >= from && **at < *from + second).count();
        (at.len(), at.iter().map(within).max().unwrap_or_default())
    }
}

#[tokio::test(start_paused = true)]
async fn a_throttled_region_is_named_and_all_others_are_counted() {
    let scene = Scene::new(&["eu-west-3"]);
    scene.record("us-east-1", 70, &json!({}));
    scene.record("eu-central-1", 49, &json!({"errorCode": "AccessDenied", "eventName": "GetBucketAcl"}));
    scene.record("eu-west-3", 30, &json!({}));
    scene.record(
        "eu-central-1",
        1,
        &json!({
            "eventSource": "sts.amazonaws.com", "eventName": "AssumeRole",
            "requestParameters": {"roleArn": "arn:aws:iam::111122223333:role/Admin", "roleSessionName": "x"},
            "responseElements": {"credentials":
                {"expiration": "Mar 2, 2026, 11:00:00 PM", "sessionToken": "FwoGZXIvYXdzTOKEN"}},
        }),
    );
    let doc = scene.run(incident()).await.unwrap();
    let found = doc.findings.as_ref().unwrap();
    assert_eq!((found.events, found.denied_calls), (120, 49));
    assert!(found.is_partial());
    assert_eq!(found.missing, ["eu-west-3"]);
    // The two with records and the account's own, which has none; the disabled one is not asked.
    assert_eq!(found.read, 3);
    assert_eq!(scene.lookups("ap-east-1"), (0, 0));
    assert_eq!(doc.failed, ["investigate: cloudtrail:LookupEvents: ThrottlingException: eu-west-3"]);
    assert_eq!(scene.lookups("us-east-1"), (2, 2));
    assert_eq!(scene.lookups("eu-west-3"), (6, 1), "asked again a few times, with more and more patience");
    let notice = doc.notices.last().unwrap();
    assert_eq!(notice.kind, NoticeKind::Investigated);
    assert!(
        notice.text.starts_with("PARTIAL: ") && notice.text.contains("Not read: eu-west-3."),
        "{notice:?}"
    );
    assert!(notice.text.contains("It assumed a role; the sessions live until 2026-03-02T23:00:00Z"));
    let page = page(&doc);
    assert!(page.contains("<strong>PARTIAL</strong>Not read: eu-west-3."), "{page}");
    assert!(!serde_json::to_string(&doc).unwrap().contains("TOKEN") && !page.contains("TOKEN"));
    // Kept with the incident, for people and for programs, longer than the execution is remembered.
    let state = scene.regions.fake.state();
    let kept =
        |kind: &str| state.object(&format!("incidents/{}.{kind}", doc.id)).unwrap_or_default().to_owned();
    assert!(kept("html").contains("<strong>PARTIAL</strong>Not read: eu-west-3."));
    let document: Incident = serde_json::from_str(&kept("json")).unwrap();
    assert_eq!(document.findings, doc.findings);
    let address = format!("s3://{BUCKET}/incidents/{}.html", doc.id);
    assert_eq!(found.report.as_deref(), Some(address.as_str()));
    assert!(notice.text.contains(&address), "{notice:?}");
    assert!(state.violations.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_report_that_cannot_be_kept_is_told_all_the_same_and_kept_by_the_next_look() {
    let scene = Scene::new(&[]);
    scene.record("us-east-1", 3, &json!({}));
    scene.regions.fake.state().denied.insert("s3:PutObject".into());
    let doc = scene.run(incident()).await.unwrap();
    assert_eq!(doc.findings.as_ref().unwrap().report, None);
    assert_eq!(doc.failed, ["report: s3:PutObject: AccessDenied"]);
    assert_eq!(doc.notices.last().unwrap().kind, NoticeKind::Investigated);
    let told = doc.notices.len();
    scene.regions.fake.state().denied.clear();
    let doc = scene.run(doc).await.unwrap();
    assert!(doc.findings.as_ref().unwrap().report.is_some());
    assert_eq!(doc.notices.len(), told, "the same is told once");
    let calls = scene.regions.fake.call_names().iter().filter(|name| *name == "s3:PutObject").count();
    scene.run(doc).await.unwrap();
    let now = scene.regions.fake.call_names().iter().filter(|name| *name == "s3:PutObject").count();
    assert_eq!(now, calls, "what says the same is not written again");
}

#[tokio::test(start_paused = true)]
async fn many_pages_of_many_credentials_keep_to_two_calls_a_second() {
    let scene = Scene::new(&[]);
    scene.record("us-east-1", 500, &json!({}));
    let mut doc = incident();
    doc.keys.push("AKIA2OGYBAH6QSECONDX".parse().unwrap());
    let doc = scene.run(doc).await.unwrap();
    let found = doc.findings.unwrap();
    assert_eq!((found.events, found.is_partial()), (500, false));
    assert_eq!(scene.lookups("us-east-1"), (11, 2));
}

#[tokio::test(start_paused = true)]
async fn a_busy_key_is_read_as_far_as_there_is_time_and_the_report_says_so() {
    let scene = Scene::new(&[]);
    scene.regions.fake.state().options.page = 1;
    scene.record("us-east-1", 101, &json!({}));
    let doc = scene.run(incident()).await.unwrap();
    let found = doc.findings.as_ref().unwrap();
    assert_eq!((found.events, found.is_partial()), (100, true));
    assert_eq!(found.cut, ["us-east-1"]);
    assert!(doc.notices.last().unwrap().text.contains("Only the latest calls were read in us-east-1."));
}

#[tokio::test(start_paused = true)]
async fn without_the_list_of_regions_the_known_ones_are_read() {
    let scene = Scene::new(&[]);
    scene.record("us-east-1", 3, &json!({}));
    scene.record("eu-central-1", 5, &json!({}));
    scene.regions.fake.state().denied.insert("account:ListRegions".into());
    let doc = scene.run(incident()).await.unwrap();
    let found = doc.findings.unwrap();
    assert_eq!((found.events, found.read), (3, 2));
    assert_eq!(found.missing, ["the list of regions"]);
    assert_eq!(doc.failed, ["investigate: account:ListRegions: AccessDeniedException"]);
}

#[tokio::test(start_paused = true)]
async fn only_more_to_tell_is_told_again() {
    let scene = Scene::new(&[]);
    scene.record("us-east-1", 3, &json!({}));
    let told = |doc: &Incident| {
        let notices = doc.notices.iter().filter(|notice| notice.kind == NoticeKind::Investigated);
        notices.map(|notice| notice.id.rsplit('/').next().unwrap().to_owned()).collect::<Vec<String>>()
    };
    let doc = scene.run(incident()).await.unwrap();
    tokio::time::sleep(Duration::from_mins(5)).await;
    let doc = scene.run(doc).await.unwrap();
    assert_eq!(told(&doc), ["1"]);
    scene.record("eu-central-1", 1, &json!({}));
    let doc = scene.run(doc).await.unwrap();
    assert_eq!(told(&doc), ["1", "2"]);
    // What was read before is not lost where less can be read now.
    scene.regions.fake.state().denied.insert("account:ListRegions".into());
    let doc = scene.run(doc).await.unwrap();
    assert_eq!((told(&doc).len(), doc.findings.unwrap().events), (2, 4));
}

#[tokio::test(start_paused = true)]
async fn where_nothing_can_be_read_the_step_fails() {
    let scene = Scene::new(&[]);
    scene.regions.fake.state().denied.insert("cloudtrail:LookupEvents".into());
    let error = scene.run(incident()).await.unwrap_err();
    assert!(error.is_refused(&["AccessDeniedException"]), "{error}");
    let scene = Scene::new(&["us-east-1"]);
    scene.regions.fake.state().denied.insert("cloudtrail:LookupEvents".into());
    let error = scene.run(incident()).await.unwrap_err();
    assert!(matches!(error, StepError::Throttled(_)), "what may be asked again: {error}");
}

#[tokio::test(start_paused = true)]
async fn an_incident_without_a_key_says_that_there_is_none_to_look_up() {
    let scene = Scene::new(&[]);
    let mut doc = incident();
    (doc.target.key_id, doc.keys) = (None, Vec::new());
    let doc = scene.run(doc).await.unwrap();
    assert!(doc.findings.is_none() && doc.failed[0].contains("no key is named"));
    assert!(scene.regions.lookups.lock().unwrap().is_empty());
}
