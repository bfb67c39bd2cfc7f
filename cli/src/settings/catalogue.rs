//! The settings by name, with their meanings and defaults.
//!
//! Invariant: each key here is a field of the settings, and each field is here; a test compares.

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its key in the configuration file.
    pub key: &'static str,
    /// Its value if no layer sets it; absent if it follows from other settings or has none.
    pub default: Option<&'static str>,
    /// What it means.
    pub meaning: &'static str,
}

impl Setting {
    /// Its environment variable.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("ANNALS_{}", self.key.to_ascii_uppercase())
    }

    /// Its flag.
    #[must_use]
    pub fn flag(&self) -> String {
        format!("--{}", self.key.replace('_', "-"))
    }
}

const fn setting(
    key: &'static str,
    default: Option<&'static str>,
    meaning: &'static str,
) -> Setting {
    Setting {
        key,
        default,
        meaning,
    }
}

/// Every setting.
pub const CATALOGUE: [Setting; 40] = [
    setting(
        "data",
        Some(".annals"),
        "folder of the embedded log, the embedded Postgres and the owners' local checkpoints",
    ),
    setting(
        "log",
        None,
        "the log: sqlite:PATH or kafka://HOST:PORT[,HOST:PORT…]/TOPIC (default: log.db in data)",
    ),
    setting(
        "kafka_security",
        Some("plaintext"),
        "how the brokers of a log on Kafka are talked to: plaintext, ssl, sasl_plaintext, sasl_ssl",
    ),
    setting(
        "kafka_ca",
        None,
        "PEM file with the authorities that the brokers' certificates must come from (default: \
         those of the system)",
    ),
    setting(
        "kafka_certificate",
        None,
        "PEM file with a certificate of our own, for brokers that ask for one",
    ),
    setting(
        "kafka_key",
        None,
        "PEM file with the private key of kafka_certificate",
    ),
    setting(
        "kafka_sasl_mechanism",
        None,
        "how the password is presented: SCRAM-SHA-512 (default), SCRAM-SHA-256 or PLAIN",
    ),
    setting(
        "kafka_sasl_username",
        None,
        "the name that the brokers know us by",
    ),
    setting(
        "kafka_sasl_password",
        None,
        "its password; better in a file, since others may see a process's variables",
    ),
    setting(
        "kafka_sasl_password_file",
        None,
        "file with the password in one line",
    ),
    setting(
        "postgres",
        None,
        "the Postgres of the read models: postgres://USER:PASSWORD@HOST:PORT/DATABASE, with TLS: \
         …?sslmode=verify-full&sslrootcert=FILE (default: an embedded server in data)",
    ),
    setting(
        "postgres_bin",
        None,
        "folder with postgres and initdb for the embedded server (default: looked for)",
    ),
    setting(
        "listen",
        Some("127.0.0.1:4747"),
        "where HTTP is served: HOST:PORT; port 0 takes a free one",
    ),
    setting(
        "insecure",
        Some("false"),
        "serve other addresses than loopback, although there is no authentication yet",
    ),
    setting(
        "hosts",
        None,
        "names under which clients reach this node, as behind a proxy, several with commas; on \
         loopback, requests for other names than these and loopback's are refused",
    ),
    setting(
        "connections_max",
        Some("4096"),
        "the most connections of clients; lowered where the system allows fewer open files",
    ),
    setting(
        "connections_per_address_max",
        Some("2048"),
        "the most connections of one address: behind a proxy all come from one, and another node has \
         one for each partition",
    ),
    setting(
        "header_timeout_ms",
        Some("10000"),
        "how long the head of a request may take",
    ),
    setting(
        "idle_timeout_ms",
        Some("60000"),
        "how long a connection, or a batch between two lines, may say nothing",
    ),
    setting(
        "stall_timeout_ms",
        Some("10000"),
        "how long a body or an answer may stand still",
    ),
    setting(
        "rate_bytes_min",
        Some("4096"),
        "the fewest bytes a second at which bodies must come and answers be taken; what is slower \
         uses up stall_timeout_ms bit by bit",
    ),
    setting(
        "advertise",
        None,
        "where other nodes reach this one: HOST:PORT (default: where it listens)",
    ),
    setting(
        "cluster_secret",
        None,
        "what the nodes on one log prove to each other, at least 16 bytes; without it they speak on \
         loopback only, unprotected from other users of the machine (better in a file; no flag)",
    ),
    setting(
        "cluster_secret_file",
        None,
        "a file that holds the cluster secret",
    ),
    setting(
        "role",
        Some("all"),
        "what serve does: command-api, projector, query-api, all; several with commas",
    ),
    setting(
        "node",
        None,
        "the node's name in its claims on the log (default: the host's name)",
    ),
    setting(
        "group",
        None,
        "the group of nodes that share out the partitions of a log in Kafka (default: annals. and \
         the topic)",
    ),
    setting(
        "session_timeout_ms",
        Some("6000"),
        "after how long without a sign of life the group gives a node's partitions to others; the \
         brokers bound it (group.min.session.timeout.ms)",
    ),
    setting(
        "standby",
        Some("warm"),
        "whether a node reads partitions that it does not own, so that it takes them over at once: \
         warm, or cold to save memory and time",
    ),
    setting(
        "in_flight_max",
        Some("1024"),
        "how many records of one partition may be unacknowledged at once",
    ),
    setting(
        "queue_max",
        Some("1024"),
        "how many commands may wait for one partition; more are turned away with 503 and \
         Retry-After",
    ),
    setting(
        "memory_mb",
        Some("512"),
        "the memory that a node is made for; what it keeps of streams and lets wait follows from it",
    ),
    setting(
        "stream_state_max_kb",
        Some("1024"),
        "how large a stream's state may be, in kilobytes of JSON: commands that would enlarge it \
         beyond that are answered stream_too_large, all others are judged; half of it is warned of",
    ),
    setting(
        "projector_tasks",
        Some("2"),
        "how many tasks share out the log's partitions; each has a connection to Postgres",
    ),
    setting(
        "drain_timeout_ms",
        Some("10000"),
        "how long a stop waits for the answers of commands that were taken",
    ),
    setting(
        "url",
        Some("http://127.0.0.1:4747"),
        "the server that import, send, events and state talk to",
    ),
    setting(
        "output",
        Some("table"),
        "how data is printed on stdout: table, json, ndjson or csv",
    ),
    setting(
        "acknowledged_damage",
        None,
        "damaged places of the log that readers pass, each with a reason: PARTITION:OFFSET=REASON, \
         several with ; (in the file also as tables with partition, offset, reason)",
    ),
    setting(
        "log_filter",
        None,
        "what is logged on stderr, as in RUST_LOG: info, or engine=debug,warn (default: by -v)",
    ),
    setting("log_format", Some("text"), "how it is logged: text or json"),
];
