//! A pair that exists already: read from where its owner keeps it, and shown to be this very user's before anybody
//! stores it. It is never an argument, and no word of what was read is repeated.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use aws_config::profile::ProfileFileCredentialsProvider;
use aws_sdk_sts::config::ProvideCredentials;
use facts::iam::User;
use jiff::Timestamp;
use keywheel::key::{self, KeyFacts};
use keywheel::secret::SecretAccessKey;
use keywheel::{AccessKeyId, StepError};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use crate::args::Enroll;
use crate::error::{Result, Trouble};
use crate::input;
use crate::names;
use crate::place::Place;
use crate::time;

/// A key id with its secret access key.
pub(super) struct Pair {
    pub(super) id: AccessKeyId,
    pub(super) secret: SecretAccessKey,
    /// The user that its source names.
    user: Option<String>,
}

/// The most that is read: a pair in any form is a few lines.
const LONGEST: usize = 16 * 1024;
/// What a pair may be given as.
const FORMS: &str = "the pair as JSON with AccessKeyId and SecretAccessKey, as the console's CSV, or as lines with aws_access_key_id and aws_secret_access_key";

/// The pair that the command line points to.
pub(super) async fn read(args: &Enroll) -> Result<Option<Pair>> {
    match &args.import_profile {
        Some(profile) => of_profile(profile).await.map(Some),
        None if args.import_stdin => {
            if std::io::IsTerminal::is_terminal(&std::io::stdin()) {
                return Err(Trouble::new(
                    "Nothing was read: a pair that is typed here stays on the screen.",
                    "Pipe it from where it is kept, such as `pass show aws/mailer | keywheel enroll … --import-stdin`.",
                ));
            }
            pair(&input::text(Path::new("-"), LONGEST, FORMS)?).map(Some)
        }
        None => Ok(None),
    }
}

async fn of_profile(profile: &str) -> Result<Pair> {
    let provider = ProfileFileCredentialsProvider::builder().profile_name(profile).build();
    let found = provider.provide_credentials().await.map_err(|_| {
        Trouble::new(
            format!("Profile {profile} gives no credentials."),
            "`aws configure list-profiles` shows the profiles; one with aws_access_key_id and aws_secret_access_key is meant.",
        )
    })?;
    let secret = found.secret_access_key().to_owned();
    whole(found.access_key_id(), secret, found.session_token().is_some(), None)
}

/// A pair from its text, in whichever form.
fn pair(text: &str) -> Result<Pair> {
    let fields = fields(text).ok_or_else(|| not_understood("it is none of the known forms"))?;
    let one = |name: &str| -> Result<Option<&Zeroizing<String>>> {
        let mut all = fields.iter().filter(|(has, value)| has == name && !value.is_empty());
        match (all.next(), all.next()) {
            (_, Some(_)) => Err(not_understood("it holds several")),
            (found, None) => Ok(found.map(|(_, value)| value)),
        }
    };
    let id = one("accesskeyid")?.ok_or_else(|| not_understood("the key's id is missing"))?;
    let secret = one("secretaccesskey")?.ok_or_else(|| not_understood("the secret access key is missing"))?;
    let user = one("username")?.map(|name| name.as_str().to_owned());
    whole(id, secret.as_str().to_owned(), one("sessiontoken")?.is_some(), user)
}

fn whole(id: &str, secret: String, session: bool, user: Option<String>) -> Result<Pair> {
    // Taken over first, so that it is wiped whatever follows.
    let odd = secret.is_empty() || !secret.bytes().all(|b| b.is_ascii_graphic());
    let secret = SecretAccessKey::new(secret);
    let id = names::key(id)?;
    if session {
        return Err(Trouble::new(
            format!("{id} comes with a session token: it is a session, which ends by itself."),
            "Import the long-lived pair of the user; its id begins with AKIA.",
        ));
    }
    if odd {
        return Err(not_understood("its secret access key is empty, or holds a blank"));
    }
    Ok(Pair { id, secret, user })
}

fn not_understood(why: &str) -> Trouble {
    Trouble::new(format!("The pair that was given is not understood: {why}."), format!("Give {FORMS}."))
}

type Field = (String, Zeroizing<String>);

/// The fields of the text, their names without case, signs and a leading `aws`.
fn fields(text: &str) -> Option<Vec<Field>> {
    if text.trim_start().starts_with('{') {
        return json(text);
    }
    let lines: Vec<Field> = text.lines().filter_map(assignment).collect();
    if lines.is_empty() { table(text) } else { Some(lines) }
}

fn plain(name: &str) -> String {
    let plain: String =
        name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    plain.strip_prefix("aws").unwrap_or(&plain).to_owned()
}

/// An object, or what `aws iam create-access-key` wraps one in. Fields that are not text are not ours.
fn json(text: &str) -> Option<Vec<Field>> {
    let outer = object(text)?;
    let object = match outer.get("AccessKey").copied() {
        Some(inner) => object(inner.get())?,
        None => outer,
    };
    let field = |(name, raw): (String, &RawValue)| {
        let value = serde_json::from_str::<String>(raw.get()).ok()?;
        Some((plain(&name), Zeroizing::new(value)))
    };
    Some(object.into_iter().filter_map(field).collect())
}

fn object(text: &str) -> Option<BTreeMap<String, &RawValue>> {
    serde_json::from_str(text).ok()
}

/// `name = value`, also as a shell sets a variable.
fn assignment(line: &str) -> Option<Field> {
    let line = line.trim();
    let line = ["export ", "set "].iter().find_map(|word| line.strip_prefix(word)).unwrap_or(line);
    let (name, value) = line.split_once('=')?;
    let name = plain(name);
    // A secret access key in a table may hold this sign too.
    if !["accesskeyid", "secretaccesskey", "sessiontoken"].contains(&name.as_str()) {
        return None;
    }
    Some((name, Zeroizing::new(value.trim().trim_matches(['"', '\'']).to_owned())))
}

/// What the console lets people download: a head and a row.
fn table(text: &str) -> Option<Vec<Field>> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
    let head: Vec<String> = reader.headers().ok()?.iter().map(plain).collect();
    let mut fields = Vec::new();
    for row in reader.records() {
        let row = row.ok()?;
        let cells = row.iter().map(|cell| Zeroizing::new(cell.to_owned()));
        fields.extend(head.iter().cloned().zip(cells));
    }
    (!fields.is_empty()).then_some(fields)
}

/// How often and how far apart a young key is asked again.
const ASKED: u32 = 8;
const BETWEEN: Duration = Duration::from_secs(2);
/// How long a key counts as young.
const YOUNG: Duration = Duration::from_mins(1);

/// Shows that the pair is an Active key of this very user. Nothing is stored by it.
pub(super) async fn prove(place: &Place, user: &User, keys: &[KeyFacts], pair: &Pair) -> Result<()> {
    let name = &user.facts.name;
    let key = fits(name.as_str(), keys, pair)?;
    let young = key.created.is_none_or(|made| time::between(made, Timestamp::now()) < YOUNG);
    let sts = validate_key::client(place.config(), &pair.id, &pair.secret);
    for asked in 1.. {
        match sts.get_caller_identity().send().await {
            // A user that was deleted and made anew has the same name and another id.
            Ok(reply) if reply.arn() == Some(&user.facts.arn) && reply.user_id() == Some(&user.facts.id) => {
                return Ok(());
            }
            Ok(reply) => {
                let arn = reply.arn().unwrap_or("somebody without a name");
                return Err(Trouble::new(
                    format!("The pair answers as {arn}, not as {}.", user.facts.arn),
                    "Nothing was stored. Check that pair and user belong together.",
                ));
            }
            Err(error) => {
                let error = StepError::from_sdk("sts:GetCallerIdentity", &error);
                let unknown = error.is_refused(&["InvalidClientTokenId", "InvalidAccessKeyId"]);
                if unknown && young && asked < ASKED {
                    tokio::time::sleep(BETWEEN).await;
                    continue;
                }
                if unknown || error.is_refused(&["SignatureDoesNotMatch"]) {
                    return Err(Trouble::new(
                        format!(
                            "AWS does not accept the pair: its secret access key is not that of key {}.",
                            pair.id
                        ),
                        "Nothing was stored. Look the pair up again; if it is lost, `--create-secret` without an import lets the first run make a new key.",
                    ));
                }
                return Err(error.into());
            }
        }
    }
    // The loop ends by returning only.
    Err(Trouble::new("The pair was not proved.", "Run it again."))
}

/// What can be said against a pair without a call.
fn fits<'a>(user: &str, keys: &'a [KeyFacts], pair: &Pair) -> Result<&'a KeyFacts> {
    if let Some(other) = pair.user.as_deref().filter(|other| *other != user) {
        return Err(Trouble::new(
            format!("The pair that was given is said to be of user {other}, not of {user}."),
            "Nothing was stored. Check that pair and user belong together.",
        ));
    }
    let Some(key) = key::find(keys, &pair.id) else {
        return Err(Trouble::new(
            format!("Key {} is not a key of user {user}.", pair.id),
            "Nothing was stored. `aws iam list-access-keys` shows the user's keys.",
        ));
    };
    if !key.is_active() {
        return Err(Trouble::new(
            format!("Key {} of user {user} is Inactive: consumers of the secret would be refused.", pair.id),
            "Import the Active key; this one can be given up with --retire.",
        ));
    }
    Ok(key)
}

#[cfg(test)]
mod tests;
