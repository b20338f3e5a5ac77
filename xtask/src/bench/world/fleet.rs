//! The fleet around the one user: what `scan` reads of an account with its policy, and the batch that `review` counts.
//!
//! One key is due, so that no two users are looked at in the same moment; the others are young, but for one that
//! nobody manages.

use aws_smithy_types::base64;
use jiff::{SignedDuration, Timestamp};
use keywheel::campaign::POLICY;
use serde_json::{Value, json};

use super::{Call, MADE, World, tag};

/// Whose keys are young, by their number.
const YOUNG: std::ops::Range<i64> = 0..20;
/// How many days lie between the making of their keys.
const APART: i64 = 3;

/// The run of the batch that has ended; the other one is the document's, and still runs.
const ENDED: &str = "9d2f3b8e-6c41-4f0a-8a57-1b7e5c9d2f60";

/// The columns of IAM's credential report.
const HEAD: &str = "user,arn,user_creation_time,password_enabled,password_last_used,password_last_changed,password_next_rotation,mfa_active,access_key_1_active,access_key_1_last_rotated,access_key_1_last_used_date,access_key_1_last_used_region,access_key_1_last_used_service,access_key_2_active,access_key_2_last_rotated,access_key_2_last_used_date,access_key_2_last_used_region,access_key_2_last_used_service,cert_1_active,cert_1_last_rotated,cert_2_active,cert_2_last_rotated";

/// Its fields of a slot without a key.
const NO_KEY: &str = "false,N/A,N/A,N/A,N/A";

/// One of its lines. The key was made and used at these times; nobody has a second one.
fn row(user: &str, arn: &str, key: Option<[String; 2]>) -> String {
    let key =
        key.map_or_else(|| NO_KEY.to_owned(), |[made, used]| format!("true,{made},{used},eu-west-1,ses"));
    format!(
        "{user},{arn},2025-01-02T03:04:05+00:00,false,N/A,N/A,N/A,false,{key},{NO_KEY},false,N/A,false,N/A"
    )
}

fn days_ago(days: i64) -> Timestamp {
    Timestamp::now() - SignedDuration::from_hours(24 * days)
}

/// As the report writes it.
fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S+00:00").to_string()
}

fn young(number: i64) -> String {
    format!("svc-{number:02}")
}

fn secret_of(user: &str) -> String {
    format!("arn:aws:secretsmanager:eu-west-1:111122223333:secret:app/{user}-AbCdEf")
}

/// The tagged secrets of those whose keys are young.
pub(super) fn secrets() -> Vec<Value> {
    let secret = |number| {
        let user = young(number);
        json!({"ARN": secret_of(&user), "Name": format!("app/{user}"),
            "LastChangedDate": days_ago(APART * number).as_second(),
            "Tags": [{"Key": "keywheel:user", "Value": user}]})
    };
    YOUNG.map(secret).collect()
}

/// A policy with a part of each kind, by which the one key is due.
fn policy() -> Value {
    let day = |to_come: i64| days_ago(-to_come).strftime("%Y-%m-%d").to_string();
    json!({
        "defaults": {"frequency": "90d"},
        "rules": [
            {"name": "vendors", "match": {"path": "/vendors/*"}, "set": {"max_age": "180days", "wave": 2}},
            {"name": "mail", "match": {"user": "svc-mail*"},
                "set": {"frequency": "monthly", "wave": 0, "owner": "mail@example.com"}},
        ],
        "exemptions": [
            {"user": young(7), "owner": "sap@example.com", "reason": "the vendor is on leave", "until": day(90)},
        ],
        "limits": {
            "keys_per_run": 50,
            "failure_tolerance_percent": 10,
            "freeze": [
                {"from": days_ago(-200).to_string(), "until": days_ago(-215).to_string(), "reason": "year end"},
            ],
        },
        "unused_after": "90days",
    })
}

impl World {
    /// IAM's credential report.
    pub(super) fn report(&self) -> String {
        let arn = |user: &str| format!("arn:aws:iam::111122223333:user/apps/{user}");
        let own = [MADE.replace('Z', "+00:00"), time(self.last_used)];
        let mut rows = vec![
            HEAD.to_owned(),
            row("<root_account>", "arn:aws:iam::111122223333:root", None),
            row("jane", &arn("jane"), Some([time(days_ago(400)), time(days_ago(200))])),
            row(&self.user, &self.user_arn, Some(own)),
        ];
        rows.extend(YOUNG.map(|number| {
            let (user, made) = (young(number), time(days_ago(APART * number)));
            row(&user, &arn(&user), Some([made, time(Timestamp::now())]))
        }));
        [
            tag("Content", base64::encode(rows.join("\n"))),
            tag("ReportFormat", "text/csv"),
            tag("GeneratedTime", Timestamp::now()),
        ]
        .concat()
    }

    /// An object of the installation's bucket.
    pub(super) fn object(&self, key: &str) -> Option<String> {
        if key == POLICY {
            Some(policy().to_string())
        } else if key.starts_with("campaigns/") {
            Some(self.batch().to_string())
        } else {
            None
        }
    }

    /// Two rotations: of one only its labels tell that it has promoted its key, of the other what it has left.
    fn batch(&self) -> Value {
        let policy = json!({"overlap": "1day", "max_overlap": "10days", "quiet_window": "1day",
            "grace": "7days", "cache": "1h", "when_still_in_use": "hold"});
        let other = young(0);
        json!([
            {"run": ENDED, "secret": secret_of(&other), "user": other, "reason": "scheduled",
                "policy": policy},
            {"run": self.told["run"], "secret": self.secret_arn, "user": self.user, "reason": "scheduled",
                "policy": policy},
        ])
    }

    /// What Step Functions says.
    pub(super) fn execution(&self, call: &Call) -> Value {
        let since = 1_767_323_045.25;
        match call.action.as_str() {
            // The step's own, and no other.
            "ListExecutions" => json!({"executions": [
                {"executionArn": self.told["execution"], "stateMachineArn": call.text("stateMachineArn"),
                    "name": "own", "status": "RUNNING", "startDate": since},
            ]}),
            "DescribeExecution" => {
                let arn = call.text("executionArn");
                let mut reply = json!({"executionArn": arn, "stateMachineArn": "arn:machine",
                    "status": "RUNNING", "startDate": since});
                if arn.ends_with(ENDED) {
                    reply["status"] = json!("SUCCEEDED");
                    reply["stopDate"] = json!(since);
                    reply["output"] = json!(self.left().to_string());
                }
                reply
            }
            _ => json!({"executionArn": "arn:run", "startDate": since}),
        }
    }

    /// The document of a rotation that went well.
    fn left(&self) -> Value {
        let mut left = self.told.clone();
        left["phase"] = json!("ended");
        left["outcome"] = json!("Completed");
        left["promoted_at"] = json!(MADE);
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::world::Moment;
    use keywheel::Rotation;
    use keywheel::campaign::Item;
    use keywheel::decide::campaign::State;
    use keywheel::fleet::FleetPolicy;

    fn world() -> World {
        let path = crate::paths::root().join("events/validate-key.json");
        let told: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        World::of(&told, Moment::Promoted).unwrap()
    }

    #[test]
    fn the_policy_is_one_that_keywheel_takes() {
        let text = world().object(POLICY).unwrap();
        let policy = FleetPolicy::read(serde_json::from_str(&text).unwrap()).unwrap();
        assert_eq!((policy.rules.len(), policy.exemptions.len(), policy.limits.freeze.len()), (2, 1, 1));
        assert_eq!(world().object("policy/other.json"), None);
    }

    #[test]
    fn every_line_of_the_report_has_its_fields() {
        let report = world().report();
        let content = report.split_once("<Content>").unwrap().1.split_once("</Content>").unwrap().0;
        let text = String::from_utf8(base64::decode(content).unwrap()).unwrap();
        let fields: Vec<usize> = text.lines().map(|line| line.split(',').count()).collect();
        assert_eq!(fields, [22; 24]);
        assert!(text.contains("\nsvc-mailer,arn:aws:iam::111122223333:user/apps/svc-mailer,"), "{text}");
    }

    #[test]
    fn of_a_batch_one_has_ended_and_one_runs() {
        let world = world();
        let text = world.object("campaigns/c/batch-0002.json").unwrap();
        let items: Vec<Item> = serde_json::from_str(&text).unwrap();
        let describe = |item: &Item| {
            let params = json!({"executionArn": format!("arn:execution:{}", item.run)});
            let params = params.as_object().unwrap().clone();
            world.execution(&Call { service: "states".into(), action: "DescribeExecution".into(), params })
        };
        let [ended, running] = [&items[0], &items[1]].map(describe);
        let left: Rotation = serde_json::from_str(ended["output"].as_str().unwrap()).unwrap();
        assert_eq!(State::of_ended("SUCCEEDED", Some(&left)), State::Promoted);
        assert_eq!((&running["status"], running.get("output")), (&json!("RUNNING"), None));
        assert_eq!(items[1].run.to_string(), world.told["run"].as_str().unwrap());
    }
}
