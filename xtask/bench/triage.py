"""Triage: what an event says has leaked, from the event alone. Here one family of those that Keywheel knows."""

import re
import uuid

import emergency

KEY = re.compile(r"(AKIA|ASIA)[A-Z0-9]{12,124}")
USER = re.compile(r"[\w+=,.@-]{1,64}")


def severity(value) -> str:
    for bound, name in ((9, "critical"), (7, "high"), (4, "medium")):
        if value >= bound:
            return name
    return "low"


def handler(alarm, context):
    event = alarm["event"]
    said = event.get("time")
    alert = {
        "schema": 1,
        "id": str(uuid.uuid5(uuid.NAMESPACE_OID, alarm["execution"])),
        "execution": alarm["execution"],
        "started": alarm["started"],
        "said": said,
        "event": event.get("id"),
        "class": "REJECT",
        "reason": "The event cannot be understood.",
        "course": "reject",
        "delivery": "pending",
    }
    details = event.get("detail", {}).get("resource", {}).get("accessKeyDetails", {})
    key, user = details.get("accessKeyId", ""), details.get("userName", "")
    if event.get("source") == "aws.guardduty" and KEY.fullmatch(key) and USER.fullmatch(user):
        incident = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{alarm['execution']}/LongTerm/{key}"))
        machine = alarm["execution"].rsplit(":", 1)[0].removesuffix("-emergency")
        alert["class"] = "REVOKE_USER_KEY"
        alert["reason"] = "A long-term key of an IAM user."
        alert["course"] = "incidents"
        alert["incidents"] = [{
            "schema": 1,
            "id": incident,
            "execution": f"{machine}-incident:{incident}",
            "started": alarm["started"],
            "said": said,
            "target": {
                "class": alert["class"],
                "account": event["detail"]["accountId"],
                "key_id": key,
                "user": user,
                "kind": "long-term",
                "source": "guardduty",
                "severity": severity(event["detail"]["severity"]),
            },
            "reason": alert["reason"],
            "phase": "contain",
            "looks": 0,
            "delivery": "pending",
        }]
    emergency.log(alert, f"Event taken for {alert['class']}")
    return alert
