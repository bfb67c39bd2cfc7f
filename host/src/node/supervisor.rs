//! Tells the supervisor of this process (systemd, through `NOTIFY_SOCKET`) what the process is
//! doing.
//!
//! Deliberately absent: any effect if there is no supervisor.

pub(super) use sd_notify::NotifyState as State;

/// Tells the supervisor. If that fails, the process goes on.
pub(super) fn tell(states: &[State<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "could not notify the supervisor of this process");
    }
}
