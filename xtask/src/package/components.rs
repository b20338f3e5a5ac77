//! What the programs were built from, as CycloneDX has it: each crate with its version and licence, and what it uses.
//!
//! Read from cargo, which resolved it: a tool more would have to be trusted to resolve the same.

use std::collections::{BTreeMap, BTreeSet};

use keywheel::package::Architecture;
use serde_json::{Value, json};

use crate::error::{Error, Explain, Result};
use crate::lambdas::cargo;
use crate::process::output;

/// The list for these packages of the workspace, on Linux.
pub(crate) async fn list(roots: &BTreeSet<String>, architecture: Architecture) -> Result<String> {
    let platform = format!("{}-unknown-linux-gnu", architecture.target());
    let mut metadata = cargo();
    metadata.args(["metadata", "--format-version", "1", "--locked", "--filter-platform", &platform]);
    let told = output(&mut metadata, "cargo metadata").await?;
    let told: Value = serde_json::from_str(&told).explain("reading cargo's metadata")?;
    let document = document(&told, roots, env!("CARGO_PKG_VERSION"))?;
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

/// The document. It has no time and no number of its own, so that the same crates give the same text.
fn document(metadata: &Value, roots: &BTreeSet<String>, version: &str) -> Result<Value> {
    let packages = by_id(metadata, "/packages")?;
    let nodes = by_id(metadata, "/resolve/nodes")?;
    let name = |id: &str| packages.get(id).and_then(|package| package["name"].as_str());
    let is_root = |id: &&str| name(id).is_some_and(|name| roots.contains(name));
    let own: BTreeSet<&str> = members(metadata).filter(is_root).collect();
    if own.len() != roots.len() {
        return Err(format!("cargo knows {} of {} programs", own.len(), roots.len()).into());
    }
    let mut open: Vec<&str> = own.iter().copied().collect();
    let mut used: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    while let Some(id) = open.pop() {
        if used.contains_key(id) {
            continue;
        }
        let node = nodes.get(id).ok_or_else(|| Error::from(format!("cargo has not resolved {id}")))?;
        let deps = linked(node);
        open.extend(&deps);
        used.insert(id, deps);
    }
    let mut components = Vec::new();
    let mut dependencies = Vec::new();
    for (id, deps) in &used {
        let package = packages.get(id).ok_or_else(|| Error::from(format!("cargo does not describe {id}")))?;
        components.push(component(package, own.contains(id))?);
        let mut on = Vec::new();
        for dep in deps {
            let dep =
                packages.get(dep).ok_or_else(|| Error::from(format!("cargo does not describe {dep}")))?;
            on.push(purl(dep)?);
        }
        on.sort();
        on.dedup();
        dependencies.push(json!({ "ref": purl(package)?, "dependsOn": on }));
    }
    let by_ref = |field: &'static str| move |one: &Value| one[field].as_str().unwrap_or_default().to_owned();
    components.sort_by_key(by_ref("bom-ref"));
    dependencies.sort_by_key(by_ref("ref"));
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": { "component": {
            "type": "application", "bom-ref": "keywheel", "name": "keywheel", "version": version,
        } },
        "components": components,
        "dependencies": dependencies,
    }))
}

/// The objects of a list, by their ids.
fn by_id<'a>(metadata: &'a Value, pointer: &str) -> Result<BTreeMap<&'a str, &'a Value>> {
    let list = metadata.pointer(pointer).and_then(Value::as_array);
    let list = list.ok_or_else(|| Error::from(format!("cargo's metadata has no {pointer}")))?;
    Ok(list.iter().filter_map(|one| Some((one["id"].as_str()?, one))).collect())
}

fn members(metadata: &Value) -> impl Iterator<Item = &str> {
    metadata["workspace_members"].as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// What is linked into a package: neither what only builds it, nor what only tests it.
fn linked(node: &Value) -> Vec<&str> {
    let is_linked = |dep: &&Value| {
        let kinds = dep["dep_kinds"].as_array();
        kinds.is_none_or(|kinds| kinds.iter().any(|kind| kind["kind"].is_null()))
    };
    let deps = node["deps"].as_array().into_iter().flatten().filter(is_linked);
    deps.filter_map(|dep| dep["pkg"].as_str()).collect()
}

fn component(package: &Value, is_program: bool) -> Result<Value> {
    let purl = purl(package)?;
    let mut component = json!({
        "type": if is_program { "application" } else { "library" },
        "bom-ref": purl,
        "name": package["name"],
        "version": package["version"],
        "purl": purl,
    });
    let licences = match (package["license"].as_str(), package["license_file"].as_str()) {
        // As crates were published with before there were expressions.
        (Some(expression), _) => json!([{ "expression": expression.replace('/', " OR ") }]),
        (None, Some(_)) => json!([{ "license": { "name": "in a file of the crate" } }]),
        (None, None) => return Ok(component),
    };
    component["licenses"] = licences;
    Ok(component)
}

fn purl(package: &Value) -> Result<String> {
    match (package["name"].as_str(), package["version"].as_str()) {
        // The sign of a build's metadata has a meaning of its own in an address.
        (Some(name), Some(version)) => Ok(format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"))),
        _ => Err("cargo describes a package without name or version".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata() -> Value {
        let package = |name: &str, version: &str, license: Value| json!({"id": name, "name": name, "version": version, "license": license, "license_file": null});
        let dep =
            |name: &str, kind: Value| json!({"pkg": name, "dep_kinds": [{"kind": kind, "target": null}]});
        json!({
            "packages": [
                package("look", "0.1.0", json!("Apache-2.0")),
                package("xtask", "0.1.0", json!("Apache-2.0")),
                package("serde", "1.0.2", json!("MIT/Apache-2.0")),
                package("zstd", "2.0.1+zstd.1.5", json!(null)),
                package("cc", "1.1.1", json!("MIT")),
                package("insta", "1.4.9", json!("Apache-2.0")),
            ],
            "workspace_members": ["look", "xtask"],
            "resolve": {"nodes": [
                {"id": "look", "deps": [dep("serde", json!(null)), dep("insta", json!("dev"))]},
                {"id": "xtask", "deps": []},
                {"id": "serde", "deps": [dep("zstd", json!(null)), dep("cc", json!("build"))]},
                {"id": "zstd", "deps": []},
                {"id": "cc", "deps": []},
                {"id": "insta", "deps": []},
            ]},
        })
    }

    #[test]
    fn what_is_linked_is_listed_with_version_licence_and_use() {
        let roots = BTreeSet::from(["look".to_owned()]);
        let document = document(&metadata(), &roots, "0.1.0").unwrap();
        let names: Vec<&str> = document["components"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["look", "serde", "zstd"]);
        let serde = &document["components"][1];
        assert_eq!((&serde["type"], &serde["purl"]), (&json!("library"), &json!("pkg:cargo/serde@1.0.2")));
        assert_eq!(serde["licenses"], json!([{ "expression": "MIT OR Apache-2.0" }]));
        assert_eq!(document["components"][0]["type"], "application");
        let zstd = &document["components"][2];
        assert_eq!((&zstd["purl"], zstd.get("licenses")), (&json!("pkg:cargo/zstd@2.0.1%2Bzstd.1.5"), None));
        let uses = json!({"ref": "pkg:cargo/look@0.1.0", "dependsOn": ["pkg:cargo/serde@1.0.2"]});
        assert_eq!(document["dependencies"][0], uses);
    }

    #[test]
    fn a_program_that_cargo_does_not_know_is_not_left_out_in_silence() {
        let roots = BTreeSet::from(["look".to_owned(), "scan".to_owned()]);
        let error = document(&metadata(), &roots, "0.1.0").unwrap_err().to_string();
        assert!(error.contains("1 of 2"), "{error}");
        let mut broken = metadata();
        broken["resolve"]["nodes"] = json!([]);
        assert!(document(&broken, &BTreeSet::from(["look".to_owned()]), "0.1.0").is_err());
    }
}
