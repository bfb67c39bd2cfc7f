//! `annals replay`: builds the read models of one projection again in a schema of their own, up to a
//! moment or a condition, at once or step by step.
//!
//! Deliberately absent: what a replay does (`projector`), and how a step is shown (`shown`).

mod shown;

use std::io::BufRead as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Args;
use kernel::Timestamp;
use projector::{
    ApartState, Existing, Gait, Model, NewReplay, Pause, PauseReason, Replay, ReplayWatch, Until,
    models_of,
};
use serde_json::json;
use tokio::sync::mpsc;

use crate::Domain;
use crate::exit::{Exit, Failure};
use crate::logging::talk;
use crate::node::{Postgres, open_log};
use crate::output;
use crate::progress::Progress;
use crate::settings::{OutputFormat, Settings};
use crate::signals::{HangUp, Stop};

/// The help text after the options.
pub(crate) const HELP: &str = "\
The log is read from its beginning, in the order in which commits were recorded, and the rows are
written into a schema of their own (--into) in the same Postgres. The live read models do not change.
The table annals_made of the schema says what stands in it. A replay does not go on with one that was
interrupted: --replace begins anew.

A condition is [MODEL.]COLUMN OP VALUE [and KEYCOLUMN = VALUE …], where OP is =, !=, <, <=, > or >=. The
replay stops at the first commit after which it is true for a row that it changed, and shows the commit
and the row. If that never happens, the exit code is 7.

With --step, lines on stdin say what comes next: an empty line takes the next commit, e the next event,
c goes on, p pauses, r KEY shows rows by the beginning of their key (its values joined by commas), and q
ends. Commits that do not concern the projection are passed over. Ctrl-C pauses, too. With
--output ndjson, each step is one JSON object.

Examples:
  annals replay --projection NAME --until 2026-03-01T12:00:00Z
  annals replay --projection NAME --until 'COLUMN > 100'
  annals replay --projection NAME --step
  annals replay --projection NAME --from-snapshot 2026-03-01T00:00:00Z --speed 60 --into march";

/// Arguments of `replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// The projection whose read models are built
    #[arg(long, value_name = "NAME")]
    projection: String,
    /// How far: up to a time, such as 2026-03-01T12:00:00Z, to a position token, or until a condition
    /// is true for a row [default: the end of the log]
    #[arg(long, value_name = "TIME|POSITION|CONDITION")]
    until: Option<String>,
    /// Begin with the rows as they were at this time, as the read model's history tells them, instead of
    /// with the beginning of the log
    #[arg(long, value_name = "TIME")]
    from_snapshot: Option<Timestamp>,
    /// Wait for a line on stdin before each step
    #[arg(long)]
    step: bool,
    /// How many times faster than recorded time passes: a number, or max
    #[arg(long, value_name = "N|max", default_value = "max", value_parser = Speed::read)]
    speed: Speed,
    /// The schema [default: replay_ and the name of the projection]
    #[arg(long, value_name = "SCHEMA")]
    into: Option<String>,
    /// Replace a schema that a replay made before
    #[arg(long)]
    replace: bool,
}

/// How fast recorded time passes; absent: as fast as it goes.
#[derive(Clone, Copy, Debug)]
struct Speed(Option<f64>);

impl Speed {
    fn read(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self(None));
        }
        let number = text
            .parse()
            .ok()
            .filter(|times: &f64| times.is_finite() && *times > 0.0);
        let number = number.ok_or("a speed is a number above 0, or max")?;
        Ok(Self(Some(number)))
    }
}

/// Replays.
pub(super) async fn run(
    domain: &Domain,
    settings: &Settings,
    args: &ReplayArgs,
) -> Result<Exit, Failure> {
    projector::check_declarations(&domain.projections)?;
    let until = match &args.until {
        None => Until::End,
        Some(text) => Until::read(text).map_err(|why| Failure::new(Exit::Usage, why))?,
    };
    let stop = Stop::listen(HangUp::Ends)?;
    let log = open_log(settings).await?;
    let postgres = Postgres::open(settings).await?;
    let outcome = async {
        postgres.require_migrated().await?;
        let schema = args.into.clone();
        let schema = schema.unwrap_or_else(|| format!("replay_{}", args.projection));
        let new = NewReplay {
            projection: &args.projection,
            schema: &schema,
            existing: match args.replace {
                true => Existing::Replaced,
                false => Existing::Refused,
            },
            until,
            from: args.from_snapshot,
            times: args.speed.0,
        };
        let has_condition = matches!(new.until, Until::Condition(_));
        let replay = Replay::begin(&log, postgres.url(), &domain.projections, new).await?;
        let projection = domain
            .projections
            .iter()
            .find(|p| p.name() == args.projection);
        let running = Running {
            settings,
            schema: schema.clone(),
            models: projection.map_or_else(Vec::new, |p| models_of(&**p)),
            has_condition,
            stop,
        };
        match args.step {
            true => running.step(replay).await,
            false => running.at_once(replay).await,
        }
    };
    let outcome = outcome.await;
    postgres.close().await;
    outcome
}

/// A replay that runs for a person.
struct Running<'a> {
    settings: &'a Settings,
    schema: String,
    models: Vec<Model>,
    has_condition: bool,
    stop: Stop,
}

impl Running<'_> {
    async fn at_once(self, mut replay: Replay) -> Result<Exit, Failure> {
        let mut progress = Progress::start("replaying");
        let stop = self.stop.clone();
        let mut watch = ReplayWatch {
            progress: &mut |come| progress.set(come.records_read, come.records),
            is_to_pause: &|| stop.is_asked(),
        };
        let pause = replay.go(Gait::On, &mut watch).await?;
        progress.finish(&format!("{} commits", replay.progress().commits));
        self.show(&pause)?;
        self.end(replay, &pause.why).await
    }

    /// Takes the wishes of a person, or of a program, one a line.
    async fn step(self, mut replay: Replay) -> Result<Exit, Failure> {
        // Up to which wish to go on a pause was asked for.
        let pause_up_to = Arc::new(AtomicU64::new(0));
        let mut wishes = wishes(Arc::clone(&pause_up_to));
        let mut was_stopped = false;
        talk!("Enter: next commit; e: next event; c: go on; p: pause; r KEY: show rows; q: end");
        loop {
            let wish = tokio::select! {
                wish = wishes.recv() => wish.unwrap_or(Wish::End),
                () = self.stop.asked(), if !was_stopped => Wish::End,
            };
            let (gait, number) = match wish {
                Wish::Go(gait, number) => (gait, number),
                Wish::Rows(key) => {
                    let parts: Vec<&str> = key.split(',').collect();
                    let rows = replay.rows_with_key(&parts).await?;
                    shown::rows(self.settings, &rows)?;
                    continue;
                }
                Wish::Unknown(line) => {
                    talk!("{line:?} is none of: an empty line, e, c, p, r KEY, q");
                    continue;
                }
                Wish::End => return self.end(replay, &PauseReason::Stepped).await,
            };
            let stop = self.stop.clone();
            let mut watch = ReplayWatch {
                progress: &mut |_| {},
                is_to_pause: &|| {
                    let is_asked = pause_up_to.load(Ordering::SeqCst) >= number;
                    is_asked || (!was_stopped && stop.is_asked())
                },
            };
            let pause = replay.go(gait, &mut watch).await?;
            // A person who interrupts it goes on; others who end the process mean the end.
            was_stopped = self.stop.is_by_person();
            self.show(&pause)?;
            if pause.why.is_end() || (self.stop.is_asked() && !was_stopped) {
                return self.end(replay, &pause.why).await;
            }
        }
    }

    fn show(&self, pause: &Pause) -> Result<(), Failure> {
        if let Some(step) = &pause.step {
            shown::step(self.settings, &self.models, pause, step)?;
        } else if pause.why == PauseReason::Asked {
            talk!("paused");
        }
        Ok(())
    }

    /// Says where the schema stands, there and here.
    async fn end(self, replay: Replay, why: &PauseReason) -> Result<Exit, Failure> {
        let state = match why {
            PauseReason::Until | PauseReason::End | PauseReason::Condition => ApartState::Finished,
            PauseReason::Stepped | PauseReason::Asked | PauseReason::Stopped(_) => {
                ApartState::Stopped
            }
        };
        let (says, commits) = (replay.says(), replay.progress().commits);
        let aside: Vec<(String, String)> = replay
            .set_aside()
            .map(|(stream, reason)| (stream, reason.to_owned()))
            .collect();
        replay.finish(state).await?;
        for (stream, reason) in aside.iter().take(SET_ASIDE_SHOWN) {
            talk!(
                "set aside: {}: {}",
                output::shown(stream),
                output::shown(reason)
            );
        }
        if aside.len() > SET_ASIDE_SHOWN {
            talk!("set aside: {} more streams", aside.len() - SET_ASIDE_SHOWN);
        }
        let end = json!({
            "schema": self.schema,
            "state": state.name(),
            "stands": says,
            "commits": commits,
            "set_aside": aside.len(),
        });
        match self.settings.output {
            OutputFormat::Json | OutputFormat::Ndjson => output::json(&end.to_string())?,
            OutputFormat::Table | OutputFormat::Csv => {
                let columns = ["schema", "state", "stands", "commits", "set_aside"];
                output::record(self.settings.output, &columns, &end)?;
            }
        }
        match why {
            PauseReason::Stopped(stopped) => Err(Failure::new(Exit::Failed, stopped.to_string())),
            PauseReason::Asked => Ok(Exit::Partial),
            PauseReason::End | PauseReason::Until if self.has_condition => {
                let message = "the condition did not become true up to the end of the log";
                Err(Failure::new(Exit::NotFound, message))
            }
            PauseReason::Until
            | PauseReason::End
            | PauseReason::Condition
            | PauseReason::Stepped => Ok(Exit::Done),
        }
    }
}

/// How many streams that were set aside are named.
const SET_ASIDE_SHOWN: usize = 10;
/// How many lines of stdin wait.
const WISHES_MAX: usize = 16;

/// What a line of stdin asks for.
enum Wish {
    /// To go on, with the number of such wishes so far.
    Go(Gait, u64),
    Rows(String),
    Unknown(String),
    End,
}

/// Reads stdin on a thread of its own, which ends with the process.
fn wishes(pause_up_to: Arc<AtomicU64>) -> mpsc::Receiver<Wish> {
    let (sender, receiver) = mpsc::channel(WISHES_MAX);
    std::thread::spawn(move || {
        let mut number = 0;
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            let line = line.trim();
            let gait = match line {
                "" => Some(Gait::Commit),
                "e" => Some(Gait::Event),
                "c" => Some(Gait::On),
                _ => None,
            };
            let wish = match (gait, line.strip_prefix("r ")) {
                (Some(gait), _) => {
                    number += 1;
                    Wish::Go(gait, number)
                }
                (None, Some(key)) => Wish::Rows(key.trim().to_owned()),
                (None, None) if line == "q" => Wish::End,
                (None, None) if line == "p" => {
                    // It is for the wishes before it, also if they still wait.
                    pause_up_to.store(number, Ordering::SeqCst);
                    continue;
                }
                (None, None) => Wish::Unknown(line.to_owned()),
            };
            if sender.blocking_send(wish).is_err() {
                return;
            }
        }
    });
    receiver
}
