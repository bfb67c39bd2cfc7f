//! The model of writing in the form of the model checker, and the invariants of each state.

use std::collections::{BTreeMap, HashSet};
use std::fmt::{self, Debug};
use std::hash::Hash;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model, Property};

use crate::config::Config;
use crate::invariant;
use crate::log::Accepted;
use crate::world::{Reply, Sending, Step, World, id_of};

/// In how many steps a fault-free continuation must finish.
const ROUNDS_MAX: usize = 64;

/// The model of writing.
pub struct Writing {
    config: Config,
    /// Digests of the logs whose readers were found to agree, so that each log is compared only
    /// once.
    agreed: Mutex<HashSet<u64>>,
}

impl Writing {
    /// The model of one configuration.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            agreed: Mutex::new(HashSet::new()),
        }
    }

    /// Its configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    fn readers_agree(&self, world: &World) -> bool {
        let digest = world.log.digest();
        if self.agreed.lock().expect("nobody panics").contains(&digest) {
            return true;
        }
        let agree = world.log.readers_agree();
        if agree {
            self.agreed.lock().expect("nobody panics").insert(digest);
        }
        agree
    }

    fn finishes(&self, world: &World) -> bool {
        if !world.digest().is_multiple_of(self.config.finish_every) {
            return true;
        }
        // When the faults end, acknowledgements under way may arrive or be lost: try both.
        [false, true]
            .iter()
            .all(|lose_acks| finish(world, &self.config, *lose_acks))
    }
}

impl Model for Writing {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(&self.config)]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        world.steps(&self.config, steps);
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        Some(world.after(step, &self.config))
    }

    fn within_boundary(&self, world: &World) -> bool {
        world.spent.claims <= self.config.claims_max
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::<Self>::always(invariant::ACCEPTED_STAYS, |_, world| {
                replies(world).all(|(command, reply)| accepted_stays(world, command, reply))
            }),
            Property::<Self>::always(invariant::REFUSED_STAYS, |_, world| {
                replies(world).all(|(command, reply)| refused_stays(world, command, reply))
            }),
            Property::<Self>::always(invariant::NO_EVENT, |_, world| no_event(world)),
            Property::<Self>::always(invariant::ONCE, |_, world| holds(world, invariant::ONCE)),
            Property::<Self>::always(invariant::VERSIONS, |_, world| {
                holds(world, invariant::VERSIONS)
            }),
            Property::<Self>::always(invariant::RECORDED_TIME, |_, world| {
                holds(world, invariant::RECORDED_TIME)
            }),
            Property::<Self>::always(invariant::HISTORY, |_, world| {
                holds(world, invariant::HISTORY)
            }),
            Property::<Self>::always(invariant::DEPOSED, |_, world| {
                holds(world, invariant::DEPOSED)
            }),
            Property::<Self>::always(invariant::AGREE, |model, world| {
                holds(world, invariant::AGREE) && model.readers_agree(world)
            }),
            Property::<Self>::always(invariant::ANSWERED_ONCE, |_, world| !world.answered_twice),
        ];
        if self.config.cuts_max > 0 {
            properties.push(Property::<Self>::always(
                invariant::CUT_IS_SEEN,
                |_, world| !world.went_on_silently,
            ));
        }
        if self.config.is_sound() {
            properties.push(Property::<Self>::always(
                invariant::NO_DAMAGE,
                |_, world| {
                    !world.log.is_damaged() && world.nodes.iter().all(|node| !node.is_stopped())
                },
            ));
            properties.push(Property::<Self>::always(
                invariant::FINISHES,
                |model, world| model.finishes(world),
            ));
        }
        properties
    }
}

fn holds(world: &World, invariant: &'static str) -> bool {
    !world.log.broken().contains(invariant)
}

fn replies(world: &World) -> impl Iterator<Item = (u8, &Reply)> {
    (0..).zip(&world.sendings).flat_map(|(command, sendings)| {
        sendings.iter().filter_map(move |sending| match sending {
            Sending::Answered(reply) => Some((command, reply)),
            Sending::With(_) | Sending::Released | Sending::Lost => None,
        })
    })
}

fn of_command(world: &World, command: u8) -> impl Iterator<Item = &Accepted> {
    let id = id_of(command);
    let accepted = world.log.accepted().iter();
    accepted
        .map(|one| &**one)
        .filter(move |one| one.id == id.as_str())
}

fn accepted_stays(world: &World, command: u8, reply: &Reply) -> bool {
    let Reply::Accepted {
        position,
        version,
        events,
    } = reply
    else {
        return true;
    };
    of_command(world, command).any(|commit| {
        !commit.is_refusal
            && (commit.position, commit.version) == (*position, *version)
            && commit.events == *events
    })
}

fn refused_stays(world: &World, command: u8, reply: &Reply) -> bool {
    let Reply::Refused { position } = reply else {
        return true;
    };
    of_command(world, command).any(|commit| commit.is_refusal && commit.position == *position)
}

fn no_event(world: &World) -> bool {
    (0..).zip(&world.sendings).all(|(command, sendings)| {
        let is_no = |sending: &Sending| {
            let Sending::Answered(reply) = sending else {
                return false;
            };
            matches!(reply, Reply::NotAttempted | Reply::Refused { .. })
        };
        let refused = replies(world)
            .any(|(of, reply)| of == command && matches!(reply, Reply::Refused { .. }));
        let none_attempted = !sendings.is_empty() && sendings.iter().all(is_no);
        !(refused || none_attempted)
            || of_command(world, command).all(|commit| commit.events.is_empty())
    })
}

/// Whether every command gets an answer of the log once the faults end. From then on queued records
/// land, landed ones are acknowledged, time passes, and clients send again a command without
/// answer.
fn finish(world: &World, config: &Config, lose_acks: bool) -> bool {
    let mut world = world.clone();
    if lose_acks {
        for node in 0..config.nodes {
            while world.nodes[usize::from(node)].has_ack() {
                world = world.after(Step::LoseAcknowledgement(node), config);
            }
        }
    }
    for _ in 0..ROUNDS_MAX {
        let open = (0..config.commands.len()).find(|command| !world.is_answered(*command));
        let Some(open) = open else {
            return true;
        };
        let Some(step) = next_quiet_step(&world, config, open) else {
            return false;
        };
        world = world.after(step, config);
    }
    false
}

fn next_quiet_step(world: &World, config: &Config, open: usize) -> Option<Step> {
    let nodes = || (0..config.nodes).zip(&world.nodes);
    for (id, node) in nodes() {
        if let Some(is_served) = node.is_reading() {
            let late = !is_served && config.reads == crate::config::Reads::LaterAndLate;
            return Some(if late {
                Step::Serve(id)
            } else {
                Step::Read(id)
            });
        }
        if node.queued() > 0 {
            return Some(Step::Land(id));
        }
        if node.has_ack() {
            return Some(Step::Acknowledge(id));
        }
    }
    let decides = nodes().find(|(_, node)| node.takes_commands());
    let is_under_way = world.sendings[open]
        .iter()
        .any(|sending| matches!(sending, Sending::With(_) | Sending::Released));
    if let Some((node, _)) = decides {
        if !world.released.is_empty() {
            return Some(Step::Route { node });
        }
        if !is_under_way {
            let command = u8::try_from(open).expect("few commands");
            return Some(Step::Send { command, node });
        }
    }
    // Nothing is under way: let time pass, first for a node that waits for an append.
    let waits = |backs_off| {
        nodes().find(move |(_, node)| node.waits_for_time() && node.is_backing_off() == backs_off)
    };
    waits(false)
        .or_else(|| waits(true))
        .map(|(id, _)| Step::Tick(id))
}

/// The result of checking a model.
#[derive(Debug)]
pub struct Report {
    /// How many steps were taken.
    pub steps: usize,
    /// How many different states there are.
    pub states: usize,
    /// The longest path to a state.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// The broken invariants, each with the steps that lead there.
    pub broken: BTreeMap<&'static str, Vec<String>>,
}

impl Report {
    fn of<M>(checker: &impl Checker<M>, start: Instant) -> Self
    where
        M: Model,
        M::State: Clone + Hash + PartialEq + Debug,
        M::Action: Clone + Debug + PartialEq,
    {
        let broken = checker.discoveries().into_iter().map(|(name, path)| {
            let (mut way, mut last) = (Vec::new(), None);
            for (state, step) in path.into_vec() {
                way.extend(step.map(|step| format!("{step:?}")));
                last = Some(state);
            }
            way.extend(last.map(|state| format!("{state:?}")));
            (name, way)
        });
        Self {
            steps: checker.state_count(),
            states: checker.unique_state_count(),
            depth: checker.max_depth(),
            took: start.elapsed(),
            broken: broken.collect(),
        }
    }

    /// The names of the broken invariants.
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        self.broken.keys().copied().collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            steps,
            states,
            depth,
            took,
            broken,
        } = self;
        let seconds = took.as_secs_f64();
        write!(
            f,
            "{states} states, {steps} steps, at most {depth} deep, {seconds:.1} s"
        )?;
        for (name, way) in broken {
            write!(f, "\nbroken: {name}")?;
            for step in way {
                write!(f, "\n  {step}")?;
            }
        }
        Ok(())
    }
}

/// Visits every state of a model.
pub fn exhaust<M>(model: M, threads: usize) -> Report
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq + Send + Sync + 'static,
{
    let start = Instant::now();
    // Depth first keeps few states in memory at a time.
    let checker = model.checker().threads(threads).spawn_dfs().join();
    Report::of(&checker, start)
}

/// Visits the states of a model in breadth-first order until `invariant` is found broken.
pub fn seek<M>(model: M, threads: usize, invariant: &'static str) -> Report
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq + Send + Sync + 'static,
{
    let start = Instant::now();
    let sought = HasDiscoveries::AnyOf([invariant].into());
    let checker = model.checker().threads(threads).finish_when(sought);
    Report::of(&checker.spawn_bfs().join(), start)
}
