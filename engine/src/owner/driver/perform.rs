//! Performs what an owner asks for: appends, reads, proofs, answers, and asking others.
//!
//! Invariant: appends keep their order; a claim takes a session of its own, and what was held back
//! for the old one is gone with it.

use std::sync::Arc;

use super::{Driver, Input, RETRY_AFTER};
use crate::log::{AppendResult, LogError};
use crate::owner::Action;
use crate::owner::ticket::{Command, Ticket};
use crate::record::NewRecord;
use crate::subscription::look;

impl Driver {
    pub(super) fn perform(&mut self) {
        let mut released = Vec::new();
        loop {
            let actions = self.owner.take_actions();
            if actions.is_empty() {
                break;
            }
            for action in actions {
                match action {
                    Action::Answer { ticket, answer } => ticket.answer(answer),
                    Action::Append {
                        sequence,
                        record,
                        claim,
                    } => {
                        if claim {
                            self.held_back.clear();
                            self.session = None;
                        }
                        self.append(sequence, record);
                    }
                    Action::Read { from } => {
                        let (log, partition) = (Arc::clone(&self.shared.log), self.partition);
                        let inputs = self.inputs.clone();
                        tokio::spawn(async move {
                            let read = log.read(partition, from).await;
                            pause_if_failed(&read).await;
                            let _ = inputs.send(Input::Read(read));
                        });
                    }
                    Action::Prove { offset } => {
                        let (log, partition) = (Arc::clone(&self.shared.log), self.partition);
                        let inputs = self.inputs.clone();
                        tokio::spawn(async move {
                            let looked = look(&*log, partition, offset).await;
                            pause_if_failed(&looked).await;
                            let _ = inputs.send(Input::Proven(looked));
                        });
                    }
                    Action::AskOwner => self.ask_owner(),
                    Action::Release {
                        submission,
                        waiters,
                    } => {
                        let target = self.target().cloned();
                        let mut own = Vec::with_capacity(waiters.len());
                        for (ticket, repeated) in waiters {
                            match ticket {
                                Ticket::Client(ticket) => own.push((ticket, repeated)),
                                // Its node knows the order among what it forwarded.
                                Ticket::Peer(ticket) => ticket.moved(target.clone()),
                            }
                        }
                        if !own.is_empty() {
                            released.push(Command {
                                submission,
                                waiters: own,
                            });
                        }
                    }
                }
            }
        }
        self.router.put_back(released.into_iter());
    }

    /// Asks whoever owns to hand over; reports at once where nobody else is known.
    fn ask_owner(&mut self) {
        let inputs = self.inputs.clone();
        let target = self.target().cloned();
        let term = crate::ids::Term(self.owner.chain().term.0 + 1);
        let (Some(target), Some(own)) = (target, self.own_hint(term)) else {
            let _ = inputs.send(Input::OwnerAnswered);
            return;
        };
        let (peers, partition) = (Arc::clone(&self.shared.peers), self.partition);
        tokio::spawn(async move {
            match peers.hand_over(&target.address, partition, &own).await {
                Ok(owned) => {
                    tracing::debug!(%partition, from = target.node, owned, "was handed over");
                }
                Err(error) => {
                    tracing::info!(%partition, from = target.node, %error, "claiming all the same");
                }
            }
            let _ = inputs.send(Input::OwnerAnswered);
        });
    }

    fn append(&mut self, sequence: u64, record: NewRecord) {
        // Order is kept: nothing passes what is held back.
        let held = if self.held_back.is_empty() {
            self.try_append(sequence, record)
        } else {
            Some(record)
        };
        self.held_back.extend(held.map(|record| (sequence, record)));
    }

    /// Gives the record back if there is no room for it now.
    fn try_append(&mut self, sequence: u64, record: NewRecord) -> Option<NewRecord> {
        if self.session.is_none() {
            match self.shared.appender.session() {
                Ok(session) => self.session = Some(session),
                Err(error) => {
                    let _ = self.inputs.send(Input::Appended(sequence, Err(error)));
                    return None;
                }
            }
        }
        let session = self.session.as_ref().expect("it was opened above");
        let inputs = self.inputs.clone();
        let done = Box::new(move |result: AppendResult| {
            let _ = inputs.send(Input::Appended(sequence, result));
        });
        match session.append(self.partition, &record, done) {
            Ok(()) => None,
            Err(LogError::Full) => Some(record),
            Err(error) => {
                let _ = self.inputs.send(Input::Appended(sequence, Err(error)));
                None
            }
        }
    }

    pub(super) fn retry_held_back(&mut self) {
        while let Some((sequence, record)) = self.held_back.pop_front() {
            if let Some(record) = self.try_append(sequence, record) {
                self.held_back.push_front((sequence, record));
                return;
            }
        }
    }
}

async fn pause_if_failed<T>(result: &Result<T, LogError>) {
    if result.is_err() {
        tokio::time::sleep(RETRY_AFTER).await;
    }
}
