//! What an operator can do next about versions of a read model that stand beside each other.
//!
//! Deliberately absent: how the projections are doing otherwise (`report`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sqlx::PgConnection;

use crate::declare::projection::Projection;
use crate::error::RuntimeError;
use crate::run::report::Report;
use crate::store::generation::{rule_of, version_of};
use crate::store::in_place;

/// A generation, as far as it matters here.
struct One {
    state: String,
    version: i32,
    rule: String,
    purpose: String,
    is_held: bool,
}

/// Tells each report what is next.
pub(crate) async fn add(
    connection: &mut PgConnection,
    projections: &[Arc<dyn Projection>],
    reports: &mut BTreeMap<String, Report>,
) -> Result<(), RuntimeError> {
    let failed = || RuntimeError::postgres("read which versions there are");
    let select = "SELECT g.projection, g.state, g.version, g.rule, g.purpose, \
                      EXISTS (SELECT FROM annals.lease AS l WHERE l.projection = g.projection \
                          AND l.generation = g.generation) AS is_held \
                  FROM annals.generation AS g ORDER BY g.generation";
    let found: Vec<(String, String, i32, String, String, bool)> = sqlx::query_as(select)
        .fetch_all(&mut *connection)
        .await
        .map_err(failed())?;
    let declined: Vec<String> = sqlx::query_scalar("SELECT rule FROM annals.declined")
        .fetch_all(connection)
        .await
        .map_err(failed())?;
    let declined = declined.into_iter().collect();
    let mut all: BTreeMap<String, Vec<One>> = BTreeMap::new();
    for (projection, state, version, rule, purpose, is_held) in found {
        all.entry(projection).or_default().push(One {
            state,
            version,
            rule,
            purpose,
            is_held,
        });
    }
    for (name, report) in reports {
        let own = projections.iter().find(|p| p.name() == name);
        let declared = own.map(|p| (version_of(&**p), rule_of(&**p)));
        let generations = all.get(name).map_or(&[][..], Vec::as_slice);
        report.next = match own {
            Some(own) if in_place::is_filled(&**own) => {
                in_place_next(name, version_of(&**own), &rule_of(&**own), generations)
            }
            _ => next(name, declared, generations, &declined),
        };
    }
    Ok(())
}

/// What is next for tables that others made: there is one set of them.
fn in_place_next(name: &str, version: i32, rule: &str, all: &[One]) -> Option<String> {
    let live = all.iter().find(|one| one.state == "live")?;
    let is_newer = version > live.version && rule != live.rule;
    is_newer.then(|| {
        format!(
            "version {} is live, and this program has version {version}; its tables cannot stand \
             beside themselves; to empty them and fill them again: annals projections rebuild {name}",
            live.version
        )
    })
}

fn next(
    name: &str,
    declared: Option<(i32, String)>,
    all: &[One],
    declined: &BTreeSet<String>,
) -> Option<String> {
    let of = |state: &str| all.iter().find(|one| one.state == state);
    let live = of("live")?;
    if let Some(ready) = of("ready") {
        let has = declared
            .as_ref()
            .is_none_or(|(_, rule)| *rule == ready.rule);
        let with = match has {
            true => "",
            false => ", with a program of that version",
        };
        return Some(format!(
            "version {} is built and waits beside version {}, which is live: annals projections \
             switch {name}{with}",
            ready.version, live.version
        ));
    }
    if let Some(building) = of("building")
        && building.purpose != "verify"
    {
        let then = match building.purpose.as_str() {
            "wait" => format!("once it is ready: annals projections switch {name}"),
            _ => "it becomes the live one once it is ready".to_owned(),
        };
        let then = match building.is_held {
            true => then,
            false => format!(
                "no process builds it: start one that has it, or drop it: annals projections \
                 cancel {name}"
            ),
        };
        return Some(format!(
            "version {} is built beside version {}, which is live; {then}",
            building.version, live.version
        ));
    }
    let (version, rule) = declared.filter(|(_, rule)| *rule != live.rule)?;
    let then = if version == live.version {
        format!(
            "its declarations changed: raise its version and build it: annals projections rebuild \
             {name}"
        )
    } else if version < live.version {
        match all.iter().any(|o| o.state == "retired" && o.rule == rule) {
            true => format!("to show it again: annals projections rollback {name}"),
            false => "start a newer program".to_owned(),
        }
    } else if all.iter().any(|o| o.state == "retired" && o.rule == rule) {
        format!("to show it again: annals projections rollback {name}")
    } else if declined.contains(&rule) {
        format!(
            "it was cancelled or rolled back; to build it again: annals projections rebuild {name} \
             --no-switch"
        )
    } else {
        "a process with the role projector builds it beside the live one".to_owned()
    };
    Some(format!(
        "version {} is live, and this program has version {version}; {then}",
        live.version
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(state: &str, version: i32, purpose: &str) -> One {
        One {
            state: state.to_owned(),
            version,
            rule: format!("v{version}"),
            purpose: purpose.to_owned(),
            is_held: true,
        }
    }

    #[test]
    fn the_next_command_follows_from_the_versions() {
        let live = || one("live", 1, "switch");
        let abandoned = One {
            is_held: false,
            ..one("building", 2, "wait")
        };
        let declined = BTreeSet::from(["v9".to_owned()]);
        for (declared, generations, says) in [
            (1, vec![live()], None),
            (
                1,
                vec![live(), one("ready", 1, "wait")],
                Some("switch sales"),
            ),
            (
                2,
                vec![live(), one("ready", 2, "wait")],
                Some("switch sales"),
            ),
            (
                2,
                vec![live(), one("building", 2, "wait")],
                Some("once it is ready: annals"),
            ),
            (
                2,
                vec![live(), one("building", 2, "switch")],
                Some("it becomes the live one"),
            ),
            (1, vec![live(), one("building", 1, "verify")], None),
            (1, vec![live(), abandoned], Some("cancel sales")),
            (2, vec![live()], Some("the role projector")),
            (9, vec![live()], Some("rebuild sales --no-switch")),
            (
                2,
                vec![live(), one("retired", 2, "switch")],
                Some("rollback sales"),
            ),
            (0, vec![live()], Some("start a newer program")),
            (
                0,
                vec![live(), one("retired", 0, "switch")],
                Some("rollback sales"),
            ),
        ] {
            let own = Some((declared, format!("v{declared}")));
            let said = next("sales", own, &generations, &declined);
            let is_said = said
                .as_deref()
                .is_some_and(|said| said.contains(says.unwrap_or("")));
            assert_eq!(is_said, says.is_some(), "{said:?}: {says:?}");
        }
    }
}
