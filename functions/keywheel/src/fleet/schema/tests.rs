//! The schema is read here by the few keywords that it uses, and any other one fails the test: a whole validator would
//! bring many crates along. Which fields and values the types have is taken from what serde says when it refuses one,
//! so that nobody keeps a list of them.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use jiff::Timestamp;
use jiff::civil::Date;
use regex_lite::Regex;
use serde_json::{Value, json};

use super::SCHEMA;
use crate::fleet::FleetPolicy;

/// Mistakes of fields together, and of durations, which a pattern cannot compare: `policy check` alone tells them.
const TOLD_BY_CHECK: [&str; 12] = [
    "is longer than the longest overlap",
    "have passed",
    "answer for",
    "ever fall quiet",
    "shorter than 1h",
    "shorter than 1day",
    "shorter than 30days",
    "shorter than 7days",
    "longer than 180days",
    "cannot be told",
    "longer than a year",
    "it ends at",
];

fn schema() -> &'static Value {
    static SCHEMA_READ: LazyLock<Value> = LazyLock::new(|| serde_json::from_str(SCHEMA).unwrap());
    &SCHEMA_READ
}

/// A part of the schema, or the one that it refers to.
fn followed(part: &'static Value) -> &'static Value {
    match part.get("$ref").and_then(Value::as_str) {
        Some(to) => followed(schema().pointer(to.strip_prefix('#').unwrap()).unwrap()),
        None => part,
    }
}

/// Whether a value is what a part of the schema asks for.
fn fits(part: &'static Value, value: &Value) -> bool {
    let rules = part.as_object().unwrap_or_else(|| panic!("nothing is said of {value}"));
    // A keyword about texts, say, says nothing of a number.
    let (text, number, fields) = (value.as_str(), value.as_f64(), value.as_object());
    rules.iter().all(|(keyword, said)| match keyword.as_str() {
        "$schema" | "$defs" | "title" | "description" | "examples" | "default" => true,
        "$ref" => fits(followed(part), value),
        "type" => match said {
            Value::Array(kinds) => kinds.iter().any(|kind| is(kind, value)),
            kind => is(kind, value),
        },
        "enum" => said.as_array().unwrap().contains(value),
        "const" => said == value,
        "not" => !fits(said, value),
        "pattern" => text.is_none_or(|text| Regex::new(said.as_str().unwrap()).unwrap().is_match(text)),
        "format" => text.is_none_or(|text| match said.as_str().unwrap() {
            "date" => text.parse::<Date>().is_ok(),
            "date-time" => text.parse::<Timestamp>().is_ok(),
            other => panic!("format {other}"),
        }),
        "minimum" => number.is_none_or(|number| number >= said.as_f64().unwrap()),
        "maximum" => number.is_none_or(|number| number <= said.as_f64().unwrap()),
        "required" => fields.is_none_or(|has| texts(said).iter().all(|name| has.contains_key(*name))),
        "properties" => fields.is_none_or(|has| {
            has.iter().all(|(name, value)| said.get(name).is_none_or(|part| fits(part, value)))
        }),
        "additionalProperties" => fields.is_none_or(|has| {
            let mut others = has.iter().filter(|(name, _)| part["properties"].get(name.as_str()).is_none());
            others.all(|(_, value)| *said != json!(false) && fits(said, value))
        }),
        "items" => value.as_array().is_none_or(|items| items.iter().all(|item| fits(said, item))),
        "uniqueItems" => value.as_array().is_none_or(|items| {
            let mut before = items.iter().enumerate();
            before.all(|(index, item)| !items[..index].contains(item))
        }),
        other => panic!("keyword {other}"),
    })
}

fn is(kind: &Value, value: &Value) -> bool {
    match kind.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        other => panic!("type {other}"),
    }
}

fn texts(list: &Value) -> BTreeSet<&str> {
    list.as_array().into_iter().flatten().map(|text| text.as_str().unwrap()).collect()
}

/// A policy that leaves nothing out, as it is written.
fn everything() -> Value {
    let set = json!({
        "frequency": "90d", "max_age": "90d", "warn": "7d", "overlap": "24h", "max_overlap": "14d",
        "quiet_window": "24h", "grace": "7d", "cache": "1h", "when_still_in_use": "hold", "wave": 2,
        "owner": "mail@example.com", "unused": {"disable_after": "120d", "delete_after": "30d"},
    });
    let policy = json!({
        "defaults": &set,
        "rules": [{
            "name": "mail",
            "match": {
                "user": "svc-mail-*", "path": "/vendors/*", "account": 111_122_223_333_u64, "tags": {"team": "mail"},
            },
            "set": &set,
        }],
        "exemptions": [{
            "user": "svc-sap", "account": "012345678901", "owner": "sap", "reason": "on leave", "until": "2027-03-31",
        }],
        "limits": {
            "keys_per_run": 50,
            "failure_tolerance_percent": 10,
            "freeze": [
                {"from": "2026-12-20T00:00:00Z", "until": "2027-01-04T00:00:00Z", "reason": "year end"},
            ],
        },
        "regions": ["eu-west-1"],
        "accounts": ["444455556666"],
        "unused_after": "60d",
    });
    assert!(fits(schema(), &policy));
    serde_json::to_value(FleetPolicy::read(policy).unwrap()).unwrap()
}

/// Each value in a document, by its JSON pointer, with the part of the schema that speaks of it.
fn parts(pointer: String, value: &Value, part: &'static Value, found: &mut Vec<(String, &'static Value)>) {
    let part = followed(part);
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let inner = part["properties"].get(name).unwrap_or(&part["additionalProperties"]);
                parts(format!("{pointer}/{name}"), value, inner, found);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                parts(format!("{pointer}/{index}"), item, &part["items"], found);
            }
        }
        _ => {}
    }
    found.push((pointer, part));
}

fn all_parts(document: &Value) -> Vec<(String, &'static Value)> {
    let mut found = Vec::new();
    parts(String::new(), document, schema(), &mut found);
    found
}

/// A document with another value at one place.
fn with(document: &Value, pointer: &str, value: Value) -> Value {
    let mut changed = document.clone();
    *changed.pointer_mut(pointer).unwrap() = value;
    changed
}

/// What is wrong with a document whose form is.
fn refusal(document: Value) -> String {
    let mistakes = FleetPolicy::read(document).unwrap_err();
    assert_eq!(mistakes.len(), 1, "{mistakes:?}");
    mistakes[0].what.clone()
}

/// What serde takes in place of what it refuses: its words put each name in backticks, the refused one first.
fn taken(refusal: &str) -> BTreeSet<&str> {
    refusal.split('`').skip(3).step_by(2).collect()
}

#[test]
fn every_object_has_the_fields_that_are_read_and_written_and_requires_those_that_read_misses() {
    let policy = everything();
    let mut seen = 0;
    for (pointer, part) in all_parts(&policy) {
        // Tags have the names that people give them.
        let object = policy.pointer(&pointer).and_then(Value::as_object);
        let Some(fields) = object.filter(|_| !pointer.ends_with("/tags")) else { continue };
        assert_eq!(part["additionalProperties"], json!(false), "{pointer}");
        let listed: BTreeSet<&str> =
            part["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        let written: BTreeSet<&str> = fields.keys().map(String::as_str).collect();
        assert_eq!(listed, written, "{pointer}");
        let mut odd = fields.clone();
        odd.insert("no_such_field".into(), json!("x"));
        let refusal = refusal(with(&policy, &pointer, Value::Object(odd)));
        assert!(refusal.starts_with("unknown field `no_such_field`"), "{pointer}: {refusal}");
        assert_eq!(listed, taken(&refusal), "{pointer}");
        let missed = |name: &&str| {
            let others = fields.iter().filter(|(other, _)| other != name);
            let less: Value = others.map(|(name, value)| (name.clone(), value.clone())).collect();
            FleetPolicy::read(with(&policy, &pointer, less)).is_err()
        };
        let required: BTreeSet<&str> = written.into_iter().filter(missed).collect();
        assert_eq!(texts(&part["required"]), required, "{pointer}");
        seen += 1;
    }
    assert_eq!(
        seen, 10,
        "the document, defaults, a rule, its match and set, unused keys twice, an exemption, limits, a freeze"
    );
}

#[test]
fn every_choice_has_the_values_that_are_read() {
    let policy = everything();
    let mut seen = BTreeSet::new();
    for (pointer, part) in all_parts(&policy) {
        let Some(values) = part.get("enum") else { continue };
        let refusal = refusal(with(&policy, &pointer, json!("no_such_value")));
        assert!(refusal.starts_with("unknown variant `no_such_value`"), "{pointer}: {refusal}");
        assert_eq!(texts(values), taken(&refusal), "{pointer}");
        seen.insert(pointer);
    }
    let settings = ["/defaults", "/rules/0/set"];
    let choices = ["frequency", "when_still_in_use"];
    let all = settings.iter().flat_map(|place| choices.map(|field| format!("{place}/{field}")));
    assert_eq!(seen, all.collect::<BTreeSet<String>>());
}

/// What is put in every place in turn: little of it belongs there.
fn values() -> Vec<Value> {
    let mut values = vec![
        json!(null),
        json!(true),
        json!(1.5),
        json!([]),
        json!({}),
        json!(["eu-west-1"]),
        json!(["eu-west-1", "eu-west-1"]),
        json!(["111122223333", "444455556666"]),
        json!(["111122223333", "111122223333"]),
        json!(["111122223333", "4444"]),
        json!({"team": 1}),
        json!("a".repeat(64)),
        json!("a".repeat(65)),
    ];
    values.extend([-1_i64, 0, 1, 99, 100, 101, 255, 256, 10_000, 10_001].map(Value::from));
    // Accounts: one digit too few, right, and one too many.
    values.extend([99_999_999_999_u64, 100_000_000_000, 999_999_999_999, 1_000_000_000_000].map(Value::from));
    let spans = "|0|0s|5|60|24h|90d|4h 15m|4h15m| 1 0 h |1.5h|1 . 5 h|1.h|.5h|1h.|h|24 hours|5mins|2 wks 1day|12H|\
                 1µs|3ms|1M|1y|1yrs|13months|366d|367d|9999999d|3 fortnights|soon|-1h|0 |1,5h|8h x|8h8";
    let names =
        "daily|weekly|monthly|hourly|hold|deactivate|Hold|mail|defaults|Defaults|a b|svc_+=,.@-*|é|a/b| |-_.";
    let paths = "/|/*|/vendors|/vendors/|/vendors/*|/vendors*|vendors/|*|//";
    let regions = "eu-west-1|us-gov-west-1|eu-west|Eu-west-1|eu_west_1|eu-west-1a|a--|--|eu-west-1 ";
    let accounts = "111122223333|012345678901|11112222333|1111222233334|11112222333x";
    let times = "2027-03-31|2027-02-30|31.03.2027|2027-3-1|2026-12-20T00:00:00Z|2026-12-21T00:00:00+01:00|\
                 2026-12-20T00:00:00|2026-12-20T25:00:00Z";
    for texts in [spans, names, paths, regions, accounts, times] {
        values.extend(texts.split('|').map(Value::from));
    }
    values
}

#[test]
fn the_schema_takes_what_read_takes_and_leaves_only_contradictions_to_it() {
    let (policy, values) = (everything(), values());
    assert!(fits(schema(), &policy));
    let mut told = BTreeSet::new();
    for (pointer, part) in all_parts(&policy) {
        for value in &values {
            let mistakes =
                FleetPolicy::read(with(&policy, &pointer, value.clone())).err().unwrap_or_default();
            // None: a mistake that the schema can see.
            let by_check = |what: &str| TOLD_BY_CHECK.into_iter().find(|words| what.contains(*words));
            let by_check: BTreeSet<Option<&str>> =
                mistakes.iter().map(|mistake| by_check(&mistake.what)).collect();
            assert_eq!(fits(part, value), !by_check.contains(&None), "{pointer} is {value}: {mistakes:?}");
            told.extend(by_check.into_iter().flatten());
        }
    }
    assert_eq!(told, BTreeSet::from(TOLD_BY_CHECK));
}

#[test]
fn examples_and_defaults_are_right() {
    fn look(part: &'static Value, seen: &mut usize) {
        for example in part.get("examples").and_then(Value::as_array).into_iter().flatten() {
            assert!(fits(part, example), "{example}");
            *seen += 1;
        }
        match part {
            Value::Object(fields) => fields.values().for_each(|inner| look(inner, seen)),
            Value::Array(items) => items.iter().for_each(|inner| look(inner, seen)),
            _ => {}
        }
    }
    let mut seen = 0;
    look(schema(), &mut seen);
    assert!(seen >= 10, "{seen}");
    let limits = &schema()["$defs"]["limits"]["properties"];
    let shown = json!({
        "limits": {
            "keys_per_run": &limits["keys_per_run"]["default"],
            "failure_tolerance_percent": &limits["failure_tolerance_percent"]["default"],
        },
        "unused_after": &schema()["properties"]["unused_after"]["default"],
    });
    assert_eq!(FleetPolicy::read(shown).unwrap(), FleetPolicy::default());
}

#[test]
fn every_field_is_described() {
    let mut objects = vec![schema()];
    objects.extend(schema()["$defs"].as_object().unwrap().values());
    for object in objects {
        assert!(object["title"].is_string(), "{object}");
        for (name, field) in object["properties"].as_object().into_iter().flatten() {
            assert!(field["description"].is_string(), "{name}");
        }
    }
}
