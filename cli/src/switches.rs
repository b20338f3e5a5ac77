//! The installation's two switches, as they are set.

use aws_sdk_ssm::types::ParameterType;
use keywheel::StepError;
use keywheel::switch::{Containment, Mode};
use serde_json::{Value, json};

use crate::error::Result;
use crate::place::Place;

/// What was found in one parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Switch {
    /// What holds.
    pub(crate) value: String,
    /// Why that is not simply what was set.
    pub(crate) remark: Option<String>,
}

impl std::fmt::Display for Switch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.value)?;
        self.remark.as_ref().map_or(Ok(()), |remark| write!(f, " ({remark})"))
    }
}

/// Both switches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Switches {
    /// What rotation may do.
    pub(crate) mode: Switch,
    /// What containment may do.
    pub(crate) containment: Switch,
}

impl Switches {
    /// Reads both in one call.
    pub(crate) async fn read(place: &Place) -> Result<Self> {
        let (mode, containment) = (Mode::parameter(&place.stage), Containment::parameter(&place.stage));
        let reply = place
            .ssm()
            .get_parameters()
            .names(&mode)
            .names(&containment)
            .send()
            .await
            .map_err(|error| StepError::from_sdk("ssm:GetParameters", &error))?;
        let value = |name: &str| {
            reply
                .parameters()
                .iter()
                .find(|parameter| parameter.name() == Some(name))
                .and_then(|parameter| parameter.value())
        };
        Ok(Self::of(value(&mode), value(&containment)))
    }

    /// From the stored texts: what is missing or not understood means the careful value.
    fn of(mode: Option<&str>, containment: Option<&str>) -> Self {
        let known = |text: &str| text.parse::<Mode>().is_ok();
        Self {
            mode: switch(mode, known, &Mode::default().to_string()),
            containment: switch(
                containment,
                |text| text.parse::<Containment>().is_ok(),
                &Containment::default().to_string(),
            ),
        }
    }

    /// As if these had been stored.
    #[cfg(test)]
    pub(crate) fn of_values(mode: &str, containment: &str) -> Self {
        Self::of(Some(mode), Some(containment))
    }

    /// What a rotation would do under this mode; nothing where it would simply rotate.
    pub(crate) fn caution(&self) -> Option<String> {
        match self.mode.value.parse() {
            Ok(Mode::Live) => None,
            Ok(Mode::Paused) => {
                Some("Rotation is paused: a new run ends Blocked and changes nothing. `keywheel mode live` ends the pause.".into())
            }
            _ => Some("The mode is dry-run: a run only says what it would do. `keywheel mode live` changes that.".into()),
        }
    }

    /// The fields that every status carries.
    pub(crate) fn json(&self) -> (Value, Value) {
        (json!(self.mode.value), json!(self.containment.value))
    }
}

fn switch(stored: Option<&str>, known: impl Fn(&str) -> bool, careful: &str) -> Switch {
    match stored {
        Some(text) if known(text) => Switch { value: text.to_owned(), remark: None },
        Some(text) => Switch {
            value: careful.to_owned(),
            remark: Some(format!(
                "{:?} is stored, which is not understood",
                text.chars().take(20).collect::<String>()
            )),
        },
        None => Switch { value: careful.to_owned(), remark: Some("not set".into()) },
    }
}

/// Sets the mode.
pub(crate) async fn set_mode(place: &Place, mode: Mode) -> Result<()> {
    set(place, Mode::parameter(&place.stage), mode.to_string()).await
}

/// Sets what containment may do.
pub(crate) async fn set_containment(place: &Place, containment: Containment) -> Result<()> {
    set(place, Containment::parameter(&place.stage), containment.to_string()).await
}

/// Writes a parameter of the installation.
pub(crate) async fn set(place: &Place, name: String, value: String) -> Result<()> {
    place
        .ssm()
        .put_parameter()
        .name(name)
        .value(value)
        .r#type(ParameterType::String)
        .overwrite(true)
        .send()
        .await
        .map_err(|error| StepError::from_sdk("ssm:PutParameter", &error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_or_nonsense_is_the_careful_value() {
        let switches = Switches::of(None, Some("yes"));
        assert_eq!(switches.mode.to_string(), "dry-run (not set)");
        assert_eq!(switches.containment.value, "page");
        assert!(switches.containment.to_string().contains("\"yes\" is stored"));
        let switches = Switches::of(Some("live"), Some("on"));
        assert_eq!(
            (switches.mode.to_string(), switches.containment.to_string()),
            ("live".into(), "on".into())
        );
        assert_eq!(switches.caution(), None);
        assert!(Switches::of(Some("paused"), None).caution().unwrap().contains("paused"));
    }
}
