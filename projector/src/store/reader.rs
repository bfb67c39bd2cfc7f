//! The role with which analysts read: it may read the views of the read models and how current they
//! are, and nothing else.
//!
//! Invariant: a right that an administrator took away is not given again; so the rights are given
//! once, and for each view that is new. Deliberately absent: users; an administrator grants them the
//! role.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::error::RuntimeError;
use crate::store::sql::{VIEW_SCHEMA, VIEW_SCHEMAS, view_in};

/// The name of the role. Roles belong to all databases of a server.
pub const READER: &str = "annals_reader";

/// The view that tells how current the read models are.
const PROGRESS: &str = "annals.progress";

/// Whether there is a role for analysts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reader {
    /// It has its rights.
    Ready,
    /// It is not there, and this user may not make roles.
    Absent {
        /// The user.
        user: String,
    },
    /// It is there, and this user may not give it the rights.
    Refused {
        /// What Postgres says.
        reason: String,
    },
}

/// Makes the role of the analysts, if this user may, and gives it its rights, if it has none yet.
/// The schema must be up to date.
///
/// # Errors
/// `Postgres`.
pub async fn prepare_reader(url: &str) -> Result<Reader, RuntimeError> {
    let failed = || RuntimeError::postgres("prepare the role of the analysts");
    let mut connection = PgConnection::connect(url).await.map_err(failed())?;
    let mut prepared = prepare(&mut connection).await;
    if prepared.as_ref().is_err_and(was_made_meanwhile) {
        prepared = prepare(&mut connection).await;
    }
    let prepared = match prepared {
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("42501") => {
            Ok(Reader::Refused {
                reason: error.message().to_owned(),
            })
        }
        prepared => prepared.map_err(failed()),
    };
    let _ = connection.close().await;
    prepared
}

/// Whether somebody made the role at the same time, perhaps from another database of the server.
fn was_made_meanwhile(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    matches!(code.as_deref(), Some("42710" | "23505"))
}

async fn prepare(connection: &mut PgConnection) -> Result<Reader, sqlx::Error> {
    let mut tx = connection.begin().await?;
    let is_there: bool = sqlx::query_scalar("SELECT to_regrole($1) IS NOT NULL")
        .bind(READER)
        .fetch_one(&mut *tx)
        .await?;
    if !is_there {
        let select = "SELECT rolname::text, rolsuper OR rolcreaterole \
                      FROM pg_roles WHERE rolname = current_user";
        let (user, may_create): (String, bool) = sqlx::query_as(select).fetch_one(&mut *tx).await?;
        if !may_create {
            return Ok(Reader::Absent { user });
        }
        let create = format!("CREATE ROLE {READER} NOLOGIN");
        sqlx::raw_sql(AssertSqlSafe(create))
            .execute(&mut *tx)
            .await?;
    }
    if !has_rights(&mut tx).await? {
        let views: Vec<String> =
            sqlx::query_scalar("SELECT unnest(views) FROM annals.generation WHERE state = 'live'")
                .fetch_all(&mut *tx)
                .await?;
        let mut statements = vec![
            format!(
                "GRANT USAGE ON SCHEMA {}, annals TO {READER}",
                VIEW_SCHEMAS.join(", ")
            ),
            format!("GRANT SELECT ON {PROGRESS} TO {READER}"),
        ];
        for view in views {
            for schema in VIEW_SCHEMAS {
                let view = view_in(schema, &view);
                let is_there: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
                    .bind(&view)
                    .fetch_one(&mut *tx)
                    .await?;
                statements.extend(is_there.then(|| grant(&view)));
            }
        }
        sqlx::raw_sql(AssertSqlSafe(statements.join(";\n")))
            .execute(&mut *tx)
            .await?;
    }
    tx.commit().await?;
    Ok(Reader::Ready)
}

/// Lets the analysts read a new view with its schema, if they have a role.
pub(crate) async fn show_to_reader(
    connection: &mut PgConnection,
    view: &str,
) -> Result<(), RuntimeError> {
    let failed = || RuntimeError::postgres("let the analysts read a new view");
    if has_rights(connection).await.map_err(failed())? {
        sqlx::raw_sql(AssertSqlSafe(grant(view)))
            .execute(connection)
            .await
            .map_err(failed())?;
    }
    Ok(())
}

/// Lets the analysts read views in a schema apart from the live read models, and a table that describes
/// them, if they have a role. They get no view of a read model that was taken away from them.
pub(crate) async fn show_schema_to_reader(
    connection: &mut PgConnection,
    schema: &str,
    models: &[String],
    described: &str,
) -> Result<(), RuntimeError> {
    let failed = || RuntimeError::postgres("let the analysts read a schema");
    if !has_rights(connection).await.map_err(failed())? {
        return Ok(());
    }
    let usage = format!("GRANT USAGE ON SCHEMA {schema} TO {READER}");
    let mut grants = vec![grant(described)];
    for model in models {
        let may_read = "SELECT CASE WHEN to_regclass($1) IS NULL THEN true \
                        ELSE has_table_privilege($2, $1, 'SELECT') END";
        let may_read: bool = sqlx::query_scalar(may_read)
            .bind(view_in(VIEW_SCHEMA, model))
            .bind(READER)
            .fetch_one(&mut *connection)
            .await
            .map_err(failed())?;
        grants.extend(may_read.then(|| grant(&view_in(schema, model))));
    }
    sqlx::raw_sql(AssertSqlSafe(format!("{usage};\n{}", grants.join(";\n"))))
        .execute(connection)
        .await
        .map_err(failed())?;
    Ok(())
}

fn grant(view: &str) -> String {
    format!("GRANT SELECT ON {view} TO {READER}")
}

/// Whether the role is there and was given its rights.
async fn has_rights(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let select = "SELECT EXISTS (SELECT FROM pg_namespace AS n, aclexplode(n.nspacl) AS a \
                  WHERE n.nspname = $1 AND a.grantee = to_regrole($2) \
                      AND a.privilege_type = 'USAGE')";
    sqlx::query_scalar(select)
        .bind(VIEW_SCHEMA)
        .bind(READER)
        .fetch_one(connection)
        .await
}
