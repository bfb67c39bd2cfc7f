//! An owner as a value, for a model checker that looks at many of its states: a copy, and a digest.
//! The digest is the same for states that differ only in clock times and in counters for people.
//!
//! Invariant: every field is either digested or named as left out; a new field does not compile
//! until it is listed here. Deliberately absent: any use of it in production.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use bytes::Bytes;
use kernel::registry::Registry;

use super::{InFlight, Owner, Phase, Speculation, SpeculativeStream};
use crate::owner::memory::image::{category_of, digest_state};
use crate::owner::{Entropy, StateStore, Submission};

/// The hasher for the items of an unordered collection.
pub(in crate::owner) type StateDigest = DefaultHasher;

/// Hashes an unordered collection.
pub(in crate::owner) fn unordered<I>(
    items: impl Iterator<Item = I>,
    hasher: &mut impl Hasher,
    digest: impl Fn(I, &mut StateDigest),
) {
    let (mut sum, mut count) = (0_u64, 0_usize);
    for item in items {
        let mut one = StateDigest::new();
        digest(item, &mut one);
        sum = sum.wrapping_add(one.finish());
        count += 1;
    }
    (sum, count).hash(hasher);
}

impl<T: Clone> Owner<T> {
    /// An independent copy with its own store and entropy.
    #[must_use]
    pub fn fork(&self, store: Box<dyn StateStore>, entropy: Box<dyn Entropy>) -> Self {
        Self {
            settings: self.settings.clone(),
            entropy,
            memory: self.memory.fork(store),
            reader: self.reader.clone(),
            speculation: self.speculation.fork(&self.memory.registry),
            window: self.window.clone(),
            again: self.again.clone(),
            actions: self.actions.clone(),
            phase: self.phase.clone(),
            claimed_list: self.claimed_list.clone(),
            lists: self.lists.clone(),
            holder: self.holder.clone(),
            refusals: self.refusals.clone(),
            ..*self
        }
    }
}

impl Speculation {
    fn fork(&self, registry: &Registry) -> Self {
        let copy = |(key, stream): (&Bytes, &SpeculativeStream)| {
            let aggregate = registry.get(category_of(key))?;
            let stream = SpeculativeStream {
                state: aggregate.copy(&stream.state).ok()?,
                ..*stream
            };
            Some((key.clone(), stream))
        };
        Self {
            streams: self.streams.iter().filter_map(copy).collect(),
            ids: self.ids.clone(),
            ..*self
        }
    }

    fn digest(&self, registry: &Registry, hasher: &mut impl Hasher) {
        let Self {
            head,
            recorded_at,
            streams,
            ids,
            spare_bytes: _,
        } = self;
        (head, recorded_at).hash(hasher);
        unordered(streams.iter(), hasher, |(key, stream), hasher| {
            (key, stream.version, stream.in_flight).hash(hasher);
            digest_state(registry, key, Some(&stream.state), hasher);
        });
        unordered(ids.iter(), hasher, |entry, hasher| entry.hash(hasher));
    }
}

impl<T: Hash> Owner<T> {
    /// Hashes everything that decides what the owner does next, except clock times.
    pub fn digest(&self, hasher: &mut impl Hasher) {
        let Self {
            settings: _,
            entropy: _,
            memory,
            reader,
            speculation,
            window,
            window_bytes,
            again,
            actions,
            next_sequence,
            phase,
            claimed,
            clock: _,
            wanted,
            record_version: _,
            letting_go,
            holder,
            losses: _,
            lost_at_ms: _,
            sent_after_read,
            found_at: _,
            new_log,
            claimed_list,
            lists,
            has_loaded,
            store_failures,
            refusals,
            without_room,
            look_at_ms: _,
            opened_log: _,
        } = self;
        memory.digest(hasher);
        reader.digest(hasher);
        speculation.digest(&memory.registry, hasher);
        window.len().hash(hasher);
        window.iter().for_each(|entry| digest_entry(entry, hasher));
        again.len().hash(hasher);
        for (submission, waiters) in again {
            digest_submission(submission, hasher);
            waiters.hash(hasher);
        }
        (window_bytes, actions.len(), next_sequence, claimed).hash(hasher);
        digest_phase(phase, hasher);
        let holder = holder.as_ref().map(|hint| (hint.term, &hint.address));
        (wanted, letting_go, holder, sent_after_read, new_log).hash(hasher);
        (store_failures, without_room, refusals.given_up, has_loaded).hash(hasher);
        (claimed_list, lists).hash(hasher);
    }
}

fn digest_entry<T: Hash>(entry: &InFlight<T>, hasher: &mut impl Hasher) {
    let InFlight {
        sequence,
        commit,
        submission: _,
        waiters,
        sent_at: _,
        acknowledged,
    } = entry;
    // The hash covers headers, key and value: the record and the commit.
    let (head, fingerprint) = (&commit.head, &commit.fingerprint);
    (sequence, head, fingerprint, waiters, acknowledged).hash(hasher);
}

fn digest_submission(submission: &Submission, hasher: &mut impl Hasher) {
    let request = &submission.request;
    (&request.tenant, &request.stream, &request.id).hash(hasher);
    (&request.command, request.schema, request.expected_version).hash(hasher);
    submission.command.data.get().hash(hasher);
}

fn digest_phase(phase: &Phase, hasher: &mut impl Hasher) {
    std::mem::discriminant(phase).hash(hasher);
    match phase {
        Phase::Claiming {
            claim,
            sequence,
            sent_at: _,
            acknowledged,
            counts,
            until_ms: _,
        } => (claim.term, claim.writer, sequence, acknowledged, counts).hash(hasher),
        Phase::BackingOff {
            until_ms: _,
            reason,
        } => std::mem::discriminant(reason).hash(hasher),
        Phase::Standby { read_at_ms } => read_at_ms.is_some().hash(hasher),
        Phase::AwaitingStore { retry_at_ms } => retry_at_ms.is_some().hash(hasher),
        Phase::Proving
        | Phase::Following
        | Phase::Asking { until_ms: _ }
        | Phase::Owning
        | Phase::Doubt
        | Phase::Stopped(_) => {}
    }
}
