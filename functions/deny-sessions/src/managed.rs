//! The deny as a managed policy, for a user whose 2,048 characters of inline policies are full.
//!
//! It is named after the credential and its cut-off, so that no two incidents share one: each takes off its own.

use jiff::Timestamp;
use keywheel::incident::Deny;
use keywheel::{AccessKeyId, Incident, StepError, UserName, sessions};

use super::{NONE, Tools, deny};

impl Tools<'_> {
    pub(super) async fn deny_managed(
        &self,
        doc: &Incident,
        user: &UserName,
        key: &AccessKeyId,
        cut_off: Timestamp,
    ) -> Result<Deny, StepError> {
        let name = format!("{}-{}", sessions::policy_name(key), cut_off.as_second());
        let call =
            self.iam.create_policy().policy_name(&name).policy_document(sessions::deny_before(cut_off));
        let made =
            call.description("Denies the sessions of a leaked key; Keywheel takes it off.").send().await;
        let arn = match made {
            Ok(reply) => reply.policy().and_then(|policy| policy.arn()).map(str::to_owned),
            Err(error) => {
                let error = StepError::from_sdk("iam:CreatePolicy", &error);
                // An attempt that died, or whose reply was lost, has made it.
                if !error.is_refused(&["EntityAlreadyExists", "EntityAlreadyExistsException"]) {
                    return Err(error);
                }
                None
            }
        };
        let by_name = || format!("arn:{}:iam::{}:policy/{name}", doc.partition(), doc.its_account());
        let arn = arn.unwrap_or_else(by_name);
        let attached = self.iam.attach_user_policy().user_name(user.as_str()).policy_arn(&arn).send().await;
        if let Err(error) = attached {
            // Nobody would take off what is not attached. Where this fails, the next attempt finds it by its name.
            let _ = self.iam.delete_policy().policy_arn(&arn).send().await;
            return Err(StepError::from_sdk("iam:AttachUserPolicy", &error));
        }
        Ok(deny(&name, Some(arn), cut_off))
    }

    pub(super) async fn lift_managed(&self, user: &UserName, arn: &str) -> Result<(), StepError> {
        let detached = self.iam.detach_user_policy().user_name(user.as_str()).policy_arn(arn).send().await;
        match detached.map_err(|error| StepError::from_sdk("iam:DetachUserPolicy", &error)) {
            Err(error) if !error.is_refused(&NONE) => return Err(error),
            _ => {}
        }
        let deleted = self.iam.delete_policy().policy_arn(arn).send().await;
        match deleted.map_err(|error| StepError::from_sdk("iam:DeletePolicy", &error)) {
            Err(error) if !error.is_refused(&NONE) => Err(error),
            _ => Ok(()),
        }
    }
}
