//! What a rebuild would destroy: objects of users that depend on the views and tables that it must
//! drop.
//!
//! A view whose columns stay, or get further ones at the end, is replaced and keeps what depends on
//! it. A view with other columns is dropped and made anew, and tables always are. Deliberately
//! absent: rights and descriptions, which are handed on (`kept`).

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::declare::model::models_of;
use crate::error::RuntimeError;
use crate::store::generation::{Generation, Live};
use crate::store::sql::{self, qualified_table};

/// The objects that depend on the relations `$1`, except those in `$2`, and what depends on these in
/// turn. A table's keys and checks, its declared indexes (`indexes`), and the rule that makes a view a
/// view, are parts of it.
const DEPENDENTS: &str = "\
WITH RECURSIVE dropped AS (SELECT to_regclass(name)::oid AS oid FROM unnest($1::text[]) AS name),
ours AS (SELECT to_regclass(name)::oid AS oid FROM unnest($2::text[]) AS name),
reached AS (
    SELECT oid FROM dropped WHERE oid IS NOT NULL
    UNION
    SELECT r.ev_class FROM reached
    JOIN pg_depend AS d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = reached.oid
    JOIN pg_rewrite AS r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
    WHERE r.ev_class NOT IN (SELECT oid FROM ours WHERE oid IS NOT NULL)
)
SELECT pg_describe_object('pg_class'::regclass, oid, 0), o.type || ' ' || o.identity
FROM reached CROSS JOIN pg_identify_object('pg_class'::regclass, oid, 0) AS o
WHERE oid NOT IN (SELECT oid FROM dropped WHERE oid IS NOT NULL)
UNION
SELECT pg_describe_object(d.classid, d.objid, d.objsubid), o.type || ' ' || o.identity
FROM reached JOIN pg_class AS c ON c.oid = reached.oid
JOIN pg_depend AS d ON (d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid)
    OR (d.refclassid = 'pg_type'::regclass AND d.refobjid = c.reltype)
LEFT JOIN pg_rewrite AS r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
LEFT JOIN pg_constraint AS k ON d.classid = 'pg_constraint'::regclass AND k.oid = d.objid
CROSS JOIN pg_identify_object(d.classid, d.objid, d.objsubid) AS o
WHERE (d.deptype = 'n' OR d.deptype = 'a' AND c.oid IN (SELECT oid FROM dropped))
    AND (r.oid IS NULL OR r.ev_class = c.oid AND r.rulename <> '_RETURN')
    AND (k.oid IS NULL OR k.contype NOT IN ('p', 'n', 'c'))
    AND NOT EXISTS (SELECT FROM pg_class AS i WHERE d.classid = 'pg_class'::regclass
        AND i.oid = d.objid AND i.relkind = 'i' AND starts_with(i.relname, 'ix_'))
ORDER BY 1";

/// The relations of `$1` that this user may not drop, with their owners.
const OF_OTHERS: &str = "\
SELECT format('%s belongs to %s', pg_describe_object('pg_class'::regclass, c.oid, 0),
    pg_get_userbyid(c.relowner))
FROM unnest($1::text[]) AS name JOIN pg_class AS c ON c.oid = to_regclass(name)
WHERE NOT pg_has_role(c.relowner, 'USAGE')
ORDER BY 1";

/// Whether the view `$1` can be replaced by one with the columns of `$2`: each column of the old
/// view is there, at its place and with its type.
const REPLACEABLE: &str = "\
SELECT NOT EXISTS (
    SELECT FROM pg_attribute AS o
    LEFT JOIN pg_attribute AS n ON n.attrelid = to_regclass($2) AND n.attnum = o.attnum
    WHERE o.attrelid = to_regclass($1) AND o.attnum > 0
        AND (o.attname, o.atttypid, o.atttypmod, o.attcollation)
            IS DISTINCT FROM (n.attname, n.atttypid, n.atttypmod, n.attcollation))";

/// Refuses to replace `live` by `building` if that would destroy what users built on it.
///
/// # Errors
/// `InTheWay`, with the objects; `OtherOwner`; `Postgres`.
pub(crate) async fn require_nothing(
    connection: &mut PgConnection,
    live: &Live,
    building: &Generation,
) -> Result<(), RuntimeError> {
    let failed = || RuntimeError::postgres("look for objects that depend on the read model");
    let tables: Vec<String> = live
        .tables
        .iter()
        .map(|name| qualified_table(name))
        .collect();
    let mut dropped = tables.clone();
    let mut ours = tables;
    for name in &live.views {
        for schema in sql::VIEW_SCHEMAS {
            let view = sql::view_in(schema, name);
            if !is_replaceable(connection, schema, name, building).await? {
                dropped.push(view.clone());
            }
            ours.push(view);
        }
    }
    let of_others: Vec<String> = sqlx::query_scalar(OF_OTHERS)
        .bind(&ours)
        .fetch_all(&mut *connection)
        .await
        .map_err(failed())?;
    let projection = building.projection.name().to_owned();
    if !of_others.is_empty() {
        return Err(RuntimeError::OtherOwner {
            projection,
            objects: of_others.join(", "),
        });
    }
    let objects = dependents(connection, &dropped, &ours).await?;
    let objects = objects.into_iter();
    let objects = objects.filter(|(_, identity)| !live.prepared.contains(identity));
    let objects: Vec<String> = objects.map(|(described, _)| described).collect();
    if !objects.is_empty() {
        return Err(RuntimeError::InTheWay {
            projection,
            objects: objects.join(", "),
        });
    }
    Ok(())
}

/// What depends on the relations `dropped`, except `ours`: each described for people, and named in a
/// form that no setting of the server changes.
pub(crate) async fn dependents(
    connection: &mut PgConnection,
    dropped: &[String],
    ours: &[String],
) -> Result<Vec<(String, String)>, RuntimeError> {
    let failed = RuntimeError::postgres("look for objects that depend on the read model");
    sqlx::query_as(DEPENDENTS)
        .bind(dropped)
        .bind(ours)
        .fetch_all(connection)
        .await
        .map_err(failed)
}

/// Whether a live view can be replaced without dropping it. The new view is made beside it for a
/// moment, so that nobody who reads the old one has to wait.
async fn is_replaceable(
    connection: &mut PgConnection,
    schema: &'static str,
    view: &str,
    building: &Generation,
) -> Result<bool, RuntimeError> {
    let failed = || RuntimeError::postgres("compare the columns of a view");
    let models = models_of(&*building.projection);
    let Some(model) = models.iter().find(|model| model.name == view) else {
        return Ok(false);
    };
    if !building.view_schemas().contains(&schema) {
        return Ok(false);
    }
    let beside = building.table_name(view);
    let create = building.create_view(schema, &beside, model);
    let mut trial = connection.begin().await.map_err(failed())?;
    sqlx::raw_sql(AssertSqlSafe(create))
        .execute(&mut *trial)
        .await
        .map_err(failed())?;
    let is_replaceable = sqlx::query_scalar(REPLACEABLE)
        .bind(sql::view_in(schema, view))
        .bind(sql::view_in(schema, &beside))
        .fetch_one(&mut *trial)
        .await
        .map_err(failed())?;
    trial.rollback().await.map_err(failed())?;
    Ok(is_replaceable)
}
