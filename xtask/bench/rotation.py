"""What the peers share: the switch, the reads, the document's notices."""

import json
import os
from datetime import datetime, timedelta, timezone

UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "day": 86400, "days": 86400, "d": 86400}


class Conflict(Exception):
    """The world is not what the document says."""


def now() -> datetime:
    return datetime.now(timezone.utc)


def text(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def time(value: str) -> datetime:
    return datetime.strptime(value[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc)


def duration(value: str) -> timedelta:
    """`7days`, `24h`: a number and its unit."""
    digits = "".join(c for c in value if c.isdigit())
    return timedelta(seconds=int(digits) * UNITS[value[len(digits):].strip()])


def mode(ssm) -> str:
    return ssm.get_parameter(Name=f"/keywheel/{os.environ['KEYWHEEL_STAGE']}/mode")["Parameter"]["Value"]


def parameters(ssm, *names: str) -> dict:
    prefix = f"/keywheel/{os.environ['KEYWHEEL_STAGE']}/"
    found = ssm.get_parameters(Names=[prefix + name for name in names])["Parameters"]
    return {row["Name"].removeprefix(prefix): row["Value"] for row in found}


def frozen(found: dict) -> bool:
    freezes = json.loads(found.get("freeze", "[]"))
    return any(time(freeze["from"]) <= now() < time(freeze["until"]) for freeze in freezes)


def keys(iam, user: str) -> list:
    found = []
    for page in iam.get_paginator("list_access_keys").paginate(UserName=user):
        for key in page["AccessKeyMetadata"]:
            found.append({
                "id": key["AccessKeyId"],
                "status": key["Status"],
                "created": text(key["CreateDate"]),
            })
    return found


def rivals(secrets, user: str, own: str) -> list:
    filters = [{"Key": "tag-key", "Values": ["keywheel:user"]}, {"Key": "tag-value", "Values": [user]}]
    found = []
    for page in secrets.get_paginator("list_secrets").paginate(Filters=filters, MaxResults=100):
        for secret in page["SecretList"]:
            tags = {tag["Key"]: tag["Value"] for tag in secret.get("Tags", [])}
            if tags.get("keywheel:user") == user and secret["ARN"] != own:
                found.append(secret["ARN"])
    return found


def current(secrets, arn: str) -> str | None:
    versions = secrets.describe_secret(SecretId=arn)["VersionIdsToStages"]
    return next((version for version, labels in versions.items() if "AWSCURRENT" in labels), None)


def announce(doc: dict, kind: str, sentence: str) -> None:
    doc["notices"].append({
        "id": f"{doc['run']}/{kind}",
        "kind": kind,
        "at": text(now()),
        "text": sentence,
        "on_bus": False,
        "on_topic": False,
    })
    doc["delivery"] = "pending"


def end(doc: dict, outcome: str, code: str, sentence: str, remedy: str = "") -> dict:
    doc["phase"] = "ended"
    doc["wait_until"] = None
    doc["outcome"] = outcome
    doc["why"] = {"code": code, "text": sentence, "remedy": remedy}
    announce(doc, "Ended", f"{outcome}: {sentence}")
    return doc


def log(doc: dict, message: str) -> None:
    print(json.dumps({"level": "INFO", "rotation.id": doc["run"], "message": message}), flush=True)
