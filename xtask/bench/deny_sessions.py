"""DenySessions: what a leaked key has minted is denied."""

import json
from datetime import timedelta

import boto3
import emergency

iam = boto3.client("iam")


def handler(doc, context):
    user, key = doc["user"], doc["target"]["key_id"]
    name = f"keywheel-deny-sessions-{key}"
    cut_off = emergency.time(doc["contained_at"]) + timedelta(minutes=1)
    policy = iam.get_user_policy(UserName=user, PolicyName=name)["PolicyDocument"]
    if policy.get("Statement") and policy["Statement"][0]["Condition"]["DateLessThan"]["aws:TokenIssueTime"] >= emergency.second(cut_off):
        return doc
    document = {
        "Version": "2012-10-17",
        "Statement": [{
            "Sid": "KeywheelDenySessions",
            "Effect": "Deny",
            "Action": "*",
            "Resource": "*",
            "Condition": {"DateLessThan": {"aws:TokenIssueTime": emergency.second(cut_off)}},
        }],
    }
    iam.put_user_policy(UserName=user, PolicyName=name, PolicyDocument=json.dumps(document))
    until = cut_off + timedelta(hours=36)
    doc["deny"] = {"policy": name, "cut_off": emergency.second(cut_off), "until": emergency.second(until)}
    doc["phase"] = "look"
    emergency.announce(doc, "Contained", f"Key {key} of {user} leaked and is Inactive.")
    emergency.log(doc, f"Denied sessions of {user} issued before {doc['deny']['cut_off']}")
    return doc
