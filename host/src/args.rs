//! The command line: what may be typed, and the help texts for it.
//!
//! Invariant: every text here is shown by `--help` and by the manual pages, and nothing else is.
//! Deliberately absent: what the commands do (`command`), and defaults (`settings`).

pub mod importing;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::command::{
    events, export, life, log, parked, projections, read, replay, rules, schema, send, story,
    verify_cluster, what_if, why,
};
use crate::settings::{Flags, LogFormat, OutputFormat, Role, Standby};

pub(crate) const ABOUT: &str =
    "An event-sourced engine: it takes commands, keeps chained events and fills read models.";

pub(crate) const EXAMPLES: &str = "\
Examples:
  # run everything on this machine
  annals dev
  # send a command to the running server, and look at the stream
  annals send {stream} {command} '{data}'
  annals state {stream}
  # check the log for changed or lost records
  annals log verify --log sqlite:.annals/log.db

Data is printed on stdout, everything else on stderr.";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "annals",
    version,
    about = ABOUT,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 100,
    disable_help_subcommand = true
)]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Everywhere")]
pub struct Global {
    /// Folder of the embedded log, the embedded Postgres and the local checkpoints
    #[arg(long, global = true, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The log: sqlite:PATH or kafka://HOST:PORT[,HOST:PORT…]/TOPIC [default: log.db in --data]
    #[arg(long, global = true, value_name = "ADDRESS")]
    log: Option<String>,
    /// The Postgres of the read models [default: an embedded server in --data]
    #[arg(long, global = true, value_name = "URL")]
    postgres: Option<String>,
    /// Configuration file [default: annals/annals.toml in your configuration folder, if it
    /// exists]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Format of the data on stdout [default: table]
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        hide_possible_values = false
    )]
    output: Option<OutputFormat>,
    /// Log more: -v info, -vv debug, -vvv trace
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Which lines are logged on stderr, in the syntax of RUST_LOG
    #[arg(long, global = true, value_name = "FILTER", hide_short_help = true)]
    log_filter: Option<String>,
    /// Format of the lines that are logged
    #[arg(long, global = true, value_name = "FORMAT", hide_short_help = true)]
    log_format: Option<LogFormat>,
}

/// Options of commands that serve.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Serving")]
pub struct Serving {
    /// Address for HTTP [default: 127.0.0.1:4747]; port 0 takes a free port
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Allow --listen on other addresses than loopback, although clients are not authenticated
    #[arg(long)]
    insecure: bool,
    /// Host names that clients use for this node, for example behind a proxy; separated by commas
    #[arg(long, value_name = "NAMES", hide_short_help = true)]
    hosts: Option<String>,
    /// The most connections of clients [default: 4096]
    #[arg(long, value_name = "N", hide_short_help = true)]
    connections_max: Option<usize>,
    /// The most connections from one address [default: 2048]
    #[arg(long, value_name = "N", hide_short_help = true)]
    connections_per_address_max: Option<usize>,
    /// Address at which other nodes reach this node [default: the address of --listen]
    #[arg(long, value_name = "HOST:PORT", hide_short_help = true)]
    advertise: Option<String>,
    /// File with the secret that all nodes of a log share
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    cluster_secret_file: Option<PathBuf>,
    /// Tasks that write the read models; each takes a part of the log's partitions [default: 2]
    #[arg(long, value_name = "N")]
    projector_tasks: Option<usize>,
    /// Let a new version of a read model replace the live one by itself, once it is built beside it
    /// and both were compared; otherwise it waits for annals projections switch
    #[arg(long)]
    projector_auto_switch: bool,
    /// How much of its time, in percent, a task may spend on a rebuild while live read models are
    /// written, by this process or another one [default: 50]
    #[arg(long, value_name = "PERCENT", hide_short_help = true)]
    projector_rebuild_share: Option<u32>,
    /// How often a few streams are folded afresh and compared with a read model, in milliseconds; 0:
    /// never [default: 10000]
    #[arg(long, value_name = "MS", hide_short_help = true)]
    projector_verify_every_ms: Option<u64>,
    /// Clients that follow the feed of all events at a time, at most [default: 256]
    #[arg(long, value_name = "N", hide_short_help = true)]
    feed_followers_max: Option<u32>,
    /// Send traces to this OpenTelemetry collector [default: OTEL_EXPORTER_OTLP_ENDPOINT, else none]
    #[arg(long, value_name = "URL", hide_short_help = true)]
    otlp_endpoint: Option<String>,
    /// The service's name in traces [default: OTEL_SERVICE_NAME, else the program's name]
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    otlp_service: Option<String>,
    /// The node's name in its claims on the log [default: the host's name]
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    node: Option<String>,
    /// Consumer group of the nodes of a log in Kafka [default: annals.TOPIC]
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    group: Option<String>,
    /// After this time without a sign of life, a node loses its partitions to other nodes, in
    /// milliseconds [default: 6000]
    #[arg(long, value_name = "MS", hide_short_help = true)]
    session_timeout_ms: Option<u64>,
    /// Whether the node also follows partitions that other nodes own: warm (yes) or cold (no)
    /// [default: warm]
    #[arg(long, value_name = "HOW", hide_short_help = true)]
    standby: Option<Standby>,
    /// The most records of one partition that wait for their acknowledgement [default: 1024]
    #[arg(long, value_name = "N", hide_short_help = true)]
    in_flight_max: Option<usize>,
    /// The most commands that wait for one partition; further ones are turned away [default: 1024]
    #[arg(long, value_name = "N", hide_short_help = true)]
    queue_max: Option<usize>,
    /// Memory that the node is sized for, in megabytes [default: 512]
    #[arg(long, value_name = "MB", hide_short_help = true)]
    memory_mb: Option<usize>,
    /// The largest state of a stream, in kilobytes of JSON [default: 1024]
    #[arg(long, value_name = "KB", hide_short_help = true)]
    stream_state_max_kb: Option<usize>,
    /// How long a stop waits for open commands, in milliseconds [default: 10000]
    #[arg(long, value_name = "MS", hide_short_help = true)]
    drain_timeout_ms: Option<u64>,
    /// Folder with postgres and initdb, for the embedded server [default: the program searches for
    /// it]
    #[arg(long, value_name = "DIR", hide_short_help = true)]
    postgres_bin: Option<PathBuf>,
}

/// Options of commands that talk to a running server.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Server")]
pub struct Server {
    /// The running server [default: http://127.0.0.1:4747]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
}

/// Every command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run everything in one process: command door, read models, query door
    #[command(after_help = DEV_HELP)]
    Dev(DevArgs),
    /// Run some or all roles on an existing log
    #[command(after_help = SERVE_HELP)]
    Serve(ServeArgs),
    /// Import history through a running server
    #[command(subcommand)]
    Import(Import),
    /// Send one command to a running server and show its answer
    #[command(after_help = send::HELP)]
    Send(send::SendArgs),
    /// Show the events of a stream, or follow those of all streams
    #[command(after_help = events::EVENTS_HELP)]
    Events(events::EventsArgs),
    /// Show what a stream is: its version, times, place and last event
    #[command(after_help = life::STREAM_HELP)]
    Stream(life::StreamArgs),
    /// Show the state of a stream, now or at any moment: its events folded
    #[command(after_help = life::STATE_HELP)]
    State(life::StateArgs),
    /// Show what differs between two states of a stream, and which event changed it
    #[command(after_help = life::DIFF_HELP)]
    Diff(life::DiffArgs),
    /// Show a conversation as a tree: commands, their events, and what they caused
    #[command(after_help = story::HELP)]
    Story(story::StoryArgs),
    /// Show rows of a read model, as they are or as they were
    #[command(after_help = read::HELP)]
    Read(read::ReadArgs),
    /// Show what made a row of a read model what it is: events, commands, actors, running values
    #[command(after_help = why::HELP)]
    Why(why::WhyArgs),
    /// Build read models again in a schema of their own, up to a moment or step by step
    #[command(after_help = replay::HELP)]
    Replay(replay::ReplayArgs),
    /// Write events or read models into files for other programs, and hold them against the log
    #[command(after_help = export::HELP)]
    Export(export::ExportArgs),
    /// Judge recorded commands again with other rules, and show what would differ
    #[command(after_help = what_if::HELP)]
    WhatIf(what_if::WhatIfArgs),
    /// Judge recorded commands for annals what-if
    #[command(subcommand)]
    Rules(rules::RulesCommand),
    /// Create, show, verify, copy or dump a log
    #[command(subcommand)]
    Log(log::LogCommand),
    /// List, rebuild, verify and control projections (the read models)
    #[command(subcommand)]
    Projections(projections::ProjectionsCommand),
    /// List, retry or discard streams that a projection could not take up
    #[command(subcommand)]
    Parked(parked::ParkedCommand),
    /// Apply the migrations that the Postgres schema lacks
    #[command(after_help = MIGRATE_HELP)]
    Migrate,
    /// Check settings, log, clock and Postgres before production
    #[command(after_help = CHECK_HELP)]
    Check(CheckArgs),
    /// Test whether a Kafka cluster keeps the guarantees that the engine needs
    #[command(after_help = verify_cluster::HELP)]
    VerifyCluster(verify_cluster::VerifyClusterArgs),
    /// Show every setting with its value, its source and its meaning
    #[command(after_help = CONFIG_HELP)]
    Config(ConfigArgs),
    /// Write the JSON Schemas of commands, events and records, and the OpenAPI and AsyncAPI documents
    #[command(after_help = schema::HELP)]
    Schema(schema::SchemaArgs),
    /// Show the exit codes
    ExitCodes,
    /// Print the completion script for a shell
    #[command(after_help = COMPLETIONS_HELP)]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a folder
    #[command(
        after_help = "Example:\n  annals man ~/.local/share/man/man1 && man annals-log-verify"
    )]
    Man {
        /// The folder; it is created if it does not exist
        #[arg(default_value = "man")]
        folder: PathBuf,
    },
}

const DEV_HELP: &str = "\
The log is a file, and Postgres is a private server. Both are in --data, and both are created if
they do not exist. After Ctrl-C the program takes no more commands, answers the open ones, and then
stops Postgres.

Examples:
  annals dev
  annals dev --data /tmp/try --listen 127.0.0.1:0 --output json
      prints {\"http\":…,\"log\":…,\"postgres\":…} on stdout when ready";

const SERVE_HELP: &str = "\
The command needs a log (annals log create). The roles projector and query-api also need a migrated
Postgres (annals migrate). Without --postgres, an embedded server in --data is used.

Examples:
  annals serve --log kafka://localhost:9092/orders --postgres postgresql://annals@localhost/annals
  annals serve --role command-api --log kafka://localhost:9092/orders
  annals serve --role projector,query-api --listen 127.0.0.1:4748";

const MIGRATE_HELP: &str = "\
Migrations only go forward. The command may be repeated. The projector creates the tables of the
read models. Without --postgres, the embedded server in --data is migrated. The role annals_reader
is made, too, if the user may make roles: grant it to those who only read.

Example:
  annals migrate --postgres postgresql://annals@localhost/annals";

const CHECK_HELP: &str = "\
The exit code is 6 if a check failed. A warning does not change the exit code.

Example:
  annals check --log kafka://localhost:9092/orders --postgres postgresql://annals@localhost/annals";

const CONFIG_HELP: &str = "\
Settings come from four layers, and a later layer overrides an earlier one: defaults, the file,
ANNALS_… variables, flags. The file is --config FILE, else annals/annals.toml in your configuration
folder, which is $XDG_CONFIG_HOME or ~/.config. An unknown key is an error. Passwords are not
shown.

Example:
  ANNALS_LISTEN=127.0.0.1:5000 annals config --log sqlite:other.db";

const COMPLETIONS_HELP: &str = "\
Examples:
  annals completions bash > /etc/bash_completion.d/annals
  annals completions zsh  > \"${fpath[1]}/_annals\"
  annals completions fish > ~/.config/fish/completions/annals.fish";

const COMMANDS_HELP: &str = "\
Each line is one JSON object. The fields stream, command and data are required, the others
optional.

Example:
  echo '{\"stream\":\"{stream}\",\"command\":\"{command}\",\"data\":{data}}' | annals import commands -";

/// Arguments of `dev`.
#[derive(Debug, Args)]
pub struct DevArgs {
    /// Where and how it serves.
    #[command(flatten)]
    pub serving: Serving,
}

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Roles of this process; repeat the flag or use commas [default: all]
    #[arg(long, value_name = "ROLE", value_delimiter = ',')]
    pub role: Vec<Role>,
    /// Where and how it serves.
    #[command(flatten)]
    pub serving: Serving,
}

/// Arguments of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Where and how it would serve.
    #[command(flatten)]
    pub serving: Serving,
}

/// Arguments of `config`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct ConfigArgs {
    /// Something else than to show the settings.
    #[command(subcommand)]
    pub command: Option<ConfigCommand>,
    /// Where and how it would serve.
    #[command(flatten)]
    pub serving: Serving,
    /// Which server it would talk to.
    #[command(flatten)]
    pub server: Server,
}

/// What `config` can do beside.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print a new secret for the nodes of a cluster
    ///
    /// Write the secret into a file that only the program's user may read, copy the file to each
    /// node, and name it with --cluster-secret-file:
    ///
    ///   (umask 077; annals config secret > /etc/annals/secret)
    #[command(verbatim_doc_comment)]
    Secret,
}

/// What can be imported.
#[derive(Debug, Subcommand)]
pub enum Import {
    /// Import command lines, in the format of the batch route
    #[command(after_help = COMMANDS_HELP)]
    Commands {
        /// What to import.
        #[command(flatten)]
        args: importing::CommandsArgs,
        /// Through which server.
        #[command(flatten)]
        server: Server,
    },
}

impl Cli {
    /// The settings that were typed.
    #[must_use]
    pub fn flags(&self) -> Flags {
        let mut flags = self.global.flags();
        match &self.command {
            Command::Dev(args) => args.serving.add_to(&mut flags),
            Command::Check(args) => args.serving.add_to(&mut flags),
            Command::Serve(args) => {
                args.serving.add_to(&mut flags);
                let roles: Vec<&str> = args.role.iter().map(|role| role.name()).collect();
                flags.add("role", (!roles.is_empty()).then(|| roles.join(",")));
            }
            Command::Config(args) => {
                args.serving.add_to(&mut flags);
                args.server.add_to(&mut flags);
            }
            Command::Import(Import::Commands { server, .. }) => server.add_to(&mut flags),
            Command::Send(args) => args.server.add_to(&mut flags),
            Command::Events(args) => args.server.add_to(&mut flags),
            Command::Stream(args) => args.server.add_to(&mut flags),
            Command::State(args) => args.server.add_to(&mut flags),
            Command::Read(args) => args.server.add_to(&mut flags),
            Command::Why(args) => args.server.add_to(&mut flags),
            Command::Diff(args) => args.server.add_to(&mut flags),
            Command::Story(args) => args.server.add_to(&mut flags),
            Command::VerifyCluster(args) => args.add_to(&mut flags),
            Command::WhatIf(args) => args.add_to(&mut flags),
            Command::Export(_)
            | Command::Replay(_)
            | Command::Rules(_)
            | Command::Log(_)
            | Command::Projections(_)
            | Command::Parked(_)
            | Command::Migrate
            | Command::Schema(_)
            | Command::ExitCodes
            | Command::Completions { .. }
            | Command::Man { .. } => {}
        }
        flags
    }
}

impl Global {
    /// The settings that were typed.
    #[must_use]
    pub fn flags(&self) -> Flags {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let mut flags = Flags {
            config: self.config.clone(),
            values: Vec::new(),
        };
        flags.add("data", path(&self.data));
        flags.add("log", self.log.as_ref());
        flags.add("postgres", self.postgres.as_ref());
        flags.add("output", self.output.map(name_of));
        flags.add("log_filter", self.log_filter.as_ref());
        flags.add("log_format", self.log_format.map(name_of));
        flags
    }
}

impl Serving {
    /// Adds the settings that were typed.
    pub fn add_to(&self, flags: &mut Flags) {
        flags.add("listen", self.listen.as_ref());
        flags.add("insecure", self.insecure.then_some(true));
        flags.add("hosts", self.hosts.as_ref());
        flags.add("connections_max", self.connections_max);
        let of_address = self.connections_per_address_max;
        flags.add("connections_per_address_max", of_address);
        flags.add("advertise", self.advertise.as_ref());
        let secret = self.cluster_secret_file.as_ref();
        let secret = secret.map(|file| file.display().to_string());
        flags.add("cluster_secret_file", secret);
        flags.add("projector_tasks", self.projector_tasks);
        let auto_switch = self.projector_auto_switch.then_some(true);
        flags.add("projector_auto_switch", auto_switch);
        flags.add("projector_rebuild_share", self.projector_rebuild_share);
        flags.add("projector_verify_every_ms", self.projector_verify_every_ms);
        flags.add("feed_followers_max", self.feed_followers_max);
        flags.add("otlp_endpoint", self.otlp_endpoint.as_ref());
        flags.add("otlp_service", self.otlp_service.as_ref());
        flags.add("node", self.node.as_ref());
        flags.add("group", self.group.as_ref());
        flags.add("session_timeout_ms", self.session_timeout_ms);
        flags.add("standby", self.standby.map(name_of));
        flags.add("in_flight_max", self.in_flight_max);
        flags.add("queue_max", self.queue_max);
        flags.add("memory_mb", self.memory_mb);
        flags.add("stream_state_max_kb", self.stream_state_max_kb);
        flags.add("drain_timeout_ms", self.drain_timeout_ms);
        let bin = self.postgres_bin.as_ref();
        flags.add("postgres_bin", bin.map(|bin| bin.display().to_string()));
    }
}

impl Server {
    /// Adds the settings that were typed.
    pub fn add_to(&self, flags: &mut Flags) {
        flags.add("url", self.url.as_ref());
    }
}

fn name_of(value: impl clap::ValueEnum) -> String {
    let value = value.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn typed_settings_become_flags() {
        let typed = "annals serve --role projector,query-api --data d --listen 127.0.0.1:0 -v";
        let cli = Cli::try_parse_from(typed.split(' ')).unwrap();
        let expected = [
            ("data", "d"),
            ("listen", "127.0.0.1:0"),
            ("role", "projector,query-api"),
        ];
        let values = cli.flags().values;
        let values: Vec<(&str, &str)> = values.iter().map(|(k, v)| (*k, v.as_str())).collect();
        assert_eq!(values, expected);
        assert_eq!(cli.global.verbose, 1);
    }
}
