//! The `Triage` state: what an event says has leaked, and which incidents come of it.
//!
//! Makes no call. The judgement is `keywheel::triage`; here it becomes a course: an execution for each credential,
//! a closer look at a key that somebody has made, a word to a person, or nothing. An event that cannot be understood fails its execution, loudly, after it was
//! told: it may have been the leak.

use keywheel::incident::{Alarm, Alert, Course, Incident};
use keywheel::triage::{Class, Verdict, judge_knowing, made, said_at};
use keywheel::{Context, Step, StepError};
use tracing::{info, warn};

/// More text of incidents than this does not fit into a state beside what the machine adds to it.
const LARGEST: usize = 220 * 1024;

/// The step.
pub struct Triage {
    roles: Vec<String>,
}

impl Triage {
    /// A step that takes what these roles make Active for ours.
    pub fn new(roles: Vec<String>) -> Self {
        Self { roles }
    }
}

impl Step for Triage {
    const NAME: &'static str = "triage";
    type Input = Alarm;
    type Output = Alert;

    /// Run twice, it says the same: the incidents' names follow from the event's execution.
    async fn run(&self, alarm: Alarm, ctx: &Context) -> Result<Alert, StepError> {
        let verdict = judge_knowing(&alarm.event, &self.roles);
        let mut alert = Alert::new(alarm.execution, alarm.started, verdict.class, verdict.reason.clone());
        (alert.undone, alert.again) = (alarm.undone, alarm.again);
        alert.said = said_at(&alarm.event, alarm.started);
        let id = alarm.event.get("id").and_then(serde_json::Value::as_str);
        alert.event = id.filter(|id| id.len() <= 64 && id.bytes().all(is_plain)).map(str::to_owned);
        alert.course = course(&verdict);
        if alert.course == Course::Nothing {
            alert.made = made(&alarm.event);
            if alert.made.is_some() {
                alert.course = Course::Watch;
            }
        }
        if alert.course == Course::Incidents {
            let targets = verdict.targets.into_iter().filter(|target| is_incident(target.class));
            let of = |target| Incident::open(&alert, target, verdict.reason.clone());
            let mut incidents: Vec<Incident> = targets.map(of).collect();
            // The same credential under two of its names is one incident.
            incidents.sort_by_key(|incident| incident.id);
            incidents.dedup_by_key(|incident| incident.id);
            let all = incidents.len();
            for incident in incidents.iter_mut().filter(|incident| incident.reported) {
                incident.beside = u32::try_from(all).unwrap_or(u32::MAX);
            }
            alert.incidents = fitting(incidents, alarm.from);
            let next = alarm.from + alert.incidents.len();
            alert.from = (next < all).then_some(next);
            if verdict.odd > 0 && alert.from.is_none() && !alarm.again {
                alert.tell_odd(ctx.clock.now());
            }
        }
        match alert.course {
            Course::Tell | Course::Reject => {
                warn!(rotation.id = %alert.id, "Event taken for {:?}: {}", alert.class, alert.reason);
                alert.tell(ctx.clock.now());
            }
            Course::Incidents | Course::Watch | Course::Nothing => {
                let count = alert.incidents.len();
                info!(rotation.id = %alert.id, "Event taken for {:?}, {count} incidents: {}", alert.class, alert.reason);
            }
        }
        Ok(alert)
    }
}

/// As many of the incidents, from that one on, as one document holds; never none where there is one.
fn fitting(incidents: Vec<Incident>, from: usize) -> Vec<Incident> {
    let mut taken = 0;
    let fits = |(index, incident): &(usize, Incident)| {
        // With the comma behind it.
        taken += serde_json::to_string(incident).map_or(LARGEST, |text| text.len() + 1);
        *index == 0 || taken <= LARGEST
    };
    incidents.into_iter().skip(from).enumerate().take_while(fits).map(|(_, incident)| incident).collect()
}

const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':')
}

/// Whether a credential of this class gets an execution of its own: somebody may have to act on it.
const fn is_incident(class: Class) -> bool {
    matches!(
        class,
        Class::RevokeUserKey
            | Class::ResolveUserKeys
            | Class::UserSession
            | Class::RevokeAgainIfLeaked
            | Class::PolicyDecides
            | Class::Root
            | Class::SessionOnly
            | Class::SessionResolve
    )
}

fn course(verdict: &Verdict) -> Course {
    match verdict.class {
        Class::Reject => Course::Reject,
        Class::Ignore | Class::Observe | Class::Rotate | Class::SmRotationStep => Course::Nothing,
        Class::Sample
        | Class::NotifyOnly
        | Class::NotCredentialLeakNotify
        | Class::NotOursNotify
        | Class::NotifyResolve => Course::Tell,
        _ if verdict.targets.iter().any(|target| is_incident(target.class)) => Course::Incidents,
        // A leak without anybody it is about is for a person.
        _ => Course::Tell,
    }
}
