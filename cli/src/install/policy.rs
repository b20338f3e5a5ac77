//! What whoever installs must be allowed: no more than one stage of one account.
//!
//! It is one file of the repository, so that a test can hold it against the template. Taking denies of ours off users
//! and roles, and our tags off users and secrets, is left to somebody who may write users: `uninstall` names those.

use serde_json::{Value, json};

use crate::error::{Result, Trouble};

const POLICY: &str = include_str!("../../../infra/deployer-policy.json");

/// Where it is to hold.
pub(super) struct Scope<'a> {
    pub(super) partition: &'a str,
    pub(super) region: &'a str,
    pub(super) account: &'a str,
    pub(super) stage: &'a str,
    pub(super) stack: &'a str,
    pub(super) bucket: &'a str,
    /// The path of the roles, which begins and ends with a slash.
    pub(super) role_path: &'a str,
    /// The boundary that every role must have.
    pub(super) boundary: Option<&'a str>,
}

/// The policy for one place.
pub(super) fn of(scope: &Scope<'_>) -> Result<Value> {
    let filled = [
        ("Partition", scope.partition),
        ("Region", scope.region),
        ("Account", scope.account),
        ("Stage", scope.stage),
        ("Stack", scope.stack),
        ("Bucket", scope.bucket),
        ("RolePath", scope.role_path),
    ]
    .iter()
    .fold(POLICY.to_owned(), |text, (name, value)| text.replace(&format!("${{{name}}}"), value));
    let mut policy: Value = serde_json::from_str(&filled).map_err(|error| {
        Trouble::new(
            format!("The policy could not be written: {error}."),
            "Check --bucket and --parameter RolePath.",
        )
    })?;
    if let Some(boundary) = scope.boundary {
        bind(&mut policy, boundary);
    }
    Ok(policy)
}

/// Allows roles to be made and written only with their boundary, and nobody to take it off.
fn bind(policy: &mut Value, boundary: &str) {
    const BOUND: [&str; 3] = ["iam:CreateRole", "iam:PutRolePolicy", "iam:PutRolePermissionsBoundary"];
    let Some(statements) = policy["Statement"].as_array_mut() else { return };
    let Some(roles) = statements.iter_mut().find(|one| one["Sid"] == "Roles") else { return };
    let mut bound = roles.clone();
    if let Some(actions) = roles["Action"].as_array_mut() {
        actions.retain(|action| !BOUND.iter().any(|bound| action == bound));
    }
    bound["Sid"] = json!("BoundRoles");
    bound["Action"] = json!(BOUND);
    bound["Condition"] = json!({ "StringEquals": { "iam:PermissionsBoundary": boundary } });
    statements.push(bound);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(boundary: Option<&'static str>) -> Scope<'static> {
        Scope {
            partition: "aws-cn",
            region: "cn-north-1",
            account: "111122223333",
            stage: "test",
            stack: "keywheel-test",
            bucket: "artefacts",
            role_path: "/keys/",
            boundary,
        }
    }

    #[test]
    fn every_place_in_it_is_filled() {
        let policy = of(&scope(None)).unwrap();
        let text = policy.to_string();
        assert!(!text.contains("${"), "{text}");
        assert!(!text.contains("arn:aws:"), "{text}");
        assert!(text.contains("arn:aws-cn:iam::111122223333:role/keys/keywheel-test-*"), "{text}");
        assert!(text.contains("arn:aws-cn:s3:::artefacts/keywheel/*"), "{text}");
        // What a managed policy holds.
        assert!(text.len() <= 6_144, "{}", text.len());
    }

    #[test]
    fn with_a_boundary_no_role_is_made_or_written_without_it() {
        const BOUNDARY: &str = "arn:aws-cn:iam::111122223333:policy/boundary";
        let policy = of(&scope(Some(BOUNDARY))).unwrap();
        let statements = policy["Statement"].as_array().unwrap();
        for action in ["iam:CreateRole", "iam:PutRolePolicy"] {
            let allowing: Vec<&Value> = statements
                .iter()
                .filter(|one| one["Action"].as_array().is_some_and(|all| all.contains(&json!(action))))
                .collect();
            assert_eq!(allowing.len(), 1, "{action}");
            assert_eq!(
                allowing[0]["Condition"]["StringEquals"]["iam:PermissionsBoundary"], BOUNDARY,
                "{action}"
            );
        }
        assert!(!policy.to_string().contains("DeleteRolePermissionsBoundary"));
        assert!(policy.to_string().len() <= 6_144);
    }
}
