"""What the peers of unused keys share: everything that decides about one."""

import json

import boto3
import rotation

iam = boto3.client("iam")
secrets = boto3.client("secretsmanager")
ssm = boto3.client("ssm")


def held(user: str, tags: dict) -> list:
    """The keys that secrets hold which name the user, or which it names, in any labelled version."""
    arns = rotation.rivals(secrets, user, "")
    if "keywheel:secret" in tags and tags["keywheel:secret"] not in arns:
        arns.append(tags["keywheel:secret"])
    found = []
    for arn in arns:
        for version, labels in secrets.describe_secret(SecretId=arn)["VersionIdsToStages"].items():
            if labels:
                value = secrets.get_secret_value(SecretId=arn, VersionId=version)["SecretString"]
                found.append(json.loads(value).get("AccessKeyId"))
    return found


def look(doc: dict) -> dict:
    asked = doc["removed"]
    user, key = asked["user"], asked["key"]
    found = rotation.parameters(ssm, "mode", "freeze", f"incidents/{key}")
    person = iam.get_user(UserName=user)["User"]
    tags = {tag["Key"]: tag["Value"] for tag in person.get("Tags", [])}
    keys = {one["id"]: one for one in rotation.keys(iam, user)}
    last = iam.get_access_key_last_used(AccessKeyId=key)
    return {
        "live": found.get("mode") == "live" and not rotation.frozen(found),
        "stays": person["UserId"] != asked["user_id"]
        or last["UserName"] != user
        or tags.get("keywheel:unused") != "remove"
        or key in (tags.get("keywheel:retire"), tags.get("keywheel:keep"))
        or f"incidents/{key}" in found
        or key in held(user, tags),
        "status": keys[key]["status"] if key in keys else None,
        "created": rotation.time(keys[key]["created"]) if key in keys else None,
        "used": last["AccessKeyLastUsed"].get("LastUsedDate"),
    }
