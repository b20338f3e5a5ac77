//! Sessions of roles that were assumed with the leaked key: they outlive it, and others call with the same roles. So
//! the role denies those sessions, by their names and the time of their issue, and no others.

use keywheel::incident::RoleDeny;
use keywheel::notice::NoticeKind;
use keywheel::{Incident, StepError, sessions};
use tracing::{info, warn};

use super::{NONE, Tools, credential};

impl Tools<'_> {
    /// Run twice, it writes the same policies.
    pub(super) async fn deny_roles(&self, mut doc: Incident) -> Result<Incident, StepError> {
        let policy = sessions::policy_name(&credential(&doc)?);
        let cut_off = doc.cut_off().ok_or_else(|| StepError::BadInput("nothing is contained".into()))?;
        for (role, mut names) in doc.undenied_roles() {
            doc.roles.retain(|known| {
                let same = known.role == role;
                if same {
                    names.extend(known.sessions.iter().cloned());
                }
                !same
            });
            let document = sessions::deny_role_sessions(cut_off, &names);
            let call =
                self.iam.put_role_policy().role_name(&role).policy_name(&policy).policy_document(document);
            let put = call.send().await.map_err(|error| StepError::from_sdk("iam:PutRolePolicy", &error));
            let error = match put {
                Ok(_) => {
                    info!(rotation.id = %doc.id, "Denied {} sessions of role {role}", names.len());
                    None
                }
                // A role that is gone has no session that could do anything.
                Err(error) if error.is_refused(&NONE) => None,
                // Whether it is there may not be known: what is kept of it has it taken off all the same.
                Err(error) => {
                    warn!(rotation.id = %doc.id, "Role {role}: {error}");
                    doc.note_failure("deny-roles", &error.to_string());
                    Some(error)
                }
            };
            let again = error.as_ref().is_some_and(|error| !matches!(error, StepError::Refused(_)));
            let refused = error.map(|error| error.to_string());
            doc.roles.push(RoleDeny {
                role,
                policy: policy.clone(),
                sessions: names,
                cut_off,
                refused,
                again,
            });
        }
        doc.roles.sort_by(|one, other| one.role.cmp(&other.role));
        doc.roles_open = !doc.undenied_roles().is_empty();
        // Each time that there is more to tell.
        let told = doc.roles.iter().filter(|deny| !deny.again).map(|deny| deny.sessions.len()).sum::<usize>();
        doc.announce_again(self.ctx.clock.now(), NoticeKind::RoleSessions, &format!("/{told}"));
        Ok(doc)
    }

    /// Takes the denies off again, each where it is still the one that this incident wrote.
    pub(super) async fn lift_roles(&self, doc: &Incident) -> Result<(), StepError> {
        for deny in &doc.roles {
            let call = self.iam.get_role_policy().role_name(&deny.role).policy_name(&deny.policy);
            let found = match call.send().await {
                Ok(reply) => reply.policy_document,
                Err(error) => {
                    let error = StepError::from_sdk("iam:GetRolePolicy", &error);
                    if error.is_refused(&NONE) {
                        continue;
                    }
                    return Err(error);
                }
            };
            if !sessions::is_role_deny(&found, deny.cut_off, &deny.sessions) {
                // A newer incident's, which lifts it in its time, or a person's.
                continue;
            }
            let call = self.iam.delete_role_policy().role_name(&deny.role).policy_name(&deny.policy);
            if let Err(error) = call.send().await {
                let error = StepError::from_sdk("iam:DeleteRolePolicy", &error);
                if !error.is_refused(&NONE) {
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}
