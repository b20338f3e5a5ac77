//! Watches the promises while the run is under way, with its own eyes: the AWS API, five times a second.
//!
//! It shares no code with the Lambdas it watches.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_iam::types::StatusType;
use jiff::Timestamp;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::cloud::Cloud;
use crate::demo::stage::USER;
use crate::error::{Error, Result, aws};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(200);

/// A key and whether it is Active.
pub(crate) type Key = (String, bool);

/// One look at the secret and the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Look {
    /// When.
    pub(crate) at: Timestamp,
    /// The version that AWSCURRENT names.
    pub(crate) version: String,
    /// The key it holds.
    pub(crate) current: String,
    /// The user's keys, read after the secret.
    pub(crate) keys: Vec<Key>,
}

/// One label that moved, as seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Move {
    /// When it was first seen there.
    pub(crate) at: Timestamp,
    /// The label.
    pub(crate) label: String,
    /// The version it was on.
    pub(crate) from: Option<String>,
    /// The version it is on; `None` where it was taken off.
    pub(crate) to: Option<String>,
}

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The last look.
    pub(crate) last: Option<Look>,
    /// The labels, by name.
    pub(crate) labels: Vec<(String, String)>,
    /// Moves of labels.
    pub(crate) moves: Vec<Move>,
    /// How often it looked.
    pub(crate) looks: u64,
    /// Promises that did not hold.
    pub(crate) violations: Vec<String>,
}

impl Seen {
    fn broken(&mut self, what: String) {
        // One sentence each, however long it stays broken.
        if !self.violations.contains(&what) {
            self.violations.push(what);
        }
    }

    /// Takes a look in; `still` is what AWSCURRENT names after the keys were read, where that matters.
    fn take(&mut self, look: Look, still: Option<&str>) {
        let active = look.keys.iter().any(|(id, active)| *active && *id == look.current);
        // Between the two reads the label may have moved; only a version that is current before and after
        // its key was seen not to be Active breaks the promise.
        if !active && still == Some(look.version.as_str()) {
            self.broken(format!("P1: AWSCURRENT names key {}, which is not Active", look.current));
        }
        if look.keys.len() > 2 {
            self.broken(format!("the user has {} keys", look.keys.len()));
        }
        self.looks += 1;
        self.last = Some(look);
    }

    fn labelled(&mut self, at: Timestamp, labels: Vec<(String, String)>) {
        let version = |labels: &[(String, String)], label: &str| {
            labels.iter().find(|(name, _)| name == label).map(|(_, version)| version.clone())
        };
        let first = self.labels.is_empty();
        let mut names: Vec<String> =
            self.labels.iter().chain(&labels).map(|(name, _)| name.clone()).collect();
        names.sort();
        names.dedup();
        for label in names {
            let (from, to) = (version(&self.labels, &label), version(&labels, &label));
            if from != to && !first {
                self.moves.push(Move { at, label, from, to });
            }
        }
        self.labels = labels;
    }
}

/// A watch that goes on until it is ended or dropped.
pub(crate) struct Watch {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Watch {
    /// Begins to look.
    pub(crate) fn start(cloud: &Cloud, secret: &str) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let eyes = Eyes {
            iam: aws_sdk_iam::Client::new(&cloud.root()),
            secrets: aws_sdk_secretsmanager::Client::new(&cloud.root()),
            secret: secret.to_owned(),
        };
        let task = tokio::spawn(eyes.watch(Arc::clone(&seen)));
        Self { seen, task }
    }

    /// The user's keys, as last seen.
    pub(crate) fn keys(&self) -> Option<Look> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).last.clone()
    }

    /// Ends the watch and tells what was seen.
    pub(crate) fn end(self) -> Seen {
        self.task.abort();
        std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct Eyes {
    iam: aws_sdk_iam::Client,
    secrets: aws_sdk_secretsmanager::Client,
    secret: String,
}

impl Eyes {
    async fn watch(self, seen: Arc<Mutex<Seen>>) {
        loop {
            let looked = self.look().await;
            {
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                match looked {
                    Ok((look, still, labels)) => {
                        seen.labelled(look.at, labels);
                        seen.take(look, still.as_deref());
                    }
                    // A watch that cannot see must not say that all was well.
                    Err(error) => seen.broken(format!("the watch could not look: {error}")),
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn look(&self) -> Result<(Look, Option<String>, Vec<(String, String)>)> {
        let (version, current) = self.current().await?;
        let keys = self.keys().await?;
        let labels = self.labels().await?;
        let active = keys.iter().any(|(id, active)| *active && *id == current);
        let still = if active { None } else { Some(self.current().await?.0) };
        Ok((Look { at: Timestamp::now(), version, current, keys }, still, labels))
    }

    async fn current(&self) -> Result<(String, String)> {
        let read = self.secrets.get_secret_value().secret_id(&self.secret).version_stage("AWSCURRENT");
        let read = aws("secretsmanager:GetSecretValue", read.send().await)?;
        let value: Value = serde_json::from_str(read.secret_string().unwrap_or_default())
            .map_err(|_| Error::from("the secret is not JSON"))?;
        let key = value.get("AccessKeyId").and_then(Value::as_str).unwrap_or_default();
        Ok((read.version_id().unwrap_or_default().to_owned(), key.to_owned()))
    }

    async fn keys(&self) -> Result<Vec<Key>> {
        let mut pages = self.iam.list_access_keys().user_name(USER).into_paginator().send();
        let mut keys = Vec::new();
        while let Some(page) = pages.next().await {
            for row in aws("iam:ListAccessKeys", page)?.access_key_metadata() {
                let active = row.status() == Some(&StatusType::Active);
                keys.push((row.access_key_id().unwrap_or_default().to_owned(), active));
            }
        }
        Ok(keys)
    }

    async fn labels(&self) -> Result<Vec<(String, String)>> {
        let told = self.secrets.describe_secret().secret_id(&self.secret).send().await;
        let told = aws("secretsmanager:DescribeSecret", told)?;
        let mut labels = Vec::new();
        for (version, names) in told.version_ids_to_stages().into_iter().flatten() {
            labels.extend(names.iter().map(|name| (name.clone(), version.clone())));
        }
        labels.sort();
        Ok(labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(current: &str, keys: &[(&str, bool)]) -> Look {
        let keys = keys.iter().map(|(id, active)| ((*id).to_owned(), *active)).collect();
        Look { at: Timestamp::UNIX_EPOCH, version: format!("v-{current}"), current: current.into(), keys }
    }

    #[test]
    fn a_current_key_that_is_not_active_breaks_the_promise_once() {
        let mut seen = Seen::default();
        seen.take(look("a", &[("a", true)]), None);
        assert!(seen.violations.is_empty());
        seen.take(look("a", &[("a", false), ("b", true)]), Some("v-a"));
        seen.take(look("a", &[("a", false), ("b", true)]), Some("v-a"));
        assert_eq!(seen.violations.len(), 1);
        assert!(seen.violations[0].starts_with("P1"), "{:?}", seen.violations);
    }

    #[test]
    fn a_label_that_moved_between_two_reads_breaks_nothing() {
        let mut seen = Seen::default();
        seen.take(look("a", &[("a", false), ("b", true)]), Some("v-b"));
        assert!(seen.violations.is_empty(), "{:?}", seen.violations);
    }

    #[test]
    fn a_third_key_is_told() {
        let mut seen = Seen::default();
        seen.take(look("a", &[("a", true), ("b", true), ("c", true)]), None);
        assert_eq!(seen.violations, ["the user has 3 keys"]);
    }

    #[test]
    fn labels_that_appear_move_and_go_are_moves() {
        let label = |name: &str, version: &str| (name.to_owned(), version.to_owned());
        let mut seen = Seen::default();
        seen.labelled(Timestamp::UNIX_EPOCH, vec![label("CUR", "1")]);
        seen.labelled(Timestamp::UNIX_EPOCH, vec![label("CUR", "1"), label("PEN", "2")]);
        seen.labelled(Timestamp::UNIX_EPOCH, vec![label("CUR", "2")]);
        let moves: Vec<_> =
            seen.moves.iter().map(|m| (m.label.as_str(), m.from.as_deref(), m.to.as_deref())).collect();
        assert_eq!(
            moves,
            [("PEN", None, Some("2")), ("CUR", Some("1"), Some("2")), ("PEN", Some("2"), None)]
        );
    }
}
