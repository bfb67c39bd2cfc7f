//! The schema of a replay in its hand: idle, or taking a transaction while the next commits are read and
//! folded.
//!
//! Invariant: transactions follow one another in the order of their work. Deliberately absent: what a
//! transaction writes (`store::apart`).

use tokio::task::JoinHandle;

use crate::error::RuntimeError;
use crate::run::filling::{self, Left};
use crate::run::uptake::Work;
use crate::store::apart::Apart;

type Writing = JoinHandle<(Box<Apart>, Result<Left, RuntimeError>)>;

/// The schema, or the transaction that has it.
pub(super) struct Hand {
    idle: Option<Box<Apart>>,
    writing: Option<Writing>,
    /// What turned out not to be taken up, and was not asked for yet.
    left: Option<Left>,
}

/// There is always a schema or a transaction that has it, but after an error.
fn lost() -> RuntimeError {
    RuntimeError::Ended {
        reason: "the replay has failed before".to_owned(),
    }
}

impl Hand {
    pub(super) fn new(apart: Apart) -> Self {
        Self {
            idle: Some(Box::new(apart)),
            writing: None,
            left: None,
        }
    }

    /// Begins a transaction. The one before it must have been waited for.
    pub(super) async fn write(&mut self, work: Box<Work>) -> Result<(), RuntimeError> {
        self.idle().await?;
        let mut apart = self.idle.take().ok_or_else(lost)?;
        self.writing = Some(tokio::spawn(async move {
            let written = filling::write(&mut apart, *work).await;
            (apart, written)
        }));
        Ok(())
    }

    /// Waits for what is under way. Returns what of it cannot be taken up, if anything.
    pub(super) async fn left(&mut self) -> Result<Option<Left>, RuntimeError> {
        self.idle().await?;
        Ok(self.left.take())
    }

    /// The schema, once nothing is under way.
    pub(super) async fn idle(&mut self) -> Result<&mut Apart, RuntimeError> {
        if let Some(writing) = self.writing.take() {
            let (apart, written) = match writing.await {
                Ok(done) => done,
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Err(_) => return Err(lost()),
            };
            self.idle = Some(apart);
            // Each transaction is asked about before the next one begins.
            self.left = Some(written?).filter(|left| !left.parks.is_empty());
        }
        self.idle.as_deref_mut().ok_or_else(lost)
    }

    pub(super) async fn into_idle(mut self) -> Result<Apart, RuntimeError> {
        self.idle().await?;
        self.idle.map(|apart| *apart).ok_or_else(lost)
    }
}
