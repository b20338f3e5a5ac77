"""Scan: the plan of a campaign, written where the machine's Map reads it. Here over all keys that are due."""

import csv
import functools
import io
import json
import os
import time
import uuid
from datetime import datetime

import boto3
import campaign
import fleet
import rotation
from botocore.exceptions import ClientError

BUCKET = os.environ["KEYWHEEL_BUCKET"]

iam = boto3.client("iam")
s3 = boto3.client("s3")
sfn = boto3.client("stepfunctions")
ssm = boto3.client("ssm")


@functools.cache
def secrets(region: str):
    return boto3.client("secretsmanager", region_name=region)


def tags_of(found: dict) -> dict:
    return {tag["Key"]: tag["Value"] for tag in found.get("Tags", [])}


def identity(name: str) -> str:
    try:
        return str(uuid.UUID(name))
    except ValueError:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, name))


def other(doc: dict) -> str | None:
    """Another campaign that runs, and began before this one."""
    machine = doc["execution"].rsplit(":", 1)[0].replace(":execution:", ":stateMachine:", 1)
    own, first = (rotation.time(doc["started"]), doc["execution"]), None
    for page in sfn.get_paginator("list_executions").paginate(stateMachineArn=machine, statusFilter="RUNNING"):
        for row in page["executions"]:
            arn = row["executionArn"]
            if arn != doc["execution"] and (row["startDate"], arn) < own:
                first = min(first or arn, arn)
    return first


def policy(doc: dict) -> dict:
    version = doc["request"].get("policy_version")
    try:
        reply = s3.get_object(Bucket=BUCKET, Key="policy/fleet.json", **({"VersionId": version} if version else {}))
    except s3.exceptions.NoSuchKey:
        return {}
    doc["policy_version"] = reply.get("VersionId")
    return json.load(reply["Body"])


def report() -> str:
    for _ in range(30):
        if iam.generate_credential_report()["State"] == "COMPLETE":
            return iam.get_credential_report()["Content"].decode()
        time.sleep(2)
    raise RuntimeError("IAM has not finished its credential report")


def date(text: str) -> datetime | None:
    return None if text in ("", "N/A", "no_information", "not_supported") else datetime.fromisoformat(text)


def users(text: str) -> tuple:
    """The users of a credential report, and whether the root user has a key."""
    found, root_key = [], False
    for row in csv.DictReader(io.StringIO(text)):
        keys = []
        for slot in ("access_key_1", "access_key_2"):
            active, since = row[f"{slot}_active"] == "true", date(row[f"{slot}_last_rotated"])
            if active or since:
                used = row[f"{slot}_last_used_date"]
                keys.append({"active": active, "since": since, "used": date(used), "never": used == "N/A"})
        if row["user"] == "<root_account>":
            root_key = any(key["active"] for key in keys)
        else:
            path = row["arn"].split(":user", 1)[1].removesuffix(row["user"])
            found.append({"user": row["user"], "path": path, "keys": keys})
    return found, root_key


def tagged(region: str) -> list:
    filters = [{"Key": "tag-key", "Values": ["keywheel:user"]}]
    found = []
    for page in secrets(region).get_paginator("list_secrets").paginate(Filters=filters, MaxResults=100):
        for secret in page["SecretList"]:
            tags = tags_of(secret)
            if "keywheel:user" in tags:
                found.append({
                    "arn": secret["ARN"],
                    "user": tags["keywheel:user"],
                    "tags": tags,
                    "changed": secret.get("LastChangedDate"),
                    "replica": secret.get("PrimaryRegion", region) != region,
                })
    return found


def look(name: str, arn: str) -> dict:
    """What IAM and Secrets Manager say now of a user whose key may be due."""
    try:
        tags = tags_of(iam.get_user(UserName=name)["User"])
        keys = rotation.keys(iam, name)
        value = secrets(arn.split(":")[3]).get_secret_value(SecretId=arn, VersionStage="AWSCURRENT")
    except ClientError as error:
        return {"error": str(error)}
    return {
        "secret": tags.get("keywheel:secret"),
        "retire": tags.get("keywheel:retire"),
        "keep": tags.get("keywheel:keep"),
        "keys": keys,
        "current": json.loads(value["SecretString"]).get("AccessKeyId"),
    }


def batches(doc: dict, lines: list) -> list:
    """The rotations in batches of one wave each; they come in the order of the waves."""
    size, found = max(-(-len(lines) // 200), 10), []
    for line in lines:
        item = {
            "run": str(uuid.uuid5(uuid.UUID(doc["campaign"]), line["secret"])),
            "secret": line["secret"],
            "user": line["user"],
            "reason": doc["request"]["reason"],
            "policy": {name: line["terms"][name] for name in fleet.DURATIONS},
        }
        if not doc["waves"] or doc["waves"][-1]["wave"] != line["wave"]:
            wave = {"wave": line["wave"], "keys": 0, "begun": 0, "batches": 0, "promoted": 0, "failed": 0}
            doc["waves"].append(wave)
        wave = doc["waves"][-1]
        if wave["keys"] % size == 0:
            wave["batches"] += 1
            found.append([])
        wave["keys"] += 1
        found[-1].append(item)
    return found


def write(key: str, kind: str, text: str) -> None:
    s3.put_object(Bucket=BUCKET, Key=key, Body=text.encode(), ContentType=kind)


def handler(event, context):
    doc = {
        "schema": 1,
        "campaign": identity(event["name"]),
        "execution": event["execution"],
        "started": event["started"],
        "request": {"reason": "manual", "dry_run": False, **event["input"]},
        "bucket": BUCKET,
        "policy_version": None,
        "tolerance": 0,
        "freeze": [],
        "counts": {},
        "waves": [],
        "batch": None,
        "outcome": None,
        "why": None,
        "notices": [],
        "delivery": "pending",
    }
    first = other(doc)
    if first:
        return campaign.end(doc, "Refused", "CampaignInProgress", f"Another campaign runs: {first}.")
    rules, now = policy(doc), rotation.now()
    limits = rules.get("limits", {})
    doc["tolerance"] = limits.get("failure_tolerance_percent", 10)
    doc["freeze"] = [freeze for freeze in limits.get("freeze", []) if rotation.time(freeze["until"]) > now]

    region, account = doc["execution"].split(":")[3:5]
    rows, root_key = users(report())
    found = [secret for region in rules.get("regions") or [region] for secret in tagged(region)]
    desk = fleet.Desk(rules, account, region, found, now)
    looks = {name: look(name, arn) for name, arn in desk.to_look_at(rows)}
    lines = desk.plan(rows, root_key, looks)
    rotate = [line for line in lines if line["action"] == "rotate"]
    doc["counts"] = {
        "users": len(rows),
        "rotate": len(rotate),
        "skip": sum(line["action"] == "skip" for line in lines),
        "find": sum(line["action"] == "find" for line in lines),
        "unread": sum(line["code"] == "Unread" for line in lines),
    }
    plan, parts = campaign.place(doc, "plan.jsonl"), batches(doc, rotate)
    write(plan, "application/jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    for index, part in enumerate(parts):
        write(campaign.items(doc, index + 1), "application/json", json.dumps(part))

    mode = rotation.mode(ssm)
    campaign.log(doc, f"Planned {len(rotate)} keys in {len(parts)} batches")
    if rotate:
        counted = ", ".join(f"{name} {number}" for name, number in doc["counts"].items())
        campaign.announce(doc, "Planned", f"The plan over the fleet ({counted}): s3://{BUCKET}/{plan}")
    freeze = campaign.frozen(doc, rotation.now())
    if freeze:
        why = f"Nothing is rotated until {freeze['until']} ({freeze['reason']})."
        return campaign.end(doc, "Refused", "Frozen", why)
    if doc["request"]["dry_run"] or mode == "dry-run":
        return campaign.end(doc, "Planned", "DryRun", "Nothing is started: only a plan is wanted.")
    if mode != "live":
        return campaign.end(doc, "Refused", "Paused", f"Nothing is started: the installation is {mode}.")
    if not rotate:
        return campaign.end(doc, "Done", "NothingDue", "No key is to be rotated.")
    return campaign.begin_batch(doc)
