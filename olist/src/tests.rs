//! From files to command lines: what each kind of row becomes, and how bad rows are handled.

mod doubtful;

use std::collections::HashSet;

use client::CommandLine;
use domain::{customer, order, payment};
use kernel::{Message, ShapeError, StreamName};

use super::load::{Contents, load};
use super::plan::{Plan, command_id};
use import::Listing;

const ORDERS: &str = "order_id,customer_id,order_status,order_purchase_timestamp,\
order_approved_at,order_delivered_carrier_date,order_delivered_customer_date,\
order_estimated_delivery_date\n";
const ITEMS: &str = "order_id,order_item_id,product_id,seller_id,shipping_limit_date,price,\
freight_value\n";
const PAYMENTS: &str =
    "order_id,payment_sequential,payment_type,payment_installments,payment_value\n";
const REVIEWS: &str = "review_id,order_id,review_score,review_comment_title,\
review_comment_message,review_creation_date,review_answer_timestamp\n";
const CUSTOMERS: &str = "customer_id,customer_unique_id,customer_zip_code_prefix,customer_city,\
customer_state\n";

/// The rows of a folder, without headers.
#[derive(Clone, Copy)]
struct Folder {
    orders: &'static str,
    items: &'static str,
    payments: &'static str,
    reviews: &'static str,
    customers: &'static str,
}

/// One placed and delivered order with everything that belongs to it.
const WHOLE: Folder = Folder {
    orders: "o1,c1,delivered,2018-01-01 10:00:00,2018-01-01 11:00:00,2018-01-02 00:00:00,\
             2018-01-05 00:00:00,2018-01-09 00:00:00\n",
    items: "o1,1,p1,s1,2018-01-03 00:00:00,21.99,11.85\n",
    payments: "o1,1,credit_card,2,33.84\n",
    reviews: "r1,o1,5,,,2018-01-06 00:00:00,2018-01-07 00:00:00\n",
    customers: "c1,u1,01310,sao paulo,SP\n",
};

impl Folder {
    fn plan(self) -> Plan {
        let contents = Contents {
            orders: format!("{ORDERS}{}", self.orders).into_bytes(),
            items: format!("{ITEMS}{}", self.items).into_bytes(),
            payments: format!("{PAYMENTS}{}", self.payments).into_bytes(),
            reviews: format!("{REVIEWS}{}", self.reviews).into_bytes(),
            customers: format!("{CUSTOMERS}{}", self.customers).into_bytes(),
        };
        let mut histories = load(&contents, Listing::default()).unwrap();
        histories.unreadable.finish().unwrap();
        Plan::new(histories, None)
    }

    /// Each line as `Command id-of-stream time`, the time without the year.
    fn sent(self) -> Vec<String> {
        let plan = self.plan();
        let lines: Vec<_> = plan.lines().collect();
        assert_eq!(plan.lines_total, lines.len() as u64);
        let short = |line: &serde_json::Value| {
            let stream = line["stream"].as_str().unwrap().split_once('-').unwrap().1;
            let at = &line["occurred_at"].as_str().unwrap()[5..16];
            format!("{} {stream} {at}", line["command"].as_str().unwrap())
        };
        lines
            .iter()
            .map(|line| short(&serde_json::from_str(&line.json).unwrap()))
            .collect()
    }

    fn commands(self) -> Vec<String> {
        let first_word = |line: String| line.split(' ').next().unwrap().to_owned();
        self.sent().into_iter().map(first_word).collect()
    }

    fn unreadable(self) -> Vec<String> {
        let plan = self.plan();
        let listed = plan.unreadable.rows().iter();
        listed
            .map(|row| {
                let file = row
                    .file
                    .trim_start_matches("olist_")
                    .trim_end_matches("_dataset.csv");
                format!("{file}:{} {}", row.line, row.reason)
            })
            .collect()
    }
}

#[test]
fn an_order_becomes_its_commands_in_the_order_of_the_business() {
    assert_eq!(
        WHOLE.sent(),
        [
            "RegisterCustomer u1 01-01T10:00",
            "PlaceOrder o1 01-01T10:00",
            "CapturePayment o1-1 01-01T11:00",
            "ApproveOrder o1 01-01T11:00",
            "ShipOrder o1 01-02T00:00",
            "DeliverOrder o1 01-05T00:00",
            "ReviewOrder o1 01-06T00:00",
        ]
    );
    assert!(WHOLE.unreadable().is_empty());
}

#[test]
fn lines_stand_as_the_batch_door_takes_them() {
    let folder = Folder {
        reviews: "r1,o1,5,,\"so \"\"good\"\"\r\n😀 \",2018-01-06 00:00:00,\n",
        ..WHOLE
    };
    let plan = folder.plan();
    let lines: Vec<String> = plan.lines().map(|line| line.json).collect();
    let id = command_id("PlaceOrder", "o1");
    assert_eq!(
        lines[1],
        format!(
            "{{\"stream\":\"order-o1\",\"command\":\"PlaceOrder\",\"id\":\"{id}\",\
             \"occurred_at\":\"2018-01-01T10:00:00Z\",\
             \"actor\":{{\"id\":\"import-olist\",\"kind\":\"import\"}},\
             \"data\":{{\"customer\":\"u1\",\"items\":[{{\"line\":1,\"product\":\"p1\",\
             \"seller\":\"s1\",\"price\":{{\"amount_minor\":2199,\"currency\":\"BRL\"}},\
             \"freight\":{{\"amount_minor\":1185,\"currency\":\"BRL\"}}}}],\
             \"estimated_delivery\":\"2018-01-09T00:00:00Z\"}}}}"
        )
    );
    assert!(
        lines[6].ends_with(r#""data":{"review":"r1","score":5,"comment":"so \"good\"\r\n😀 "}}"#)
    );
    assert!(lines[3].ends_with(r#""data":{}}"#));
}

/// Reads a planned line in the way of the door, without its envelope.
fn decode(line: &CommandLine) -> Result<(), ShapeError> {
    let value: serde_json::Value = serde_json::from_str(&line.json).unwrap();
    let stream: StreamName = value["stream"].as_str().unwrap().parse().unwrap();
    let data = value["data"].to_string();
    match stream.category() {
        "customer" => customer::Command::decode(&line.command, 1, &data).map(drop),
        "order" => order::Command::decode(&line.command, 1, &data).map(drop),
        "payment" => payment::Command::decode(&line.command, 1, &data).map(drop),
        other => panic!("no category {other}"),
    }
}

#[test]
fn every_line_has_the_shape_that_the_business_asks_for() {
    let everything = Folder {
        orders: "o1,c1,canceled,2018-01-01 10:00:00,2018-01-01 11:00:00,2018-01-02 00:00:00,\
                 2018-01-05 00:00:00,2018-01-09 00:00:00\n\
                 o2,c2,processing,2018-01-02 10:00:00,,,,2018-01-09 00:00:00\n\
                 o3,c1,invoiced,2018-01-03 10:00:00,,,,2018-01-09 00:00:00\n\
                 o4,c1,unavailable,2018-01-03 10:00:00,,,,2018-01-09 00:00:00\n",
        customers: "c1,u1,01310,sao paulo,SP\nc2,u1,,,\n",
        payments: "o1,1,credit_card,-1,-90071992547409.92\no1,2,boleto,0,90071992547409.92\n\
                   o1,3,debit_card,1,0\no1,4,voucher,1,0.0\n",
        reviews: "r1,o1,5,title,comment,2018-01-06 00:00:00,\n",
        ..WHOLE
    };
    let plan = everything.plan();
    assert_eq!(plan.unreadable.count(), 0, "{:?}", plan.unreadable);
    let mut commands = HashSet::new();
    for line in plan.lines() {
        decode(&line).unwrap_or_else(|error| panic!("{error}: {}", line.json));
        commands.insert(line.command);
    }
    assert_eq!(commands.len(), 12);
}

#[test]
fn text_that_the_business_cannot_take_cannot_be_read() {
    let long = format!("r1,o1,5,{},,2018-01-06 00:00:00,\n", "é".repeat(501));
    for (reviews, reason) in [
        (
            &*long.leak(),
            "review_comment_title holds a text of more than 500 characters",
        ),
        (
            "r1,o1,5,,a\0b,2018-01-06 00:00:00,\n",
            "review_comment_message holds a text with the character U+0000",
        ),
    ] {
        let folder = Folder { reviews, ..WHOLE };
        assert_eq!(folder.unreadable(), [format!("order_reviews:2 {reason}")]);
    }
}

#[test]
fn command_ids_never_change() {
    assert_eq!(
        command_id("PlaceOrder", "o1").to_string(),
        "b20f6dac-6407-5959-8d85-5c0b638de7a9"
    );
}

#[test]
fn steps_follow_the_status_and_the_times_that_are_there() {
    let bought = "2018-01-01 10:00:00";
    for (row, steps) in [
        (",,,", vec![]),
        (
            "approved,2018-01-02 00:00:00,,",
            vec!["ApproveOrder 01-02T00:00"],
        ),
        (
            "processing,2018-01-02 00:00:00,,",
            vec!["ApproveOrder 01-02T00:00", "StartProcessing 01-02T00:00"],
        ),
        ("processing,,,", vec!["StartProcessing 01-01T10:00"]),
        ("invoiced,,,", vec!["InvoiceOrder 01-01T10:00"]),
        (
            "delivered,,2018-01-04 00:00:00,2018-01-03 00:00:00",
            vec!["ShipOrder 01-04T00:00", "DeliverOrder 01-03T00:00"],
        ),
        ("canceled,,,", vec!["CancelOrder 01-01T10:00"]),
        (
            "canceled,2018-01-02 00:00:00,2018-01-05 00:00:00,2018-01-04 00:00:00",
            vec![
                "ApproveOrder 01-02T00:00",
                "ShipOrder 01-05T00:00",
                "DeliverOrder 01-04T00:00",
                "CancelOrder 01-05T00:00",
            ],
        ),
        (
            "unavailable,2018-01-02 00:00:00,,",
            vec!["ApproveOrder 01-02T00:00", "MarkUnavailable 01-02T00:00"],
        ),
    ] {
        let (status, times) = row.split_once(',').unwrap();
        let status = if status.is_empty() { "created" } else { status };
        let order = format!("o1,c1,{status},{bought},{times},2018-01-09 00:00:00\n");
        let folder = Folder {
            orders: order.leak(),
            payments: "",
            reviews: "",
            ..WHOLE
        };
        let sent: Vec<_> = folder.sent().split_off(2);
        let sent: Vec<_> = sent.iter().map(|line| line.replace(" o1", "")).collect();
        assert_eq!(sent, steps, "{row}");
    }
}

#[test]
fn orders_come_by_time_of_purchase_then_id_whatever_their_place_in_the_file() {
    let folder = Folder {
        orders: "o3,c3,created,2018-01-01 10:00:00,,,,2018-01-09 00:00:00\n\
                 o2,c2,created,2018-01-01 10:00:00,,,,2018-01-09 00:00:00\n\
                 o1,c1,created,2018-01-02 10:00:00,,,,2018-01-09 00:00:00\n",
        items: "",
        payments: "o2,2,voucher,1,0.0\no3,1,boleto,1,1\no2,1,voucher,1,5\n",
        reviews: "r2,o3,5,,,2018-01-06 00:00:00,\nr1,o3,5,,,2018-01-06 00:00:00,\n\
                  r3,o3,5,,,2018-01-05 00:00:00,\n",
        customers: "c1,u1,1,a,SP\nc2,u1,1,a,SP\nc3,u2,1,a,SP\n",
    };
    assert_eq!(
        folder.sent(),
        [
            "RegisterCustomer u1 01-01T10:00",
            "PlaceOrder o2 01-01T10:00",
            "CapturePayment o2-1 01-01T10:00",
            "CapturePayment o2-2 01-01T10:00",
            "RegisterCustomer u2 01-01T10:00",
            "PlaceOrder o3 01-01T10:00",
            "CapturePayment o3-1 01-01T10:00",
            "ReviewOrder o3 01-05T00:00",
            "ReviewOrder o3 01-06T00:00",
            "ReviewOrder o3 01-06T00:00",
            "PlaceOrder o1 01-02T10:00",
        ]
    );
    let plan = folder.plan();
    let reviews: Vec<String> = plan.lines().map(|line| line.json).collect();
    assert!(reviews[8].contains(r#""review":"r1""#) && reviews[9].contains(r#""review":"r2""#));
}

#[test]
fn a_person_registers_once_and_corrects_the_address_each_time_it_changes() {
    let folder = Folder {
        orders: "o1,c1,created,2018-01-01 00:00:00,,,,2018-01-09 00:00:00\n\
                 o2,c2,created,2018-01-02 00:00:00,,,,2018-01-09 00:00:00\n\
                 o3,c3,created,2018-01-03 00:00:00,,,,2018-01-09 00:00:00\n\
                 o4,c2,created,2018-01-04 00:00:00,,,,2018-01-09 00:00:00\n\
                 o5,c1,created,2018-01-05 00:00:00,,,,2018-01-09 00:00:00\n",
        items: "",
        payments: "",
        reviews: "",
        customers: "c1,u1,1,a,SP\nc2,u1,2,a,SP\nc3,u1,2,a,SP\n",
    };
    assert_eq!(
        folder.sent(),
        [
            "RegisterCustomer u1 01-01T00:00",
            "PlaceOrder o1 01-01T00:00",
            "CorrectAddress u1 01-02T00:00",
            "PlaceOrder o2 01-02T00:00",
            "PlaceOrder o3 01-03T00:00",
            "PlaceOrder o4 01-04T00:00",
            "CorrectAddress u1 01-05T00:00",
            "PlaceOrder o5 01-05T00:00",
        ]
    );
}

#[test]
fn every_command_has_an_id_of_its_own_that_a_repetition_finds_again() {
    let folder = Folder {
        payments: "o1,1,credit_card,2,33.84\no1,1,credit_card,2,33.84\no1,2,voucher,1,1\n",
        reviews: "r1,o1,5,,,2018-01-06 00:00:00,\nr1,o1,4,,,2018-01-06 00:00:00,\n",
        ..WHOLE
    };
    let lines: Vec<_> = folder.plan().lines().collect();
    let again: Vec<_> = folder.plan().lines().collect();
    assert_eq!(lines, again);
    let ids: HashSet<String> = lines
        .iter()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(&line.json).unwrap()["id"].to_string()
        })
        .collect();
    assert_eq!(ids.len(), lines.len());
}

/// All commands of an order that are missing if the order cannot be placed.
const HELD_BACK: [&str; 6] = [
    "PlaceOrder",
    "CapturePayment",
    "ApproveOrder",
    "ShipOrder",
    "DeliverOrder",
    "ReviewOrder",
];

#[test]
fn an_unreadable_row_makes_unreadable_only_what_contains_it() {
    let everything = WHOLE.commands();
    for (folder, missing, listed) in [
        (
            Folder {
                items: "o1,1,p1,s1,2018-01-03 00:00:00,-21.99,11.85\n",
                ..WHOLE
            },
            HELD_BACK.to_vec(),
            "order_items:2 price is not a price of 0 or more: \"-21.99\"",
        ),
        (
            Folder {
                items: "o1,1,p1,s1,2018-01-03 00:00:00,21.99\n",
                ..WHOLE
            },
            HELD_BACK.to_vec(),
            "order_items:2 the row has 6 fields, but the header has 7",
        ),
        (
            Folder {
                items: "o1,one,p1,s1,2018-01-03 00:00:00,1,1\n",
                ..WHOLE
            },
            HELD_BACK.to_vec(),
            "order_items:2 order_item_id is not an item's number: \"one\"",
        ),
        (
            Folder {
                payments: "o1,1,not_defined,1,0\n",
                ..WHOLE
            },
            vec!["CapturePayment"],
            "order_payments:2 payment_type is not a known payment method: \"not_defined\"",
        ),
        (
            Folder {
                payments: "o1,1,boleto,1,1.005\n",
                ..WHOLE
            },
            vec!["CapturePayment"],
            "order_payments:2 payment_value is not an amount with at most two decimals, such as \
             21.99: \"1.005\"",
        ),
        (
            Folder {
                reviews: "r1,o1,6,,,2018-01-06 00:00:00,\n",
                ..WHOLE
            },
            vec!["ReviewOrder"],
            "order_reviews:2 review_score is not a score from 1 to 5: \"6\"",
        ),
        (
            Folder {
                reviews: "r1,o1,5,,\"two\nlines\",06/01/2018,\n",
                ..WHOLE
            },
            vec!["ReviewOrder"],
            "order_reviews:2 review_creation_date is not a date and time, such as 2018-06-04 \
             16:44:48: \"06/01/2018\"",
        ),
        (
            Folder {
                customers: "c1,u1,01310,sao paulo\n",
                ..WHOLE
            },
            vec!["RegisterCustomer"],
            "customers:2 the row has 4 fields, but the header has 5",
        ),
        (
            Folder {
                customers: "c1\n",
                ..WHOLE
            },
            [&HELD_BACK[..], &["RegisterCustomer"]].concat(),
            "customers:2 the row has 1 fields, but the header has 5",
        ),
        (
            Folder {
                customers: "c2,u1,01310,sao paulo,SP\n",
                ..WHOLE
            },
            [&HELD_BACK[..], &["RegisterCustomer"]].concat(),
            "orders:2 customer c1 is not in the customers file",
        ),
    ] {
        let mut expected = everything.clone();
        expected.retain(|command| !missing.contains(&command.as_str()));
        assert_eq!(folder.commands(), expected, "{listed}");
        assert!(
            folder.unreadable().contains(&listed.to_owned()),
            "{:?}",
            folder.unreadable()
        );
    }
}

#[test]
fn what_the_business_refuses_is_sent() {
    for folder in [
        Folder { items: "", ..WHOLE },
        Folder {
            items: "o1,1,p1,s1,,0.0,-1\no1,1,p1,s1,,1,1\n",
            ..WHOLE
        },
        Folder {
            payments: "o1,1,voucher,-1,-5\n",
            ..WHOLE
        },
    ] {
        assert_eq!(folder.commands(), WHOLE.commands());
        assert!(folder.unreadable().is_empty());
    }
}

#[test]
fn rows_without_a_readable_order_are_listed_and_nothing_is_sent_for_them() {
    let folder = Folder {
        orders: "o1,c1,lost,2018-01-01 10:00:00,,,,2018-01-09 00:00:00\n\
                 o2,c1,created,2018-01-01 10:00:00,,,,2018-01-09 00:00:00\n\
                 o2,c1,created,2018-01-01 10:00:00,,,,2018-01-09 00:00:00\n\
                 o3,c1,created,2018-01-01 10:00:00,,,,\n",
        items: "o1,1,p1,s1,,1,1\no9,1,p1,s1,,1,1\n",
        ..WHOLE
    };
    assert_eq!(folder.commands(), ["RegisterCustomer", "PlaceOrder"]);
    assert_eq!(
        folder.unreadable(),
        [
            "order_items:2 its order o1, in line 2 of the orders file, cannot be read",
            "order_items:3 order o9 is not in the orders file",
            "order_payments:2 its order o1, in line 2 of the orders file, cannot be read",
            "order_reviews:2 its order o1, in line 2 of the orders file, cannot be read",
            "orders:2 order_status is not a known status: \"lost\"",
            "orders:4 order_id o2 is already in line 3",
            "orders:5 order_estimated_delivery_date is not a date and time, such as 2018-06-04 \
             16:44:48: \"\"",
        ]
    );
}

#[test]
fn a_person_whose_first_row_cannot_be_read_registers_with_the_next_one() {
    let folder = Folder {
        orders: "o1,c1,created,2018-01-01 00:00:00,,,,2018-01-09 00:00:00\n\
                 o2,c2,created,2018-01-02 00:00:00,,,,2018-01-09 00:00:00\n",
        items: "",
        payments: "",
        reviews: "",
        customers: "c1,u1,1,a\nc2,u1,1,a,SP\n",
    };
    assert_eq!(
        folder.commands(),
        ["PlaceOrder", "RegisterCustomer", "PlaceOrder"]
    );
    assert_eq!(
        folder.unreadable(),
        ["customers:2 the row has 4 fields, but the header has 5"]
    );
}

#[test]
fn an_order_may_not_have_more_items_than_a_command_may_hold() {
    let rows = |count| {
        let row = |number| format!("o1,{number},p1,s1,,1,1\n");
        Folder {
            items: (1..=count).map(row).collect::<String>().leak(),
            ..WHOLE
        }
    };
    assert_eq!(rows(200).commands(), WHOLE.commands());
    assert!(!rows(201).commands().contains(&"PlaceOrder".to_owned()));
    assert_eq!(
        rows(201).unreadable()[2],
        "orders:2 the order has 201 items, and a command may have at most 200"
    );
}
