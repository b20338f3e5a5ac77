"""DeleteKey: deletes a superseded key at the end of its grace, and only then."""

import boto3
import rotation

iam = boto3.client("iam")
secrets = boto3.client("secretsmanager")
ssm = boto3.client("ssm")


def handler(doc, context):
    user, arn = doc["baseline"]["user"]["name"], doc["secret"]
    new, old = doc["new"], doc["old"]["key"]
    found = rotation.parameters(ssm, "mode", "freeze", f"incidents/{old}")
    held = found.get("mode") != "live" or rotation.frozen(found)
    current = rotation.current(secrets, arn)
    status = {key["id"]: key["status"] for key in rotation.keys(iam, user)}
    used = iam.get_access_key_last_used(AccessKeyId=old)["AccessKeyLastUsed"].get("LastUsedDate")
    disabled = rotation.time(doc["disabled_at"])
    if current != new["version"] or status.get(new["key"]) != "Active":
        return rotation.end(doc, "Held", "CurrentMoved", "AWSCURRENT was moved meanwhile.")
    if f"incidents/{old}" in found:
        return rotation.end(doc, "Contained", "LeakedKeyKept", f"Key {old} leaked and is kept as evidence.")
    if status.get(old) != "Inactive" or (used and used > disabled + rotation.duration("15min")):
        return rotation.end(doc, "Held", "UsedInGrace", f"Key {old} is in use.")
    if held or rotation.now() < disabled + rotation.duration(doc["policy"]["grace"]):
        doc["wait_until"] = rotation.text(rotation.now() + rotation.duration("1h"))
        return doc
    iam.delete_access_key(UserName=user, AccessKeyId=old)
    rotation.announce(doc, "Deleted", f"The old key {old} of {user} was deleted.")
    rotation.log(doc, f"Deleted key {old} of {user}")
    return rotation.end(doc, "Completed", "Completed", f"Key {new['key']} replaced key {old}, which is gone.")
