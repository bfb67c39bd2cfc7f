//! A Kafka and a Postgres that require authentication. With valid credentials, everything works as
//! without authentication. With invalid ones, the error says what is wrong, and reveals no secret.

use std::error::Error;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

use event_log::create::{CreateOptions, create};
use event_log::directory::Hint;
use event_log::log::{
    self, EventLog, KafkaSecurity, LogAddress, LogError, LogPlace, Password, SaslMechanism,
    StoreOptions,
};
use event_log::membership::{Assignment, MembershipOptions};
use event_log::record::{Headers, NewRecord};
use position::{LogId, Offset, Partition, Term};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _};
use tests::harness::certificates::Authority;
use tests::harness::kafka::secured::{self, PASSWORD, USER};
use tests::harness::postgres::Postgres;
use tests::harness::unique_name;

use crate::raw_log;

const PATIENCE: Duration = Duration::from_secs(30);
const PARTITIONS: u32 = 4;

fn place(door: &str, kafka: KafkaSecurity) -> LogPlace {
    let address = LogAddress::Kafka {
        brokers: door.to_owned(),
        topic: unique_name("log"),
    };
    LogPlace {
        kafka,
        ..LogPlace::from(&address)
    }
}

fn options() -> CreateOptions {
    CreateOptions {
        store: StoreOptions {
            partition_count: PARTITIONS,
            replication: 1,
        },
        idempotency_window_ms: event_log::claim::IDEMPOTENCY_WINDOW_MS,
        node: "test".to_owned(),
    }
}

/// An error's message with all of its causes.
fn all_of(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += ": ";
        text += &error.to_string();
        cause = error.source();
    }
    text
}

/// The error of a broker that refuses the client; it must come sooner than a timeout would.
async fn refusal(place: LogPlace) -> String {
    let started = std::time::Instant::now();
    let Err(error) = log::open(place.clone()).await else {
        panic!("the broker accepted this client")
    };
    let took = started.elapsed();
    assert!(took < Duration::from_secs(8), "the refusal took {took:?}");
    assert!(matches!(error, LogError::Unavailable { .. }), "{error}");
    let said = all_of(&error);
    let making = all_of(
        &create(place, &options())
            .await
            .err()
            .expect("the broker accepted this client"),
    );
    for text in [&said, &making] {
        assert!(
            !text.contains(PASSWORD) && !text.contains("abracadabra"),
            "{text}"
        );
    }
    println!("refused: {said}");
    said
}

/// Uses a log: claims, appends, reads, follows, and takes part in the group and in the directory.
async fn is_of_use(log: &dyn EventLog, id: LogId) {
    let partition = Partition(1);
    let session = log.appender().await.unwrap().session().unwrap();
    let record = NewRecord {
        key: Some("key".into()),
        value: Some("value".into()),
        headers: Headers::default(),
    };
    let at = raw_log::append(&*session, partition, &[record]).await;
    let found = log.read_at(partition, &at).await.unwrap();
    assert_eq!(
        found[0].as_ref().unwrap().value.as_deref(),
        Some(&b"value"[..])
    );
    let mut reader = log.follow(&[(partition, Offset(0))]).unwrap();
    assert!(!reader.next(PATIENCE).await.unwrap().is_empty());
    log.check().await.unwrap();

    let joining = MembershipOptions {
        group: unique_name("group"),
        node: "test".to_owned(),
        session_timeout: Duration::from_secs(10),
    };
    let mut membership = log.membership(&joining).unwrap();
    let gained = tokio::time::timeout(PATIENCE, membership.next()).await;
    let all = (0..PARTITIONS).map(Partition).collect();
    assert_eq!(gained.unwrap().unwrap(), Assignment::Gained(all));
    membership.leave().await;

    let directory = log.directory(id).await.unwrap();
    let hint = Hint {
        log: id,
        term: Term(1),
        node: "test".to_owned(),
        address: "http://test.example".to_owned(),
    };
    directory.say_owner(partition, &hint).await;
    let mut known = directory.known();
    let heard = known.wait_for(|known| known.owners.get(&partition) == Some(&hint));
    tokio::time::timeout(PATIENCE, heard)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_log_works_on_brokers_that_require_authentication() {
    let kafka = secured::shared();
    let right = kafka.password(SaslMechanism::ScramSha512);
    let there = place(&kafka.by_password(), right.clone());
    let (log, id, _) = create(there.clone(), &options()).await.unwrap();
    is_of_use(&*log, id).await;
    for mechanism in [SaslMechanism::ScramSha256, SaslMechanism::Plain] {
        let kafka = kafka.password(mechanism);
        log::open(LogPlace {
            kafka,
            ..there.clone()
        })
        .await
        .unwrap();
    }

    // A broker does not tell a plaintext client what is wrong, so this attempt takes long.
    let address = there.address.clone();
    let clear = tokio::spawn(async move { log::open(&address).await });
    let with = |change: &dyn Fn(&mut KafkaSecurity)| {
        let mut kafka = right.clone();
        change(&mut kafka);
        LogPlace {
            kafka,
            ..there.clone()
        }
    };
    for mechanism in [
        SaslMechanism::ScramSha256,
        SaslMechanism::ScramSha512,
        SaslMechanism::Plain,
    ] {
        let wrong = with(&|kafka| {
            let sasl = kafka.sasl.as_mut().unwrap();
            sasl.mechanism = mechanism;
            sasl.password = Password::new("abracadabra");
        });
        let said = refusal(wrong).await;
        assert!(said.contains("Authentication failed"), "{said}");
    }
    let stranger = with(&|kafka| kafka.sasl.as_mut().unwrap().username = "nobody".to_owned());
    let said = refusal(stranger).await;
    assert!(said.contains("Authentication failed"), "{said}");

    let other = Authority::new();
    let wrong = with(&|kafka| kafka.tls.as_mut().unwrap().ca = Some(other.certificate()));
    let said = refusal(wrong).await;
    assert!(said.contains("certificate verify failed"), "{said}");
    // Without a given authority, the client trusts those of the system; they did not sign this
    // certificate.
    let wrong = with(&|kafka| kafka.tls.as_mut().unwrap().ca = None);
    let said = refusal(wrong).await;
    assert!(said.contains("certificate verify failed"), "{said}");
    let missing = with(&|kafka| kafka.tls.as_mut().unwrap().ca = Some("/there/is/none.pem".into()));
    let said = all_of(&log::open(missing).await.err().unwrap());
    assert!(said.contains("ssl.ca.location"), "{said}");

    let said = all_of(&clear.await.unwrap().err().unwrap());
    println!("refused: {said}");
    assert!(said.contains("speaks plaintext"), "{said}");

    // With a client certificate the broker accepts the client, and without one it does not.
    let there = place(&kafka.by_certificate(), kafka.certificate());
    let (log, id, _) = create(there.clone(), &options()).await.unwrap();
    is_of_use(&*log, id).await;
    let nameless = LogPlace {
        kafka: kafka.encryption(),
        ..there
    };
    let said = refusal(nameless).await;
    assert!(
        said.contains("alert") && said.contains("certificate"),
        "{said}"
    );
}

#[tokio::test]
async fn the_program_authenticates_itself_by_its_settings() {
    let kafka = secured::shared();
    let folder = tempfile::tempdir().unwrap();
    let address = place(&kafka.by_password(), KafkaSecurity::default()).address;
    let file = folder.path().join("password");
    let annals = |password: &str, arguments: &[&str]| {
        std::fs::write(&file, format!("{password}\n")).unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_annals-under-test"))
            .args(arguments)
            .arg(format!("--log={address}"))
            .current_dir(folder.path())
            .env("ANNALS_KAFKA_SECURITY", "sasl_ssl")
            .env("ANNALS_KAFKA_CA", kafka.authority().certificate())
            .env("ANNALS_KAFKA_SASL_USERNAME", USER)
            .env("ANNALS_KAFKA_SASL_PASSWORD_FILE", &file)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned()
            + &String::from_utf8_lossy(&output.stdout);
        assert!(!said.contains(password), "{said}");
        (output.status.success(), said)
    };
    let (done, said) = annals(PASSWORD, &["log", "create", "--partitions=2"]);
    assert!(done, "{said}");
    let (done, said) = annals(PASSWORD, &["log", "verify"]);
    assert!(done, "{said}");
    let (done, said) = annals("abracadabra", &["log", "info"]);
    assert!(!done && said.contains("Authentication failed"), "{said}");
    let (done, said) = annals(PASSWORD, &["config"]);
    assert!(
        done && said.contains("sasl_ssl") && said.contains(USER),
        "{said}"
    );
}

/// A Postgres that accepts only TLS, the authority of its certificate, and its address.
async fn secured_postgres() -> (Postgres, Authority, String) {
    let postgres = Postgres::start();
    let authority = Authority::new();
    let own = authority.certify("postgres");
    let url = postgres.create_database().await;
    let admin: sqlx::postgres::PgConnectOptions = postgres.admin_url("postgres").parse().unwrap();
    let mut connection = admin.connect().await.unwrap();
    let ask = async |connection: &mut sqlx::PgConnection, setting: &'static str| {
        let text: String = sqlx::query_scalar("SELECT current_setting($1)")
            .bind(setting)
            .fetch_one(connection)
            .await
            .unwrap();
        std::path::PathBuf::from(text)
    };
    let data = ask(&mut connection, "data_directory").await;
    let rules = ask(&mut connection, "hba_file").await;
    // Copy through the server: it may run as another user, and must own its key.
    for (file, name) in [(&own.certificate, "server.crt"), (&own.key, "server.key")] {
        let target = data.join(name);
        let text = std::fs::read_to_string(file).unwrap();
        let copy = format!(
            "COPY (SELECT unnest(string_to_array('{}', E'\\n'))) TO PROGRAM \
             'umask 077 && cat > {}'",
            text.trim(),
            target.display()
        );
        connection.execute(sqlx::AssertSqlSafe(copy)).await.unwrap();
    }
    let text = std::fs::read_to_string(&rules).unwrap();
    std::fs::write(&rules, text.replace("\nhost ", "\nhostssl ")).unwrap();
    connection
        .execute("ALTER SYSTEM SET ssl = on")
        .await
        .unwrap();
    connection.execute("SELECT pg_reload_conf()").await.unwrap();
    connection.close().await.unwrap();
    (postgres, authority, url)
}

#[tokio::test]
async fn a_postgres_that_requires_tls_is_reached_by_tls_only() {
    let (_postgres, authority, url) = secured_postgres().await;
    let with = |mode: &str, authority: &Authority| {
        let root = authority.certificate();
        format!("{url}?sslmode={mode}&sslrootcert={}", root.display())
    };
    let right = with("verify-full", &authority);
    // The server takes up its new settings a little later.
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while let Err(error) = projector::migrate(&right).await {
        let said = all_of(&error);
        assert!(tokio::time::Instant::now() < deadline, "{said}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let options: sqlx::postgres::PgConnectOptions = right.parse().unwrap();
    let mut connection = options.connect().await.unwrap();
    let query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let is_encrypted: bool = sqlx::query_scalar(query)
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert!(is_encrypted);

    let other = Authority::new();
    for (url, expected) in [
        (with("verify-full", &other), "certificate"),
        (with("verify-ca", &other), "certificate"),
        // The certificate names the address and not this host name.
        (right.replace("127.0.0.1", "localhost"), "certificate"),
        (with("disable", &authority), "pg_hba.conf"),
    ] {
        let error = projector::migration_status(&url).await.unwrap_err();
        let said = all_of(&error);
        println!("refused: {said}");
        assert!(said.contains(expected), "{said}");
    }
}
