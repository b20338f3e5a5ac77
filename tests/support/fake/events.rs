//! The event bus and the topic: what Keywheel tells the world.

use serde_json::{Value, json};

use super::state::State;
use super::wire::{Answer, Body, Request, refuse, tag};

impl State {
    pub(super) fn event_bus(&mut self, request: &Request) -> Answer {
        if request.action != "PutEvents" {
            return self.unknown(request);
        }
        let entries = request.params["Entries"].as_array().cloned().unwrap_or_default();
        if entries.is_empty() || entries.len() > 10 {
            return refuse("ValidationException", "1 to 10 entries");
        }
        if self.options.bus_fails_entries {
            // The call succeeds; whoever does not read the count has lost the event.
            let failed: Vec<Value> = entries
                .iter()
                .map(|_| json!({"ErrorCode": "InternalFailure", "ErrorMessage": "not now"}))
                .collect();
            return Ok(Body::Json(json!({"FailedEntryCount": failed.len(), "Entries": failed})));
        }
        let mut ids = Vec::new();
        for mut entry in entries {
            let detail = entry["Detail"].as_str().and_then(|detail| serde_json::from_str(detail).ok());
            let Some(detail) = detail else {
                self.violations.push("PutEvents with a detail that is not JSON".into());
                return refuse("ValidationException", "Detail is malformed");
            };
            entry["Detail"] = detail;
            ids.push(json!({"EventId": format!("bus-{}", self.next())}));
            self.bus.push(entry);
        }
        Ok(Body::Json(json!({"FailedEntryCount": 0, "Entries": ids})))
    }

    pub(super) fn sns(&mut self, request: &Request) -> Answer {
        if request.action != "Publish" {
            return self.unknown(request);
        }
        let subject = request.text("Subject");
        if subject.len() >= 100 || !subject.is_ascii() || subject.contains(['\n', '\r']) {
            return refuse("InvalidParameter", "Invalid parameter: Subject");
        }
        if request.text("Message").is_empty() {
            return refuse("InvalidParameter", "Invalid parameter: Empty message");
        }
        self.topic.push(request.params.clone());
        Ok(Body::Xml(tag("MessageId", format!("message-{}", self.next()))))
    }
}
