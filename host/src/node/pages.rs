//! What the console's pages say about this process.
//!
//! Invariant: settings are shown only where this machine alone can read them; secrets are hidden.
//! Deliberately absent: the pages (the crate `console`).

use std::net::SocketAddr;

use console::{About, Setting};

use crate::program;
use crate::settings::{Explained, Settings};

/// What the pages of a process at this address may say about it.
pub(super) fn about(settings: &Settings, address: SocketAddr) -> About {
    let is_private = address.ip().is_loopback();
    About {
        program: program::shown(),
        node: settings.node.clone(),
        settings: is_private.then(|| settings.explain().into_iter().map(shown).collect()),
    }
}

fn shown(setting: Explained) -> Setting {
    Setting {
        name: setting.setting.to_owned(),
        value: setting.value,
        source: setting.source,
        variable: setting.variable,
        meaning: setting.meaning.to_owned(),
    }
}
