//! The program of the new release of the lamps, for tests of upgrades.

use std::process::ExitCode;

fn main() -> ExitCode {
    tests::lamp::new().run()
}
