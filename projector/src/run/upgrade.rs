//! What a process does if the live read model of one of its projections was made by another rule: a
//! new version is built beside it, and waits there for a switch.
//!
//! Invariant: only a version higher than the live one is built by itself, and of several the highest;
//! a process never drops what an operator is building. Deliberately absent: the building itself
//! (`conduct`, `lane`), and how it begins in Postgres (`store::new_version`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kernel::explained;
use sqlx::PgConnection;

use crate::declare::projection::Projection;
use crate::error::RuntimeError;
use crate::run::measure;
use crate::run::rebuild::Purpose;
use crate::store::generation::{self, rule_of, version_of};
use crate::store::in_place;
use crate::store::members::{GenerationState, Look, Seen};
use crate::store::new_version::{self, Begun};

/// The pause before a process tries again to begin a building.
const TRY_EVERY: Duration = Duration::from_secs(5);
/// For how long the tables are kept that a new version replaces by itself, so that it can be rolled
/// back.
const KEEP: Duration = Duration::from_secs(3_600);

/// What becomes of a new version once it was built and compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NewVersion {
    /// It is kept current beside the live one until somebody switches.
    #[default]
    Waits,
    /// It replaces the live one by itself.
    Switches,
    /// It is not built.
    Ignored,
}

/// How a program's rule relates to the generations that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upgrade {
    /// There is no live generation, or it was made by this rule.
    None,
    /// The live one was made by a newer program.
    Older,
    /// The live one has the same version and other declarations.
    Changed,
    /// The new version must be built.
    Due {
        /// The live version.
        live: i32,
    },
    Building,
    Ready,
    /// It was live before, and is kept.
    RolledBack,
    /// A newer program builds a higher version.
    Superseded,
    /// An operator's rebuild is under way or waits.
    Busy,
}

/// Judges by the names and versions alone.
pub(crate) fn judge(projection: &dyn Projection, look: &Look) -> Upgrade {
    let (rule, version) = (rule_of(projection), version_of(projection));
    let all = look.generations.iter();
    let all = all.filter(|(id, _)| id.projection == projection.name());
    let all: Vec<&Seen> = all.map(|(_, seen)| seen).collect();
    let of = |state: GenerationState| all.iter().filter(move |seen| seen.state == state);
    let Some(live) = of(GenerationState::Live).next() else {
        return Upgrade::None;
    };
    if live.rule == rule {
        return Upgrade::None;
    }
    if live.version >= version {
        return match live.version == version {
            true => Upgrade::Changed,
            false => Upgrade::Older,
        };
    }
    let has = |state| of(state).any(|seen| seen.rule == rule);
    if has(GenerationState::Ready) {
        return Upgrade::Ready;
    }
    if has(GenerationState::Building) {
        return Upgrade::Building;
    }
    let mut others = of(GenerationState::Building).chain(of(GenerationState::Ready));
    if others.clone().any(|seen| seen.version > version) {
        return Upgrade::Superseded;
    }
    let is_in_the_way =
        |seen: &&Seen| seen.version <= live.version || seen.version == version || !seen.by_itself;
    if others.any(is_in_the_way) {
        return Upgrade::Busy;
    }
    if has(GenerationState::Retired) {
        return Upgrade::RolledBack;
    }
    Upgrade::Due { live: live.version }
}

/// What a process says of the read models that another rule made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Said {
    /// What is wrong.
    pub(crate) problems: Vec<String>,
    /// What an operator should know.
    pub(crate) warnings: Vec<String>,
}

/// What a process knows of its new versions.
#[derive(Default)]
pub(crate) struct Upgrades {
    /// Why it does not write live generations that another rule made, by rule.
    outdated: BTreeMap<String, String>,
    /// When it last tried to begin a building, and why it did not.
    tried: BTreeMap<&'static str, (Instant, Option<String>)>,
}

impl Upgrades {
    /// Begins what is due, and tells what there is to know.
    pub(crate) async fn arrange(
        &mut self,
        connection: &mut PgConnection,
        projections: &[Arc<dyn Projection>],
        look: &Look,
        (new_version, by): (NewVersion, &str),
    ) -> Result<Said, RuntimeError> {
        let mut said = Said::default();
        for projection in projections {
            let upgrade = judge(&**projection, look);
            if upgrade == Upgrade::None {
                self.tried.remove(projection.name());
                continue;
            }
            // What is filled in place cannot stand beside itself: an operator rebuilds it.
            let is_newer = !matches!(upgrade, Upgrade::Older | Upgrade::Changed)
                && !in_place::is_filled(&**projection);
            if !is_newer || new_version == NewVersion::Ignored {
                let problem = self.outdated(connection, &**projection, look).await?;
                said.problems.extend(problem);
                continue;
            }
            if let Upgrade::Due { .. } = upgrade
                && !is_paused(&**projection, look)
            {
                self.begin(connection, projection, new_version, by).await;
            }
            let (warning, is_problem) = self.explained(&**projection, upgrade, look);
            match is_problem {
                true => said.problems.push(warning),
                false => said.warnings.push(warning),
            }
        }
        Ok(said)
    }

    /// Why this process does not write a live read model, and builds no other.
    async fn outdated(
        &mut self,
        connection: &mut PgConnection,
        projection: &dyn Projection,
        look: &Look,
    ) -> Result<Option<String>, RuntimeError> {
        let name = projection.name();
        let Some(live) = live_of(projection, look) else {
            return Ok(None);
        };
        if let Some(known) = self.outdated.get(&live.rule) {
            return Ok(Some(known.clone()));
        }
        let found = generation::live(connection, name).await?;
        let Some(reason) = found.and_then(|found| found.differs(projection)) else {
            return Ok(None);
        };
        tracing::error!(
            projection = name,
            reason,
            "the projection stopped; the other projections go on"
        );
        measure::stopped(name);
        let problem = format!("{name}: {reason}");
        self.outdated.insert(live.rule.clone(), problem.clone());
        Ok(Some(problem))
    }

    /// Tries to begin a building, not too often. A failure concerns this projection alone.
    async fn begin(
        &mut self,
        connection: &mut PgConnection,
        projection: &Arc<dyn Projection>,
        new_version: NewVersion,
        by: &str,
    ) {
        let (name, version) = (projection.name(), projection.version());
        let is_soon = |(at, _): &(Instant, Option<String>)| at.elapsed() < TRY_EVERY;
        if self.tried.get(name).is_some_and(is_soon) {
            return;
        }
        let purpose = match new_version {
            NewVersion::Switches => Purpose::Switch { keep: KEEP },
            NewVersion::Waits | NewVersion::Ignored => Purpose::Wait,
        };
        let begun = new_version::begin(connection, projection, purpose, by).await;
        let why = match begun {
            Ok(Begun::Building(generation)) => {
                tracing::info!(
                    projection = name,
                    version,
                    generation,
                    "a new version is built beside the live one"
                );
                None
            }
            Ok(Begun::NotDue) => None,
            Ok(Begun::Declined) => Some(format!(
                "it was cancelled or rolled back, and is not built again by itself; to build it: \
                 annals projections rebuild {name} --no-switch"
            )),
            Err(error) => {
                let reason = explained(&error);
                tracing::warn!(projection = name, reason, "a new version is not built");
                Some(format!("it cannot be built: {reason}"))
            }
        };
        self.tried.insert(name, (Instant::now(), why));
    }

    /// What is to be said of a new version, and whether something is wrong.
    fn explained(
        &self,
        projection: &dyn Projection,
        upgrade: Upgrade,
        look: &Look,
    ) -> (String, bool) {
        let (name, version) = (projection.name(), projection.version());
        let live = live_of(projection, look);
        let live_version = live.map_or(0, |live| live.version);
        let tried = self.tried.get(name).and_then(|(_, why)| why.as_deref());
        let state = match upgrade {
            Upgrade::None | Upgrade::Older | Upgrade::Changed | Upgrade::Building => {
                "it is being built beside it".to_owned()
            }
            Upgrade::Due { .. } => tried.unwrap_or("it is about to be built").to_owned(),
            Upgrade::Ready => format!(
                "it is built and waits beside it; to show it: annals projections switch {name}"
            ),
            Upgrade::RolledBack => format!(
                "it was rolled back and is kept; to show it again: annals projections rollback {name}"
            ),
            Upgrade::Superseded => "a newer program builds a higher version".to_owned(),
            Upgrade::Busy => format!(
                "it is built once another rebuild has ended; to end that one: annals projections \
                 switch {name}, or annals projections cancel {name}"
            ),
        };
        let text = format!(
            "{name}: version {live_version} is live, and this program has version {version}: {state}"
        );
        // Nobody keeps the live rows current.
        let stands_still = live.is_some_and(|live| live.leases.is_empty() && !live.is_paused);
        match stands_still {
            true => {
                let why = format!("{text}; no process takes up version {live_version} any more");
                (why, true)
            }
            false => (text, false),
        }
    }
}

fn live_of<'l>(projection: &dyn Projection, look: &'l Look) -> Option<&'l Seen> {
    let all = look.generations.iter();
    let mut own = all.filter(|(id, _)| id.projection == projection.name());
    own.find(|(_, seen)| seen.state == GenerationState::Live)
        .map(|(_, seen)| seen)
}

fn is_paused(projection: &dyn Projection, look: &Look) -> bool {
    live_of(projection, look).is_some_and(|live| live.is_paused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::declare::rules::Rules;
    use crate::store::members::GenerationId;

    fn rule(version: u32) -> Rules {
        Rules::new("sales", version, &[])
    }

    fn look(generations: &[(GenerationState, &str, i32)]) -> Look {
        let seen = |(state, rule, version): &(GenerationState, &str, i32)| Seen {
            state: *state,
            rule: (*rule).to_owned(),
            version: *version,
            places: BTreeMap::new(),
            leases: BTreeMap::new(),
            waits: true,
            by_itself: true,
            is_paused: false,
            stopped: BTreeMap::new(),
        };
        let id = |number| GenerationId {
            projection: "sales".to_owned(),
            number,
        };
        let all = generations.iter().zip(1..);
        Look {
            members: Vec::new(),
            generations: all.map(|(g, number)| (id(number), seen(g))).collect(),
        }
    }

    #[test]
    fn only_the_highest_version_above_the_live_one_is_built() {
        use GenerationState::{Building, Live, Ready, Retired};
        let own = rule_of(&rule(2));
        let own = own.as_str();
        for (generations, expected) in [
            (&[][..], Upgrade::None),
            (&[(Live, own, 2)], Upgrade::None),
            (&[(Live, own, 2), (Building, "v3", 3)], Upgrade::None),
            (&[(Live, "v3", 3)], Upgrade::Older),
            // The old one is kept for a rollback: this process keeps it current.
            (&[(Live, "v3", 3), (Retired, own, 2)], Upgrade::Older),
            (&[(Live, "other", 2)], Upgrade::Changed),
            (&[(Live, "v1", 1)], Upgrade::Due { live: 1 }),
            (&[(Live, "v1", 1), (Building, own, 2)], Upgrade::Building),
            (&[(Live, "v1", 1), (Ready, own, 2)], Upgrade::Ready),
            (&[(Live, "v1", 1), (Retired, own, 2)], Upgrade::RolledBack),
            (
                &[(Live, "v1", 1), (Retired, "v0", 0)],
                Upgrade::Due { live: 1 },
            ),
            (&[(Live, "v1", 1), (Building, "v3", 3)], Upgrade::Superseded),
            // That of an operator.
            (&[(Live, "v1", 1), (Building, "v1", 1)], Upgrade::Busy),
            (&[(Live, "v1", 1), (Ready, "other", 2)], Upgrade::Busy),
            // That of an older program gives way.
            (
                &[(Live, "v0", 0), (Ready, "v1", 1)],
                Upgrade::Due { live: 0 },
            ),
        ] {
            assert_eq!(
                judge(&rule(2), &look(generations)),
                expected,
                "{generations:?}"
            );
        }
    }

    #[test]
    fn what_an_operator_is_building_does_not_give_way() {
        use GenerationState::{Building, Live};
        let mut look = look(&[(Live, "v0", 0), (Building, "v1", 1)]);
        assert_eq!(judge(&rule(2), &look), Upgrade::Due { live: 0 });
        for seen in look.generations.values_mut() {
            seen.by_itself = false;
        }
        assert_eq!(judge(&rule(2), &look), Upgrade::Busy);
    }
}
