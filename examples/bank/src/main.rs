//! The program.

use std::process::ExitCode;

fn main() -> ExitCode {
    bank::app().run()
}
