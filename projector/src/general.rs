//! The read models that suit every domain.
//!
//! Deliberately absent: their rules (`stream_index`, `rejections`).

use std::sync::Arc;

use crate::{Projection, Rejections, StreamIndex};

/// A domain's own read models together with those that suit every domain. The latter come first:
/// each of their rows belongs to one stream, and a transaction writes in this order.
#[must_use]
pub fn with_general(own: Vec<Arc<dyn Projection>>) -> Vec<Arc<dyn Projection>> {
    let general: [Arc<dyn Projection>; 2] = [Arc::new(StreamIndex), Arc::new(Rejections)];
    general.into_iter().chain(own).collect()
}
