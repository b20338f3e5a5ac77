"""DeactivateKey: makes the old key Inactive once it is quiet, and reads it back."""

import time

import boto3
import rotation

iam = boto3.client("iam")
secrets = boto3.client("secretsmanager")
ssm = boto3.client("ssm")


def status(keys, key):
    return next((found["status"] for found in keys if found["id"] == key), None)


def handler(doc, context):
    user, arn = doc["baseline"]["user"]["name"], doc["secret"]
    new, old, policy = doc["new"], doc["old"]["key"], doc["policy"]
    found = rotation.parameters(ssm, "mode", "freeze")
    held = found.get("mode") != "live" or rotation.frozen(found)
    current = rotation.current(secrets, arn)
    keys = rotation.keys(iam, user)
    if current != new["version"]:
        return rotation.end(doc, "Held", "CurrentMoved", "AWSCURRENT was moved meanwhile.")
    rivals = rotation.rivals(secrets, user, arn)
    used = iam.get_access_key_last_used(AccessKeyId=old)["AccessKeyLastUsed"].get("LastUsedDate")
    promoted = rotation.time(doc["promoted_at"])
    settled = promoted + rotation.duration(policy["cache"]) + rotation.duration("15min")
    earliest = settled + rotation.duration(policy["quiet_window"])
    quiet = used is not None and used <= settled and rotation.now() >= earliest
    if held or rivals or not quiet or status(keys, new["key"]) != "Active":
        doc["wait_until"] = rotation.text(rotation.now() + rotation.duration("4h"))
        return doc
    iam.update_access_key(UserName=user, AccessKeyId=old, Status="Inactive")
    for pause in (0, 1, 2, 4, 8):
        time.sleep(pause)
        if status(rotation.keys(iam, user), old) != "Active":
            break
    else:
        raise TimeoutError(f"key {old} does not read Inactive yet")
    now = rotation.now()
    doc["gate"] = {"at": rotation.text(now), "last_use": {"at": rotation.text(used)}, "shut": None}
    doc["disabled_at"] = rotation.text(now)
    doc["wait_until"] = rotation.text(now + rotation.duration(policy["grace"]))
    doc["phase"] = "grace"
    rotation.announce(doc, "Deactivated", f"The old key {old} of {user} is Inactive.")
    rotation.log(doc, f"Deactivated key {old} of {user}")
    return doc
