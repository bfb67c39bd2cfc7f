//! The checker, held against histories and logs made by hand: each kind of violation by its name.

#![allow(clippy::unwrap_used)]

mod clean;
mod golden;
mod random;
mod violations;
mod world;
