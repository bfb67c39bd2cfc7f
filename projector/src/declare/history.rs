//! How much of a read model's past is kept.
//!
//! Deliberately absent: how it is kept (`fold::history`, `store::history`).

use kernel::Timestamp;

/// How finely a read model can be seen as it was. Each change of a row leaves a version of the row; a
/// coarser history keeps the last version of each interval, and shows the read model as it was at the
/// end of an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum History {
    /// As of every commit.
    Full,
    /// As of every second.
    Second,
    /// As of every minute.
    Minute,
    /// As of every UTC day.
    Day,
    /// Not at all: only the present rows are kept.
    Off,
}

impl History {
    /// Its name in settings, answers and the database.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Second => "1 s",
            Self::Minute => "1 min",
            Self::Day => "1 d",
            Self::Off => "off",
        }
    }

    /// Whether versions of rows are kept.
    #[must_use]
    pub fn is_kept(self) -> bool {
        self != Self::Off
    }

    /// The length of its intervals in microseconds; absent if each commit is one.
    const fn interval(self) -> Option<i64> {
        match self {
            Self::Second => Some(1_000_000),
            Self::Minute => Some(60_000_000),
            Self::Day => Some(86_400_000_000),
            Self::Full | Self::Off => None,
        }
    }

    /// The last moment up to `at` that it shows.
    #[must_use]
    pub fn moment(self, at: Timestamp) -> Timestamp {
        let behind = self
            .interval()
            .map(|interval| at.micros().rem_euclid(interval));
        Timestamp::from_micros(at.micros() - behind.unwrap_or_default()).unwrap_or(at)
    }

    /// From when on a change is seen that was recorded at `at`: from the end of its interval, which
    /// belongs to it.
    pub(crate) fn seen_from(self, at: Timestamp) -> Timestamp {
        let Some(interval) = self.interval() else {
            return at;
        };
        let behind = at.micros().rem_euclid(interval);
        if behind == 0 {
            return at;
        }
        // At the end of the calendar there is no whole interval.
        Timestamp::from_micros(at.micros() + (interval - behind)).unwrap_or(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_seen_from_the_end_of_its_interval_on() {
        let seen = |history: History, at: &str| {
            let at: Timestamp = at.parse().unwrap();
            history.seen_from(at).to_string()
        };
        let at = "2018-03-01T12:00:00.000001Z";
        assert_eq!(seen(History::Full, at), at);
        assert_eq!(seen(History::Second, at), "2018-03-01T12:00:01Z");
        assert_eq!(seen(History::Minute, at), "2018-03-01T12:01:00Z");
        assert_eq!(seen(History::Day, at), "2018-03-02T00:00:00Z");
        let even = "2018-03-01T12:01:00Z";
        assert_eq!(seen(History::Minute, even), even);
        let before = "1969-12-31T23:59:59.5Z";
        assert_eq!(seen(History::Second, before), "1970-01-01T00:00:00Z");
    }
}
