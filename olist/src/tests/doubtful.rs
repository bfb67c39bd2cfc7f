//! Doubtful rows: orders that are held back, quotes that are not closed, and corrections.

use super::*;
use import::Verdict;

#[test]
fn of_an_order_that_cannot_be_placed_every_row_is_listed_and_nothing_is_sent() {
    let folder = Folder {
        items: "o1,1,p1,s1,,\"1\",1\no1,2,p1,s1,,\"1,5\",1\n",
        ..WHOLE
    };
    assert_eq!(folder.commands(), ["RegisterCustomer"]);
    assert_eq!(
        folder.unreadable(),
        [
            "order_items:3 price is not an amount with at most two decimals, such as 21.99: \"1,5\"",
            "order_payments:2 its order o1, in line 2 of the orders file, cannot be placed",
            "order_reviews:2 its order o1, in line 2 of the orders file, cannot be placed",
            "orders:2 an item of the order, in line 3 of the items file, cannot be read; no \
             command for the order is sent until it can be read",
        ]
    );
}

#[test]
fn a_quote_that_is_never_closed_spoils_one_row() {
    let folder = Folder {
        orders: "o1,c1,created,2018-01-01 00:00:00,,,,2018-01-09 00:00:00\n\
                 o2,c1,created,2018-01-02 00:00:00,,,,2018-01-09 00:00:00\n",
        items: "o1,1,p1,\"s1,,1,1\no2,1,p1,\"s1\",,1,1\n",
        payments: "",
        reviews: "r1,o1,5,a,\"never closed,2018-01-06 00:00:00,\n\
                  r2,o2,1,b,\"second\",2018-01-06 00:00:00,\n\
                  r3,o2,4,c,third,2018-01-06 00:00:00,\n",
        ..WHOLE
    };
    // If an item cannot be read, its order is not placed without that item.
    assert_eq!(
        folder.commands(),
        [
            "RegisterCustomer",
            "PlaceOrder",
            "ReviewOrder",
            "ReviewOrder"
        ]
    );
    let listed = folder.unreadable();
    let begins = [
        "order_items:2 the quote that opens field 4 is closed before the field ends, in line 3",
        "order_reviews:2 the quote that opens field 5 is closed before the field ends, in line 3",
        "orders:2 an item of the order, in line 2 of the items file, cannot be read",
    ];
    assert_eq!(listed.len(), begins.len(), "{listed:?}");
    for (row, begin) in listed.iter().zip(begins) {
        assert!(row.starts_with(begin), "{row}");
    }
}

#[test]
fn corrections_repeat_the_refused_commands_of_a_changed_stream_under_new_ids() {
    use Verdict::{Accepted, AcceptedBefore, Changed, Refused, RefusedBefore};
    let commands = |folder: Folder, verdicts: [Verdict; 7]| -> Vec<(String, String)> {
        let plan = folder.plan();
        let lines = plan.corrections(&verdicts).map(|line| {
            let json: serde_json::Value = serde_json::from_str(&line.json).unwrap();
            (line.command.into_owned(), json["id"].to_string())
        });
        lines.collect()
    };
    let names = |corrections: &[(String, String)]| -> Vec<String> {
        corrections.iter().map(|(name, _)| name.clone()).collect()
    };
    let nothing = [AcceptedBefore; 7];
    assert_eq!(commands(WHOLE, nothing), []);
    // Without a change of data, a refusal is final, whether it is new or old.
    let refused = [
        Accepted, Refused, Accepted, Refused, Refused, Refused, Refused,
    ];
    assert_eq!(commands(WHOLE, refused), []);
    // The placing was changed: all refused commands of its stream are sent again.
    let mut verdicts = [RefusedBefore; 7];
    (verdicts[0], verdicts[1], verdicts[2]) = (AcceptedBefore, Changed, AcceptedBefore);
    verdicts[6] = Refused;
    let corrections = commands(WHOLE, verdicts);
    let steps = [
        "PlaceOrder",
        "ApproveOrder",
        "ShipOrder",
        "DeliverOrder",
        "ReviewOrder",
    ];
    assert_eq!(names(&corrections), steps);
    assert_eq!(commands(WHOLE, verdicts), corrections);
    // The placing was accepted only in this run.
    verdicts[1] = Accepted;
    verdicts[6] = RefusedBefore;
    assert_eq!(names(&commands(WHOLE, verdicts)), steps[1..]);
    // Another change gives another correction; a payment has a stream of its own.
    let changed = Folder {
        items: "o1,1,p1,s1,2018-01-03 00:00:00,22.99,11.85\n",
        ..WHOLE
    };
    verdicts[1] = Changed;
    let others = commands(changed, verdicts);
    assert!(others.iter().all(|line| !corrections.contains(line)));
    verdicts = nothing;
    verdicts[2] = Changed;
    assert_eq!(names(&commands(WHOLE, verdicts)), ["CapturePayment"]);
    let plain: Vec<_> = WHOLE.plan().lines().collect();
    let is_plain = |id: &String| plain.iter().any(|line| line.json.contains(id));
    assert!(
        corrections
            .iter()
            .chain(&others)
            .all(|(_, id)| !is_plain(id))
    );
}
