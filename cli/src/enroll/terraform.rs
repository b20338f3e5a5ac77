//! Keys that Terraform made. It would undo what a rotation does: make a key anew that is gone, or put the old pair
//! back into the secret. So whoever enrols such a user is told what to write, and that the state holds the pair.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::error::{Result, Trouble};
use crate::input;

/// The most that is read of a state.
const LONGEST: usize = 256 * 1024 * 1024;

/// Whether tags say that Terraform, or its like, keeps the thing.
pub(super) fn signs(tags: &BTreeMap<String, String>) -> bool {
    let speaks = |text: &str| {
        let text = text.to_ascii_lowercase();
        ["terraform", "opentofu", "terragrunt"].iter().any(|name| text.contains(name))
    };
    tags.iter().any(|(name, value)| speaks(name) || speaks(value))
}

/// What a state knows of a user and its secret: addresses only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// The user's keys.
    keys: Vec<Kept>,
    /// Versions of the secret.
    versions: Vec<Kept>,
}

/// One instance of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kept {
    /// The resource's address, without the index of any instance.
    resource: String,
    /// Its own address.
    instance: String,
    /// Whether the resource, or a module around it, has several: then a block cannot name this one alone.
    one_of_several: bool,
    /// The key's id.
    id: Option<String>,
}

#[derive(Deserialize)]
struct State<'a> {
    version: u64,
    #[serde(borrow, default)]
    resources: Vec<Resource<'a>>,
}

#[derive(Deserialize)]
struct Resource<'a> {
    #[serde(default)]
    module: Option<String>,
    mode: String,
    #[serde(rename = "type")]
    kind: String,
    name: String,
    /// Read for the kinds that concern us alone: the attributes of others have other types.
    #[serde(borrow, default)]
    instances: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Instance {
    #[serde(default)]
    index_key: Option<Value>,
    #[serde(default)]
    attributes: Option<Attributes>,
}

/// The attributes that are looked at. `secret` is not among them.
#[derive(Deserialize)]
struct Attributes {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    secret_id: Option<String>,
}

/// Looks through a state file for this user's keys and this secret's versions.
pub(super) fn read(file: &Path, user: &str, secret: &[&str]) -> Result<Known> {
    let text = input::text(file, LONGEST, "a Terraform state, such as `terraform state pull` writes")?;
    known(&text, user, secret).ok_or_else(|| {
        Trouble::new(
            format!("{} is no Terraform state of version 4.", file.display()),
            "`terraform state pull > FILE` writes one; an encrypted state is written in the clear by it.",
        )
    })
}

fn known(text: &str, user: &str, secret: &[&str]) -> Option<Known> {
    // What serde says of a mistake may quote the text, and the text holds the pair.
    let state: State<'_> = serde_json::from_str(text).ok()?;
    if state.version != 4 {
        return None;
    }
    let mut known = Known::default();
    for resource in state.resources.iter().filter(|resource| resource.mode == "managed") {
        let list = match resource.kind.as_str() {
            "aws_iam_access_key" => &mut known.keys,
            "aws_secretsmanager_secret_version" => &mut known.versions,
            _ => continue,
        };
        let Some(raw) = resource.instances else { continue };
        let instances: Vec<Instance> = serde_json::from_str(raw.get()).ok()?;
        for instance in &instances {
            let Some(has) = &instance.attributes else { continue };
            let ours = match resource.kind.as_str() {
                "aws_iam_access_key" => has.user.as_deref() == Some(user),
                _ => has.secret_id.as_deref().is_some_and(|id| secret.contains(&id)),
            };
            if ours {
                let id = has.id.clone().filter(|_| has.user.is_some());
                list.push(kept(resource, instance.index_key.as_ref(), id));
            }
        }
    }
    Some(known)
}

fn kept(resource: &Resource<'_>, index: Option<&Value>, id: Option<String>) -> Kept {
    let local = format!("{}.{}", resource.kind, resource.name);
    let module = resource.module.as_deref().unwrap_or_default();
    let dot = if module.is_empty() { "" } else { "." };
    let plain = without_indices(module);
    let place = index.map_or_else(String::new, |index| format!("[{index}]"));
    Kept {
        resource: format!("{plain}{dot}{local}"),
        instance: format!("{module}{dot}{local}{place}"),
        one_of_several: index.is_some() || plain != module,
        id,
    }
}

/// A module's address as a block names it: `module.a["x.y"].module.b` is `module.a.module.b`.
fn without_indices(module: &str) -> String {
    let (mut plain, mut inside, mut quoted, mut escaped) = (String::new(), false, false, false);
    for c in module.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' if inside => quoted = !quoted,
            '[' if !quoted => inside = true,
            ']' if !quoted => inside = false,
            _ if !inside => plain.push(c),
            _ => {}
        }
    }
    plain
}

/// What to do about it, line by line.
pub(super) fn advice(user: &str, known: Option<&Known>) -> Vec<String> {
    let mut lines = Vec::new();
    match known.map(|known| known.keys.as_slice()) {
        None => {
            lines.push(format!(
                "Tags say that Terraform keeps user {user}. Where it keeps the user's key as well, take that out of its state before the first rotation, or it makes the key anew when it is gone. `--terraform-state FILE` finds the key; with NAME as it is called there (Terraform 1.7 or later):"
            ));
            lines.extend(removed("aws_iam_access_key.NAME"));
        }
        Some([]) => lines.push(format!("The state holds no key of user {user}.")),
        Some(keys) => {
            for key in keys {
                let id = key.id.as_deref().unwrap_or("whose id it does not say");
                lines.push(format!(
                    "The state holds key {id} of user {user} as {}, with its secret access key: whoever reads the state has the pair until it is rotated.",
                    key.instance
                ));
                if key.one_of_several {
                    lines.push("It is one of several, so take it alone out of the state, and out of the configuration:".to_owned());
                    lines.push(format!("  terraform state rm '{}'", key.instance));
                } else {
                    lines.push(
                        "Put this in the place of its resource block, and apply (Terraform 1.7 or later):"
                            .to_owned(),
                    );
                    lines.extend(removed(&key.resource));
                }
            }
        }
    }
    lines.extend(ignored(known));
    lines
}

fn removed(address: &str) -> Vec<String> {
    ["removed {".to_owned(), format!("  from = {address}"), "  lifecycle {".to_owned()]
        .into_iter()
        .chain(["    destroy = false".to_owned(), "  }".to_owned(), "}".to_owned()])
        .collect()
}

fn ignored(known: Option<&Known>) -> Vec<String> {
    let mut lines = vec!["And let it leave Keywheel's tags alone, in the provider's block:".to_owned()];
    lines.extend(
        ["provider \"aws\" {", "  ignore_tags {", "    key_prefixes = [\"keywheel:\"]", "  }", "}"]
            .map(str::to_owned),
    );
    let version = match known.map(|known| known.versions.as_slice()) {
        None => "the secret's aws_secretsmanager_secret_version, if it has one,",
        Some([]) => return lines,
        Some([version]) => version.resource.as_str(),
        Some(_) => "each aws_secretsmanager_secret_version of the secret",
    };
    lines.push(format!("And in {version} leave the value to the rotations:"));
    lines.extend(
        ["lifecycle {", "  ignore_changes = [secret_string, version_stages]", "}"].map(str::to_owned),
    );
    lines
}

#[cfg(test)]
mod tests;
