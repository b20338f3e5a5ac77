"""Investigate: what a leaked key did, as CloudTrail tells it, in every region that is enabled."""

import collections
import html
import json
import os
from datetime import timedelta

import boto3
import emergency

BUCKET = os.environ["KEYWHEEL_BUCKET"]

account = boto3.client("account")
s3 = boto3.client("s3")


def lookup(region: str, key: str, since):
    trail = boto3.client("cloudtrail", region_name=region)
    attributes = [{"AttributeKey": "AccessKeyId", "AttributeValue": key}]
    for page in trail.get_paginator("lookup_events").paginate(LookupAttributes=attributes, StartTime=since):
        yield from page["Events"]


def handler(doc, context):
    key = doc["target"]["key_id"]
    regions = []
    for page in account.get_paginator("list_regions").paginate(RegionOptStatusContains=["ENABLED", "ENABLED_BY_DEFAULT"]):
        regions += [region["RegionName"] for region in page["Regions"]]
    since = emergency.time(doc["started"]) - timedelta(days=90)
    addresses, services, times = collections.Counter(), collections.Counter(), []
    for region in regions:
        for event in lookup(region, key, since):
            record = json.loads(event["CloudTrailEvent"])
            addresses[record.get("sourceIPAddress", "unknown")] += 1
            services[record.get("eventSource", "unknown")] += 1
            times.append(emergency.text(event["EventTime"]))
    doc["findings"] = {
        "at": emergency.text(emergency.now()),
        "events": len(times),
        "addresses": addresses.most_common(10),
        "services": services.most_common(10),
        "span": [min(times), max(times)] if times else None,
    }
    page = f"incidents/{doc['id']}.html"
    doc["findings"]["report"] = f"s3://{BUCKET}/{page}"
    text = json.dumps(doc, indent=2)
    s3.put_object(Bucket=BUCKET, Key=f"incidents/{doc['id']}.json", Body=text.encode(), ContentType="application/json")
    shown = f"<!doctype html><title>{key}</title><pre>{html.escape(text)}</pre>"
    s3.put_object(Bucket=BUCKET, Key=page, Body=shown.encode(), ContentType="text/html")
    emergency.announce(doc, "Investigated", f"Key {key} made {len(times)} recorded calls.", "/1")
    emergency.log(doc, f"Read {len(times)} calls of {key} in {len(regions)} regions")
    return doc
