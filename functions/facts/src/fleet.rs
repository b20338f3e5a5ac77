//! The fleet's policy where campaigns find it, and its freezes where runs under way do.

use aws_sdk_ssm::Client;
use aws_sdk_ssm::operation::get_parameter::GetParameterError;
use aws_sdk_ssm::types::{Parameter, ParameterType};
use keywheel::StepError;
use keywheel::campaign::POLICY;
use keywheel::fleet::freeze::{self, Freezes};

use crate::bucket::{Bucket, If, is_another};

/// What a push has left undone, and why.
#[derive(Debug)]
pub enum Unpushed {
    /// All of it: the freezes could not be written.
    All(StepError),
    /// The policy itself. Its freezes hold already.
    Policy(StepError),
    /// The policy itself, as another was pushed in the same moment. Its freezes have been written over that one's.
    Outrun(StepError),
}

/// Writes a policy's freezes for runs under way, and then the policy for campaigns; its new version, where the bucket
/// keeps versions.
///
/// In this order: freezes without their policy leave a key for longer than need be, and the reverse takes one away in a
/// freeze that everybody was told of. `there` is what has been read: of two who push at once the later is refused, and then
/// writes the freezes of what is there once more.
pub async fn push(
    (ssm, stage): (&Client, &str),
    (bucket, there): (&Bucket, If),
    freezes: String,
    policy: String,
) -> Result<Option<String>, Unpushed> {
    write_freezes(ssm, stage, freezes).await.map_err(Unpushed::All)?;
    bucket
        .write_if(there, POLICY, "application/json", policy)
        .await
        .map_err(|error| if is_another(&error) { Unpushed::Outrun(error) } else { Unpushed::Policy(error) })
}

/// Writes the freezes alone, as [`freeze::text`] has them.
pub async fn write_freezes(ssm: &Client, stage: &str, freezes: String) -> Result<(), StepError> {
    let call = ssm.put_parameter().name(freeze::parameter(stage)).value(freezes);
    let written = call.r#type(ParameterType::String).overwrite(true).send().await;
    written.map(|_| ()).map_err(|error| StepError::from_sdk("ssm:PutParameter", &error))
}

/// The freezes that runs under way know.
pub async fn read_freezes(ssm: &Client, stage: &str) -> Result<Freezes, StepError> {
    match ssm.get_parameter().name(freeze::parameter(stage)).send().await {
        Ok(reply) => {
            let text = reply.parameter().and_then(Parameter::value).unwrap_or_default();
            Ok(Freezes::read(stage, Some(text)))
        }
        Err(error) if error.as_service_error().is_some_and(GetParameterError::is_parameter_not_found) => {
            Ok(Freezes::read(stage, None))
        }
        Err(error) => Err(StepError::from_sdk("ssm:GetParameter", &error)),
    }
}
