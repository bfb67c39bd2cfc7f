//! The program of the old release of the lamps, for tests of upgrades.

use std::process::ExitCode;

fn main() -> ExitCode {
    tests::lamp::old().run()
}
