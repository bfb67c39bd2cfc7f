//! What happened in a run: a digest of all of it, and lines for people where somebody listens.
//!
//! Invariant: the digest takes in every event with its moment, whether anybody listens or not.

/// Who an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// A node.
    Node(usize),
    /// A client.
    Client(usize),
    /// A projector.
    Projector(usize),
    /// The log.
    Log,
    /// The group and the directory.
    Group,
    /// Whoever injects faults.
    Fault,
}

/// Takes the lines of a trace.
pub type Listener = Box<dyn FnMut(&str)>;

/// The trace of a run.
pub struct Trace {
    digest: u64,
    listener: Option<Listener>,
}

impl Trace {
    /// A trace that `listener` hears, if there is one.
    #[must_use]
    pub fn new(listener: Option<Listener>) -> Self {
        Self {
            digest: 0,
            listener,
        }
    }

    /// The digest of everything so far.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Takes a number into the digest.
    pub fn mix(&mut self, number: u64) {
        let mixed = (self.digest ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.digest = mixed.rotate_left(23);
    }

    /// Notes an event; `text` is asked only if somebody listens.
    pub fn say(&mut self, at_us: u64, who: Who, what: &str, text: impl FnOnce() -> String) {
        self.mix(at_us);
        what.bytes().for_each(|byte| self.mix(u64::from(byte)));
        let (kind, number) = match who {
            Who::Node(node) => ("node", node),
            Who::Client(client) => ("client", client),
            Who::Projector(projector) => ("projector", projector),
            Who::Log => ("log", usize::MAX),
            Who::Group => ("group", usize::MAX),
            Who::Fault => ("FAULT", usize::MAX),
        };
        self.mix(number as u64 ^ kind.len() as u64);
        if let Some(listener) = &mut self.listener {
            let name = match number {
                usize::MAX => kind.to_owned(),
                number => format!("{kind} {number}"),
            };
            let (seconds, micros) = (at_us / 1_000_000, at_us % 1_000_000);
            listener(&format!(
                "{seconds:>3}.{micros:06}  {name:<12} {what:<22} {}",
                text()
            ));
        }
    }
}
