//! The installation's switches.

use aws_sdk_ssm::Client;
use keywheel::StepError;
use keywheel::switch::Mode;

/// What rotation may do now. A parameter that is missing or holds nonsense is `dry-run`; one that could
/// not be read is an error.
pub async fn mode(ssm: &Client, stage: &str) -> Result<Mode, StepError> {
    let reply = match ssm.get_parameter().name(Mode::parameter(stage)).send().await {
        Ok(reply) => reply,
        Err(error) => {
            let error = StepError::from_sdk("ssm:GetParameter", &error);
            return if error.is_refused(&["ParameterNotFound"]) { Ok(Mode::default()) } else { Err(error) };
        }
    };
    let value = reply.parameter().and_then(|parameter| parameter.value()).unwrap_or_default();
    Ok(value.parse().unwrap_or_default())
}
