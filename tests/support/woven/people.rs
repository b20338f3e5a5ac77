//! People with the console, beside the runs. None of them breaks P1 by what they do themselves.

use keywheel::RunId;
use serde_json::Value;

use crate::fake::{Maker, State};
use crate::world::{SECRET, USER, World, hours, later};

/// Where the switch is kept.
const MODE: &str = "/keywheel/test/mode";

/// What somebody does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Deed {
    /// Makes a key for something else.
    MakesAKey,
    /// Deletes a key that is neither current nor pending.
    DeletesAnOldKey,
    /// Makes such a key Inactive, or Active again.
    TogglesAnOldKey,
    /// Uses an old key that works.
    UsesAnOldKey,
    /// Changes another field of the secret.
    EditsTheSecret,
    /// Makes a pair and stores it as the current one.
    StoresAPair,
    /// Moves AWSCURRENT back to the version before, where its key works.
    MovesTheLabelBack,
    /// Takes AWSPENDING off.
    TakesPendingOff,
    /// Stops the first run.
    StopsTheRun,
    /// Turns the switch to paused, for two days.
    Pauses,
}

impl Deed {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::MakesAKey,
        Self::DeletesAnOldKey,
        Self::TogglesAnOldKey,
        Self::UsesAnOldKey,
        Self::EditsTheSecret,
        Self::StoresAPair,
        Self::MovesTheLabelBack,
        Self::TakesPendingOff,
        Self::StopsTheRun,
        Self::Pauses,
    ];

    /// Does it, where it can be done now.
    pub(super) async fn do_it(self, world: &World, run: RunId) {
        self.begin(world, run);
        if self == Self::Pauses {
            tokio::time::sleep(hours(48)).await;
            world.mode("live");
            let mut state = world.fake.state();
            let now = state.now();
            state.deeds.push((now, "somebody: ends the pause".into()));
        }
    }

    fn begin(self, world: &World, run: RunId) {
        let arn = world.arn(run);
        let mut state = world.fake.state();
        let did = match self {
            Self::MakesAKey => makes_a_key(&mut state).is_some(),
            Self::DeletesAnOldKey => old_key(&state).is_some_and(|key| {
                let now = state.now();
                state.key_mut(&key).deleted = Some(now);
                state.watch.by_people.insert(key);
                true
            }),
            Self::TogglesAnOldKey => old_key(&state).is_some_and(|key| {
                let now = state.now();
                let leaked = state.watch.leaked.contains(&key);
                state.watch.by_people.insert(key.clone());
                let key = state.key_mut(&key);
                let active = !key.is_active();
                if !(leaked && active) {
                    key.changes.push((now, active));
                }
                true
            }),
            Self::UsesAnOldKey => old_key(&state).is_some_and(|key| {
                for late in [0, 5, 30] {
                    let at = later(&state, hours(late));
                    state.use_key(&key, "batch", at);
                }
                true
            }),
            Self::EditsTheSecret => edits_the_secret(&mut state),
            Self::StoresAPair => makes_a_key(&mut state).is_some_and(|key| {
                let text = world.value_of(&mut state, &key);
                state.put_current(SECRET, &text);
                state.hands_on_labels = true;
                true
            }),
            Self::MovesTheLabelBack => moves_the_label_back(&mut state),
            Self::TakesPendingOff => {
                state.hands_on_labels = true;
                let versions = &mut state.secret_mut(SECRET).versions;
                versions.iter_mut().any(|version| version.stages.remove("AWSPENDING"))
            }
            Self::StopsTheRun => state.stop(&arn),
            Self::Pauses => {
                state.parameters.insert(MODE.into(), "paused".into());
                true
            }
        };
        let now = state.now();
        let text = if did { format!("somebody: {self:?}") } else { format!("somebody would: {self:?}") };
        state.deeds.push((now, text));
    }
}

fn makes_a_key(state: &mut State) -> Option<String> {
    let count = state.users[USER].keys.iter().filter(|key| key.exists()).count();
    (count < 2 || state.options.limit_races).then(|| state.add_key(USER, Maker::Stranger))
}

/// A key that is not current and that no run has just made: one that was current, or a stranger's.
fn old_key(state: &State) -> Option<String> {
    let current = state.secret(SECRET).current_key();
    let keys = &state.users[USER].keys;
    let fit = |key: &&crate::fake::Key| {
        key.exists() && Some(&key.id) != current.as_ref() && (key.was_current || key.maker == Maker::Stranger)
    };
    keys.iter().find(fit).map(|key| key.id.clone())
}

fn edits_the_secret(state: &mut State) -> bool {
    let Some(mut value) = state.secret(SECRET).current() else { return false };
    value["Password"] = Value::String(state.new_secret());
    state.put_current(SECRET, &value.to_string());
    state.hands_on_labels = true;
    true
}

fn moves_the_label_back(state: &mut State) -> bool {
    let secret = state.secret(SECRET);
    let Some(version) = secret.labelled("AWSPREVIOUS") else { return false };
    let value: Option<Value> = version.text.as_deref().and_then(|text| serde_json::from_str(text).ok());
    let key = value.as_ref().and_then(|value| value["AccessKeyId"].as_str()).unwrap_or_default().to_owned();
    let id = version.id.clone();
    let works = state.key(&key).is_some_and(|(_, key)| key.is_active());
    if works && !state.watch.leaked.contains(&key) {
        state.move_current(SECRET, &id);
        state.hands_on_labels = true;
    }
    works
}
