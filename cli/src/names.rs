//! Names as tired people type them: an ARN where a name is asked for, a key id in lower case, a blank too
//! many, a letter wrong.

use keywheel::{AccessKeyId, SecretArn, UserName};

use crate::error::{Result, Trouble};

/// What somebody gave as a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TypedUser {
    /// A name, with the account where an ARN named one.
    Name(UserName, Option<String>),
    /// A key id: its owner is the user that was meant.
    Key(AccessKeyId),
}

/// Reads a user: a name, or an ARN whose last part is one.
pub(crate) fn user(typed: &str) -> Result<TypedUser> {
    let text = typed.trim();
    if text.is_empty() {
        return Err(Trouble::new("The user's name is empty.", "Check the variable that --user was given."));
    }
    if text.starts_with("arn:") {
        let parts: Vec<&str> = text.splitn(6, ':').collect();
        let name = match parts.as_slice() {
            ["arn", _, "iam", _, account, resource] => resource
                .strip_prefix("user/")
                .and_then(|path| path.rsplit('/').next())
                .map(|name| (name, *account)),
            _ => None,
        };
        let Some((name, account)) = name else {
            return Err(Trouble::new(
                format!("--user {text} is the ARN of something that is no IAM user."),
                "Give the user's name; a secret's ARN belongs after --secret.",
            ));
        };
        return Ok(TypedUser::Name(user_name(name)?, Some(account.to_owned())));
    }
    if looks_like_key(text) {
        return Ok(TypedUser::Key(key(text)?));
    }
    Ok(TypedUser::Name(user_name(text)?, None))
}

fn user_name(text: &str) -> Result<UserName> {
    text.parse().map_err(|error| Trouble::new(format!("{error}."), ""))
}

fn looks_like_key(text: &str) -> bool {
    let upper = text.to_uppercase();
    upper.len() == 20
        && ["AKIA", "ASIA"].iter().any(|prefix| upper.starts_with(prefix))
        && upper.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// Reads an access key id, in upper case as AWS writes it.
pub(crate) fn key(typed: &str) -> Result<AccessKeyId> {
    let text = typed.trim().to_uppercase();
    if text.starts_with("ASIA") {
        return Err(Trouble::new(
            format!("{text} is a temporary key of a session, which no user owns."),
            "Give a key id that begins with AKIA.",
        ));
    }
    // What does not look like an id may be the other half of the pair, pasted by mistake: it is not repeated.
    text.parse().map_err(|_| {
        Trouble::new(
            "What was given as key id is none: an id is 16 to 128 letters and digits, such as AKIAIOSFODNN7EXAMPLE.",
            "`keywheel status --user <name>` or `aws iam list-access-keys --user-name <name>` shows the user's keys.",
        )
    })
}

/// Where a secret is, from what somebody typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TypedSecret {
    /// The name or ARN to ask for.
    pub(crate) id: String,
    /// The region and the account that an ARN names.
    pub(crate) place: Option<(String, String)>,
}

/// Reads a secret's name or ARN.
pub(crate) fn secret(typed: &str) -> Result<TypedSecret> {
    let text = typed.trim();
    if text.is_empty() {
        return Err(Trouble::new(
            "The secret's name is empty.",
            "Check the variable that --secret was given.",
        ));
    }
    if !text.starts_with("arn:") {
        return Ok(TypedSecret { id: text.to_owned(), place: None });
    }
    let arn: SecretArn = text.parse().map_err(|_| {
        Trouble::new(
            format!("--secret {text} is not the ARN of a secret."),
            "It looks like arn:aws:secretsmanager:<region>:<account>:secret:<name>-AbCdEf; the plain name does as well.",
        )
    })?;
    Ok(TypedSecret {
        place: Some((arn.region().to_owned(), arn.account().to_owned())),
        id: arn.as_str().to_owned(),
    })
}

/// Refuses what cannot be a region's name, before a host of that name is looked for.
pub(crate) fn region(typed: &str) -> Result<()> {
    let parts: Vec<&str> = typed.split('-').collect();
    let letters = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase());
    match parts.as_slice() {
        [words @ .., number]
            if words.len() >= 2
                && words.iter().all(letters)
                && (1..=2).contains(&number.len())
                && number.bytes().all(|b| b.is_ascii_digit()) =>
        {
            Ok(())
        }
        _ => Err(Trouble::new(
            format!("{typed:?} is not the name of a region."),
            "It looks like eu-west-1 or us-gov-west-1: check --region, AWS_REGION and the profile.",
        )),
    }
}

/// The name that was probably meant: the same but for case, or a few letters away.
pub(crate) fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = typed.to_lowercase();
    let allowed = (lower.chars().count() / 4).clamp(1, 3);
    known
        .into_iter()
        .map(|name| (distance(&lower, &name.to_lowercase()), name))
        .filter(|(far, name)| *far <= allowed || (lower.len() >= 4 && name.to_lowercase().contains(&lower)))
        .min_by_key(|(far, _)| *far)
        .map(|(_, name)| name)
}

/// How many letters must be changed, added or left out.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_a_name_or_the_end_of_an_arn() {
        let name = |typed: &str| match user(typed) {
            Ok(TypedUser::Name(name, account)) => (name.to_string(), account),
            other => panic!("{other:?}"),
        };
        assert_eq!(name(" svc-mail\n"), ("svc-mail".into(), None));
        assert_eq!(
            name("arn:aws:iam::111122223333:user/team/a/svc-mail"),
            ("svc-mail".into(), Some("111122223333".into()))
        );
        assert!(
            matches!(user("akiaiosfodnn7example"), Ok(TypedUser::Key(key)) if key.as_str() == "AKIAIOSFODNN7EXAMPLE")
        );
        for wrong in ["", "  ", "a b", "arn:aws:iam::111122223333:role/x", "arn:aws:s3:::bucket"] {
            assert!(user(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_pasted_secret_is_not_repeated() {
        let pasted = format!("{}/+{}", "x".repeat(20), "y".repeat(18));
        let trouble = key(&pasted).unwrap_err().to_string();
        assert!(!trouble.to_lowercase().contains("xxx"), "{trouble}");
        assert_eq!(key(" akiaiosfodnn7example ").unwrap().as_str(), "AKIAIOSFODNN7EXAMPLE");
        assert!(key("ASIAIOSFODNN7EXAMPLE").unwrap_err().text.contains("session"));
    }

    #[test]
    fn a_secret_is_a_name_or_an_arn_with_its_place() {
        assert_eq!(secret("app/mail").unwrap().place, None);
        let typed = secret("arn:aws:secretsmanager:eu-west-1:111122223333:secret:app/mail-AbCdEf").unwrap();
        assert_eq!(typed.place, Some(("eu-west-1".into(), "111122223333".into())));
        assert!(secret("arn:aws:iam::111122223333:user/x").is_err());
        assert!(secret(" ").is_err());
    }

    #[test]
    fn regions_of_every_partition_pass_and_typos_do_not() {
        for name in [
            "eu-west-1",
            "us-gov-west-1",
            "cn-north-1",
            "us-isob-east-1",
            "eusc-de-east-1",
            "ap-southeast-10",
        ] {
            assert!(region(name).is_ok(), "{name}");
        }
        for name in
            ["", "eu-west1", "eu_west_1", "euwest-1", "eu-west-", "EU-WEST-1", "eu-west-1a", "eu-west-1 "]
        {
            assert!(region(name).is_err(), "{name}");
        }
    }

    #[test]
    fn the_nearest_name_is_close_or_nothing() {
        let known = ["svc-mail", "svc-batch", "alice"];
        assert_eq!(nearest("svc-mial", known), Some("svc-mail"));
        assert_eq!(nearest("SVC-MAIL", known), Some("svc-mail"));
        assert_eq!(nearest("batch", known), Some("svc-batch"));
        assert_eq!(nearest("bob", known), None);
    }
}
