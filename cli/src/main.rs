//! The binary `annals`.

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::app().run()
}
