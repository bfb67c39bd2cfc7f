//! The public Olist order data (five CSV files) as commands.

pub mod load;
pub mod plan;
mod rows;
mod table;
mod values;

#[cfg(test)]
mod tests;
