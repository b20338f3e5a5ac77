"""Look: reads the facts once, and says whether a new key is to be made."""

import json

import boto3
import rotation

iam = boto3.client("iam")
secrets = boto3.client("secretsmanager")
ssm = boto3.client("ssm")

POLICY = {
    "overlap": "1day",
    "max_overlap": "14days",
    "quiet_window": "1day",
    "grace": "7days",
    "cache": "1h",
    "when_still_in_use": "hold",
}


def handler(event, context):
    request = event["input"]
    doc = {
        "schema": 1,
        "run": event["run"],
        "execution": event["execution"],
        "started": event["started"],
        "request": request,
        "policy": {**POLICY, **request.get("policy", {})},
        "wait_until": None,
        "new": None,
        "old": None,
        "suspects": [],
        "outcome": None,
        "why": None,
        "notices": [],
        "delivery": "pending",
    }
    mode = rotation.mode(ssm)
    secret = secrets.describe_secret(SecretId=request["secret"])
    doc["secret"] = arn = secret["ARN"]
    tags = {tag["Key"]: tag["Value"] for tag in secret.get("Tags", [])}
    name = tags.get("keywheel:user")
    if secret.get("DeletedDate") or not name:
        return rotation.end(doc, "Blocked", "NotManaged", f"The secret {arn} has no tag keywheel:user.")
    user = iam.get_user(UserName=name)["User"]
    if {tag["Key"]: tag["Value"] for tag in user.get("Tags", [])}.get("keywheel:secret") != arn:
        return rotation.end(doc, "Blocked", "NotMutual", f"User {name} does not name the secret {arn}.")
    keys = rotation.keys(iam, name)
    value = secrets.get_secret_value(SecretId=arn, VersionStage="AWSCURRENT")
    key = json.loads(value["SecretString"])["AccessKeyId"]
    doc["baseline"] = {
        "at": rotation.text(rotation.now()),
        "secret_name": secret["Name"],
        "user": {"name": name, "arn": user["Arn"], "id": user["UserId"]},
        "current": {"version": value["VersionId"], "key": key},
        "keys": keys,
    }
    if rotation.rivals(secrets, name, arn):
        return rotation.end(doc, "Blocked", "TwoManagedSecrets", f"Another secret is tagged for {name}.")
    if [found["id"] for found in keys] != [key]:
        return rotation.end(doc, "Blocked", "SlotsFull", f"User {name} has another key.")
    if mode != "live":
        return rotation.end(doc, "Blocked", "Paused", f"Nothing was changed: the installation is {mode}.")
    doc["old"] = {"key": key, "was_current": True}
    doc["phase"] = "create"
    rotation.log(doc, f"This run will make a new key for {name}")
    return doc
