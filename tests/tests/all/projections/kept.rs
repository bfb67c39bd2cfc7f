//! What analysts and administrators make of the read models: descriptions and a role for them, and
//! a rebuild that keeps what they built, or says beforehand what is in the way.

use std::sync::Arc;

use event_log::log::EventLog;
use projector::{
    Changes, ColumnType, Entry, ProjectError, Projection, READER, Reader, RuntimeError, Table, add,
    key, max, min, prepare_reader,
};
use tests::harness::logs::Kind;
use tests::harness::postgres::Postgres;
use tests::harness::stack::NOW;
use tests::harness::unique_name;

use super::{caught_up, database, execute, log_of, scalar, shop_history};

const KEY: &[projector::KeyColumn] = &[key("tenth", ColumnType::Bigint, "A tenth of the orders.")];

/// A read model whose version says which columns it has.
struct Notes(u32);

const fn notes(values: &'static [projector::ValueColumn]) -> Table {
    Table {
        name: "notes",
        about: "Notes.",
        key: KEY,
        values,
        ..Table::PLAIN
    }
}

const FIRST: &[Table] = &[notes(&[
    min("first", ColumnType::Text, "The first.").nullable()
])];
const LONGER: &[Table] = &[notes(&[
    min("first", ColumnType::Text, "The very first.").nullable(),
    max("last", ColumnType::Text, "The last.").nullable(),
])];
const OTHER: &[Table] = &[notes(&[
    max("last", ColumnType::Text, "The last of all.").nullable(),
    min("first", ColumnType::Text, "The first.").nullable(),
    add("total", "How many."),
])];

impl Projection for Notes {
    fn name(&self) -> &'static str {
        "notes"
    }

    fn version(&self) -> u32 {
        self.0
    }

    fn tables(&self) -> &'static [Table] {
        match self.0 {
            1 => FIRST,
            2 => LONGER,
            _ => OTHER,
        }
    }

    fn project(&self, entry: &Entry<'_>, changes: &mut Changes) -> Result<(), ProjectError> {
        let stream = entry.commit().stream.as_str();
        changes
            .row(&self.tables()[0], [1_i64.into()])
            .put("first", stream);
        Ok(())
    }
}

async fn rebuild(log: &Arc<dyn EventLog>, url: &str, version: u32) -> Result<(), RuntimeError> {
    let all: Vec<Arc<dyn Projection>> = vec![Arc::new(Notes(version))];
    projector::rebuild(log, url, &all, "notes", NOW, Box::new(|_| {}))
        .await
        .map(|_| ())
}

/// The rights on the view and its columns, its owner and its options.
const KEPT: &str = "SELECT concat_ws(' ', relacl::text, reloptions::text, relowner::regrole::text, \
    (SELECT string_agg(attname || attacl::text, ' ') FROM pg_attribute \
     WHERE attrelid = oid AND attacl IS NOT NULL)) \
    FROM pg_class WHERE oid = 'read.notes'::regclass";

async fn described(url: &str, column: &str) -> String {
    let select = format!(
        "SELECT col_description(attrelid, attnum) FROM pg_attribute \
         WHERE attrelid = 'read.notes'::regclass AND attname = '{column}'"
    );
    scalar(url, &select).await
}

#[tokio::test]
async fn a_rebuild_keeps_what_users_built_or_names_it_beforehand() {
    let log = log_of(Kind::Sqlite, shop_history(1, 3)).await;
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    assert_eq!(prepare_reader(&url).await.unwrap(), Reader::Ready);
    let all: Vec<Arc<dyn Projection>> = vec![Arc::new(Notes(1))];
    let reached = projector::catch_up(&log.log, &url, &all, Box::new(|_| {}));
    reached.await.unwrap();

    let (ann, bob) = (unique_name("ann"), unique_name("bob"));
    let admin = postgres.admin_url("postgres");
    execute(&admin, &format!("CREATE ROLE {ann}; CREATE ROLE {bob}")).await;
    let built = format!(
        "GRANT SELECT ON read.notes TO {ann} WITH GRANT OPTION; \
         GRANT SELECT (tenth) ON read.notes TO {bob}; \
         GRANT SELECT ON projection.notes_v1_g1 TO {bob}; \
         REVOKE SELECT ON read.notes FROM {READER}; \
         ALTER VIEW read.notes SET (security_barrier = true); \
         COMMENT ON COLUMN read.notes.first IS 'see our wiki'; \
         CREATE SCHEMA bi; CREATE VIEW bi.notes AS SELECT first FROM read.notes; \
         CREATE MATERIALIZED VIEW bi.copy AS SELECT * FROM bi.notes"
    );
    execute(&url, &built).await;
    let before: String = scalar(&url, KEPT).await;
    assert!(
        before.contains(&ann) && !before.contains(READER),
        "{before}"
    );

    // Further columns at the end: everything stays.
    rebuild(&log.log, &url, 2).await.unwrap();
    assert_eq!(scalar::<String>(&url, KEPT).await, before);
    assert_eq!(described(&url, "first").await, "see our wiki");
    assert_eq!(described(&url, "last").await, "The last.");
    let rows: i64 = scalar(&url, "SELECT count(*) FROM bi.notes").await;
    assert_eq!(rows, 1);
    let may = format!("SELECT has_table_privilege('{bob}', 'projection.notes_v2_g2', 'SELECT')");
    assert!(scalar::<bool>(&url, &may).await);

    // Other columns: what depends on the view is named, and nothing is changed.
    execute(&url, "CREATE INDEX mine ON projection.notes_v2_g2 (first)").await;
    let error = rebuild(&log.log, &url, 3).await.unwrap_err();
    let said = error.to_string();
    let RuntimeError::InTheWay { objects, .. } = error else {
        panic!("{said}")
    };
    assert_eq!(
        objects,
        "index projection.mine, materialized view bi.copy, view bi.notes"
    );
    let generations = "SELECT string_agg(generation || state, ',') FROM annals.generation";
    assert_eq!(scalar::<String>(&url, generations).await, "2live");
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'projection'";
    assert_eq!(
        scalar::<i64>(&url, tables).await,
        2,
        "the table and its versions"
    );

    // Once it is gone, the view is made anew, with its rights and descriptions.
    execute(&url, "DROP SCHEMA bi CASCADE; DROP INDEX projection.mine").await;
    rebuild(&log.log, &url, 3).await.unwrap();
    assert_eq!(scalar::<String>(&url, KEPT).await, before);
    assert_eq!(described(&url, "first").await, "see our wiki");
    assert_eq!(described(&url, "last").await, "The last of all.");
    let views = "SELECT count(*) FROM pg_views WHERE schemaname = 'read'";
    assert_eq!(scalar::<i64>(&url, views).await, 1);
}

#[tokio::test]
async fn a_read_model_of_another_user_is_not_rebuilt_halfway() {
    let log = log_of(Kind::Sqlite, shop_history(1, 3)).await;
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    rebuild(&log.log, &url, 1).await.unwrap();
    let name = url.rsplit_once('/').unwrap().1;
    let admin = postgres.admin_url(name);
    execute(
        &admin,
        "ALTER TABLE projection.notes_v1_g1 OWNER TO CURRENT_USER",
    )
    .await;
    let error = rebuild(&log.log, &url, 2).await.unwrap_err().to_string();
    assert!(
        error.contains("table projection.notes_v1_g1 belongs to annals_admin"),
        "{error}"
    );
    // A superuser may, and the tables still belong to whom they belonged.
    execute(&admin, "ALTER TABLE projection.notes_v1_g1 OWNER TO annals").await;
    rebuild(&log.log, &admin, 3).await.unwrap();
    let owners = "SELECT string_agg(DISTINCT relowner::regrole::text, ',') FROM pg_class \
                  WHERE oid IN ('read.notes'::regclass, 'projection.notes_v3_g2'::regclass)";
    assert_eq!(scalar::<String>(&url, owners).await, "annals");
}

#[tokio::test]
async fn analysts_may_read_the_views_and_nothing_else() {
    let log = log_of(Kind::Sqlite, shop_history(1, 3)).await;
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    caught_up(&log.log, &url).await;
    assert_eq!(prepare_reader(&url).await.unwrap(), Reader::Ready);
    // A read model that comes later may be read, too.
    rebuild(&log.log, &url, 1).await.unwrap();

    let (name, ann) = (url.rsplit_once('/').unwrap().1, unique_name("ann"));
    let user = format!("CREATE ROLE {ann} LOGIN PASSWORD 'p'; GRANT {READER} TO {ann}");
    execute(&postgres.admin_url(name), &user).await;
    let address = url.rsplit_once('@').unwrap().1;
    let hers = format!("postgresql://{ann}:p@{address}");
    assert!(scalar::<i64>(&hers, "SELECT count(*) FROM read.order_summary").await > 0);
    assert_eq!(
        scalar::<i64>(&hers, "SELECT count(*) FROM read.notes").await,
        1
    );
    let current = "SELECT count(*) FROM annals.progress WHERE last_recorded_at IS NOT NULL";
    assert!(scalar::<i64>(&hers, current).await > 5);
    let refused = format!(
        "SELECT count(*) FROM unnest(ARRAY['annals.checkpoint', 'annals.generation', \
         'annals.log', 'projection.notes_v1_g1', 'annals.migration']) AS name \
         WHERE has_table_privilege('{ann}', name, 'SELECT, INSERT, UPDATE, DELETE')"
    );
    assert_eq!(scalar::<i64>(&url, &refused).await, 0);
    let writes = "SELECT has_table_privilege('read.notes', 'INSERT, UPDATE, DELETE')";
    assert!(!scalar::<bool>(&hers, writes).await);
}

#[tokio::test]
async fn a_user_who_may_not_make_roles_is_told_and_nothing_else_fails() {
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    let admin = postgres.admin_url(url.rsplit_once('/').unwrap().1);
    execute(&admin, &format!("DROP ROLE {READER}")).await;
    let user = "annals".to_owned();
    assert_eq!(prepare_reader(&url).await.unwrap(), Reader::Absent { user });
    // One who may makes it, and what an administrator takes away stays away.
    assert_eq!(prepare_reader(&admin).await.unwrap(), Reader::Ready);
    execute(
        &url,
        &format!("REVOKE SELECT ON annals.progress FROM {READER}"),
    )
    .await;
    assert_eq!(prepare_reader(&url).await.unwrap(), Reader::Ready);
    let may = format!("SELECT has_table_privilege('{READER}', 'annals.progress', 'SELECT')");
    assert!(!scalar::<bool>(&url, &may).await);
}

#[tokio::test]
async fn everything_in_the_database_is_described() {
    let log = log_of(Kind::Sqlite, shop_history(1, 3)).await;
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    caught_up(&log.log, &url).await;
    // The table of migrations belongs to the library that applies them.
    let missing = "SELECT coalesce(string_agg(name, ', '), '') FROM ( \
        SELECT c.oid::regclass || coalesce('.' || a.attname, '') AS name \
        FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace \
        LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 \
        WHERE nspname IN ('read', 'read_as_of', 'read_history', 'projection', 'annals') AND relkind IN ('r', 'v') \
            AND relname <> 'migration' \
            AND coalesce(col_description(c.oid, a.attnum), '') = '' \
        UNION ALL SELECT c.oid::regclass::text FROM pg_class AS c \
        JOIN pg_namespace AS n ON n.oid = c.relnamespace \
        WHERE nspname IN ('read', 'read_as_of', 'read_history', 'projection', 'annals') AND relkind IN ('r', 'v') \
            AND relname <> 'migration' AND obj_description(c.oid, 'pg_class') IS NULL \
        UNION ALL SELECT nspname FROM pg_namespace \
        WHERE nspname IN ('read', 'read_as_of', 'read_history', 'projection', 'annals') \
            AND obj_description(oid, 'pg_namespace') IS NULL) AS missing";
    assert_eq!(scalar::<String>(&url, missing).await, "");
    let about: String = scalar(
        &url,
        "SELECT col_description('read.daily_sales'::regclass, 4)",
    )
    .await;
    assert_eq!(about, "How many orders were placed.");
}
