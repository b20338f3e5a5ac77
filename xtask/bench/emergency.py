"""What the emergency's peers share: the incident's notices."""

import json
from datetime import datetime, timedelta, timezone


def now() -> datetime:
    return datetime.now(timezone.utc)


def text(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def time(value: str) -> datetime:
    return datetime.strptime(value[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc)


def second(at: datetime) -> str:
    """Rounded up, as the machine's Wait states want it."""
    return (at + timedelta(seconds=at.microsecond > 0)).strftime("%Y-%m-%dT%H:%M:%SZ")


def announce(doc: dict, kind: str, sentence: str, more: str = "") -> None:
    doc.setdefault("notices", []).append({
        "id": f"{doc['id']}/{kind}{more}",
        "kind": kind,
        "at": text(now()),
        "text": sentence,
        "on_bus": False,
        "on_topic": False,
    })
    doc["delivery"] = "pending"


def log(doc: dict, message: str) -> None:
    print(json.dumps({"level": "INFO", "rotation.id": doc["id"], "message": message}), flush=True)
