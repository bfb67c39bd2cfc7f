//! How a command is recognised when it is sent again: by a keyed digest of what its client sent.
//!
//! Deliberately absent: where the digest is kept, and for how long.

use event_log::commit::{Commit, REFUSED_DATA_SIZE_MAX};
use hex::FromHex as _;
use kernel::Timestamp;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::Memory;

/// The keyed digest of what a client sent under a command id.
pub(in crate::owner) type Fingerprint = [u8; 16];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DigestedData {
    #[serde(rename = "$digest")]
    digest: DataDigest,
}

/// Size and digest of data that is not kept.
#[derive(Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub(in crate::owner) struct DataDigest {
    pub(in crate::owner) bytes: usize,
    pub(in crate::owner) sha256: String,
}

/// A command's data as it enters the fingerprint: large data, which a commit would not keep if it
/// refused the command, by its digest.
pub(in crate::owner) enum SentData<'a> {
    Whole(&'a str),
    Digest([u8; 32]),
}

impl<'a> SentData<'a> {
    /// Takes data in canonical form, as sent or as recorded. The recorded digest of a large refused
    /// command counts like the data that was sent, whoever wrote the record.
    pub(in crate::owner) fn of(data: &'a str) -> Self {
        if data.len() > REFUSED_DATA_SIZE_MAX {
            return Self::Digest(data_digest(data));
        }
        match recorded_digest(data) {
            Some(digest) => Self::Digest(digest),
            None => Self::Whole(data),
        }
    }
}

/// The digest that stands for large data, if `data` is one.
fn recorded_digest(data: &str) -> Option<[u8; 32]> {
    if !data.starts_with("{\"$digest\":") {
        return None;
    }
    let DigestedData { digest } = serde_json::from_str(data).ok()?;
    let is_of_large_data = digest.bytes > REFUSED_DATA_SIZE_MAX;
    let sha256 = <[u8; 32]>::from_hex(digest.sha256).ok()?;
    is_of_large_data.then_some(sha256)
}

pub(in crate::owner) fn data_digest(data: &str) -> [u8; 32] {
    Sha256::digest(data.as_bytes()).into()
}

impl Memory {
    /// The fingerprint of a command as its commit records it.
    pub(in crate::owner) fn fingerprint(&self, commit: &Commit) -> Fingerprint {
        let command = &commit.command;
        let data = SentData::of(command.data.get());
        let sent = (command.occurred_at, command.expected_version);
        self.fingerprint_of(&command.type_name, command.schema, &data, sent)
    }

    /// The fingerprint of a command: type, schema, data, business time and expected version as
    /// sent. It is keyed, since data can be guessed.
    pub(in crate::owner) fn fingerprint_of(
        &self,
        type_name: &str,
        schema: Option<u16>,
        data: &SentData<'_>,
        (occurred_at, expected_version): (Option<Timestamp>, Option<u64>),
    ) -> Fingerprint {
        let mut hasher = Sha256::new_with_prefix(self.fingerprint_key);
        hasher.update((type_name.len() as u64).to_be_bytes());
        hasher.update(type_name);
        hasher.update([u8::from(schema.is_some())]);
        hasher.update(schema.unwrap_or_default().to_be_bytes());
        hasher.update([u8::from(occurred_at.is_some())]);
        hasher.update(occurred_at.unwrap_or_default().micros().to_be_bytes());
        hasher.update([u8::from(expected_version.is_some())]);
        hasher.update(expected_version.unwrap_or_default().to_be_bytes());
        match data {
            SentData::Whole(data) => {
                hasher.update([0]);
                hasher.update(data);
            }
            SentData::Digest(digest) => {
                hasher.update([1]);
                hasher.update(digest);
            }
        }
        let hash: [u8; 32] = hasher.finalize().into();
        *hash.first_chunk().expect("16 of its 32 bytes")
    }
}
