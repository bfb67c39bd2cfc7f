//! Every setting: its value, where the value came from, and what it means.
//!
//! Layers, from the weakest to the strongest: defaults, a TOML file (`--config FILE`, else
//! `annals/annals.toml` in the user's configuration folder), `ANNALS_…` variables, flags.
//! Invariant: an unknown key is an error, in every layer. Deliberately absent: what the settings
//! are used for.

mod catalogue;
mod cluster;
mod doors;
mod layers;
mod security;
mod url;
mod values;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use command_api::peer::Secret;
use engine::MEMORY_BYTES_MIN;
use event_log::chain::Acknowledged;
use event_log::log::{KafkaSecurity, LogAddress, LogPlace, Password};
use serde::{Deserialize, Serialize};

use cluster::{Advertised, HIDDEN, SharedSecret};
use doors::Names;
use security::{Given, Protocol};
use values::{Places, RoleList};

pub use catalogue::{CATALOGUE, Setting};
pub use doors::Doors;
pub use layers::Flags;
pub use url::{standard, typed, without_password};

use crate::exit::{Exit, Failure};

/// What a process does.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Takes commands: the command door and the owners of the log.
    CommandApi,
    /// Follows the log and writes the read models.
    Projector,
    /// Answers queries for read models, events and states.
    QueryApi,
    /// All of them in one process.
    All,
}

impl Role {
    /// Its name in configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CommandApi => "command-api",
            Self::Projector => "projector",
            Self::QueryApi => "query-api",
            Self::All => "all",
        }
    }
}

/// The roles of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roles {
    /// Whether it takes commands.
    pub command_api: bool,
    /// Whether it writes read models.
    pub projector: bool,
    /// Whether it shows them.
    pub query_api: bool,
}

impl Roles {
    /// Every role.
    pub const ALL: Self = Self {
        command_api: true,
        projector: true,
        query_api: true,
    };

    /// Whether it needs Postgres.
    #[must_use]
    pub fn reads(self) -> bool {
        self.projector || self.query_api
    }

    /// Each role, in the type that readiness uses.
    pub fn each(self) -> impl Iterator<Item = door::health::Role> {
        use door::health::Role;
        let roles = [
            (self.command_api, Role::CommandApi),
            (self.projector, Role::Projector),
            (self.query_api, Role::QueryApi),
        ];
        roles
            .into_iter()
            .filter(|(has, _)| *has)
            .map(|(_, role)| role)
    }

    /// Their names, separated by commas.
    #[must_use]
    pub fn names(self) -> String {
        let names = [
            (self.command_api, Role::CommandApi),
            (self.projector, Role::Projector),
            (self.query_api, Role::QueryApi),
        ];
        let names = names.iter().filter(|(has, _)| *has);
        names
            .map(|(_, role)| role.name())
            .collect::<Vec<_>>()
            .join(",")
    }
}

impl FromIterator<Role> for Roles {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        let roles: Vec<Role> = roles.into_iter().collect();
        let has = |role| roles.contains(&role) || roles.contains(&Role::All);
        Self {
            command_api: has(Role::CommandApi),
            projector: has(Role::Projector),
            query_api: has(Role::QueryApi),
        }
    }
}

/// How data is printed on stdout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum OutputFormat {
    /// Columns for people.
    #[default]
    Table,
    /// One JSON document.
    Json,
    /// One JSON document a line.
    Ndjson,
    /// Comma-separated values (RFC 4180) with a header.
    Csv,
}

impl OutputFormat {
    /// Whether it is meant for programs that read JSON.
    #[must_use]
    pub fn is_json(self) -> bool {
        matches!(self, Self::Json | Self::Ndjson)
    }
}

/// Whether a node keeps up with partitions that it does not own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Standby {
    /// The node follows them, so that it can take them over at once.
    #[default]
    Warm,
    /// The node reads them only when it takes them over.
    Cold,
}

/// How the program talks on stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON document a line.
    Json,
}

/// All settings of a process.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The folder for everything that has no other place.
    pub data: PathBuf,
    /// The log's address.
    pub log: LogAddress,
    /// How to connect to the brokers.
    pub kafka: KafkaSecurity,
    /// Where the password came from, if it came from a file.
    kafka_password_file: Option<PathBuf>,
    /// The Postgres of the read models; absent: an embedded one in `data`.
    pub postgres: Option<String>,
    /// The folder with the programs of an embedded Postgres; absent: it is looked for.
    pub postgres_bin: Option<PathBuf>,
    /// Where HTTP is served.
    pub listen: String,
    /// Whether other addresses than loopback are served.
    pub insecure: bool,
    /// The limits of the listener, and its names.
    pub doors: Doors,
    /// Where other nodes reach this one; absent: where it listens.
    pub advertise: Option<String>,
    cluster_secret: Option<Secret>,
    cluster_secret_file: Option<PathBuf>,
    /// The roles of `serve`.
    pub roles: Roles,
    /// The node's name in its claims.
    pub node: String,
    /// The group of nodes on the same log; absent: named after the log's topic.
    pub group: Option<String>,
    /// After how long without a sign of life a node's partitions go to other nodes.
    pub session_timeout: Duration,
    /// Whether the node keeps up with partitions that other nodes own.
    pub standby: Standby,
    /// How many records of one partition may be unacknowledged at once.
    pub in_flight_max: usize,
    /// How many commands may wait for one partition before others are turned away.
    pub queue_max: usize,
    /// The memory that a node is made for, in megabytes.
    pub memory_mb: usize,
    /// How large a stream's state may be, in kilobytes of JSON.
    pub stream_state_max_kb: usize,
    /// How many tasks share the log's partitions for the read models.
    pub projector_tasks: usize,
    /// Whether a new version of a read model replaces the live one by itself.
    pub projector_auto_switch: bool,
    /// The most of its time, in percent, that a task works on a rebuild beside live read models.
    pub projector_rebuild_share: u32,
    /// How often a few streams are compared with the rows of a read model; zero: never.
    pub projector_verify_every: Duration,
    /// The most followers of the feed at a time.
    pub feed_followers_max: u32,
    /// The collector of traces; absent: that of the standard's variables, else none.
    pub otlp_endpoint: Option<String>,
    /// The service's name in traces; absent: that of the standard's variable, else the program's.
    pub otlp_service: Option<String>,
    /// How long a stop waits for the answers to what was accepted.
    pub drain_timeout: Duration,
    /// The server that client commands talk to.
    pub url: String,
    /// How data is printed.
    pub output: OutputFormat,
    /// The damaged places of the log that readers pass.
    pub acknowledged_damage: Acknowledged,
    /// The log filter, as in `RUST_LOG`.
    pub log_filter: Option<String>,
    /// How it is logged.
    pub log_format: LogFormat,
    origins: BTreeMap<String, String>,
}

/// The largest value of [`Settings::in_flight_max`] and [`Settings::queue_max`].
const WAITING_MAX: usize = 1_048_576;
/// The largest value of [`Settings::feed_followers_max`]: each follower takes a connection.
const FEED_FOLLOWERS_MAX: usize = 65_536;
/// The range of [`Settings::memory_mb`].
const MEMORY_MB: RangeInclusive<usize> = MEMORY_BYTES_MIN >> 20..=1_048_576;

/// The range of [`Settings::stream_state_max_kb`]: at least the state of some events, and less than
/// one partition's share of a large node's memory.
const STREAM_STATE_MAX_KB: RangeInclusive<usize> = 4..=65_536;

/// One setting as `annals config` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explained {
    /// Its key in the file.
    pub setting: &'static str,
    /// Its value; absent: none.
    pub value: Option<String>,
    /// Where the value came from.
    pub source: String,
    /// Its variable.
    pub variable: String,
    /// What it means.
    pub meaning: &'static str,
}

/// The merged layers, before defaults that follow from other settings.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    data: PathBuf,
    log: Option<LogAddress>,
    kafka_security: Protocol,
    kafka_ca: Option<PathBuf>,
    kafka_certificate: Option<PathBuf>,
    kafka_key: Option<PathBuf>,
    kafka_sasl_mechanism: Option<String>,
    kafka_sasl_username: Option<String>,
    kafka_sasl_password: Option<String>,
    kafka_sasl_password_file: Option<PathBuf>,
    postgres: Option<String>,
    postgres_bin: Option<PathBuf>,
    listen: String,
    insecure: bool,
    hosts: Option<Names>,
    connections_max: usize,
    connections_per_address_max: usize,
    header_timeout_ms: usize,
    idle_timeout_ms: usize,
    stall_timeout_ms: usize,
    rate_bytes_min: usize,
    advertise: Option<Advertised>,
    cluster_secret: Option<SharedSecret>,
    cluster_secret_file: Option<PathBuf>,
    role: RoleList,
    node: Option<String>,
    group: Option<String>,
    session_timeout_ms: u64,
    standby: Standby,
    in_flight_max: usize,
    queue_max: usize,
    memory_mb: usize,
    stream_state_max_kb: usize,
    projector_tasks: usize,
    projector_auto_switch: bool,
    projector_rebuild_share: u32,
    projector_verify_every_ms: u64,
    feed_followers_max: u32,
    otlp_endpoint: Option<String>,
    otlp_service: Option<String>,
    drain_timeout_ms: u64,
    url: String,
    output: OutputFormat,
    acknowledged_damage: Option<Places>,
    log_filter: Option<String>,
    log_format: LogFormat,
}

impl Settings {
    /// The settings of this process: from its flags, its environment and its configuration file.
    ///
    /// # Errors
    /// `Usage`, with the source of the value that cannot be understood.
    pub fn load(flags: &Flags) -> Result<Self, Failure> {
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        Self::from_layers(flags, variables.collect())
    }

    fn from_layers(flags: &Flags, variables: Vec<(String, String)>) -> Result<Self, Failure> {
        let (raw, origins) = layers::collect::<Raw>(flags, variables)?;
        let log = raw.log.unwrap_or_else(|| LogAddress::Sqlite {
            path: raw.data.join("log.db"),
        });
        let given = Given {
            protocol: raw.kafka_security,
            ca: raw.kafka_ca,
            certificate: raw.kafka_certificate,
            key: raw.kafka_key,
            mechanism: raw.kafka_sasl_mechanism,
            username: raw.kafka_sasl_username,
            password: raw.kafka_sasl_password.map(Password::new),
            password_file: raw.kafka_sasl_password_file.clone(),
        };
        let kafka = given.resolve().map_err(|what| {
            let key = what.split(' ').next().unwrap_or_default();
            let source = origins.get(key).map(|source| format!(" (from {source})"));
            let message = format!("configuration: {what}{}", source.unwrap_or_default());
            Failure::new(Exit::Usage, message)
        })?;
        let settings = Self {
            log,
            kafka,
            kafka_password_file: raw.kafka_sasl_password_file,
            postgres: raw.postgres.filter(|url| !url.is_empty()),
            postgres_bin: raw.postgres_bin,
            listen: raw.listen,
            insecure: raw.insecure,
            doors: Doors {
                hosts: raw.hosts.map(|names| names.0).unwrap_or_default(),
                connections_max: raw.connections_max,
                connections_per_address_max: raw.connections_per_address_max,
                header_timeout_ms: raw.header_timeout_ms,
                idle_timeout_ms: raw.idle_timeout_ms,
                stall_timeout_ms: raw.stall_timeout_ms,
                rate_bytes_min: raw.rate_bytes_min,
            },
            advertise: raw.advertise.map(|address| address.0),
            cluster_secret: raw.cluster_secret.map(|secret| secret.0),
            cluster_secret_file: raw.cluster_secret_file,
            roles: raw.role.0,
            node: raw.node.unwrap_or_else(host_name),
            group: raw.group.filter(|group| !group.is_empty()),
            session_timeout: Duration::from_millis(raw.session_timeout_ms),
            standby: raw.standby,
            in_flight_max: raw.in_flight_max,
            queue_max: raw.queue_max,
            memory_mb: raw.memory_mb,
            stream_state_max_kb: raw.stream_state_max_kb,
            projector_tasks: raw.projector_tasks,
            projector_auto_switch: raw.projector_auto_switch,
            projector_rebuild_share: raw.projector_rebuild_share,
            projector_verify_every: Duration::from_millis(raw.projector_verify_every_ms),
            feed_followers_max: raw.feed_followers_max,
            otlp_endpoint: raw.otlp_endpoint.filter(|url| !url.is_empty()),
            otlp_service: raw.otlp_service.filter(|name| !name.is_empty()),
            drain_timeout: Duration::from_millis(raw.drain_timeout_ms),
            url: raw.url.trim_end_matches('/').to_owned(),
            output: raw.output,
            acknowledged_damage: raw.acknowledged_damage.map(|p| p.0).unwrap_or_default(),
            log_filter: raw.log_filter,
            log_format: raw.log_format,
            data: raw.data,
            origins,
        };
        let tasks_max = projector::PROJECTOR_TASKS_MAX;
        let bounds = [
            ("projector_tasks", settings.projector_tasks, 1..=tasks_max),
            (
                "projector_rebuild_share",
                usize::try_from(settings.projector_rebuild_share).unwrap_or(usize::MAX),
                1..=100,
            ),
            (
                "feed_followers_max",
                usize::try_from(settings.feed_followers_max).unwrap_or(usize::MAX),
                1..=FEED_FOLLOWERS_MAX,
            ),
            ("in_flight_max", settings.in_flight_max, 1..=WAITING_MAX),
            ("queue_max", settings.queue_max, 1..=WAITING_MAX),
            ("memory_mb", settings.memory_mb, MEMORY_MB),
            (
                "stream_state_max_kb",
                settings.stream_state_max_kb,
                STREAM_STATE_MAX_KB,
            ),
        ];
        for (key, value, range) in bounds {
            settings.check_range(key, value, range)?;
        }
        settings.check_doors()?;
        settings.check_cluster()?;
        Ok(settings)
    }

    fn check_range(
        &self,
        key: &str,
        value: usize,
        range: RangeInclusive<usize>,
    ) -> Result<(), Failure> {
        if range.contains(&value) {
            return Ok(());
        }
        let (least, most) = range.into_inner();
        let source = self.source(key);
        let message = format!("{key} must be {least} to {most} (from {source})");
        Err(Failure::new(Exit::Usage, message))
    }

    /// The log's address, how to connect to its brokers, and the acknowledged damage.
    #[must_use]
    pub fn log_place(&self) -> LogPlace {
        LogPlace {
            acknowledged: self.acknowledged_damage.clone(),
            ..self.place_of(&self.log)
        }
    }

    /// Another log's address, with the same connection settings.
    #[must_use]
    pub fn place_of(&self, address: &LogAddress) -> LogPlace {
        LogPlace {
            kafka: self.kafka.clone(),
            ..LogPlace::from(address)
        }
    }

    /// Where the value of a setting came from.
    #[must_use]
    pub fn source(&self, key: &str) -> &str {
        self.origins
            .get(key)
            .map_or(layers::DEFAULT, String::as_str)
    }

    /// Whether the user set this value.
    #[must_use]
    pub fn is_named(&self, key: &str) -> bool {
        self.source(key) != layers::DEFAULT
    }

    /// Moves the data folder, and an embedded log in it, into a folder `name` below it, unless the
    /// user set where they are.
    #[must_use]
    pub fn in_own_folder(mut self, name: &str) -> Self {
        if self.source("data") == layers::DEFAULT {
            self.data = self.data.join(name);
            if self.source("log") == layers::DEFAULT {
                self.log = LogAddress::Sqlite {
                    path: self.data.join("log.db"),
                };
            }
        }
        self
    }

    /// The folder of the owners' local checkpoints, which may be deleted at any time.
    #[must_use]
    pub fn state_folder(&self) -> PathBuf {
        self.data.join("state")
    }

    /// The folder of the embedded Postgres.
    #[must_use]
    pub fn postgres_folder(&self) -> PathBuf {
        self.data.join("postgres")
    }

    /// Every setting with its value, its source and its meaning; passwords and secrets left out.
    #[must_use]
    pub fn explain(&self) -> Vec<Explained> {
        let explain = |setting: &Setting| Explained {
            setting: setting.key,
            value: self.value(setting.key),
            source: self.source(setting.key).to_owned(),
            variable: setting.variable(),
            meaning: setting.meaning,
        };
        CATALOGUE.iter().map(explain).collect()
    }

    fn value(&self, key: &str) -> Option<String> {
        let path = |path: &PathBuf| path.display().to_string();
        Some(match key {
            "data" => path(&self.data),
            "log" => self.log.to_string(),
            "postgres" => return self.postgres.as_deref().map(without_password),
            "postgres_bin" => return self.postgres_bin.as_ref().map(path),
            "listen" => self.listen.clone(),
            "insecure" => self.insecure.to_string(),
            "advertise" => return self.advertise.clone(),
            "cluster_secret" => return self.cluster_secret.as_ref().map(|_| HIDDEN.to_owned()),
            "cluster_secret_file" => return self.cluster_secret_file.as_ref().map(path),
            "role" => self.roles.names(),
            "node" => self.node.clone(),
            "group" => return self.group.clone(),
            "session_timeout_ms" => self.session_timeout.as_millis().to_string(),
            "standby" => name_of(self.standby),
            "in_flight_max" => self.in_flight_max.to_string(),
            "queue_max" => self.queue_max.to_string(),
            "memory_mb" => self.memory_mb.to_string(),
            "stream_state_max_kb" => self.stream_state_max_kb.to_string(),
            "projector_tasks" => self.projector_tasks.to_string(),
            "projector_auto_switch" => self.projector_auto_switch.to_string(),
            "projector_rebuild_share" => self.projector_rebuild_share.to_string(),
            "projector_verify_every_ms" => self.projector_verify_every.as_millis().to_string(),
            "feed_followers_max" => self.feed_followers_max.to_string(),
            "otlp_endpoint" => return self.otlp_endpoint.clone(),
            "otlp_service" => return self.otlp_service.clone(),
            "drain_timeout_ms" => self.drain_timeout.as_millis().to_string(),
            "url" => self.url.clone(),
            "output" => name_of(self.output),
            "acknowledged_damage" => {
                let shown = self.acknowledged_damage.iter();
                let shown = shown.map(|((p, offset), reason)| format!("{p}:{offset}={reason}"));
                let shown: Vec<String> = shown.collect();
                return (!shown.is_empty()).then(|| shown.join("; "));
            }
            "log_filter" => return self.log_filter.clone(),
            "log_format" => name_of(self.log_format),
            _ => {
                let file = self.kafka_password_file.as_deref();
                let shown = self.doors.shown(key);
                return shown.or_else(|| security::shown(&self.kafka, file, key));
            }
        })
    }
}

fn name_of(value: impl clap::ValueEnum) -> String {
    let value = value.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

fn host_name() -> String {
    let name = rustix::system::uname();
    let name = name.nodename().to_string_lossy();
    if name.is_empty() {
        "annals".to_owned()
    } else {
        name.into_owned()
    }
}

#[cfg(test)]
mod tests;
