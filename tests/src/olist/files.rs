//! A data set as rows of cells, and its form as five CSV files.
//!
//! Invariant: as in the public data, cells have quotes only where they must, and lines end with a
//! line feed. Deliberately absent: the content of the cells.

use std::io;
use std::path::Path;

/// The names of the files, in the order of [`DataSet::files`].
pub const FILE_NAMES: [&str; 5] = [
    "olist_orders_dataset.csv",
    "olist_order_items_dataset.csv",
    "olist_order_payments_dataset.csv",
    "olist_order_reviews_dataset.csv",
    "olist_customers_dataset.csv",
];

/// The headers of the files, in the same order.
pub const HEADERS: [&str; 5] = [
    "order_id,customer_id,order_status,order_purchase_timestamp,order_approved_at,\
     order_delivered_carrier_date,order_delivered_customer_date,order_estimated_delivery_date",
    "order_id,order_item_id,product_id,seller_id,shipping_limit_date,price,freight_value",
    "order_id,payment_sequential,payment_type,payment_installments,payment_value",
    "review_id,order_id,review_score,review_comment_title,review_comment_message,\
     review_creation_date,review_answer_timestamp",
    "customer_id,customer_unique_id,customer_zip_code_prefix,customer_city,customer_state",
];

/// A row: its cells as bytes, because a dirty cell need not be UTF-8.
pub type Row = Vec<Vec<u8>>;

/// Makes a row of texts.
pub fn row<const N: usize>(cells: [&str; N]) -> Row {
    cells.map(|cell| cell.as_bytes().to_vec()).to_vec()
}

/// The rows of the five files.
#[derive(Clone, Debug, Default)]
pub struct DataSet {
    /// Orders.
    pub orders: Vec<Row>,
    /// Items.
    pub items: Vec<Row>,
    /// Payments.
    pub payments: Vec<Row>,
    /// Reviews.
    pub reviews: Vec<Row>,
    /// Customers.
    pub customers: Vec<Row>,
    /// Whether some files begin with a byte order mark and end their lines with CRLF, as
    /// spreadsheets write them.
    pub spreadsheet_habits: bool,
}

impl DataSet {
    /// The files' names and contents.
    #[must_use]
    pub fn files(&self) -> [(&'static str, Vec<u8>); 5] {
        let (mark, crlf): (&[u8], &[u8]) = if self.spreadsheet_habits {
            (b"\xef\xbb\xbf", b"\r\n")
        } else {
            (b"", b"\n")
        };
        let lf = b"\n";
        [
            (FILE_NAMES[0], write(mark, HEADERS[0], &self.orders, lf)),
            (FILE_NAMES[1], write(b"", HEADERS[1], &self.items, crlf)),
            (FILE_NAMES[2], write(b"", HEADERS[2], &self.payments, lf)),
            (FILE_NAMES[3], write(b"", HEADERS[3], &self.reviews, lf)),
            (
                FILE_NAMES[4],
                write(mark, HEADERS[4], &self.customers, crlf),
            ),
        ]
    }

    /// Writes the files into a folder, and creates the folder if there is none.
    ///
    /// # Errors
    /// Any error of the file system.
    pub fn write_to(&self, folder: &Path) -> io::Result<()> {
        std::fs::create_dir_all(folder)?;
        for (name, content) in self.files() {
            std::fs::write(folder.join(name), content)?;
        }
        Ok(())
    }
}

fn write(mark: &[u8], header: &str, rows: &[Row], line_end: &[u8]) -> Vec<u8> {
    let mut content = [mark, header.as_bytes(), line_end].concat();
    for row in rows {
        for (place, cell) in row.iter().enumerate() {
            if place > 0 {
                content.push(b',');
            }
            if cell.iter().any(|byte| b",\"\r\n".contains(byte)) {
                content.push(b'"');
                for &byte in cell {
                    if byte == b'"' {
                        content.push(b'"');
                    }
                    content.push(byte);
                }
                content.push(b'"');
            } else {
                content.extend_from_slice(cell);
            }
        }
        content.extend_from_slice(line_end);
    }
    content
}
