//! Merges the four layers of settings with the crate `config`; each value keeps its origin.
//!
//! Deliberately absent: what the keys mean (`catalogue`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use config::{Config, ConfigError, File, FileFormat, Map, Source, Value};
use serde::de::DeserializeOwned;

use super::catalogue::CATALOGUE;
use crate::exit::{Exit, Failure, explained};
use crate::private;

/// The source of a value that the user did not set.
pub(super) const DEFAULT: &str = "default";

/// The file that is read if none is named, relative to the user's configuration folder. A file in
/// the working directory is not read: whoever can put a file there could name programs that this
/// process runs.
const FILE: &str = "annals/annals.toml";

/// Settings that are secrets: a file that contains one must be private to its owner.
const SECRETS: [&str; 2] = ["cluster_secret", "kafka_sasl_password"];

/// The prefix of the program's variables.
const PREFIX: &str = "ANNALS_";

/// Variables of the project's own tools and tests, which are no settings of the program.
const OF_TOOLS: [&str; 14] = [
    "ANNALS_TOOLS_DIR",
    "ANNALS_KAFKA_DIR",
    "ANNALS_OLIST_DIR",
    "ANNALS_DEMO_FEATURES",
    "ANNALS_SCHEMATHESIS",
    "ANNALS_CONTRACT_TOOLS",
    "ANNALS_USERS_TOOLS",
    "ANNALS_PROMTOOL",
    "ANNALS_CHROMIUM",
    "ANNALS_GO",
    "ANNALS_PM4PY",
    "ANNALS_EXPORT_EVENTS",
    "ANNALS_TESTS_SEED",
    "ANNALS_TESTS_VICTIM",
];

/// The settings that were given on the command line.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// The configuration file.
    pub config: Option<PathBuf>,
    /// Keys and values.
    pub values: Vec<(&'static str, String)>,
}

impl Flags {
    /// Adds a value, if there is one.
    pub fn add(&mut self, key: &'static str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.values.push((key, value.to_string()));
        }
    }
}

/// Some keys with their values, each with its origin.
#[derive(Clone, Debug)]
struct Layer(Vec<(String, String, String)>);

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        let value = |(key, origin, value): &(String, String, String)| {
            (key.clone(), Value::new(Some(origin), value.as_str()))
        };
        Ok(self.0.iter().map(value).collect())
    }
}

/// Merges the layers. Returns the settings, and the source of each value.
///
/// # Errors
/// `Usage`.
pub(super) fn collect<T: DeserializeOwned>(
    flags: &Flags,
    variables: Vec<(String, String)>,
) -> Result<(T, BTreeMap<String, String>), Failure> {
    let mut builder = Config::builder().add_source(defaults());
    let file = file_of(flags, &variables)?;
    if let Some(file) = file.clone() {
        builder = builder.add_source(File::from(file).format(FileFormat::Toml));
    }
    let merged = builder
        .add_source(of_environment(variables)?)
        .add_source(of_flags(flags))
        .build()
        .map_err(|error| usage(&error))?;
    let mut origins = BTreeMap::new();
    for (key, value) in merged.collect().map_err(|error| usage(&error))? {
        let origin = value.origin().unwrap_or(DEFAULT).to_owned();
        known(&key, &origin)?;
        origins.insert(key, origin);
    }
    if let Some(file) = file {
        check_secrets(&file, &merged, &origins)?;
    }
    let settings = merged
        .try_deserialize()
        .map_err(|error| match unplaced(&error) {
            Some(key) if origins.contains_key(key) => {
                usage(&error).hint(format_args!("it comes from {}", origins[key]))
            }
            _ => usage(&error),
        })?;
    Ok((settings, origins))
}

/// Refuses a file that contains a secret and that others may read.
fn check_secrets(
    file: &Path,
    merged: &Config,
    origins: &BTreeMap<String, String>,
) -> Result<(), Failure> {
    let is_of_file = |key: &str| {
        let origin = origins.get(key).map_or(DEFAULT, String::as_str);
        origin != DEFAULT && !origin.starts_with("variable ") && !origin.starts_with("flag ")
    };
    let postgres = merged.get_string("postgres").unwrap_or_default();
    let has_password = super::without_password(&postgres) != postgres;
    let secret = SECRETS
        .into_iter()
        .chain(has_password.then_some("postgres"))
        .find(|key| is_of_file(key));
    match secret.map(|key| (key, private::secret_file(file))) {
        Some((key, Err(reason))) => {
            let file = file.display();
            let message = format!("configuration: {file} holds {key}, and {reason}");
            Err(Failure::new(Exit::Usage, message))
        }
        _ => Ok(()),
    }
}

fn usage(error: &ConfigError) -> Failure {
    Failure::new(Exit::Usage, format!("configuration: {}", explained(error)))
}

/// The key that an error is about, if the error does not name the source of the value.
fn unplaced(error: &ConfigError) -> Option<&str> {
    match error {
        ConfigError::At {
            origin: None, key, ..
        }
        | ConfigError::Type {
            origin: None, key, ..
        } => key.as_deref(),
        _ => None,
    }
}

fn defaults() -> Layer {
    let default = |setting: &super::Setting| {
        let value = setting.default?.to_owned();
        Some((setting.key.to_owned(), DEFAULT.to_owned(), value))
    };
    Layer(CATALOGUE.iter().filter_map(default).collect())
}

fn of_flags(flags: &Flags) -> Layer {
    let layer = |(key, value): &(&'static str, String)| {
        let origin = format!("flag --{}", key.replace('_', "-"));
        ((*key).to_owned(), origin, value.clone())
    };
    Layer(flags.values.iter().map(layer).collect())
}

/// The configuration file: the one that was named, or the default one if it exists.
fn file_of(flags: &Flags, variables: &[(String, String)]) -> Result<Option<PathBuf>, Failure> {
    let named = variables.iter().find(|(name, _)| name == "ANNALS_CONFIG");
    let named = flags
        .config
        .clone()
        .or(named.map(|(_, value)| PathBuf::from(value)));
    match named {
        Some(file) if file.is_file() => Ok(Some(file)),
        Some(file) => {
            let message = format!("there is no configuration file {}", file.display());
            Err(Failure::new(Exit::Usage, message))
        }
        None => Ok(user_folder(variables)
            .map(|folder| folder.join(FILE))
            .filter(|file| file.is_file())),
    }
}

/// The folder of the user's configuration.
fn user_folder(variables: &[(String, String)]) -> Option<PathBuf> {
    let value = |name: &str| {
        let found = variables.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| PathBuf::from(value))
    };
    // A relative path would lead into the working directory again.
    let absolute = |folder: &PathBuf| folder.is_absolute();
    let of_home = || value("HOME").map(|home| home.join(".config"));
    value("XDG_CONFIG_HOME")
        .filter(absolute)
        .or_else(of_home)
        .filter(absolute)
}

fn of_environment(variables: Vec<(String, String)>) -> Result<Layer, Failure> {
    let mut layer = Vec::new();
    for (name, value) in variables {
        let Some(key) = name.strip_prefix(PREFIX) else {
            continue;
        };
        let ours = !OF_TOOLS.contains(&name.as_str()) && name != "ANNALS_CONFIG";
        if !ours || value.is_empty() || of_a_cluster(key, &value) {
            continue;
        }
        let key = key.to_ascii_lowercase();
        known(&key, &format!("variable {name}"))?;
        layer.push((key, format!("variable {name}"), value));
    }
    Ok(Layer(layer))
}

/// Whether a variable is one that Kubernetes sets in every pod beside a service named `annals`.
fn of_a_cluster(key: &str, value: &str) -> bool {
    let of_service = key.contains("SERVICE_HOST") || key.contains("SERVICE_PORT");
    let of_port = key == "PORT" || key.ends_with("_PORT") || key.contains("PORT_");
    let address = |scheme: &str| value.starts_with(scheme);
    let is_link = ["tcp://", "udp://", "sctp://"].into_iter().any(address);
    let names_port = key
        .split("PORT_")
        .nth(1)
        .is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()));
    of_service || (of_port && (is_link || names_port))
}

fn known(key: &str, origin: &str) -> Result<(), Failure> {
    if CATALOGUE.iter().any(|setting| setting.key == key) {
        return Ok(());
    }
    let known: Vec<&str> = CATALOGUE.iter().map(|setting| setting.key).collect();
    let message = format!(
        "configuration: {key:?} is no setting ({origin}); the settings are: {}",
        known.join(", ")
    );
    Err(Failure::new(Exit::Usage, message))
}
