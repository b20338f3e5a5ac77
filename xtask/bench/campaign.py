"""What the fleet's peers share: the campaign's batches, its notices, and what holds it up."""

import json

import rotation


def place(doc: dict, name: str) -> str:
    return f"campaigns/{doc['campaign']}/{name}"


def items(doc: dict, number: int) -> str:
    return place(doc, f"batch-{number:04}.json")


def frozen(doc: dict, now) -> dict | None:
    for freeze in doc.get("freeze", []):
        if rotation.time(freeze["from"]) <= now < rotation.time(freeze["until"]):
            return freeze
    return None


def begin_batch(doc: dict) -> dict:
    number = sum(wave["begun"] for wave in doc["waves"]) + 1
    wave = next(wave for wave in doc["waves"] if wave["begun"] < wave["batches"])
    wave["begun"] += 1
    doc["batch"] = {
        "number": number,
        "wave": wave["wave"],
        "key": items(doc, number),
        "began": rotation.text(rotation.now()),
    }
    doc["phase"] = "batch"
    doc["wait_until"] = None
    return doc


def announce(doc: dict, kind: str, sentence: str) -> None:
    doc["notices"].append({
        "id": f"{doc['campaign']}/{kind}",
        "kind": kind,
        "at": rotation.text(rotation.now()),
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
    promoted = sum(wave["promoted"] for wave in doc["waves"])
    failed = sum(wave["failed"] for wave in doc["waves"])
    announce(doc, "Ended", f"{outcome}: {sentence} {promoted} keys were promoted and {failed} were not.")
    return doc


def log(doc: dict, message: str) -> None:
    print(json.dumps({"level": "INFO", "rotation.id": doc["campaign"], "message": message}), flush=True)
