//! The program.

use std::process::ExitCode;

fn main() -> ExitCode {
    cqrs::app().run()
}
