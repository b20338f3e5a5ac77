//! The policy that campaigns follow: an object in the installation's bucket.

use facts::bucket::Bucket;
use keywheel::StepError;
use keywheel::campaign::POLICY;
use keywheel::fleet::FleetPolicy;
use serde_json::Value;

use crate::error::{Result, Trouble};
use crate::place::Place;

/// Where a stage's bucket is named.
fn parameter(stage: &str) -> String {
    format!("/keywheel/{stage}/bucket")
}

/// The installation's bucket, as the place of the policy.
pub(super) struct Store {
    bucket: Bucket,
}

/// The policy that lies there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pushed {
    text: String,
    /// Its version, where the bucket keeps versions.
    pub(super) version: Option<String>,
    /// The policy, or why no campaign can follow it.
    pub(super) policy: std::result::Result<FleetPolicy, String>,
}

impl Pushed {
    fn new(text: String, version: Option<String>) -> Self {
        let policy = parsed(&text);
        Self { text, version, policy }
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
        Ok(Self { bucket: Bucket::new(place.config(), bucket) })
    }

    /// Where the policy lies, for people.
    pub(super) fn address(&self) -> String {
        self.bucket.address(POLICY)
    }

    /// The policy that campaigns follow; `None` where nobody has pushed one.
    pub(super) async fn read(&self) -> Result<Option<Pushed>> {
        match self.bucket.read(POLICY, None).await {
            Ok(found) => Ok(found.map(|stored| Pushed::new(stored.text, stored.version))),
            // What S3 says of an object that is not there to somebody who may not list the bucket.
            Err(error) if error.is_refused(&["AccessDenied"]) => Err(Trouble::new(
                format!("{} could not be read: {error}.", self.address()),
                "It takes s3:GetObject on it and, to tell that there is none, s3:ListBucket on its bucket.",
            )),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes a policy in place of the one that was read, unless that is another one by now. Returns its version.
    pub(super) async fn replace(
        &self,
        before: Option<&Pushed>,
        policy: &FleetPolicy,
    ) -> Result<Option<String>> {
        let text = canonical(policy)?;
        let there = self.read().await?;
        if let Some(trouble) = changed(before, there.as_ref()) {
            return Err(trouble);
        }
        Ok(self.bucket.write(POLICY, "application/json", text).await?)
    }
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
        Pushed::new(text.to_owned(), version.map(str::to_owned))
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
    fn the_parameter_is_the_stages() {
        assert_eq!(parameter("prod"), "/keywheel/prod/bucket");
    }
}
