//! What must hold of a demo, and the sentences for what did not.

use crate::consumer::Summary;
use crate::demo::tally::Tally;
use crate::demo::watch::Seen;

/// The writes of an undisturbed rotation, in their order.
const WRITES: [&str; 5] =
    ["CreateAccessKey", "PutSecretValue", "UpdateSecretVersionStage", "UpdateAccessKey", "DeleteAccessKey"];
/// The calls it may need in all.
const CALLS: u32 = 21;
/// Fewer calls of the consumer prove nothing: in all, and in each of three stretches.
const ENOUGH: (u64, u64) = (200, 50);

/// What a demo ended with.
pub(crate) struct Facts<'a> {
    /// Step Functions' word for it.
    pub(crate) status: &'a str,
    /// The run's own.
    pub(crate) outcome: Option<&'a str>,
    /// The new key.
    pub(crate) new: &'a str,
    /// What was counted.
    pub(crate) tally: &'a Tally,
    /// What the watch saw.
    pub(crate) seen: &'a Seen,
    /// What the consumer says of itself.
    pub(crate) consumer: &'a Summary,
    /// Whether the secret's other field is as it was.
    pub(crate) other_field: bool,
    /// Where a secret was found that must not be there.
    pub(crate) leaks: &'a [String],
}

/// Everything that does not hold; nothing where all is well.
pub(crate) fn violations(facts: &Facts<'_>) -> Vec<String> {
    let mut found = facts.seen.violations.clone();
    let mut demand = |holds: bool, otherwise: String| {
        if !holds {
            found.push(otherwise);
        }
    };
    let (tally, consumer) = (facts.tally, &facts.tally.consumer);
    demand(facts.status == "SUCCEEDED", format!("the execution is {}, not SUCCEEDED", facts.status));
    let outcome = facts.outcome.unwrap_or("none");
    demand(outcome == "Completed", format!("P5: the outcome is {outcome}, not Completed"));

    let writes: Vec<&str> = tally.writes.iter().map(|write| write.action.as_str()).collect();
    demand(writes == WRITES, format!("the writes are {}: {}", writes.len(), writes.join(", ")));
    demand(tally.calls <= CALLS, format!("{} calls to AWS, more than {CALLS}", tally.calls));

    let last = facts.seen.last.as_ref();
    let keys = last.map(|look| look.keys.as_slice()).unwrap_or_default();
    let ours = matches!(keys, [(id, true)] if id == facts.new) && !facts.new.is_empty();
    demand(ours, format!("the end is not one Active key, the new one, but {keys:?}"));
    demand(
        last.is_some_and(|look| look.current == facts.new),
        "P1: AWSCURRENT does not name the new key at the end".into(),
    );
    demand(facts.other_field, "another field of the secret was changed".into());

    let said = facts.consumer;
    let errors =
        || said.errors.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ");
    demand(
        said.total.failed + said.reads.failed == 0 && consumer.failed == 0,
        format!("P1: the consumer failed {} times ({})", said.total.failed + said.reads.failed, errors()),
    );
    demand(
        consumer.logged == said.total.calls,
        format!("the cloud saw {} calls of the consumer, which counts {}", consumer.logged, said.total.calls),
    );
    for (what, count, enough) in [
        ("calls", said.total.calls, ENOUGH.0 + 1),
        ("calls with the old key after the promotion", consumer.old_after_promotion, ENOUGH.1),
        ("calls with the new key before the old one's end", consumer.new_before_deactivation, ENOUGH.1),
        ("calls after the delete", consumer.after_delete, ENOUGH.1),
    ] {
        demand(count >= enough, format!("only {count} {what} of the consumer, fewer than {enough}"));
    }
    found.extend(facts.leaks.iter().cloned());
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::Counts;
    use crate::demo::tally::{Consumer, Write};
    use crate::demo::watch::Look;
    use jiff::Timestamp;

    fn tally() -> Tally {
        let write = |action: &str| Write { at: Timestamp::UNIX_EPOCH, action: action.into(), failed: false };
        let consumer = Consumer {
            logged: 500,
            old_after_promotion: 60,
            new_before_deactivation: 60,
            after_delete: 60,
            ..Consumer::default()
        };
        Tally { calls: 21, writes: WRITES.map(write).into(), consumer, ..Tally::default() }
    }

    fn seen() -> Seen {
        let look = Look {
            at: Timestamp::UNIX_EPOCH,
            version: "v".into(),
            current: "new".into(),
            keys: vec![("new".into(), true)],
        };
        Seen { last: Some(look), ..Seen::default() }
    }

    fn said() -> Summary {
        Summary { total: Counts { calls: 500, failed: 0 }, ..Summary::default() }
    }

    fn judge(change: impl FnOnce(&mut Tally, &mut Seen, &mut Summary)) -> Vec<String> {
        let (mut tally, mut seen, mut said) = (tally(), seen(), said());
        change(&mut tally, &mut seen, &mut said);
        violations(&Facts {
            status: "SUCCEEDED",
            outcome: Some("Completed"),
            new: "new",
            tally: &tally,
            seen: &seen,
            consumer: &said,
            other_field: true,
            leaks: &[],
        })
    }

    #[test]
    fn a_good_run_breaks_nothing() {
        assert_eq!(judge(|_, _, _| {}), Vec::<String>::new());
    }

    #[test]
    fn each_fault_has_its_sentence() {
        let one = |found: Vec<String>, words: &str| {
            assert!(found.len() == 1 && found[0].contains(words), "{words}: {found:?}");
        };
        one(judge(|tally, _, _| tally.writes.swap(0, 1)), "the writes are 5");
        one(judge(|tally, _, _| tally.calls = 22), "22 calls");
        one(judge(|_, seen, _| seen.violations.push("P1: x".into())), "P1");
        one(judge(|tally, _, _| tally.consumer.after_delete = 49), "after the delete");
        one(judge(|tally, _, _| tally.consumer.logged = 499), "the cloud saw 499");
        one(judge(|_, _, said| said.reads.failed = 1), "failed 1 times");
        one(judge(|_, seen, _| seen.last.as_mut().unwrap().keys.push(("x".into(), false))), "one Active key");
    }

    #[test]
    fn a_run_that_nobody_saw_is_not_a_good_one() {
        let found = judge(|_, seen, _| seen.last = None);
        assert_eq!(found.len(), 2, "{found:?}");
    }
}
