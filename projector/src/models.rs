//! The read models that suit every domain.
//!
//! Deliberately absent: any domain.

pub(crate) mod commit_index;
pub(crate) mod density;
pub(crate) mod general;
pub(crate) mod places;
pub(crate) mod rejections;
pub(crate) mod search;
pub(crate) mod stream_index;
