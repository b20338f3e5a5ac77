"""DeleteUnused: deletes a key that nobody used, at the end of its grace, and only then."""

import rotation
import unused


def handler(doc, context):
    asked = doc["removed"]
    user, key = asked["user"], asked["key"]
    seen = unused.look(doc)
    over = rotation.time(doc["disabled_at"]) + rotation.duration(asked["unused"]["delete_after"])
    used = seen["used"] and seen["used"] > rotation.time(doc["quiet_since"])
    if seen["status"] == "Active" or seen["stays"] or used:
        return rotation.end(doc, "Kept", "Used", f"Key {key} of {user} is not deleted: somebody needs it.")
    if rotation.now() < over or not seen["live"]:
        doc["wait_until"] = rotation.text(rotation.now() + rotation.duration("1day"))
        return doc
    unused.iam.delete_access_key(UserName=user, AccessKeyId=key)
    rotation.announce(doc, "Deleted", f"Key {key} of {user}, which nobody has used, was deleted.")
    rotation.log(doc, f"Deleted key {key} of {user}, which nobody used")
    return rotation.end(doc, "Removed", "Removed", f"Key {key} of {user} is gone.")
