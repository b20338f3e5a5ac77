//! The sources of leaks: what each needs, and whether that is there.

use super::look::{Found, Rule, Seen};

/// Whether a source's events come here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reaches {
    /// All that they need is there.
    Yes,
    /// The way is there; whether the service is switched on cannot be asked for here.
    Perhaps,
    /// Something is missing.
    No,
}

impl Reaches {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::Perhaps => "perhaps",
            Self::No => "NO",
        }
    }
}

/// Where a source speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speaks {
    /// In the region where something happens.
    Regionally,
    /// In the partition's one region for what is global.
    Globally,
    /// On our own bus.
    OnTheLeakBus,
}

/// What a source needs besides the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    Nothing,
    /// A trail that logs.
    Trail,
    /// A service or a plan, and the command that shows whether it is there.
    Service(&'static str, &'static str),
    /// A policy on the leak bus that lets somebody in.
    Senders,
}

/// One source.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source {
    /// Its name.
    pub(super) name: &'static str,
    /// What its events call themselves.
    sender: &'static str,
    speaks: Speaks,
    needs: Needs,
}

/// All of them, as the README lists them.
pub(super) const SOURCES: [Source; 6] = [
    Source { name: "AWS Health", sender: "aws.health", speaks: Speaks::Globally, needs: Needs::Nothing },
    Source { name: "CloudTrail", sender: "aws.iam", speaks: Speaks::Globally, needs: Needs::Trail },
    Source {
        name: "GuardDuty",
        sender: "aws.guardduty",
        speaks: Speaks::Regionally,
        needs: Needs::Service("GuardDuty", "aws guardduty list-detectors"),
    },
    Source {
        name: "Security Hub",
        sender: "aws.securityhub",
        speaks: Speaks::Regionally,
        needs: Needs::Service("Security Hub", "aws securityhub describe-hub"),
    },
    Source {
        name: "Trusted Advisor",
        sender: "aws.trustedadvisor",
        speaks: Speaks::Globally,
        needs: Needs::Service("Business support", "aws support describe-severity-levels --region us-east-1"),
    },
    Source {
        name: "own reports",
        sender: "keywheel.leak",
        speaks: Speaks::OnTheLeakBus,
        needs: Needs::Senders,
    },
];

impl Source {
    /// Whether an event was its own.
    pub(super) fn sent(&self, seen: &Seen) -> bool {
        seen.source == self.sender
    }

    /// Whether its events come here, and why not.
    pub(super) fn reaches(&self, found: &Found) -> (Reaches, String) {
        let (hub, global) = (&found.region, &found.global);
        if let Some(why) = missing(&found.rules, self.sender) {
            return (Reaches::No, format!("{why} in {hub}: deploy infra/template.yaml again"));
        }
        if self.speaks == Speaks::Globally
            && hub != global
            && let Some(why) = missing(&found.intake, self.sender)
        {
            return (
                Reaches::No,
                format!(
                    "it speaks in {global}, and {why} there: deploy infra/intake.yaml with HubAccountId, AlarmTopicArn and HubRegion={hub}"
                ),
            );
        }
        match self.needs {
            Needs::Nothing => (Reaches::Yes, String::new()),
            Needs::Trail => match found.trail {
                Some(true) => (Reaches::Yes, String::new()),
                Some(false) => (
                    Reaches::No,
                    "no trail of this account logs: a multi-region one with management events is needed"
                        .into(),
                ),
                None => (Reaches::Perhaps, "whether a trail logs could not be read".into()),
            },
            Needs::Senders => match found.senders {
                Some(true) => (Reaches::Yes, String::new()),
                Some(false) => (
                    Reaches::Perhaps,
                    "only this account may send: the parameter LeakSenders names others".into(),
                ),
                None => (Reaches::No, "the leak bus could not be read".into()),
            },
            // What has come lately was sent.
            Needs::Service(..) if found.last.iter().any(|seen| self.sent(seen)) => {
                (Reaches::Yes, String::new())
            }
            Needs::Service(what, command) => (Reaches::Perhaps, format!("it needs {what}: `{command}`")),
        }
    }
}

/// What is wrong with the rules for a source.
fn missing(rules: &[Rule], source: &str) -> Option<String> {
    let mine: Vec<&Rule> = rules.iter().filter(|rule| rule.sources.iter().any(|one| one == source)).collect();
    if mine.is_empty() {
        return Some("no rule takes it up".to_owned());
    }
    // Off by the parameter WatchKeyMaking, and no leak comes by it.
    let meant = |rule: &&&Rule| !rule.enabled && !rule.name.ends_with("-leak-key-made");
    let off: Vec<&str> = mine.iter().filter(meant).map(|rule| rule.name.as_str()).collect();
    (!off.is_empty()).then(|| format!("the rule {} is disabled", off.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(source: &str, enabled: bool) -> Rule {
        Rule { name: format!("r-{source}"), enabled, sources: vec![source.to_owned()] }
    }

    fn whole() -> Found {
        let rules: Vec<Rule> = SOURCES.iter().map(|source| rule(source.sender, true)).collect();
        Found {
            region: "eu-west-1".into(),
            global: "us-east-1".into(),
            intake: rules.clone(),
            rules,
            trail: Some(true),
            senders: Some(true),
            ..Found::default()
        }
    }

    fn of(name: &str, found: &Found) -> (Reaches, String) {
        SOURCES.iter().find(|source| source.name == name).unwrap().reaches(found)
    }

    #[test]
    fn what_needs_nothing_that_cannot_be_asked_for_reaches() {
        for name in ["AWS Health", "CloudTrail", "own reports"] {
            assert_eq!(of(name, &whole()), (Reaches::Yes, String::new()), "{name}");
        }
        for name in ["GuardDuty", "Security Hub", "Trusted Advisor"] {
            let (reaches, why) = of(name, &whole());
            assert_eq!(reaches, Reaches::Perhaps);
            assert!(why.contains("`aws "), "{why}");
        }
        let at = "2026-03-01T10:00:00Z".parse().unwrap();
        let seen = Found { last: vec![Seen { source: "aws.guardduty".into(), at }], ..whole() };
        assert_eq!(of("GuardDuty", &seen).0, Reaches::Yes);
    }

    #[test]
    fn a_rule_that_is_gone_or_off_keeps_its_source_away() {
        let mut found = whole();
        found.rules.retain(|rule| rule.name != "r-aws.guardduty");
        assert!(of("GuardDuty", &found).1.contains("no rule takes it up in eu-west-1"));
        found.rules.push(rule("aws.guardduty", true));
        found.rules.push(rule("aws.guardduty", false));
        let (reaches, why) = of("GuardDuty", &found);
        assert!(reaches == Reaches::No && why.contains("r-aws.guardduty is disabled"), "{why}");
    }

    #[test]
    fn what_speaks_in_another_region_needs_the_intake_there() {
        let found = Found { intake: Vec::new(), ..whole() };
        for name in ["AWS Health", "CloudTrail", "Trusted Advisor"] {
            let (reaches, why) = of(name, &found);
            assert!(reaches == Reaches::No && why.contains("HubRegion=eu-west-1"), "{name}: {why}");
        }
        assert_eq!(of("GuardDuty", &found).0, Reaches::Perhaps);
        let there = Found { region: "us-east-1".into(), ..found };
        assert_eq!(of("AWS Health", &there).0, Reaches::Yes);
    }

    #[test]
    fn without_a_trail_no_record_comes() {
        assert_eq!(of("CloudTrail", &Found { trail: Some(false), ..whole() }).0, Reaches::No);
        assert_eq!(of("CloudTrail", &Found { trail: None, ..whole() }).0, Reaches::Perhaps);
    }
}
