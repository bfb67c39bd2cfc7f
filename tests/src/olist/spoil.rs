//! Rows that cannot be read, and rows that the business refuses although the public data has none.
//!
//! Invariant: each kind spoils an order of its own, so that its effect can be told apart.
//! Deliberately absent: dirt of the public data, which every data set has.

use super::files::{Row, row};
use super::generate::{Generator, Placed, amount, moment};
use super::shapes::{SHAPES, Shape};

/// Changes the rows of one order; they are the last rows of each file.
type Spoil = fn(&mut Generator, &Placed);

/// An order that was delivered, with one item, payment and review.
const DELIVERED: Shape = SHAPES[0];

/// Adds an order for each kind of unreadable and refused row.
pub(super) fn spoil(generator: &mut Generator) {
    let kinds = [&ORDERS[..], &ITEMS, &PAYMENTS, &REVIEWS, &CUSTOMERS];
    for spoil in kinds.concat() {
        let placed = generator.order(DELIVERED, None);
        spoil(generator, &placed);
    }
    generator.data.spreadsheet_habits = true;
}

/// The last row of a file; it belongs to the order that is spoiled.
fn last(rows: &mut [Row]) -> &mut Row {
    rows.last_mut()
        .expect("each order brings rows of each kind")
}

fn set(rows: &mut [Row], place: usize, cell: &[u8]) {
    last(rows)[place] = cell.to_vec();
}

/// Repeats the last row with another content in one cell.
fn again(rows: &mut Vec<Row>, place: usize, cell: &str) {
    let mut row = last(rows).clone();
    row[place] = cell.as_bytes().to_vec();
    rows.push(row);
}

const ORDERS: [Spoil; 12] = [
    |generator, _| drop(last(&mut generator.data.orders).pop()),
    |generator, _| last(&mut generator.data.orders).push(b"more".to_vec()),
    |generator, _| set(&mut generator.data.orders, 2, b"lost"),
    |generator, _| set(&mut generator.data.orders, 3, b"2018-02-30 10:00:00"),
    |generator, _| set(&mut generator.data.orders, 3, b""),
    |generator, _| set(&mut generator.data.orders, 4, b"yesterday"),
    |generator, _| set(&mut generator.data.orders, 5, b"2018-01-01"),
    |generator, _| set(&mut generator.data.orders, 6, b"2018-01-01 23:59:60"),
    |generator, _| set(&mut generator.data.orders, 7, b""),
    |generator, _| set(&mut generator.data.orders, 0, b"an id/with \xc3\xa7"),
    |generator, _| set(&mut generator.data.orders, 1, b""),
    // The same row twice: the first one in the file counts, and the second adds nothing.
    |generator, _| {
        let row = last(&mut generator.data.orders).clone();
        generator.data.orders.push(row);
    },
];

const ITEMS: [Spoil; 17] = [
    |generator, _| set(&mut generator.data.items, 5, b"-21.99"),
    |generator, _| set(&mut generator.data.items, 5, b"21.999"),
    |generator, _| set(&mut generator.data.items, 5, b""),
    |generator, _| set(&mut generator.data.items, 5, b"90071992547409.93"),
    |generator, _| set(&mut generator.data.items, 6, b"1e2"),
    |generator, _| set(&mut generator.data.items, 1, b"1st"),
    |generator, _| set(&mut generator.data.items, 1, b"0"),
    |generator, _| set(&mut generator.data.items, 2, b"caf\xe9"),
    |generator, _| set(&mut generator.data.items, 3, b"a seller"),
    |generator, _| drop(last(&mut generator.data.items).pop()),
    |generator, _| last(&mut generator.data.items).push(b"".to_vec()),
    |generator, _| set(&mut generator.data.items, 0, b"no-such-order"),
    |generator, placed| {
        for number in 1_001..=1_200 {
            let number = number.to_string();
            let at = moment(placed.purchased_at_s);
            let item = [&placed.order, &number, "p", "s", &at, "1.0", "0.5"];
            generator.data.items.push(row(item));
        }
    },
    // Rows that are refused: no price, a negative freight, the same line twice, an amount beyond
    // the limit.
    |generator, _| set(&mut generator.data.items, 5, b"0.0"),
    |generator, _| set(&mut generator.data.items, 6, b"-0.01"),
    |generator, _| again(&mut generator.data.items, 5, "3.5"),
    |generator, _| set(&mut generator.data.items, 5, b"90071992547409.92"),
];

const PAYMENTS: [Spoil; 12] = [
    |generator, _| set(&mut generator.data.payments, 2, b"not_defined"),
    |generator, _| set(&mut generator.data.payments, 4, b"12,50"),
    |generator, _| set(&mut generator.data.payments, 4, b"12.505"),
    |generator, _| set(&mut generator.data.payments, 1, b"0"),
    |generator, _| set(&mut generator.data.payments, 3, b"one"),
    |generator, _| set(&mut generator.data.payments, 0, b"no-such-order"),
    |generator, _| drop(last(&mut generator.data.payments).pop()),
    // Rows that are refused or add nothing.
    |generator, _| set(&mut generator.data.payments, 4, b"-0.01"),
    |generator, _| set(&mut generator.data.payments, 3, b"-1"),
    |generator, placed| {
        let card = [&placed.order, "7", "credit_card", "1", &amount(700)];
        generator.data.payments.push(row(card));
        generator.data.payments.push(row(card));
    },
    |generator, placed| {
        let sequence = "7";
        for value in [amount(-700), amount(700), amount(900)] {
            let card = [&placed.order, sequence, "boleto", "1", &value];
            generator.data.payments.push(row(card));
        }
    },
    |generator, _| again(&mut generator.data.payments, 1, "02"),
];

const REVIEWS: [Spoil; 11] = [
    |generator, _| set(&mut generator.data.reviews, 2, b"6"),
    |generator, _| set(&mut generator.data.reviews, 2, b""),
    |generator, _| set(&mut generator.data.reviews, 5, b"06/01/2018"),
    |generator, _| set(&mut generator.data.reviews, 4, b"n\xe3o gostei"),
    |generator, _| set(&mut generator.data.reviews, 3, "é".repeat(501).as_bytes()),
    |generator, _| set(&mut generator.data.reviews, 0, b"an id"),
    |generator, _| set(&mut generator.data.reviews, 1, b"no-such-order"),
    |generator, _| drop(last(&mut generator.data.reviews).pop()),
    // Rows that add nothing, then rows with other facts under the same id: a score, a time, a text.
    |generator, _| {
        let row = last(&mut generator.data.reviews).clone();
        generator.data.reviews.push(row);
    },
    |generator, _| again(&mut generator.data.reviews, 2, "1"),
    |generator, _| again(&mut generator.data.reviews, 5, "2019-01-01 00:00:00"),
];

const CUSTOMERS: [Spoil; 10] = [
    |generator, _| drop(last(&mut generator.data.customers).pop()),
    |generator, _| set(&mut generator.data.customers, 3, b"s\xe3o nunca"),
    |generator, _| set(&mut generator.data.customers, 3, "a".repeat(201).as_bytes()),
    |generator, _| set(&mut generator.data.customers, 1, b""),
    |generator, _| set(&mut generator.data.customers, 1, b"a person"),
    |generator, _| set(&mut generator.data.customers, 0, b""),
    |generator, _| drop(generator.data.customers.pop()),
    // Two rows under one id: the first one in the file counts.
    |generator, _| again(&mut generator.data.customers, 3, "outra cidade"),
    // A person whose first row cannot be read, and who orders again.
    |generator, placed| {
        drop(last(&mut generator.data.customers).pop());
        generator.order(DELIVERED, None);
        set(&mut generator.data.customers, 1, placed.person().as_bytes());
    },
    // Empty texts are valid texts.
    |generator, _| {
        set(&mut generator.data.customers, 2, b"");
        set(&mut generator.data.customers, 3, b"");
    },
];
