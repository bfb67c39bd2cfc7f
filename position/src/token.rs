//! Position tokens: how far each partition of a log has got, as an opaque text that can be merged.
//!
//! Invariants: a token belongs to one log. It says nothing about another log, and another log
//! refuses it. A token has exactly one text, and a text that was cut or changed is no token.
//! Deliberately absent: secrecy; a client can make a token for any place.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::form;
use crate::ids::{LogId, Partition, Position};

/// A vector of positions, one for each partition that the token covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PositionToken {
    /// The log it belongs to.
    pub log: LogId,
    /// The least position that a reader must have reached, by partition.
    pub positions: BTreeMap<Partition, Position>,
}

/// Why a text is not a position token, or two tokens do not merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The text is not a token of this engine.
    #[error("not a position token, or one that was cut or changed")]
    Malformed,
    /// The tokens belong to different logs.
    #[error("the position tokens belong to different logs")]
    OtherLog,
}

impl PositionToken {
    /// A token for one position in one partition.
    #[must_use]
    pub fn at(log: LogId, partition: Partition, position: Position) -> Self {
        Self {
            log,
            positions: BTreeMap::from([(partition, position)]),
        }
    }

    /// The later position of both tokens in every partition.
    ///
    /// # Errors
    /// `OtherLog` if they belong to different logs.
    pub fn merge(mut self, other: &Self) -> Result<Self, TokenError> {
        if self.log != other.log {
            return Err(TokenError::OtherLog);
        }
        for (&partition, &position) in &other.positions {
            let slot = self.positions.entry(partition).or_default();
            *slot = position.max(*slot);
        }
        Ok(self)
    }
}

impl fmt::Display for PositionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&form::written(self))
    }
}

impl FromStr for PositionToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        form::read(text).ok_or(TokenError::Malformed)
    }
}

impl Serialize for PositionToken {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PositionToken {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    /// Positions up to 140 trillion records in one partition.
    const POSITIONS: std::ops::Range<u64> = 0..1 << 47;

    fn token(
        partitions: impl Strategy<Value = u32>,
        positions: impl Strategy<Value = u64>,
        count: impl Into<proptest::collection::SizeRange>,
    ) -> impl Strategy<Value = PositionToken> {
        let places = proptest::collection::btree_map(partitions, positions, count);
        (any::<u128>(), places).prop_map(|(log, places)| PositionToken {
            log: LogId(Uuid::from_u128(log)),
            positions: places
                .into_iter()
                .map(|(partition, position)| (Partition(partition), Position(position)))
                .collect(),
        })
    }

    proptest! {
        #[test]
        fn every_token_is_read_back(
            few in token(any::<u32>(), any::<u64>(), 0..40),
            many in token(0..300_u32, any::<u64>(), 0..300),
        ) {
            for token in [few, many] {
                prop_assert_eq!(token.to_string().parse(), Ok(token));
            }
        }

        #[test]
        fn a_token_of_256_partitions_stays_below_2_kb(token in token(0..256_u32, POSITIONS, 0..=256)) {
            let mut whole = token.clone();
            for partition in 0..256 {
                let largest = Position(POSITIONS.end - 1);
                whole.positions.entry(Partition(partition)).or_insert(largest);
            }
            for token in [token, whole] {
                let length = token.to_string().len();
                prop_assert!(length < 2_048, "{} characters", length);
            }
        }

        #[test]
        fn a_changed_token_is_none(
            token in token(0..64_u32, POSITIONS, 0..20),
            at in any::<prop::sample::Index>(),
            letter in "[A-Za-z0-9_-]",
        ) {
            let text = token.to_string();
            let at = at.index(text.len());
            let mut changed = text.clone();
            changed.replace_range(at..=at, &letter);
            let expected = if changed == text { Ok(token) } else { Err(TokenError::Malformed) };
            prop_assert_eq!(changed.parse::<PositionToken>(), expected);
            prop_assert_eq!(text[..at].parse::<PositionToken>(), Err(TokenError::Malformed));
        }

        #[test]
        fn whatever_is_read_has_that_one_text(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(token) = form::of_bytes(&bytes) {
                prop_assert_eq!(form::bytes(&token), bytes);
            }
        }

        #[test]
        fn tokens_of_one_log_merge_to_the_later_of_both(
            one in token(0..8_u32, 0..9_u64, 0..8),
            two in token(0..8_u32, 0..9_u64, 0..8),
        ) {
            let two = PositionToken { log: one.log, ..two };
            let merged = one.clone().merge(&two).unwrap();
            prop_assert_eq!(&two.clone().merge(&one).unwrap(), &merged);
            for partition in (0..8).map(Partition) {
                let of = |token: &PositionToken| token.positions.get(&partition).copied();
                prop_assert_eq!(of(&merged), of(&one).max(of(&two)));
            }
        }
    }

    #[test]
    fn a_token_of_one_position_is_short() {
        let log = LogId(Uuid::from_u128(1));
        let token = PositionToken::at(log, Partition(3), Position(4_711));
        assert_eq!(token.to_string().len(), 36);
    }

    /// The tests of the clients in other languages hold the same texts.
    #[test]
    fn the_form_of_a_token_is_known_to_the_clients() {
        let token = |places: &[(u32, u64)]| PositionToken {
            log: LogId(Uuid::nil()),
            positions: places
                .iter()
                .map(|&(partition, position)| (Partition(partition), Position(position)))
                .collect(),
        };
        for (places, text) in [
            (&[(0, 1)][..], "AgAAAAAAAAAAAAAAAAAAAAABAQABgPcGhNQ"),
            (&[(3, 7)], "AgAAAAAAAAAAAAAAAAAAAAADAQMB4MIyCLU"),
            (
                &[(1, 1 << 60)],
                "AgAAAAAAAAAAAAAAAAAAAAA9AQEBgAAAAAAAAAAt0WXj",
            ),
            (&[(3, 5)], "AgAAAAAAAAAAAAAAAAAAAAADAQMBoLTuSSU"),
            (
                &[(1, 1 << 60), (3, 7)],
                "AgAAAAAAAAAAAAAAAAAAAAA9AgEBAQGAAAAAAAAAAAAAAAAAAAHALnUz9A",
            ),
        ] {
            assert_eq!(token(places).to_string(), text);
        }
    }

    #[test]
    fn tokens_of_two_logs_do_not_merge() {
        let [one, two] = [1, 2]
            .map(|log| PositionToken::at(LogId(Uuid::from_u128(log)), Partition(3), Position(7)));
        assert_eq!(one.merge(&two), Err(TokenError::OtherLog));
    }

    #[test]
    fn other_texts_are_no_tokens() {
        let token = PositionToken::at(LogId(Uuid::nil()), Partition(0), Position(1)).to_string();
        let padded = format!("{token}=");
        let spaced = format!(" {token}");
        for text in [
            "",
            "x",
            "AAAA",
            "AQ",
            "!",
            "AgAAAAAAAAAAAAAAAAAAAAA",
            &padded,
            &spaced,
        ] {
            assert_eq!(
                text.parse::<PositionToken>(),
                Err(TokenError::Malformed),
                "{text}"
            );
        }
    }
}
