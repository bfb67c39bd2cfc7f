//! What every program built on Annals can do: all roles and all tools, for any domain.
//!
//! A program names its rules and read models and runs them ([`app()`]); `cli` does so for
//! the shop, `examples/bank` for a bank. Other people's programs do it through the crate `annals`.
//! Invariant: data goes to stdout, messages go to stderr, and the exit code is one of a frozen table.
//! Deliberately absent: any rule and any read model.

// `println!` and `eprintln!` panic if they cannot write; `talk!` and `output` do not.
#![deny(clippy::print_stderr, clippy::print_stdout)]

mod app;
pub mod args;
pub mod command;
pub mod exit;
pub mod logging;
pub mod node;
pub mod output;
mod private;
pub mod program;
pub mod progress;
pub mod settings;
pub mod signals;
mod stderr;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(all(feature = "steady-waits", target_os = "linux", target_env = "gnu"))]
pub mod waits;

pub use app::{App, Domain, Subcommand, app};

/// Owners make and drop many small values on all threads, at which the system's allocator is slow.
/// A program built on this crate that wants another allocator turns the feature `mimalloc` off.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
