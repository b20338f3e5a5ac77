"""Replace: the application of a leaked key gets a working one."""

import json
import os
import uuid

import boto3
import emergency

iam = boto3.client("iam")
secrets = boto3.client("secretsmanager")
sfn = boto3.client("stepfunctions")


def handler(doc, context):
    user, leaked = doc["user"], doc["target"]["key_id"]
    tags = {tag["Key"]: tag["Value"] for tag in iam.get_user(UserName=user)["User"].get("Tags", [])}
    arn = tags["keywheel:secret"]
    secret = secrets.describe_secret(SecretId=arn)
    if {tag["Key"]: tag["Value"] for tag in secret["Tags"]}.get("keywheel:user") != user:
        doc["replacement"] = {"way": "not_needed", "working": False, "help": "The user is not managed."}
        return doc
    value = json.loads(secrets.get_secret_value(SecretId=arn, VersionStage="AWSCURRENT")["SecretString"])
    keys = []
    for page in iam.get_paginator("list_access_keys").paginate(UserName=user):
        keys += [row["AccessKeyId"] for row in page["AccessKeyMetadata"]]
    doc["ours"] = {"managed": True, "keys": [value["AccessKeyId"]]}
    if value["AccessKeyId"] != leaked or keys != [leaked]:
        doc["replacement"] = {"way": "person", "working": False, "help": "Both slots are taken."}
        return doc
    run = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{doc['id']}/replacement"))
    sfn.start_execution(
        stateMachineArn=os.environ["KEYWHEEL_ROTATION_ARN"],
        name=run,
        input=json.dumps({"secret": arn, "reason": "leaked"}),
    )
    doc["replacement"] = {
        "way": "new", "run": run, "secret": secret["Name"], "working": False, "help": f"Run {run} is at work.",
    }
    emergency.log(doc, f"Started run {run} for {user}")
    return doc
