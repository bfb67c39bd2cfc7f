//! The headers of a record as one blob: for each, the name's length and the name, then a presence
//! byte, the value's length and the value; lengths are u32, big-endian.

use bytes::{Buf, Bytes};

use crate::record::Header;

pub(super) fn encode(headers: &[Header]) -> Vec<u8> {
    let mut blob = Vec::with_capacity(256);
    for (name, value) in headers {
        put(&mut blob, name);
        blob.push(u8::from(value.is_some()));
        put(&mut blob, value.as_deref().unwrap_or_default());
    }
    blob
}

fn put(blob: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("headers are short");
    blob.extend_from_slice(&length.to_be_bytes());
    blob.extend_from_slice(bytes);
}

/// Absent if the blob is not one that `encode` made.
pub(super) fn decode(blob: &Bytes) -> Option<Vec<Header>> {
    let mut rest = blob.clone();
    let mut headers = Vec::with_capacity(5);
    while rest.has_remaining() {
        let name = take(&mut rest)?;
        let present = rest.try_get_u8().ok()?;
        let value = take(&mut rest)?;
        headers.push((name, (present == 1).then_some(value)));
    }
    Some(headers)
}

fn take(rest: &mut Bytes) -> Option<Bytes> {
    let length = usize::try_from(rest.try_get_u32().ok()?).ok()?;
    (rest.len() >= length).then(|| rest.split_to(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_back_and_damaged_blobs_are_not() {
        let headers: Vec<Header> = vec![
            ("a".into(), Some("1".into())),
            (Bytes::from_static(&[0xff]), None),
        ];
        let blob = Bytes::from(encode(&headers));
        assert_eq!(decode(&blob), Some(headers));
        assert_eq!(decode(&blob.slice(..blob.len() - 1)), None);
        assert_eq!(decode(&Bytes::from_static(&[0xff; 5])), None);
    }
}
