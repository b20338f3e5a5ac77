//! Samples are documentation and fixtures at once, and last year's documents stay readable.

use keywheel::campaign::{self, Campaign};
use keywheel::incident::Alarm;
use keywheel::rotation::{Phase, Request, Rotation};
use keywheel::unused::{self, Removed, Unused};
use keywheel::{Incident, RunId};
use look::Begin;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use support::functions::NAMES;
use support::repository::text;

fn sample(path: &str) -> Value {
    serde_json::from_str(&text(path)).unwrap()
}

fn unchanged<T: DeserializeOwned + Serialize>(path: &str) {
    let sample = sample(path);
    let read: T = serde_json::from_value(sample.clone()).unwrap_or_else(|error| panic!("{path}: {error}"));
    assert_eq!(serde_json::to_value(read).unwrap(), sample, "{path} is not written as the code writes it");
}

#[test]
fn every_sample_is_read_into_its_type_and_written_back_unchanged() {
    for name in NAMES {
        let path = format!("events/{name}.json");
        match name {
            "look" => unchanged::<Begin>(&path),
            "triage" => unchanged::<Alarm>(&path),
            "watch" => unchanged::<keywheel::Alert>(&path),
            "contain" | "deny-sessions" | "replace" | "investigate" => unchanged::<Incident>(&path),
            "scan" => unchanged::<campaign::Begin>(&path),
            "review" => unchanged::<Campaign>(&path),
            "disable-unused" | "delete-unused" => unchanged::<Unused>(&path),
            _ => unchanged::<Rotation>(&path),
        }
    }
}

#[test]
fn the_machines_own_sample_is_a_request() {
    let request: Request = serde_json::from_value(sample("events/rotation.json")).unwrap();
    assert!(keywheel::policy::Policy::default().with(&request.policy).is_ok());
}

#[test]
fn the_samples_of_an_emergency_follow_from_each_other() {
    let event = sample("events/emergency.json");
    let alarm: Alarm = serde_json::from_value(sample("events/triage.json")).unwrap();
    assert_eq!(alarm.event, event);
    let verdict = keywheel::triage::judge(&event);
    let mut alert =
        keywheel::Alert::new(alarm.execution, alarm.started, verdict.class, verdict.reason.clone());
    alert.said = keywheel::triage::said_at(&event, alarm.started);
    let [target] = verdict.targets.as_slice() else { panic!("{verdict:?}") };
    let opened = Incident::open(&alert, target.clone(), verdict.reason);
    assert_eq!(serde_json::to_value(&opened).unwrap(), sample("events/contain.json"));
    for name in ["deny-sessions", "replace", "investigate"] {
        let later: Incident = serde_json::from_value(sample(&format!("events/{name}.json"))).unwrap();
        assert_eq!((later.id, &later.target), (opened.id, &opened.target), "{name}");
    }
}

#[test]
fn the_samples_of_a_campaign_follow_from_each_other() {
    let begin: campaign::Begin = serde_json::from_value(sample("events/scan.json")).unwrap();
    assert_eq!(begin.input, sample("events/fleet.json"));
    let request: campaign::Request = serde_json::from_value(begin.input.clone()).unwrap();
    let doc: Campaign = serde_json::from_value(sample("events/review.json")).unwrap();
    let new = Campaign::new(&begin, request, &doc.bucket);
    assert_eq!(
        (doc.schema, doc.campaign, &doc.execution, doc.started, &doc.request),
        (new.schema, new.campaign, &new.execution, new.started, &new.request)
    );
    assert_eq!(doc.campaign, begin.name.parse::<RunId>().unwrap());
    // A batch under way, of a wave that has begun it.
    let batch = doc.batch.as_ref().unwrap();
    assert_eq!((doc.phase, &batch.key), (campaign::Phase::Batch, &doc.items(batch.number)));
    assert_eq!(batch.number, doc.waves.iter().map(|wave| wave.begun).sum::<usize>());
    assert_eq!(doc.waves.iter().rfind(|wave| wave.begun > 0).unwrap().wave, batch.wave);
    assert_eq!(doc.counts.rotate, doc.keys());
    let size = campaign::batch_size(doc.keys());
    assert!(doc.waves.iter().all(|wave| wave.batches == wave.keys.div_ceil(size)));
    let [told] = doc.notices.as_slice() else { panic!("{:?}", doc.notices) };
    let mut planned = doc.clone();
    planned.notices.clear();
    planned.announce(told.at, told.kind);
    assert_eq!((&told.id, &told.text), (&planned.notices[0].id, &planned.notices[0].text));
}

#[test]
fn the_samples_of_an_unused_key_follow_from_each_other() {
    let asked: Removed = serde_json::from_value(sample("events/unused.json")).unwrap();
    let found: Unused = serde_json::from_value(sample("events/disable-unused.json")).unwrap();
    let begin = unused::Begin {
        input: sample("events/unused.json"),
        name: found.run.to_string(),
        execution: found.execution.clone(),
        started: found.started,
    };
    let mut doc = Unused::new(&begin).unwrap();
    doc.quiet_since = found.quiet_since;
    assert_eq!((&doc, &doc.removed), (&found, &asked));
    let later: Unused = serde_json::from_value(sample("events/delete-unused.json")).unwrap();
    doc.begin_grace(later.disabled_at.unwrap());
    assert_eq!((doc.phase, &doc.notices[0].text), (later.phase, &later.notices[0].text));
    assert_eq!((doc.grace().unwrap(), &doc.notices[0].id), (later.grace().unwrap(), &later.notices[0].id));
    // The machine hands its first step this very input, and what it is started as.
    assert!(serde_json::from_value::<disable_unused::Input>(serde_json::to_value(begin).unwrap()).is_ok());
}

#[test]
fn an_incident_that_an_earlier_release_began_is_still_read() {
    let mut old = sample("events/contain.json");
    assert!(old.as_object_mut().unwrap().remove("said").is_some());
    let doc: Incident = serde_json::from_value(old.clone()).unwrap();
    assert_eq!(doc.said, None);
    assert_eq!(serde_json::to_value(doc).unwrap(), old);
}

#[test]
fn a_sample_is_in_the_phase_that_its_step_expects() {
    for (name, phase) in [
        ("create-key", Phase::Create),
        ("validate-key", Phase::Validate),
        ("promote-key", Phase::Promote),
        ("deactivate-key", Phase::Overlap),
        ("delete-key", Phase::Grace),
    ] {
        let doc: Rotation = serde_json::from_value(sample(&format!("events/{name}.json"))).unwrap();
        assert_eq!(doc.phase, phase, "{name}");
    }
}

#[test]
fn a_document_of_the_first_release_is_still_understood() {
    let old: Vec<Value> = serde_json::from_value(sample("tests/history/rotation-v1.json")).unwrap();
    assert_eq!(old.len(), 3);
    for document in old {
        let doc: Rotation = serde_json::from_value(document.clone()).unwrap();
        assert_eq!(doc.schema, 1);
        // What it said is still there; what is new has its default.
        let now = serde_json::to_value(&doc).unwrap();
        for (name, value) in document.as_object().unwrap() {
            assert_eq!(&now[name], value, "{name}");
        }
    }
}

/// Every enum name that documents, the machine's choices and alarms are written in.
#[test]
fn the_words_of_documents_do_not_change() {
    let phases = [
        Phase::Create,
        Phase::Validate,
        Phase::Promote,
        Phase::Overlap,
        Phase::Grace,
        Phase::Clear,
        Phase::Backwards,
        Phase::TakeOver,
        Phase::Ended,
    ];
    let words = phases.map(|phase| serde_json::to_value(phase).unwrap());
    assert_eq!(
        words,
        ["create", "validate", "promote", "overlap", "grace", "clear", "backwards", "take_over", "ended"]
    );
    let outcomes = keywheel::Outcome::ALL.map(keywheel::Outcome::name);
    assert_eq!(outcomes, ["Completed", "RolledBack", "Blocked", "Held", "Contained"]);
    expect_phases("rotation", &words);
}

#[test]
fn the_words_of_campaigns_do_not_change() {
    let phases = [campaign::Phase::Batch, campaign::Phase::Settle, campaign::Phase::Ended];
    let words = phases.map(|phase| serde_json::to_value(phase).unwrap());
    assert_eq!(words, ["batch", "settle", "ended"]);
    let outcomes = campaign::Outcome::ALL;
    assert_eq!(outcomes.map(campaign::Outcome::name), ["Done", "Stopped", "Planned", "Refused"]);
    for outcome in outcomes {
        assert_eq!(serde_json::to_value(outcome).unwrap(), outcome.name());
    }
    expect_phases("fleet", &words);
}

#[test]
fn the_words_of_unused_keys_do_not_change() {
    let phases = [unused::Phase::Disable, unused::Phase::Grace, unused::Phase::Ended];
    let words = phases.map(|phase| serde_json::to_value(phase).unwrap());
    assert_eq!(words, ["disable", "grace", "ended"]);
    let outcomes = unused::Outcome::ALL;
    assert_eq!(outcomes.map(unused::Outcome::name), ["Removed", "Disabled", "Kept", "Left", "Held"]);
    for outcome in outcomes {
        assert_eq!(serde_json::to_value(outcome).unwrap(), outcome.name());
    }
    expect_phases("unused", &words);
}

/// Fails where a machine's Choice states ask for a phase that is none of these.
fn expect_phases(machine: &str, words: &[Value]) {
    let machine = support::repository::machine(machine);
    let mut asked = Vec::new();
    support::repository::walk(&machine, &mut |value| {
        if value["Variable"] == "$.phase" {
            asked.push(value["StringEquals"].clone());
        }
    });
    assert!(!asked.is_empty() && asked.iter().all(|word| words.contains(word)), "{asked:?}");
}
