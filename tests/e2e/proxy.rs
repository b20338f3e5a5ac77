//! The proxy between the Lambdas and the emulator: what it is asked to spoil, and what it says of it.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::cloud::Cloud;

/// What the proxy saw of one run.
#[derive(Debug, Deserialize)]
pub(crate) struct Told {
    /// How many calls passed.
    pub(crate) calls: usize,
    /// The faults that fell.
    pub(crate) faults: Vec<Fallen>,
}

/// A fault that fell.
#[derive(Debug, Deserialize)]
pub(crate) struct Fallen {
    /// The call.
    pub(crate) call: String,
    /// How it was spoilt.
    pub(crate) kind: String,
    /// The function whose process was killed within the call.
    pub(crate) killed: Option<String>,
}

impl Cloud {
    /// Plans faults for the calls that a run's Lambdas make; the README of the local cloud has the fields.
    pub(crate) async fn spoil(&self, run: &str, mut plan: Value) {
        plan["run"] = json!(run);
        self.post_to(&proxy(), "/_proxy/plans", &plan).await;
    }

    /// What has become of the plan.
    pub(crate) async fn spoilt(&self, run: &str) -> Told {
        let told = self.get_from(&proxy(), &format!("/_proxy/plans?run={run}")).await;
        serde_json::from_value(told).unwrap()
    }
}

fn proxy() -> String {
    std::env::var("KEYWHEEL_FAULT_PROXY").expect("`cargo xtask test` starts the fault proxy")
}

/// Numbers by lot (`SplitMix64`), so that a printed seed draws the same again.
pub(crate) struct Lots(pub(crate) u64);

impl Lots {
    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}
