//! `keywheel key`: whose key this is, what has become of it, and how it is brought back.
//!
//! It changes nothing and reads no secret's value: which version holds a key is known from the documents of runs. What is
//! not deployed is not asked twice for, and said.

mod card;
mod runs;
mod whose;

use jiff::Timestamp;
use keywheel::AccessKeyId;
use keywheel::incident::Record;
use keywheel::key::KeyFacts;

use crate::args::KeyArgs;
use crate::error::{Exit, Result, Trouble};
use crate::incident::read::records_of;
use crate::output::Out;
use crate::place::Place;
use card::Card;
use runs::Known;
use whose::Subject;

/// Runs the command.
pub(crate) async fn run(place: &Place, out: &Out, args: &KeyArgs) -> Result<Exit> {
    out.note(&place.line());
    let subject = whose::find(place, &args.what).await?;
    let mut remarks = Vec::new();
    let known = runs::of(place, &subject.user, &mut remarks).await;
    let ids: Vec<AccessKeyId> = subject.keys.iter().map(|key| key.id.clone()).collect();
    let records = match records_of(place, &ids).await {
        Ok((records, odd)) => {
            remarks.extend(odd.iter().map(|name| format!("The record {name} cannot be understood.")));
            Some(records)
        }
        Err(trouble) => {
            remarks.push(format!("Whether a key has leaked could not be read: {trouble}"));
            None
        }
    };
    let now = Timestamp::now();
    if subject.keys.is_empty() {
        out.line(&format!("User {} has no access key.", subject.user.facts.name));
    }
    for (index, key) in subject.keys.iter().enumerate() {
        let card = card(place, &subject, key, &known, records.as_deref(), &mut remarks).await;
        out.json(&card.json(&place.account));
        if index > 0 {
            out.line("");
        }
        out.lines(&card.lines(&place.account, now));
    }
    out.notes(&remarks);
    for note in &known.notes {
        out.note(note);
    }
    Ok(if remarks.is_empty() { Exit::Done } else { Exit::Refused })
}

async fn card<'a>(
    place: &Place,
    subject: &'a Subject,
    key: &'a KeyFacts,
    known: &'a Known,
    records: Option<&'a [Record]>,
    remarks: &mut Vec<String>,
) -> Card<'a> {
    let last_use = match facts::iam::last_use(&place.iam(), &key.id).await {
        Ok(last) => Some(last),
        Err(error) => {
            remarks.push(format!("When key {} was used could not be read: {}", key.id, Trouble::from(error)));
            None
        }
    };
    let record = records.and_then(|records| records.iter().find(|record| record.key == key.id));
    Card {
        user: &subject.user.facts,
        key,
        last_use,
        management: &known.management,
        trace: known.trace(&key.id),
        record,
        record_read: records.is_some(),
    }
}
