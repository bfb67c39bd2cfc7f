//! What the program tells about itself: exit codes, completions for shells, manual pages.

use std::path::Path;

use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::logging::talk;
use crate::settings::Settings;
use crate::{node, output, program};

#[derive(Serialize)]
struct Row {
    code: u8,
    name: &'static str,
    meaning: &'static str,
}

pub(super) fn exit_codes(settings: &Settings) -> Result<Exit, Failure> {
    let rows = Exit::ALL.map(|exit| Row {
        code: exit.code(),
        name: exit.name(),
        meaning: exit.meaning(),
    });
    output::rows(settings.output, &["code", "name", "meaning"], &rows)?;
    Ok(Exit::Done)
}

pub(super) fn completions(
    mut line: clap::Command,
    shell: clap_complete::Shell,
) -> Result<Exit, Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut line, program::name(), &mut text);
    output::print(&text)?;
    Ok(Exit::Done)
}

/// Writes the manual: one page for the program and one for each command.
pub(super) fn pages(line: clap::Command, folder: &Path) -> Result<Exit, Failure> {
    node::create_folder(folder)?;
    clap_mangen::generate_to(line, folder).map_err(|error| {
        let what = format!("write manual pages into {}", folder.display());
        Failure::of(Exit::Failed, &error).while_trying(&what)
    })?;
    talk!("wrote the manual pages into {}", folder.display());
    Ok(Exit::Done)
}
