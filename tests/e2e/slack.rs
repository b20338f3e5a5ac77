//! Slack, as `EventBridge` posts to it: the template's own rule, on the bus of the local cloud.
//!
//! What `EventBridge` itself promises (to wait as long as Slack says, to try for a day, to keep what it could not
//! deliver) the local cloud does not have; the contract tests pin that the template asks for it.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::repository::template;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::cloud::{Cloud, fresh};
use crate::inbox::Inbox;
use crate::scene::Scene;

const PATIENCE: Duration = Duration::from_secs(20);

/// What was posted to a webhook that stands in for Slack's.
struct Webhook {
    url: String,
    posted: Arc<Mutex<Vec<Value>>>,
}

/// Reads one request; its body.
async fn request(stream: &mut TcpStream) -> Option<Value> {
    let mut read = Vec::new();
    loop {
        let mut piece = [0; 4096];
        let count = stream.read(&mut piece).await.ok().filter(|count| *count > 0)?;
        read.extend_from_slice(&piece[..count]);
        let text = String::from_utf8_lossy(&read).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        });
        if body.len() >= length? {
            assert!(head.starts_with("POST /services/"), "{head}");
            return serde_json::from_str(body).ok();
        }
    }
}

impl Webhook {
    /// Answers everything with this status.
    async fn answering(status: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/services/{}", listener.local_addr().unwrap(), fresh());
        let posted = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&posted);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let body = request(&mut stream).await;
                kept.lock().unwrap().extend(body);
                let reply = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                let _ = stream.write_all(reply.as_bytes()).await;
            }
        });
        Self { url, posted }
    }

    /// The lines that name this user.
    fn about(&self, user: &str) -> Vec<String> {
        let posted = self.posted.lock().unwrap();
        let texts = posted.iter().filter_map(|body| body["text"].as_str().map(str::to_owned));
        texts.filter(|text| text.contains(user)).collect()
    }
}

/// Makes what the template would for this webhook; the name of it all.
async fn subscribe(cloud: &Cloud, webhook: &Webhook) -> String {
    let template = template();
    let resource = |name: &str| template["Resources"][name]["Properties"].clone();
    let name = format!("slack-{}", fresh());
    let mut connection = resource("SlackConnection");
    connection["Name"] = json!(name);
    connection["AuthParameters"]["ApiKeyAuthParameters"]["ApiKeyValue"] = json!("local");
    let made = cloud.call("events", "AWSEvents.CreateConnection", &connection).await;
    let mut destination = resource("SlackDestination");
    destination["Name"] = json!(name);
    destination["ConnectionArn"] = made["ConnectionArn"].clone();
    destination["InvocationEndpoint"] = json!(webhook.url);
    let made = cloud.call("events", "AWSEvents.CreateApiDestination", &destination).await;
    let rule = resource("SlackRule");
    let pattern = rule["EventPattern"].to_string();
    let put = json!({ "Name": name, "EventBusName": cloud.bus, "EventPattern": pattern });
    cloud.raw("events", "AWSEvents.PutRule", &put).await;
    let target = json!({
        "Id": "slack", "Arn": made["ApiDestinationArn"], "InputTransformer": rule["Targets"][0]["InputTransformer"],
    });
    let put = json!({ "Rule": name, "EventBusName": cloud.bus, "Targets": [target] });
    cloud.raw("events", "AWSEvents.PutTargets", &put).await;
    name
}

async fn unsubscribe(cloud: &Cloud, name: &str) {
    let rule = json!({ "Rule": name, "EventBusName": cloud.bus, "Ids": ["slack"] });
    cloud.raw("events", "AWSEvents.RemoveTargets", &rule).await;
    let rule = json!({ "Name": name, "EventBusName": cloud.bus });
    cloud.raw("events", "AWSEvents.DeleteRule", &rule).await;
}

#[tokio::test]
async fn slack_is_told_how_a_run_ends_and_not_each_of_its_stages() {
    let Some(cloud) = Cloud::here().await else { return };
    let webhook = Webhook::answering("200 OK").await;
    let name = subscribe(&cloud, &webhook).await;
    let (scene, _) = Scene::managed(&cloud, "slack").await;
    scene.rotate().await.expect("Completed");
    let until = Instant::now() + PATIENCE;
    while webhook.about(&scene.user).is_empty() {
        assert!(Instant::now() < until, "nothing was posted");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    unsubscribe(&cloud, &name).await;
    let texts = webhook.about(&scene.user);
    assert_eq!(texts, [format!("[keywheel] Completed: {}", scene.user)]);
    let posted = webhook.posted.lock().unwrap();
    assert!(posted.iter().all(|body| body["attachments"][0]["text"].is_string()), "{posted:?}");
}

#[tokio::test]
async fn p7_a_slack_that_refuses_delays_nobody_and_keeps_nothing_from_the_others() {
    let Some(cloud) = Cloud::here().await else { return };
    let webhook = Webhook::answering("429 Too Many Requests\r\nretry-after: 30").await;
    let name = subscribe(&cloud, &webhook).await;
    let mut topic = Inbox::on_topic(&cloud).await;
    let (scene, _) = Scene::managed(&cloud, "slack-down").await;
    let run = scene.start().await;
    let ended = run.end().await;
    unsubscribe(&cloud, &name).await;
    assert_eq!((&ended.doc["outcome"], &ended.doc["delivery"]), (&json!("Completed"), &json!("done")));
    let id_of =
        |body: &Value| body["MessageAttributes"]["id"]["Value"].as_str().unwrap_or_default().to_owned();
    topic.wait(6, |message| id_of(&message.body).starts_with(&run.id)).await;
    topic.close().await;
}
