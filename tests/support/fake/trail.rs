//! `CloudTrail`: records of the calls that matter, which come late, and a lookup that pages, in each region for
//! itself; and the service that knows which regions there are.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::account::{TrailRecord, Use};
use super::state::State;
use super::wire::{Answer, Body, Request};

/// What `LookupEvents` gives at most in one page.
const PAGE: usize = 50;

/// A record that a lookup found: kept, or of a use, and then written only if its page is asked for.
enum Found<'a> {
    Kept(&'a TrailRecord),
    Use(&'a str, Use),
}

impl State {
    /// Writes the record of a call that IAM answered, as `CloudTrail` does.
    pub(super) fn leave_a_trail(&mut self, request: &Request, answer: &Answer) {
        if request.service != "iam" {
            return;
        }
        let identity = match self.role_of(&request.signer) {
            Some(role) => {
                let name = role.arn.rsplit_once('/').map_or("role", |(_, name)| name);
                let account = self.account_of_caller(request);
                let session = format!("arn:{}:sts::{account}:assumed-role/{name}/session", self.partition);
                json!({"type": "AssumedRole", "arn": session, "accessKeyId": request.signer,
                    "sessionContext": {"sessionIssuer": {"type": "Role", "arn": role.arn, "userName": name}}})
            }
            None => json!({"type": "IAMUser", "accessKeyId": request.signer}),
        };
        let response = match answer {
            Ok(Body::Xml(text)) if request.action == "CreateAccessKey" => {
                let id = text
                    .split_once("<AccessKeyId>")
                    .and_then(|(_, rest)| rest.split_once('<'))
                    .map(|(id, _)| id);
                json!({"accessKey": {"userName": request.text("UserName"), "accessKeyId": id, "status": "Active"}})
            }
            _ => Value::Null,
        };
        let record = json!({
            "eventName": request.action,
            "eventSource": "iam.amazonaws.com",
            "awsRegion": self.iam_region(),
            "eventTime": self.now(),
            "userAgent": request.agent,
            "sourceIPAddress": "192.0.2.7",
            "recipientAccountId": self.account_of_caller(request),
            "userIdentity": identity,
            "requestParameters": {"userName": request.text("UserName")},
            "responseElements": response,
            "errorCode": answer.as_ref().err().map(|refusal| refusal.code.clone()),
        });
        let (at, name, key) = (self.now(), request.action.clone(), request.signer.clone());
        let account = self.account_of_signer(&request.signer).map(str::to_owned);
        self.trail.push(TrailRecord { at, name, key, account, record });
    }

    /// Writes the record of a key that somebody else made.
    pub fn trail_made_by(&mut self, key: &str, identity: &Value, agent: &str) {
        let at = self.now();
        let user = self.key(key).map(|(user, _)| user.name.clone());
        let account = self.key(key).and_then(|(user, _)| user.account.clone());
        let record = json!({
            "eventName": "CreateAccessKey",
            "eventSource": "iam.amazonaws.com",
            "eventTime": at,
            "userAgent": agent,
            "sourceIPAddress": "198.51.100.9",
            "userIdentity": identity,
            "recipientAccountId": account.as_ref().unwrap_or(&self.account),
            "requestParameters": {"userName": user},
            "responseElements": {"accessKey": {"userName": user, "accessKeyId": key}},
        });
        let (name, key) = ("CreateAccessKey".to_owned(), "person".to_owned());
        self.trail.push(TrailRecord { at, name, key, account, record });
    }

    /// Writes the record of a role that a key has assumed.
    pub fn trail_assumed(&mut self, key: &str, role: &str, session: &str) {
        let at = self.now();
        let record = json!({
            "eventName": "AssumeRole",
            "eventSource": "sts.amazonaws.com",
            "awsRegion": self.region,
            "eventTime": at,
            "userAgent": "aws-cli/2.17",
            "sourceIPAddress": "198.51.100.9",
            "userIdentity": {"type": "IAMUser", "accessKeyId": key},
            "requestParameters": {"roleArn": role, "roleSessionName": session, "durationSeconds": 43_200},
            "responseElements": {"credentials": {"accessKeyId": "ASIAOFTHETHIEF000000"}},
        });
        let account = self.key(key).and_then(|(user, _)| user.account.clone());
        self.trail.push(TrailRecord { at, name: "AssumeRole".into(), key: key.into(), account, record });
    }

    /// Where the records of IAM are, which is global.
    fn iam_region(&self) -> &'static str {
        match self.partition.as_str() {
            "aws" => "us-east-1",
            "aws-us-gov" => "us-gov-west-1",
            "aws-cn" => "cn-north-1",
            other => panic!("nobody knows the partition {other}"),
        }
    }

    /// The record of the call that made a key.
    pub fn record_of_making(&self, key: &str) -> Option<Value> {
        let of = |event: &&TrailRecord| event.record["responseElements"]["accessKey"]["accessKeyId"] == key;
        self.trail.iter().find(of).map(|event| event.record.clone())
    }

    /// The record of one use of a key. Consumers call every half hour for weeks, so these are written
    /// only when somebody asks.
    fn use_record(&self, key: &str, account: Option<&str>, once: Use) -> TrailRecord {
        let record = json!({
            "eventName": "Used",
            "eventSource": format!("{}.amazonaws.com", once.service),
            "awsRegion": self.region,
            "eventTime": once.at,
            "userAgent": "consumer/1.0",
            "sourceIPAddress": "203.0.113.5",
            "userIdentity": {"type": "IAMUser", "accessKeyId": key},
        });
        let account = account.map(str::to_owned);
        TrailRecord { at: once.at, name: "Used".into(), key: key.to_owned(), account, record }
    }

    /// The regions that the account knows: its own, IAM's, those of which there are records, and one that nobody
    /// has enabled.
    pub(super) fn account_service(&mut self, request: &Request) -> Answer {
        if request.action != "ListRegions" {
            return self.unknown(request);
        }
        let recorded = self.trail.iter().filter_map(|event| event.record["awsRegion"].as_str());
        let mut regions: BTreeMap<&str, &str> = recorded.map(|region| (region, "ENABLED")).collect();
        let own = [self.region.as_str(), self.iam_region()];
        regions.extend(own.map(|region| (region, "ENABLED_BY_DEFAULT")));
        regions.insert("ap-east-1", "DISABLED");
        let wanted = request.params["RegionOptStatusContains"].as_array();
        regions.retain(|_, status| wanted.is_none_or(|wanted| wanted.iter().any(|word| word == status)));
        let from: usize = request.text("NextToken").parse().unwrap_or(0);
        let most = request.params["MaxResults"].as_u64().map_or(PAGE, |most| usize::try_from(most).unwrap());
        let to = (from + most.min(self.options.page)).min(regions.len());
        let page: Vec<Value> = regions
            .iter()
            .skip(from)
            .take(to.saturating_sub(from))
            .map(|(region, status)| json!({"RegionName": region, "RegionOptStatus": status}))
            .collect();
        let mut reply = json!({"Regions": page});
        if to < regions.len() {
            reply["NextToken"] = to.to_string().into();
        }
        Ok(Body::Json(reply))
    }

    pub(super) fn cloudtrail(&mut self, request: &Request) -> Answer {
        if request.action != "LookupEvents" {
            return self.unknown(request);
        }
        let bound = |name: &str| request.params.get(name).and_then(Value::as_f64);
        let (start, end) = (bound("StartTime"), bound("EndTime"));
        let attribute = &request.params["LookupAttributes"][0];
        let (what, wanted) =
            (attribute["AttributeKey"].as_str(), attribute["AttributeValue"].as_str().unwrap_or_default());
        let seen_until = self.ago(self.options.trail_delay);
        let account = self.account_of_signer(&request.signer);
        let users = self.users.values().filter(|user| user.account.as_deref() == account);
        let keys = users.flat_map(|user| &user.keys);
        let in_time = |at: Timestamp| {
            let seconds = at.as_duration().as_secs_f64();
            at <= seen_until
                && start.is_none_or(|start| seconds >= start)
                && end.is_none_or(|end| seconds <= end)
        };
        let iam_region = self.iam_region();
        let mut found: Vec<(Timestamp, Found)> = self
            .trail
            .iter()
            .filter(|event| in_time(event.at) && event.account.as_deref() == account)
            // IAM is global; its records are in one region only, whatever region asks.
            .filter(|event| {
                event.record["eventSource"] != "iam.amazonaws.com" || request.region == iam_region
            })
            .filter(|event| event.record["awsRegion"].as_str().is_none_or(|region| region == request.region))
            .filter(|event| match what {
                Some("EventName") => event.name == wanted,
                Some("AccessKeyId") => event.key == wanted,
                _ => true,
            })
            .map(|event| (event.at, Found::Kept(event)))
            .collect();
        if what == Some("AccessKeyId") && request.region == self.region {
            for key in keys.filter(|key| key.id == wanted) {
                let here = |once: &&Use| once.service != "iam" || request.region == iam_region;
                let once = key.uses.iter().filter(|once| in_time(once.at)).filter(here);
                found.extend(once.map(|once| (once.at, Found::Use(&key.id, *once))));
            }
        }
        found.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        let from: usize = request.text("NextToken").parse().unwrap_or(0);
        let to = (from + PAGE.min(self.options.page)).min(found.len());
        let events: Vec<Value> = found[from.min(to)..to]
            .iter()
            .map(|(at, event)| {
                let event = match event {
                    Found::Kept(event) => (*event).clone(),
                    Found::Use(key, once) => self.use_record(key, account, *once),
                };
                json!({
                    "EventId": format!("event-{}", at.as_millisecond()),
                    "EventName": event.name,
                    "EventTime": at.as_duration().as_secs_f64(),
                    "AccessKeyId": event.key,
                    "CloudTrailEvent": event.record.to_string(),
                })
            })
            .collect();
        let mut reply = json!({"Events": events});
        if to < found.len() {
            reply["NextToken"] = to.to_string().into();
        }
        Ok(Body::Json(reply))
    }
}
