//! Tests of the checker on handmade histories and logs: each kind of violation by its name.

#![allow(clippy::unwrap_used)]

mod clean;
mod golden;
mod random;
mod violations;
mod world;
