"""A Lambda runtime of the plainest kind, for the peers that the bench compares with.

It loads less than the runtime that AWS ships, so what is measured is rather
in Python's favour.
"""

import http.client
import importlib
import json
import os
import sys

BASE = "/2018-06-01/runtime/invocation/"


def main(name: str) -> None:
    handler = importlib.import_module(name).handler
    api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    while True:
        api.request("GET", BASE + "next")
        reply = api.getresponse()
        request_id = reply.headers["Lambda-Runtime-Aws-Request-Id"]
        event = json.load(reply)
        try:
            body, end = json.dumps(handler(event, None)), "response"
        except Exception as error:
            body, end = json.dumps({"errorType": type(error).__name__, "errorMessage": str(error)}), "error"
        api.request("POST", f"{BASE}{request_id}/{end}", body)
        api.getresponse().read()


if __name__ == "__main__":
    main(sys.argv[1])
