//! Follows runs to their end.

use std::time::Duration;

use jiff::Timestamp;
use keywheel::RunId;
use serde_json::json;

use crate::error::{Exit, Result, Trouble};
use crate::managed::Managed;
use crate::output::{Out, Screen};
use crate::place::Place;
use crate::run::{self, Run};
use crate::{story, time};

/// A run to follow, and whose it is.
#[derive(Debug)]
pub(crate) struct Followed {
    pub(crate) user: String,
    pub(crate) secret: String,
    pub(crate) id: String,
    last: Option<Run>,
}

impl Followed {
    /// The run `id` for a managed user.
    pub(crate) fn new(managed: &Managed, id: RunId) -> Self {
        Self {
            user: managed.name().to_owned(),
            secret: managed.secret.arn.as_str().to_owned(),
            id: id.to_string(),
            last: None,
        }
    }

    fn is_under_way(&self) -> bool {
        self.last.as_ref().is_none_or(Run::is_under_way)
    }
}

/// Says that the runs were started and how to follow them.
pub(crate) fn started(out: &Out, runs: &[Followed]) {
    for followed in runs {
        out.line(&format!("Started run {} for {}.", followed.id, followed.user));
        out.line(&format!("  Follow it with `keywheel status --user {}`.", followed.user));
        out.json(&json!({ "started": followed.id, "user": followed.user, "secret": followed.secret }));
    }
}

/// How many looks in a row may fail before following is given up; the runs go on either way.
pub(crate) const PATIENCE: u32 = 5;

/// How long a run that was started may stay unknown to Step Functions.
pub(crate) const UNSEEN: Duration = Duration::from_mins(1);

/// Follows all runs until each has ended, and reports each.
pub(crate) async fn follow(place: &Place, out: &Out, mut runs: Vec<Followed>) -> Result<Exit> {
    if runs.is_empty() {
        return Ok(Exit::Done);
    }
    for followed in &runs {
        out.note(&format!(
            "Run {} for {} was started. Ctrl-C ends this display, not the run.",
            followed.id, followed.user
        ));
    }
    let begin = Timestamp::now();
    let mut screen = Screen::new(out);
    let mut failures = 0;
    loop {
        match look(place, &mut runs).await {
            Ok(()) => failures = 0,
            Err(_) if failures < PATIENCE => failures += 1,
            Err(trouble) => return Err(trouble),
        }
        let now = Timestamp::now();
        screen.show(runs.iter().map(|followed| line(followed, now, screen.is_live())).collect());
        if runs.iter().all(|followed| !followed.is_under_way()) {
            break;
        }
        if time::between(begin, now) > UNSEEN
            && let Some(lost) = runs.iter().find(|followed| followed.last.is_none())
        {
            return Err(Trouble::new(
                format!("Run {} was started, yet Step Functions does not know it.", lost.id),
                format!("Look with `keywheel status --user {}`.", lost.user),
            ));
        }
        let next = runs.iter().filter(|followed| followed.is_under_way()).filter_map(next_look).min();
        // On a terminal the countdown moves between the looks.
        let mut left = pause(time::between(begin, now), next.map(|next| time::between(now, next)));
        while screen.is_live() && left > Duration::from_secs(1) {
            tokio::time::sleep(Duration::from_secs(1)).await;
            left -= Duration::from_secs(1);
            let now = Timestamp::now();
            screen.show(runs.iter().map(|followed| line(followed, now, true)).collect());
        }
        tokio::time::sleep(left).await;
    }
    let mut worst = Exit::Done;
    for followed in &runs {
        worst = worst.max(report(out, followed));
    }
    Ok(worst)
}

async fn look(place: &Place, runs: &mut [Followed]) -> Result<()> {
    for followed in runs.iter_mut().filter(|followed| followed.is_under_way()) {
        // A run that was just started may not be listed yet.
        if let Some(run) = run::read(place, &followed.id).await? {
            followed.last = Some(run);
        }
    }
    Ok(())
}

fn next_look(followed: &Followed) -> Option<Timestamp> {
    followed.last.as_ref()?.document.as_ref()?.wait_until
}

/// How long to pause before the next look: a second while things move, longer in a long wait, and never so
/// long that an abort stays unseen for more than half a minute.
pub(crate) fn pause(following: Duration, until_next: Option<Duration>) -> Duration {
    let (shortest, longest) = (Duration::from_secs(1), Duration::from_secs(30));
    match until_next {
        Some(until) if until > shortest => (until / 4).clamp(shortest, longest),
        _ => (following / 20).clamp(shortest, Duration::from_secs(5)),
    }
}

/// One run's line. On a terminal it counts; in a pipe it changes only when something happens.
fn line(followed: &Followed, now: Timestamp, counting: bool) -> String {
    let Some(run) = &followed.last else {
        return format!("{}  waiting for the run to be seen", followed.user);
    };
    let story = story::tell(run, &followed.user);
    let since = if counting { time::short(time::between(story.since, now)) } else { time::at(story.since) };
    let next = story.next.map_or_else(String::new, |(at, what)| {
        let when =
            if counting { format!("in {}", time::short(time::between(now, at))) } else { time::at(at) };
        format!("  {what} {when}")
    });
    format!("{}  {:<11}  since {since}{next}  {}", followed.user, story.place, story.what)
}

fn report(out: &Out, followed: &Followed) -> Exit {
    let Some(run) = &followed.last else { return Exit::Failed };
    let story = story::tell(run, &followed.user);
    out.line(&format!("{}: {}. {}", followed.user, run.word(), story.what));
    if !story.todo.is_empty() {
        out.line(&format!("  {}", story.todo));
    }
    let mut value = json!({ "user": followed.user, "secret": followed.secret });
    if let (Some(fields), Some(told)) = (value.as_object_mut(), story::json(run, &story).as_object()) {
        fields.extend(told.clone());
    }
    out.json(&value);
    run.exit()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::tests::{document, run};
    use aws_sdk_sfn::types::ExecutionStatus;

    #[test]
    fn looks_are_frequent_while_things_move_and_never_rarer_than_half_a_minute() {
        let seconds = Duration::from_secs;
        assert_eq!(pause(seconds(0), None), seconds(1));
        assert_eq!(pause(seconds(3_600), None), seconds(5));
        assert_eq!(pause(seconds(5), Some(seconds(86_400))), seconds(30));
        assert_eq!(pause(seconds(5), Some(seconds(8))), seconds(2));
        assert_eq!(pause(seconds(5), Some(seconds(0))), seconds(1));
    }

    #[test]
    fn a_line_in_a_pipe_does_not_change_by_itself() {
        let mut last = run(ExecutionStatus::Running, Some(document()));
        last.started = Timestamp::UNIX_EPOCH;
        let followed = Followed { user: "u".into(), secret: "s".into(), id: "r".into(), last: Some(last) };
        let at = |second| line(&followed, Timestamp::from_second(second).unwrap(), false);
        assert_eq!(at(5), at(500));
        assert_ne!(line(&followed, Timestamp::from_second(5).unwrap(), true), at(5));
    }
}
