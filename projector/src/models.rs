//! The read models that suit every domain.
//!
//! Deliberately absent: any domain.

pub(crate) mod general;
pub(crate) mod places;
pub(crate) mod rejections;
pub(crate) mod stream_index;
