//! Leak events, as they are put on the bus, and the executions that come of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use keywheel::{Alert, Incident};
use serde_json::{Value, json};

use crate::cloud::Cloud;
use crate::run::{Run, new_id};

const PATIENCE: Duration = Duration::from_mins(1);

/// A finding of `GuardDuty` about a long-term key.
pub(crate) fn finding(key: &str, user: &str) -> Value {
    json!({
        "source": "aws.guardduty", "detail-type": "GuardDuty Finding",
        "detail": {
            "schemaVersion": "2.0", "accountId": "111122223333", "region": "eu-west-1", "severity": 8,
            "type": "UnauthorizedAccess:IAMUser/MaliciousIPCaller.Custom", "title": "A finding of a test",
            "resource": {
                "resourceType": "AccessKey",
                "accessKeyDetails": { "accessKeyId": key, "principalId": "AIDATEST", "userType": "IAMUser", "userName": user },
            },
            "service": { "serviceName": "guardduty", "count": 1 },
        },
    })
}

/// Our own report of a leaked key.
pub(crate) fn exposed(key: &str, user: &str) -> Value {
    json!({
        "source": "keywheel.leak", "detail-type": "Leaked Access Key",
        "detail": { "schema": 1, "keys": [{ "key_id": key, "user": user }], "severity": "critical" },
    })
}

/// AWS Health about exposed keys.
pub(crate) fn health(entities: &[Value]) -> Value {
    json!({
        "source": "aws.health", "detail-type": "AWS Health Event",
        "detail": {
            "eventArn": "arn:aws:health:us-east-1::event/RISK/AWS_RISK_CREDENTIALS_EXPOSED/test",
            "service": "RISK", "eventTypeCode": "AWS_RISK_CREDENTIALS_EXPOSED", "eventTypeCategory": "issue",
            "affectedAccount": "111122223333", "affectedEntities": entities,
        },
    })
}

/// Puts an event where its family comes from; its id.
pub(crate) async fn put(cloud: &Cloud, event: &Value) -> String {
    let own = event["source"] == "keywheel.leak";
    let entry = json!({
        "Source": event["source"], "DetailType": event["detail-type"], "Detail": event["detail"].to_string(),
        "EventBusName": if own { cloud.leaks.as_str() } else { "default" },
    });
    let reply = cloud.call("events", "AWSEvents.PutEvents", &json!({ "Entries": [entry] })).await;
    assert_eq!(reply["FailedEntryCount"], 0, "{reply}");
    reply["Entries"][0]["EventId"].as_str().unwrap().to_owned()
}

/// One execution of the emergency machine.
pub(crate) struct Alarm {
    cloud: Arc<Cloud>,
    /// Its ARN.
    pub(crate) arn: String,
}

impl Alarm {
    /// The execution that an event has started.
    pub(crate) async fn of_event(cloud: &Arc<Cloud>, id: &str) -> Self {
        let end = Instant::now() + PATIENCE;
        loop {
            let list = cloud.sfn.list_executions().state_machine_arn(&cloud.emergency).max_results(200);
            let list = list.send().await.unwrap();
            for execution in list.executions() {
                let arn = execution.execution_arn();
                let told = cloud.sfn.describe_execution().execution_arn(arn).send().await.unwrap();
                if told.input().is_some_and(|input| input.contains(id)) {
                    return Self { cloud: Arc::clone(cloud), arn: arn.to_owned() };
                }
            }
            assert!(Instant::now() < end, "event {id} has started nothing");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// One to be started by hand, whose name is known before.
    pub(crate) fn prepared(cloud: &Arc<Cloud>) -> Self {
        let arn = format!("{}:{}", cloud.emergency.replace(":stateMachine:", ":execution:"), new_id());
        Self { cloud: Arc::clone(cloud), arn }
    }

    /// Starts it with an event.
    pub(crate) async fn start(&self, event: &Value) {
        let name = self.arn.rsplit(':').next().unwrap();
        let call = self.cloud.sfn.start_execution().state_machine_arn(&self.cloud.emergency).name(name);
        call.input(event.to_string()).send().await.unwrap();
    }

    fn opened(&self, event: &Value) -> Incident {
        let verdict = keywheel::triage::judge(event);
        let started = "2026-01-01T00:00:00Z".parse().unwrap();
        let alert = Alert::new(self.arn.clone(), started, verdict.class, verdict.reason.clone());
        Incident::open(&alert, verdict.targets[0].clone(), verdict.reason)
    }

    /// The document that an incident about this event begins with.
    pub(crate) fn document_about(&self, event: &Value) -> Value {
        serde_json::to_value(self.opened(event)).unwrap()
    }

    /// The incident that it will start about this event's first credential.
    pub(crate) fn incident_about(&self, event: &Value) -> Run {
        let incident = self.opened(event);
        Run::of(&self.cloud, &incident.id.to_string(), &incident.execution)
    }

    /// What the event was taken for, once that is said.
    pub(crate) async fn alert(&self) -> Value {
        let run = Run::of(&self.cloud, "", &self.arn);
        run.reaches_or_ends("Course").await;
        run.given_to("Course").await
    }

    /// The incidents that it has started.
    pub(crate) async fn incidents(&self) -> Vec<Run> {
        let alert = self.alert().await;
        let mut runs = Vec::new();
        for incident in alert["incidents"].as_array().into_iter().flatten() {
            let (id, arn) = (incident["id"].as_str().unwrap(), incident["execution"].as_str().unwrap());
            let run = Run::of(&self.cloud, id, arn);
            run.begins().await;
            runs.push(run);
        }
        runs
    }
}
