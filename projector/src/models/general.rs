//! The read models that suit every domain.
//!
//! Deliberately absent: their rules (`stream_index`, `rejections`, `commit_index`).

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::{CommitIndex, Projection, Rejections, StreamIndex};

/// A domain's own read models together with those that suit every domain. The latter come first:
/// each of their rows belongs to one stream, and a transaction writes in this order.
///
/// # Panics
/// If two of them have the same name: their checkpoints would be one.
#[must_use]
pub fn with_general(own: Vec<Arc<dyn Projection>>) -> Vec<Arc<dyn Projection>> {
    let general: [Arc<dyn Projection>; 3] = [
        Arc::new(StreamIndex),
        Arc::new(Rejections),
        Arc::new(CommitIndex),
    ];
    let all: Vec<_> = general.into_iter().chain(own).collect();
    let mut names = BTreeSet::new();
    for projection in &all {
        let name = projection.name();
        assert!(names.insert(name), "two projections are named {name}");
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "two projections are named rejections")]
    fn no_domain_brings_a_general_read_model_once_more() {
        let _ = with_general(vec![Arc::new(Rejections)]);
    }
}
