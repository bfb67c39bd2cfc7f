//! The schema of a replay in its hand: idle, or taking a transaction while the next commits are read and
//! folded.
//!
//! Invariant: transactions follow one another in the order of their work. Deliberately absent: what a
//! transaction writes (`store::apart`).

use tokio::task::JoinHandle;

use super::machine::Work;
use crate::error::RuntimeError;
use crate::fold::changes::Changes;
use crate::store::apart::{Apart, Portion, Put};

type Writing = JoinHandle<(Box<Apart>, Result<(), RuntimeError>)>;

/// The schema, or the transaction that has it.
pub(super) struct Hand {
    idle: Option<Box<Apart>>,
    writing: Option<Writing>,
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
        }
    }

    /// Begins a transaction, once the one before it is durable.
    pub(super) async fn write(&mut self, work: Work) -> Result<(), RuntimeError> {
        self.idle().await?;
        let mut apart = self.idle.take().ok_or_else(lost)?;
        self.writing = Some(tokio::spawn(async move {
            let written = apart.write_work(work).await;
            (apart, written)
        }));
        Ok(())
    }

    /// The schema, once nothing is under way.
    pub(super) async fn idle(&mut self) -> Result<&mut Apart, RuntimeError> {
        if let Some(writing) = self.writing.take() {
            let (apart, written) = match writing.await {
                Ok(done) => done,
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Err(_) => return Err(lost()),
            };
            written?;
            self.idle = Some(apart);
        }
        self.idle.as_deref_mut().ok_or_else(lost)
    }

    pub(super) async fn into_idle(mut self) -> Result<Apart, RuntimeError> {
        self.idle().await?;
        self.idle.map(|apart| *apart).ok_or_else(lost)
    }
}

impl Apart {
    /// Writes work in a transaction of its own.
    async fn write_work(&mut self, mut work: Work) -> Result<(), RuntimeError> {
        match work.own(self.generation()) {
            Some(commits) => self.write(Portion::Commits(&commits), &work.standing).await,
            None => {
                self.write(Portion::Changes(&work.changes), &work.standing)
                    .await
            }
        }
    }

    /// Writes work in the transaction that was begun.
    pub(super) async fn put_work(&mut self, work: Work) -> Result<(), RuntimeError> {
        self.put_looked(work).await.map(drop)
    }

    /// The same; gives back what the work contributed.
    pub(super) async fn put_looked(&mut self, mut work: Work) -> Result<Changes, RuntimeError> {
        let put = match work.own(self.generation()) {
            Some(commits) => self.put(Portion::Commits(&commits)).await,
            None => self.put(Portion::Changes(&work.changes)).await,
        };
        match put {
            Ok(()) => Ok(work.changes),
            Err(Put::Failed(error)) => Err(error),
            Err(Put::Repeated) => unreachable!("rows are merged where one looks at them"),
        }
    }
}
