//! The file that `keywheel enroll --from` reads, with a row for each user that nobody manages.
//!
//! Which secret a user's key is in cannot be known without opening secrets, so that a person fills it in; where one side
//! names the other already, that secret is written down. Nothing is put up for retirement here.

use std::collections::BTreeSet;

use keywheel::fleet::audit::{Book, Entry, Managed};

use super::show::field;

/// The columns.
const HEAD: &str = "user,secret,owner,retire";

/// The file's text: the users with an Active key, in the order of the audit.
pub(super) fn text(book: &Book) -> String {
    let mut seen = BTreeSet::new();
    let mut text = format!("{HEAD}\n");
    let open = |entry: &&Entry| entry.active && matches!(entry.managed, Managed::No | Managed::Half);
    for entry in book.entries.iter().filter(open) {
        if seen.insert(entry.user.as_str()) {
            let owner = entry.owner.as_deref().filter(|owner| is_plain(owner)).unwrap_or_default();
            let secret = entry.secret.as_deref().unwrap_or_default();
            text.push_str(&[field(&entry.user), field(secret), field(owner), "\n".to_owned()].join(","));
        }
    }
    text
}

/// Whether a text that others wrote may stand in a file that a spreadsheet opens: it is no formula, and one line.
fn is_plain(text: &str) -> bool {
    !text.starts_with(['=', '+', '-', '@']) && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::samples::entry;

    #[test]
    fn each_open_user_has_one_row_that_a_person_fills_in() {
        let mut entries = ["svc-mail", "svc-mail", "a,b", "done", "off", "dark", "half"]
            .map(|user| entry(user, Some(100)))
            .to_vec();
        entries[0].owner = Some("mail@example.com".into());
        entries[2].owner = Some("=HYPERLINK(\"x\")".into());
        entries[3].managed = Managed::Yes;
        entries[4].active = false;
        entries[5].managed = Managed::Unknown;
        entries[6].managed = Managed::Half;
        entries[6].secret = Some("arn:aws:secretsmanager:eu-west-1:111122223333:secret:half-AbCdEf".into());
        let book = Book { entries, others: Vec::new(), unread: Vec::new() };
        assert_eq!(
            text(&book),
            "user,secret,owner,retire\n\
             svc-mail,,mail@example.com,\n\
             \"a,b\",,,\n\
             half,arn:aws:secretsmanager:eu-west-1:111122223333:secret:half-AbCdEf,,\n"
        );
    }
}
