"""PromoteKey: moves AWSCURRENT to the new version by compare-and-swap."""

import boto3
import rotation
from botocore.exceptions import ClientError

secrets = boto3.client("secretsmanager")
ssm = boto3.client("ssm")


def handler(doc, context):
    arn, new = doc["secret"], doc["new"]["version"]
    if rotation.mode(ssm) != "live":
        doc["undoing"] = True
        return doc
    try:
        secrets.update_secret_version_stage(
            SecretId=arn,
            VersionStage="AWSCURRENT",
            RemoveFromVersionId=doc["baseline"]["current"]["version"],
            MoveToVersionId=new,
        )
    except ClientError:
        if rotation.current(secrets, arn) != new:
            raise
    now, policy = rotation.now(), doc["policy"]
    settled = rotation.duration(policy["cache"]) + rotation.duration("15min")
    overlap = rotation.duration(policy["overlap"])
    first_look = max(overlap, settled + rotation.duration(policy["quiet_window"]))
    doc["promoted_at"] = rotation.text(now)
    doc["wait_until"] = rotation.text(now + first_look)
    doc["phase"] = "overlap"
    user = doc["baseline"]["user"]["name"]
    rotation.announce(doc, "Promoted", f"The secret of {user} now names key {doc['new']['key']}.")
    rotation.log(doc, f"AWSCURRENT names version {new}")
    return doc
