"""EventBridge: events of AWS's own services.

PutEvents accepts `aws.*` sources on the default bus. AWS refuses them there,
since only its services send them; no such service runs here, so tests and the
demo have to. Other buses refuse them as in AWS.
"""

import json

from ministack.services import eventbridge

from overlay import patching


def publish(source: str, detail_type: str, detail: dict, resources: tuple[str, ...] = ()) -> None:
    """Put an event of an AWS service on the default bus of the request's account and region."""
    if not eventbridge._rules and not eventbridge._archives:
        return  # nobody listens: spare the busy path the work
    eventbridge._put_events({"Entries": [{
        "Source": source, "DetailType": detail_type, "Detail": json.dumps(detail), "Resources": list(resources),
    }]}, allow_aws_source=True)


def _put_events(data: dict, allow_aws_source: bool = False) -> tuple:
    """Entry by entry where a service's source is among them: those on the default bus may pass."""
    entries = data.get("Entries", [])
    if allow_aws_source or len(entries) > 10 or not any(map(_from_service, entries)):
        return _original["put_events"](data, allow_aws_source)
    failed, results = 0, []
    for entry in entries:
        bus, refusal = eventbridge._event_bus_name_from_ref(entry.get("EventBusName", "default"))
        status, headers, body = _original["put_events"](
            {"Entries": [entry]}, _from_service(entry) and not refusal and bus == "default")
        if status != 200:
            return status, headers, body
        reply = json.loads(body)
        failed += reply["FailedEntryCount"]
        results += reply["Entries"]
    return eventbridge.json_response({"FailedEntryCount": failed, "Entries": results})


def _from_service(entry: dict) -> bool:
    return str(entry.get("Source", "")).startswith("aws.")


_original: dict = {}


def apply() -> None:
    """Put PutEvents in place; the emulator builds its dispatch table at each request."""
    _original["put_events"] = patching.replace(eventbridge, "_put_events", _put_events, "ebcda0f38061")
    patching.relies_on(eventbridge, "handle_request", "129d025f1899")
    patching.relies_on(eventbridge, "_dispatch_event", "d1bfe064f602")
