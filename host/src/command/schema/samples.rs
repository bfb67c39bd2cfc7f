//! Golden samples: the data of each message in each shape that it ever had, and what this program
//! reads it as.
//!
//! Invariant: the data of a sample in an old shape never changes and is never removed; that of the
//! newest shape is the example that its type declares. Deliberately absent: what an example must
//! show; its author chooses it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kernel::registry::{Aggregate, MessageError, Newest, Registry, definitions_of};
use kernel::{MessageType, schemars::SchemaGenerator};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::NO_SAMPLE;
use super::{DEFINITIONS, entries, failed, referred, text};
use crate::exit::{Exit, Failure};
use crate::logging::talk;

/// The folder of the samples, below that of the schemas.
pub(super) const FOLDER: &str = "samples";

/// Whether a message is a command or an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Commands,
    Events,
}

impl Kind {
    pub(super) const ALL: [Self; 2] = [Self::Commands, Self::Events];

    /// Its folder's name.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Commands => "commands",
            Self::Events => "events",
        }
    }

    /// The types of an aggregate's messages of this kind.
    pub(super) fn types(
        self,
        aggregate: &dyn Aggregate,
        generator: &mut SchemaGenerator,
    ) -> Vec<MessageType> {
        match self {
            Self::Commands => aggregate.command_types(generator),
            Self::Events => aggregate.event_types(generator),
        }
    }

    /// A message in its newest shape.
    pub(super) fn newest(
        self,
        aggregate: &dyn Aggregate,
        name: &str,
        schema: u16,
        data: &Value,
    ) -> Result<Newest, MessageError> {
        let data =
            RawValue::from_string(data.to_string()).unwrap_or_else(|_| RawValue::NULL.to_owned());
        match self {
            Self::Commands => aggregate.newest_command(name, schema, &data),
            Self::Events => aggregate.newest_event(name, schema, &data),
        }
    }
}

/// A sample's place among all samples.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) kind: Kind,
    pub(super) category: String,
    pub(super) name: String,
    pub(super) schema: u16,
}

impl Place {
    /// The path of its file, below the folder of the schemas.
    fn path(&self) -> PathBuf {
        let file = format!("{}.v{}.json", self.name, self.schema);
        Path::new(FOLDER)
            .join(self.kind.as_str())
            .join(&self.category)
            .join(file)
    }

    /// Reads a path such as `events/order/OrderPlaced.v1.json`.
    fn of(kind: Kind, category: &Path, file: &Path) -> Option<Self> {
        let stem = file.file_name()?.to_str()?.strip_suffix(".json")?;
        let (name, schema) = stem.rsplit_once(".v")?;
        Some(Self {
            kind,
            category: category.file_name()?.to_str()?.to_owned(),
            name: name.to_owned(),
            schema: schema.parse().ok()?,
        })
    }
}

/// The samples of the newest shapes, from the declared examples. Says which types have none.
pub(super) fn declared(registry: &Registry) -> BTreeMap<Place, Value> {
    let mut samples = BTreeMap::new();
    for aggregate in registry.iter() {
        for kind in Kind::ALL {
            let mut generator = Registry::schema_generator(DEFINITIONS);
            let types = kind.types(&**aggregate, &mut generator);
            let definitions = definitions_of(generator);
            for message in types {
                let schema = message.schema.clone().to_value();
                let own = referred(&schema).and_then(|name| definitions.get(name));
                let schema = own.map_or(schema.clone(), |own| own.clone().to_value());
                let place = Place {
                    kind,
                    category: aggregate.category().to_owned(),
                    name: message.name.to_owned(),
                    schema: message.schema_version,
                };
                let example = schema.pointer("/examples/0").cloned();
                let data = example.unwrap_or_else(|| json!({}));
                let read = kind.newest(&**aggregate, &place.name, place.schema, &data);
                match read {
                    Ok(_) => {
                        samples.insert(place, data);
                    }
                    Err(error) => talk!(
                        "{NO_SAMPLE} {}: give it an example that fits, with \
                         #[schemars(extend(\"examples\" = [{{…}}]))] ({error})",
                        message.name
                    ),
                }
            }
        }
    }
    samples
}

/// The samples in a folder of schemas: their data, and what it was read as.
pub(super) fn kept(folder: &Path) -> Result<BTreeMap<Place, Sample>, Failure> {
    let mut samples = BTreeMap::new();
    for kind in Kind::ALL {
        for category in entries(&folder.join(FOLDER).join(kind.as_str()))? {
            for file in entries(&category)? {
                let Some(place) = Place::of(kind, &category, &file) else {
                    continue;
                };
                samples.insert(place, Sample::read(&file)?);
            }
        }
    }
    Ok(samples)
}

/// What a file of a sample holds.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample {
    pub(super) data: Value,
    /// The number of the newest shape when the file was written, and the data in that shape.
    pub(super) newest: Option<(u16, Value)>,
}

impl Sample {
    fn read(file: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(file).map_err(|error| failed("read", file, &error))?;
        let sample = serde_json::from_str::<Map<String, Value>>(&text).ok();
        let read = sample.and_then(|mut sample| {
            let newest = sample.get_mut("newest").map(Value::take);
            let newest = newest.and_then(|mut newest| {
                let schema = newest.get("schema")?.as_u64()?;
                Some((u16::try_from(schema).ok()?, newest.get_mut("data")?.take()))
            });
            let data = sample.get_mut("data")?.take();
            Some(Self { data, newest })
        });
        let message = || format!("{} is not a sample with data", file.display());
        read.ok_or_else(|| Failure::new(Exit::Failed, message()))
    }
}

/// The files of all samples: the declared ones, and in old shapes those that are in `folder`.
pub(super) fn files(
    registry: &Registry,
    folder: &Path,
) -> Result<BTreeMap<PathBuf, String>, Failure> {
    let newest = declared(registry);
    let mut files = BTreeMap::new();
    for (place, sample) in kept(folder)? {
        if !newest.contains_key(&place) {
            files.insert(place.path(), file(registry, &place, &sample.data)?);
        }
    }
    for (place, data) in newest {
        files.insert(place.path(), file(registry, &place, &data)?);
    }
    Ok(files)
}

fn file(registry: &Registry, place: &Place, data: &Value) -> Result<String, Failure> {
    let Place {
        kind,
        category,
        name,
        schema,
    } = place;
    let unread = |why: String| {
        let path = place.path();
        let message = format!(
            "the sample {} cannot be read any more: {why}",
            path.display()
        );
        Failure::new(Exit::Failed, message).hint("keep an upcaster from its shape")
    };
    let aggregate = registry.get(category);
    let aggregate = aggregate.ok_or_else(|| unread("its category is gone".to_owned()))?;
    let newest = kind.newest(&**aggregate, name, *schema, data);
    let newest = newest.map_err(|error| unread(error.to_string()))?;
    let shown: Value = serde_json::from_str(newest.data.get()).unwrap_or_default();
    Ok(text(&json!({
        "schema": schema,
        "data": data,
        "newest": {"schema": newest.schema, "data": shown},
    })))
}
