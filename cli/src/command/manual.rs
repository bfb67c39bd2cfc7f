//! What the program tells about itself: exit codes, completions for shells, manual pages.

use std::path::Path;

use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::logging::talk;
use crate::settings::Settings;
use crate::{Domain, command_line, node, output};

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

pub(super) fn completions(domain: &Domain, shell: clap_complete::Shell) -> Result<Exit, Failure> {
    let mut command = command_line(domain);
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command, "annals", &mut text);
    output::print(&text)?;
    Ok(Exit::Done)
}

/// Writes the manual: one page for the program and one for each command.
pub(super) fn pages(domain: &Domain, folder: &Path) -> Result<Exit, Failure> {
    node::create_folder(folder)?;
    let command = command_line(domain);
    clap_mangen::generate_to(command, folder).map_err(|error| {
        let what = format!("write manual pages into {}", folder.display());
        Failure::of(Exit::Failed, &error).while_trying(&what)
    })?;
    talk!("wrote the manual pages into {}", folder.display());
    Ok(Exit::Done)
}
