//! The policy that campaigns follow: an object in the installation's bucket. And its freezes, which hold runs under way
//! as well: a parameter beside the switches.

use facts::bucket::{Bucket, Deleted, If};
use facts::fleet::{self, Unpushed};
use jiff::Timestamp;
use keywheel::StepError;
use keywheel::campaign::POLICY;
use keywheel::fleet::policy::Freeze;
use keywheel::fleet::{FleetPolicy, freeze};
use serde_json::Value;

use crate::error::{Result, Trouble};
use crate::place::Place;

/// Where a stage's bucket is named.
fn parameter(stage: &str) -> String {
    format!("/keywheel/{stage}/bucket")
}

/// The installation's bucket, as the place of the policy, and the stage's parameters.
pub(super) struct Store {
    bucket: Bucket,
    ssm: aws_sdk_ssm::Client,
    stage: String,
}

/// The policy that lies there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pushed {
    text: String,
    /// Its entity tag.
    tag: Option<String>,
    /// Its version, where the bucket keeps versions.
    pub(super) version: Option<String>,
    /// The policy, or why no campaign can follow it.
    pub(super) policy: std::result::Result<FleetPolicy, String>,
}

impl Pushed {
    fn new(text: String, version: Option<String>, tag: Option<String>) -> Self {
        let policy = parsed(&text);
        Self { text, tag, version, policy }
    }

    /// Its version for people.
    pub(super) fn name(&self) -> String {
        named(self.version.as_deref())
    }
}

/// A version for people.
pub(super) fn named(version: Option<&str>) -> String {
    version.map_or_else(|| "without a version".to_owned(), |version| format!("version {version}"))
}

/// Reads what lies there as a campaign does: JSON, without a mistake.
fn parsed(text: &str) -> std::result::Result<FleetPolicy, String> {
    let document: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    FleetPolicy::read(document).map_err(|mistakes| {
        let mistakes: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        mistakes.join("; ")
    })
}

/// A policy's freezes as they are written for runs under way, if a parameter holds so much.
pub(super) fn fitting(freezes: &[Freeze]) -> Result<String> {
    freeze::text(freezes).map_err(|why| {
        Trouble::new(
            format!("The policy's freezes cannot be written: {why}."),
            "Nothing was changed. Shorten their reasons, or leave out those that are far away.",
        )
    })
}

/// The policy as it is written there.
fn canonical(policy: &FleetPolicy) -> Result<String> {
    serde_json::to_string(policy)
        .map_err(|error| Trouble::new(format!("The policy could not be written: {error}."), ""))
}

impl Store {
    /// Finds the bucket.
    pub(super) async fn find(place: &Place) -> Result<Self> {
        let name = parameter(&place.stage);
        let missing = || {
            Trouble::new(
                format!("The parameter {name}, which names the installation's bucket, is not there."),
                "Deploy the template of this release, or check --stage and --region.",
            )
        };
        let reply = place.ssm().get_parameter().name(&name).send().await.map_err(|error| {
            let error = StepError::from_sdk("ssm:GetParameter", &error);
            if error.is_refused(&["ParameterNotFound"]) { missing() } else { error.into() }
        })?;
        let bucket = reply.parameter().and_then(|parameter| parameter.value()).ok_or_else(missing)?;
        let bucket = Bucket::new(place.config(), bucket);
        Ok(Self { bucket, ssm: place.ssm(), stage: place.stage.clone() })
    }

    /// Where the policy lies, for people.
    pub(super) fn address(&self) -> String {
        self.bucket.address(POLICY)
    }

    /// The policy that campaigns follow; `None` where nobody has pushed one. One that was deleted is trouble: no campaign
    /// runs until another is there.
    pub(super) async fn read(&self) -> Result<Option<Pushed>> {
        self.read_kept().await?.map_err(|Deleted| {
            Trouble::new(
                format!("A policy was pushed, and {} has been deleted since.", self.address()),
                "No campaign follows any. `keywheel policy push FILE` puts one there again.",
            )
        })
    }

    /// The same for whoever puts another in its place, to whom a deleted one is no trouble.
    async fn read_kept(&self) -> Result<std::result::Result<Option<Pushed>, Deleted>> {
        match self.bucket.read_kept(POLICY, None).await {
            Ok(Ok(found)) => Ok(Ok(found.map(|stored| Pushed::new(stored.text, stored.version, stored.tag)))),
            Ok(Err(deleted)) => Ok(Err(deleted)),
            // What S3 says of an object that is not there to somebody who may not list the bucket.
            Err(error) if error.is_refused(&["AccessDenied"]) => Err(Trouble::new(
                format!("{} could not be read: {error}.", self.address()),
                "It takes s3:GetObject on it and, to tell that there is none, s3:ListBucket on its bucket.",
            )),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes the freezes of the policy that lies there, over those that a push has written which came too late.
    async fn restore_freezes(&self) -> Result<()> {
        let policy = match self.read().await? {
            None => FleetPolicy::default(),
            Some(there) => there.policy.map_err(|why| Trouble::new(why, ""))?,
        };
        self.write_freezes(fitting(&policy.limits.freezes_left(Timestamp::now()))?).await
    }

    /// What a push puts another policy in place of; `None` also where it was deleted.
    pub(super) async fn read_replaced(&self) -> Result<Option<Pushed>> {
        Ok(self.read_kept().await?.unwrap_or_default())
    }

    /// Whether runs under way know these freezes, and no others.
    pub(super) async fn is_known(&self, freezes: &[Freeze]) -> Result<bool> {
        let known = fleet::read_freezes(&self.ssm, &self.stage).await?;
        Ok(known.says(freezes, Timestamp::now()))
    }

    /// Writes freezes for runs under way.
    pub(super) async fn write_freezes(&self, freezes: String) -> Result<()> {
        Ok(fleet::write_freezes(&self.ssm, &self.stage, freezes).await?)
    }

    /// Writes a policy in place of the one that was read, unless that is another one by now, and its freezes before it.
    /// Returns its version.
    pub(super) async fn replace(
        &self,
        before: Option<&Pushed>,
        policy: &FleetPolicy,
        freezes: String,
    ) -> Result<Option<String>> {
        let text = canonical(policy)?;
        let there = self.read_replaced().await?;
        if let Some(trouble) = changed(before, there.as_ref()) {
            return Err(trouble);
        }
        // What comes between this reading and the writing S3 tells: of two who push at once the later is refused.
        let there = match there {
            None => If::Absent,
            Some(Pushed { tag: Some(tag), .. }) => If::Is(tag),
            Some(Pushed { tag: None, .. }) => {
                let text = format!(
                    "{} has no entity tag: whether it changes meanwhile could not be told.",
                    self.address()
                );
                return Err(Trouble::new(text, "Nothing was written."));
            }
        };
        let pushed = fleet::push((&self.ssm, &self.stage), (&self.bucket, there), freezes, text).await;
        if let Err(Unpushed::Outrun(_)) = &pushed
            && let Err(trouble) = self.restore_freezes().await
        {
            let text = format!(
                "Somebody else has pushed a policy in the same moment, and this one was not written; but its freezes hold runs under way, as those of the other could not be written again: {}",
                trouble.text
            );
            return Err(Trouble::new(text, "Run the command again at once: it puts both right."));
        }
        pushed.map_err(unpushed)
    }
}

/// What to say of a push that was not done.
fn unpushed(left: Unpushed) -> Trouble {
    let (what, error) = match left {
        Unpushed::Outrun(error) => {
            return Trouble::new(
                format!(
                    "Somebody else has pushed a policy in the same moment, and this one was not written: {error}."
                ),
                "Run the command again: it compares with the new one.",
            );
        }
        Unpushed::All(error) => ("The policy was not pushed, as its freezes could not be written", error),
        Unpushed::Policy(error) => ("The policy was not pushed, and its freezes hold runs under way", error),
    };
    let Trouble { text, remedy } = error.into();
    Trouble::new(format!("{what}: {text}"), remedy)
}

/// What to say where another policy lies there than the one that was read.
fn changed(before: Option<&Pushed>, there: Option<&Pushed>) -> Option<Trouble> {
    let said = |pushed: Option<&Pushed>| pushed.map_or_else(|| "none".to_owned(), Pushed::name);
    (before != there).then(|| {
        Trouble::new(
            format!(
                "Somebody else has pushed a policy meanwhile: {} was there, and now it is {}.",
                said(before),
                said(there)
            ),
            "Nothing was written. Run the command again: it compares with the new one.",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pushed(text: &str, version: Option<&str>) -> Pushed {
        Pushed::new(text.to_owned(), version.map(str::to_owned), None)
    }

    #[test]
    fn what_is_written_is_read_again_as_the_same_policy() {
        let policy = crate::fleet::read::policy(crate::args::SAMPLE).unwrap();
        let text = canonical(&policy).unwrap();
        assert_eq!(pushed(&text, None).policy, Ok(policy));
        assert_eq!(pushed("{}", None).policy, Ok(FleetPolicy::default()));
    }

    #[test]
    fn what_no_campaign_can_follow_says_why() {
        for (text, says) in [
            ("defaults: {frequency: 90d}", "expected value"),
            ("{\"rule\": {}}", "unknown field `rule`"),
            ("{\"limits\": {\"keys_per_run\": 0}}", "limits.keys_per_run: "),
        ] {
            let why = pushed(text, None).policy.unwrap_err();
            assert!(why.contains(says), "{why}");
        }
    }

    #[test]
    fn another_policy_than_the_one_that_was_read_is_not_written_over() {
        let (one, other) = (pushed("{}", Some("v1")), pushed("{}", Some("v2")));
        assert_eq!(changed(None, None), None);
        assert_eq!(changed(Some(&one), Some(&one.clone())), None);
        for (before, there, says) in [
            (None, Some(&one), "none was there, and now it is version v1"),
            (Some(&one), Some(&other), "version v1 was there, and now it is version v2"),
            (Some(&one), None, "now it is none"),
        ] {
            let trouble = changed(before, there).unwrap();
            assert!(trouble.text.contains(says), "{trouble}");
            assert!(trouble.remedy.starts_with("Nothing was written"), "{trouble}");
        }
        // A bucket without versions tells by the text.
        let unversioned = pushed("{\"regions\": []}", None);
        assert!(changed(Some(&pushed("{}", None)), Some(&unversioned)).is_some());
    }

    #[test]
    fn what_a_push_has_left_undone_is_told() {
        let error = || StepError::Conflict("no".into());
        assert_eq!(
            unpushed(Unpushed::All(error())).text,
            format!("The policy was not pushed, as its freezes could not be written: {}.", error())
        );
        assert!(unpushed(Unpushed::Policy(error())).text.contains("its freezes hold runs under way"));
        let outrun = unpushed(Unpushed::Outrun(error()));
        assert!(outrun.text.contains("in the same moment") && outrun.remedy.contains("again"), "{outrun}");
    }

    #[test]
    fn freezes_that_no_parameter_holds_are_refused() {
        let policy = crate::fleet::read::policy(crate::args::SAMPLE).unwrap();
        let mut freezes = policy.limits.freeze;
        assert!(fitting(&freezes).is_ok());
        freezes[0].reason = "x".repeat(5000);
        let trouble = fitting(&freezes).unwrap_err();
        assert!(trouble.text.contains("4096") && trouble.remedy.starts_with("Nothing was"), "{trouble}");
    }

    #[test]
    fn the_parameter_is_the_stages() {
        assert_eq!(parameter("prod"), "/keywheel/prod/bucket");
    }
}
