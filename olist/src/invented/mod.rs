//! An invented history of the shop, of any size, as command lines in the order of business time.
//!
//! Invariant: the same wish gives the same bytes on every machine and for ever; each line ends as
//! its [`Expected`] says. Memory holds one entry of 24 bytes for each order that is under way, and
//! no line. Deliberately absent: files, sending, and rows of the real data.

mod calendar;
mod script;
pub mod words;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use client::{CommandLine, Origin};
use domain::payment::Method;
use kernel::Timestamp;
use uuid::Uuid;

use super::random::Random;
use super::wire::{self, Actor, Data, Line, Money};
use calendar::{Calendar, DAY_MS};
pub use script::Expected;
use script::{Act, Item, Script, Step, source};
use words::{CITIES, COMMENTS, TITLES};

/// The namespace of the command ids of invented histories (RFC 9562 §5.5). Frozen: with another
/// namespace, a history that is sent again would do everything twice.
pub const COMMAND_NAMESPACE: Uuid = Uuid::from_u128(0x0f3f_5a34_9c3b_4d0e_8a4f_64d1_25b7_51c2);

const REASONS: [&str; 4] = [
    "ordered twice",
    "found it cheaper",
    "too late",
    "not needed any more",
];

/// What history is wanted.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Another seed gives another history.
    pub seed: u64,
    /// How many events it has at least; fewer than 25 more.
    pub events: u64,
    /// The first day on which orders are placed; its first moment.
    pub from: Timestamp,
    /// On how many days orders are placed. What follows from them comes up to 60 days later.
    pub days: u32,
    /// The tenant, if it is not the default one.
    pub tenant: Option<String>,
}

/// What a history has, known before its first line is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    /// Orders that are begun.
    pub orders: u64,
    /// Lines: commands.
    pub commands: u64,
    /// Events: accepted commands that change something.
    pub events: u64,
    /// Accepted commands that change nothing.
    pub nothing_to_do: u64,
    /// Refused commands, by code.
    pub refused: BTreeMap<&'static str, u64>,
}

/// An invented history.
#[derive(Clone, Debug)]
pub struct Invented {
    key: u64,
    tenant: Option<String>,
    calendar: Calendar,
    declared: Declared,
}

impl Invented {
    /// Counts what the history will have.
    #[must_use]
    pub fn new(wish: Wish) -> Self {
        // Histories that differ in anything have other ids, so that they can be in one log.
        let from_ms = wish.from.micros() / 1_000;
        let mut key = Random::new(wish.seed).bits();
        for part in [wish.events, from_ms.unsigned_abs(), u64::from(wish.days)] {
            key = Random::new(key ^ part).bits();
        }
        let mut declared = Declared::default();
        while declared.events < wish.events {
            let script = Script::of(key, declared.orders, 0);
            declared.orders += 1;
            declared.commands += script.steps.len() as u64;
            declared.events += script.event_count();
            for step in &script.steps {
                match step.expected {
                    Expected::Accepted => {}
                    Expected::NothingToDo => declared.nothing_to_do += 1,
                    Expected::Refused(code) => {
                        *declared.refused.entry(code).or_default() += 1;
                    }
                }
            }
        }
        Self {
            key,
            tenant: wish.tenant,
            calendar: Calendar::new(from_ms, wish.days.max(1)),
            declared,
        }
    }

    /// What it has.
    #[must_use]
    pub fn declared(&self) -> &Declared {
        &self.declared
    }

    /// Its lines, in the order of business time.
    pub fn lines(&self) -> impl Iterator<Item = (CommandLine, Expected)> + Send + '_ {
        Lines {
            history: self,
            open: BinaryHeap::new(),
            next: self.begin(0),
            place: 0,
        }
    }

    /// When the order of this number begins, and the number.
    fn begin(&self, number: u64) -> Option<(i64, u64)> {
        const PARTS: u64 = 1 << 20;
        let orders = self.declared.orders;
        let jitter = source(self.key, b'b', number).bits() % PARTS;
        let part = u128::from(number) * u128::from(PARTS) + u128::from(jitter);
        let whole = u128::from(orders) * u128::from(PARTS);
        (number < orders).then(|| (self.calendar.moment_ms(part, whole), number))
    }

    fn script(&self, number: u64) -> Script {
        let begins_ms = self.begin(number).map_or(0, |(begins_ms, _)| begins_ms);
        Script::of(self.key, number, begins_ms)
    }

    fn line(&self, number: u64, place: usize, script: &Script, step: Step) -> CommandLine {
        let mark = format!("{:08x}", self.key >> 32);
        let names = Names {
            order: format!("{mark}-{number}"),
            customer: format!("{mark}-{}", script.customer),
            mark,
        };
        let command = step.act.command();
        let name = format!("{:016x}/{number}/{place}", self.key);
        let line = Line {
            tenant: self.tenant.as_deref(),
            stream: &names.stream(step.act),
            command,
            id: Uuid::new_v5(&COMMAND_NAMESPACE, name.as_bytes()),
            occurred_at: moment(step.at_ms),
            actor: Actor {
                id: "generate",
                kind: "import",
            },
            data: &data(&names, script, step, place),
        };
        CommandLine {
            command: command.into(),
            json: line.written(),
            origin: Origin::default(),
        }
    }
}

/// The names of one order and of what belongs to it.
struct Names {
    /// Begins every name of the history.
    mark: String,
    order: String,
    customer: String,
}

impl Names {
    fn stream(&self, act: Act) -> String {
        match act {
            Act::Register | Act::CorrectAddress => format!("customer-{}", self.customer),
            Act::Capture(payment) | Act::Refund(payment, _) => {
                format!("payment-{}-{}", self.order, payment + 1)
            }
            Act::PlaceEmpty
            | Act::Place
            | Act::Approve
            | Act::StartProcessing
            | Act::Invoice
            | Act::Ship
            | Act::Deliver
            | Act::Cancel
            | Act::MarkUnavailable
            | Act::Review => format!("order-{}", self.order),
        }
    }
}

/// The lines of a history.
struct Lines<'a> {
    history: &'a Invented,
    /// The orders under way: when the next step comes, the order's number, the step's place.
    open: BinaryHeap<Reverse<(i64, u64, u16)>>,
    /// The next order that begins.
    next: Option<(i64, u64)>,
    place: u64,
}

impl Iterator for Lines<'_> {
    type Item = (CommandLine, Expected);

    fn next(&mut self) -> Option<Self::Item> {
        while let Some((begins_ms, number)) = self.next
            && self
                .open
                .peek()
                .is_none_or(|Reverse(open)| begins_ms <= open.0)
        {
            let first = self
                .history
                .script(number)
                .steps
                .first()
                .map(|step| step.at_ms);
            self.open
                .push(Reverse((first.unwrap_or(begins_ms), number, 0)));
            self.next = self.history.begin(number + 1);
        }
        let Reverse((_, number, place)) = self.open.pop()?;
        let script = self.history.script(number);
        let step = script.steps[usize::from(place)];
        if let Some(following) = script.steps.get(usize::from(place) + 1) {
            self.open
                .push(Reverse((following.at_ms, number, place + 1)));
        }
        let mut line = self.history.line(number, usize::from(place), &script, step);
        line.origin.place = self.place;
        line.origin.line = self.place + 1;
        self.place += 1;
        Some((line, step.expected))
    }
}

fn data<'a>(names: &'a Names, script: &Script, step: Step, place: usize) -> Data<'a> {
    let mut random = source(script.taste, b'd', place as u64);
    match step.act {
        Act::Register | Act::CorrectAddress => {
            let (city, state, postcode) = *random.one_of(&CITIES);
            let postcode_prefix = format!("{:05}", postcode + random.between(0, 900)).into();
            Data::Address {
                city,
                state,
                postcode_prefix,
            }
        }
        Act::PlaceEmpty => placed(names, script, step, &[]),
        Act::Place => placed(names, script, step, &script.items),
        Act::Capture(payment) => captured(&mut random, names, script, payment),
        Act::Refund(payment, part) => {
            let all_minor = script.payments_minor[usize::from(payment)];
            let amount = Money::of(all_minor * i64::from(part) / 100);
            Data::Refund { amount }
        }
        Act::Approve
        | Act::StartProcessing
        | Act::Invoice
        | Act::Ship
        | Act::Deliver
        | Act::MarkUnavailable => Data::Nothing {},
        Act::Cancel => {
            let reason = random.one_of(&REASONS);
            Data::Cancel { reason }
        }
        Act::Review => Data::Review {
            review: names.order.as_str().into(),
            score: *random.one_of(&[1, 2, 3, 4, 4, 5, 5, 5, 5]),
            title: random.once_in(4).then(|| *random.one_of(&TITLES)),
            comment: random.once_in(3).then(|| *random.one_of(&COMMENTS)),
        },
    }
}

fn placed<'a>(names: &'a Names, script: &Script, step: Step, items: &[Item]) -> Data<'a> {
    let mark = &names.mark;
    let items = (1..).zip(items).map(|(line, item)| wire::Item {
        line,
        product: format!("{mark}-{}", item.product).into(),
        seller: format!("{mark}-{}", item.seller).into(),
        price: Money::of(item.price_minor),
        freight: Money::of(item.freight_minor),
    });
    let promised_day = step.at_ms.div_euclid(DAY_MS) + script.promised_days;
    Data::Place {
        customer: names.customer.as_str().into(),
        items: items.collect(),
        estimated_delivery: moment(promised_day * DAY_MS),
    }
}

fn captured<'a>(random: &mut Random, names: &'a Names, script: &Script, payment: u8) -> Data<'a> {
    let (method, instalments) = match random.between(0, 19) {
        _ if payment > 0 => (Method::Voucher, 1),
        0..=13 => (Method::CreditCard, random.between(1, 10)),
        14..=17 => (Method::Boleto, 1),
        18 => (Method::DebitCard, 1),
        _ => (Method::Voucher, 1),
    };
    Data::Payment {
        order: &names.order,
        method,
        instalments,
        amount: Money::of(script.payments_minor[usize::from(payment)]),
    }
}

fn moment(at_ms: i64) -> Timestamp {
    Timestamp::from_micros(at_ms * 1_000).expect("near the first day, which is in range")
}

#[cfg(test)]
mod tests;
