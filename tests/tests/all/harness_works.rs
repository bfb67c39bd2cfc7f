//! The servers that other tests rely on start, keep their data, and leave nothing behind.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use embedded_postgres::{EmbeddedPostgres, Error, Options};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rustix::process::{Pid, Signal, kill_process};
use sqlx::{Connection, PgConnection};
use tests::harness::kafka::{self, Kafka};
use tests::harness::postgres::Postgres;
use tests::harness::process::is_running;
use tests::harness::unique_name;

const TIMEOUT_SECONDS: u64 = 30;
/// Set in the copy of this test binary that is started to be killed.
const VICTIM: &str = "ANNALS_TESTS_VICTIM";

/// Writes a record, and returns once the broker has acknowledged it.
fn produce(bootstrap: &str, topic: &str, payload: &str) {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("acks", "all");
    let producer: BaseProducer = config.create().unwrap();
    let record = BaseRecord::<str, str>::to(topic)
        .partition(0)
        .payload(payload);
    producer.send(record).map_err(|(error, _)| error).unwrap();
    producer
        .flush(Duration::from_secs(TIMEOUT_SECONDS))
        .unwrap();
}

fn first_record(bootstrap: &str, topic: &str) -> String {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("group.id", unique_name("group"));
    let consumer: BaseConsumer = config.create().unwrap();
    let mut start = TopicPartitionList::new();
    start
        .add_partition_offset(topic, 0, Offset::Beginning)
        .unwrap();
    consumer.assign(&start).unwrap();
    let record = consumer
        .poll(Duration::from_secs(TIMEOUT_SECONDS))
        .expect("a record")
        .unwrap();
    String::from_utf8(record.payload().unwrap().to_vec()).unwrap()
}

/// Makes a table with two amounts, 42 together; returns the connection, still open.
async fn fill(url: &str) -> PgConnection {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let table = "CREATE TABLE entry (amount bigint); INSERT INTO entry VALUES (40), (2)";
    sqlx::raw_sql(table).execute(&mut connection).await.unwrap();
    connection
}

async fn total(url: &str) -> i64 {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::query_scalar("SELECT sum(amount)::bigint FROM entry")
        .fetch_one(&mut connection)
        .await
        .unwrap()
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(TIMEOUT_SECONDS);
    while !holds() {
        assert!(
            Instant::now() < deadline,
            "after {TIMEOUT_SECONDS} s it still does not hold: {what}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test]
async fn tests_share_a_broker_and_each_has_a_topic_of_its_own() {
    let (broker, topic) = (kafka::shared(), unique_name("orders"));
    broker
        .create_topic(&topic, 2, &[("retention.ms", "-1")])
        .await;
    produce(broker.bootstrap(), &topic, "placed");
    assert_eq!(first_record(broker.bootstrap(), &topic), "placed");
    assert!(std::ptr::eq(broker, kafka::shared()));
}

#[tokio::test]
async fn a_record_survives_the_end_of_its_broker_and_nothing_survives_the_test() {
    let mut broker = Kafka::start();
    let address = broker.bootstrap().to_owned();
    broker.create_topic("orders", 1, &[]).await;
    produce(&address, "orders", "placed");

    let killed = broker.pid();
    broker.kill9();
    assert!(!is_running(killed));
    broker.restart();
    assert_eq!(broker.bootstrap(), address);
    assert_eq!(first_record(&address, "orders"), "placed");

    broker.pause();
    let producing = std::thread::spawn(move || produce(&address, "orders", "paid"));
    assert!(!producing.is_finished());
    broker.resume();
    producing.join().unwrap();

    let (pid, folder) = (broker.pid(), broker.folder().to_owned());
    drop(broker);
    assert!(!is_running(pid));
    assert!(!folder.exists());
}

#[tokio::test]
async fn rows_survive_the_end_of_their_server_and_nothing_survives_the_test() {
    let mut postgres = Postgres::start();
    let url = postgres.create_database().await;
    let _open = fill(&url).await;

    let killed = postgres.pid();
    postgres.kill9();
    assert!(!is_running(killed));
    postgres.restart();
    assert_eq!(total(&url).await, 42);

    let (pid, folder) = (postgres.pid(), postgres.folder().to_owned());
    drop(postgres);
    assert!(!is_running(pid));
    assert!(!folder.exists());
}

#[tokio::test]
async fn a_private_postgres_is_used_again_and_is_never_shared() {
    let folder = tempfile::tempdir().unwrap();
    let first = EmbeddedPostgres::start(folder.path(), &Options::default())
        .await
        .unwrap();
    let url = first.url();
    let _open = fill(&url).await;

    let error = EmbeddedPostgres::start(folder.path(), &Options::default())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::InUse { .. }), "{error}");

    // A fast shutdown does not wait for a connection that is still open.
    let pid = first.pid();
    first.stop().await.unwrap();
    assert!(!is_running(pid));

    let second = EmbeddedPostgres::start(folder.path(), &Options::default())
        .await
        .unwrap();
    assert_eq!(
        second.url(),
        url,
        "the port and the password are those of the first run"
    );
    assert_eq!(total(&url).await, 42);
    second.stop().await.unwrap();
}

#[tokio::test]
async fn a_private_postgres_asks_for_its_password() {
    let postgres = Postgres::start();
    let (before, after) = (
        postgres.url("annals"),
        "postgresql://annals:wrong@127.0.0.1",
    );
    let port = before.rsplit_once(':').unwrap().1;
    let error = PgConnection::connect(&format!("{after}:{port}"))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("password authentication failed"),
        "{error}"
    );
}

/// The shell that stops a server when its `annals` is gone.
fn watchdog_of(server: u32) -> Pid {
    let processes = std::fs::read_dir("/proc").unwrap();
    let number = processes.filter_map(|entry| {
        let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).into_owned();
        let words: Vec<&str> = line.split('\0').collect();
        let is_it = words.contains(&"annals-watchdog") && words.contains(&&*server.to_string());
        is_it.then(|| Pid::from_raw(pid))?
    });
    number.last().expect("a watchdog of this server")
}

#[tokio::test]
async fn the_server_of_a_killed_run_is_stopped_and_its_rows_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut victim = victim("private postgres", folder.path());
    wait_until("the victim has made its table", || {
        folder.path().join("filled").exists()
    });
    let orphan = read_pid(&folder.path().join("filled"));
    // Kill the watchdog, so that nothing stops the server after its `annals` is killed.
    kill_process(watchdog_of(orphan), Signal::KILL).unwrap();
    victim.kill().unwrap();
    victim.wait().unwrap();
    assert!(
        is_running(orphan),
        "this test is about a server that outlives its annals"
    );

    let postgres = EmbeddedPostgres::start(folder.path(), &Options::default())
        .await
        .unwrap();
    assert!(!is_running(orphan));
    assert_eq!(total(&postgres.url()).await, 42);
    postgres.stop().await.unwrap();
}

#[tokio::test]
async fn a_process_number_that_a_stranger_has_by_now_does_not_keep_the_server_from_starting() {
    let folder = tempfile::tempdir().unwrap();
    let server = EmbeddedPostgres::start(folder.path(), &Options::default())
        .await
        .unwrap();
    let pid_file = server.folder().join("data/postmaster.pid");
    let pid = Pid::from_raw(i32::try_from(server.pid()).unwrap()).unwrap();
    let text = std::fs::read_to_string(&pid_file).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    drop(server);

    let mut stranger = Command::new("sleep").arg("600").spawn().unwrap();
    let rest = text.split_once('\n').unwrap().1;
    std::fs::write(&pid_file, format!("{}\n{rest}", stranger.id())).unwrap();

    let server = EmbeddedPostgres::start(folder.path(), &Options::default())
        .await
        .unwrap();
    assert!(
        stranger.try_wait().unwrap().is_none(),
        "the stranger was left alone"
    );
    server.stop().await.unwrap();
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[test]
fn servers_end_with_a_test_process_that_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let mut victim = victim("servers", folder.path());
    let started = |name: &str| folder.path().join(name).exists();
    wait_until("the victim has started its servers", || {
        started("kafka") && started("postgres")
    });
    let pids = ["kafka", "postgres"].map(|name| read_pid(&folder.path().join(name)));
    let folders = std::fs::read_to_string(folder.path().join("folders")).unwrap();
    assert!(pids.into_iter().all(is_running));

    victim.kill().unwrap();
    victim.wait().unwrap();
    wait_until("the servers have ended", || {
        !pids.into_iter().any(is_running)
    });
    wait_until("their folders are gone", || {
        folders.lines().all(|it| !Path::new(it).exists())
    });
}

/// A copy of this test binary that runs [`victim_of_the_tests_above`] alone.
fn victim(role: &str, folder: &Path) -> std::process::Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([
        "--exact",
        "harness_works::victim_of_the_tests_above",
        "--nocapture",
    ]);
    command
        .env(VICTIM, role)
        .current_dir(folder)
        .spawn()
        .unwrap()
}

/// Writes another file and renames it, so that a reader never sees half of the text.
fn tell(file: &str, text: &str) {
    std::fs::write("partial", text).unwrap();
    std::fs::rename("partial", file).unwrap();
}

fn read_pid(path: &Path) -> u32 {
    std::fs::read_to_string(path).unwrap().parse().unwrap()
}

/// Not a test by itself: in the copy of this binary that other tests start, it starts servers and
/// waits to be killed.
#[tokio::test]
async fn victim_of_the_tests_above() {
    match std::env::var(VICTIM).as_deref() {
        Err(_) => {}
        Ok("servers") => {
            let (kafka, postgres) = (kafka::shared(), Postgres::start());
            let folders = [kafka.folder(), postgres.folder()].map(|it| it.display().to_string());
            tell("folders", &folders.join("\n"));
            tell("kafka", &kafka.pid().to_string());
            tell("postgres", &postgres.pid().to_string());
            std::future::pending().await
        }
        Ok("private postgres") => {
            let options = Options::default();
            let server = EmbeddedPostgres::start(Path::new("."), &options)
                .await
                .unwrap();
            let _open = fill(&server.url()).await;
            tell("filled", &server.pid().to_string());
            std::future::pending().await
        }
        Ok(other) => panic!("no such victim: {other}"),
    }
}
