//! The fixed part of the Postgres schema: forward-only migrations from `migrations/`.
//!
//! Invariant: an applied migration is never edited; its checksum is stored and compared.
//! Deliberately absent: the read models' tables, which the runtime creates from their declarations.

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migrate as _, MigrateError, Migration, MigrationType, Migrator};
use sqlx::{Connection as _, PgConnection};

/// The table of applied migrations.
const NOTES: &str = "annals.migration";

/// One migration and whether it was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrationStatus {
    /// Its number.
    pub version: i64,
    /// Its name.
    pub description: String,
    /// Whether this database has it.
    pub applied: bool,
}

fn migrator() -> Migrator {
    let migration = |number, name: &'static str, sql: &'static str| {
        let sql = sql.into_sql_str();
        Migration::new(number, name.into(), MigrationType::Simple, sql, false)
    };
    let runtime = include_str!("../../migrations/0001_projection_runtime.sql");
    let identity = include_str!("../../migrations/0002_log_identity.sql");
    let reading = include_str!("../../migrations/0003_reading.sql");
    let control = include_str!("../../migrations/0004_control.sql");
    let history = include_str!("../../migrations/0005_history.sql");
    let mut migrator = Migrator::with_migrations(vec![
        migration(1, "projection runtime", runtime),
        migration(2, "log identity", identity),
        migration(3, "reading", reading),
        migration(4, "control", control),
        migration(5, "history", history),
    ]);
    migrator.dangerous_set_table_name(NOTES);
    migrator.create_schema("annals");
    migrator
}

/// Applies the migrations that the database at `url` lacks, and returns the state after that.
///
/// # Errors
/// `MigrateError`: the database does not answer, or was migrated by a newer program.
pub async fn migrate(url: &str) -> Result<Vec<MigrationStatus>, MigrateError> {
    let mut connection = PgConnection::connect(url).await?;
    migrator().run(&mut connection).await?;
    let status = status_of(&mut connection).await?;
    connection.close().await?;
    Ok(status)
}

/// Which migrations the database at `url` has.
///
/// # Errors
/// `MigrateError`: the database does not answer.
pub async fn migration_status(url: &str) -> Result<Vec<MigrationStatus>, MigrateError> {
    let mut connection = PgConnection::connect(url).await?;
    let status = status_of(&mut connection).await?;
    connection.close().await?;
    Ok(status)
}

async fn status_of(connection: &mut PgConnection) -> Result<Vec<MigrationStatus>, MigrateError> {
    let noted: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
        .bind(NOTES)
        .fetch_one(&mut *connection)
        .await?;
    let applied = if noted {
        connection.list_applied_migrations(NOTES).await?
    } else {
        Vec::new()
    };
    let status = |migration: &Migration| MigrationStatus {
        version: migration.version,
        description: migration.description.clone().into_owned(),
        applied: applied.iter().any(|a| a.version == migration.version),
    };
    Ok(migrator().iter().map(status).collect())
}
