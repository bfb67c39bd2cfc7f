//! How the projections are doing, and what can be done with them.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use door::{JsonText, NoQuery, Path, Problem};
use projector::{Actor, Process, Purpose, Report};
use serde::Serialize;

use super::{AdminDoor, Asked, actor, code, failed, said};

/// Rates are computed from looks that are at least so far apart.
const RATE_OVER: Duration = Duration::from_secs(1);
/// A look that is older than this is no longer compared with.
const LOOK_KEPT: Duration = Duration::from_secs(60);

#[derive(Serialize)]
struct Projections {
    projections: Vec<Report>,
}

/// `GET /v1/projections`
pub(super) async fn all(State(door): State<AdminDoor>, _: NoQuery) -> Result<Response, Problem> {
    let projections = door.reports().await?;
    Ok(Json(Projections { projections }).into_response())
}

/// `GET /v1/projections/{name}`
pub(super) async fn one(
    State(door): State<AdminDoor>,
    Path(name): Path<String>,
    _: NoQuery,
) -> Result<Response, Problem> {
    Ok(Json(door.report(&name).await?).into_response())
}

#[derive(Serialize)]
struct Members {
    members: Vec<Process>,
}

/// `GET /v1/members`
pub(super) async fn members(
    State(door): State<AdminDoor>,
    _: NoQuery,
) -> Result<Response, Problem> {
    let mut operator = door.operator().await?;
    let members = operator.processes().await.map_err(|error| failed(&error))?;
    Ok(Json(Members { members }).into_response())
}

/// `POST /v1/projections/{name}/{action}`
pub(super) async fn control(
    State(door): State<AdminDoor>,
    Path((name, action)): Path<(String, String)>,
    _: NoQuery,
    headers: HeaderMap,
    JsonText(body): JsonText,
) -> Result<Response, Problem> {
    door.require_controls()?;
    let (asked, by) = (Asked::of(&body)?, actor(&headers)?);
    let who = said(&by, &asked);
    if action == "drop" {
        return drop_one(&door, &name, who).await;
    }
    let mut operator = door.operator().await?;
    let keep = asked.keep().unwrap_or_default();
    let mut status = StatusCode::OK;
    let done = match action.as_str() {
        "pause" => operator.pause(&name, who).await,
        "resume" => operator.resume(&name, who).await.map(drop),
        "cancel" => operator.cancel(&name, who).await.map(drop),
        "switch" => operator.switch(&name, keep, who).await.map(drop),
        "rollback" => operator.roll_back(&name, keep, who).await.map(drop),
        "rebuild" | "verify" => {
            // The work goes on after the answer.
            status = StatusCode::ACCEPTED;
            let purpose = match (action.as_str(), asked.no_switch) {
                ("verify", _) => Purpose::Verify,
                (_, Some(true)) => Purpose::Wait,
                (_, _) => Purpose::Switch { keep },
            };
            operator.rebuild(&name, purpose, who).await.map(drop)
        }
        _ => {
            let detail = format!(
                "there is no action {action:?}; the actions are: pause, resume, rebuild, verify, \
                 cancel, switch, rollback, drop"
            );
            return Err(Problem::new(code::ACTION_UNKNOWN, detail));
        }
    };
    done.map_err(|error| failed(&error))?;
    // The report needs a connection, too.
    drop(operator);
    Ok((status, Json(door.report(&name).await?)).into_response())
}

#[derive(Serialize)]
struct Dropped<'a> {
    name: &'a str,
    generations: usize,
}

/// Drops what Postgres has of a projection that this program does not have any more.
async fn drop_one(door: &AdminDoor, name: &str, who: Actor<'_>) -> Result<Response, Problem> {
    let mut operator = door.operator().await?;
    let generations = operator.drop_projection(name, who).await;
    match generations.map_err(|error| failed(&error))? {
        0 => Err(unknown(name)),
        generations => Ok(Json(Dropped { name, generations }).into_response()),
    }
}

fn unknown(name: &str) -> Problem {
    let detail = format!("there is no projection {name:?}");
    Problem::new(code::PROJECTION_UNKNOWN, detail)
}

impl AdminDoor {
    /// How every projection is doing, with rates if there was an earlier look.
    async fn reports(&self) -> Result<Vec<Report>, Problem> {
        let inner = &self.inner;
        let mut operator = self.operator().await?;
        let reports = operator.report(Some(&*inner.log)).await;
        drop(operator);
        let mut reports = reports.map_err(|error| failed(&error))?;
        let mut earlier = inner.earlier.lock().unwrap_or_else(PoisonError::into_inner);
        let age = earlier.as_ref().map(|(at, _)| at.elapsed());
        if let (Some(age), Some((_, earlier))) = (age, &*earlier)
            && age <= LOOK_KEPT
        {
            for report in &mut reports {
                let same = |other: &&Report| other.name == report.name;
                if let Some(other) = earlier.iter().find(same) {
                    report.observe(other, age.as_secs_f64());
                }
            }
        }
        if age.is_none_or(|age| age >= RATE_OVER) {
            *earlier = Some((Instant::now(), reports.clone()));
        }
        Ok(reports)
    }

    async fn report(&self, name: &str) -> Result<Report, Problem> {
        let reports = self.reports().await?;
        let found = reports.into_iter().find(|report| report.name == name);
        found.ok_or_else(|| unknown(name))
    }
}
