"""Watch: whether the making of a key is odd. Here the part that is told at once: a key of a managed user."""

import os
import uuid

import boto3
import emergency

iam = boto3.client("iam")
CREATE_ROLE = os.environ["KEYWHEEL_CREATE_ROLE_ARN"]


def handler(alert, context):
    made = alert["made"]
    account = alert["execution"].split(":")[4]
    if made.get("by") == CREATE_ROLE or made.get("account", account) != account:
        alert["course"] = "nothing"
        return alert
    user = iam.get_user(UserName=made["user"])["User"]
    if not any(tag["Key"] == "keywheel:secret" for tag in user.get("Tags", [])):
        alert["course"] = "nothing"
        return alert
    machine = alert["execution"].rsplit(":", 1)[0]
    incident = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{machine}/key-making/{made['key']}"))
    reason = f"Key {made['key']} of the managed user {made['user']} was made by {made.get('by')} at {made['at']}."
    alert["course"] = "incidents"
    alert["incidents"] = [{
        "schema": 1,
        "id": incident,
        "execution": f"{machine.removesuffix('-emergency')}-incident:{incident}",
        "started": alert["started"],
        "target": {
            "class": "ODD_KEY_MAKING",
            "account": made.get("account"),
            "key_id": made["key"],
            "user": made["user"],
            "kind": "long-term",
            "source": "cloudtrail",
            "severity": "unknown",
        },
        "reason": reason,
        "phase": "contain",
        "looks": 0,
        "delivery": "pending",
    }]
    emergency.log(alert, reason)
    return alert
