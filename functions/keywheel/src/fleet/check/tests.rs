use serde_json::{Value, json};

use super::*;

fn mistakes(document: Value) -> Vec<String> {
    match FleetPolicy::read(document) {
        Ok(_) => Vec::new(),
        Err(mistakes) => mistakes.iter().map(Mistake::to_string).collect(),
    }
}

/// The one mistake of a document.
fn mistake(document: &Value) -> String {
    let found = mistakes(document.clone());
    assert_eq!(found.len(), 1, "{document}: {found:?}");
    found.into_iter().next().unwrap()
}

fn rule(fields: &Value) -> Value {
    let mut rule = json!({"name": "r"});
    rule.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    json!({"rules": [rule]})
}

#[test]
fn an_empty_policy_and_every_frequency_are_right() {
    assert_eq!(mistakes(json!({})), [""; 0]);
    for frequency in ["daily", "weekly", "monthly", "90d"] {
        assert_eq!(mistakes(json!({"defaults": {"frequency": frequency}})), [""; 0], "{frequency}");
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn every_kind_of_mistake_is_named_at_its_place() {
    let exemption = |field: &str, value: Value| {
        let mut exemption = json!({"user": "a", "owner": "b", "reason": "c", "until": "2027-03-31"});
        exemption[field] = value;
        json!({"exemptions": [exemption]})
    };
    let freeze = |field: &str, value: Value| {
        let mut freeze =
            json!({"from": "2026-12-20T00:00:00Z", "until": "2027-01-04T00:00:00Z", "reason": "x"});
        freeze[field] = value;
        json!({"limits": {"freeze": [freeze]}})
    };
    let set = |field: &str, value: Value| rule(&json!({"set": {field: value}}));
    let table = [
        (json!([]), "", "a policy has fields"),
        (json!("fleet"), "", "a policy has fields"),
        (json!({"defaults": []}), "defaults", "a list stands"),
        (json!({"rules": [["a"]]}), "rules[0]", "a list stands"),
        (json!({"default": {}}), "default", "unknown field `default`"),
        (json!({"defaults": {"max-age": "90d"}}), "defaults.max-age", "unknown field `max-age`"),
        (json!({"defaults": {"frequency": "hourly"}}), "defaults.frequency", "unknown variant `hourly`"),
        (json!({"defaults": {"max_age": 90}}), "defaults.max_age", "expected a string"),
        (json!({"defaults": {"grace": "soon"}}), "defaults.grace", "\"soon\" is not understood"),
        (json!({"defaults": {"overlap": "15d"}}), "defaults.overlap", "longer than the longest overlap"),
        (json!({"defaults": {"max_age": "21d"}}), "defaults.max_age", "have passed"),
        (json!({"defaults": {"quiet_window": "4h"}}), "defaults.quiet_window", "4h 15m"),
        (json!({"defaults": {"cache": "14d"}}), "defaults.cache", "ever fall quiet"),
        (json!({"defaults": {"when_still_in_use": "delete"}}), "defaults.when_still_in_use", "`delete`"),
        (json!({"defaults": {"wave": -1}}), "defaults.wave", "invalid value"),
        (json!({"defaults": {"warn": "23h"}}), "defaults.warn", "shorter than 1day"),
        (json!({"defaults": {"warn": "90d"}}), "defaults.warn", "cannot be told 90days before"),
        (set("warn", json!("0s")), "rules[0].set.warn", "shorter than 1day"),
        (
            json!({"defaults": {"warn": "7d"}, "rules": [{"name": "a", "set": {"frequency": "weekly"}}]}),
            "rules[0].set.frequency",
            "due at 7days, and its owner cannot be told 7days before",
        ),
        (
            json!({"defaults": {"warn": "25d"}, "rules": [{"name": "a", "set": {"max_age": "22d"}}]}),
            "rules[0].set.max_age",
            "cannot be told",
        ),
        (
            json!({"defaults": {"unused": {"disable_after": "29d"}}}),
            "defaults.unused.disable_after",
            "shorter than 30days",
        ),
        (
            set("unused", json!({"disable_after": "30d", "delete_after": "6d"})),
            "rules[0].set.unused.delete_after",
            "shorter than 7days",
        ),
        (
            set("unused", json!({"disable_after": "30d", "delete_after": "181d"})),
            "rules[0].set.unused.delete_after",
            "longer than 180days",
        ),
        (
            set("unused", json!({"delete_after": "7d"})),
            "rules[0].set.unused",
            "missing field `disable_after`",
        ),
        (
            set("unused", json!({"disable_after": "30d", "keep": true})),
            "rules[0].set.unused.keep",
            "unknown field `keep`",
        ),
        (set("unused", json!("120d")), "rules[0].set.unused", "expected struct Removal"),
        (set("wave", json!(100)), "rules[0].set.wave", "0 to 99"),
        (set("owner", json!(" ")), "rules[0].set.owner", "has a name"),
        (set("max_age", json!("800d")), "rules[0].set.max_age", "longer than a year"),
        (set("grace", json!("80d")), "rules[0].set.grace", "before the longest overlap"),
        (json!({"rules": [{"set": {}}]}), "rules[0]", "missing field `name`"),
        (json!({"rules": [{"name": "a b"}]}), "rules[0].name", "not a name"),
        (json!({"rules": [{"name": "defaults"}]}), "rules[0].name", "means the defaults"),
        (
            json!({"rules": [{"name": "a", "match": {"user": "x"}}, {"name": "a"}]}),
            "rules[1].name",
            "as well",
        ),
        (json!({"rules": null}), "rules", "nothing stands behind"),
        (json!({"defaults": {"grace": "1m"}}), "defaults.grace", "shorter than 1h"),
        (json!({"defaults": {"overlap": "0s"}}), "defaults.overlap", "shorter than 1h"),
        (rule(&json!({"match": {"user": "a b"}})), "rules[0].match.user", "fits no user"),
        (rule(&json!({"match": {"user": null}})), "rules[0].match.user", "nothing stands behind"),
        (rule(&json!({"match": {"path": "vendors/"}})), "rules[0].match.path", "begins and ends"),
        (rule(&json!({"match": {"account": 12}})), "rules[0].match.account", "12 digits, in quotes"),
        (rule(&json!({"match": {"tags": {"team": 1}}})), "rules[0].match.tags.team", "expected a string"),
        (rule(&json!({"match": {"name": "x"}})), "rules[0].match.name", "unknown field `name`"),
        (exemption("owner", json!("")), "exemptions[0].owner", "says its owner"),
        (exemption("reason", json!(" ")), "exemptions[0].reason", "says its reason"),
        (exemption("until", json!("31.03.2027")), "exemptions[0].until", "like 2027-03-31"),
        (exemption("user", json!("*/x")), "exemptions[0].user", "fits no user"),
        (
            json!({"exemptions": [{"user": "a", "owner": "b", "reason": "c"}]}),
            "exemptions[0]",
            "missing field `until`",
        ),
        (freeze("until", json!("2026-12-20T00:00:00Z")), "limits.freeze[0].until", "begins at"),
        (freeze("from", json!("2026-12-20")), "limits.freeze[0].from", "with its zone"),
        (freeze("reason", json!("")), "limits.freeze[0].reason", "says its reason"),
        (json!({"limits": {"keys_per_run": 0}}), "limits.keys_per_run", "1 to 10000"),
        (json!({"limits": {"failure_tolerance_percent": 101}}), "limits.failure_tolerance_percent", "100"),
        (json!({"regions": ["Ireland"]}), "regions[0]", "such as eu-west-1"),
        (json!({"regions": ["eu-west-1", "eu-west-1"]}), "regions[1]", "twice"),
        (json!({"accounts": ["4444"]}), "accounts[0]", "12 digits, in quotes"),
        (json!({"accounts": ["444455556666", 44_455_556_666_u64]}), "accounts[1]", "12 digits, in quotes"),
        (json!({"accounts": ["444455556666", 444_455_556_666_u64]}), "accounts[1]", "named twice"),
        (json!({"accounts": [["444455556666"]]}), "accounts[0]", "a list stands"),
        (json!({"accounts": "444455556666"}), "accounts", "expected a sequence"),
        (json!({"unused_after": "1h"}), "unused_after", "cannot answer"),
    ];
    assert!(table.len() >= 30);
    for (document, place, what) in table {
        let said = mistake(&document);
        let (at, words) = if place.is_empty() { ("", said.as_str()) } else { said.split_once(": ").unwrap() };
        assert_eq!(at, place, "{said}");
        assert!(words.contains(what), "{said}");
    }
}

#[test]
fn unused_keys_go_after_a_month_or_later_and_are_kept_or_deleted_after_a_week_or_later() {
    for delete_after in [Value::Null, json!("7d"), json!("180d")] {
        let mut unused = json!({"disable_after": "30d", "delete_after": delete_after});
        if delete_after.is_null() {
            unused.as_object_mut().unwrap().remove("delete_after");
        }
        assert_eq!(mistakes(json!({"defaults": {"unused": unused}})), [""; 0], "{unused}");
    }
}

#[test]
fn a_warning_comes_a_day_before_a_key_is_due_or_earlier_and_daily_keys_have_none() {
    for warn in ["1d", "24h", "89d 23h"] {
        assert_eq!(mistakes(json!({"defaults": {"warn": warn}})), [""; 0], "{warn}");
    }
    let daily = json!({"defaults": {"warn": "7d"}, "rules": [{"name": "a", "set": {"frequency": "daily"}}]});
    assert_eq!(mistakes(daily), [""; 0]);
    let asked = rule(&json!({"set": {"frequency": "daily", "warn": "1d"}}));
    assert!(mistake(&asked).starts_with("rules[0].set.warn: a key is due at 1day"), "{asked}");
}

#[test]
fn contradictions_are_said_all_at_once_and_where_they_were_made() {
    let found = mistakes(json!({
        "defaults": {"frequency": "daily"},
        // The frequency of the defaults leaves no room for this grace; the rule is to blame.
        "rules": [{"name": "a", "match": {"user": "a"}, "set": {"grace": "3d"}},
                  {"name": "b", "match": {"user": "b"}, "set": {"wave": 3}}],
        "limits": {"keys_per_run": 0},
    }));
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("rules[0].set.grace: a key is due at 1day"), "{found:?}");
    assert!(found[1].starts_with("limits.keys_per_run"), "{found:?}");
}
