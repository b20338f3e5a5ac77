//! A profile whose credentials come from this very command must not be the one that the command itself uses: each
//! would start the other until the machine gives up. A program that runs under such a profile hands it on in
//! `AWS_PROFILE`, so this is the first mistake that everybody makes.

use std::borrow::Cow;
use std::collections::BTreeSet;

use aws_config::profile::{self, ProfileSet};
use aws_runtime::env_config::file::EnvConfigFiles;
use aws_types::os_shim_internal::{Env, Fs};

use crate::error::{Result, Trouble};

/// Refuses a profile that leads back here. Credentials in the environment come before any profile.
pub(super) async fn refuse_circle(chosen: Option<&str>) -> Result<()> {
    let given = |name: &str| std::env::var(name).is_ok_and(|value| !value.is_empty());
    if given("AWS_ACCESS_KEY_ID") && given("AWS_SECRET_ACCESS_KEY") {
        return Ok(());
    }
    let chosen = chosen.map(|name| Cow::Owned(name.to_owned()));
    // Files that cannot be read give no credentials either; that is told in its place.
    let Ok(profiles) = profile::load(&Fs::real(), &Env::real(), &EnvConfigFiles::default(), chosen).await
    else {
        return Ok(());
    };
    let name = profiles.selected_profile();
    if !leads_back(&profiles, name) {
        return Ok(());
    }
    Err(Trouble::new(
        format!("Profile {name} gets its credentials from this very command, which would wait for itself."),
        "In its credential_process, give --profile and the name of another one, which may read the secret.",
    ))
}

/// Whether the profile, or one that it is built on, gets its credentials from this command.
fn leads_back(profiles: &ProfileSet, name: &str) -> bool {
    let (mut seen, mut name) = (BTreeSet::new(), name);
    while seen.insert(name) {
        let Some(profile) = profiles.get_profile(name) else { return false };
        if profile.get("credential_process").is_some_and(is_this_command) {
            return true;
        }
        let Some(source) = profile.get("source_profile") else { return false };
        name = source;
    }
    false
}

/// However the program itself is called.
fn is_this_command(line: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().map(|word| word.trim_matches(['"', '\''])).collect();
    words.contains(&"credentials")
        && words.iter().any(|word| *word == "--secret" || word.starts_with("--secret="))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn circle(files: &str, chosen: &str) -> bool {
        let env =
            Env::from_slice(&[("AWS_CONFIG_FILE", "/config"), ("AWS_SHARED_CREDENTIALS_FILE", "/none")]);
        let fs = Fs::from_slice(&[("/config", files), ("/none", "")]);
        let chosen = Some(Cow::Owned(chosen.to_owned()));
        let profiles = profile::load(&fs, &env, &EnvConfigFiles::default(), chosen).await.unwrap();
        leads_back(&profiles, profiles.selected_profile())
    }

    #[tokio::test]
    async fn a_profile_that_waits_for_itself_is_seen_through_whatever_it_is_built_on() {
        let files = "\
[profile mailer]
credential_process = /opt/keywheel --region eu-west-1 credentials --secret app/mail
[profile quoted]
credential_process = \"/opt/key wheel\" \"credentials\" \"--secret=app/mail\"
[profile upon]
role_arn = arn:aws:iam::111122223333:role/x
source_profile = mailer
[profile reader]
aws_access_key_id = AKIAIOSFODNN7EXAMPLE
aws_secret_access_key = none
[profile other]
credential_process = /opt/vault credentials
[profile round]
source_profile = about
[profile about]
source_profile = round
[profile instance]
region = eu-west-1
";
        for name in ["mailer", "quoted", "upon"] {
            assert!(circle(files, name).await, "{name}");
        }
        for name in ["reader", "other", "round", "instance", "missing"] {
            assert!(!circle(files, name).await, "{name}");
        }
    }
}
