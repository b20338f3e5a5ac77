//! Paths, templates, results and choices: how a machine reads and writes its document.

use jiff::Timestamp;
use serde_json::{Map, Value};

/// What a path names; `None` where there is nothing. `$$` reads the context.
pub(super) fn select(path: &str, input: &Value, context: &Value) -> Option<Value> {
    let (mut at, rest) = match path.strip_prefix("$$") {
        Some(rest) => (context, rest),
        None => (
            input,
            path.strip_prefix('$').unwrap_or_else(|| panic!("{path} is no path that the walker knows")),
        ),
    };
    for part in rest.split('.').skip(1) {
        let (name, index) = match part.split_once('[') {
            Some((name, index)) => (name, Some(index.strip_suffix(']').unwrap().parse::<usize>().unwrap())),
            None => (part, None),
        };
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        assert!(plain && !name.is_empty(), "{path} is no path that the walker knows");
        at = at.get(name)?;
        if let Some(index) = index {
            at = at.get(index)?;
        }
    }
    Some(at.clone())
}

/// Whether a state's parameters name the execution's own input, which is too large to be carried along for nothing.
pub(super) fn asks_for_input(state: &Value) -> bool {
    let fields = state.get("Parameters").and_then(Value::as_object);
    fields.is_some_and(|fields| fields.values().any(|value| *value == "$$.Execution.Input"))
}

/// `InputPath` and `OutputPath`.
pub(super) fn through(path: Option<&Value>, document: &Value, context: &Value) -> Value {
    match path {
        None => document.clone(),
        Some(Value::Null) => Value::Object(Map::new()),
        Some(path) => {
            let path = path.as_str().unwrap();
            select(path, document, context).unwrap_or_else(|| panic!("States.Runtime: nothing at {path}"))
        }
    }
}

/// A template: fields whose name ends in `.$` are paths.
pub(super) fn fill(template: &Value, input: &Value, context: &Value) -> Value {
    match template {
        Value::Object(fields) => {
            let fill = |(name, value): (&String, &Value)| match name.strip_suffix(".$") {
                Some(name) => {
                    let path = value.as_str().unwrap();
                    let value = match path.strip_prefix("States.") {
                        Some(call) => Some(intrinsic(call, input, context)),
                        None => select(path, input, context),
                    };
                    (name.to_owned(), value.unwrap_or_else(|| panic!("States.Runtime: nothing at {path}")))
                }
                None => (name.clone(), fill(value, input, context)),
            };
            Value::Object(fields.iter().map(fill).collect())
        }
        Value::Array(items) => items.iter().map(|item| fill(item, input, context)).collect(),
        plain => plain.clone(),
    }
}

/// The one intrinsic function that the machines use.
fn intrinsic(call: &str, input: &Value, context: &Value) -> Value {
    let arguments = call.strip_prefix("ArrayContains(").and_then(|rest| rest.strip_suffix(')'));
    let arguments = arguments.unwrap_or_else(|| panic!("States.{call} is not known to the walker"));
    let (array, wanted) = arguments.split_once(", ").unwrap();
    let array = select(array, input, context).unwrap_or_else(|| panic!("States.Runtime: nothing at {array}"));
    let wanted: Value = serde_json::from_str(wanted).unwrap();
    array.as_array().unwrap().contains(&wanted).into()
}

/// What a state is given: its Parameters, or its input.
pub(super) fn parameters(state: &Value, input: &Value, context: &Value) -> Value {
    state.get("Parameters").map_or_else(|| input.clone(), |template| fill(template, input, context))
}

/// What a task gives: its `ResultSelector` over the result, or the result.
pub(super) fn result(state: &Value, result: Value, context: &Value) -> Value {
    match state.get("ResultSelector") {
        Some(template) => fill(template, &result, context),
        None => result,
    }
}

/// Puts a result where `ResultPath` says: instead of the document, nowhere, or in it.
pub(super) fn place(path: Option<&Value>, mut document: Value, result: Value) -> Value {
    match path {
        None => result,
        Some(Value::Null) => document,
        Some(path) => {
            let path = path.as_str().unwrap();
            let rest = path.strip_prefix('$').unwrap();
            let mut at = &mut document;
            for name in rest.split('.').skip(1) {
                assert!(!name.contains('['), "{path} is no ResultPath that the walker knows");
                at = &mut at[name];
            }
            *at = result;
            document
        }
    }
}

/// The state that a Choice goes to.
pub(super) fn choose(state: &Value, input: &Value, context: &Value) -> String {
    let chosen = state["Choices"].as_array().unwrap().iter().find(|rule| holds(rule, input, context));
    let next = chosen.map_or_else(|| state.get("Default"), |rule| rule.get("Next"));
    next.and_then(Value::as_str).unwrap_or_else(|| panic!("States.NoChoiceMatched for {input}")).to_owned()
}

fn holds(rule: &Value, input: &Value, context: &Value) -> bool {
    let fields = rule.as_object().unwrap();
    let all = |rules: &Value| rules.as_array().unwrap().iter().all(|rule| holds(rule, input, context));
    let any = |rules: &Value| rules.as_array().unwrap().iter().any(|rule| holds(rule, input, context));
    if let Some(rules) = fields.get("And") {
        return all(rules);
    }
    if let Some(rules) = fields.get("Or") {
        return any(rules);
    }
    if let Some(rule) = fields.get("Not") {
        return !holds(rule, input, context);
    }
    let path = fields["Variable"].as_str().unwrap();
    let found = select(path, input, context);
    let operators: Vec<_> =
        fields.iter().filter(|(name, _)| !["Variable", "Next", "Comment"].contains(&name.as_str())).collect();
    let [(operator, wanted)] = operators.as_slice() else { panic!("a rule with not one operator: {rule}") };
    if *operator == "IsPresent" {
        return found.is_some() == wanted.as_bool().unwrap();
    }
    let found = found.unwrap_or_else(|| panic!("States.Runtime: nothing at {path}"));
    let time = |value: &Value| value.as_str().and_then(|text| text.parse::<Timestamp>().ok());
    match operator.as_str() {
        "IsNull" => found.is_null() == wanted.as_bool().unwrap(),
        // Another type than the operator's does not match, and is no error.
        "StringEquals" => found.is_string() && found == **wanted,
        "BooleanEquals" => found.is_boolean() && found == **wanted,
        "NumericEquals" => found.as_f64().is_some() && found.as_f64() == wanted.as_f64(),
        "NumericLessThan" => found.as_f64() < wanted.as_f64() && found.is_number(),
        "NumericGreaterThan" => found.as_f64() > wanted.as_f64(),
        "NumericGreaterThanEquals" => found.is_number() && found.as_f64() >= wanted.as_f64(),
        "TimestampLessThan" => time(&found).is_some() && time(&found) < time(wanted),
        "TimestampGreaterThan" => time(&found) > time(wanted),
        "StringEqualsPath" => {
            found.is_string() && Some(found) == select(wanted.as_str().unwrap(), input, context)
        }
        other => panic!("the walker does not know the operator {other}"),
    }
}
