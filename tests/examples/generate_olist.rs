//! Writes invented orders in the form of the public Olist data:
//! `cargo run -p tests --example generate_olist -- FOLDER [ORDERS [SEED]] [--unreadable]`.
//!
//! Without numbers, makes the sample that is built into the program: give `olist/sample` as the
//! folder.

use std::path::Path;
use std::process::ExitCode;

use tests::olist::{Dirt, SAMPLE_ORDERS, SAMPLE_SEED, data_set};

fn main() -> ExitCode {
    let (flags, places): (Vec<String>, Vec<String>) = std::env::args()
        .skip(1)
        .partition(|argument| argument.starts_with("--"));
    let orders = places.get(1).map_or(Ok(SAMPLE_ORDERS), |text| text.parse());
    let seed = places.get(2).map_or(Ok(SAMPLE_SEED), |text| text.parse());
    let dirt = match flags.as_slice() {
        [] => Some(Dirt::Real),
        [flag] if flag == "--unreadable" => Some(Dirt::Unreadable),
        _ => None,
    };
    let (Some(folder), Ok(orders), Ok(seed), Some(dirt)) = (places.first(), orders, seed, dirt)
    else {
        eprintln!("usage: generate_olist FOLDER [ORDERS [SEED]] [--unreadable]");
        return ExitCode::from(2);
    };
    if let Err(error) = data_set(seed, orders, dirt).write_to(Path::new(folder)) {
        eprintln!("writing into {folder} failed: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
