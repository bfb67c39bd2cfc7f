//! Settings that are lists: roles, and acknowledged damage.
//!
//! Invariant: each can be written as a list in the file and as one text in a variable.

use std::fmt;

use event_log::chain::Acknowledged;
use position::{Offset, Partition};
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, de::value::SeqAccessDeserializer};

use super::{Role, Roles};

/// `"projector,query-api"` or `["projector", "query-api"]`.
#[derive(Debug)]
pub(super) struct RoleList(pub(super) Roles);

/// `"3:17=reason; 4:1=reason"` or tables with `partition`, `offset` and `reason`.
#[derive(Debug)]
pub(super) struct Places(pub(super) Acknowledged);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    partition: u32,
    offset: u64,
    reason: String,
}

impl<'de> Deserialize<'de> for RoleList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = deserializer.deserialize_any(Texts)?;
        let role = |name: &String| {
            <Role as clap::ValueEnum>::from_str(name, false).map_err(|_| {
                let known = "command-api, projector, query-api or all";
                de::Error::custom(format!("a role is {known}, not {name:?}"))
            })
        };
        let roles = names.iter().map(role).collect::<Result<Vec<Role>, _>>()?;
        if roles.is_empty() {
            return Err(de::Error::custom("at least one role is needed"));
        }
        Ok(Self(roles.into_iter().collect()))
    }
}

struct Texts;

impl<'de> Visitor<'de> for Texts {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("names, as a list or separated by commas")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(text.split(',').map(|name| name.trim().to_owned()).collect())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Self::Value, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(items))
    }
}

impl<'de> Deserialize<'de> for Places {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let places = deserializer.deserialize_any(PlaceVisitor)?;
        if places.iter().any(|place| place.reason.trim().is_empty()) {
            return Err(de::Error::custom("acknowledged damage needs a reason"));
        }
        let place = |place: Place| {
            let at = (Partition(place.partition), Offset(place.offset));
            (at, place.reason)
        };
        Ok(Self(places.into_iter().map(place).collect()))
    }
}

struct PlaceVisitor;

impl<'de> Visitor<'de> for PlaceVisitor {
    type Value = Vec<Place>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PARTITION:OFFSET=REASON, separated by ;")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        let place = |text: &str| {
            let (at, reason) = text.split_once('=')?;
            let (partition, offset) = at.split_once(':')?;
            Some(Place {
                partition: partition.trim().parse().ok()?,
                offset: offset.trim().parse().ok()?,
                reason: reason.trim().to_owned(),
            })
        };
        let places = text.split(';').filter(|text| !text.trim().is_empty());
        let places: Option<Vec<Place>> = places.map(place).collect();
        places.ok_or_else(|| de::Error::invalid_value(de::Unexpected::Str(text), &self))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Self::Value, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(items))
    }
}
