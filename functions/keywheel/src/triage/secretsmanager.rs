//! The four steps in which Secrets Manager itself rotates a secret.

use super::fields::Fields;
use super::{Class, Verdict};

pub(super) fn step(event: Fields<'_>) -> Verdict {
    let known = ["createSecret", "setSecret", "testSecret", "finishSecret"];
    match (event.text("Step"), event.text("SecretId"), event.text("ClientRequestToken")) {
        (Some(step), Some(_), Some(_)) if known.contains(&step) => {
            Verdict::of(Class::SmRotationStep, format!("Secrets Manager's step {step}."))
        }
        (Some(step), ..) if !known.contains(&step) => {
            Verdict::reject("The Step is none of Secrets Manager's four.")
        }
        _ => Verdict::reject("A rotation's step needs Step, SecretId and ClientRequestToken."),
    }
}
