"""Contain: a leaked key is made Inactive and read back."""

import json
import os

import boto3
import emergency

iam = boto3.client("iam")
ssm = boto3.client("ssm")
sts = boto3.client("sts")


def handler(doc, context):
    key, stage = doc["target"]["key_id"], os.environ["KEYWHEEL_STAGE"]
    record = f"/keywheel/{stage}/incidents/{key}"
    names = [f"/keywheel/{stage}/containment", f"/keywheel/{stage}/emergency", record]
    standing = {row["Name"]: row["Value"] for row in ssm.get_parameters(Names=names)["Parameters"]}
    user = iam.get_access_key_last_used(AccessKeyId=key)["UserName"]
    if standing.get(names[0]) != "on":
        doc["phase"], doc["outcome"] = "ended", "Blocked"
        emergency.announce(doc, "Ended", "Containment is not switched on.")
        return doc
    iam.update_access_key(UserName=user, AccessKeyId=key, Status="Inactive")
    status = {}
    for page in iam.get_paginator("list_access_keys").paginate(UserName=user):
        status.update({row["AccessKeyId"]: row["Status"] for row in page["AccessKeyMetadata"]})
    if status.get(key) != "Inactive":
        raise RuntimeError(f"key {key} does not show as Inactive yet")
    doc["containment"], doc["user"] = "on", user
    doc["keys"], doc["known"] = [key], list(status)
    doc["contained_at"] = emergency.text(emergency.now())
    doc["phase"] = "deny"
    kept = {"schema": 1, "key": key, "user": user, "incident": doc["id"], "at": doc["contained_at"], "state": "contained"}
    ssm.put_parameter(Name=record, Value=json.dumps(kept), Type="String", Overwrite=True)
    emergency.log(doc, f"Contained key {key} of {user}")
    return doc
