//! Side by side: everything that is claimed to be fast is measured against a raw loop or a peer in
//! the same run, because absolute figures mean nothing on shared machines. Starts its own broker
//! and Postgres.
//!
//! Writes a table, a JSON file, the table in Markdown and a page, and compares with the last
//! result. Deliberately absent: what is measured (`rows`), and the limits for comparison (`raw`).

mod apart;
mod figure;
mod load;
mod machine;
mod main_job;
mod models;
mod raw;
mod report;
mod rows;
mod work;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;

use figure::Figure;
use machine::Circumstances;
use report::Report;
use rows::Size;
use tests::harness::logs::Kind;

/// Measures the engine beside raw loops, in the same run.
#[derive(Parser)]
struct Arguments {
    /// Short run with fewer commands; about five minutes with five rounds on two processors
    #[arg(long)]
    quick: bool,
    /// Number of rounds; each measures both sides in turn, and the median counts
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: usize,
    /// Measure only these rows, such as B1,B5; `job` is the main job
    #[arg(long, value_name = "ROW", value_delimiter = ',')]
    only: Vec<String>,
    /// Measure nothing; write the tables and the page of the last result again
    #[arg(long)]
    show: bool,
    /// Seed of the data that is written
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Folder where results are read and written
    #[arg(long, value_name = "FOLDER", default_value = "bench/results")]
    results: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    if apart::did_its_part().await {
        return ExitCode::SUCCESS;
    }
    let arguments = Arguments::parse();
    let name = if arguments.quick { "quick" } else { "full" };
    let json = arguments.results.join(format!("{name}.json"));
    let before = match Report::read(&json) {
        Ok(before) => before,
        Err(error) => {
            eprintln!("{} is no result of this program: {error}", json.display());
            return ExitCode::FAILURE;
        }
    };
    if arguments.show {
        return show(before, &json);
    }
    let circumstances = Circumstances::now(arguments.seed, arguments.quick);
    eprintln!(
        "commit {}, {} processors, load {:.2}, fdatasync {:.0}/s, {}",
        circumstances.commit,
        circumstances.processors,
        circumstances.load,
        circumstances.fdatasync_per_second,
        circumstances.versions.join(", ")
    );
    let mut report = Report {
        circumstances,
        figures: Vec::new(),
    };
    let began = Instant::now();
    // Write after each row: a full run takes an hour, and no result should be lost.
    let measured = measure(&arguments, |figures| {
        report.figures.extend(figures);
        write(&report, &json)
    });
    if let Err(error) = measured.await {
        eprintln!("the result cannot be written: {error}");
        return ExitCode::FAILURE;
    }
    println!("{}", report.table(before.as_ref()));
    let missed = |figure: &Figure| figure.is_met() == Some(false);
    let missed = report
        .figures
        .iter()
        .filter(|figure| missed(figure))
        .count();
    let goals = report.figures.iter().filter_map(Figure::is_met).count();
    println!(
        "{missed} of {goals} goals missed; {} s; {}",
        began.elapsed().as_secs(),
        json.display()
    );
    ExitCode::SUCCESS
}

/// Measures row after row, and passes each row's figures to `done`.
async fn measure(
    arguments: &Arguments,
    mut done: impl FnMut(Vec<Figure>) -> io::Result<()>,
) -> io::Result<()> {
    let is_wanted = |row: &str| {
        arguments.only.is_empty()
            || arguments
                .only
                .iter()
                .any(|only| only.eq_ignore_ascii_case(row))
    };
    if is_wanted("job") && !arguments.quick {
        for kind in [Kind::Sqlite, Kind::Kafka] {
            main_job::run(kind).await;
        }
    }
    let size = Size {
        quick: arguments.quick,
        seed: arguments.seed,
    };
    let began = Instant::now();
    eprintln!("warming the broker up");
    work::warm_up_broker().await;
    for mut bench in rows::all(size) {
        let subjects = bench.subjects();
        if !subjects.iter().any(|subject| is_wanted(&subject.row)) {
            continue;
        }
        eprintln!(
            "{} {}, after {} s",
            subjects[0].row,
            subjects[0].work,
            began.elapsed().as_secs()
        );
        let mut measured: Vec<Figure> = subjects
            .into_iter()
            .map(|subject| Figure {
                subject,
                rounds: Vec::new(),
            })
            .collect();
        bench.prepare().await;
        for round in 0..arguments.rounds {
            let pairs = bench.round(round % 2 == 0).await;
            for (figure, pair) in measured.iter_mut().zip(pairs) {
                let unit = figure.subject.unit;
                figure.rounds.push(pair);
                let beside = figure.theirs().map(|_| unit.show(pair.theirs));
                let beside = beside.map_or_else(String::new, |theirs| format!(" against {theirs}"));
                eprintln!(
                    "  {}: {}{beside}",
                    figure.subject.work,
                    unit.show(pair.ours)
                );
            }
        }
        bench.finish().await;
        done(measured)?;
    }
    Ok(())
}

fn show(report: Option<Report>, json: &Path) -> ExitCode {
    let Some(report) = report else {
        eprintln!("{} is not there: measure first", json.display());
        return ExitCode::FAILURE;
    };
    println!("{}", report.table(None));
    match write(&report, json) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the result cannot be written: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write(report: &Report, json: &Path) -> io::Result<()> {
    if let Some(folder) = json.parent() {
        std::fs::create_dir_all(folder)?;
    }
    report.write(json)?;
    std::fs::write(json.with_extension("md"), report.markdown())?;
    std::fs::write(json.with_extension("html"), report.page())
}
