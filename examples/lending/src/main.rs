//! The library's program: everything that `annals` can do, for books.
//!
//! ```text
//! cargo run -p lending -- dev
//! cargo run -p lending -- send book-1 LendBook '{"reader":7,"due":"2030-01-31T12:00:00Z"}'
//! curl -s http://127.0.0.1:4747/v1/read/readers/7
//! ```

use std::process::ExitCode;

fn main() -> ExitCode {
    annals::app("lending")
        .registry(lending::registry())
        .projections(lending::projections())
        .run()
}
