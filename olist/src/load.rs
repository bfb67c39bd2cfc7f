//! Reads the five files, and joins them into one history per order.
//!
//! Invariant: each row is either part of a history or listed with its file, line and reason. The
//! order row is the root: a row whose order is missing or cannot be read belongs to no history. An
//! order that cannot be placed as its rows say is held back as a whole: the engine would refuse
//! each of its commands, and would keep that refusal. Deliberately absent: commands.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use domain::order::ITEMS_MAX;

use super::rows::{
    Address, CUSTOMERS, CustomerRow, FileShape, ITEMS, ItemRow, ORDERS, OrderRow, PAYMENTS,
    PaymentRow, REVIEWS, ReviewRow,
};
use super::table::{Record, TableError, for_each_record};
use super::values::{Reason, id};
use import::listing::{Listing, Unreadable};
use import::report::FileRows;

/// How many ids of unreadable orders are kept, for the reasons of the rows that belong to them.
const UNREADABLE_IDS_MAX: usize = 10_000;

/// Why a folder cannot be imported at all.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A needed file cannot be read.
    #[error("reading {} failed", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// Nothing of a file can be read.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// The contents of the five needed files.
pub struct Contents {
    /// `olist_orders_dataset.csv`
    pub orders: Vec<u8>,
    /// `olist_order_items_dataset.csv`
    pub items: Vec<u8>,
    /// `olist_order_payments_dataset.csv`
    pub payments: Vec<u8>,
    /// `olist_order_reviews_dataset.csv`
    pub reviews: Vec<u8>,
    /// `olist_customers_dataset.csv`
    pub customers: Vec<u8>,
}

impl Contents {
    /// Reads the five files of a folder.
    ///
    /// # Errors
    /// [`LoadError::Read`] naming the first file that cannot be read.
    pub fn of_folder(folder: &Path) -> Result<Self, LoadError> {
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read(&path).map_err(|source| LoadError::Read { path, source })
        };
        Ok(Self {
            orders: read(ORDERS.name)?,
            items: read(ITEMS.name)?,
            payments: read(PAYMENTS.name)?,
            reviews: read(REVIEWS.name)?,
            customers: read(CUSTOMERS.name)?,
        })
    }

    /// The sample that the program carries: invented orders, made by a generator.
    #[must_use]
    pub fn sample() -> Self {
        macro_rules! file {
            ($name:literal) => {
                include_bytes!(concat!("../sample/olist_", $name, "_dataset.csv")).to_vec()
            };
        }
        Self {
            orders: file!("orders"),
            items: file!("order_items"),
            payments: file!("order_payments"),
            reviews: file!("order_reviews"),
            customers: file!("customers"),
        }
    }
}

/// What is known of the person who placed an order.
#[derive(Clone, Debug)]
pub struct Person {
    /// The person's id.
    pub person: String,
    /// The line of the customers file that holds the person.
    pub line: u64,
    /// The person's address at that time, if it can be read.
    pub address: Option<Address>,
}

/// All facts that the files hold about one order.
#[derive(Clone, Debug)]
pub struct OrderHistory {
    /// Its own row.
    pub order: OrderRow,
    /// Who placed it, if that can be read.
    pub person: Option<Person>,
    /// Whether the order can be placed as its rows say. If not, `items`, `payments` and `reviews`
    /// are empty.
    pub is_whole: bool,
    /// Its items, by number, then place in the file; may be empty.
    pub items: Vec<ItemRow>,
    /// Its payments, by number, then place in the file.
    pub payments: Vec<PaymentRow>,
    /// Its reviews, by creation, then id, then place in the file.
    pub reviews: Vec<ReviewRow>,
}

/// The histories of a folder, and the list of what cannot be read.
#[derive(Debug, Default)]
pub struct Histories {
    /// By time of purchase, then id.
    pub orders: Vec<OrderHistory>,
    /// Rows read per file.
    pub files: Vec<FileRows>,
    /// What cannot be read or sent.
    pub unreadable: Listing,
}

/// Joins the files into histories, and adds what cannot be read or sent to `unreadable`.
///
/// # Errors
/// [`LoadError::Table`] if a file has no usable header.
pub fn load(contents: &Contents, unreadable: Listing) -> Result<Histories, LoadError> {
    let mut reader = Reader {
        files: Vec::new(),
        unreadable,
    };
    let mut orders = reader.orders(&contents.orders)?;
    let mut items = reader.items(&contents.items, &orders)?;
    let mut payments = reader.payments(&contents.payments, &orders)?;
    let mut reviews = reader.reviews(&contents.reviews, &orders)?;
    let customers = reader.customers(&contents.customers)?;
    orders
        .read
        .sort_by(|a, b| (a.purchased_at, &a.order).cmp(&(b.purchased_at, &b.order)));
    let histories = orders
        .read
        .into_iter()
        .map(|order| {
            let person = person_of(&order, &customers);
            let items = items_of(items.remove(&order.order).unwrap_or_default());
            let mut history = OrderHistory {
                is_whole: person.is_ok() && items.is_ok(),
                payments: payments.remove(&order.order).unwrap_or_default(),
                reviews: reviews.remove(&order.order).unwrap_or_default(),
                items: Vec::new(),
                person: None,
                order,
            };
            let (person, items) = (person.map(Some), items);
            let reason = match (person, items) {
                (Ok(person), Ok(items)) => {
                    (history.person, history.items) = (person, items);
                    return history;
                }
                (Err(reason), _) => reason,
                (Ok(person), Err(reason)) => {
                    history.person = person;
                    reason
                }
            };
            reader.hold_back(&mut history, &reason);
            history
        })
        .collect();
    Ok(Histories {
        orders: histories,
        files: reader.files,
        unreadable: reader.unreadable,
    })
}

fn person_of(order: &OrderRow, customers: &HashMap<String, CustomerRow>) -> Result<Person, Reason> {
    let customer = || order.customer.clone();
    let Some(row) = customers.get(&order.customer) else {
        let customer = customer();
        return Err(Reason::CustomerMissing { customer });
    };
    let (customer, line) = (customer(), row.line);
    let unreadable = Reason::CustomerUnreadable { customer, line };
    Ok(Person {
        person: row.person.clone().ok_or(unreadable)?,
        line: row.line,
        address: row.address.clone(),
    })
}

fn items_of(gathered: GatheredItems) -> Result<Vec<ItemRow>, Reason> {
    if let Some(line) = gathered.unreadable_line {
        return Err(Reason::ItemUnreadable { line });
    }
    let (items, items_max) = (gathered.read.len(), ITEMS_MAX);
    if items > items_max {
        return Err(Reason::TooManyItems { items, items_max });
    }
    Ok(gathered.read)
}

/// The orders that were read, and the lines of the readable order rows and of the unreadable ones
/// (at most [`UNREADABLE_IDS_MAX`] of these).
#[derive(Default)]
struct Orders {
    read: Vec<OrderRow>,
    lines_read: HashMap<String, u64>,
    lines_unreadable: HashMap<String, u64>,
}

impl Orders {
    /// Reads the order id of a row of another file and finds its order.
    fn order_of<const N: usize>(&self, record: &Record<N>, nth: usize) -> Result<String, Reason> {
        let (column, cell) = record.field(nth)?;
        let order = id(column, cell)?;
        if self.lines_read.contains_key(&order) {
            return Ok(order);
        }
        Err(match self.lines_unreadable.get(&order) {
            Some(&line) => Reason::OrderUnreadable { order, line },
            None if self.lines_unreadable.len() < UNREADABLE_IDS_MAX => {
                Reason::OrderMissing { order }
            }
            None => Reason::OrderNotRead { order },
        })
    }
}

/// The items of one order while they are collected.
#[derive(Default)]
struct GatheredItems {
    read: Vec<ItemRow>,
    /// The line of the first item that cannot be read.
    unreadable_line: Option<u64>,
}

/// Reads file after file and lists what cannot be read.
struct Reader {
    files: Vec<FileRows>,
    unreadable: Listing,
}

impl Reader {
    fn list(&mut self, file: &str, line: u64, reason: &Reason) {
        self.unreadable.add(Unreadable {
            file: file.to_owned(),
            line,
            reason: reason.to_string(),
        });
    }

    /// Reads a file. `each` returns the reason why a record cannot be used.
    fn rows<const N: usize>(
        &mut self,
        shape: &FileShape<N>,
        content: &[u8],
        mut each: impl FnMut(&Record<N>) -> Result<(), Reason>,
    ) -> Result<(), LoadError> {
        let (mut rows, mut readable) = (0, 0);
        for_each_record(shape.name, content, shape.columns, |record| {
            rows += 1;
            match each(&record) {
                Ok(()) => readable += 1,
                Err(reason) => self.list(shape.name, record.line, &reason),
            }
        })?;
        self.files.push(FileRows {
            file: shape.name.to_owned(),
            rows,
            readable,
        });
        Ok(())
    }

    fn orders(&mut self, content: &[u8]) -> Result<Orders, LoadError> {
        let mut orders = Orders::default();
        self.rows(&ORDERS, content, |record| {
            let row = OrderRow::read(record).inspect_err(|_| {
                if let Ok((column, cell)) = record.field(0)
                    && let Ok(order) = id(column, cell)
                {
                    let lines = &mut orders.lines_unreadable;
                    if lines.len() < UNREADABLE_IDS_MAX {
                        lines.entry(order).or_insert(record.line);
                    }
                }
            })?;
            if let Some(&line) = orders.lines_read.get(&row.order) {
                let (column, key) = ("order_id", row.order);
                return Err(Reason::Repeated { column, key, line });
            }
            orders.lines_read.insert(row.order.clone(), row.line);
            orders.read.push(row);
            Ok(())
        })?;
        Ok(orders)
    }

    fn items(
        &mut self,
        content: &[u8],
        orders: &Orders,
    ) -> Result<HashMap<String, GatheredItems>, LoadError> {
        let mut items: HashMap<String, GatheredItems> = HashMap::new();
        self.rows(&ITEMS, content, |record| {
            let order = orders.order_of(record, 0)?;
            let gathered = items.entry(order).or_default();
            let row = ItemRow::read(record).inspect_err(|_| {
                gathered.unreadable_line.get_or_insert(record.line);
            })?;
            gathered.read.push(row);
            Ok(())
        })?;
        for gathered in items.values_mut() {
            gathered.read.sort_by_key(|item| item.number);
        }
        Ok(items)
    }

    fn payments(
        &mut self,
        content: &[u8],
        orders: &Orders,
    ) -> Result<HashMap<String, Vec<PaymentRow>>, LoadError> {
        let mut payments: HashMap<String, Vec<PaymentRow>> = HashMap::new();
        self.rows(&PAYMENTS, content, |record| {
            let order = orders.order_of(record, 0)?;
            let row = PaymentRow::read(record, &order)?;
            payments.entry(order).or_default().push(row);
            Ok(())
        })?;
        for rows in payments.values_mut() {
            rows.sort_by_key(|payment| payment.sequence);
            let mut seen: HashMap<i64, u32> = HashMap::new();
            for row in rows {
                row.repetition = count(&mut seen, row.sequence);
            }
        }
        Ok(payments)
    }

    fn reviews(
        &mut self,
        content: &[u8],
        orders: &Orders,
    ) -> Result<HashMap<String, Vec<ReviewRow>>, LoadError> {
        let mut reviews: HashMap<String, Vec<ReviewRow>> = HashMap::new();
        self.rows(&REVIEWS, content, |record| {
            let order = orders.order_of(record, 1)?;
            let row = ReviewRow::read(record)?;
            reviews.entry(order).or_default().push(row);
            Ok(())
        })?;
        for rows in reviews.values_mut() {
            rows.sort_by(|a, b| (a.created_at, &a.review).cmp(&(b.created_at, &b.review)));
            let mut seen: HashMap<String, u32> = HashMap::new();
            for row in rows {
                row.repetition = count(&mut seen, row.review.clone());
            }
        }
        Ok(reviews)
    }

    fn customers(&mut self, content: &[u8]) -> Result<HashMap<String, CustomerRow>, LoadError> {
        let mut customers: HashMap<String, CustomerRow> = HashMap::new();
        self.rows(&CUSTOMERS, content, |record| {
            let (customer, row, reason) = CustomerRow::read(record);
            if let Some(key) = customer {
                if let Some(first) = customers.get(&key) {
                    let (column, line) = ("customer_id", first.line);
                    return Err(reason.unwrap_or(Reason::Repeated { column, key, line }));
                }
                customers.insert(key, row);
            }
            reason.map_or(Ok(()), Err)
        })?;
        Ok(customers)
    }

    /// Lists an order that cannot be placed, with its payments and reviews; none of them is sent.
    fn hold_back(&mut self, history: &mut OrderHistory, reason: &Reason) {
        let (order, line) = (history.order.order.clone(), history.order.line);
        self.list(ORDERS.name, line, reason);
        let held_back = Reason::OrderHeldBack { order, line };
        for payment in history.payments.drain(..) {
            self.list(PAYMENTS.name, payment.line, &held_back);
        }
        for review in history.reviews.drain(..) {
            self.list(REVIEWS.name, review.line, &held_back);
        }
    }
}

/// How often `key` was counted before.
fn count<K: std::hash::Hash + Eq>(seen: &mut HashMap<K, u32>, key: K) -> u32 {
    let times = seen.entry(key).or_insert(0);
    *times += 1;
    *times - 1
}
