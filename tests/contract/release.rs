//! What is released against what is here: the module for Terraform, the workflow.

use std::collections::BTreeSet;

use keywheel::package::{ARCHITECTURE_PARAMETER, Architecture, BUCKET_PARAMETER, MANIFEST, TEMPLATE};
use serde_json::Value;
use support::repository::{template, text, walk};

fn module() -> Value {
    serde_json::from_str(&text("infra/terraform/main.tf.json")).unwrap()
}

/// What stands between `{` and `}` behind `merge(…, `, name by name.
fn given(merged: &str) -> BTreeSet<&str> {
    let own = merged.split_once(", {").unwrap().1.split('}').next().unwrap();
    own.split(',').map(|pair| pair.split('=').next().unwrap().trim()).collect()
}

/// Roles and rules are the template's own, so that there is no second copy of them to differ.
#[test]
fn terraform_puts_the_released_template_there_and_makes_nothing_itself() {
    let module = module();
    let made: BTreeSet<&str> = module["resource"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(made, BTreeSet::from(["aws_cloudformation_stack", "aws_s3_object"]));
    let stacks = module["resource"]["aws_cloudformation_stack"].as_object().unwrap();
    let [stack] = stacks.values().collect::<Vec<_>>()[..] else { panic!("{stacks:?}") };
    let url = stack["template_url"].as_str().unwrap();
    assert!(url.ends_with(&format!("${{local.artefacts[\"{TEMPLATE}\"].key}}")), "{url}");
    let manifest = module["locals"]["manifest"].as_str().unwrap();
    assert!(manifest.contains(&format!("/{MANIFEST}\"")), "{manifest}");
    // What the command gives as well, and nothing that the template does not take.
    let given = given(stack["parameters"].as_str().unwrap());
    assert_eq!(given, BTreeSet::from(["Stage", ARCHITECTURE_PARAMETER, BUCKET_PARAMETER]));
    let template = template();
    for name in ["Stage", ARCHITECTURE_PARAMETER] {
        assert!(template["Parameters"][name].is_object(), "{name}");
    }
    // The package adds it.
    assert!(template["Parameters"][BUCKET_PARAMETER].is_null());
    let command = text("cli/src/install/changes.rs");
    for capability in stack["capabilities"].as_array().unwrap() {
        let words = capability.as_str().unwrap().split('_');
        let name: String = words.map(|word| word[..1].to_owned() + &word[1..].to_lowercase()).collect();
        assert!(command.contains(&format!("Capability::{name}")), "the command does not give {capability}");
    }
}

#[test]
fn every_variable_of_the_terraform_module_is_used_and_no_other_is() {
    let module = module();
    let declared: BTreeSet<String> = module["variable"].as_object().unwrap().keys().cloned().collect();
    let mut used = BTreeSet::new();
    walk(&module, &mut |value| {
        for rest in value.as_str().unwrap_or_default().split("var.").skip(1) {
            used.insert(
                rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect::<String>(),
            );
        }
    });
    assert_eq!(used, declared);
}

#[test]
fn a_tag_makes_the_same_release_for_each_architecture() {
    let workflow: serde_yaml_ng::Value =
        serde_yaml_ng::from_str(&text(".github/workflows/release.yml")).unwrap();
    let job = &workflow["jobs"]["package"];
    let built: BTreeSet<&str> = job["strategy"]["matrix"]["include"]
        .as_sequence()
        .unwrap()
        .iter()
        .map(|one| one["architecture"].as_str().unwrap())
        .collect();
    assert_eq!(built, Architecture::ALL.map(Architecture::name).into());
    // Built on the system that the template runs it on.
    let runtime = template()["Globals"]["Function"]["Runtime"].as_str().unwrap().to_owned();
    let system = job["container"].as_str().unwrap().rsplit(':').next().unwrap();
    assert_eq!(runtime, format!("provided.al{system}"));
    let steps: Vec<&serde_yaml_ng::Value> = workflow["jobs"]
        .as_mapping()
        .unwrap()
        .values()
        .flat_map(|job| job["steps"].as_sequence().unwrap())
        .collect();
    let runs: Vec<&str> = steps.iter().filter_map(|step| step.get("run")?.as_str()).collect();
    assert!(runs.iter().any(|run| run.contains("cargo xtask package")), "{runs:?}");
    for action in steps.iter().filter_map(|step| step.get("uses")?.as_str()) {
        let pin = action.split('@').nth(1).unwrap();
        assert!(pin.len() == 40 && pin.bytes().all(|b| b.is_ascii_hexdigit()), "{action} is not pinned");
    }
}
