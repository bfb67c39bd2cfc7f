//! The trace of a run: a digest of everything that happened, and lines for people if somebody
//! listens.
//!
//! Invariant: the digest covers every event with its time, whether anybody listens or not.

/// Who an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Node(usize),
    Client(usize),
    Projector(usize),
    Log,
    /// The group and the directory.
    Group,
    /// The injection of faults.
    Fault,
}

/// Receives the lines of a trace.
pub type Listener = Box<dyn FnMut(&str)>;

pub struct Trace {
    pub(super) digest: u64,
    pub(super) listener: Option<Listener>,
}

impl Trace {
    pub fn mix(&mut self, number: u64) {
        let mixed = (self.digest ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.digest = mixed.rotate_left(23);
    }

    /// Notes an event; `text` is called only if somebody listens.
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
