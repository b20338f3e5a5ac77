//! Signs that a user was made by Terraform, or by one of its kin.
//!
//! Terraform leaves no mark of its own on what it makes, and a key can bear no tag. What is found here are the
//! conventions of people who use it: a tag that says what made the thing, the tags of a tracing tool, a path. So a sign
//! says "maybe", of the user and not of its key, and no sign says nothing. A user's name is no sign: `terraform-ci` is
//! whom Terraform runs as.
//!
//! Why it matters: a key that a configuration made (`aws_iam_access_key`) is made anew by it once a rotation has deleted
//! it, and its secret half lies in a state file.

use std::collections::BTreeMap;

const TOOLS: [&str; 3] = ["terraform", "opentofu", "terragrunt"];

/// Names of tags that say what made a thing, without marks and in lower case.
const MADE_BY: [&str; 14] = [
    "automation",
    "builtby",
    "createdby",
    "createdwith",
    "deployedby",
    "iac",
    "iactool",
    "maintainedby",
    "managedby",
    "managedwith",
    "origin",
    "provisionedby",
    "provisioner",
    "source",
];

/// Words by which a tag says that it is not so.
const NO: [&str; 7] = ["0", "false", "no", "non", "none", "not", "off"];

/// Each sign in a few words, such as `user tag ManagedBy=Terraform`.
pub fn signs(
    path: &str,
    user: Option<&BTreeMap<String, String>>,
    secret: Option<&BTreeMap<String, String>>,
) -> Vec<String> {
    let mut found = Vec::new();
    if names_tool(path) {
        found.push(format!("path {path}"));
    }
    for (whose, tags) in [("user", user), ("secret", secret)] {
        let told = tags.into_iter().flatten().filter(|(name, value)| is_sign(name, value));
        found.extend(told.map(|(name, value)| format!("{whose} tag {name}={value}")));
    }
    found
}

fn is_sign(name: &str, value: &str) -> bool {
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    let (plain, value) = (plain.to_ascii_lowercase(), value.to_ascii_lowercase());
    let denied = value.split(|letter: char| !letter.is_ascii_alphanumeric()).any(|word| NO.contains(&word));
    if denied {
        return false;
    }
    // Yor writes the file that a resource is written in.
    let is_file = plain.ends_with("gitfile") && matches!(value.rsplit_once('.'), Some((_, "tf" | "tofu")));
    names_tool(&plain) || is_file || MADE_BY.contains(&plain.as_str()) && names_tool(&value)
}

fn names_tool(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    TOOLS.iter().any(|tool| text.contains(tool))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_tag(name: &str, value: &str) -> Vec<String> {
        let tags = BTreeMap::from([(name.to_owned(), value.to_owned())]);
        signs("/", Some(&tags), None)
    }

    #[test]
    fn what_people_write_on_what_terraform_makes_is_a_sign_that_says_which() {
        for (name, value) in [
            ("ManagedBy", "Terraform"),
            ("managed-by", "terraform"),
            ("Managed By", "HashiCorp Terraform 1.9"),
            ("created_by", "OpenTofu"),
            ("Terraform", "true"),
            ("terraform:workspace", "prod"),
            ("TerragruntDir", "live/prod/users"),
            ("git_file", "modules/users/main.tf"),
            ("yor_git_file", "main.tofu"),
        ] {
            assert_eq!(of_tag(name, value), [format!("user tag {name}={value}")]);
        }
    }

    #[test]
    fn what_says_no_or_speaks_of_something_else_is_none() {
        for (name, value) in [
            ("Terraform", "false"),
            ("managed-by", "not terraform"),
            ("ManagedBy", "cloudformation"),
            ("team", "terraform"),
            ("description", "the user that terraform runs as"),
            ("git_file", "main.rs"),
        ] {
            assert_eq!(of_tag(name, value), [""; 0], "{name}={value}");
        }
        assert_eq!(signs("/apps/", None, None), [""; 0]);
    }

    #[test]
    fn a_path_and_the_secrets_tags_count_as_well_and_are_told_apart() {
        let tags = BTreeMap::from([("iac".to_owned(), "terraform".to_owned())]);
        assert_eq!(
            signs("/terraform/apps/", None, Some(&tags)),
            ["path /terraform/apps/", "secret tag iac=terraform"]
        );
    }
}
