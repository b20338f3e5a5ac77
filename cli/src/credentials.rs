//! `keywheel credentials`: the current pair of a secret, as an AWS SDK's `credential_process` takes it.
//!
//! A program that cannot be changed holds its key through this: it asks its SDK, the SDK asks here, and after a
//! rotation it has the new pair within the time that it may keep the old one: at most the hour that rotations reckon
//! with by default, and by default half of that. Nothing is kept in a file.
//!
//! With `--session` the program gets a session of the pair's user instead. It outlives the pair's rotation (a key
//! that is made Inactive ends no session), and cannot call IAM; a leak's containment ends it.

mod back;

use aws_sdk_secretsmanager::operation::get_secret_value::GetSecretValueOutput;
use aws_types::SdkConfig;
use facts::secrets::CURRENT;
use jiff::Timestamp;
use keywheel::clock::after;
use keywheel::policy::{Policy, Span};
use keywheel::secret::{SecretAccessKey, SecretValue};
use keywheel::{AccessKeyId, StepError, aws};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::args::{Common, Credentials};
use crate::error::{Exit, Result, Trouble};
use crate::names;
use crate::output::Out;
use crate::place;

/// How long a session may last: what STS grants a user.
const SHORTEST_SESSION: Span = Span::minutes(15);
const LONGEST_SESSION: Span = Span::hours(36);

/// Runs the command. It changes nothing, so it may run any number of times.
pub(crate) async fn run(common: &Common, out: &Out, args: &Credentials) -> Result<Exit> {
    checked(args)?;
    if out.is_screen() {
        return Err(Trouble::new(
            "Nothing was read: the pair would be shown on this terminal.",
            "Name this command as credential_process in a profile; `keywheel help credentials` shows one.",
        ));
    }
    back::refuse_circle(common.profile.as_deref()).await?;
    let typed = names::secret(&args.secret)?;
    let (config, region) = place::configured(common).await?;
    let config =
        aws::in_region(&config, typed.place.as_ref().map_or(region.as_str(), |(region, _)| region.as_str()));
    let (id, secret) = read(&config, &typed.id).await?;
    let document = match args.session {
        None => pair(&id, &secret, after(Timestamp::now(), args.cache.get()))?,
        Some(length) => match session(&config, (&id, &secret), length).await {
            // The secret may have moved on, and this pair with it, since it was read.
            Err(Minted::Refused(first)) => {
                let (now, secret) = read(&config, &typed.id).await?;
                if now == id {
                    return Err(first);
                }
                session(&config, (&now, &secret), length).await.map_err(Minted::into_trouble)?
            }
            other => other.map_err(Minted::into_trouble)?,
        },
    };
    out.hand_over(&document)?;
    Ok(Exit::Done)
}

/// Refuses durations that would break something, before anything is asked.
fn checked(args: &Credentials) -> Result<()> {
    let longest = Policy::default().cache;
    if args.cache > longest {
        return Err(Trouble::new(
            format!("--cache {} is longer than {longest}.", args.cache),
            "A rotation reckons with consumers that keep the old pair so long and no longer: give a shorter one.",
        ));
    }
    if args.cache < Span::seconds(1) {
        return Err(Trouble::new("--cache is nothing: the pair would have expired already.", "Give 30m."));
    }
    if let Some(length) = args.session.filter(|length| !(SHORTEST_SESSION..=LONGEST_SESSION).contains(length))
    {
        return Err(Trouble::new(
            format!("--session {length} is not a length that STS grants."),
            format!("Give {SHORTEST_SESSION} to {LONGEST_SESSION}."),
        ));
    }
    Ok(())
}

/// The pair that consumers are to use now.
async fn read(config: &SdkConfig, id: &str) -> Result<(AccessKeyId, SecretAccessKey)> {
    let store = aws_sdk_secretsmanager::Client::new(config);
    let reply = store.get_secret_value().secret_id(id).version_stage(CURRENT).send().await;
    match reply {
        Ok(reply) => held(id, &reply),
        Err(error) => {
            let error = StepError::from_sdk("secretsmanager:GetSecretValue", &error);
            if error.is_refused(&["ResourceNotFoundException"]) {
                let region = config.region().map_or_else(|| "this region".to_owned(), ToString::to_string);
                return Err(Trouble::new(
                    format!("There is no secret {id} in {region}, or it has no value yet."),
                    "Check its name and --region; of another account, give its ARN. `keywheel enroll --create-secret` makes one.",
                ));
            }
            Err(error.into())
        }
    }
}

fn held(id: &str, reply: &GetSecretValueOutput) -> Result<(AccessKeyId, SecretAccessKey)> {
    let value = SecretValue::of_anybody(reply.secret_string()).map_err(|error| {
        Trouble::new(
            format!("Secret {id} holds no pair that can be handed out: {error}."),
            "It must be a JSON object with UserName, AccessKeyId and SecretAccessKey.",
        )
    })?;
    let pair = value.pair();
    pair.ok_or_else(|| {
        Trouble::new(
            format!("Secret {id} waits for its first key: it holds a placeholder."),
            format!(
                "`keywheel rotate --secret {id}` makes one; `keywheel enroll --import-stdin` stores one."
            ),
        )
    })
}

/// Why there is no session.
enum Minted {
    /// STS does not accept the pair.
    Refused(Trouble),
    /// Anything else.
    Failed(Trouble),
}

impl Minted {
    fn into_trouble(self) -> Trouble {
        match self {
            Self::Refused(trouble) | Self::Failed(trouble) => trouble,
        }
    }
}

/// A session of the pair's user.
async fn session(
    config: &SdkConfig,
    (id, secret): (&AccessKeyId, &SecretAccessKey),
    length: Span,
) -> std::result::Result<Zeroizing<String>, Minted> {
    let seconds = i32::try_from(length.get().as_secs()).unwrap_or(i32::MAX);
    let sts = validate_key::client(config, id, secret);
    let reply = sts.get_session_token().duration_seconds(seconds).send().await.map_err(|error| {
        let error = StepError::from_sdk("sts:GetSessionToken", &error);
        let unknown = ["InvalidClientTokenId", "InvalidAccessKeyId", "SignatureDoesNotMatch"];
        if error.is_refused(&unknown) {
            // The general words would send the reader to look at his own credentials.
            Minted::Refused(Trouble::new(
                format!("AWS does not accept key {id}, which the secret holds, so it mints no session."),
                "Look at the key: is it Inactive? `keywheel status` shows where its rotation is, `keywheel incident` whether it leaked.",
            ))
        } else {
            Minted::Failed(error.into())
        }
    })?;
    let minted = reply.credentials.ok_or_else(|| {
        Minted::Failed(Trouble::new("sts:GetSessionToken returned no session.", "Run it again."))
    })?;
    let expires = facts::timestamp(minted.expiration()).ok_or_else(|| {
        Minted::Failed(Trouble::new(
            "sts:GetSessionToken did not say when the session ends.",
            "Run it again.",
        ))
    })?;
    let secret = Zeroizing::new(minted.secret_access_key);
    let token = Zeroizing::new(minted.session_token);
    document(&minted.access_key_id, &secret, Some(&token), expires).map_err(Minted::Failed)
}

fn pair(id: &AccessKeyId, secret: &SecretAccessKey, expires: Timestamp) -> Result<Zeroizing<String>> {
    document(id.as_str(), secret.for_consumer(), None, expires)
}

/// What an SDK reads: <https://docs.aws.amazon.com/sdkref/latest/guide/feature-process-credentials.html>.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Document<'a> {
    version: u8,
    access_key_id: &'a str,
    secret_access_key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_token: Option<&'a str>,
    expiration: String,
}

fn document(
    id: &str,
    secret: &str,
    token: Option<&Zeroizing<String>>,
    expires: Timestamp,
) -> Result<Zeroizing<String>> {
    // Whole seconds: some SDKs read no fractions. Downwards, as a pair that is kept too long is the worse mistake.
    let expires = Timestamp::from_second(expires.as_second()).unwrap_or(expires);
    let document = Document {
        version: 1,
        access_key_id: id,
        secret_access_key: secret,
        session_token: token.map(|token| token.as_str()),
        expiration: expires.to_string(),
    };
    // Its error is not repeated: a message that quotes what could not be written would quote the pair.
    let text = serde_json::to_string(&document)
        .map_err(|_| Trouble::new("The pair could not be written as JSON.", ""))?;
    Ok(Zeroizing::new(text))
}

#[cfg(test)]
mod tests;
