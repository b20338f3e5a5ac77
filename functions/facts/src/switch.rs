//! The installation's switches.

use aws_sdk_ssm::Client;
use aws_sdk_ssm::operation::get_parameter::GetParameterError;
use aws_sdk_ssm::operation::get_parameters::GetParametersOutput;
use aws_sdk_ssm::types::Parameter;
use keywheel::decide::contain::Kept;
use keywheel::emergency::Emergency;
use keywheel::fleet::freeze::{self, Freezes};
use keywheel::incident::{Record, RecordState};
use keywheel::switch::{Containment, Mode};
use keywheel::{AccessKeyId, StepError};

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

/// The emergency policy; where there is none, what holds by default. One that cannot be understood is an error.
pub async fn emergency(ssm: &Client, stage: &str) -> Result<Emergency, StepError> {
    match ssm.get_parameter().name(Emergency::parameter(stage)).send().await {
        Ok(reply) => Emergency::parse(reply.parameter().and_then(Parameter::value).unwrap_or_default())
            .map_err(|error| {
                StepError::Conflict(format!("the emergency policy cannot be understood: {error}"))
            }),
        Err(error) if error.as_service_error().is_some_and(GetParameterError::is_parameter_not_found) => {
            Ok(Emergency::default())
        }
        Err(error) => Err(StepError::from_sdk("ssm:GetParameter", &error)),
    }
}

/// What may stand against the containment of a key, read in one call.
#[derive(Debug)]
pub struct Standing {
    /// The switch.
    pub switch: Kept<Containment>,
    /// The emergency policy.
    pub emergency: Kept<Emergency>,
    /// What is kept of the key.
    pub record: Kept<Record>,
}

impl Standing {
    /// Nothing of it could be read.
    pub fn unread(why: &str) -> Self {
        let why = || why.to_owned();
        Self { switch: Kept::Unread(why()), emergency: Kept::Unread(why()), record: Kept::Unread(why()) }
    }
}

/// The switch of containment, the emergency policy and what is kept of the key. What could not be read says so; it
/// is for the decision what that means.
pub async fn standing(ssm: &Client, stage: &str, key: Option<&AccessKeyId>) -> Standing {
    let (switch, emergency) = (Containment::parameter(stage), Emergency::parameter(stage));
    let record = key.map(|key| Record::parameter(stage, key));
    let names = [switch.clone(), emergency.clone()].into_iter().chain(record.clone());
    let reply = match ssm.get_parameters().set_names(Some(names.collect())).send().await {
        Ok(reply) => reply,
        Err(error) => {
            return Standing::unread(&StepError::from_sdk("ssm:GetParameters", &error).to_string());
        }
    };
    let found = |name: &str| reply.parameters().iter().find(|found| found.name() == Some(name));
    Standing {
        // Nonsense is what nobody has set: the careful value, as with the other switch.
        switch: match found(&switch).and_then(Parameter::value) {
            Some(text) => text.parse().map_or(Kept::None, Kept::Is),
            None => Kept::None,
        },
        emergency: parsed(found(&emergency), Emergency::parse),
        record: parsed(record.as_deref().and_then(found), |text| {
            serde_json::from_str(text).map_err(|error| error.to_string())
        }),
    }
}

fn parsed<T>(parameter: Option<&Parameter>, parse: impl Fn(&str) -> Result<T, String>) -> Kept<T> {
    match parameter.map(|parameter| parse(parameter.value().unwrap_or_default())) {
        None => Kept::None,
        Some(Ok(value)) => Kept::Is(value),
        Some(Err(why)) => Kept::Unread(why),
    }
}

/// What is kept of a key that was contained as leaked; `None` where nothing is, or a person has said since that it had
/// not leaked. One that cannot be understood is an error.
pub async fn leaked(ssm: &Client, stage: &str, key: &AccessKeyId) -> Result<Option<Record>, StepError> {
    match ssm.get_parameter().name(Record::parameter(stage, key)).send().await {
        Ok(reply) => record(key, reply.parameter()),
        Err(error) if error.as_service_error().is_some_and(GetParameterError::is_parameter_not_found) => {
            Ok(None)
        }
        Err(error) => Err(StepError::from_sdk("ssm:GetParameter", &error)),
    }
}

/// What rotation may do now, and the freezes of the fleet's policy, in one call. A parameter that is missing is no
/// freeze.
pub async fn mode_and_freezes(ssm: &Client, stage: &str) -> Result<(Mode, Freezes), StepError> {
    let reply = read(ssm, vec![Mode::parameter(stage), freeze::parameter(stage)]).await?;
    Ok((mode_in(&reply, stage), freezes_in(&reply, stage)))
}

/// [`mode_and_freezes`], and what is kept of a key that was contained as leaked as [`leaked`] has it, in one call.
pub async fn mode_freezes_and_leaked(
    ssm: &Client,
    stage: &str,
    key: &AccessKeyId,
) -> Result<(Mode, Freezes, Option<Record>), StepError> {
    let kept = Record::parameter(stage, key);
    let reply = read(ssm, vec![Mode::parameter(stage), freeze::parameter(stage), kept.clone()]).await?;
    let leaked = record(key, found(&reply, &kept))?;
    Ok((mode_in(&reply, stage), freezes_in(&reply, stage), leaked))
}

async fn read(ssm: &Client, names: Vec<String>) -> Result<GetParametersOutput, StepError> {
    let reply = ssm.get_parameters().set_names(Some(names)).send().await;
    reply.map_err(|error| StepError::from_sdk("ssm:GetParameters", &error))
}

fn found<'r>(reply: &'r GetParametersOutput, name: &str) -> Option<&'r Parameter> {
    reply.parameters().iter().find(|found| found.name() == Some(name))
}

fn mode_in(reply: &GetParametersOutput, stage: &str) -> Mode {
    let value = found(reply, &Mode::parameter(stage)).and_then(Parameter::value);
    value.unwrap_or_default().parse().unwrap_or_default()
}

fn freezes_in(reply: &GetParametersOutput, stage: &str) -> Freezes {
    let parameter = found(reply, &freeze::parameter(stage));
    Freezes::read(stage, parameter.map(|parameter| parameter.value().unwrap_or_default()))
}

fn record(key: &AccessKeyId, parameter: Option<&Parameter>) -> Result<Option<Record>, StepError> {
    let Some(parameter) = parameter else { return Ok(None) };
    let record: Record = serde_json::from_str(parameter.value().unwrap_or_default()).map_err(|error| {
        StepError::Conflict(format!("the record of key {key} cannot be understood: {error}"))
    })?;
    Ok(Some(record).filter(|record| record.state != RecordState::Cleared))
}

/// Keeps what is known of a leaked key.
pub async fn keep(ssm: &Client, stage: &str, record: &Record) -> Result<(), StepError> {
    let text = serde_json::to_string(record)
        .map_err(|error| StepError::BadInput(format!("the record cannot be written: {error}")))?;
    let call = ssm.put_parameter().name(Record::parameter(stage, &record.key)).value(text);
    let kept = call.r#type(aws_sdk_ssm::types::ParameterType::String).overwrite(true).send().await;
    kept.map(|_| ()).map_err(|error| StepError::from_sdk("ssm:PutParameter", &error))
}
