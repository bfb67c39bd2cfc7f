//! All rows of a query as one stream: CSV or lines of JSON.
//!
//! Invariants: the rows are of one snapshot, with its version in the head. The memory is bounded,
//! whatever the number of rows: Postgres sends on only as the client reads. A stream that ends early
//! ends with an error, so that the connection is cut: a client never takes a part for the whole. An
//! export never takes a connection that other queries need. Deliberately absent: pages.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use door::{Charge, Problem};
use futures::{StreamExt as _, stream};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgPool, Postgres};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::format::{Format, write_header, write_line};
use super::snapshot::{Head, head_of, is_broken, is_replaced};
use super::statement::{HeadForm, ROW_FROM, Statement};
use super::{QueryDoor, RETRY_AFTER, code, failed};

/// The most exports at once.
pub(super) const EXPORTS_MAX: u32 = 2;
/// How long an export may take: as long as it holds a snapshot, no rebuild can replace its views.
const EXPORT_TIME_MAX: Duration = Duration::from_secs(300);
/// The same for Postgres, in milliseconds.
pub(super) const EXPORT_STATEMENT_MS: &str = "300000";
/// A piece is sent once it has this many bytes.
const PIECE_BYTES: usize = 64 << 10;
/// The memory for the pieces of one export: one on its way, one waiting, one being filled.
const ROOM_BYTES: usize = 4 * PIECE_BYTES;

/// The connections of exports.
pub(super) struct Exports {
    pool: PgPool,
    turns: Arc<Semaphore>,
}

/// An export that has begun.
pub(super) struct Export {
    pub(super) head: Head,
    pub(super) body: Body,
}

/// What an export sends.
type Piece = Result<Bytes, std::io::Error>;

impl Exports {
    pub(super) fn new(pool: PgPool) -> Self {
        Self {
            pool,
            turns: Arc::new(Semaphore::new(EXPORTS_MAX as usize)),
        }
    }

    /// Begins to read all rows of a statement.
    ///
    /// # Errors
    /// `exports_exhausted`; those of a query.
    pub(super) async fn begin(
        &self,
        door: &QueryDoor,
        model: &'static str,
        statement: Statement,
        format: Format,
        charge: Charge,
    ) -> Result<Export, Problem> {
        let turn = Arc::clone(&self.turns).try_acquire_owned().map_err(|_| {
            let detail = format!("{EXPORTS_MAX} exports are under way; ask again later, or page");
            Problem::new(code::EXPORTS_EXHAUSTED, detail).retry_after(RETRY_AFTER)
        })?;
        charge.keep(ROOM_BYTES).await?;
        let deadline = Instant::now() + EXPORT_TIME_MAX;
        let mut tries = 0;
        loop {
            let connection = self.pool.acquire().await.map_err(|error| failed(&error))?;
            let (head, begun) = oneshot::channel();
            let (pieces, body) = mpsc::channel(1);
            let export = Task {
                door: door.clone(),
                model,
                statement: statement.clone(),
                format,
                pieces,
                deadline,
            };
            tokio::spawn(export.run(connection, head));
            match begun.await.map_err(Problem::internal)? {
                Ok(head) => {
                    let body = Body::from_stream(held(body, turn, charge));
                    return Ok(Export { head, body });
                }
                Err(error) if tries < EXPORTS_MAX && (is_replaced(&error) || is_broken(&error)) => {
                    tries += 1;
                }
                Err(error) => return Err(failed(&error)),
            }
        }
    }
}

/// The pieces of a body, with what is kept until the client has them all.
fn held(
    pieces: mpsc::Receiver<Piece>,
    turn: OwnedSemaphorePermit,
    charge: Charge,
) -> impl futures::Stream<Item = Piece> + Send + 'static {
    stream::unfold(
        (pieces, turn, charge),
        |(mut pieces, turn, charge)| async move {
            let piece = pieces.recv().await?;
            Some((piece, (pieces, turn, charge)))
        },
    )
}

/// Reads the rows of an export.
struct Task {
    door: QueryDoor,
    model: &'static str,
    statement: Statement,
    format: Format,
    pieces: mpsc::Sender<Piece>,
    deadline: Instant,
}

/// Why an export ended early.
enum Broken {
    Postgres(sqlx::Error),
    /// The client went away, or was cut.
    Client,
    Deadline,
}

impl From<sqlx::Error> for Broken {
    fn from(error: sqlx::Error) -> Self {
        Self::Postgres(error)
    }
}

impl Task {
    /// Sends the head, then the rows.
    async fn run(
        self,
        mut connection: PoolConnection<Postgres>,
        head: oneshot::Sender<Result<Head, sqlx::Error>>,
    ) {
        let mut head = Some(head);
        let sent = self.send_rows(&mut connection, &mut head).await;
        let Err(broken) = sent else { return };
        // Rows may still be on their way to this connection.
        connection.close_on_drop();
        drop(connection);
        let why = match broken {
            Broken::Client => return,
            Broken::Postgres(error) => match head.take() {
                // A request that has gone is not told.
                Some(head) => return drop(head.send(Err(error))),
                None => error.to_string(),
            },
            Broken::Deadline => "it took too long".to_owned(),
        };
        tracing::warn!(model = self.model, why, "an export broke off");
        // The error cuts the connection, so that the client notices.
        let _ = self.pieces.send(Err(std::io::Error::other(why))).await;
    }

    async fn send_rows(
        &self,
        connection: &mut PoolConnection<Postgres>,
        head: &mut Option<oneshot::Sender<Result<Head, sqlx::Error>>>,
    ) -> Result<(), Broken> {
        let shown = self.door.model(self.model).map_err(|_| Broken::Client)?;
        let query = self.statement.query(HeadForm::WithParked);
        let mut rows = query.fetch(&mut **connection);
        let mut piece = Vec::with_capacity(PIECE_BYTES + PIECE_BYTES / 4);
        if self.format == Format::Csv {
            write_header(shown, &mut piece);
        }
        loop {
            let row = timeout_at(self.deadline, rows.next()).await;
            let Some(row) = row.map_err(|_| Broken::Deadline)? else {
                break;
            };
            let row = row?;
            if let Some(told) = head.take() {
                let Some(read) = head_of(&self.door.inner.versions, &row)? else {
                    return Err(sqlx::Error::RowNotFound.into());
                };
                told.send(Ok(read)).map_err(|_| Broken::Client)?;
                continue;
            }
            write_line(shown, self.format, &row, ROW_FROM, &mut piece)?;
            if piece.len() >= PIECE_BYTES {
                self.send(&mut piece).await?;
            }
        }
        if head.is_some() {
            // No rows are shown yet.
            return Err(sqlx::Error::RowNotFound.into());
        }
        self.send(&mut piece).await
    }

    async fn send(&self, piece: &mut Vec<u8>) -> Result<(), Broken> {
        let bytes = Bytes::copy_from_slice(piece);
        piece.clear();
        let sent = timeout_at(self.deadline, self.pieces.send(Ok(bytes))).await;
        let sent = sent.map_err(|_| Broken::Deadline)?;
        sent.map_err(|_| Broken::Client)
    }
}
