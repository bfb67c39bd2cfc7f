//! Imports through a running program: the report, repairs by a corrected file, and the exit codes.
//!
//! The tests use the small inputs in `../shared/cases` if that folder exists, and otherwise the
//! copies written here.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::program::{Server, assert_exit, call, folder, stderr, stdout};

/// A small input, from the folder of cases or as written here.
fn case(name: &str, into: &Path) -> PathBuf {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/cases");
    let target = into.join(name);
    fs::create_dir_all(&target).unwrap();
    let files = [
        ("customers", customers()),
        (
            "order_items",
            items(if name == "mended-later" {
                "\"10,00\""
            } else {
                "10.00"
            }),
        ),
        ("order_payments", payments()),
        ("order_reviews", reviews(name == "stray-quote")),
        ("orders", orders()),
    ];
    for (file, text) in files {
        let file = format!("olist_{file}_dataset.csv");
        let text = fs::read_to_string(shared.join(name).join(&file)).unwrap_or(text);
        fs::write(target.join(file), text).unwrap();
    }
    target
}

fn rows(header: &str, row: impl Fn(u32) -> String) -> String {
    let rows = (1..4).map(|n| row(n) + "\n").collect::<String>();
    format!("{header}\n{rows}")
}

fn customers() -> String {
    let header = "customer_id,customer_unique_id,customer_zip_code_prefix,customer_city,\
                  customer_state";
    rows(header, |n| format!("cus-{n},per-{n},0100{n},sao paulo,SP"))
}

fn items(first_price: &str) -> String {
    let header = "order_id,order_item_id,product_id,seller_id,shipping_limit_date,price,\
                  freight_value";
    rows(header, |n| {
        let price = if n == 1 { first_price } else { "10.00" };
        format!("ord-{n},1,pro-1,sel-1,2018-01-05 00:00:00,{price},1.00")
    })
}

fn payments() -> String {
    let header = "order_id,payment_sequential,payment_type,payment_installments,payment_value";
    rows(header, |n| format!("ord-{n},1,boleto,1,11.00"))
}

fn reviews(is_stray: bool) -> String {
    let header = "review_id,order_id,review_score,review_comment_title,review_comment_message,\
                  review_creation_date,review_answer_timestamp";
    let days = "2018-01-02 00:00:00,2018-01-03 00:00:00";
    if !is_stray {
        return format!("{header}\nrev-1,ord-1,5,,first,{days}\n");
    }
    format!(
        "{header}\nrev-1,ord-1,5,a,\"never closed,{days}\nrev-2,ord-2,1,b,\"second\",{days}\n\
         rev-3,ord-3,4,c,third,{days}\n"
    )
}

fn orders() -> String {
    let header = "order_id,customer_id,order_status,order_purchase_timestamp,order_approved_at,\
                  order_delivered_carrier_date,order_delivered_customer_date,\
                  order_estimated_delivery_date";
    rows(header, |n| {
        let day = "2018-01-01";
        format!(
            "ord-{n},cus-{n},delivered,{day} 10:00:00,{day} 11:00:00,{day} 12:00:00,\
             {day} 15:00:00,2018-01-09 00:00:00"
        )
    })
}

/// A running program, and a folder that it imports.
struct Import {
    server: Server,
    folder: tempfile::TempDir,
    orders: PathBuf,
}

impl Import {
    fn of(name: &str) -> Self {
        let folder = folder();
        let orders = case(name, folder.path());
        Self {
            server: Server::dev(folder.path()),
            folder,
            orders,
        }
    }

    /// Imports with more arguments, checks the exit code, and returns the report.
    fn run(&self, arguments: &[&str], code: i32) -> Value {
        let path = self.orders.to_str().unwrap();
        let fixed = [
            "import",
            "olist",
            path,
            "--output",
            "json",
            "--url",
            &self.server.url,
        ];
        let output = call(self.folder.path(), &[&fixed, arguments].concat());
        assert_exit(&output, code);
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Imports the lines of a text.
    fn lines(&self, text: &str) -> std::process::Output {
        fs::write(self.folder.path().join("lines"), text).unwrap();
        let arguments = ["import", "commands", "lines", "--url", &self.server.url];
        call(self.folder.path(), &arguments)
    }

    /// The types of a stream's events; empty if there is no such stream.
    fn events(&self, stream: &str) -> Vec<String> {
        let arguments = [
            "events",
            stream,
            "--output",
            "ndjson",
            "--url",
            &self.server.url,
        ];
        let output = call(self.folder.path(), &arguments);
        let event = |line: &str| {
            let event: Value = serde_json::from_str(line).unwrap();
            event["type"].as_str().unwrap().to_owned()
        };
        stdout(&output).lines().map(event).collect()
    }

    /// Waits until a stream has an event of this type.
    fn wait_for(&self, stream: &str, event: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.events(stream).iter().any(|found| found == event) {
            assert!(Instant::now() < deadline, "{stream} never has {event}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn replace(&self, file: &str, old: &str, new: &str) {
        let path = self.orders.join(format!("olist_{file}_dataset.csv"));
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(old), "{text}");
        fs::write(path, text.replacen(old, new, 1)).unwrap();
    }
}

fn listed(report: &Value, list: &str) -> Vec<(String, u64)> {
    let rows = report[list].as_array().unwrap().iter();
    rows.map(|row| {
        let file = row["file"].as_str().unwrap();
        let name = file
            .trim_start_matches("olist_")
            .trim_end_matches("_dataset.csv");
        (name.to_owned(), row["line"].as_u64().unwrap())
    })
    .collect()
}

#[test]
fn a_stray_quote_spoils_its_own_row_and_no_other() {
    let import = Import::of("stray-quote");
    let report = import.run(&[], 0);
    assert_eq!(
        listed(&report, "unreadable"),
        [("order_reviews".to_owned(), 2)]
    );
    for order in ["order-ord-2", "order-ord-3"] {
        import.wait_for(order, "OrderReviewed");
    }
    assert_eq!(
        import.events("order-ord-1").last().unwrap(),
        "OrderDelivered"
    );
}

#[test]
fn an_order_that_could_not_be_placed_is_healed_by_a_mended_file() {
    let import = Import::of("mended-later");
    let report = import.run(&[], 0);
    let rows = ["order_items", "order_payments", "order_reviews", "orders"];
    assert_eq!(
        listed(&report, "unreadable"),
        rows.map(|file| (file.to_owned(), 2))
    );
    import.wait_for("order-ord-3", "OrderDelivered");
    assert_eq!(import.events("order-ord-1"), [""; 0]);
    import.replace("order_items", "\"10,00\"", "10.00");
    let report = import.run(&[], 0);
    assert_eq!(report["unreadable_count"], 0);
    assert_eq!(report["total"]["refused"], 0);
    import.wait_for("order-ord-1", "OrderReviewed");
}

#[test]
fn a_row_that_was_changed_after_its_answer_is_reported_and_can_be_corrected() {
    let import = Import::of("mended-later");
    // The price is zero at first: the order is refused, and so is every later command on it.
    import.replace("order_items", "\"10,00\"", "0.00");
    let report = import.run(&[], 0);
    assert_eq!(report["refused"]["order_price_not_positive"], 1);
    import.replace("order_items", "0.00", "10.00");
    let report = import.run(&[], 3);
    assert_eq!(listed(&report, "changed"), [("orders".to_owned(), 2)]);
    let path = import.orders.to_str().unwrap();
    let told = call(
        import.folder.path(),
        &["import", "olist", path, "--url", &import.server.url],
    );
    let what_to_do = format!("annals import olist --correct {path}");
    assert!(stdout(&told).contains(&what_to_do), "{}", stdout(&told));
    assert!(stderr(&told).contains(&what_to_do), "{}", stderr(&told));
    let report = import.run(&["--correct", "--strict"], 0);
    assert_eq!(report["corrections"]["accepted"], 5, "{report}");
    import.wait_for("order-ord-1", "OrderReviewed");
    // A repetition sends the same corrections and gets the same answers.
    let again = import.run(&["--correct"], 0);
    assert_eq!(again["corrections"], report["corrections"]);
    assert_eq!(import.events("order-ord-1").len(), 5);
}

#[test]
fn an_import_that_accepts_nothing_ends_with_an_error_code() {
    let import = Import::of("stray-quote");
    let path = import.orders.join("olist_customers_dataset.csv");
    let text = fs::read_to_string(&path).unwrap();
    let header = text.lines().next().unwrap();
    fs::write(&path, format!("{header}\nnothing\nof this\n")).unwrap();
    let output = call(
        import.folder.path(),
        &[
            "import",
            "olist",
            import.orders.to_str().unwrap(),
            "--url",
            &import.server.url,
        ],
    );
    assert_exit(&output, 3);
    assert!(stderr(&output).contains("no row of olist_customers_dataset.csv"));
    let bad = r#"{"stream": "order-1", "command": "Sail", "data": {}}"#;
    for lines in [bad, "{\n[]\nnothing\n", "{\"id\": null}"] {
        let output = import.lines(lines);
        assert_exit(&output, 3);
        let said = stderr(&output);
        let is_told = said.contains("nothing was accepted") || said.contains("no row of lines");
        assert!(is_told, "{said}");
    }
    // One accepted line among others is enough for success; an empty file has no faults.
    let good = r#"{"stream": "customer-x", "command": "RegisterCustomer", "data":
        {"city": "c", "state": "s", "postcode_prefix": "1"}}"#;
    assert_exit(
        &import.lines(&format!("{}\n{bad}\n", good.replace('\n', ""))),
        0,
    );
    assert_exit(&import.lines(""), 0);
}

#[test]
fn control_characters_and_formulas_are_shown_and_not_obeyed() {
    let import = Import::of("stray-quote");
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/cases/terminal.ndjson");
    let hostile = [
        r#"{"stream": "order-1", "command": "\u001b]0;t\u0007\u001b[2Jall is well", "data": {}}"#,
        r#"{"stream": "order-1", "command": "Ship\u202eredrO", "data": {}}"#,
        r#"{"stream": "customer-9", "command": "RegisterCustomer", "id": "=HYPERLINK('x','y')",
            "data": {"city": "c\u009b31m\u007f\u202e", "state": "s", "postcode_prefix": "1"}}"#,
    ];
    let written = hostile
        .map(|line| line.replace("\n            ", ""))
        .join("\n");
    for lines in [fs::read_to_string(shared).unwrap_or_default(), written] {
        import.lines(&lines);
    }
    import.wait_for("customer-9", "CustomerRegistered");
    let mut said = Vec::new();
    for format in ["table", "json", "ndjson", "csv"] {
        for command in ["events", "state"] {
            let arguments = [command, "customer-9", "--output", format, "--url"];
            said.push(call(
                import.folder.path(),
                &[&arguments[..], &[&import.server.url]].concat(),
            ));
        }
        said.push(call(
            import.folder.path(),
            &[
                "import",
                "commands",
                "lines",
                "--output",
                format,
                "--url",
                &import.server.url,
            ],
        ));
        said.push(call(
            import.folder.path(),
            &[
                "send",
                "order-1",
                "Ship\u{202e}\u{1b}[2J",
                "--output",
                format,
                "--url",
                &import.server.url,
            ],
        ));
    }
    let is_obeyed = |char: char| {
        (char.is_control() && char != '\n')
            || matches!(char, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    for output in &said {
        for text in [stdout(output), stderr(output)] {
            assert!(!text.chars().any(is_obeyed), "{text:?}");
            assert!(!text.contains(",=HYPERLINK"), "{text}");
        }
    }
    assert!(
        stdout(&said[12]).contains("'=HYPERLINK"),
        "{}",
        stdout(&said[12])
    );
    let log = import.server.said();
    assert!(!log.chars().any(is_obeyed), "{log:?}");
}
