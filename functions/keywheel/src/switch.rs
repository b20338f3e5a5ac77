//! The installation's switch for rotation, read anew by every step that changes something.
//!
//! It is a parameter of the account, not of the template: a deployment must not move it, and a parameter
//! that is missing or holds nonsense means the careful value.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What rotation may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Nothing is changed; every run says what it would have done. What a fresh installation does.
    #[default]
    DryRun,
    /// Keys are rotated.
    Live,
    /// Nothing is changed; runs under way wait.
    Paused,
}

impl Mode {
    /// Where the switch is kept, for the given stage.
    pub fn parameter(stage: &str) -> String {
        format!("/keywheel/{stage}/mode")
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DryRun => "dry-run",
            Self::Live => "live",
            Self::Paused => "paused",
        })
    }
}

impl FromStr for Mode {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "dry-run" => Ok(Self::DryRun),
            "live" => Ok(Self::Live),
            "paused" => Ok(Self::Paused),
            other => Err(format!("mode {other:?} is not one of dry-run, live, paused")),
        }
    }
}

/// What containment of leaked keys may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Containment {
    /// Nothing at all.
    Off,
    /// People are told; nothing is changed. What a fresh installation does.
    #[default]
    Page,
    /// Leaked keys are made Inactive.
    On,
}

impl Containment {
    /// Where the switch is kept, for the given stage.
    pub fn parameter(stage: &str) -> String {
        format!("/keywheel/{stage}/containment")
    }
}

impl fmt::Display for Containment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Page => "page",
            Self::On => "on",
        })
    }
}

impl FromStr for Containment {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            "page" => Ok(Self::Page),
            "on" => Ok(Self::On),
            other => Err(format!("containment {other:?} is not one of off, page, on")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches_read_and_write_alike_and_have_their_own_place() {
        for (mode, text) in [(Mode::DryRun, "dry-run"), (Mode::Live, "live"), (Mode::Paused, "paused")] {
            assert_eq!((mode.to_string().as_str(), text.parse()), (text, Ok(mode)));
        }
        for (containment, text) in
            [(Containment::Off, "off"), (Containment::Page, "page"), (Containment::On, "on")]
        {
            assert_eq!((containment.to_string().as_str(), text.parse()), (text, Ok(containment)));
        }
        assert!("Live".parse::<Mode>().unwrap_err().contains("Live"));
        assert!("".parse::<Containment>().unwrap_err().contains("off"));
        assert_eq!(Mode::parameter("prod"), "/keywheel/prod/mode");
        assert_eq!(Containment::parameter("prod"), "/keywheel/prod/containment");
    }
}
