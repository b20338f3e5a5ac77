//! What a plan over a whole account is made from, with as few calls as IAM allows.
//!
//! The credential report names every user in one answer; IAM keeps it for four hours, so a key that was made since
//! is missing, and a user whose key looks due is asked for again by name. Where IAM gives no report to these
//! credentials, users and their keys are listed one by one instead: a call for every user.
//!
//! Two keys are the ordinary state of a user in its overlap or grace. The list of secrets tells which runs its versions
//! name, and one list of executions which of them run: only of a user whose runs have all ended is more asked.

mod look;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_sdk_iam::Client;
use aws_sdk_iam::types::{ReportStateType, SummaryKeyType, User};
use aws_sdk_secretsmanager::types::{Filter, FilterNameStringType, SecretListEntry};
use aws_types::SdkConfig;
use jiff::Timestamp;
use keywheel::clock::Clock;
use keywheel::decide::due::ROOT;
use keywheel::fleet::estate::{Blind, Estate, Row, Slot, Source, Tagged, Used};
use keywheel::key::KeyFacts;
use keywheel::{RunId, StepError, UserName, aws};

use crate::secrets::{CURRENT, PENDING, PREVIOUS, TAG_USER};
use crate::{executions, iam, secrets, timestamp};

pub use look::{look, look_at_keys_until_full, look_until_full};

/// How often IAM is asked whether its report is ready, and how long after each time.
const POLLS: usize = 30;
const BETWEEN_POLLS: Duration = Duration::from_secs(2);

/// How many users are asked for in the same moment.
pub(crate) const AT_ONCE: usize = 4;

/// The installation whose runs are looked for.
#[derive(Debug, Clone)]
pub struct Installation {
    /// For calls in its own account, whatever account is read: only there its runs are.
    pub config: SdkConfig,
    /// The ARN of its rotation machine.
    pub rotation: String,
    /// Its stage.
    pub stage: String,
    /// The ARN of the role that makes its keys. Where it is not known, no key that lost its secret is told from a
    /// stranger's.
    pub create_role: Option<String>,
}

/// Reads the account that `config` is for, and the tagged secrets of these regions. Where no installation is given, which
/// rotations run is not asked.
pub async fn read(
    config: &SdkConfig,
    installation: Option<&Installation>,
    account: &str,
    regions: &[String],
    clock: &Clock,
) -> Result<Estate, StepError> {
    let client = Client::new(config);
    let (source, read) = match report(&client, clock).await {
        Ok((at, text)) => (Source::Report(at), parse(&text)?),
        // Throttled or unanswered, a call for every user would only be one more burden.
        Err(error @ (StepError::Refused(_) | StepError::NotYetVisible(_))) => {
            (Source::Lists(error.to_string()), by_lists(&client).await?)
        }
        Err(error) => return Err(error),
    };
    let Users { rows, root_key, mut blind } = read;
    let mut secrets = Vec::new();
    for region in regions {
        match tagged(config, region).await {
            Ok(found) => secrets.extend(found),
            Err(error) => blind.push(Blind::Region { region: region.clone(), why: error.to_string() }),
        }
    }
    let running = match installation {
        None => None,
        Some(installation) => match running(installation, &rows, &secrets).await {
            Ok(running) => Some(running),
            Err(error) => {
                blind.push(Blind::Runs { why: error.to_string() });
                None
            }
        },
    };
    Ok(Estate {
        account: account.to_owned(),
        regions: regions.to_vec(),
        source,
        users: rows,
        root_key,
        secrets,
        running,
        blind,
    })
}

/// The rotations that run. Where no managed user has more than its one key, nobody needs know.
async fn running(
    installation: &Installation,
    rows: &[Row],
    secrets: &[Tagged],
) -> Result<BTreeSet<RunId>, StepError> {
    let two: BTreeSet<&str> =
        rows.iter().filter(|row| row.keys.len() > 1).map(|row| row.user.as_str()).collect();
    if !secrets.iter().any(|secret| secret.pending || two.contains(secret.user.as_str())) {
        return Ok(BTreeSet::new());
    }
    executions::running(&aws_sdk_sfn::Client::new(&installation.config), &installation.rotation).await
}

/// The users of an account, as far as they could be read.
struct Users {
    rows: Vec<Row>,
    root_key: Option<bool>,
    blind: Vec<Blind>,
}

/// The credential report and when it was made: a new one, or the one that IAM has.
async fn report(client: &Client, clock: &Clock) -> Result<(Timestamp, Vec<u8>), StepError> {
    for _ in 0..POLLS {
        let made = client.generate_credential_report().send().await;
        match made.map_err(|error| StepError::from_sdk("iam:GenerateCredentialReport", &error)) {
            Ok(reply) if reply.state == Some(ReportStateType::Complete) => {
                if let Some(report) = made_report(client).await? {
                    return Ok(report);
                }
            }
            Ok(_) => {}
            // IAM limits how often one is made. The one that it has may do, and asking on would not help.
            Err(error) => return made_report(client).await.ok().flatten().ok_or(error),
        }
        clock.sleep(BETWEEN_POLLS).await;
    }
    Err(StepError::NotYetVisible("IAM has not finished its credential report".into()))
}

/// The report, unless there is none yet, or only one that is too old.
async fn made_report(client: &Client) -> Result<Option<(Timestamp, Vec<u8>)>, StepError> {
    let reply = match client.get_credential_report().send().await {
        Ok(reply) => reply,
        Err(error) => {
            let error = StepError::from_sdk("iam:GetCredentialReport", &error);
            let none = ["ReportNotPresent", "ReportExpired", "ReportInProgress"];
            return if error.is_refused(&none) { Ok(None) } else { Err(error) };
        }
    };
    let at = reply.generated_time.as_ref().and_then(timestamp);
    match (at, reply.content) {
        (Some(at), Some(content)) => Ok(Some((at, content.into_inner()))),
        _ => Err(StepError::Conflict("IAM gave a credential report without its text or its time".into())),
    }
}

fn odd(what: &str) -> StepError {
    StepError::Conflict(format!("IAM's credential report cannot be understood: {what}"))
}

/// The rows of a report, and those that cannot be understood: one odd row is no reason to leave all the others alone.
/// Columns are found by their names: AWS adds some now and then.
fn parse(text: &[u8]) -> Result<Users, StepError> {
    let mut table = csv::ReaderBuilder::new().flexible(true).from_reader(text);
    let head = table.headers().map_err(|error| odd(&error.to_string()))?.clone();
    let columns = Columns::of(&head)?;
    let mut users = Users { rows: Vec::new(), root_key: None, blind: Vec::new() };
    for record in table.records() {
        let record = record.map_err(|error| odd(&error.to_string()))?;
        let row = if record.len() == head.len() {
            columns.row(&record)
        } else {
            Err(format!("it has {} fields under {} columns", record.len(), head.len()))
        };
        match row {
            Ok(row) if row.user == ROOT => users.root_key = Some(row.keys.iter().any(|key| key.active)),
            Ok(row) => users.rows.push(row),
            Err(why) => {
                let line = record.position().map_or(0, csv::Position::line);
                let user = record.get(columns.user).unwrap_or_default().to_owned();
                users.blind.push(Blind::Row { line, user, why });
            }
        }
    }
    Ok(users)
}

/// Where the columns are that concern us.
struct Columns {
    user: usize,
    arn: usize,
    keys: Vec<KeyColumns>,
}

/// Where those of one key are.
struct KeyColumns {
    active: usize,
    /// When it was made or changed.
    since: usize,
    /// When it was used; and where and for what, which a plan does without.
    used: usize,
    region: Option<usize>,
    service: Option<usize>,
}

impl Columns {
    fn of(head: &csv::StringRecord) -> Result<Self, StepError> {
        let find = |name: &str| head.iter().position(|column| column == name);
        let column = |name: &str| find(name).ok_or_else(|| odd(&format!("it has no column {name}")));
        let mut keys = Vec::new();
        for number in 1..=2 {
            let name = |what: &str| format!("access_key_{number}_{what}");
            keys.push(KeyColumns {
                active: column(&name("active"))?,
                since: column(&name("last_rotated"))?,
                used: column(&name("last_used_date"))?,
                region: find(&name("last_used_region")),
                service: find(&name("last_used_service")),
            });
        }
        Ok(Self { user: column("user")?, arn: column("arn")?, keys })
    }

    fn row(&self, record: &csv::StringRecord) -> Result<Row, String> {
        let field = |at: usize| record.get(at).unwrap_or_default();
        let mut keys = Vec::new();
        let word = |at: Option<usize>| at.and_then(|at| known(field(at)));
        for key in &self.keys {
            let (active, since) = (flag(field(key.active))?, date(field(key.since))?);
            // A slot without a key is neither active nor dated.
            if active || since.is_some() {
                let used = used_at(field(key.used))?;
                let (service, region) = (word(key.service), word(key.region));
                keys.push(Slot { active, since, used, service, region, id: None });
            }
        }
        let user = field(self.user).to_owned();
        Ok(Row { path: path(field(self.arn), &user), user, keys })
    }
}

/// Whether it says `true`; nothing where IAM knows nothing is no.
fn flag(text: &str) -> Result<bool, String> {
    match text {
        "true" => Ok(true),
        "false" | "" | "N/A" | "not_supported" => Ok(false),
        other => Err(format!("{other:?} is neither true nor false")),
    }
}

fn known(text: &str) -> Option<String> {
    (!["", "N/A", "no_information", "not_supported"].contains(&text)).then(|| text.to_owned())
}

fn date(text: &str) -> Result<Option<Timestamp>, String> {
    known(text).map(|text| text.parse().map_err(|_| format!("{text:?} is not a time"))).transpose()
}

fn used_at(text: &str) -> Result<Used, String> {
    match date(text)? {
        Some(at) => Ok(Used::At(at)),
        None if text == "N/A" => Ok(Used::Never),
        None => Ok(Used::Unknown),
    }
}

/// The path in a user's ARN, `arn:aws:iam::111122223333:user/vendors/svc-a`.
pub fn path(arn: &str, user: &str) -> String {
    let after = arn.split_once(":user").map_or("/", |(_, after)| after);
    after.strip_suffix(user).filter(|path| path.starts_with('/')).unwrap_or("/").to_owned()
}

/// Every user with its keys, one call each. Their last use would be one call more for each key, and is left unknown.
async fn by_lists(client: &Client) -> Result<Users, StepError> {
    let mut pages = client.list_users().into_paginator().send();
    let mut users = Users { rows: Vec::new(), root_key: root_key(client).await, blind: Vec::new() };
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| StepError::from_sdk("iam:ListUsers", &error))?;
        for user in page.users() {
            match row(client, user).await {
                Ok(row) => users.rows.push(row),
                Err(why) => users.blind.push(Blind::User { user: user.user_name().to_owned(), why }),
            }
        }
    }
    Ok(users)
}

async fn row(client: &Client, user: &User) -> Result<Row, String> {
    let name = user.user_name();
    let parsed: UserName = name.parse().map_err(|error| format!("{error}"))?;
    let slot = |key: KeyFacts| Slot {
        active: key.is_active(),
        since: key.created,
        id: Some(key.id),
        ..Slot::default()
    };
    let keys = iam::keys(client, &parsed).await.map_err(|error| error.to_string())?;
    Ok(Row {
        user: name.to_owned(),
        path: user.path().to_owned(),
        keys: keys.into_iter().map(slot).collect(),
    })
}

/// Whether the root user has an access key; `None` where IAM does not say.
async fn root_key(client: &Client) -> Option<bool> {
    let reply = client.get_account_summary().send().await.ok()?;
    let present = reply.summary_map()?.get(&SummaryKeyType::AccountAccessKeysPresent)?;
    Some(*present > 0)
}

/// The secrets of a region whose tag names a user.
pub async fn tagged(config: &SdkConfig, region: &str) -> Result<Vec<Tagged>, StepError> {
    let client = aws_sdk_secretsmanager::Client::new(&aws::in_region(config, region));
    let by_tag = Filter::builder().key(FilterNameStringType::TagKey).values(TAG_USER).build();
    let mut pages = client.list_secrets().filters(by_tag).max_results(100).into_paginator().send();
    let mut found = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| StepError::from_sdk("secretsmanager:ListSecrets", &error))?;
        for entry in page.secret_list() {
            found.extend(one_tagged(entry, region)?);
        }
    }
    Ok(found)
}

fn one_tagged(entry: &SecretListEntry, region: &str) -> Result<Option<Tagged>, StepError> {
    let tag =
        |tag: &aws_sdk_secretsmanager::types::Tag| Some((tag.key()?.to_owned(), tag.value()?.to_owned()));
    let tags: BTreeMap<String, String> = entry.tags().iter().filter_map(tag).collect();
    // The filter takes prefixes: a tag that only begins like ours is not ours.
    let Some(user) = tags.get(TAG_USER).cloned() else { return Ok(None) };
    let arn = entry.arn().unwrap_or_default();
    let arn = arn.parse().map_err(|error| StepError::Conflict(format!("ListSecrets: {error}")))?;
    let replica_of = entry.primary_region().filter(|primary| *primary != region).map(str::to_owned);
    let changed = entry.last_changed_date().and_then(timestamp);
    let versions = entry.secret_versions_to_stages().cloned().unwrap_or_default();
    let runs = secrets::runs(versions.iter());
    // A label that a promotion has left on what is current, or was, says nothing.
    let waits = |labels: &Vec<String>| {
        let has = |label: &str| labels.iter().any(|one| one == label);
        has(PENDING) && !has(CURRENT) && !has(PREVIOUS)
    };
    let pending = versions.values().any(waits);
    Ok(Some(Tagged { arn, user, tags, changed, replica_of, runs, pending }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "user,arn,user_creation_time,access_key_1_active,access_key_1_last_rotated,access_key_1_last_used_date,access_key_1_last_used_region,access_key_1_last_used_service,access_key_2_active,access_key_2_last_rotated,access_key_2_last_used_date,access_key_2_last_used_region,access_key_2_last_used_service,more";

    fn parsed(rows: &str) -> Users {
        parse(format!("{HEAD}\n{rows}").as_bytes()).unwrap()
    }

    #[test]
    fn a_report_is_read_by_its_columns_with_quoted_names_and_paths() {
        let Users { rows, root_key, blind } = parsed(
            "<root_account>,arn:aws:iam::111122223333:root,2020-01-01T00:00:00+00:00,true,2020-01-01T00:00:00+00:00,N/A,N/A,N/A,false,N/A,N/A,N/A,N/A,x\n\
             \"a,b\",\"arn:aws:iam::111122223333:user/vendors/x/a,b\",2020-01-01T00:00:00+00:00,true,2026-01-02T03:04:05+00:00,2026-02-03T00:00:00+00:00,eu-west-1,s3,false,2025-01-01T00:00:00+00:00,no_information,N/A,N/A,x\n\
             c,arn:aws:iam::111122223333:user/c,2020-01-01T00:00:00+00:00,false,N/A,N/A,N/A,N/A,false,N/A,N/A,N/A,N/A,x",
        );
        assert_eq!((rows.len(), blind.len(), root_key), (2, 0, Some(true)));
        assert_eq!((rows[0].user.as_str(), rows[0].path.as_str()), ("a,b", "/vendors/x/"));
        let [one, two] = &rows[0].keys[..] else { panic!("{:?}", rows[0]) };
        assert_eq!(one.since, Some("2026-01-02T03:04:05Z".parse().unwrap()));
        assert_eq!((one.active, one.used), (true, Used::At("2026-02-03T00:00:00Z".parse().unwrap())));
        assert_eq!((one.service.as_deref(), one.region.as_deref()), (Some("s3"), Some("eu-west-1")));
        assert_eq!((two.active, two.used), (false, Used::Unknown));
        assert_eq!((&two.service, &two.region), (&None, &None));
        assert_eq!((rows[1].path.as_str(), rows[1].keys.len()), ("/", 0));
    }

    #[test]
    fn a_report_that_is_not_one_is_refused() {
        for text in ["", "user,arn\na,b", "<html>"] {
            let error = parse(text.as_bytes()).err().unwrap().to_string();
            assert!(error.contains("credential report") && error.contains("no column"), "{error}");
        }
    }

    #[test]
    fn a_row_that_cannot_be_understood_is_named_and_the_others_are_read() {
        let good = |name: &str| {
            format!(
                "{name},arn:aws:iam::111122223333:user/{name},x,false,N/A,N/A,N/A,N/A,false,N/A,N/A,N/A,N/A,x"
            )
        };
        for (wrong, what) in [
            (good("b").replacen("false", "maybe", 1), "\"maybe\" is neither"),
            (good("b").replacen("N/A", "yesterday", 1), "\"yesterday\" is not a time"),
            (good("b,c"), "it has 16 fields under 14 columns"),
            ("b,c".to_owned(), "it has 2 fields"),
        ] {
            let Users { rows, blind, .. } = parsed(&[good("a"), wrong, good("c")].join("\n"));
            assert_eq!(rows.iter().map(|row| row.user.as_str()).collect::<Vec<_>>(), ["a", "c"]);
            let [Blind::Row { line: 3, user, why }] = &blind[..] else { panic!("{blind:?}") };
            assert!(why.contains(what) && user == "b", "{user}: {why}");
        }
    }
}
