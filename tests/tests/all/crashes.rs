//! The program is killed at any moment and started again. Every answered command is in the log
//! exactly once, every other command at most once, and sending it again gives the answer.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::olist::load::{Contents, load};
use ::olist::plan::Plan;
use client::{BatchClient, CommandLine, SendOptions};
use import::Listing;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use sqlx::PgPool;
use tests::faults::judge::accepted_commands;
use tests::harness::annals::Annals;
use tests::harness::import::{CountingOutcomes, ImportProgress};
use tests::harness::logs::{Kind, NewLog};
use tests::harness::ports;
use tests::harness::postgres::Postgres;
use tests::harness::stack::read_models;
use tests::olist::{self, Dirt, oracle};

const PARTITIONS: u32 = 16;
const PROCESS_KILLS: usize = 20;
const POSTGRES_KILLS: usize = 5;
const RETRY_FOR: Duration = Duration::from_secs(120);
const PATIENCE: Duration = Duration::from_secs(120);

/// A log, a Postgres, the program as a process, and the lines of an import.
struct Scene {
    log: NewLog,
    postgres: Postgres,
    postgres_url: String,
    annals: Annals,
    url: String,
    lines: Vec<CommandLine>,
    progress: Arc<ImportProgress>,
}

fn plan_of(folder: &Path) -> Plan {
    let contents = Contents::of_folder(folder).unwrap();
    Plan::new(load(&contents, Listing::default()).unwrap(), None)
}

impl Scene {
    async fn set(kind: Kind, folder: &Path) -> Self {
        let log = NewLog::make(kind, PARTITIONS).await;
        let postgres = Postgres::start();
        let postgres_url = postgres.create_database().await;
        projector::migrate(&postgres_url).await.unwrap();
        let pool = PgPool::connect(&postgres_url).await.unwrap();
        oracle::load(&pool, folder).await.unwrap();
        pool.close().await;
        let listen = format!("127.0.0.1:{}", ports::free());
        let data = log.folder.path().join("data");
        let arguments = [
            "serve".to_owned(),
            format!("--log={}", log.address),
            format!("--postgres={postgres_url}"),
            format!("--listen={listen}"),
            format!("--data={}", data.display()),
        ];
        // This test's own handle never took the file's write lock, so the program can take it.
        let program = PathBuf::from(env!("CARGO_BIN_EXE_annals-under-test"));
        let annals = Annals::start(&program, &arguments, log.folder.path());
        let plan = plan_of(folder);
        let lines = plan.lines().collect();
        let url = format!("http://{listen}");
        let progress = Arc::default();
        Self {
            log,
            postgres,
            postgres_url,
            annals,
            url,
            lines,
            progress,
        }
    }

    /// Starts the import; it goes on through everything that happens to the server.
    fn import(&self) -> tokio::task::JoinHandle<()> {
        let sending = SendOptions {
            retry_for: RETRY_FOR,
            ..SendOptions::to(self.url.clone())
        };
        let progress = Arc::clone(&self.progress);
        let lines = self.lines.clone();
        tokio::spawn(async move {
            let sent = Arc::clone(&progress);
            let source = futures::stream::iter(lines.into_iter().map(move |line| {
                sent.note_sent();
                Ok(line)
            }));
            let client = BatchClient::new(sending).unwrap();
            client
                .send(source, &mut CountingOutcomes(progress))
                .await
                .unwrap();
        })
    }

    fn done(&self) -> u64 {
        self.progress.done()
    }

    fn open(&self) -> u64 {
        self.progress.open()
    }

    async fn until_done(&self, count: u64) {
        let deadline = Instant::now() + PATIENCE;
        while self.done() < count {
            let (done, said) = (self.done(), self.annals.said());
            assert!(
                Instant::now() < deadline,
                "{done} of {count} lines are done:\n{said}"
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Random moments, counted in finished lines; none in the second half, so that lines are left
    /// at each moment.
    fn moments(&self, count: usize, random: &mut impl Rng) -> Vec<u64> {
        let most = self.lines.len() as u64 / 2;
        let mut moments: Vec<u64> = (0..count).map(|_| random.random_range(0..most)).collect();
        moments.sort_unstable();
        moments
    }

    /// After the import, the log and the read models are as without any kill.
    async fn assert_whole(&mut self) {
        assert_eq!(self.progress.failed(), 0, "no answer was a failure");
        let models = read_models();
        let quiet = Box::new(|_| {});
        projector::catch_up(&self.log.log, &self.postgres_url, &models, quiet)
            .await
            .unwrap();
        let pool = PgPool::connect(&self.postgres_url).await.unwrap();
        let differences = oracle::compare(&pool).await.unwrap();
        let shown: Vec<_> = differences.iter().map(ToString::to_string).collect();
        assert!(shown.is_empty(), "{}", shown.join("\n"));
        pool.close().await;
        assert_eq!(self.annals.terminate(), Some(0), "{}", self.annals.said());
        let report =
            event_log::verify::verify(&*self.log.log, &crate::write_side::shop(), &[], |_, _| {})
                .await
                .unwrap();
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(
            accepted_commands(&self.log.log).await.unwrap().len(),
            self.lines.len(),
            "each command once"
        );
    }
}

/// The orders to import: real ones if this machine has them.
fn orders() -> (Option<tempfile::TempDir>, PathBuf) {
    if let Some(folder) = std::env::var_os("ANNALS_OLIST_DIR") {
        return (None, folder.into());
    }
    let folder = tempfile::tempdir().unwrap();
    olist::data_set(11, 9_000, Dirt::Real)
        .write_to(folder.path())
        .unwrap();
    let path = folder.path().to_owned();
    (Some(folder), path)
}

fn seeded(what: &str) -> StdRng {
    let seed = match std::env::var("ANNALS_TESTS_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => rand::random(),
    };
    println!("{what}: ANNALS_TESTS_SEED={seed} repeats it");
    StdRng::seed_from_u64(seed)
}

async fn survives_kills_of_the_process(kind: Kind) {
    let (_generated, folder) = orders();
    let mut random = seeded("kills of the process");
    let mut scene = Scene::set(kind, &folder).await;
    let import = scene.import();
    let began = Instant::now();
    let mut kills = 0;
    for moment in scene.moments(PROCESS_KILLS, &mut random) {
        scene.until_done(moment).await;
        // Wait a random time: a kill should not always come right after an answer.
        tokio::time::sleep(Duration::from_millis(random.random_range(0..40))).await;
        let open = scene.open();
        scene.annals.kill9();
        let (done, all) = (scene.done(), scene.lines.len());
        assert!(
            open > 0,
            "killed {kills} times, the last of {all} lines was answered, {done} at {:?}",
            began.elapsed()
        );
        kills += 1;
        // Do not wait until the program is ready: on a fast machine, the import would end before
        // the last kill.
        scene.annals.relaunch();
    }
    import.await.unwrap();
    println!(
        "{kind:?}: {kills} kills, {} commands, {:?}",
        scene.done(),
        began.elapsed()
    );
    assert_eq!(kills, PROCESS_KILLS);
    scene.annals.wait_until_ready();
    scene.assert_whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_into_kafka_survives_kills_of_the_process() {
    survives_kills_of_the_process(Kind::Kafka).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_into_sqlite_survives_kills_of_the_process() {
    survives_kills_of_the_process(Kind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_go_on_while_postgres_is_killed_and_read_models_are_whole_in_the_end() {
    let (_generated, folder) = orders();
    let mut random = seeded("kills of Postgres");
    let mut scene = Scene::set(Kind::Kafka, &folder).await;
    let import = scene.import();
    for moment in scene.moments(POSTGRES_KILLS, &mut random) {
        scene.until_done(moment).await;
        scene.postgres.kill9();
        let answered = scene.done();
        scene.until_done(answered + 1).await;
        scene.postgres.restart();
    }
    import.await.unwrap();
    scene.assert_whole().await;
}
