//! Tells whoever supervises this process (systemd, through `NOTIFY_SOCKET`) what it is doing.
//!
//! Deliberately absent: any effect where nobody supervises.

pub(super) use sd_notify::NotifyState as State;

/// Tells it; a supervisor that does not hear is no reason to stop.
pub(super) fn tell(states: &[State<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the supervisor of this process could not be told");
    }
}
