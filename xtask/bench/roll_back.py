"""RollBack: undoes a run that failed before its promotion."""

import json

import boto3
import rotation

iam = boto3.client("iam")
secrets = boto3.client("secretsmanager")


def handler(doc, context):
    user, arn = doc["baseline"]["user"]["name"], doc["secret"]
    new = doc["new"]
    labels = secrets.describe_secret(SecretId=arn)["VersionIdsToStages"]
    mine = labels.get(new["version"], [])
    if "AWSCURRENT" in mine or "AWSPREVIOUS" in mine:
        raise rotation.Conflict("the new key was promoted")
    stored = secrets.get_secret_value(SecretId=arn, VersionId=new["version"])
    if json.loads(stored["SecretString"])["AccessKeyId"] != new["key"]:
        raise rotation.Conflict("the version does not hold the new key")
    if any(key["id"] == new["key"] for key in rotation.keys(iam, user)):
        iam.update_access_key(UserName=user, AccessKeyId=new["key"], Status="Inactive")
        # A move of AWSCURRENT whose reply was lost may land late.
        if rotation.current(secrets, arn) == new["version"]:
            raise rotation.Conflict("the new key was promoted")
        iam.delete_access_key(UserName=user, AccessKeyId=new["key"])
    if "AWSPENDING" in mine:
        secrets.update_secret_version_stage(
            SecretId=arn, VersionStage="AWSPENDING", RemoveFromVersionId=new["version"]
        )
    error = doc.get("error", {})
    rotation.log(doc, f"Deleted key {new['key']} of {user}, which was never current")
    return rotation.end(doc, "RolledBack", error.get("Error", "Undone"), "The new key was not promoted.")
