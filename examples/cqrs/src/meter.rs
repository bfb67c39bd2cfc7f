//! A meter that counts up to its limit, as an aggregate of `cqrs-es` 0.4.

use std::fmt;

use async_trait::async_trait;
use cqrs_es_04::{Aggregate, DomainEvent};
use serde::{Deserialize, Serialize};

/// What a meter can be asked for.
#[derive(Debug, Deserialize)]
pub enum MeterCommand {
    /// Counts.
    Count {
        /// How many.
        by: u32,
    },
}

/// What happened to a meter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum MeterEvent {
    /// It counted.
    Counted {
        /// How many.
        by: u32,
    },
    /// It reached its limit.
    LimitReached,
}

impl DomainEvent for MeterEvent {
    fn event_type(&self) -> String {
        match self {
            Self::Counted { .. } => "Counted".to_owned(),
            Self::LimitReached => "LimitReached".to_owned(),
        }
    }

    fn event_version(&self) -> String {
        "1.0".to_owned()
    }
}

/// Why a meter refuses.
#[derive(Debug, PartialEq)]
pub struct BeyondLimit;

impl fmt::Display for BeyondLimit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the meter would pass its limit")
    }
}

impl std::error::Error for BeyondLimit {}

/// Where the limits of meters are looked up.
#[derive(Debug)]
pub struct Limits {
    /// The limit of every meter.
    pub of_each: u32,
}

/// A meter.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Meter {
    count: u32,
}

#[async_trait]
impl Aggregate for Meter {
    type Command = MeterCommand;
    type Event = MeterEvent;
    type Error = BeyondLimit;
    type Services = Limits;

    fn aggregate_type() -> String {
        "meter".to_owned()
    }

    async fn handle(
        &self,
        command: MeterCommand,
        limits: &Limits,
    ) -> Result<Vec<MeterEvent>, BeyondLimit> {
        let MeterCommand::Count { by } = command;
        match self.count.checked_add(by) {
            Some(count) if count < limits.of_each => Ok(vec![MeterEvent::Counted { by }]),
            Some(count) if count == limits.of_each => {
                Ok(vec![MeterEvent::Counted { by }, MeterEvent::LimitReached])
            }
            Some(_) | None => Err(BeyondLimit),
        }
    }

    fn apply(&mut self, event: MeterEvent) {
        match event {
            MeterEvent::Counted { by } => self.count += by,
            MeterEvent::LimitReached => {}
        }
    }
}

// From here on: what Annals needs beside, all of it frozen on the wire.
use crate::raised::Raised;
use annals::ShapeError;
use annals::cqrs::{Adoption, decode_variant};

/// Meters, on Annals.
pub struct Meters;

impl Adoption for Meters {
    type Aggregate = Raised<Meter>;
    const CATEGORY: &'static str = "meter";

    fn services() -> &'static Limits {
        &Limits { of_each: 10 }
    }

    fn decode(name: &str, schema: u16, data: &str) -> Result<MeterCommand, ShapeError> {
        decode_variant(name, schema, data)
    }

    fn code(_error: &BeyondLimit) -> &str {
        "meter_beyond_limit"
    }

    fn event_schema(_event_version: &str) -> u16 {
        1
    }
}
