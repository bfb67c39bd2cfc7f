//! Only a home for `benches/hot_paths.rs`, which counts the instructions of the hot paths.
//!
//! A crate of its own, so that the hot paths are built without the dependencies that `bench` needs
//! to measure times.
