"""Notify: sends what waits in the document's outbox to the event bus and the topic."""

import json
import os

import boto3
import rotation

events = boto3.client("events")
sns = boto3.client("sns")


def detail(doc, notice):
    return {
        "schema": doc["schema"],
        "id": notice["id"],
        "kind": notice["kind"],
        "at": notice["at"],
        "run": doc["run"],
        "execution": doc["execution"],
        "secret": doc["secret"],
        "user": doc["baseline"]["user"]["name"],
        "new_key": doc["new"]["key"],
        "old_key": doc["old"]["key"],
        "text": notice["text"],
    }


def handler(doc, context):
    waiting = [notice for notice in doc["notices"] if not notice["on_bus"]]
    if waiting:
        reply = events.put_events(Entries=[
            {
                "EventBusName": os.environ["KEYWHEEL_BUS"],
                "Source": "keywheel",
                "DetailType": f"Keywheel Rotation {notice['kind']}",
                "Time": rotation.time(notice["at"]),
                "Resources": [doc["secret"]],
                "Detail": json.dumps(detail(doc, notice)),
            }
            for notice in waiting
        ])
        for notice, entry in zip(waiting, reply["Entries"]):
            notice["on_bus"] = "EventId" in entry
    for notice in doc["notices"]:
        if notice["on_topic"]:
            continue
        body = json.dumps(detail(doc, notice), indent=2)
        attributes = {"id": notice["id"], "kind": notice["kind"], "outcome": doc["outcome"] or "none"}
        sns.publish(
            TopicArn=os.environ["KEYWHEEL_TOPIC_ARN"],
            Subject=f"[keywheel] {notice['kind']}: {doc['baseline']['user']['name']}",
            Message=f"{notice['text']}\n\n{body}\n",
            MessageAttributes={
                name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()
            },
        )
        notice["on_topic"] = True
        rotation.log(doc, f"Announced {notice['id']}")
    sent = all(notice["on_bus"] and notice["on_topic"] for notice in doc["notices"])
    doc["delivery"] = "done" if sent else "pending"
    return doc
