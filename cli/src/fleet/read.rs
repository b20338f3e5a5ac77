//! A fleet's policy as a text, in YAML or JSON, with the line of every mistake in it.
//!
//! JSON is read as the YAML that it is. The document is read twice: once into a tree whose every node knows its line,
//! once from that tree into the typed policy, whose mistakes name their field; the tree then tells the field's line.

use std::fmt;
use std::io::Read;
use std::path::Path;

use keywheel::fleet::FleetPolicy;
use keywheel::fleet::check::Mistake;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value, json};
use serde_saphyr::Spanned;

use crate::error::{Result, Trouble};

/// A mistake and where it stands; line 0 is unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Located {
    line: u64,
    mistake: Mistake,
}

impl Located {
    pub(super) fn json(&self) -> Value {
        json!({ "line": self.line, "field": self.mistake.place, "error": self.mistake.what })
    }
}

impl fmt::Display for Located {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.mistake)
    }
}

/// The most that is read: a policy is written by people.
const LONGEST: u64 = 1024 * 1024;

/// The text of a file, or of standard input.
pub(super) fn text(file: &Path) -> Result<String> {
    let mut text = String::new();
    let read = if file.as_os_str() == "-" {
        std::io::stdin().take(LONGEST + 1).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|open| open.take(LONGEST + 1).read_to_string(&mut text))
    };
    read.map_err(|error| {
        Trouble::new(
            format!("{} cannot be read: {error}.", file.display()),
            "Name a file with one policy, or - for standard input.",
        )
    })?;
    // Cut off, it would be another policy: one without its last exemptions, say.
    if text.len() as u64 > LONGEST {
        return Err(Trouble::new(
            format!("{} holds more than {LONGEST} bytes.", file.display()),
            "Name a file with one policy.",
        ));
    }
    Ok(text)
}

/// The policy of a file; trouble that names every mistake where it has some.
pub(super) fn file(file: &Path) -> Result<FleetPolicy> {
    policy(&text(file)?).map_err(|mistakes| {
        let lines: Vec<String> =
            mistakes.iter().map(|mistake| format!("{}:{mistake}", file.display())).collect();
        Trouble::new(lines.join("\n"), refusal(&mistakes))
    })
}

/// What is said under the mistakes.
pub(super) fn refusal(mistakes: &[Located]) -> String {
    let count = match mistakes.len() {
        1 => "1 mistake".to_owned(),
        count => format!("{count} mistakes"),
    };
    format!("The policy has {count} that can be seen; nothing runs on it. `keywheel help policy` shows one.")
}

/// Reads a policy.
pub(super) fn policy(text: &str) -> std::result::Result<FleetPolicy, Vec<Located>> {
    let options = serde_saphyr::options! { with_snippet: false };
    let tree: Spanned<Node> = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let line = error.location().map_or(0, |location| location.line());
        vec![Located { line, mistake: Mistake::new("", error.to_string()) }]
    })?;
    // An empty file is a policy that leaves everything out.
    let document = match tree.value.value() {
        Value::Null => json!({}),
        document => document,
    };
    FleetPolicy::read(document).map_err(|mistakes| {
        mistakes.into_iter().map(|mistake| Located { line: line(&tree, &mistake.place), mistake }).collect()
    })
}

/// A node of the document.
#[derive(Debug)]
enum Node {
    Scalar(Value),
    List(Vec<Spanned<Node>>),
    /// Each key with its line.
    Map(Vec<(Spanned<String>, Spanned<Node>)>),
}

impl Node {
    fn value(&self) -> Value {
        match self {
            Self::Scalar(value) => value.clone(),
            Self::List(items) => items.iter().map(|item| item.value.value()).collect(),
            Self::Map(fields) => {
                let field = |(name, node): &(Spanned<String>, Spanned<Self>)| {
                    (name.value.clone(), node.value.value())
                };
                Value::Object(fields.iter().map(field).collect::<Map<_, _>>())
            }
        }
    }
}

/// The line of a field, or of the innermost one around it that is there.
fn line(tree: &Spanned<Node>, place: &str) -> u64 {
    let mut at = (tree, tree.referenced.line());
    for part in place.split(['.', '[', ']']).filter(|part| !part.is_empty()) {
        let next = match &at.0.value {
            Node::Map(fields) => fields
                .iter()
                .find(|(name, _)| name.value == part)
                .map(|(name, node)| (node, name.referenced.line())),
            Node::List(items) => part
                .parse::<usize>()
                .ok()
                .and_then(|index| items.get(index))
                .map(|item| (item, item.referenced.line())),
            Node::Scalar(_) => None,
        };
        let Some(next) = next else { break };
        at = next;
    }
    at.1
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Node;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a policy")
            }
            fn visit_bool<E: de::Error>(self, value: bool) -> std::result::Result<Node, E> {
                Ok(Node::Scalar(value.into()))
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> std::result::Result<Node, E> {
                Ok(Node::Scalar(value.into()))
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> std::result::Result<Node, E> {
                Ok(Node::Scalar(value.into()))
            }
            fn visit_f64<E: de::Error>(self, value: f64) -> std::result::Result<Node, E> {
                Ok(Node::Scalar(value.into()))
            }
            fn visit_str<E: de::Error>(self, value: &str) -> std::result::Result<Node, E> {
                Ok(Node::Scalar(value.into()))
            }
            fn visit_unit<E: de::Error>(self) -> std::result::Result<Node, E> {
                Ok(Node::Scalar(Value::Null))
            }
            fn visit_none<E: de::Error>(self) -> std::result::Result<Node, E> {
                Ok(Node::Scalar(Value::Null))
            }
            fn visit_some<D: Deserializer<'de>>(self, inner: D) -> std::result::Result<Node, D::Error> {
                Node::deserialize(inner)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<Node, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(Node::List(list))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> std::result::Result<Node, A::Error> {
                let mut map = Vec::new();
                while let Some(field) = fields.next_entry()? {
                    map.push(field);
                }
                Ok(Node::Map(map))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\
# The fleet of one team.
defaults: {frequency: monthly}
rules:
  - name: mail
    match:
      user: svc-mail-*
      account: 111122223333
    set: {wave: 0, owner: mail@example.com}
exemptions:
  - {user: svc-sap, owner: sap, reason: the vendor is on leave, until: 2027-03-31}
limits:
  freeze:
    - from: 2026-12-20T00:00:00Z
      until: 2027-01-04T00:00:00Z
      reason: year end
regions: [eu-west-1]
unused_after: 60d
";

    fn mistakes(text: &str) -> Vec<String> {
        policy(text).unwrap_err().iter().map(Located::to_string).collect()
    }

    #[test]
    fn yaml_and_json_say_the_same() {
        let yaml = policy(GOOD).unwrap();
        assert_eq!((yaml.rules.len(), yaml.exemptions.len(), yaml.limits.freeze.len()), (1, 1, 1));
        let text = serde_json::to_string_pretty(&yaml).unwrap();
        assert_eq!(policy(&text).unwrap(), yaml);
        assert_eq!(policy("").unwrap(), FleetPolicy::default());
        assert_eq!(policy("# nothing yet\n").unwrap(), FleetPolicy::default());
    }

    #[test]
    fn the_policies_that_the_help_and_the_readme_show_have_only_fields_that_are_known() {
        let readme = include_str!("../../../README.md");
        let (_, shown) = readme.split_once("```yaml\n").unwrap();
        let (shown, _) = shown.split_once("```").unwrap();
        for text in [crate::args::SAMPLE, shown] {
            let sample = policy(text).unwrap();
            assert!(
                !sample.rules.is_empty() && !sample.exemptions.is_empty() && !sample.limits.freeze.is_empty()
            );
        }
    }

    #[test]
    fn a_mistake_names_its_line_and_its_field() {
        let with = |old: &str, new: &str| mistakes(&GOOD.replace(old, new));
        assert_eq!(with("frequency: monthly", "max-age: 3d").len(), 1);
        for (old, new, start) in [
            ("frequency: monthly", "max-age: 3d", "2: defaults.max-age: unknown field `max-age`"),
            ("wave: 0", "wave: zero", "8: rules[0].set.wave: invalid type: string \"zero\""),
            ("account: 111122223333", "account: 012345678901", "7: rules[0].match.account: "),
            ("svc-mail-*", "svc mail", "6: rules[0].match.user: \"svc mail\" fits no user"),
            ("until: 2027-01-04T00:00:00Z", "until: 2026-01-04T00:00:00Z", "14: limits.freeze[0].until: "),
            ("unused_after: 60d", "unused_after: 60", "17: unused_after: invalid type: integer"),
            ("  - name: mail\n", "  - nam: mail\n", "4: rules[0].nam: unknown field `nam`"),
        ] {
            let found = with(old, new);
            assert!(found.len() == 1 && found[0].starts_with(start), "{found:?}");
        }
        let json = "{\n  \"defaults\": {\n    \"grace\": \"1y\"\n  }\n}";
        assert!(mistakes(json)[0].starts_with("3: defaults.grace: "), "{:?}", mistakes(json));
    }

    #[test]
    fn what_is_no_document_at_all_is_refused_at_its_line() {
        for (text, start) in [
            ("defaults: {\n", "1: "),
            ("a: 1\na: 2\n", "2: "),
            ("rules:\n  - a\n b: c\n", "3: "),
            ("- a\n", "1: "),
            ("just words\n", "1: "),
        ] {
            let found = mistakes(text);
            assert!(found.len() == 1 && found[0].starts_with(start), "{text:?}: {found:?}");
            assert!(!found[0].contains('\n'), "{found:?}");
        }
    }
}
