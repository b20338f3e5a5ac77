//! The policy that campaigns follow.

use super::Check;
use crate::error::Result;
use crate::fleet;
use crate::place::Place;

/// What was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Pushed {
    /// Nothing.
    Nothing,
    /// This version.
    Version(String),
    /// What no campaign can follow, and why.
    Unfit(String),
}

/// Reads it.
pub(super) async fn read(place: &Place) -> Result<Pushed> {
    Ok(match fleet::standing(place).await? {
        None => Pushed::Nothing,
        Some((version, Ok(()))) => Pushed::Version(version),
        Some((_, Err(why))) => Pushed::Unfit(why),
    })
}

/// Whether campaigns have one to follow.
pub(super) fn check(pushed: &Pushed) -> Check {
    let remedy = "`keywheel policy push FILE` puts one there that is checked before.";
    match pushed {
        Pushed::Version(version) => {
            Check::good("policy", format!("campaigns follow the pushed policy, {version}"))
        }
        Pushed::Nothing => {
            Check::bad("policy", "no policy was pushed: the schedule only says what it would do", remedy)
        }
        Pushed::Unfit(why) => {
            Check::bad("policy", format!("no campaign can follow the pushed policy: {why}"), remedy)
        }
    }
}
