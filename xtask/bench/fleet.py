"""The fleet's policy, and what it makes of a user: the peer of what `keywheel::decide::due` decides."""

import fnmatch
from datetime import datetime, timedelta

import rotation

FREQUENCIES = {
    "daily": {
        "max_age": "1day", "overlap": "4h", "max_overlap": "12h", "quiet_window": "4h 15m", "grace": "8h",
    },
    "weekly": {
        "max_age": "7days", "overlap": "1day", "max_overlap": "3days", "quiet_window": "12h", "grace": "2days",
    },
    "monthly": {
        "max_age": "30days", "overlap": "1day", "max_overlap": "10days", "quiet_window": "1day", "grace": "7days",
    },
    "90d": {
        "max_age": "90days", "overlap": "1day", "max_overlap": "14days", "quiet_window": "1day", "grace": "7days",
    },
}
USUAL = {**FREQUENCIES["90d"], "cache": "1h", "when_still_in_use": "hold", "wave": 1, "owner": None}
DURATIONS = ("overlap", "max_overlap", "quiet_window", "grace", "cache", "when_still_in_use")


def layer(terms: dict, settings: dict) -> dict:
    single = {name: value for name, value in settings.items() if name != "frequency"}
    return {**terms, **FREQUENCIES.get(settings.get("frequency"), {}), **single}


def fits(wanted: dict, account: str, user: dict, tags: dict) -> bool:
    return (
        fnmatch.fnmatchcase(user["user"].lower(), wanted.get("user", "*").lower())
        and fnmatch.fnmatchcase(user["path"], wanted.get("path", "*"))
        and wanted.get("account", account) == account
        and all(
            name in tags and fnmatch.fnmatchcase(tags[name], value)
            for name, value in wanted.get("tags", {}).items()
        )
    )


class Desk:
    """What a plan is made with."""

    def __init__(self, policy: dict, account: str, region: str, secrets: list, now: datetime):
        self.policy, self.account, self.now = policy, account, now
        self.regions = policy.get("regions") or [region]
        self.usual = layer(USUAL, policy.get("defaults", {}))
        self.by_user = {}
        for secret in secrets:
            self.by_user.setdefault(secret["user"], []).append(secret)

    def line(self, user: str, action: str, code: str, why: str, **more) -> dict:
        line = {
            "user": user, "account": self.account, "key_id": None, "age_days": None, "rule": None, "wave": None,
            "action": action, "code": code, "why": why, "secret": None, "owner": None, "terms": None,
        }
        return {**line, **more}

    def decide(self, user: dict) -> tuple:
        """The rule that decides, and its terms; no rule where the policy lacks the one that is asked for."""
        secrets = self.by_user.get(user["user"])
        tags = secrets[0]["tags"] if secrets else {}
        asked, name, terms = tags.get("keywheel:policy"), "defaults", self.usual
        for rule in self.policy.get("rules", []):
            if rule["name"] == asked if asked else fits(rule.get("match", {}), self.account, user, tags):
                name, terms = rule["name"], layer(self.usual, rule.get("set", {}))
                break
        else:
            if asked:
                return None, None
        if "keywheel:owner" in tags:
            terms = {**terms, "owner": tags["keywheel:owner"]}
        return name, terms

    def exemption(self, user: dict) -> dict | None:
        today, last = self.now.date().isoformat(), None
        for exemption in self.policy.get("exemptions", []):
            named = fnmatch.fnmatchcase(user["user"].lower(), exemption["user"].lower())
            if named and exemption.get("account", self.account) == self.account and exemption["until"] >= today:
                if last is None or last["until"] < exemption["until"]:
                    last = exemption
        return last

    def managed(self, user: dict) -> dict | None:
        """The one secret of the user, where it has one here."""
        own = [secret for secret in self.by_user.get(user["user"], []) if not secret["replica"]]
        return own[0] if len(own) == 1 else None

    def is_over(self, since: datetime | None, terms: dict) -> bool:
        return since is not None and since + rotation.duration(terms["max_age"]) <= self.now

    def days(self, since: datetime | None) -> int | None:
        return None if since is None else max(self.now - since, timedelta(0)).days

    def may_be_due(self, user: dict, secret: dict, terms: dict) -> bool:
        active = [key for key in user["keys"] if key["active"]]
        if not user["keys"]:
            return False
        return (
            not active
            or any(key["since"] is None or self.is_over(key["since"], terms) for key in active)
            or self.is_over(secret["changed"], terms)
        )

    def to_look_at(self, users: list) -> list:
        found = []
        for user in users:
            secret, (rule, terms) = self.managed(user), self.decide(user)
            if secret and rule and not self.exemption(user) and self.may_be_due(user, secret, terms):
                found.append((user["user"], secret["arn"]))
        return found

    def verdict(self, user: dict, look: dict | None) -> dict:
        """What becomes of a managed user."""
        name, secret, (rule, terms) = user["user"], self.managed(user), self.decide(user)
        if not secret:
            return self.line(name, "skip", "TwoManagedSecrets", "Not one secret here is tagged for this user.")
        if not rule:
            return self.line(name, "skip", "NoSuchRule", "Its secret's tag names a rule that is not there.")
        newest = max((key["since"] for key in user["keys"] if key["since"]), default=None)
        more = {
            "rule": rule, "secret": secret["arn"], "owner": terms["owner"], "age_days": self.days(newest),
        }
        exemption = self.exemption(user)
        if exemption:
            why = f"Exempt until {exemption['until']} ({exemption['owner']}: {exemption['reason']})."
            return self.line(name, "skip", "Exempt", why, **more)
        if not user["keys"]:
            return self.line(name, "skip", "NoKey", "The user had no key.", **more)
        if not self.may_be_due(user, secret, terms):
            due = newest + rotation.duration(terms["max_age"]) if newest else None
            why = f"Its key is due on {due:%Y-%m-%d}." if due and due > self.now else "Its key is not due."
            return self.line(name, "skip", "NotDue", why, **more)
        if look is None or "error" in look:
            why = f"It could not be read: {look['error'] if look else 'nobody has looked'}."
            return self.line(name, "skip", "Unread", why, **more)
        return self.close(name, secret["arn"], terms, look, more)

    def close(self, name: str, secret: str, terms: dict, look: dict, more: dict) -> dict:
        """What a run would find of a user whose key may be due."""
        current = next((key for key in look["keys"] if key["id"] == look["current"]), None)
        if look["secret"] != secret:
            return self.line(name, "skip", "TagsDisagree", "The user's own tag names another secret.", **more)
        if not look["keys"]:
            return self.line(name, "skip", "NoKey", "It has no key.", **more)
        if look["current"] is None:
            return self.line(name, "skip", "NothingStored", "Its secret holds no key.", **more)
        if current is None:
            why = f"Its secret holds key {look['current']}, which the user does not have."
            return self.line(name, "skip", "CurrentKeyUnknown", why, **more)
        made = rotation.time(current["created"])
        days = self.days(made)
        more = {**more, "key_id": current["id"], "age_days": days}
        if current["status"] != "Active":
            why = f"Its current key {current['id']} is Inactive, and its consumers are refused."
            return self.line(name, "skip", "CurrentInactive", why, **more)
        if not self.is_over(made, terms):
            return self.line(name, "skip", "NotDue", "Its key is not due.", **more)
        why = f"Its key is {days} days old, and due at {terms['max_age']}"
        others = [key["id"] for key in look["keys"] if key["id"] != current["id"]]
        rotate = {**more, "wave": terms["wave"], "terms": terms}
        if not others:
            return self.line(name, "rotate", "Due", f"{why}.", **rotate)
        if others == [look["retire"]] and look["keep"] != others[0]:
            why += f"; key {others[0]} is retired first, as its owner said."
            return self.line(name, "rotate", "Retire", why, **{**rotate, "key_id": others[0]})
        return self.line(name, "skip", "TwoKeys", f"{why}, and it has another key.", **more)

    def findings(self, user: dict) -> list:
        """Keys that nobody manages, and keys that nobody uses."""
        found, active = [], [key for key in user["keys"] if key["active"]]
        if user["user"] not in self.by_user and not self.exemption(user):
            _, terms = self.decide(user)
            for key in active:
                if self.is_over(key["since"], terms):
                    days = self.days(key["since"])
                    why = f"A key is {days} days old, and no secret in {', '.join(self.regions)} names the user."
                    found.append(self.line(user["user"], "find", "OverAge", why, age_days=days))
            if len(active) > 1:
                why = f"It has {len(active)} Active keys."
                found.append(self.line(user["user"], "find", "TwoActive", why))
        quiet = self.now - rotation.duration(self.policy.get("unused_after", "90days"))
        for key in active:
            used = key["since"] if key["never"] else key["used"]
            if used is not None and used <= quiet:
                why = f"An Active key of it was used last on {used:%Y-%m-%d}, or never."
                days = self.days(key["since"])
                found.append(self.line(user["user"], "find", "Unused", why, age_days=days))
        return found

    def plan(self, users: list, root_key: bool, looks: dict) -> list:
        """All lines: what is rotated in its order, what is left alone, what was found."""
        rotate, rest = [], []
        if root_key:
            rest.append(self.line("<root_account>", "find", "RootKey", "The root user has an access key."))
        for user in users:
            if user["user"] in self.by_user:
                line = self.verdict(user, looks.get(user["user"]))
                (rotate if line["action"] == "rotate" else rest).append(line)
            rest += self.findings(user)
        for name in self.by_user.keys() - {user["user"] for user in users}:
            rest.append(self.line(name, "skip", "NoSuchUser", "IAM had no such user when it made its report."))
        for exemption in self.policy.get("exemptions", []):
            left = datetime.fromisoformat(exemption["until"]).date() - self.now.date()
            if left < timedelta(14):
                why = f"Its exemption ends on {exemption['until']} ({exemption['owner']})."
                rest.append(self.line(exemption["user"], "find", "ExemptionEnds", why))
        rotate.sort(key=lambda line: (line["wave"], -line["age_days"], line["user"]))
        allowed = self.policy.get("limits", {}).get("keys_per_run", 50)
        for index, line in enumerate(rotate):
            if index >= allowed:
                why = f"{line['why']} A run rotates {allowed} keys; this one is for the next."
                line.update(action="skip", code="Limit", why=why, wave=None, terms=None)
        order = ("rotate", "skip", "find")
        rest.sort(key=lambda line: (order.index(line["action"]), line["user"], line["code"]))
        return rotate + rest
