//! A locker that one person rents, as an aggregate of `cqrs-es` 0.5.

use std::fmt;

use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent};
use serde::{Deserialize, Serialize};

/// What a locker can be asked for.
#[derive(Debug, Deserialize)]
pub enum LockerCommand {
    /// Rents it.
    Rent {
        /// Who rents it.
        by: String,
    },
    /// Gives it back.
    GiveBack,
}

/// What happened to a locker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum LockerEvent {
    /// It was rented.
    Rented {
        /// Who rented it.
        by: String,
    },
    /// It was given back.
    GivenBack,
}

impl DomainEvent for LockerEvent {
    fn event_type(&self) -> String {
        match self {
            Self::Rented { .. } => "Rented".to_owned(),
            Self::GivenBack => "GivenBack".to_owned(),
        }
    }

    fn event_version(&self) -> String {
        "1.0".to_owned()
    }
}

/// Why a locker refuses.
#[derive(Debug, PartialEq)]
pub enum LockerError {
    /// Somebody has it.
    Taken,
    /// Nobody has it.
    Free,
}

impl fmt::Display for LockerError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Taken => "somebody has this locker",
            Self::Free => "nobody has this locker",
        })
    }
}

impl std::error::Error for LockerError {}

/// A locker.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Locker {
    rented_by: Option<String>,
}

impl Aggregate for Locker {
    const TYPE: &'static str = "locker";
    type Command = LockerCommand;
    type Event = LockerEvent;
    type Error = LockerError;
    type Services = ();

    async fn handle(
        &mut self,
        command: LockerCommand,
        (): &(),
        sink: &EventSink<Self>,
    ) -> Result<(), LockerError> {
        let event = match (command, &self.rented_by) {
            (LockerCommand::Rent { .. }, Some(_)) => return Err(LockerError::Taken),
            (LockerCommand::Rent { by }, None) => LockerEvent::Rented { by },
            (LockerCommand::GiveBack, None) => return Err(LockerError::Free),
            (LockerCommand::GiveBack, Some(_)) => LockerEvent::GivenBack,
        };
        sink.write(event, self).await;
        Ok(())
    }

    fn apply(&mut self, event: LockerEvent) {
        self.rented_by = match event {
            LockerEvent::Rented { by } => Some(by),
            LockerEvent::GivenBack => None,
        };
    }
}

// From here on: what Annals needs beside, all of it frozen on the wire.
use annals::ShapeError;
use annals::cqrs::{Adoption, decode_variant};

/// Lockers, on Annals.
pub struct Lockers;

impl Adoption for Lockers {
    type Aggregate = Locker;
    const CATEGORY: &'static str = "locker";

    fn services() -> &'static () {
        &()
    }

    fn decode(name: &str, schema: u16, data: &str) -> Result<LockerCommand, ShapeError> {
        decode_variant(name, schema, data)
    }

    fn code(error: &LockerError) -> &str {
        match error {
            LockerError::Taken => "locker_taken",
            LockerError::Free => "locker_free",
        }
    }

    fn event_schema(_event_version: &str) -> u16 {
        1
    }
}
