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
pub const CATALOGUE: [Setting; 46] = [
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
        "security protocol for the brokers of a log on Kafka: plaintext, ssl, sasl_plaintext, \
         sasl_ssl",
    ),
    setting(
        "kafka_ca",
        None,
        "PEM file with the certificate authorities that sign the brokers' certificates (default: \
         those of the system)",
    ),
    setting(
        "kafka_certificate",
        None,
        "PEM file with this node's certificate, for brokers that ask for one",
    ),
    setting(
        "kafka_key",
        None,
        "PEM file with the private key of kafka_certificate",
    ),
    setting(
        "kafka_sasl_mechanism",
        None,
        "SASL mechanism: SCRAM-SHA-512 (default), SCRAM-SHA-256 or PLAIN",
    ),
    setting(
        "kafka_sasl_username",
        None,
        "this node's user name at the brokers",
    ),
    setting(
        "kafka_sasl_password",
        None,
        "the password of kafka_sasl_username; a file is safer, since others may see a process's \
         variables",
    ),
    setting(
        "kafka_sasl_password_file",
        None,
        "file with the password of kafka_sasl_username, in one line",
    ),
    setting(
        "postgres",
        None,
        "the Postgres of the read models: postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with TLS: \
         …?sslmode=verify-full&sslrootcert=FILE (default: an embedded server in data)",
    ),
    setting(
        "postgres_bin",
        None,
        "folder with postgres and initdb for the embedded server (default: the program searches \
         for it)",
    ),
    setting(
        "listen",
        Some("127.0.0.1:4747"),
        "address for HTTP: HOST:PORT; port 0 takes a free port",
    ),
    setting(
        "insecure",
        Some("false"),
        "allow listen on other addresses than loopback, although clients are not authenticated",
    ),
    setting(
        "hosts",
        None,
        "host names that clients use for this node, for example behind a proxy; separated by \
         commas; on loopback, requests for any other name are refused, except the names of \
         loopback",
    ),
    setting(
        "connections_max",
        Some("4096"),
        "the most connections of clients; the node lowers it if the system allows fewer open files",
    ),
    setting(
        "connections_per_address_max",
        Some("2048"),
        "the most connections from one address; behind a proxy all clients share one address, and \
         another node uses one connection for each partition",
    ),
    setting(
        "header_timeout_ms",
        Some("10000"),
        "how long the head of a request may take to arrive",
    ),
    setting(
        "idle_timeout_ms",
        Some("60000"),
        "how long a connection may send nothing, between requests or between two lines of a batch",
    ),
    setting(
        "stall_timeout_ms",
        Some("10000"),
        "how long a body or an answer may make no progress",
    ),
    setting(
        "rate_bytes_min",
        Some("4096"),
        "the lowest rate, in bytes a second, at which clients must send bodies and read answers; \
         a slower transfer uses up stall_timeout_ms little by little",
    ),
    setting(
        "advertise",
        None,
        "address at which other nodes reach this node: HOST:PORT (default: the address of listen)",
    ),
    setting(
        "cluster_secret",
        None,
        "the secret that all nodes of a log share, at least 16 bytes; without it nodes talk to \
         each other on loopback only, unprotected from other users of the machine (a file is \
         safer; there is no flag)",
    ),
    setting("cluster_secret_file", None, "file with the cluster secret"),
    setting(
        "role",
        Some("all"),
        "roles of serve: command-api, projector, query-api, all; separated by commas",
    ),
    setting(
        "node",
        None,
        "the node's name in its claims on the log (default: the host's name)",
    ),
    setting(
        "group",
        None,
        "consumer group of the nodes of a log in Kafka; the group assigns the partitions \
         (default: annals.TOPIC)",
    ),
    setting(
        "session_timeout_ms",
        Some("6000"),
        "after this time without a sign of life from a node, the group gives its partitions to \
         other nodes; the brokers set a lower limit (group.min.session.timeout.ms)",
    ),
    setting(
        "standby",
        Some("warm"),
        "whether a node follows partitions that it does not own: warm (it does, and can take them \
         over at once) or cold (it does not, and saves memory and processor time)",
    ),
    setting(
        "in_flight_max",
        Some("1024"),
        "the most records of one partition that wait for their acknowledgement",
    ),
    setting(
        "queue_max",
        Some("1024"),
        "the most commands that wait for one partition; further ones are turned away with 503 and \
         Retry-After",
    ),
    setting(
        "memory_mb",
        Some("512"),
        "the memory that a node is sized for, in megabytes; the limits of its caches and queues \
         follow from it",
    ),
    setting(
        "stream_state_max_kb",
        Some("1024"),
        "the largest state of a stream, in kilobytes of JSON: a command that would enlarge the \
         state beyond this is answered stream_too_large, all other commands are decided; at half \
         of it the node logs a warning",
    ),
    setting(
        "projector_tasks",
        Some("2"),
        "number of tasks that write the read models; each takes a part of the log's partitions \
         and has a connection to Postgres",
    ),
    setting(
        "projector_auto_switch",
        Some("false"),
        "whether a new version of a read model, which is built beside the live one by itself, also \
         replaces it by itself once both were compared; otherwise it waits for annals projections \
         switch; dev and demo, which run alone, always do it",
    ),
    setting(
        "projector_rebuild_share",
        Some("50"),
        "how much of its time, in percent, a task may spend on a rebuild while live read models are \
         written, by this process or another one; the same for annals projections rebuild",
    ),
    setting(
        "projector_verify_every_ms",
        Some("10000"),
        "how often a projector folds a few streams afresh and compares them with the rows of a read \
         model; 0: never",
    ),
    setting(
        "feed_followers_max",
        Some("256"),
        "the most clients that one process serves with the feed of all events (GET /v1/events) at a \
         time; further ones are told to come later",
    ),
    setting(
        "otlp_endpoint",
        None,
        "the OpenTelemetry collector that traces are sent to, by OTLP over plain HTTP: \
         http://HOST:4318 (default: that of OTEL_EXPORTER_OTLP_ENDPOINT; without one there are no \
         traces)",
    ),
    setting(
        "otlp_service",
        None,
        "the service's name in traces (default: OTEL_SERVICE_NAME, else the program's name)",
    ),
    setting(
        "drain_timeout_ms",
        Some("10000"),
        "how long a stop waits for open commands",
    ),
    setting(
        "url",
        Some("http://127.0.0.1:4747"),
        "the server that import, send, events and state use",
    ),
    setting(
        "output",
        Some("table"),
        "format of the data on stdout: table, json, ndjson or csv",
    ),
    setting(
        "acknowledged_damage",
        None,
        "damaged places of the log that readers may pass, each with a reason: \
         PARTITION:OFFSET=REASON, separated by ; (in the file also tables with partition, offset, \
         reason)",
    ),
    setting(
        "log_filter",
        None,
        "which lines are logged on stderr, in the syntax of RUST_LOG: info, or engine=debug,warn \
         (default: set by -v)",
    ),
    setting(
        "log_format",
        Some("text"),
        "format of the lines that are logged: text or json",
    ),
];
