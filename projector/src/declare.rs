//! What a projection declares and contributes: tables, columns, values and rules.
//!
//! Deliberately absent: I/O, and how contributions become rows (`fold`, `store`).

pub(crate) mod check;
pub(crate) mod column_type;
pub(crate) mod entry;
pub(crate) mod exact;
pub(crate) mod history;
pub(crate) mod model;
pub(crate) mod own_sql;
pub(crate) mod projection;
pub(crate) mod rules;
pub(crate) mod table;
pub(crate) mod value;
