//! Makes invented orders in the form of the public Olist data, with its dirt.
//!
//! Invariant: a seed and a number of orders give the same bytes for ever; every fate and oddity
//! occurs as soon as there are enough orders for it. Deliberately absent: rows of the real data,
//! and the meaning of the rows for the business.

use kernel::Timestamp;
use olist::invented::words::{CITIES, COMMENTS, TITLES};
use olist::random::Random;

use super::files::{DataSet, row};
use super::shapes::{ODDITIES, Oddity, SHAPES, Shape};

const MINUTE_S: i64 = 60;
const HOUR_S: i64 = 60 * MINUTE_S;
const DAY_S: i64 = 24 * HOUR_S;
/// 2017-01-01T00:00:00Z, when the first order may be placed.
const FIRST_DAY_S: i64 = 1_483_228_800;
/// Orders are placed within this many days.
const DAYS: i64 = 600;
/// How many sellers there are, and how many products.
const SELLERS: usize = 40;

/// A customer's row; later orders may be placed by the same person.
#[derive(Clone)]
struct Customer {
    person: String,
    postcode_prefix: String,
    city: &'static str,
    state: &'static str,
}

/// What later orders need to know of this one.
#[derive(Clone)]
pub(super) struct Placed {
    /// The order's id.
    pub(super) order: String,
    /// When it was placed, in seconds since 1970.
    pub(super) purchased_at_s: i64,
    customer: Customer,
    review: Option<[String; 6]>,
}

impl Placed {
    /// The person who placed the order.
    pub(super) fn person(&self) -> &str {
        &self.customer.person
    }
}

/// Makes data sets, order by order.
pub(super) struct Generator {
    pub(super) random: Random,
    pub(super) data: DataSet,
    sellers: Vec<String>,
    products: Vec<String>,
    placed: Vec<Placed>,
}

/// Makes `orders` orders with all the dirt that is known from the public data.
pub(super) fn real(seed: u64, orders: usize) -> Generator {
    let mut random = Random::new(seed);
    let ids = |random: &mut Random| (0..SELLERS).map(|_| random.id()).collect();
    let mut generator = Generator {
        sellers: ids(&mut random),
        products: ids(&mut random),
        data: DataSet::default(),
        placed: Vec::new(),
        random,
    };
    for number in 0..orders {
        // Even orders go through the fates, odd ones through the oddities, so that each occurs.
        let (shape, oddity) = if number % 2 == 0 {
            (SHAPES.get(number / 2).copied(), None)
        } else {
            (None, ODDITIES.get(number / 2).copied())
        };
        let shape = shape.unwrap_or_else(|| generator.any_shape(oddity));
        let oddity = oddity.or_else(|| generator.any_oddity());
        generator.order(shape, oddity);
    }
    generator
}

impl Generator {
    /// Shuffles the rows of each file; the public files are not in order either.
    pub(super) fn finish(mut self) -> DataSet {
        self.random.shuffle(&mut self.data.orders);
        self.random.shuffle(&mut self.data.items);
        self.random.shuffle(&mut self.data.payments);
        self.random.shuffle(&mut self.data.reviews);
        self.random.shuffle(&mut self.data.customers);
        self.data
    }

    /// One order and all its rows.
    pub(super) fn order(&mut self, shape: Shape, oddity: Option<Oddity>) -> Placed {
        let earlier = self.earlier_order();
        let purchased_at_s = match (&earlier, oddity) {
            (Some(earlier), Some(Oddity::SplitCart)) => earlier.purchased_at_s,
            _ => FIRST_DAY_S + self.random.between(0, DAYS * DAY_S),
        };
        let mut placed = Placed {
            order: self.random.id(),
            purchased_at_s,
            customer: self.customer(earlier.as_ref(), oddity),
            review: None,
        };
        self.order_rows(&placed, shape, oddity);
        let total_minor = if shape.has_items {
            self.items(&placed, oddity)
        } else {
            self.random.between(2_000, 30_000)
        };
        self.payments(&placed.order, total_minor, oddity);
        placed.review = self.reviews(&placed, earlier.as_ref(), oddity);
        self.placed.push(placed.clone());
        placed
    }

    fn any_shape(&mut self, oddity: Option<Oddity>) -> Shape {
        // Oddities of steps or items need an order that has them.
        if oddity.is_some() {
            return SHAPES[0];
        }
        let all: u64 = SHAPES.iter().map(|shape| shape.weight).sum();
        let mut left = self.random.bits() % all;
        *SHAPES
            .iter()
            .find(|shape| {
                let found = left < shape.weight;
                left = left.saturating_sub(shape.weight);
                found
            })
            .expect("the draw is below the sum of the weights")
    }

    fn any_oddity(&mut self) -> Option<Oddity> {
        self.random
            .once_in(12)
            .then(|| *self.random.one_of(&ODDITIES))
    }

    fn earlier_order(&mut self) -> Option<Placed> {
        if self.placed.is_empty() {
            return None;
        }
        let place = self.random.index(self.placed.len());
        Some(self.placed[place].clone())
    }

    fn customer(&mut self, earlier: Option<&Placed>, oddity: Option<Oddity>) -> Customer {
        let (city, state, postcode) = *self.random.one_of(&CITIES);
        let postcode_prefix = format!("{:05}", postcode + self.random.between(0, 900));
        let stranger = Customer {
            person: self.random.id(),
            postcode_prefix,
            city,
            state,
        };
        match (earlier, oddity) {
            (Some(earlier), Some(Oddity::KnownPerson | Oddity::SplitCart)) => {
                earlier.customer.clone()
            }
            (Some(earlier), Some(Oddity::MovedPerson)) => Customer {
                person: earlier.customer.person.clone(),
                ..stranger
            },
            _ => stranger,
        }
    }

    fn order_rows(&mut self, placed: &Placed, shape: Shape, oddity: Option<Oddity>) {
        let purchased_at_s = placed.purchased_at_s;
        let approved_at_s = match oddity {
            Some(Oddity::ApprovedAtOnce) => purchased_at_s,
            _ => purchased_at_s + self.random.between(5 * MINUTE_S, 2 * DAY_S),
        };
        let shipped_at_s = match oddity {
            Some(Oddity::ShippedBeforeApproval) => approved_at_s - HOUR_S,
            _ => approved_at_s + self.random.between(HOUR_S, 6 * DAY_S),
        };
        let delivered_at_s = match oddity {
            Some(Oddity::DeliveredBeforeShipping) => shipped_at_s - DAY_S,
            _ => shipped_at_s + self.random.between(DAY_S, 25 * DAY_S),
        };
        let estimated_day = purchased_at_s / DAY_S + self.random.between(12, 35);
        let time = |is_there, at_s| {
            if is_there {
                moment(at_s)
            } else {
                String::new()
            }
        };
        let customer_row = self.random.id();
        self.data.orders.push(row([
            &placed.order,
            &customer_row,
            shape.status,
            &moment(purchased_at_s),
            &time(shape.is_approved, approved_at_s),
            &time(shape.is_shipped, shipped_at_s),
            &time(shape.is_delivered, delivered_at_s),
            &moment(estimated_day * DAY_S),
        ]));
        let customer = &placed.customer;
        self.data.customers.push(row([
            &customer_row,
            &customer.person,
            &customer.postcode_prefix,
            customer.city,
            customer.state,
        ]));
    }

    /// Adds the rows of the items; returns their price and freight together.
    fn items(&mut self, placed: &Placed, oddity: Option<Oddity>) -> i64 {
        let count = match oddity {
            Some(Oddity::ManyItems) => self.random.between(5, 12),
            _ if self.random.once_in(12) => self.random.between(2, 4),
            _ => 1,
        };
        let mut total_minor = 0;
        let (mut product, mut seller) = self.product();
        let mut price_minor = self.random.between(500, 40_000);
        for number in 1..=count {
            if oddity == Some(Oddity::ManyItems) && number % 2 == 0 {
                (product, seller) = self.product();
                price_minor = self.random.between(5, 400) * 100;
            }
            let freight_minor = match oddity {
                Some(Oddity::FreeFreight) => 0,
                _ => self.random.between(700, 6_000),
            };
            total_minor += price_minor + freight_minor;
            self.data.items.push(row([
                &placed.order,
                &number.to_string(),
                &product,
                &seller,
                &moment(placed.purchased_at_s + 6 * DAY_S),
                &amount(price_minor),
                &amount(freight_minor),
            ]));
        }
        total_minor
    }

    fn product(&mut self) -> (String, String) {
        let product = self.random.index(SELLERS);
        // Most of the time, a product has one seller.
        let seller = if self.random.once_in(10) { 0 } else { product };
        (self.products[product].clone(), self.sellers[seller].clone())
    }

    fn payments(&mut self, order: &str, total_minor: i64, oddity: Option<Oddity>) {
        let instalments = *self.random.one_of(&["1", "1", "2", "3", "4", "8", "10"]);
        let whole = amount(total_minor);
        let rows: Vec<(i64, &str, &str, String)> = match oddity {
            Some(Oddity::NoPayment) => vec![],
            Some(Oddity::ZeroVoucher) => vec![
                (1, "credit_card", instalments, whole),
                (2, "voucher", "1", amount(0)),
            ],
            Some(Oddity::NoInstalments) => vec![(1, "credit_card", "0", whole)],
            Some(Oddity::PaymentGap) => vec![(2, "credit_card", instalments, whole)],
            Some(Oddity::ManyPayments) => {
                let part_minor = total_minor / 13;
                let voucher = |sequence| (sequence, "voucher", "1", amount(part_minor));
                let rest = amount(total_minor - 12 * part_minor);
                let card = (1, "credit_card", instalments, rest);
                std::iter::once(card).chain((2..=13).map(voucher)).collect()
            }
            _ => match self.random.bits() % 20 {
                0..14 => vec![(1, "credit_card", instalments, whole)],
                14..18 => vec![(1, "boleto", "1", whole)],
                18 => vec![(1, "debit_card", "1", whole)],
                _ => {
                    let half_minor = total_minor / 2;
                    vec![
                        (1, "credit_card", "1", amount(half_minor)),
                        (2, "voucher", "1", amount(total_minor - half_minor)),
                    ]
                }
            },
        };
        for (sequence, method, instalments, value) in rows {
            let sequence = sequence.to_string();
            let cells = [order, &sequence, method, instalments, &value];
            self.data.payments.push(row(cells));
        }
    }

    /// Adds the rows of the reviews; returns the first one, which another order may share.
    fn reviews(
        &mut self,
        placed: &Placed,
        earlier: Option<&Placed>,
        oddity: Option<Oddity>,
    ) -> Option<[String; 6]> {
        let created_day = match oddity {
            Some(Oddity::ReviewedBeforePlacing) => placed.purchased_at_s / DAY_S - 3,
            _ => placed.purchased_at_s / DAY_S + self.random.between(5, 30),
        };
        let mut reviews = Vec::new();
        let shared = earlier.and_then(|earlier| earlier.review.clone());
        match (oddity, shared) {
            (Some(Oddity::NoReview), _) => {}
            (Some(Oddity::SharedReview), Some(shared)) => reviews.push(shared),
            (Some(Oddity::TwoReviews), _) => {
                reviews.push(self.review(created_day, None));
                reviews.push(self.review(created_day, None));
            }
            (Some(Oddity::ThreeReviews), _) => {
                for days in [9, 0, 4] {
                    reviews.push(self.review(created_day + days, None));
                }
            }
            (oddity, _) => reviews.push(self.review(created_day, oddity)),
        }
        for review in &reviews {
            let [id, score, title, comment, created, answered] = review;
            let cells = [id, &placed.order, score, title, comment, created, answered];
            self.data.reviews.push(row(cells.map(String::as_str)));
        }
        reviews.into_iter().next()
    }

    fn review(&mut self, created_day: i64, oddity: Option<Oddity>) -> [String; 6] {
        let (title, comment) = match oddity {
            Some(Oddity::CommentWithLineBreaks) => ("", "Primeira linha\r\n\r\nSegunda\nTerceira "),
            Some(Oddity::CommentWithQuotes) => (
                "\"Bom\", mas",
                "O tal \"frete grátis\", não foi;\r\ncobraram, \"\"duas\"\" vezes",
            ),
            Some(Oddity::CommentWithEmoji) => ("👍🏽", "Adorei 😍🎁 – voltarei!"),
            Some(Oddity::BlankComment) => ("", "   "),
            _ => {
                let comment = if self.random.once_in(2) {
                    *self.random.one_of(&COMMENTS)
                } else {
                    ""
                };
                let title = if self.random.once_in(6) {
                    *self.random.one_of(&TITLES)
                } else {
                    ""
                };
                (title, comment)
            }
        };
        let score = self
            .random
            .one_of(&["5", "5", "5", "4", "4", "3", "2", "1"]);
        let created_at_s = created_day * DAY_S;
        [
            self.random.id(),
            (*score).to_owned(),
            title.to_owned(),
            comment.to_owned(),
            moment(created_at_s),
            moment(created_at_s + self.random.between(HOUR_S, 5 * DAY_S)),
        ]
    }
}

/// A time in the form of the files: `2018-06-04 16:44:48`.
pub(super) fn moment(at_s: i64) -> String {
    let moment = Timestamp::from_micros(at_s * 1_000_000).expect("a moment of this century");
    moment.to_string().replace('T', " ").replace('Z', "")
}

/// An amount in the form of the files: 21.99, 16.5, 225.0.
pub(super) fn amount(minor: i64) -> String {
    match (minor / 100, minor % 100) {
        (whole, cents) if cents % 10 == 0 => format!("{whole}.{}", cents / 10),
        (whole, cents) => format!("{whole}.{cents:02}"),
    }
}
