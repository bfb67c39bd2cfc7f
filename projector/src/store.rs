//! What is kept in Postgres: rows, checkpoints, generations, stops, and their SQL.
//!
//! Deliberately absent: the tasks that call it (`run`).

pub(crate) mod apart;
pub(crate) mod as_of;
pub(crate) mod checkpoint;
pub(crate) mod compare;
pub(crate) mod control;
pub(crate) mod copy;
pub(crate) mod decoded;
pub(crate) mod describe;
pub(crate) mod drift;
pub(crate) mod from_past;
pub(crate) mod generation;
pub(crate) mod held;
pub(crate) mod history;
pub(crate) mod in_place;
pub(crate) mod in_the_way;
pub(crate) mod indexes;
pub(crate) mod kept;
pub(crate) mod looked;
pub(crate) mod members;
pub(crate) mod merge;
pub(crate) mod migrate;
pub(crate) mod new_version;
pub(crate) mod numeric;
pub(crate) mod operators;
pub(crate) mod own_sql;
pub(crate) mod parked;
pub(crate) mod purpose;
pub(crate) mod reader;
pub(crate) mod removal;
pub(crate) mod rows;
pub(crate) mod sample;
pub(crate) mod sql;
pub(crate) mod stops;
pub(crate) mod switch;
pub(crate) mod trial;
pub(crate) mod upsert;
pub(crate) mod views;
pub(crate) mod why;
pub(crate) mod write;
