//! The credential report: every user in one text, which IAM makes in its own time and keeps for four hours.

use std::fmt::Write as _;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::account::{Key, User};
use super::iam::{recorded, second};
use super::state::State;
use super::wire::{Answer, Body, Request, refuse_with, tag};

/// For how long IAM hands the same report out.
const KEPT: Duration = Duration::from_hours(4);

const HEAD: &str = "user,arn,user_creation_time,password_enabled,password_last_used,password_last_changed,password_next_rotation,mfa_active,access_key_1_active,access_key_1_last_rotated,access_key_1_last_used_date,access_key_1_last_used_region,access_key_1_last_used_service,access_key_2_active,access_key_2_last_rotated,access_key_2_last_used_date,access_key_2_last_used_region,access_key_2_last_used_service,cert_1_active,cert_1_last_rotated,cert_2_active,cert_2_last_rotated";

impl State {
    /// Asked the first time, IAM starts to make one; asked again, it has made it.
    pub(super) fn generate_report(&mut self, request: &Request) -> Answer {
        if self.options.report_refused {
            return refuse_with(409, "LimitExceeded", "The report was asked for too often.");
        }
        if let Some(account) = self.account_of_signer(&request.signer).map(str::to_owned) {
            return Ok(self.generate_theirs(account));
        }
        let fresh = self.report.as_ref().is_some_and(|(at, _)| *at > self.ago(KEPT));
        let state = if fresh {
            "COMPLETE"
        } else if std::mem::take(&mut self.report_begun) {
            self.report = Some((second(self.now()), self.report_text(None)));
            "COMPLETE"
        } else {
            self.report_begun = true;
            "STARTED"
        };
        Ok(Body::Xml(tag("State", state)))
    }

    fn generate_theirs(&mut self, account: String) -> Body {
        let state = match self.their_reports.get(&account) {
            Some(Some((at, _))) if *at > self.ago(KEPT) => "COMPLETE",
            Some(None) => {
                let made = (second(self.now()), self.report_text(Some(&account)));
                self.their_reports.insert(account, Some(made));
                "COMPLETE"
            }
            _ => {
                self.their_reports.insert(account, None);
                "STARTED"
            }
        };
        Body::Xml(tag("State", state))
    }

    pub(super) fn get_report(&self, request: &Request) -> Answer {
        let report = match self.account_of_signer(&request.signer) {
            Some(account) => self.their_reports.get(account).and_then(Option::as_ref),
            None => self.report.as_ref(),
        };
        let Some((at, text)) = report else {
            return refuse_with(410, "ReportNotPresent", "No report is present.");
        };
        if *at <= self.ago(KEPT) {
            return refuse_with(410, "ReportExpired", "The report is too old.");
        }
        let content = tag("Content", STANDARD.encode(text));
        Ok(Body::Xml([content, tag("ReportFormat", "text/csv"), tag("GeneratedTime", at)].concat()))
    }

    fn report_text(&self, account: Option<&str>) -> String {
        let number = account.unwrap_or(&self.account);
        let root = format!("arn:{}:iam::{number}:root", self.partition);
        let none = self.slot(None);
        let mut text = format!("{HEAD}\n");
        let mut row = |name: &str, arn: &str, slots: [String; 2]| {
            let _ = writeln!(
                text,
                "\"{name}\",\"{arn}\",2020-01-01T00:00:00+00:00,false,N/A,N/A,N/A,false,{},{},false,N/A,false,N/A",
                slots[0], slots[1]
            );
        };
        row("<root_account>", &root, [none.clone(), none]);
        for user in self.users.values().filter(|user| user.account.as_deref() == account) {
            row(&user.name, &self.user_arn(user), self.slots(user));
        }
        text
    }

    /// The report has room for two keys, and names no ids.
    fn slots(&self, user: &User) -> [String; 2] {
        let mut keys = user.keys.iter().filter(|key| key.exists());
        [self.slot(keys.next()), self.slot(keys.next())]
    }

    fn slot(&self, key: Option<&Key>) -> String {
        let Some(key) = key else { return "false,N/A,N/A,N/A,N/A".to_owned() };
        let until = self.ago(self.options.last_used_lag);
        let used = recorded(key).filter(|(at, _)| *at <= until).max_by_key(|(at, _)| *at);
        let date = |at: jiff::Timestamp| second(at).strftime("%Y-%m-%dT%H:%M:%S+00:00").to_string();
        let used = used.map_or_else(
            || "N/A,N/A,N/A".to_owned(),
            |(at, service)| format!("{},{},{service}", date(at), self.region),
        );
        // The day on which it was made, or switched last.
        let since = key.created.max(key.changes.last().map_or(key.created, |(at, _)| *at));
        format!("{},{},{used}", key.is_active(), date(since))
    }

    pub(super) fn account_summary() -> Body {
        let entry = "<entry><key>AccountAccessKeysPresent</key><value>0</value></entry>";
        Body::Xml(format!("<SummaryMap>{entry}</SummaryMap>"))
    }

    /// All users of the caller's account, page by page.
    pub(super) fn list_users(&self, request: &Request) -> Body {
        let here = self.account_of_signer(&request.signer);
        let users: Vec<&User> = self.users.values().filter(|user| user.account.as_deref() == here).collect();
        let from: usize = request.text("Marker").parse().unwrap_or(0);
        let to = (from + self.options.page).min(users.len());
        let row = |user: &&User| {
            let fields = [
                tag("Path", &user.path),
                tag("UserName", &user.name),
                tag("UserId", &user.id),
                tag("Arn", self.user_arn(user)),
                tag("CreateDate", "2024-02-03T04:05:06Z"),
            ];
            format!("<member>{}</member>", fields.concat())
        };
        let rows: String = users[from.min(to)..to].iter().map(row).collect();
        let more = to < users.len();
        let marker = if more { tag("Marker", to) } else { String::new() };
        Body::Xml(format!("<Users>{rows}</Users>{}{marker}", tag("IsTruncated", more)))
    }
}
