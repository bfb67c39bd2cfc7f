//! The text of a position token.
//!
//! In base64url, without padding:
//!
//! | part | bytes |
//! |---|---|
//! | the form of the token: 2 | 1 |
//! | the log's id | 16 |
//! | how many bits each position has, from 1 to 64: as many as the largest one needs | 1 |
//! | the number of runs of consecutive partitions | number |
//! | for each run: how many partitions lie between it and the one before; its length | numbers |
//! | the positions in order, packed without gaps, the highest bit first, filled up with zeros | … |
//! | the CRC-32 of all bytes before | 4, big-endian |
//!
//! A *number* has seven bits in each byte, the lowest ones first; the highest bit of a byte says that
//! another byte follows. The clients under `clients/` read and write the same form.
//!
//! Invariants: a token of 256 partitions with positions below 2^47 has less than 2,048 characters; a
//! text that is not exactly what would be written is not read.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

use crate::ids::{LogId, Partition, Position};
use crate::token::PositionToken;

/// The first byte of a token.
const FORM: u8 = 2;
/// The size of the check sum.
pub(crate) const CHECK_SIZE: usize = 4;

pub(crate) fn written(token: &PositionToken) -> String {
    URL_SAFE_NO_PAD.encode(bytes(token))
}

pub(crate) fn read(text: &str) -> Option<PositionToken> {
    of_bytes(&URL_SAFE_NO_PAD.decode(text).ok()?)
}

/// Consecutive partitions: the first of them, and how many there are.
type Run = (u64, u64);

fn runs(token: &PositionToken) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for partition in token.positions.keys() {
        let partition = u64::from(partition.0);
        match runs.last_mut() {
            Some((first, length)) if *first + *length == partition => *length += 1,
            _ => runs.push((partition, 1)),
        }
    }
    runs
}

pub(crate) fn bytes(token: &PositionToken) -> Vec<u8> {
    let largest = token
        .positions
        .values()
        .max()
        .map_or(0, |largest| largest.0);
    let bits = (u64::BITS - largest.leading_zeros()).max(1);
    let mut bytes = Vec::with_capacity(32 + token.positions.len() * bits as usize / 8);
    bytes.push(FORM);
    bytes.extend_from_slice(token.log.0.as_bytes());
    bytes.push(bits.to_le_bytes()[0]);
    let runs = runs(token);
    put_number(&mut bytes, runs.len() as u64);
    let mut end = 0;
    for (first, length) in runs {
        put_number(&mut bytes, first - end);
        put_number(&mut bytes, length);
        end = first + length;
    }
    pack(
        &mut bytes,
        token.positions.values().map(|position| position.0),
        bits,
    );
    let check = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&check.to_be_bytes());
    bytes
}

/// The token of these bytes; absent if no token is written so.
pub(crate) fn of_bytes(bytes: &[u8]) -> Option<PositionToken> {
    let (content, check) = bytes.split_last_chunk::<CHECK_SIZE>()?;
    if crc32fast::hash(content) != u32::from_be_bytes(*check) {
        return None;
    }
    let (&form, rest) = content.split_first()?;
    let (log, rest) = rest.split_at_checked(16)?;
    let (&bits, mut rest) = rest.split_first()?;
    let bits = u32::from(bits);
    if form != FORM || !(1..=u64::BITS).contains(&bits) {
        return None;
    }
    let log = LogId(Uuid::from_slice(log).ok()?);
    // The bytes that are left hold all positions: no more partitions are taken up than that.
    let mut room = rest.len() as u64 * 8 / u64::from(bits);
    let mut partitions = Vec::new();
    let mut end: u64 = 0;
    for _ in 0..take_number(&mut rest)? {
        let first = end.checked_add(take_number(&mut rest)?)?;
        let length = take_number(&mut rest)?;
        room = room.checked_sub(length)?;
        end = first.checked_add(length)?;
        for partition in first..end {
            partitions.push(Partition(u32::try_from(partition).ok()?));
        }
    }
    let positions = unpack(rest, bits).map(Position);
    let positions: BTreeMap<_, _> = partitions.into_iter().zip(positions).collect();
    let token = PositionToken { log, positions };
    // Runs that touch, spare bits or bytes, or a missing position: another text says the same.
    (self::bytes(&token) == bytes).then_some(token)
}

pub(crate) fn put_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
}

pub(crate) fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn pack(bytes: &mut Vec<u8>, positions: impl Iterator<Item = u64>, bits: u32) {
    // Fewer than 8 bits wait for more.
    let (mut waiting, mut count) = (0_u128, 0);
    for position in positions {
        waiting = (waiting << bits) | u128::from(position);
        count += bits;
        while count >= 8 {
            count -= 8;
            bytes.push((waiting >> count).to_le_bytes()[0]);
        }
        waiting &= (1 << count) - 1;
    }
    if count > 0 {
        bytes.push((waiting << (8 - count)).to_le_bytes()[0]);
    }
}

fn unpack(bytes: &[u8], bits: u32) -> impl Iterator<Item = u64> {
    let mut bytes = bytes.iter();
    let (mut waiting, mut count) = (0_u128, 0);
    std::iter::from_fn(move || {
        while count < bits {
            waiting = (waiting << 8) | u128::from(*bytes.next()?);
            count += 8;
        }
        count -= bits;
        let position = waiting >> count;
        waiting &= (1 << count) - 1;
        u64::try_from(position).ok()
    })
}
