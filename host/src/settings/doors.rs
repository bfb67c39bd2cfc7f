//! The limits of a node's listener, and the names under which clients reach it.
//!
//! Deliberately absent: how they are applied (`door`).

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use door::Limits;
use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor, value::SeqAccessDeserializer};

use super::Settings;
use crate::exit::Failure;

/// Request bodies and answers share a node's memory divided by this.
const MEMORY_FRACTION: usize = 8;
/// The largest limit of connections that can be set.
const CONNECTIONS_MAX: usize = 1_000_000;
/// The range of a timeout, in milliseconds.
const TIMEOUT_MS: RangeInclusive<usize> = 100..=3_600_000;
/// The range of a rate, in bytes per second.
const RATE_BYTES: RangeInclusive<usize> = 1..=1_000_000_000;

/// The settings of the listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doors {
    /// Names under which clients reach the listener, besides its own address.
    pub hosts: Vec<String>,
    /// The most connections.
    pub connections_max: usize,
    /// The most connections of one address.
    pub connections_per_address_max: usize,
    /// How long the head of a request may take, in milliseconds.
    pub header_timeout_ms: usize,
    /// How long a connection may be idle, in milliseconds.
    pub idle_timeout_ms: usize,
    /// How long a body or an answer may make no progress, in milliseconds.
    pub stall_timeout_ms: usize,
    /// The minimum rate of bodies and answers, in bytes per second.
    pub rate_bytes_min: usize,
}

/// Names in a list, or in one text with commas.
#[derive(Debug)]
pub(super) struct Names(pub(super) Vec<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = deserializer.deserialize_any(NamesVisitor)?;
        let is_name = |name: &String| {
            let is_part =
                |letter: char| letter.is_ascii_alphanumeric() || ".-_:[]".contains(letter);
            !name.is_empty() && name.chars().all(is_part)
        };
        match names.iter().find(|name| !is_name(name)) {
            None => Ok(Self(names)),
            Some(name) => Err(de::Error::custom(format!(
                "a host is a name or an address without a port, not {name:?}"
            ))),
        }
    }
}

struct NamesVisitor;

impl<'de> Visitor<'de> for NamesVisitor {
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

impl Settings {
    /// The limits of the listener.
    #[must_use]
    pub fn door_limits(&self) -> Limits {
        let millis = |ms: usize| Duration::from_millis(ms as u64);
        Limits {
            connections_max: self.doors.connections_max,
            connections_per_address_max: self.doors.connections_per_address_max,
            header_timeout: millis(self.doors.header_timeout_ms),
            idle_timeout: millis(self.doors.idle_timeout_ms),
            stall_timeout: millis(self.doors.stall_timeout_ms),
            rate_bytes_min: self.doors.rate_bytes_min as u64,
            memory_bytes: (self.memory_mb << 20) / MEMORY_FRACTION,
        }
    }

    pub(super) fn check_doors(&self) -> Result<(), Failure> {
        let doors = &self.doors;
        for (key, value, range) in [
            (
                "connections_max",
                doors.connections_max,
                1..=CONNECTIONS_MAX,
            ),
            (
                "connections_per_address_max",
                doors.connections_per_address_max,
                1..=CONNECTIONS_MAX,
            ),
            ("header_timeout_ms", doors.header_timeout_ms, TIMEOUT_MS),
            ("idle_timeout_ms", doors.idle_timeout_ms, TIMEOUT_MS),
            ("stall_timeout_ms", doors.stall_timeout_ms, TIMEOUT_MS),
            ("rate_bytes_min", doors.rate_bytes_min, RATE_BYTES),
        ] {
            self.check_range(key, value, range)?;
        }
        Ok(())
    }
}

impl Doors {
    /// What `annals config` shows of one of these settings.
    pub(super) fn shown(&self, key: &str) -> Option<String> {
        let number = match key {
            "hosts" => {
                let names = self.hosts.join(",");
                return (!names.is_empty()).then_some(names);
            }
            "connections_max" => self.connections_max,
            "connections_per_address_max" => self.connections_per_address_max,
            "header_timeout_ms" => self.header_timeout_ms,
            "idle_timeout_ms" => self.idle_timeout_ms,
            "stall_timeout_ms" => self.stall_timeout_ms,
            "rate_bytes_min" => self.rate_bytes_min,
            _ => return None,
        };
        Some(number.to_string())
    }
}
