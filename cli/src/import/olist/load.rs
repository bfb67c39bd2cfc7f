//! The five files read into one history per order.
//!
//! Invariant: each row is either part of a history or listed with its file, line and reason. The
//! order row is the root: what belongs to an order that is not there, or cannot be read, cannot be
//! placed in time. Deliberately absent: commands.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use domain::order::ITEMS_MAX;

use super::rows::{
    Address, CUSTOMERS, CustomerRow, FileShape, ITEMS, ItemRow, ORDERS, OrderRow, PAYMENTS,
    PaymentRow, REVIEWS, ReviewRow,
};
use super::table::{Record, TableError, for_each_record};
use super::values::{Reason, id};
use crate::import::report::{FileRows, Unreadable};

/// Why a folder cannot be imported at all.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A needed file cannot be read.
    #[error("reading {} failed", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
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

    /// The sample that the program carries: orders that nobody placed, made by a generator.
    #[must_use]
    pub fn sample() -> Self {
        macro_rules! file {
            ($name:literal) => {
                include_bytes!(concat!("../../../sample/olist_", $name, "_dataset.csv")).to_vec()
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
    /// Where they lived then, where that can be read.
    pub address: Option<Address>,
}

/// The items of an order.
#[derive(Clone, Debug)]
pub enum Items {
    /// All of them, by number, then place in the file; maybe none.
    Read(Vec<ItemRow>),
    /// At least one cannot be read, or there are too many for one command.
    Unreadable,
}

/// Everything the files say of one order.
#[derive(Clone, Debug)]
pub struct OrderHistory {
    /// Its own row.
    pub order: OrderRow,
    /// Who placed it, where that can be read.
    pub person: Option<Person>,
    /// Its items.
    pub items: Items,
    /// Its payments, by number, then place in the file.
    pub payments: Vec<PaymentRow>,
    /// Its reviews, by creation, then id, then place in the file.
    pub reviews: Vec<ReviewRow>,
}

/// The histories of a folder, and what of it cannot be read.
#[derive(Clone, Debug, Default)]
pub struct Histories {
    /// By time of purchase, then id.
    pub orders: Vec<OrderHistory>,
    /// Rows read per file.
    pub files: Vec<FileRows>,
    /// What cannot be read, by file, then line.
    pub unreadable: Vec<Unreadable>,
}

/// Reads the files into histories.
///
/// # Errors
/// [`LoadError::Table`] where a file has no usable header.
pub fn load(contents: &Contents) -> Result<Histories, LoadError> {
    let mut reader = Reader::default();
    let mut orders = reader.orders(&contents.orders)?;
    let items = reader.items(&contents.items, &orders)?;
    let payments = reader.payments(&contents.payments, &orders)?;
    let reviews = reader.reviews(&contents.reviews, &orders)?;
    let customers = reader.customers(&contents.customers)?;

    orders
        .read
        .sort_by(|a, b| (a.purchased_at, &a.order).cmp(&(b.purchased_at, &b.order)));
    let mut by_order = (items, payments, reviews);
    let histories = orders
        .read
        .into_iter()
        .map(|order| {
            let items = by_order.0.remove(&order.order).unwrap_or_default();
            OrderHistory {
                person: reader.person_of(&order, &customers),
                items: reader.items_of(&order, items),
                payments: by_order.1.remove(&order.order).unwrap_or_default(),
                reviews: by_order.2.remove(&order.order).unwrap_or_default(),
                order,
            }
        })
        .collect();
    let mut unreadable = reader.unreadable;
    unreadable.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    Ok(Histories {
        orders: histories,
        files: reader.files,
        unreadable,
    })
}

/// The orders as read, and what must be known of them to judge other rows.
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
            None => Reason::OrderMissing { order },
        })
    }
}

/// The items of one order while they are gathered.
#[derive(Default)]
struct GatheredItems {
    read: Vec<ItemRow>,
    unreadable_count: usize,
}

/// Reads file after file and lists what cannot be read.
#[derive(Default)]
struct Reader {
    files: Vec<FileRows>,
    unreadable: Vec<Unreadable>,
}

impl Reader {
    fn list(&mut self, file: &str, line: u64, reason: &Reason) {
        self.unreadable.push(Unreadable {
            file: file.to_owned(),
            line,
            reason: reason.to_string(),
        });
    }

    /// Reads a file; `each` says of a record why it cannot be used.
    fn rows<const N: usize>(
        &mut self,
        shape: &FileShape<N>,
        content: &[u8],
        mut each: impl FnMut(&Record<N>) -> Result<(), Reason>,
    ) -> Result<(), LoadError> {
        let mut rows = 0;
        for_each_record(shape.name, content, shape.columns, |record| {
            rows += 1;
            if let Err(reason) = each(&record) {
                self.list(shape.name, record.line, &reason);
            }
        })?;
        self.files.push(FileRows {
            file: shape.name.to_owned(),
            rows,
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
                    orders.lines_unreadable.entry(order).or_insert(record.line);
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
            let row = ItemRow::read(record).inspect_err(|_| gathered.unreadable_count += 1)?;
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

    fn person_of(
        &mut self,
        order: &OrderRow,
        customers: &HashMap<String, CustomerRow>,
    ) -> Option<Person> {
        let customer = order.customer.clone();
        let reason = match customers.get(&order.customer) {
            Some(row) => match &row.person {
                Some(person) => {
                    return Some(Person {
                        person: person.clone(),
                        address: row.address.clone(),
                    });
                }
                None => Reason::CustomerUnreadable {
                    customer,
                    line: row.line,
                },
            },
            None => Reason::CustomerMissing { customer },
        };
        self.list(ORDERS.name, order.line, &reason);
        None
    }

    fn items_of(&mut self, order: &OrderRow, gathered: GatheredItems) -> Items {
        if gathered.unreadable_count > 0 {
            return Items::Unreadable;
        }
        let items = gathered.read.len();
        if items > ITEMS_MAX {
            let items_max = ITEMS_MAX;
            self.list(
                ORDERS.name,
                order.line,
                &Reason::TooManyItems { items, items_max },
            );
            return Items::Unreadable;
        }
        Items::Read(gathered.read)
    }
}

/// How often `key` was counted before.
fn count<K: std::hash::Hash + Eq>(seen: &mut HashMap<K, u32>, key: K) -> u32 {
    let times = seen.entry(key).or_insert(0);
    *times += 1;
    *times - 1
}
