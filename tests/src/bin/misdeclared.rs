//! A program whose read models are declared wrongly, for tests of its start. The variable `WRONG` says
//! what is wrong.

use std::process::ExitCode;
use std::sync::Arc;

use kernel::registry::Registry;
use projector::ColumnType::{Bigint, Text};
use projector::{
    Index, KeyColumn, Projection, Rules, Table, ValueColumn, View, asc, computed, index, key, set,
};

const KEY: &[KeyColumn] = &[key("id", Text, "An id.")];
const VALUES: &[ValueColumn] = &[set("number", Bigint, "A number.")];
const PLAIN: Table = Table {
    name: "lamp_numbers",
    about: "A sample.",
    key: KEY,
    values: VALUES,
    ..Table::PLAIN
};
const INDEXES: &[Index] = &[index(&[asc("nmber")])];
const MISSPELT: &[Table] = &[Table {
    indexes: INDEXES,
    ..PLAIN
}];
const SQL: &[Table] = &[Table {
    view: View {
        computed: &[computed(
            "twice",
            Bigint,
            "r.nmber * 2",
            "Twice the number.",
        )],
        ..View::WHOLE
    },
    ..PLAIN
}];
const RIGHT: &[Table] = &[PLAIN];

fn main() -> ExitCode {
    let rules = |name, tables| -> Arc<dyn Projection> { Arc::new(Rules::new(name, 1, tables)) };
    let projections = match std::env::var("WRONG").as_deref() {
        Ok("column") => vec![rules("numbers", MISSPELT)],
        Ok("sql") => vec![rules("numbers", SQL)],
        Ok("table") => vec![rules("numbers", RIGHT), rules("others", RIGHT)],
        _ => vec![rules("numbers", RIGHT)],
    };
    host::app("misdeclared")
        .registry(Registry::new().with::<tests::lamp::new::Lamp>())
        .projections(projections)
        .run()
}
