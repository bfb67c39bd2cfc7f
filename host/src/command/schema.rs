//! `annals schema`: the JSON Schemas of commands, events and the topic's records, and the documents for
//! OpenAPI and AsyncAPI, as files.
//!
//! Invariant: the same program writes the same bytes; a test compares the committed files with
//! them. Deliberately absent: the schemas themselves, which follow from the types.

mod asyncapi;
mod check;
mod compatible;
mod samples;
mod topic;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use event_log::record::RECORD_VERSION;
use kernel::MessageType;
use kernel::registry::{Registry, definitions_of};
use serde_json::{Map, Value, json};

use samples::Kind;

use crate::exit::{Exit, Failure};
use crate::logging::talk;
use crate::settings::{Roles, Settings};
use crate::{Domain, node};

/// How the message begins that a type has no sample.
pub(crate) const NO_SAMPLE: &str = "no sample of";

/// The help text after the options.
pub(crate) const HELP: &str = "\
The files are commands/CATEGORY/NAME.vN.json, events/CATEGORY/NAME.vN.json, commit.json and claim.json
(what the values of a topic's records hold), openapi.json and asyncapi.json. Schema files of types that
no longer exist are removed.

samples/ has the data of each message in each shape that it ever had, with what it is read as now. The
newest shape's sample is the example that the type declares; those of older shapes stay for ever.

Examples:
  annals schema schemas && git diff schemas
  annals schema check --base schemas";

/// Arguments of `schema`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct SchemaArgs {
    /// The folder; it is created if it does not exist
    #[arg(default_value = "schemas")]
    folder: PathBuf,
    /// What else to do with schemas.
    #[command(subcommand)]
    command: Option<SchemaCommand>,
}

/// What else can be done with schemas.
#[derive(Debug, Subcommand)]
pub enum SchemaCommand {
    /// Compare the messages of this program with those of a base, and report incompatible changes
    #[command(after_help = check::HELP)]
    Check(check::CheckArgs),
}

/// Where the definitions stand in each file.
const DEFINITIONS: &str = "/$defs/";
/// The dialect of each file.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

pub(super) fn run(
    domain: &Domain,
    settings: &Settings,
    args: &SchemaArgs,
) -> Result<Exit, Failure> {
    if let Some(SchemaCommand::Check(args)) = &args.command {
        return check::run(domain, settings, args);
    }
    let mut files = files(domain);
    files.extend(samples::files(&domain.registry, &args.folder)?);
    let count = files.len();
    remove_stale(&args.folder, &files)?;
    for (path, text) in files {
        let path = args.folder.join(path);
        if let Some(parent) = path.parent() {
            node::create_folder(parent)?;
        }
        std::fs::write(&path, text).map_err(|error| failed("write", &path, &error))?;
    }
    talk!("wrote {count} files into {}", args.folder.display());
    Ok(Exit::Done)
}

/// Removes the schemas of types that no longer exist, and nothing else.
fn remove_stale(folder: &Path, files: &BTreeMap<PathBuf, String>) -> Result<(), Failure> {
    for kind in ["commands", "events"] {
        for category in entries(&folder.join(kind))? {
            for path in entries(&category)? {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let is_schema = name.ends_with(".json") && name.contains(".v");
                let is_known = path
                    .strip_prefix(folder)
                    .is_ok_and(|relative| files.contains_key(relative));
                if is_schema && !is_known {
                    let removed = std::fs::remove_file(&path);
                    removed.map_err(|error| failed("remove", &path, &error))?;
                }
            }
        }
    }
    Ok(())
}

/// The entries of a folder; none if the path is not a folder.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let read = || -> std::io::Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(folder)?;
        entries.map(|entry| Ok(entry?.path())).collect()
    };
    read().map_err(|error| failed("read", folder, &error))
}

fn failed(what: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::of(Exit::Failed, error).while_trying(&format!("{what} {}", path.display()))
}

/// Every file of a domain, by its path in the folder, apart from the samples.
#[must_use]
pub fn files(domain: &Domain) -> BTreeMap<PathBuf, String> {
    let mut files = BTreeMap::new();
    for aggregate in domain.registry.iter() {
        let category = aggregate.category();
        for kind in Kind::ALL {
            let mut generator = Registry::schema_generator(DEFINITIONS);
            let types = kind.types(&**aggregate, &mut generator);
            let kind = kind.as_str();
            let definitions: Map<String, Value> = definitions_of(generator)
                .into_iter()
                .map(|(name, schema)| (name, schema.to_value()))
                .collect();
            for message in types {
                let name = format!("{}.v{}.json", message.name, message.schema_version);
                let path = Path::new(kind).join(category).join(name);
                let id = format!("urn:annals:{kind}:{category}:{}", message.name);
                let id = format!("{id}:v{}", message.schema_version);
                files.insert(path, text(&whole(&message, &id, &definitions)));
            }
        }
    }
    let document = node::openapi_document(domain, Roles::ALL);
    files.insert(PathBuf::from("openapi.json"), text(&document));
    let values = topic::values(domain, DEFINITIONS);
    for (name, title, schema) in [
        ("commit", "Commit", &values.commit),
        ("claim", "Claim", &values.claim),
    ] {
        let id = format!("urn:annals:{name}:v{RECORD_VERSION}");
        let file = self_contained(schema.clone(), &id, title, &values.definitions);
        files.insert(PathBuf::from(format!("{name}.json")), text(&file));
    }
    let document = asyncapi::document(domain);
    files.insert(PathBuf::from("asyncapi.json"), text(&document));
    files
}

fn text(value: &Value) -> String {
    format!("{value:#}\n")
}

/// A self-contained schema: with its name, and with the definitions that it uses.
fn whole(message: &MessageType, id: &str, definitions: &Map<String, Value>) -> Value {
    let mut schema = message.schema.clone().to_value();
    // If the schema only refers to a definition, the file shows that definition itself.
    if let Some(own) = referred(&schema).and_then(|name| definitions.get(name)) {
        schema = own.clone();
    }
    self_contained(schema, id, message.name, definitions)
}

/// A schema with its id and title, and with the definitions that it uses.
fn self_contained(schema: Value, id: &str, title: &str, definitions: &Map<String, Value>) -> Value {
    let mut used = Map::new();
    collect(&schema, definitions, &mut used);
    let mut file = Map::from_iter([
        ("$schema".to_owned(), json!(DIALECT)),
        ("$id".to_owned(), json!(id)),
    ]);
    if let Value::Object(members) = schema {
        file.extend(members);
    }
    file.insert("title".to_owned(), json!(title));
    if !used.is_empty() {
        file.insert("$defs".to_owned(), Value::Object(used));
    }
    Value::Object(file)
}

fn referred(schema: &Value) -> Option<&str> {
    let reference = schema.get("$ref")?.as_str()?;
    reference.strip_prefix('#')?.strip_prefix(DEFINITIONS)
}

/// Collects every definition that a schema refers to, directly or through other definitions.
fn collect(schema: &Value, definitions: &Map<String, Value>, used: &mut Map<String, Value>) {
    if let Some(name) = referred(schema)
        && !used.contains_key(name)
        && let Some(definition) = definitions.get(name)
    {
        used.insert(name.to_owned(), definition.clone());
        collect(definition, definitions, used);
    }
    match schema {
        Value::Object(members) => members.values().for_each(|m| collect(m, definitions, used)),
        Value::Array(items) => items
            .iter()
            .for_each(|item| collect(item, definitions, used)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
