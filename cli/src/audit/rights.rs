//! What `keywheel audit` and `keywheel key` may need, as an IAM policy: reads alone, and no secret's value.

use serde_json::{Value, json};

/// The policy. Its ARNs leave the partition open, so that it is the same in each; the stage as well.
pub(super) fn policy() -> Value {
    json!({
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "ReadAccount",
                "Effect": "Allow",
                "Action": [
                    "iam:GenerateCredentialReport",
                    "iam:GetCredentialReport",
                    "iam:GetAccountSummary",
                    "iam:ListUsers",
                    "secretsmanager:ListSecrets",
                    "sts:GetAccessKeyInfo",
                ],
                "Resource": "*",
            },
            {
                // A key that is gone has no user: asked on users alone, it would be refused and not be found gone.
                "Sid": "FindOwner",
                "Effect": "Allow",
                "Action": "iam:GetAccessKeyLastUsed",
                "Resource": "*",
            },
            {
                "Sid": "ReadUsers",
                "Effect": "Allow",
                "Action": ["iam:GetUser", "iam:ListAccessKeys"],
                "Resource": "arn:*:iam::*:user/*",
            },
            {
                "Sid": "ReadManagedSecrets",
                "Effect": "Allow",
                "Action": "secretsmanager:DescribeSecret",
                "Resource": "*",
                "Condition": { "StringLike": { "secretsmanager:ResourceTag/keywheel:user": "?*" } },
            },
            {
                "Sid": "ReadRuns",
                "Effect": "Allow",
                "Action": ["states:DescribeExecution", "states:GetExecutionHistory"],
                "Resource": "arn:*:states:*:*:execution:keywheel-*-rotation:*",
            },
            {
                "Sid": "ListRuns",
                "Effect": "Allow",
                "Action": "states:ListExecutions",
                "Resource": "arn:*:states:*:*:stateMachine:keywheel-*-rotation",
            },
            {
                "Sid": "ReadIncidents",
                "Effect": "Allow",
                "Action": "ssm:GetParameters",
                "Resource": "arn:*:ssm:*:*:parameter/keywheel/*/incidents/*",
            },
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_and_nothing_else_and_opens_no_secret() {
        let policy = policy();
        for statement in policy["Statement"].as_array().unwrap() {
            let one = std::slice::from_ref(&statement["Action"]);
            for action in statement["Action"].as_array().map_or(one, Vec::as_slice) {
                let (_, name) = action.as_str().unwrap().split_once(':').unwrap();
                // IAM makes its report when it is asked to: nothing else is changed by it.
                let reads = ["Get", "List", "Describe", "GenerateCredentialReport"];
                assert!(reads.iter().any(|verb| name.starts_with(verb)), "{action}");
                assert!(!["GetSecretValue", "GetParameter"].contains(&name), "{action}");
            }
            let resource = statement["Resource"].as_str().unwrap();
            assert!(resource == "*" || resource.starts_with("arn:*:"), "{resource}");
        }
    }
}
