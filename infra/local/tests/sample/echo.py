#!/usr/bin/env python3
"""A Lambda that speaks the Runtime API: returns its input, or fails as the input asks."""

import json
import os
import sys
import time
import urllib.request

BASE = f"http://{os.environ['AWS_LAMBDA_RUNTIME_API']}/2018-06-01/runtime/invocation"
RELEASE = "one"


def post(path: str, document: object) -> None:
    """Send a reply."""
    urllib.request.urlopen(urllib.request.Request(f"{BASE}/{path}", data=json.dumps(document).encode(),
                                                  method="POST")).read()


while True:
    with urllib.request.urlopen(f"{BASE}/next") as reply:
        request_id, event = reply.headers["Lambda-Runtime-Aws-Request-Id"], json.load(reply)
    print(json.dumps({"message": "called", "function": os.environ["AWS_LAMBDA_FUNCTION_NAME"]}), flush=True)
    if isinstance(event, dict) and event.get("sleep"):
        time.sleep(event["sleep"])
    if isinstance(event, dict) and event.get("fail"):
        post(f"{request_id}/error", {"errorType": event["fail"], "errorMessage": "as asked"})
        continue
    post(f"{request_id}/response", {
        "event": event, "release": RELEASE, "version": os.environ["AWS_LAMBDA_FUNCTION_VERSION"],
        "region": os.environ.get("AWS_REGION"), "endpoint": os.environ.get("AWS_ENDPOINT_URL"),
        "key_id": os.environ.get("AWS_ACCESS_KEY_ID"), "process": os.getpid()})
    sys.stdout.flush()
