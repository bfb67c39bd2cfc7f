//! Deciding one command against the accepted history and the owner's own unacknowledged commits,
//! and making its record.
//!
//! Precedence: command id, expected version, rules.

mod speculate;

use bytes::Bytes;
use event_log::commit::{
    COMMIT_SIZE_MAX, CommandPart, Commit, EventPart, Outcome, REFUSED_DATA_SIZE_MAX, stream_key,
};
use event_log::known_bad::KnownBad;
use event_log::record::{self, CommitHeaders};
use kernel::RecordedRejection;
use kernel::registry::{Decided, DecidedEvent};
use kernel::{Context, Timestamp, explained};
use serde_json::json;
use serde_json::value::RawValue;

use super::machine::{InFlight, OwnCommit, Owner};
use super::memory::fingerprint::{DataDigest, Fingerprint, SentData, data_digest};
use super::memory::{answer_again, answer_of, id_key};
use super::{Action, LogAction, Now, Submission};
use crate::command::SubmitError;

/// How far `recorded_at` may be ahead of the wall clock and still serve as business time, in
/// microseconds: all commands of a turn share one reading of the clock, and each is recorded a
/// microsecond after the one before.
const READING_US: i64 = 1_000;

/// The rejection code for a stale expected version.
pub const VERSION_CONFLICT: &str = "version_conflict";

impl<T> Owner<T> {
    /// Takes a command and decides it. Only to be called while [`Owner::takes_commands`] holds.
    pub fn command(&mut self, submission: Submission, ticket: T, now: Now) {
        self.decide(submission, vec![(ticket, false)], now);
    }

    /// Decides a command for the clients that wait for it, or keeps it until the local store can be
    /// read: an error reply would let the stream's next command run first. Only to be called while
    /// [`Owner::takes_commands`] holds.
    pub fn decide(&mut self, submission: Submission, waiters: Vec<(T, bool)>, now: Now) {
        if self.clock_is_off(now) {
            self.again.push_front((submission, waiters));
            return self.let_go_if_drained(now);
        }
        let request = &submission.request;
        let key = stream_key(&request.tenant, &request.stream);
        let fingerprint = self.memory.fingerprint_of(
            &request.command,
            request.schema,
            &SentData::of(submission.command.data.get()),
            (request.occurred_at, request.expected_version),
        );
        let id_key = id_key(&key, &request.id);
        let Some(waiters) = self.answer_repeated(&submission, &key, &id_key, fingerprint, waiters)
        else {
            return;
        };
        match self.make(&submission, (key, id_key, fingerprint), now) {
            _ if self.memory.is_stale() => self.again.push_front((submission, waiters)),
            Ok(commit) if self.refuses_now(&commit) => self.answer_each(commit.answer, waiters),
            Ok(commit) => match self.speculate(&submission, &commit) {
                Err(error) if !self.is(KnownBad::AppendsUntried) => {
                    self.answer_all(waiters, &error);
                }
                Ok(()) | Err(_) => self.append(commit, submission, waiters, now),
            },
            Err(error) => self.answer_all(waiters, &error),
        }
        if self.memory.is_stale() {
            self.doubt();
        }
    }

    pub(super) fn answer_all(&mut self, waiters: Vec<(T, bool)>, error: &SubmitError) {
        for (ticket, _) in waiters {
            self.actions.push(Action::Answer {
                ticket,
                answer: Err(error.clone()),
            });
        }
    }

    /// Answers a command whose id is known. Returns the waiters if the id is not known, or cannot
    /// be looked up now.
    fn answer_repeated(
        &mut self,
        submission: &Submission,
        key: &Bytes,
        id_key: &Bytes,
        fingerprint: Fingerprint,
        waiters: Vec<(T, bool)>,
    ) -> Option<Vec<(T, bool)>> {
        if let Some(sequence) = self.speculation.ids.get(id_key) {
            let index = self.in_window(*sequence).expect("it is speculated upon");
            let entry = &mut self.window[index];
            if entry.commit.fingerprint == fingerprint {
                let again = waiters.into_iter().map(|(ticket, _)| (ticket, true));
                entry.waiters.extend(again);
            } else {
                self.answer_all(waiters, &SubmitError::IdReused);
            }
            return None;
        }
        let recorded_at = self
            .speculation
            .recorded_at
            .or(self.reader.last_recorded_at);
        let early = self.is(KnownBad::ForgetsIdsEarly);
        match self.memory.id_of(key, id_key, recorded_at) {
            Ok(Some((head, _))) if !early && head.fingerprint != fingerprint => {
                self.answer_all(waiters, &SubmitError::IdReused);
            }
            Ok(Some(known)) if !early => {
                let request = &submission.request;
                let who = (&request.tenant, &request.stream, &request.id);
                let answer = answer_again(&self.reader.chain, who, known);
                let again = waiters.into_iter().map(|(ticket, _)| (ticket, true));
                self.answer_each(answer, again.collect());
            }
            Ok(_) => return Some(waiters),
            Err(error) => {
                let error = explained(&error);
                tracing::warn!(error, "a command id cannot be looked up");
                return Some(waiters);
            }
        }
        None
    }

    /// Judges the command and makes its record, without appending or folding it.
    fn make(
        &mut self,
        submission: &Submission,
        (key, id_key, fingerprint): (Bytes, Bytes, Fingerprint),
        now: Now,
    ) -> Result<OwnCommit, SubmitError> {
        let times = self.times(now)?;
        let (from_version, mut decided) = self.judge(submission, &key, times)?;
        let commit = self.commit(submission, from_version, times, &decided);
        let value = commit.to_value().map_err(|error| {
            tracing::error!(%error, "a commit could not be written as JSON");
            SubmitError::Failed
        })?;
        if value.len() > COMMIT_SIZE_MAX {
            return Err(SubmitError::TooLarge {
                size: value.len(),
                max: COMMIT_SIZE_MAX,
            });
        }
        if !self.is(KnownBad::AppendsUnread) {
            self.read_back((&key[..], &value[..]), submission, &mut decided)?;
        }
        let (previous, position) = self
            .speculation
            .head
            .unwrap_or((self.reader.chain.head, self.reader.chain.position));
        // Records carry this owner's own claim even if another claim was read since: the owner
        // never writes in another writer's name.
        let claimed = self.claimed;
        let claimed = claimed.filter(|_| !self.is(KnownBad::DecidesBehindAnothersClaim));
        let (term, writer) = claimed.unwrap_or((self.reader.chain.term, self.reader.chain.writer));
        let headers = CommitHeaders {
            term,
            writer,
            position: position.next(),
            previous,
        };
        let head = record::chain_commit(&headers, &key, &value);
        let default = match self.is(KnownBad::FoldsAtRecordedTime) {
            true => times.recorded_at,
            false => times.default,
        };
        let occurred_at = submission.request.occurred_at.unwrap_or(default);
        let answer = answer_of(&self.reader.chain, &commit, headers.position);
        Ok(OwnCommit {
            headers,
            head,
            record: headers.record(key.clone(), value),
            key,
            id_key,
            recorded_at: times.recorded_at,
            occurred_at,
            events: decided.unwrap_or_default(),
            fingerprint,
            answer,
        })
    }

    /// When the next commit is recorded, and its business time if the client gives none: the wall
    /// clock's, even if the log is ahead of this clock.
    fn times(&self, now: Now) -> Result<Times, SubmitError> {
        let last = self
            .speculation
            .recorded_at
            .or(self.reader.last_recorded_at);
        let recorded_at = match last {
            Some(last) if last >= now.wall && self.is(KnownBad::RepeatsRecordedTime) => last,
            Some(last) if last >= now.wall => {
                Timestamp::from_micros(last.micros() + 1).map_err(|error| {
                    tracing::error!(%error, "the recorded time of the log cannot go any further");
                    SubmitError::Failed
                })?
            }
            Some(_) | None => now.wall,
        };
        let ahead_us = recorded_at.micros() - now.wall.micros();
        let default = match ahead_us <= READING_US {
            true => recorded_at,
            false => now.wall,
        };
        Ok(Times {
            recorded_at,
            default,
        })
    }

    /// Reads the value of a new record as every reader will. A value that cannot be read is never
    /// appended, and the state goes on with the events as readers will see them.
    fn read_back(
        &self,
        (key, value): (&[u8], &[u8]),
        submission: &Submission,
        decided: &mut Decided,
    ) -> Result<(), SubmitError> {
        let unreadable = |error: &dyn std::error::Error| {
            let (stream, command) = (&submission.request.stream, &submission.request.command);
            tracing::error!(
                error = explained(error),
                category = stream.category(),
                %command,
                "a rule decided events that cannot be read back; nothing was appended"
            );
            SubmitError::Failed
        };
        let commit = Commit::read(key, value).map_err(|error| unreadable(&error))?;
        let Ok(events) = decided else {
            return Ok(());
        };
        let aggregate = self.memory.registry.get(commit.stream.category());
        let aggregate = aggregate.ok_or(SubmitError::Failed)?;
        for (event, written) in events.iter_mut().zip(&commit.events) {
            let read = event.read_back(&**aggregate, &written.data);
            read.map_err(|error| unreadable(&error))?;
        }
        Ok(())
    }

    fn judge(
        &mut self,
        submission: &Submission,
        key: &Bytes,
        times: Times,
    ) -> Result<(u64, Decided), SubmitError> {
        let Submission { request, command } = submission;
        let category = request.stream.category();
        let aggregate = self.memory.registry.get(category).cloned();
        let aggregate = aggregate.ok_or(SubmitError::Failed)?;
        if let Some(frozen) = self.memory.frozen(key) {
            return Err(SubmitError::Frozen(frozen));
        }
        let (version, state) = match self.speculation.streams.get(key) {
            Some(stream) => (stream.version, &stream.state),
            None => {
                let entry = self.memory.stream(key, category);
                (
                    entry.version,
                    entry.state.as_ref().ok_or(SubmitError::Failed)?,
                )
            }
        };
        if let Some(expected) = request.expected_version
            && expected != version
        {
            return Ok((version, Err(version_conflict(expected, version))));
        }
        let context = Context {
            occurred_at: request.occurred_at.unwrap_or(times.default),
            is_time_given: request.occurred_at.is_some(),
            actor: request.actor.clone(),
            tenant: request.tenant.clone(),
            command_id: request.id.clone(),
        };
        match aggregate.decide(state, command, &context) {
            Ok(decided) => Ok((version, decided)),
            Err(error) => {
                tracing::error!(%error, category, command = %request.command, "a rule failed");
                Err(SubmitError::Failed)
            }
        }
    }

    fn commit(
        &mut self,
        submission: &Submission,
        from_version: u64,
        times: Times,
        decided: &Decided,
    ) -> Commit {
        let Submission { request, command } = submission;
        let id = request.id.as_str();
        let recorded_at = times.recorded_at;
        let follows = request.occurred_at.is_some() || times.default == recorded_at;
        let occurred_at = (!follows).then_some(times.default);
        let records_default = self.is(KnownBad::RecordsDefaultAsGiven);
        let sent_time = request.occurred_at;
        let (outcome, events, rejection) = match decided {
            Ok(events) => {
                let part = |event: &DecidedEvent| EventPart {
                    id: self.uuid_v7(recorded_at),
                    type_name: event.type_name.clone(),
                    schema: event.schema,
                    occurred_at,
                    data: event.data.clone(),
                };
                (Outcome::Accepted, events.iter().map(part).collect(), None)
            }
            Err(rejection) => (Outcome::Rejected, Vec::new(), Some(rejection.clone())),
        };
        Commit {
            commit: self.uuid_v7(recorded_at),
            tenant: request.tenant.clone(),
            stream: request.stream.clone(),
            from_version,
            recorded_at,
            command: CommandPart {
                id: request.id.clone(),
                type_name: request.command.clone(),
                schema: request.schema,
                occurred_at: sent_time.or(records_default.then_some(times.default)),
                expected_version: request.expected_version,
                data: kept_data(&command.data, outcome),
            },
            actor: request.actor.clone(),
            correlation_id: (request.correlation_id.clone()).filter(|it| it.as_str() != id),
            causation_id: (request.causation_id.clone()).filter(|it| it.as_str() != id),
            trace: request.trace.clone(),
            outcome,
            rejection,
            events,
        }
    }

    /// Hands the record to the log and adds the commit to the speculation.
    fn append(
        &mut self,
        commit: OwnCommit,
        submission: Submission,
        waiters: Vec<(T, bool)>,
        now: Now,
    ) {
        let sequence = self.sequence();
        self.speculation.head = Some((commit.head, commit.headers.position));
        self.speculation.recorded_at = Some(commit.recorded_at);
        let id_key = commit.id_key.clone();
        self.speculation.ids.insert(id_key, sequence);
        self.window_bytes += commit.size();
        self.actions.push(Action::Log(LogAction::Append {
            sequence,
            record: commit.record.clone(),
            claim: false,
        }));
        self.window.push_back(InFlight {
            sequence,
            commit,
            submission,
            waiters,
            sent_at: now,
            acknowledged: None,
        });
        if self.is(KnownBad::AnswersBeforeAcknowledgement) {
            self.answer_early(self.window.len() - 1);
        }
    }
}

/// The times of one commit.
#[derive(Clone, Copy)]
struct Times {
    recorded_at: Timestamp,
    /// Its business time where the client gives none.
    default: Timestamp,
}

fn version_conflict(expected: u64, current: u64) -> RecordedRejection {
    let facts = [("expected_version", expected), ("current_version", current)];
    RecordedRejection {
        code: VERSION_CONFLICT.to_owned(),
        detail: format!("the stream is at version {current}, not at {expected}"),
        facts: facts
            .map(|(name, version)| (name.to_owned(), version.into()))
            .into_iter()
            .collect(),
    }
}

/// The data that a commit keeps: all of it, except for a large refused command, of which it keeps
/// size and digest.
fn kept_data(data: &RawValue, outcome: Outcome) -> Box<RawValue> {
    if outcome == Outcome::Rejected && data.get().len() > REFUSED_DATA_SIZE_MAX {
        let digest = DataDigest {
            bytes: data.get().len(),
            sha256: hex::encode(data_digest(data.get())),
        };
        if let Ok(kept) = serde_json::value::to_raw_value(&json!({"$digest": digest})) {
            return kept;
        }
    }
    data.to_owned()
}
