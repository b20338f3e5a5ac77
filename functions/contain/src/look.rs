//! Looks at the user's keys again: one that leaked may have been made Active, and another one minted, while IAM
//! still accepted what was being switched off.

use keywheel::decide::contain::{Sibling, sibling};
use keywheel::incident::{LOOKS_AGAIN, Phase};
use keywheel::notice::NoticeKind;
use keywheel::rotation::{Outcome, Why};
use keywheel::{AccessKeyId, Incident, StepError, UserName};
use tracing::warn;

use super::{RECORD, Tools};

/// After so many looks the incident has its outcome.
#[expect(clippy::cast_possible_truncation, reason = "there are two")]
const LAST_LOOK: u32 = LOOKS_AGAIN.len() as u32;

impl Tools<'_> {
    /// One look. Run twice, it finds its own work done.
    pub(crate) async fn look(&self, mut doc: Incident) -> Result<Incident, StepError> {
        let user = doc.owner()?.clone();
        let keys = facts::iam::keys(&self.iam, &user).await?;
        let (mut again, mut minted, mut strange, mut soon) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for key in &keys {
            match sibling(&doc, key) {
                Sibling::Leave => {}
                Sibling::Reactivated => again.push(key.id.clone()),
                Sibling::Minted => minted.push(key.id.clone()),
                Sibling::LookSoon => soon.push(key.id.clone()),
                Sibling::Tell => strange.push(key.id.clone()),
            }
        }
        if !again.is_empty() && self.is_cleared(&doc).await {
            return Ok(self.called_off(doc));
        }
        self.off(&user, &again).await?;
        self.off(&user, &minted).await?;
        let now = self.ctx.clock.now();
        let look = format!("/{}", doc.looks + 1);
        doc.keys.extend(minted.iter().cloned());
        doc.known.extend(strange.iter().cloned());
        doc.suspects.clone_from(&soon);
        if doc.ours.as_ref().is_some_and(|ours| ours.managed) {
            // Runs store keys meanwhile: the next look needs a reading of its own, or knows of none.
            doc.ours = None;
        }
        if !again.is_empty() {
            doc.announce_again(now, NoticeKind::Reactivated, &look);
        }
        for key in minted.iter().chain(&strange) {
            warn!(rotation.id = %doc.id, iam.user = %user, key.id = %key, "Key {key} of {user} appeared meanwhile");
            doc.announce_again(now, NoticeKind::KeyMinted, &format!("/{key}"));
        }
        if !again.is_empty() || !minted.is_empty() {
            // What was switched off just now may have minted sessions until just now.
            doc.contained_at = Some(now);
            doc.deny = None;
        }
        let kept = !doc.failed.iter().any(|note| note.starts_with(RECORD));
        if (!kept || !again.is_empty() || !minted.is_empty()) && !self.is_cleared(&doc).await {
            self.keep(&mut doc).await;
        }
        if !soon.is_empty() {
            doc.phase = Phase::LookSoon;
            return Ok(doc);
        }
        doc.phase = Phase::Look;
        doc.looks += 1;
        if doc.looks >= LAST_LOOK && doc.outcome.is_none() {
            self.contained(&mut doc);
        }
        Ok(doc)
    }

    /// The account has shut its door since: the look counts, and the incident says so.
    pub(crate) fn cannot_look(&self, mut doc: Incident, error: &StepError) -> Incident {
        doc.note_failure("look", &format!("the user's keys could not be looked at again: {error}"));
        doc.phase = Phase::Look;
        doc.looks += 1;
        if doc.looks >= LAST_LOOK && doc.outcome.is_none() {
            self.contained(&mut doc);
        }
        doc
    }

    async fn off(&self, user: &UserName, keys: &[AccessKeyId]) -> Result<(), StepError> {
        if !keys.is_empty() {
            self.make_inactive(user, keys).await?;
        }
        Ok(())
    }

    /// Whether a person has called it a false alarm meanwhile. One that cannot be read does not exist.
    async fn is_cleared(&self, doc: &Incident) -> bool {
        let key = doc.target.key_id.as_ref();
        let standing = facts::switch::standing(&self.ssm, &self.ctx.stage, key).await;
        standing.record.known().is_some_and(|record| record.is_cleared(self.ctx.clock.now()))
    }

    /// The person's command takes the deny off too; where it has not come so far, the deny's own time does.
    fn called_off(&self, mut doc: Incident) -> Incident {
        let text = format!(
            "Key {} of {} was called a false alarm and is Active.",
            doc.credential(),
            doc.user_name()
        );
        doc.end(self.ctx.clock.now(), Outcome::RolledBack, Why::new("FalseAlarm", text, ""));
        if doc.deny.is_some() {
            doc.phase = Phase::Look;
            doc.looks = LAST_LOOK;
        }
        doc
    }

    /// The last look is done: the incident has its outcome. What remains is the deny, until its time.
    fn contained(&self, doc: &mut Incident) {
        let now = self.ctx.clock.now();
        let failed = if doc.failed.is_empty() {
            String::new()
        } else {
            format!(" On the way failed: {}.", doc.failed.join("; "))
        };
        let why = doc.why.take().unwrap_or_else(|| {
            Why::new(
                "Contained",
                format!("Key {} of {} is Inactive and kept as evidence.", doc.credential(), doc.user_name()),
                format!("`keywheel incident {}` shows what it did.", doc.id),
            )
        });
        doc.outcome = Some(Outcome::Contained);
        doc.why = Some(Why { text: format!("{}{failed}", why.text), ..why });
        doc.announce(now, NoticeKind::Ended);
    }
}
