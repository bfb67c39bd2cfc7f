//! `annals schema check`: whether this program still reads what a base wrote, and takes what its
//! clients send.
//!
//! Invariant: an event of one schema number has one shape for ever, so every change of it needs a new
//! number; a command may only take more than before. Deliberately absent: what breaks clients of the
//! doors (`ops/contract/changes` asks that of the whole documents).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use kernel::MessageType;
use kernel::registry::{Registry, definitions_of};
use serde::Serialize;
use serde_json::{Map, Value};

use super::compatible::{Effect, changes};
use super::samples::{self, Kind, Place};
use super::{DEFINITIONS, entries, failed, whole};
use crate::Domain;
use crate::exit::{Exit, Failure};
use crate::logging::talk;
use crate::output;
use crate::settings::Settings;

/// The help text after the options.
pub(crate) const HELP: &str = "\
The base is a folder of schemas, such as that of the last release, or one schema file
of it. Each incompatible change is printed with its message, field and rule, and the exit code is 1:
  - an event must keep its shape, or get a new schema number and an upcaster from the old one
  - a command may take more than before, or get a new schema number, too
  - a type of message must not vanish, and the samples of the base must be read as before

Example:
  annals schema check --base schemas";

/// Arguments of `schema check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The folder of schemas, or one schema file, that the program is compared with
    #[arg(long, value_name = "DIR|FILE")]
    base: PathBuf,
}

/// One incompatible change.
#[derive(Debug, Serialize)]
struct Broken {
    message: String,
    schema: u16,
    field: String,
    rule: &'static str,
    detail: String,
}

/// A type of this program.
struct Known {
    message: MessageType,
    schema: Value,
}

pub(super) fn run(domain: &Domain, settings: &Settings, args: &CheckArgs) -> Result<Exit, Failure> {
    let base = base_of(&args.base)?;
    if base.is_empty() {
        let message = format!("{} has no schema of a message", args.base.display());
        return Err(Failure::new(Exit::NotFound, message));
    }
    let samples = samples::kept(&args.base)?;
    let known = known(&domain.registry);
    let mut broken = Vec::new();
    for (place, schema) in &base {
        broken.extend(judge(place, schema, &known));
    }
    for (place, sample) in &samples {
        broken.extend(reread(&domain.registry, place, sample));
    }
    if !broken.is_empty() || settings.output.is_json() {
        let columns = ["message", "schema", "field", "rule", "detail"];
        output::rows(settings.output, &columns, &broken)?;
    }
    talk!(
        "{} schemas and {} samples of {}: {} incompatible changes",
        base.len(),
        samples.len(),
        args.base.display(),
        broken.len()
    );
    Ok(if broken.is_empty() {
        Exit::Done
    } else {
        Exit::Failed
    })
}

/// The schemas of a base, by the names in their ids.
fn base_of(base: &Path) -> Result<BTreeMap<Place, Value>, Failure> {
    let mut files = Vec::new();
    if base.is_dir() {
        for kind in Kind::ALL {
            for category in entries(&base.join(kind.as_str()))? {
                files.extend(entries(&category)?);
            }
        }
    } else {
        files.push(base.to_owned());
    }
    let mut schemas = BTreeMap::new();
    for file in files {
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let message = format!("there is no {}", file.display());
                return Err(Failure::new(Exit::NotFound, message));
            }
            Err(error) => return Err(failed("read", &file, &error)),
        };
        let schema: Option<Value> = serde_json::from_str(&text).ok();
        let named = schema.and_then(|schema| Some((place_of(&schema)?, schema)));
        let Some((place, schema)) = named else {
            let message = format!("{} is not the schema of a message", file.display());
            return Err(Failure::new(Exit::Failed, message));
        };
        schemas.insert(place, schema);
    }
    Ok(schemas)
}

/// The place in an id such as `urn:annals:events:order:OrderPlaced:v1`.
fn place_of(schema: &Value) -> Option<Place> {
    let id = schema.get("$id")?.as_str()?.strip_prefix("urn:annals:")?;
    let mut parts = id.split(':');
    let kind = parts.next()?;
    let kind = Kind::ALL.into_iter().find(|known| known.as_str() == kind)?;
    Some(Place {
        kind,
        category: parts.next()?.to_owned(),
        name: parts.next()?.to_owned(),
        schema: parts.next()?.strip_prefix('v')?.parse().ok()?,
    })
}

fn known(registry: &Registry) -> BTreeMap<(Kind, String, String), Known> {
    let mut known = BTreeMap::new();
    for aggregate in registry.iter() {
        for kind in Kind::ALL {
            let mut generator = Registry::schema_generator(DEFINITIONS);
            let types = kind.types(&**aggregate, &mut generator);
            let definitions: Map<String, Value> = definitions_of(generator)
                .into_iter()
                .map(|(name, schema)| (name, schema.to_value()))
                .collect();
            for message in types {
                let key = (
                    kind,
                    aggregate.category().to_owned(),
                    message.name.to_owned(),
                );
                let schema = whole(&message, "", &definitions);
                known.insert(key, Known { message, schema });
            }
        }
    }
    known
}

/// What of one message of the base this program breaks.
fn judge(
    place: &Place,
    schema: &Value,
    known: &BTreeMap<(Kind, String, String), Known>,
) -> Vec<Broken> {
    let broken = |field: &str, rule, detail: String| Broken {
        message: format!("{}/{}/{}", place.kind.as_str(), place.category, place.name),
        schema: place.schema,
        field: field.to_owned(),
        rule,
        detail,
    };
    let key = (place.kind, place.category.clone(), place.name.clone());
    let Some(Known {
        message,
        schema: new,
    }) = known.get(&key)
    else {
        let detail = "the program has no such message".to_owned();
        return vec![broken("", "message_removed", detail)];
    };
    let newest = message.schema_version;
    if place.schema < newest {
        if message.older_versions.contains(&place.schema) {
            return Vec::new();
        }
        let detail = format!(
            "schema {newest} is the newest; no upcaster reads {}",
            place.schema
        );
        return vec![broken("", "version_without_upcaster", detail)];
    }
    if place.schema > newest {
        let detail = format!("the program's newest schema is {newest}");
        return vec![broken("", "version_lowered", detail)];
    }
    let mut found = Vec::new();
    for change in changes(schema, new) {
        match (place.kind, change.effect) {
            (_, Effect::Narrower) => found.push(broken(&change.field, change.rule, change.detail)),
            // Programs of the base refuse what is new, and cannot read such events.
            (Kind::Events, Effect::Wider) => {
                let detail = format!("{} {}", change.rule, change.detail);
                let rule = "changed_without_version";
                found.push(broken(&change.field, rule, detail.trim().to_owned()));
            }
            (Kind::Commands, Effect::Wider) => {}
        }
    }
    found
}

/// Whether a sample of the base is read, and in the same way as then.
fn reread(registry: &Registry, place: &Place, sample: &samples::Sample) -> Option<Broken> {
    let broken = |rule, detail| Broken {
        message: format!("{}/{}/{}", place.kind.as_str(), place.category, place.name),
        schema: place.schema,
        field: String::new(),
        rule,
        detail,
    };
    let aggregate = registry.get(&place.category);
    let Some(aggregate) = aggregate else {
        return Some(broken(
            "sample_unreadable",
            "its category is gone".to_owned(),
        ));
    };
    let read = place
        .kind
        .newest(&**aggregate, &place.name, place.schema, &sample.data);
    let newest = match read {
        Ok(newest) => newest,
        Err(error) => return Some(broken("sample_unreadable", error.to_string())),
    };
    let (schema, data) = sample.newest.as_ref()?;
    let shown: Value = serde_json::from_str(newest.data.get()).unwrap_or_default();
    let is_same = *schema != newest.schema || *data == shown;
    (!is_same).then(|| {
        let detail = format!("read as {shown}, and as {data} before");
        broken("sample_read_otherwise", detail)
    })
}
