//! The repository's own files, for tests that hold one against another.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A file's text.
pub fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every source text at or under a path, with its place in the repository.
pub fn texts(place: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut places = vec![root().join(place)];
    while let Some(place) = places.pop() {
        if place.is_dir() {
            places.extend(std::fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().path()));
        } else if place.extension().is_some_and(|end| end == "rs" || end == "json" || end == "yaml") {
            let path = place.strip_prefix(root()).unwrap().display().to_string();
            found.push((path.clone(), text(&path)));
        }
    }
    found.sort();
    found
}

/// A source without its unit tests, which speak of samples.
pub fn without_tests<'a>(path: &str, text: &'a str) -> &'a str {
    if path.ends_with("tests.rs") || path.ends_with("samples.rs") {
        ""
    } else {
        text.split("#[cfg(test)]").next().unwrap_or(text)
    }
}

/// The template as JSON; `!Ref X` is `{"!Ref": "X"}`.
pub fn template() -> Value {
    yaml("infra/template.yaml")
}

/// The template of one region's intake.
pub fn intake() -> Value {
    yaml("infra/intake.yaml")
}

/// The template of the roles in another account.
pub fn member() -> Value {
    yaml("infra/member.yaml")
}

fn yaml(path: &str) -> Value {
    json(serde_yaml_ng::from_str(&text(path)).unwrap())
}

fn json(value: serde_yaml_ng::Value) -> Value {
    use serde_yaml_ng::Value as Yaml;
    match value {
        Yaml::Tagged(tagged) => Value::Object(Map::from_iter([(tagged.tag.to_string(), json(tagged.value))])),
        Yaml::Sequence(items) => items.into_iter().map(json).collect(),
        Yaml::Mapping(fields) => {
            let field =
                |(name, value): (Yaml, Yaml)| (name.as_str().unwrap_or_default().to_owned(), json(value));
            Value::Object(fields.into_iter().map(field).collect())
        }
        plain => serde_json::to_value(plain).unwrap(),
    }
}

/// Every value under `value`, itself included.
pub fn walk<'a>(value: &'a Value, see: &mut dyn FnMut(&'a Value)) {
    see(value);
    match value {
        Value::Array(items) => items.iter().for_each(|item| walk(item, see)),
        Value::Object(fields) => fields.values().for_each(|item| walk(item, see)),
        _ => {}
    }
}

/// The names that a part of the template refers to, by `!Ref`, `!GetAtt`, `!If` or within `!Sub`.
pub fn references(value: &Value) -> Vec<String> {
    let mut names = Vec::new();
    walk(value, &mut |value| {
        let Some(fields) = value.as_object() else { return };
        for (tag, target) in fields {
            let first = target.as_array().and_then(|items| items.first()).unwrap_or(target);
            let Some(text) = first.as_str() else { continue };
            match tag.as_str() {
                // A resource names its condition plainly; a policy's conditions are no text.
                "!Ref" | "!GetAtt" | "!If" | "!Condition" | "Condition" => {
                    names.push(text.split('.').next().unwrap_or_default().to_owned());
                }
                "!Sub" => names.extend(
                    text.split("${")
                        .skip(1)
                        .filter_map(|rest| Some(rest.split(['}', '.']).next()?.to_owned())),
                ),
                _ => {}
            }
        }
    });
    names
}

/// The machines, by the name of their definition.
pub const MACHINES: [&str; 5] = ["rotation", "emergency", "incident", "fleet", "unused"];

/// A machine's definition.
pub fn machine(name: &str) -> Value {
    serde_json::from_str(&text(&format!("statemachine/{name}.asl.json"))).unwrap()
}

/// A machine and what runs inside its Parallel and Map states: each has states of its own that lead to each other.
pub fn scopes(machine: &Value) -> Vec<&Value> {
    let mut scopes = Vec::new();
    walk(machine, &mut |value| {
        if value.get("StartAt").is_some() && value["States"].is_object() {
            scopes.push(value);
        }
    });
    scopes
}

/// Every state of a machine by its name, those inside others too.
pub fn states(machine: &Value) -> Vec<(&str, &Value)> {
    scopes(machine).into_iter().flat_map(scope_states).collect()
}

/// The states of one scope by their names.
pub fn scope_states(scope: &Value) -> Vec<(&str, &Value)> {
    scope["States"].as_object().unwrap().iter().map(|(name, state)| (name.as_str(), state)).collect()
}
