//! Nothing but a home for `benches/hot_paths.rs`: how many instructions the hot paths may take.
//!
//! A crate of its own, so that they are built without what measures times beside raw loops (`bench`).
