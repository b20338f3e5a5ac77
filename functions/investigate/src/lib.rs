//! The `Investigate` states: what a leaked key did, as CloudTrail's event history tells it.
//!
//! Every enabled region has a history of its own, and each allows two lookups a second, which it shares with all
//! other callers in the account. So few regions are read at a time, with a pause between pages, and one that keeps
//! refusing is given up: a report that is partial and says so is worth more at once than a whole one tomorrow. The
//! machine asks again when the looks are done, because CloudTrail shows calls some minutes late.
//!
//! What is made of the records is in `keywheel::incident::findings`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_account::types::RegionOptStatus;
use aws_sdk_cloudtrail::config::retry::RetryConfig;
use aws_sdk_cloudtrail::config::timeout::TimeoutConfig;
use aws_sdk_cloudtrail::operation::lookup_events::LookupEventsOutput;
use aws_sdk_cloudtrail::types::{LookupAttribute, LookupAttributeKey};
use aws_types::SdkConfig;
use facts::bucket::Bucket;
use facts::member::{self, Members};
use jiff::Timestamp;
use keywheel::clock::after;
use keywheel::incident::findings::{Gaps, Tally};
use keywheel::notice::NoticeKind;
use keywheel::{AccessKeyId, Context, Incident, Step, StepError, aws};
use serde_json::Value;
use tracing::{info, warn};

/// Between two pages of one region: it allows two calls a second.
const PAUSE: Duration = Duration::from_millis(600);
/// Before a call that was throttled, or whose answer was lost, is made again.
const BACK_OFF: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(16),
];
/// How many pages are read of one credential in one region: the latest 5,000 calls, a minute's work.
const PAGES: usize = 100;
/// When no further call is begun: the function itself ends at five minutes.
const LATEST: Duration = Duration::from_mins(4);
/// A lookup that finds little in 90 days of history takes its time.
const PATIENCE: Duration = Duration::from_secs(15);

/// How the report calls what is missing where nobody knows which regions there are.
const LIST: &str = "the list of regions";

/// The step.
pub struct Investigate {
    config: SdkConfig,
    members: Option<Members>,
    bucket: String,
}

impl Investigate {
    /// A step that calls AWS with `config`, enters other accounts where there are `members`, and keeps its reports in
    /// `bucket`.
    pub fn new(config: SdkConfig, members: Option<Members>, bucket: String) -> Self {
        Self { config, members, bucket }
    }
}

/// What one invocation works with.
struct Tools<'a> {
    config: SdkConfig,
    ctx: &'a Context,
    keys: Vec<AccessKeyId>,
    deadline: Timestamp,
    /// Incidents of one event ask at the same time; each waits a little differently.
    spread: Duration,
    tally: Mutex<Tally>,
}

/// How far a region was read.
struct Part<'a> {
    region: &'a str,
    pages: usize,
    /// A credential had more pages than are read.
    cut: bool,
    /// It was given up for lack of time.
    late: bool,
    /// It was given up for this.
    error: Option<StepError>,
}

impl Part<'_> {
    fn is_missing(&self) -> bool {
        self.late || self.error.is_some()
    }
}

impl Step for Investigate {
    const NAME: &'static str = "investigate";
    type Input = Incident;
    type Output = Incident;

    /// Run twice, it reads again, and tells it again only where there is more to tell. Killed half way, it leaves
    /// nothing behind.
    async fn run(&self, mut doc: Incident, ctx: &Context) -> Result<Incident, StepError> {
        doc.merge();
        doc.take_error("the last step");
        let keys = credentials(&doc);
        if keys.is_empty() {
            doc.note_failure(Self::NAME, "no key is named, so there is none to look up");
            return Ok(doc);
        }
        let config = aws::for_run(&self.config, doc.id);
        let tools = Tools {
            config: member::config_for(self.members.as_ref(), &config, &doc).await?,
            ctx,
            keys,
            deadline: after(ctx.clock.now(), LATEST),
            spread: spread(&doc),
            tally: Mutex::default(),
        };
        let mut missing = Vec::new();
        let regions = match tools.regions().await {
            Ok(regions) => regions,
            Err(error) => {
                doc.note_failure(Self::NAME, &said("account:ListRegions", &error));
                missing.push(LIST.to_owned());
                tools.known_regions(&doc)
            }
        };
        let parts = Box::pin(tools.read(&regions)).await;
        if parts.iter().all(|part| part.pages == 0) {
            let mut errors: Vec<StepError> = parts.into_iter().filter_map(|part| part.error).collect();
            // One that the machine may ask again stands for all.
            errors.sort_by_key(|error| matches!(error, StepError::Refused(_)));
            let nothing = || StepError::Conflict("no region of CloudTrail could be read".into());
            return Err(errors.into_iter().next().unwrap_or_else(nothing));
        }
        note_errors(&mut doc, &parts);
        let read = parts.iter().filter(|part| !part.is_missing()).count();
        missing.extend(parts.iter().filter(|part| part.is_missing()).map(|part| part.region.to_owned()));
        let cut = parts.iter().filter(|part| part.cut).map(|part| part.region.to_owned()).collect();
        let gaps = Gaps { read: u32::try_from(read).unwrap_or(u32::MAX), missing, cut };
        let tally = tools.tally.into_inner().unwrap_or_else(PoisonError::into_inner);
        if take_in(&mut doc, &tally, gaps, ctx.clock.now()) {
            Box::pin(keep(&mut doc, &Bucket::new(&config, &self.bucket))).await;
            let more = format!("/{}", doc.findings.as_ref().map_or(1, |findings| findings.round));
            doc.announce_again(ctx.clock.now(), NoticeKind::Investigated, &more);
        }
        Ok(doc)
    }
}

/// Keeps the report with the incident, as a page for people and as the document for programs: the execution is
/// forgotten after 90 days. That it could not be kept is said, and keeps nothing else up.
async fn keep(doc: &mut Incident, bucket: &Bucket) {
    let (page, document) = (format!("incidents/{}.html", doc.id), format!("incidents/{}.json", doc.id));
    if let Some(findings) = &mut doc.findings {
        findings.report = Some(bucket.address(&page));
    }
    let text = serde_json::to_string_pretty(&doc).unwrap_or_default();
    // The page first: the document names it.
    let kept = match bucket.write(&page, "text/html; charset=utf-8", keywheel::incident::page(doc)).await {
        Ok(_) => bucket.write(&document, "application/json", text).await,
        Err(error) => Err(error),
    };
    if let Err(error) = kept {
        warn!(rotation.id = %doc.id, "The report could not be kept: {error}");
        doc.note_failure("report", &said("s3:PutObject", &error));
        if let Some(findings) = &mut doc.findings {
            findings.report = None;
        }
    }
}

/// Puts the findings into the document; whether there is something to tell.
fn take_in(doc: &mut Incident, tally: &Tally, gaps: Gaps, now: Timestamp) -> bool {
    let mut findings = tally.findings(now, gaps);
    match &doc.findings {
        // What could be read before and cannot now is not lost.
        Some(before) if findings.is_partial() && findings.events < before.events => {
            doc.note_failure("investigate", "less could be read than before; the earlier findings stand");
            return false;
        }
        Some(before) if before.tells_the_same_as(&findings) && before.report.is_some() => {
            (findings.round, findings.report) = (before.round, before.report.clone());
            doc.findings = Some(findings);
            return false;
        }
        Some(before) if before.tells_the_same_as(&findings) => findings.round = before.round,
        Some(before) => findings.round = before.round + 1,
        None => findings.round = 1,
    }
    info!(
        rotation.id = %doc.id,
        key.id = doc.credential(),
        events = findings.events,
        partial = findings.is_partial(),
        "Read {} calls of {} in {} regions",
        findings.events,
        doc.credential(),
        findings.read
    );
    doc.findings = Some(findings);
    doc.roles_open = !doc.undenied_roles().is_empty();
    true
}

/// Every credential of the incident, once.
fn credentials(doc: &Incident) -> Vec<AccessKeyId> {
    let mut keys: Vec<AccessKeyId> = Vec::new();
    for key in doc.target.key_id.iter().chain(&doc.keys) {
        if !keys.contains(key) {
            keys.push(key.clone());
        }
    }
    keys
}

/// How long one lookup may take.
fn timeouts() -> TimeoutConfig {
    let connect = Duration::from_secs(2);
    TimeoutConfig::builder().connect_timeout(connect).operation_attempt_timeout(PATIENCE).build()
}

/// Up to a second, from the incident's id.
fn spread(doc: &Incident) -> Duration {
    let id = doc.id.to_string();
    let number = id.get(..2).and_then(|digits| u64::from_str_radix(digits, 16).ok());
    Duration::from_millis(number.unwrap_or_default() * 4)
}

/// An error for the document: without the request's id, so that the same one is noted once.
fn said(call: &str, error: &StepError) -> String {
    format!("{call}: {}", error.code().unwrap_or(error.name()))
}

/// What failed, each error once with the regions that it was met in.
fn note_errors(doc: &mut Incident, parts: &[Part<'_>]) {
    let mut errors: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for part in parts {
        if let Some(error) = &part.error {
            errors.entry(said("cloudtrail:LookupEvents", error)).or_default().push(part.region);
        } else if part.late {
            errors.entry("there was no time left for some regions".to_owned()).or_default().push(part.region);
        }
    }
    for (error, regions) in errors {
        warn!(rotation.id = %doc.id, "{error}: {}", regions.join(", "));
        doc.note_failure("investigate", &format!("{error}: {}", regions.join(", ")));
    }
}

impl Tools<'_> {
    /// The regions that are enabled in the account.
    async fn regions(&self) -> Result<Vec<String>, StepError> {
        let mut pages = aws_sdk_account::Client::new(&self.config)
            .list_regions()
            .region_opt_status_contains(RegionOptStatus::Enabled)
            .region_opt_status_contains(RegionOptStatus::EnabledByDefault)
            .max_results(50)
            .into_paginator()
            .send();
        let mut regions = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| StepError::from_sdk("account:ListRegions", &error))?;
            regions
                .extend(page.regions().iter().filter_map(|region| region.region_name().map(str::to_owned)));
        }
        if regions.is_empty() {
            return Err(StepError::Conflict("the account has no region".into()));
        }
        Ok(regions)
    }

    /// The regions that are read where nobody says which there are: the hub's own, and the one of IAM's records.
    fn known_regions(&self, doc: &Incident) -> Vec<String> {
        let own = self.config.region().map(|region| region.as_ref().to_owned());
        let iam = facts::trail::iam_region(doc.partition()).map(str::to_owned);
        let mut regions: Vec<String> = own.into_iter().chain(iam).collect();
        regions.dedup();
        regions
    }

    /// Reads every region, four at a time: more would ask more of the account than of the regions.
    async fn read<'a>(&self, regions: &'a [String]) -> Vec<Part<'a>> {
        let next = AtomicUsize::new(0);
        let worker = || async {
            let mut parts = Vec::new();
            while let Some(region) = regions.get(next.fetch_add(1, Ordering::Relaxed)) {
                parts.push(self.region(region).await);
            }
            parts
        };
        let (first, second, third, fourth) = tokio::join!(worker(), worker(), worker(), worker());
        let mut parts: Vec<Part<'_>> = [first, second, third, fourth].into_iter().flatten().collect();
        parts.sort_by_key(|part| part.region);
        parts
    }

    /// Reads what one region knows of every credential.
    async fn region<'a>(&self, region: &'a str) -> Part<'a> {
        let config = aws::in_region(&self.config, region);
        // Our own back-off, on the step's clock: the SDK's would be over before a second has passed.
        let config = aws_sdk_cloudtrail::config::Builder::from(&config)
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts());
        let trail = aws_sdk_cloudtrail::Client::from_conf(config.build());
        let mut part = Part { region, pages: 0, cut: false, late: false, error: None };
        for key in &self.keys {
            let mut token = None;
            for page in 0.. {
                if page == PAGES {
                    part.cut = true;
                    break;
                }
                if self.ctx.clock.now() >= self.deadline {
                    part.late = true;
                    return part;
                }
                if part.pages > 0 {
                    self.ctx.clock.sleep(PAUSE).await;
                }
                let reply = match self.page(&trail, key, token).await {
                    Ok(reply) => reply,
                    Err(error) => {
                        part.error = Some(error);
                        return part;
                    }
                };
                part.pages += 1;
                self.count(&reply);
                token = reply.next_token;
                if token.is_none() {
                    break;
                }
            }
        }
        part
    }

    /// One page, asked for again where that may help.
    async fn page(
        &self,
        trail: &aws_sdk_cloudtrail::Client,
        key: &AccessKeyId,
        token: Option<String>,
    ) -> Result<LookupEventsOutput, StepError> {
        let wanted = LookupAttribute::builder()
            .attribute_key(LookupAttributeKey::AccessKeyId)
            .attribute_value(key.as_str())
            .build()
            .map_err(|_| StepError::BadInput("cloudtrail:LookupEvents: no attribute".into()))?;
        let mut pauses = BACK_OFF.into_iter();
        loop {
            let call = trail.lookup_events().lookup_attributes(wanted.clone()).set_next_token(token.clone());
            let error = match call.send().await {
                Ok(reply) => return Ok(reply),
                Err(error) => StepError::from_sdk("cloudtrail:LookupEvents", &error),
            };
            let again = matches!(error, StepError::Throttled(_) | StepError::Ambiguous(_));
            match pauses.next().map(|pause| pause + self.spread).filter(|_| again) {
                Some(pause) if after(self.ctx.clock.now(), pause) < self.deadline => {
                    self.ctx.clock.sleep(pause).await;
                }
                _ => return Err(error),
            }
        }
    }

    fn count(&self, page: &LookupEventsOutput) {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        for event in page.events() {
            // A record that cannot be read is a call all the same.
            let record = event.cloud_trail_event().and_then(|text| serde_json::from_str(text).ok());
            tally.add(&record.unwrap_or(Value::Null));
        }
    }
}
