//! Times and durations for people. Times are UTC: what people compare them with, CloudTrail and the console,
//! is UTC as well.

use std::time::Duration;

use jiff::Timestamp;

/// A time, to the second.
pub(crate) fn at(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// A duration in its two largest units.
pub(crate) fn short(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let mut rest = seconds;
    let mut parts = Vec::new();
    for (size, name) in units {
        let count = rest / size;
        rest %= size;
        if count > 0 {
            parts.push(format!("{count}{name}"));
        } else if !parts.is_empty() {
            // Only neighbouring units: "3d" and not "3d 5s".
            break;
        }
        if parts.len() == 2 {
            break;
        }
    }
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

/// The time from `from` to `to`; nothing where `to` is the earlier one.
pub(crate) fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

/// A time with how far it is away.
pub(crate) fn at_and_away(time: Timestamp, now: Timestamp) -> String {
    let away = if time > now {
        format!("in {}", short(between(now, time)))
    } else {
        format!("{} ago", short(between(time, now)))
    };
    format!("{} ({away})", at(time))
}

/// How long ago, for a table.
pub(crate) fn ago(time: Option<Timestamp>, now: Timestamp) -> Option<String> {
    time.map(|time| format!("{} ago", short(between(time, now))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn t(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn durations_show_two_neighbouring_units() {
        let short = |seconds| super::short(Duration::from_secs(seconds));
        assert_eq!(short(0), "0s");
        assert_eq!(short(59), "59s");
        assert_eq!(short(3_661), "1h 1m");
        assert_eq!(short(86_400 * 3 + 5), "3d");
        assert_eq!(short(86_400 * 40 + 7_200), "40d 2h");
    }

    #[test]
    fn times_are_utc_and_say_how_far_away() {
        assert_eq!(at_and_away(t(3_600), t(0)), "1970-01-01 01:00:00 UTC (in 1h)");
        assert_eq!(at_and_away(t(0), t(60)), "1970-01-01 00:00:00 UTC (1m ago)");
        assert_eq!(ago(Some(t(5)), t(0)).unwrap(), "0s ago");
    }
}
