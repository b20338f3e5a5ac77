"""DisableUnused: makes a key Inactive that nobody uses, and reads it back."""

import time

import rotation
import unused


def handler(doc, context):
    asked = doc["removed"]
    user, key = asked["user"], asked["key"]
    seen = unused.look(doc)
    since = max(seen["created"], seen["used"] or seen["created"])
    if seen["stays"] or rotation.now() < since + rotation.duration(asked["unused"]["disable_after"]):
        return rotation.end(doc, "Left", "InUse", f"Key {key} of {user} is left as it is.")
    if not seen["live"]:
        return rotation.end(doc, "Left", "NotNow", f"Key {key} of {user} would be made Inactive.")
    unused.iam.update_access_key(UserName=user, AccessKeyId=key, Status="Inactive")
    for pause in (0, 1, 2, 4, 8):
        time.sleep(pause)
        if all(one["status"] == "Inactive" for one in rotation.keys(unused.iam, user) if one["id"] == key):
            break
    else:
        raise TimeoutError(f"key {key} does not read Inactive yet")
    now = rotation.now()
    doc["disabled_at"] = rotation.text(now)
    doc["wait_until"] = rotation.text(now + rotation.duration("1day"))
    doc["phase"] = "grace"
    rotation.announce(doc, "Disabled", f"Key {key} of {user} is Inactive: nobody has used it since {since}.")
    rotation.log(doc, f"Deactivated key {key} of {user}, which nobody uses")
    return doc
