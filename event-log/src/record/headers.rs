//! The headers of a record in one piece of memory, for records of any writer.
//!
//! Each header is packed as: the length of its name, the name, a byte that is 1 if there is a value
//! and 0 if not, the length of the value, the value. Lengths are u32, big-endian. Deliberately
//! absent: what headers mean (`kind`).

use std::fmt;

use bytes::{Bytes, BytesMut};

/// Room for the headers of one of our records.
const OURS_SIZE: usize = 192;

/// One header: a name, which need not be UTF-8, and a value, which may be absent.
pub type Header<'a> = (&'a [u8], Option<&'a [u8]>);

/// Headers in order; copying them copies no bytes.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Headers(Bytes);

impl Headers {
    /// Reads what [`Self::packed`] gave; absent if the bytes do not have that form.
    #[must_use]
    pub fn unpack(packed: Bytes) -> Option<Self> {
        let mut rest = &packed[..];
        while !rest.is_empty() {
            take(&mut rest)?;
        }
        Some(Self(packed))
    }

    /// The packed bytes, for storage.
    #[must_use]
    pub fn packed(&self) -> &Bytes {
        &self.0
    }

    /// The headers in order.
    pub fn iter(&self) -> impl Iterator<Item = Header<'_>> {
        let mut rest = &self.0[..];
        std::iter::from_fn(move || take(&mut rest))
    }

    /// Packs headers into the memory of `room`, which is empty and may be shared with other parts.
    pub(crate) fn pack<N: AsRef<[u8]>, V: AsRef<[u8]>>(
        room: &mut BytesMut,
        headers: impl IntoIterator<Item = (N, Option<V>)>,
    ) -> Self {
        debug_assert!(room.is_empty());
        for (name, value) in headers {
            push_sized(room, name.as_ref());
            room.extend_from_slice(&[u8::from(value.is_some())]);
            push_sized(room, value.as_ref().map(V::as_ref).unwrap_or_default());
        }
        Self(room.split().freeze())
    }
}

impl<N: AsRef<[u8]>, V: AsRef<[u8]>> FromIterator<(N, Option<V>)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, Option<V>)>>(headers: I) -> Self {
        Self::pack(&mut BytesMut::with_capacity(OURS_SIZE), headers)
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
        let shown = self
            .iter()
            .map(|(name, value)| (text(name), value.map(text)));
        f.debug_map().entries(shown).finish()
    }
}

fn push_sized(room: &mut BytesMut, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("headers are short");
    room.extend_from_slice(&length.to_be_bytes());
    room.extend_from_slice(bytes);
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<Header<'a>> {
    let name = take_sized(rest)?;
    let (presence, behind) = rest.split_first()?;
    *rest = behind;
    let value = take_sized(rest)?;
    match presence {
        0 if value.is_empty() => Some((name, None)),
        1 => Some((name, Some(value))),
        _ => None,
    }
}

fn take_sized<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, behind) = rest.split_first_chunk()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (bytes, behind) = behind.split_at_checked(length)?;
    *rest = behind;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_back_and_what_is_damaged_is_not() {
        let list: [Header<'_>; 3] = [(b"a", Some(b"1")), (b"\xff", None), (b"", Some(b""))];
        let headers: Headers = list.into_iter().collect();
        assert_eq!(headers.iter().collect::<Vec<_>>(), list);
        assert_eq!(
            Headers::unpack(headers.packed().clone()),
            Some(headers.clone())
        );
        let packed = headers.packed();
        for cut in 1..5 {
            assert_eq!(Headers::unpack(packed.slice(..packed.len() - cut)), None);
        }
        assert_eq!(Headers::unpack(Bytes::from_static(&[0xff; 5])), None);
        // Equal headers have only one packed form.
        let (absent, presence) = (b"\0\0\0\0\0\0\0\0\x01x", b"\0\0\0\0\x02\0\0\0\0");
        assert_eq!(Headers::unpack(Bytes::from_static(absent)), None);
        assert_eq!(Headers::unpack(Bytes::from_static(presence)), None);
        assert_eq!(Headers::unpack(Bytes::new()), Some(Headers::default()));
    }
}
