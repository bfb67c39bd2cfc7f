//! The place where a page of contributions ended, as clients send it.
//!
//! Deliberately absent: what a row was there; its versions tell.

use std::str::FromStr;

use kernel::Timestamp;
use position::{Partition, Position};
use projector::WhyPlace;

/// The place of a page's last commit, as clients send it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cursor(pub(super) WhyPlace);

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let WhyPlace {
            at,
            partition,
            position,
        } = self.0;
        write!(f, "{position}.{partition}.{}", at.micros())
    }
}

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.splitn(3, '.');
        let [position, partition, micros] = [(); 3].map(|()| parts.next());
        let number = |text: Option<&str>| -> Result<i64, ()> {
            text.ok_or(())?.parse::<i64>().map_err(|_| ())
        };
        let (position, micros) = (number(position)?, number(micros)?);
        let partition = partition.ok_or(())?.parse().map_err(|_| ())?;
        let cursor = Self(WhyPlace {
            at: Timestamp::from_micros(micros).map_err(|_| ())?,
            partition: Partition(partition),
            position: Position(u64::try_from(position).map_err(|_| ())?),
        });
        // Only what was given out is taken.
        (cursor.to_string() == text).then_some(cursor).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_back_and_nothing_else_is() {
        for text in ["12.3.1700000000000000", "1.0.-5"] {
            assert_eq!(text.parse::<Cursor>().unwrap().to_string(), text);
        }
        for text in [
            "", "1", "1.2", "1.2.x", "-1.2.3", "01.2.3", "1.+2.3", "1.2.3.4",
        ] {
            assert_eq!(text.parse::<Cursor>(), Err(()), "{text}");
        }
    }
}
