//! When an invented shop's customers order, and when its people work.
//!
//! Invariant: integers only, so that every machine finds the same times. Deliberately absent:
//! holidays and time zones.

/// One hour in milliseconds.
pub(super) const HOUR_MS: i64 = 60 * 60 * 1_000;
/// One day in milliseconds.
pub(super) const DAY_MS: i64 = 24 * HOUR_MS;
const HOURS_OF_WEEK: usize = 7 * 24;

/// How many orders come in each hour of a day, compared with the other hours.
const HOURS: [u64; 24] = [
    12, 6, 3, 2, 2, 4, 9, 20, 38, 52, 60, 62, 58, 57, 60, 60, 58, 55, 54, 56, 60, 58, 44, 26,
];
/// How many orders come on each day of a week, compared with the other days; Monday first.
const DAYS: [u64; 7] = [120, 118, 112, 106, 100, 78, 86];
/// The shop's people begin to work at this hour.
const WORK_BEGINS_HOUR: i64 = 8;
/// For how many hours they work.
const WORK_HOURS: i64 = 10;

/// Spreads orders over days in the rhythm of day and week.
#[derive(Clone, Debug)]
pub(super) struct Calendar {
    from_ms: i64,
    days: u64,
    /// For each hour of the first week, the weight of all hours before it; then that of the week.
    weights: [u64; HOURS_OF_WEEK + 1],
}

impl Calendar {
    /// `from_ms` is the first moment of a day.
    pub(super) fn new(from_ms: i64, days: u32) -> Self {
        let mut weights = [0; HOURS_OF_WEEK + 1];
        for hour in 0..HOURS_OF_WEEK {
            let weekday = (weekday(from_ms) + hour / 24) % 7;
            weights[hour + 1] = weights[hour] + DAYS[weekday] * HOURS[hour % 24];
        }
        Self {
            from_ms,
            days: u64::from(days),
            weights,
        }
    }

    /// The moment at which `part` of `whole` of all orders are placed; `part` is below `whole`.
    pub(super) fn moment_ms(&self, part: u128, whole: u128) -> i64 {
        let week = self.weights[HOURS_OF_WEEK];
        let rest = self.weights[usize::try_from(self.days % 7).expect("below 7") * 24];
        let all = u128::from(self.days / 7 * week + rest);
        // A thousandth of the smallest weight is less than a second, so keep a few digits more.
        let place = u64::try_from(part * all * 1_000 / whole).expect("below the weight of all");
        let (weeks, place) = (place / (week * 1_000), place % (week * 1_000));
        let hour = self
            .weights
            .partition_point(|weight| weight * 1_000 <= place)
            - 1;
        let (begin, end) = (self.weights[hour] * 1_000, self.weights[hour + 1] * 1_000);
        let within_ms = (place - begin) * HOUR_MS.unsigned_abs() / (end - begin);
        let hours = i64::try_from(weeks * HOURS_OF_WEEK as u64 + hour as u64).expect("few hours");
        self.from_ms + hours * HOUR_MS + i64::try_from(within_ms).expect("within an hour")
    }
}

/// The same moment if people work then, else a moment of the next working day.
pub(super) fn working(at_ms: i64) -> i64 {
    let day = at_ms.div_euclid(DAY_MS);
    let within_ms = at_ms.rem_euclid(DAY_MS);
    let (begin_ms, length_ms) = (WORK_BEGINS_HOUR * HOUR_MS, WORK_HOURS * HOUR_MS);
    let weekday = weekday(at_ms);
    let is_open = (begin_ms..begin_ms + length_ms).contains(&within_ms);
    if weekday < 5 && is_open {
        return at_ms;
    }
    let days_on = match weekday {
        0..=3 => i64::from(within_ms >= begin_ms),
        4 if within_ms < begin_ms => 0,
        _ => 7 - i64::try_from(weekday).expect("below 7"),
    };
    (day + days_on) * DAY_MS + begin_ms + within_ms % length_ms
}

/// The day of the week, from Monday (0).
fn weekday(at_ms: i64) -> usize {
    // 1970-01-01 was a Thursday.
    usize::try_from((at_ms.div_euclid(DAY_MS) + 3).rem_euclid(7)).expect("below 7")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_come_in_the_rhythm_of_day_and_week() {
        let days = 28;
        let calendar = Calendar::new(0, days);
        let (mut by_hour, mut by_weekday, mut last_ms) = ([0; 24], [0; 7], 0);
        let all = 100_000_u32;
        for number in 0..all {
            let at_ms = calendar.moment_ms(u128::from(number), u128::from(all));
            assert!(
                (last_ms..i64::from(days) * DAY_MS).contains(&at_ms),
                "{number}"
            );
            last_ms = at_ms;
            by_hour[usize::try_from(at_ms % DAY_MS / HOUR_MS).unwrap()] += 1;
            by_weekday[weekday(at_ms)] += 1;
        }
        assert!(by_hour[11] > 20 * by_hour[4], "{by_hour:?}");
        assert!(by_weekday[0] * 10 > by_weekday[5] * 14, "{by_weekday:?}");
        assert!(last_ms > i64::from(days) * DAY_MS - HOUR_MS);
    }

    #[test]
    fn people_work_on_weekdays_by_day() {
        for hour in 0..24 * 14 {
            let at_ms = working(hour * HOUR_MS);
            assert!(
                at_ms >= hour * HOUR_MS && at_ms < (hour + 24 * 4) * HOUR_MS,
                "{hour}"
            );
            assert!(weekday(at_ms) < 5, "{hour}");
            assert!((8..18).contains(&(at_ms % DAY_MS / HOUR_MS)), "{hour}");
            assert_eq!(working(at_ms), at_ms);
        }
    }
}
