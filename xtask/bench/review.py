"""Review: what has become of each rotation of a batch, and whether the next batch is begun."""

import json
import os
from datetime import timedelta

import boto3
import campaign
import rotation

BUCKET = os.environ["KEYWHEEL_BUCKET"]
MACHINE = os.environ["KEYWHEEL_ROTATION_ARN"]
LATE = timedelta(hours=2)
LOOK_AGAIN = timedelta(seconds=30)

s3 = boto3.client("s3")
secrets = boto3.client("secretsmanager")
sfn = boto3.client("stepfunctions")
ssm = boto3.client("ssm")


def promoted(item: dict) -> bool:
    """Whether AWSCURRENT names the version that the run wrote, or took over."""
    versions = secrets.describe_secret(SecretId=item["secret"])["VersionIdsToStages"]
    for version, labels in versions.items():
        if "AWSCURRENT" in labels:
            return version == item["run"] or f"keywheel-{item['run']}" in labels
    return False


def fate(item: dict) -> dict:
    """Its code is `Promoted`, `OnItsWay`, or why it failed."""
    arn = f"{MACHINE.replace(':stateMachine:', ':execution:', 1)}:{item['run']}"
    try:
        run = sfn.describe_execution(executionArn=arn)
    except sfn.exceptions.ExecutionDoesNotExist:
        return {"code": "NotStarted", "text": "Its execution could not be started."}
    if run["status"] in ("RUNNING", "PENDING_REDRIVE"):
        return {"code": "Promoted" if promoted(item) else "OnItsWay", "text": ""}
    if "output" not in run:
        return {"code": run["status"], "text": f"Its execution ended {run['status']} without a word."}
    left = json.loads(run["output"])
    if left.get("promoted_at") and left.get("outcome") != "RolledBack":
        return {"code": "Promoted", "text": ""}
    return left.get("why") or {"code": run["status"], "text": f"Its execution ended {run['status']}."}


def handler(doc, context):
    batch = doc["batch"]
    items = json.load(s3.get_object(Bucket=BUCKET, Key=batch["key"])["Body"])
    fates = [fate(item) for item in items]
    now, began = rotation.now(), rotation.time(batch["began"])
    if now < began + LATE and any(found["code"] == "OnItsWay" for found in fates):
        again = min(now + max((now - began) / 4, LOOK_AGAIN), began + LATE)
        doc["phase"] = "settle"
        doc["wait_until"] = (again + timedelta(seconds=again.microsecond > 0)).strftime("%Y-%m-%dT%H:%M:%SZ")
        return doc
    mode = rotation.mode(ssm)
    failed = [
        {
            "run": item["run"],
            "whom": item["user"] or item["secret"],
            "wave": batch["wave"],
            "code": "Late" if found["code"] == "OnItsWay" else found["code"],
            "text": found["text"] or "It has promoted no key for 2 hours, and goes on by itself.",
        }
        for item, found in zip(items, fates)
        if found["code"] != "Promoted"
    ]
    done = len(items) - len(failed)
    campaign.log(doc, f"Batch {batch['number']}: {done} promoted, {len(failed)} not")
    results = {"batch": batch["number"], "wave": batch["wave"], "promoted": done, "failed": failed}
    s3.put_object(
        Bucket=BUCKET,
        Key=campaign.place(doc, f"batch-{batch['number']:04}-results.json"),
        Body=json.dumps(results).encode(),
        ContentType="application/json",
    )
    doc["batch"] = None
    wave = next(wave for wave in doc["waves"] if wave["wave"] == batch["wave"])
    wave["promoted"] += done
    wave["failed"] += len(failed)
    doc["failed"] = (doc.get("failed", []) + failed)[:20]

    for wave in doc["waves"]:
        if wave["failed"] * 100 > doc["tolerance"] * wave["keys"]:
            why = f"Of the {wave['keys']} keys of wave {wave['wave']} {wave['failed']} were not promoted."
            return campaign.end(doc, "Stopped", "TooManyFailed", why, "Look at each, then start the next one.")
    if all(wave["begun"] == wave["batches"] for wave in doc["waves"]):
        return campaign.end(doc, "Done", "AllBegun", "Every key of the plan had its turn.")
    freeze = campaign.frozen(doc, now)
    if freeze:
        why = f"A freeze has begun: nothing is rotated until {freeze['until']} ({freeze['reason']})."
        return campaign.end(doc, "Stopped", "Frozen", why)
    if mode != "live":
        return campaign.end(doc, "Stopped", "SwitchedOff", f"The mode was set to {mode} meanwhile.")
    return campaign.begin_batch(doc)
