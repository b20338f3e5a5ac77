//! The ways through the machine: each sets a scene, so that every state is entered by some of them.

use std::time::Duration;

use keywheel::RunId;
use keywheel::rotation::Outcome;
use serde_json::{Value, json};

use crate::fake::Maker;
use crate::faults::{Fault, Kind};
use crate::walker::Control;
use crate::world::{SECRET, USER, World, hours, request};

/// A way through the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// A rotation from its beginning.
    Rotation,
    /// The first rotation of a secret without a value.
    Adoption,
    /// One whose key is made and lost, and cleared on the way.
    Orphan,
    /// One whose new key is refused, and is undone.
    NeverAnswers,
    /// One that cannot undo what it did.
    Stuck,
    /// One whose old key stays in use for some days.
    StillInUse,
    /// A run that takes a held one over.
    Resumed,
    /// A run that takes over what another had made and not promoted.
    TakesPendingOver,
    /// A run that takes over a grace which another had taken over before.
    TakesGraceOver,
    /// A promotion that is turned back in its overlap.
    BackInOverlap,
    /// A promotion that is turned back in its grace.
    BackInGrace,
    /// The replacement of a leaked key.
    Leaked,
    /// A user who has a key that Keywheel did not make.
    Stranger,
    /// An installation that only says what it would do.
    DryRun,
    /// The parameter store does not answer.
    NoFacts,
    /// Nobody can be told for half a day.
    Silence,
}

impl Way {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::Rotation,
        Self::Adoption,
        Self::Orphan,
        Self::NeverAnswers,
        Self::Stuck,
        Self::StillInUse,
        Self::Resumed,
        Self::TakesPendingOver,
        Self::TakesGraceOver,
        Self::BackInOverlap,
        Self::BackInGrace,
        Self::Leaked,
        Self::Stranger,
        Self::DryRun,
        Self::NoFacts,
        Self::Silence,
    ];

    /// The account it begins in.
    pub(super) fn world(self) -> World {
        if self == Self::Adoption { World::without_value() } else { World::new() }
    }

    /// Goes undisturbed to where the way begins; the input of the run that is then disturbed.
    pub(super) async fn prepare(self, world: &World) -> Value {
        match self {
            Self::Rotation
            | Self::Adoption
            | Self::Orphan
            | Self::NeverAnswers
            | Self::Stuck
            | Self::NoFacts
            | Self::Silence => request(),
            Self::StillInUse => {
                let old = world.current_key();
                world.fake.state().keep_using(&old, "s3", hours(1), hours(24 * 5));
                request()
            }
            Self::Resumed => {
                let old = world.current_key();
                world.fake.state().keep_using(&old, "s3", hours(1), hours(24 * 3));
                let held = json!({"secret": SECRET, "policy": {"max_overlap": "3d"}});
                world.run(held).await.expect(Outcome::Held);
                request()
            }
            Self::TakesPendingOver => stopped_before(world, FIRST, "ValidateKey").await,
            Self::TakesGraceOver => {
                stopped_before(world, FIRST, "DeleteKey").await;
                stopped_before(world, SECOND, "DeleteKey").await
            }
            Self::BackInOverlap => {
                stopped_before(world, FIRST, "DeactivateKey").await;
                json!({"secret": SECRET, "roll_back": true})
            }
            Self::BackInGrace => {
                stopped_before(world, FIRST, "Grace").await;
                json!({"secret": SECRET, "roll_back": true})
            }
            Self::Leaked => {
                let key = world.current_key();
                world.fake.state().watch.leaked.insert(key);
                json!({"secret": SECRET, "reason": "leaked"})
            }
            Self::Stranger => {
                {
                    let mut state = world.fake.state();
                    let key = state.add_key(USER, Maker::Stranger);
                    let colleague = json!({"type": "IAMUser", "arn": "arn:of:colleague"});
                    state.trail_made_by(&key, &colleague, "console");
                }
                tokio::time::sleep(hours(1)).await;
                request()
            }
            Self::DryRun => {
                world.mode("dry-run");
                request()
            }
        }
    }

    /// The faults that make it this way.
    pub(super) fn own_faults(self) -> Vec<Fault> {
        match self {
            Self::Orphan => vec![Fault::on("iam:CreateAccessKey", Kind::LostAfter)],
            Self::NeverAnswers => vec![Fault::on("sts:GetCallerIdentity", Kind::Refused).for_good()],
            Self::Stuck => vec![
                Fault::on("sts:GetCallerIdentity", Kind::Refused).for_good(),
                Fault::on("iam:DeleteAccessKey", Kind::Refused).for_good(),
            ],
            Self::NoFacts => vec![Fault::on("ssm:GetParameter", Kind::Throttled).for_good()],
            Self::Silence => vec![
                Fault::on("events:PutEvents", Kind::ErrorBefore).times(60),
                Fault::on("sns:Publish", Kind::Refused).times(40),
            ],
            _ => Vec::new(),
        }
    }
}

const FIRST: &str = "5a1f0d3e-6c1b-4b7e-9d55-0f6b2f1c7a90";
const SECOND: &str = "8d20b6c4-31f7-4f5a-8a4e-b2c95e7d1f03";

async fn stopped_before(world: &World, id: &str, door: &str) -> Value {
    let id: RunId = id.parse().unwrap();
    let stop = &mut |state: &str, _: &Value| if state == door { Control::Stop } else { Control::Go };
    let run = world.run_watched(id, request(), stop).await;
    assert_eq!(run.walk.status, "ABORTED");
    tokio::time::sleep(Duration::from_hours(1)).await;
    request()
}
