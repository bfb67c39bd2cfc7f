//! The shop's `annals` once more, as a program of this package: otherwise cargo would not build it
//! before the tests that start, signal and kill it.

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::app().run()
}
