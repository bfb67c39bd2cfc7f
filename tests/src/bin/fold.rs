//! Folds an export of the log in SQL and compares the shop's read models with it:
//! `annals log dump --accepted --log … > EXPORT`, then `fold EXPORT --postgres URL`.
//!
//! Ends with code 1 if a cell differs. Deliberately absent: everything but arguments. The tables go
//! into the schemas `export` and `fold` of the same database.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use sqlx::PgPool;
use tests::fold;

/// Compares the read models of a shop with an independent fold of its log.
#[derive(Debug, Parser)]
struct Arguments {
    /// What `annals log dump --accepted` wrote, after the read models have caught up
    export: PathBuf,
    /// The Postgres of the read models
    #[arg(long, value_name = "URL")]
    postgres: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match compared(&arguments).await {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn compared(arguments: &Arguments) -> Result<usize, sqlx::Error> {
    let pool = PgPool::connect(&arguments.postgres).await?;
    let begun = Instant::now();
    fold::load(&pool, &arguments.export).await?;
    eprintln!("folded in {:.1} s", begun.elapsed().as_secs_f64());
    let begun = Instant::now();
    let differences = fold::compare(&pool).await?;
    for difference in &differences {
        println!("{difference}");
    }
    let (count, took) = (differences.len(), begun.elapsed().as_secs_f64());
    eprintln!("{count} differences shown, compared in {took:.1} s");
    Ok(count)
}
