//! What happens to one invented order: its steps, their times, and how each must end.
//!
//! Invariant: a script follows from the history's key and the order's number alone, so that it can
//! be made again for each of its steps. Deliberately absent: JSON, and the order among orders.

use super::calendar::{DAY_MS, HOUR_MS, working};
use crate::random::Random;

const MINUTE_MS: i64 = 60 * 1_000;
/// One order in so many is the first of a new customer.
pub(super) const ORDERS_PER_CUSTOMER: u64 = 3;
/// How many products are sold.
const PRODUCTS: u64 = 8_192;
/// How many sellers sell them.
const SELLERS: u64 = 512;

/// How a command must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Accepted, with one event.
    Accepted,
    /// Accepted, without an event.
    NothingToDo,
    /// Refused with this code.
    Refused(&'static str),
}

/// One step of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Register,
    CorrectAddress,
    PlaceEmpty,
    Place,
    /// The money of one payment is taken.
    Capture(u8),
    Approve,
    StartProcessing,
    Invoice,
    Ship,
    Deliver,
    Cancel,
    MarkUnavailable,
    Review,
    /// Money is given back: the payment, and how many of 100 parts.
    Refund(u8, u8),
}

impl Act {
    /// The command's name on the wire.
    pub(super) fn command(self) -> &'static str {
        match self {
            Self::Register => "RegisterCustomer",
            Self::CorrectAddress => "CorrectAddress",
            Self::PlaceEmpty | Self::Place => "PlaceOrder",
            Self::Capture(_) => "CapturePayment",
            Self::Approve => "ApproveOrder",
            Self::StartProcessing => "StartProcessing",
            Self::Invoice => "InvoiceOrder",
            Self::Ship => "ShipOrder",
            Self::Deliver => "DeliverOrder",
            Self::Cancel => "CancelOrder",
            Self::MarkUnavailable => "MarkUnavailable",
            Self::Review => "ReviewOrder",
            Self::Refund(_, _) => "RefundPayment",
        }
    }
}

/// A step with its time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) at_ms: i64,
    pub(super) act: Act,
    pub(super) expected: Expected,
}

/// One item of an order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    pub(super) product: u64,
    pub(super) seller: u64,
    pub(super) price_minor: i64,
    pub(super) freight_minor: i64,
}

/// One order.
#[derive(Clone, Debug)]
pub(super) struct Script {
    pub(super) customer: u64,
    pub(super) items: Vec<Item>,
    /// The days within which the delivery is promised.
    pub(super) promised_days: i64,
    /// How much each payment takes.
    pub(super) payments_minor: Vec<i64>,
    /// Drawn for the words and methods of this order.
    pub(super) taste: u64,
    pub(super) steps: Vec<Step>,
}

/// The end of an order, with how many of 1,000 orders have it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Delivered,
    Returned,
    CanceledEarly,
    CanceledLate,
    Unavailable,
    StaysPlaced,
    StaysApproved,
    StaysShipped,
}

const FATES: [(Fate, u64); 8] = [
    (Fate::Delivered, 860),
    (Fate::Returned, 25),
    (Fate::CanceledEarly, 25),
    (Fate::CanceledLate, 20),
    (Fate::Unavailable, 20),
    (Fate::StaysPlaced, 10),
    (Fate::StaysApproved, 15),
    (Fate::StaysShipped, 25),
];

impl Script {
    /// The script of the order of this number, which begins at `begins_ms`. The number of its steps
    /// does not depend on when it begins.
    pub(super) fn of(key: u64, number: u64, begins_ms: i64) -> Self {
        let mut random = source(key, b'o', number);
        let is_new = number.is_multiple_of(ORDERS_PER_CUSTOMER);
        let customers = number / ORDERS_PER_CUSTOMER + 1;
        let customer = if is_new {
            customers - 1
        } else {
            popular(&mut random, customers)
        };
        let items = items(key, &mut random);
        let total_minor = items
            .iter()
            .map(|item| item.price_minor + item.freight_minor);
        let total_minor: i64 = total_minor.sum();
        let payments_minor = if random.once_in(20) {
            vec![total_minor / 2, total_minor - total_minor / 2]
        } else {
            vec![total_minor]
        };
        let promised_days = random.between(10, 35);
        let taste = random.bits();
        let mut writer = Writer {
            at_ms: begins_ms,
            payments: u8::try_from(payments_minor.len()).expect("one or two"),
            steps: Vec::with_capacity(14),
            random,
        };
        writer.order(is_new);
        Self {
            customer,
            items,
            promised_days,
            payments_minor,
            taste,
            steps: writer.steps,
        }
    }

    /// How many events the order leaves, those of its customer and payments included.
    pub(super) fn event_count(&self) -> u64 {
        let is_event = |step: &&Step| step.expected == Expected::Accepted;
        self.steps.iter().filter(is_event).count() as u64
    }
}

/// Draws the steps of an order, one after the other.
struct Writer {
    random: Random,
    at_ms: i64,
    payments: u8,
    steps: Vec<Step>,
}

impl Writer {
    fn order(&mut self, is_new: bool) {
        let fate = self.fate();
        if is_new {
            self.act(Act::Register);
            if self.random.once_in(150) {
                self.after(MINUTE_MS, HOUR_MS);
                self.refused(Act::Register, "customer_already_registered");
            }
        } else if self.random.once_in(12) {
            self.act(Act::CorrectAddress);
        }
        self.after(MINUTE_MS, 20 * MINUTE_MS);
        if self.random.once_in(200) {
            self.refused(Act::PlaceEmpty, "order_has_no_items");
            self.after(MINUTE_MS, 5 * MINUTE_MS);
        }
        self.act(Act::Place);
        if self.random.once_in(200) {
            self.after(MINUTE_MS, HOUR_MS);
            self.refused(Act::Place, "order_already_placed");
        }
        if fate == Fate::CanceledEarly {
            self.after(MINUTE_MS, DAY_MS);
            self.act(Act::Cancel);
            self.late_step("order_canceled");
        } else if fate != Fate::StaysPlaced {
            self.paid(fate);
        }
    }

    fn paid(&mut self, fate: Fate) {
        for payment in 0..self.payments {
            self.after(1_000, 30 * MINUTE_MS);
            self.act(Act::Capture(payment));
        }
        if self.random.once_in(150) {
            self.after(MINUTE_MS, HOUR_MS);
            self.refused(Act::Ship, "order_not_approved");
        }
        self.after(MINUTE_MS, 18 * HOUR_MS);
        self.act(Act::Approve);
        if self.random.once_in(150) {
            // The same fact again, under another id.
            self.push(Act::Approve, Expected::NothingToDo);
        } else if self.random.once_in(150) {
            self.after(MINUTE_MS, HOUR_MS);
            self.refused(Act::Approve, "order_already_approved");
        }
        match fate {
            Fate::CanceledLate => {
                self.after(HOUR_MS, 2 * DAY_MS);
                self.act(Act::Cancel);
                self.late_step("order_canceled");
                self.refund(100);
            }
            Fate::Unavailable => {
                self.after_work(HOUR_MS, 3 * DAY_MS);
                self.act(Act::MarkUnavailable);
                self.late_step("order_unavailable");
                self.refund(100);
                self.review(3);
            }
            Fate::StaysApproved => {}
            _ => self.handled(fate),
        }
    }

    fn handled(&mut self, fate: Fate) {
        if self.random.once_in(2) {
            self.after_work(HOUR_MS, DAY_MS);
            self.act(Act::StartProcessing);
        }
        if self.random.once_in(2) {
            self.after_work(HOUR_MS, DAY_MS);
            self.act(Act::Invoice);
        }
        if self.random.once_in(200) {
            self.after_work(MINUTE_MS, HOUR_MS);
            self.refused(Act::Deliver, "order_not_shipped");
        }
        self.after_work(HOUR_MS, 3 * DAY_MS);
        self.act(Act::Ship);
        if fate == Fate::StaysShipped {
            return;
        }
        self.after(DAY_MS / 2, 6 * DAY_MS);
        if self.random.once_in(8) {
            // The other end of the country, or a carrier that is late.
            self.after(2 * DAY_MS, 25 * DAY_MS);
        }
        self.act(Act::Deliver);
        self.late_step("order_already_delivered");
        self.review(6);
        if fate == Fate::Returned {
            let part = u8::try_from(self.random.between(10, 100)).expect("at most 100");
            self.refund(part);
            if self.random.once_in(4) {
                self.after(HOUR_MS, DAY_MS);
                self.refused(Act::Refund(0, 101), "payment_refund_exceeds");
            }
        }
    }

    /// Some people cancel what cannot be cancelled any more.
    fn late_step(&mut self, code: &'static str) {
        if self.random.once_in(60) {
            self.after(HOUR_MS, DAY_MS);
            self.refused(Act::Cancel, code);
        }
    }

    /// A review, from so many of ten customers.
    fn review(&mut self, of_ten: i64) {
        if self.random.between(1, 10) <= of_ten {
            self.after(HOUR_MS, 10 * DAY_MS);
            self.act(Act::Review);
        }
    }

    fn refund(&mut self, part: u8) {
        for payment in 0..self.payments {
            self.after_work(HOUR_MS, 5 * DAY_MS);
            self.act(Act::Refund(payment, part));
        }
    }

    fn fate(&mut self) -> Fate {
        let all: u64 = FATES.iter().map(|(_, weight)| weight).sum();
        let mut left = self.random.bits() % all;
        for (fate, weight) in FATES {
            if left < weight {
                return fate;
            }
            left -= weight;
        }
        Fate::Delivered
    }

    fn after(&mut self, least_ms: i64, most_ms: i64) {
        self.at_ms += self.random.between(least_ms, most_ms);
    }

    fn after_work(&mut self, least_ms: i64, most_ms: i64) {
        self.after(least_ms, most_ms);
        self.at_ms = working(self.at_ms);
    }

    fn act(&mut self, act: Act) {
        self.push(act, Expected::Accepted);
    }

    fn refused(&mut self, act: Act, code: &'static str) {
        self.push(act, Expected::Refused(code));
    }

    fn push(&mut self, act: Act, expected: Expected) {
        let at_ms = self.at_ms;
        self.steps.push(Step {
            at_ms,
            act,
            expected,
        });
    }
}

fn items(key: u64, random: &mut Random) -> Vec<Item> {
    let count = match random.between(0, 9) {
        0..=6 => 1,
        7 | 8 => 2,
        _ => random.between(3, 8),
    };
    let item = |_| {
        let product = popular(random, PRODUCTS);
        let mut of_product = source(key, b'p', product);
        Item {
            product,
            seller: popular(&mut of_product, SELLERS),
            price_minor: of_product.between(500, 40_000),
            freight_minor: random.between(0, 6_000),
        }
    };
    (0..count).map(item).collect()
}

/// One of `count` numbers from 0, skewed: each doubling of the rank halves how often it is drawn.
///
/// This is Zipf's law in steps of octaves. It needs integers only, so every machine draws the same;
/// logarithms and powers differ between machines.
fn popular(random: &mut Random, count: u64) -> u64 {
    let octaves = u64::from(64 - count.leading_zeros());
    loop {
        let octave = random.bits() % octaves;
        let rank = (1 << octave) - 1 + (random.bits() & ((1 << octave) - 1));
        if rank < count {
            return rank;
        }
    }
}

/// The random numbers of one thing of the history.
pub(super) fn source(key: u64, kind: u8, number: u64) -> Random {
    let mut of_kind = Random::new(key ^ u64::from(kind));
    let mut of_number = Random::new(of_kind.bits().wrapping_add(number));
    Random::new(of_number.bits())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_drawn_often_and_all_are_drawn() {
        let mut random = Random::new(7);
        let mut counts = vec![0_u32; 1_000];
        for _ in 0..1_000_000 {
            counts[usize::try_from(popular(&mut random, 1_000)).unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| *count > 0));
        assert!(
            counts[0] > 400 * counts[900],
            "{} {}",
            counts[0],
            counts[900]
        );
        assert_eq!(popular(&mut random, 1), 0);
    }

    #[test]
    fn the_steps_of_an_order_do_not_depend_on_when_it_begins() {
        for number in 0..2_000 {
            let acts = |begins_ms| {
                let script = Script::of(3, number, begins_ms);
                let times: Vec<i64> = script.steps.iter().map(|step| step.at_ms).collect();
                assert!(times.is_sorted(), "{number}");
                script
                    .steps
                    .into_iter()
                    .map(|step| step.act)
                    .collect::<Vec<_>>()
            };
            assert_eq!(acts(0), acts(1_700_000_000_000 + 12_345_678), "{number}");
        }
    }
}
