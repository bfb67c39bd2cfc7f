//! From histories to command lines, in the order in which they are sent.
//!
//! Invariant: the same rows give the same lines, ids included, so that an import may be stopped,
//! repeated and resumed. All commands of an order are sent, even if an earlier one will be refused:
//! the rows are history, and only the business refuses. If the placing of an order cannot be sent,
//! nothing of that order is sent, so that a corrected file can be imported later. Deliberately
//! absent: files, and the sending.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use client::{CommandLine, Origin};
use kernel::Timestamp;
use uuid::Uuid;

use super::load::{Histories, OrderHistory, Person};
use super::rows::{Address, CUSTOMERS, ORDERS, PAYMENTS, PaymentRow, REVIEWS, ReviewRow, Status};
use super::wire::{Actor, Data, Item, Line, Money};
use import::Verdict;
use import::listing::Listing;
use import::report::FileRows;

/// The namespace of the command ids of this import (RFC 9562 §5.5). Frozen: with another namespace,
/// a repeated import would do everything twice.
pub const COMMAND_NAMESPACE: Uuid = Uuid::from_u128(0xbc5f96c4_c062_4f59_9753_77d23800731b);

/// The data does not say why an order was cancelled.
const CANCEL_REASON: &str = "not stated in the imported data";

/// The id of a command: UUIDv5 of its type and the natural key of its row, joined by slashes (which
/// no id contains).
#[must_use]
pub fn command_id(command: &str, natural_key: &str) -> Uuid {
    Uuid::new_v5(
        &COMMAND_NAMESPACE,
        format!("{command}/{natural_key}").as_bytes(),
    )
}

/// The commands that an import will send, and the list of what it cannot read.
pub struct Plan {
    histories: Vec<(OrderHistory, PersonStep)>,
    tenant: Option<String>,
    /// How many lines there are.
    pub lines_total: u64,
    /// Rows read per file.
    pub files: Vec<FileRows>,
    /// What cannot be read or sent.
    pub unreadable: Listing,
}

/// What an order adds to what is known of the person who placed it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PersonStep {
    /// Nothing new, or nothing readable.
    Nothing,
    /// The person is new in these files.
    Register,
    /// The address differs from the last one seen.
    Correct,
}

impl Plan {
    /// Plans the commands of `histories`; `tenant` is given if it is not the default one.
    #[must_use]
    pub fn new(histories: Histories, tenant: Option<String>) -> Self {
        let Histories {
            orders,
            files,
            unreadable,
        } = histories;
        let mut last_seen = HashMap::new();
        let histories: Vec<_> = orders
            .into_iter()
            .map(|history| {
                let step = person_step(history.person.as_ref(), &mut last_seen);
                (history, step)
            })
            .collect();
        let lines_total = histories
            .iter()
            .map(|(history, step)| steps(history, *step).len() as u64)
            .sum();
        Self {
            histories,
            tenant,
            lines_total,
            files,
            unreadable,
        }
    }

    /// The command lines; each order's lines are made when they are asked for.
    pub fn lines(&self) -> impl Iterator<Item = CommandLine> + Send + '_ {
        let lines = self.histories.iter().flat_map(|(history, person_step)| {
            steps(history, *person_step)
                .into_iter()
                .map(|step| step.into_line(self.tenant.as_deref(), None))
        });
        (0..).zip(lines).map(|(place, mut line)| {
            line.origin.place = place;
            line
        })
    }

    /// The lines that are sent again as corrections. `verdicts` has the verdict on every line, in
    /// the order of the lines.
    ///
    /// The lines of one order to one stream are judged together. If one of them was answered before
    /// with other data, all refused ones are sent again. If one of them was accepted in this run,
    /// those that were refused before are sent again. The id of a correction also depends on the
    /// data, so the corrections may be repeated.
    pub(crate) fn corrections<'a>(
        &'a self,
        verdicts: &'a [Verdict],
    ) -> impl Iterator<Item = CommandLine> + Send + 'a {
        let mut begin = 0;
        self.histories
            .iter()
            .flat_map(move |(history, person_step)| {
                let steps = steps(history, *person_step);
                let verdicts = &verdicts[begin..begin + steps.len()];
                begin += steps.len();
                let mut lines = Vec::new();
                if verdicts.iter().any(|verdict| corrects(*verdict, verdicts)) {
                    lines = corrected(steps, verdicts, self.tenant.as_deref());
                }
                lines
            })
    }
}

/// Whether a line with this verdict is sent again; `all` has the verdicts on its stream's lines.
fn corrects(verdict: Verdict, all: &[Verdict]) -> bool {
    match verdict {
        Verdict::Changed => true,
        Verdict::Refused => all.contains(&Verdict::Changed),
        Verdict::RefusedBefore => {
            all.contains(&Verdict::Changed) || all.contains(&Verdict::Accepted)
        }
        Verdict::Open | Verdict::Accepted | Verdict::AcceptedBefore => false,
    }
}

/// The corrections among the steps of one order.
fn corrected(steps: Vec<Step<'_>>, verdicts: &[Verdict], tenant: Option<&str>) -> Vec<CommandLine> {
    let mut streams: HashMap<String, (Vec<u8>, Vec<Verdict>)> = HashMap::new();
    for (step, verdict) in steps.iter().zip(verdicts) {
        let (facts, of_stream) = streams.entry(step.stream.clone()).or_default();
        facts.extend_from_slice(step.facts().as_bytes());
        of_stream.push(*verdict);
    }
    let mut lines = Vec::new();
    for (step, verdict) in steps.into_iter().zip(verdicts) {
        let (facts, of_stream) = &streams[&step.stream];
        if corrects(*verdict, of_stream) {
            let digest = Uuid::new_v5(&COMMAND_NAMESPACE, facts);
            lines.push(step.into_line(tenant, Some(digest)));
        }
    }
    lines
}

/// Compares the address of an order's person with the last one known.
///
/// An unreadable address is skipped: the person is registered with the next readable one.
fn person_step(person: Option<&Person>, last_seen: &mut HashMap<String, Address>) -> PersonStep {
    let Some(Person {
        person,
        address: Some(address),
        line: _,
    }) = person
    else {
        return PersonStep::Nothing;
    };
    match last_seen.entry(person.clone()) {
        Entry::Vacant(unseen) => {
            unseen.insert(address.clone());
            PersonStep::Register
        }
        Entry::Occupied(seen) if seen.get() == address => PersonStep::Nothing,
        Entry::Occupied(mut seen) => {
            seen.insert(address.clone());
            PersonStep::Correct
        }
    }
}

/// One command before it is written as JSON.
struct Step<'a> {
    command: &'static str,
    stream: String,
    natural_key: String,
    occurred_at: Timestamp,
    data: Data<'a>,
    /// The file and the line of the row from which it was made.
    row: (&'static str, u64),
}

/// The commands of one order, in the order in which they are sent.
fn steps(history: &OrderHistory, person_step: PersonStep) -> Vec<Step<'_>> {
    let order = &history.order;
    let approved_or_purchased_at = order.approved_or_purchased_at();
    let mut steps = Vec::new();
    let row = (ORDERS.name, order.line);
    if let Some(person) = &history.person {
        steps.extend(person_command(history, person, person_step));
        if history.is_whole {
            steps.push(place(history, person));
        }
    }
    // The person's address does not depend on the order.
    if !history.is_whole {
        return steps;
    }
    for payment in &history.payments {
        steps.push(capture(&order.order, approved_or_purchased_at, payment));
    }
    let mut on_order = |command, occurred_at, data| {
        steps.push(Step {
            command,
            stream: format!("order-{}", order.order),
            natural_key: order.order.clone(),
            occurred_at,
            data,
            row,
        });
    };
    if let Some(at) = order.approved_at {
        on_order("ApproveOrder", at, Data::Nothing {});
    }
    match order.status {
        Status::Processing => {
            on_order(
                "StartProcessing",
                approved_or_purchased_at,
                Data::Nothing {},
            );
        }
        Status::Invoiced => on_order("InvoiceOrder", approved_or_purchased_at, Data::Nothing {}),
        Status::Created | Status::Approved | Status::Shipped | Status::Delivered => {}
        Status::Canceled | Status::Unavailable => {}
    }
    if let Some(at) = order.shipped_at {
        on_order("ShipOrder", at, Data::Nothing {});
    }
    if let Some(at) = order.delivered_at {
        on_order("DeliverOrder", at, Data::Nothing {});
    }
    match order.status {
        Status::Canceled => {
            let reason = CANCEL_REASON;
            on_order("CancelOrder", order.latest_at(), Data::Cancel { reason });
        }
        Status::Unavailable => on_order("MarkUnavailable", order.latest_at(), Data::Nothing {}),
        Status::Created | Status::Approved | Status::Shipped | Status::Delivered => {}
        Status::Processing | Status::Invoiced => {}
    }
    for review in &history.reviews {
        steps.push(give_review(&order.order, review));
    }
    steps
}

fn person_command<'a>(
    history: &'a OrderHistory,
    person: &'a Person,
    step: PersonStep,
) -> Option<Step<'a>> {
    let command = match step {
        PersonStep::Nothing => return None,
        PersonStep::Register => "RegisterCustomer",
        PersonStep::Correct => "CorrectAddress",
    };
    let address = person.address.as_ref()?;
    Some(Step {
        command,
        stream: format!("customer-{}", person.person),
        // The person alone is not enough: rows of the same person in another folder are other
        // intents.
        natural_key: format!("{}/{}", history.order.customer, history.order.order),
        occurred_at: history.order.purchased_at,
        data: Data::Address {
            city: &address.city,
            state: &address.state,
            postcode_prefix: address.postcode_prefix.as_str().into(),
        },
        row: (CUSTOMERS.name, person.line),
    })
}

fn place<'a>(history: &'a OrderHistory, person: &'a Person) -> Step<'a> {
    let order = &history.order;
    Step {
        command: "PlaceOrder",
        stream: format!("order-{}", order.order),
        natural_key: order.order.clone(),
        occurred_at: order.purchased_at,
        data: Data::Place {
            customer: person.person.as_str().into(),
            items: history
                .items
                .iter()
                .map(|item| Item {
                    line: item.number,
                    product: item.product.as_str().into(),
                    seller: item.seller.as_str().into(),
                    price: Money::of(item.price_minor),
                    freight: Money::of(item.freight_minor),
                })
                .collect(),
            estimated_delivery: order.estimated_delivery,
        },
        row: (ORDERS.name, order.line),
    }
}

fn capture<'a>(order: &'a str, occurred_at: Timestamp, payment: &'a PaymentRow) -> Step<'a> {
    let id = format!("{order}-{}", payment.sequence);
    Step {
        command: "CapturePayment",
        stream: format!("payment-{id}"),
        natural_key: repeated(format!("{order}/{}", payment.sequence), payment.repetition),
        occurred_at,
        data: Data::Payment {
            order,
            method: payment.method,
            instalments: payment.instalments,
            amount: Money::of(payment.amount_minor),
        },
        row: (PAYMENTS.name, payment.line),
    }
}

fn give_review<'a>(order: &'a str, review: &'a ReviewRow) -> Step<'a> {
    Step {
        command: "ReviewOrder",
        stream: format!("order-{order}"),
        natural_key: repeated(format!("{order}/{}", review.review), review.repetition),
        occurred_at: review.created_at,
        data: Data::Review {
            review: review.review.as_str().into(),
            score: review.score,
            title: review.title.as_deref(),
            comment: review.comment.as_deref(),
        },
        row: (REVIEWS.name, review.line),
    }
}

/// The key of a row whose key occurred in rows before it. Each of these rows is an intent of its
/// own; the business decides whether it adds anything.
fn repeated(key: String, repetition: u32) -> String {
    if repetition == 0 {
        key
    } else {
        format!("{key}/{repetition}")
    }
}

impl Step<'_> {
    /// The content of the command, to tell changed data from equal data.
    fn facts(&self) -> String {
        let facts = (self.command, self.occurred_at, &self.data);
        serde_json::to_string(&facts).expect("texts and integers can be written as JSON")
    }

    /// The line under the row's own id or, if `correction` is given, under the id of that
    /// correction.
    fn into_line(self, tenant: Option<&str>, correction: Option<Uuid>) -> CommandLine {
        let id = match correction {
            None => command_id(self.command, &self.natural_key),
            Some(digest) => {
                let key = format!("{}/corrected/{digest}", self.natural_key);
                command_id(self.command, &key)
            }
        };
        let (file, line_of_row) = self.row;
        let origin = Origin {
            file,
            line: line_of_row,
            place: 0,
        };
        let line = Line {
            tenant,
            stream: &self.stream,
            command: self.command,
            id,
            occurred_at: self.occurred_at,
            actor: Actor {
                id: "import-olist",
                kind: "import",
            },
            data: &self.data,
        };
        CommandLine {
            command: self.command.into(),
            json: line.written(),
            origin,
        }
    }
}
