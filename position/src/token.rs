//! Position tokens: how far each partition of a log has got, as an opaque text that can be merged.
//!
//! Invariant: a token belongs to one log. It says nothing about another log, and another log
//! refuses it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

use crate::ids::{LogId, Partition, Position};

/// The first byte of a token: the format version.
const FORM: u8 = 1;

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
    #[error("not a position token")]
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
        let mut bytes = Vec::with_capacity(17 + 12 * self.positions.len());
        bytes.push(FORM);
        bytes.extend_from_slice(self.log.0.as_bytes());
        for (partition, position) in &self.positions {
            bytes.extend_from_slice(&partition.0.to_be_bytes());
            bytes.extend_from_slice(&position.0.to_be_bytes());
        }
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl FromStr for PositionToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let bytes = URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|_| TokenError::Malformed)?;
        let (&form, rest) = bytes.split_first().ok_or(TokenError::Malformed)?;
        let (log, places) = rest.split_at_checked(16).ok_or(TokenError::Malformed)?;
        if form != FORM || places.len() % 12 != 0 {
            return Err(TokenError::Malformed);
        }
        let log = LogId(Uuid::from_slice(log).map_err(|_| TokenError::Malformed)?);
        let mut positions = BTreeMap::new();
        for place in places.chunks_exact(12) {
            let (partition, position) = place.split_at(4);
            let partition = partition.try_into().map_err(|_| TokenError::Malformed)?;
            let position = position.try_into().map_err(|_| TokenError::Malformed)?;
            positions.insert(
                Partition(u32::from_be_bytes(partition)),
                Position(u64::from_be_bytes(position)),
            );
        }
        Ok(Self { log, positions })
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
    use super::*;

    #[test]
    fn a_token_is_read_back_and_merges_to_the_later_of_both() {
        let log = LogId(Uuid::from_u128(1));
        let one = PositionToken::at(log, Partition(3), Position(7));
        let two = PositionToken::at(log, Partition(3), Position(9));
        let three = PositionToken::at(log, Partition(0), Position(1));
        let merged = one.merge(&two).unwrap().merge(&three).unwrap();
        assert_eq!(merged.to_string().parse(), Ok(merged.clone()));
        assert_eq!(merged.positions[&Partition(3)], Position(9));
        let other = PositionToken::at(LogId(Uuid::from_u128(2)), Partition(3), Position(7));
        assert_eq!(merged.merge(&other), Err(TokenError::OtherLog));
    }

    #[test]
    fn other_texts_are_no_tokens() {
        for text in ["", "x", "AAAA", "AQ", "!", "AgAAAAAAAAAAAAAAAAAAAAA"] {
            assert_eq!(
                text.parse::<PositionToken>(),
                Err(TokenError::Malformed),
                "{text}"
            );
        }
    }
}
