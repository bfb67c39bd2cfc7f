//! The tests of the model.
