//! What users gave to a view or a table, and what its successor therefore gets: rights, an owner,
//! options and descriptions.
//!
//! Invariant: rights that were taken away are not given again. Deliberately absent: objects that
//! depend on a view or table; a rebuild keeps them by replacing the view, or refuses (`in_the_way`).

use std::collections::BTreeMap;

use sqlx::{AssertSqlSafe, PgConnection, Row as _};

use crate::error::RuntimeError;
use crate::store::describe::Comment;

/// The statements that give `$2` the owner, options and rights of `$1`. A right on a column is
/// given only if `$2` has that column.
const STATEMENTS: &str = "\
WITH old AS (SELECT * FROM pg_class WHERE oid = to_regclass($1)),
new AS (SELECT * FROM pg_class WHERE oid = to_regclass($2)),
grants AS (
    SELECT o.relowner, '' AS of_column, a.* FROM old AS o, aclexplode(o.relacl) AS a
    UNION ALL
    SELECT o.relowner, format(' (%I)', t.attname), a.*
    FROM old AS o, pg_attribute AS t, aclexplode(t.attacl) AS a
    WHERE t.attrelid = o.oid AND NOT t.attisdropped AND EXISTS (
        SELECT FROM new AS n JOIN pg_attribute AS s ON s.attrelid = n.oid
        WHERE s.attname = t.attname AND NOT s.attisdropped)
)
SELECT 1 AS step, format('REVOKE ALL ON %s FROM %s', $2, CASE a.grantee
    WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END) AS statement
FROM new AS n, aclexplode(n.relacl) AS a WHERE a.grantee <> n.relowner
UNION
SELECT 2, format('GRANT %s%s ON %s TO %s%s', privilege_type, of_column, $2, CASE grantee
    WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END,
    CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
FROM grants WHERE grantee <> relowner
UNION
SELECT 3, format('ALTER %s %s SET (%s)', CASE n.relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END,
    $2, array_to_string(o.reloptions, ', '))
FROM old AS o, new AS n WHERE o.reloptions IS NOT NULL
UNION
SELECT 4, format('ALTER %s %s OWNER TO %I', CASE n.relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END,
    $2, pg_get_userbyid(o.relowner))
FROM old AS o, new AS n WHERE o.relowner <> n.relowner
ORDER BY 1, 2";

/// Gives `new` the owner, options and rights of `old`; both are qualified names as in SQL.
pub(crate) async fn hand_on(
    connection: &mut PgConnection,
    old: &str,
    new: &str,
) -> Result<(), RuntimeError> {
    let failed = || RuntimeError::postgres("keep the rights of a replaced table or view");
    let rows = sqlx::query(STATEMENTS)
        .bind(old)
        .bind(new)
        .fetch_all(&mut *connection)
        .await
        .map_err(failed())?;
    for row in rows {
        let statement: String = row.try_get("statement").map_err(failed())?;
        // Names were quoted by Postgres.
        sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(&mut *connection)
            .await
            .map_err(failed())?;
    }
    Ok(())
}

/// The options of a view that somebody set, as in SQL; empty if there are none. Replacing a view
/// resets them.
pub(crate) async fn options(
    connection: &mut PgConnection,
    view: &str,
) -> Result<String, RuntimeError> {
    let select = "SELECT array_to_string(reloptions, ', ') FROM pg_class \
                  WHERE oid = to_regclass($1)";
    let options: Option<Option<String>> = sqlx::query_scalar(select)
        .bind(view)
        .fetch_optional(connection)
        .await
        .map_err(RuntimeError::postgres("read the options of a view"))?;
    Ok(options.flatten().unwrap_or_default())
}

/// Sets options that [`options`] read.
pub(crate) async fn set_options(
    connection: &mut PgConnection,
    view: &str,
    options: &str,
) -> Result<(), RuntimeError> {
    if options.is_empty() {
        return Ok(());
    }
    let set = format!("ALTER VIEW {view} SET ({options})");
    sqlx::raw_sql(AssertSqlSafe(set))
        .execute(connection)
        .await
        .map_err(RuntimeError::postgres("keep the options of a view"))?;
    Ok(())
}

/// The descriptions of a view and its columns, as the database has them; the view's own under the
/// empty name.
pub(crate) async fn descriptions(
    connection: &mut PgConnection,
    view: &str,
) -> Result<BTreeMap<String, String>, RuntimeError> {
    let failed = || RuntimeError::postgres("read the descriptions of a view");
    let select = "SELECT coalesce(a.attname::text, '') AS name, d.description \
                  FROM pg_description AS d \
                  LEFT JOIN pg_attribute AS a ON a.attrelid = d.objoid AND a.attnum = d.objsubid \
                      AND d.objsubid <> 0 \
                  WHERE d.classoid = 'pg_class'::regclass AND d.objoid = to_regclass($1)";
    let rows = sqlx::query(select)
        .bind(view)
        .fetch_all(connection)
        .await
        .map_err(failed())?;
    rows.iter()
        .map(|row| Ok((row.try_get("name")?, row.try_get("description")?)))
        .collect::<Result<_, sqlx::Error>>()
        .map_err(failed())
}

/// The description to store: the one that the database has if a user wrote it, else the declared
/// one. `given` holds what the generation before had given; absent if that is not known.
pub(crate) fn description(
    declared: &Comment,
    present: &BTreeMap<String, String>,
    given: Option<&BTreeMap<String, String>>,
) -> Comment {
    let name = declared.column.as_deref().unwrap_or_default();
    let users = match (present.get(name), given) {
        (Some(present), Some(given)) => Some(present).filter(|text| given.get(name) != Some(text)),
        (None, _) | (_, None) => None,
    };
    Comment {
        text: users.unwrap_or(&declared.text).clone(),
        ..declared.clone()
    }
}
