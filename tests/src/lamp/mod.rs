//! A domain in two versions: what an upgrade meets when programs of both run on one log.
//!
//! `old` is the first release. In `new`, an event has a second shape with an upcaster, there is a
//! type of event more, and the rules have another version. Deliberately absent: anything else.

pub mod new;
pub mod old;

use host::App;
use kernel::registry::Registry;

/// The program of the first release.
pub fn old() -> App {
    host::app("lamp").registry(Registry::new().with::<old::Lamp>())
}

/// The program of the second release.
pub fn new() -> App {
    host::app("lamp").registry(Registry::new().with::<new::Lamp>())
}
