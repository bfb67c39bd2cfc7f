//! Compresses answers with gzip for clients that accept it.
//!
//! Invariants: only an answer that is whole is compressed, so that no line of a streamed answer is
//! delayed, and its size is known again afterwards. However slowly clients read, at most
//! [`ENCODERS_MAX`] encoders hold memory; an answer that finds none free is sent as it is.
//! Deliberately absent: other encodings, and compressed requests.

use std::io::Write as _;

use axum::body::{Body, Bytes, HttpBody as _};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::sync::Semaphore;

use crate::tag;

/// Smaller answers fit into one or two packets as they are.
const SIZE_MIN: u64 = 1_024;
/// The most encoders at once. Each holds some 300 kB.
const ENCODERS_MAX: usize = 8;
/// How many bytes are compressed before other tasks of the thread have their turn.
const CHUNK_BYTES: usize = 64 << 10;

static ENCODERS: Semaphore = Semaphore::const_new(ENCODERS_MAX);

/// The response, compressed if that saves something and the client's `Accept-Encoding` allows it.
pub(crate) async fn compressed(accepted: Option<&HeaderValue>, mut response: Response) -> Response {
    let size = response.body().size_hint().exact();
    if size.is_none_or(|size| size < SIZE_MIN) || !is_compressible(response.headers()) {
        return response;
    }
    let headers = response.headers_mut();
    let held = headers
        .get(header::VARY)
        .and_then(|held| held.to_str().ok());
    let vary = match held {
        Some(held) => format!("{held}, accept-encoding"),
        None => "accept-encoding".to_owned(),
    };
    // What was a header's value before is one again.
    if let Ok(vary) = HeaderValue::from_str(&vary) {
        headers.insert(header::VARY, vary);
    }
    if !accepted.is_some_and(|accepted| accepts_gzip(accepted.as_bytes())) {
        return response;
    }
    let Ok(_encoder) = ENCODERS.try_acquire() else {
        return response;
    };
    let (mut parts, body) = response.into_parts();
    // The body is in memory already; its size was known.
    let Ok(whole) = axum::body::to_bytes(body, usize::MAX).await else {
        return Response::from_parts(parts, Body::empty());
    };
    let Some(packed) = pack(&whole)
        .await
        .filter(|packed| packed.len() < whole.len())
    else {
        return Response::from_parts(parts, Body::from(whole));
    };
    parts.headers.remove(header::CONTENT_LENGTH);
    let encoding = HeaderValue::from_static("gzip");
    parts.headers.insert(header::CONTENT_ENCODING, encoding);
    if let Some(tag) = parts.headers.get(header::ETAG).and_then(tag::of_gzip) {
        parts.headers.insert(header::ETAG, tag);
    }
    Response::from_parts(parts, Body::from(packed))
}

async fn pack(whole: &Bytes) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(whole.len() / 4), Compression::fast());
    for (number, chunk) in whole.chunks(CHUNK_BYTES).enumerate() {
        if number > 0 {
            tokio::task::yield_now().await;
        }
        encoder.write_all(chunk).ok()?;
    }
    encoder.finish().ok()
}

fn is_compressible(headers: &HeaderMap) -> bool {
    let media_type = headers.get(header::CONTENT_TYPE);
    let media_type = media_type.and_then(|media_type| media_type.to_str().ok());
    let essence = media_type.and_then(|media_type| media_type.split(';').next());
    let is_text = essence.is_some_and(|essence| {
        let (kind, rest) = essence.trim().split_once('/').unwrap_or_default();
        kind == "text"
            || ["json", "javascript", "xml"]
                .iter()
                .any(|end| rest.ends_with(end))
    });
    is_text && !headers.contains_key(header::CONTENT_ENCODING)
}

/// Whether a client accepts gzip, and does not prefer an answer as it is (RFC 9110 §12.5.3).
fn accepts_gzip(accepted: &[u8]) -> bool {
    let accepted = String::from_utf8_lossy(accepted).to_ascii_lowercase();
    let (mut gzip, mut other, mut identity) = (None, None, None);
    for coding in accepted.split(',') {
        let mut parts = coding.split(';').map(str::trim);
        let place = match parts.next() {
            Some("gzip" | "x-gzip") => &mut gzip,
            Some("identity") => &mut identity,
            Some("*") => &mut other,
            _ => continue,
        };
        let weight = parts.find_map(|part| part.strip_prefix("q="));
        // A weight that is none counts as 0: better an answer that every client can read.
        *place = Some(weight.map_or(1.0, |weight| weight.trim().parse::<f32>().unwrap_or(0.0)));
    }
    let gzip = gzip.or(other).unwrap_or(0.0);
    gzip > 0.0 && gzip >= identity.unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use axum::response::IntoResponse as _;

    use super::*;

    const GZIP: HeaderValue = HeaderValue::from_static("gzip");

    fn json(body: impl Into<Body>) -> Response {
        let media_type = [
            (header::CONTENT_TYPE, "application/json"),
            (header::ETAG, "\"3\""),
        ];
        (media_type, body.into()).into_response()
    }

    #[test]
    fn a_client_says_whether_it_accepts_gzip() {
        for (accepted, expected) in [
            ("gzip", true),
            ("GZIP", true),
            ("br, gzip;q=0.5", true),
            ("deflate, *;q=0.1", true),
            ("*", true),
            ("", false),
            ("br", false),
            ("gzip;q=0", false),
            ("gzip; q=0.0, *", false),
            ("*;q=0", false),
            ("identity", false),
            ("identity;q=1, gzip;q=0.5", false),
            ("gzip;q=x", false),
        ] {
            assert_eq!(accepts_gzip(accepted.as_bytes()), expected, "{accepted}");
        }
    }

    #[tokio::test]
    async fn a_large_answer_is_compressed_and_has_a_tag_of_its_own() {
        let text = "0123456789".repeat(20_000);
        let plain = compressed(None, json(text.clone())).await;
        assert_eq!(plain.headers()["vary"], "accept-encoding");
        assert_eq!(plain.headers()["etag"], "\"3\"");
        let packed = compressed(Some(&GZIP), json(text.clone())).await;
        assert_eq!(packed.headers()["vary"], "accept-encoding");
        assert_eq!(packed.headers()["content-encoding"], "gzip");
        assert_eq!(packed.headers()["etag"], "\"3-gzip\"");
        let size = packed.body().size_hint().exact().unwrap();
        assert!(size < 2_000, "{size} bytes");
        let bytes = axum::body::to_bytes(packed.into_body(), usize::MAX)
            .await
            .unwrap();
        let mut unpacked = String::new();
        flate2::read::GzDecoder::new(&*bytes)
            .read_to_string(&mut unpacked)
            .unwrap();
        assert_eq!(unpacked, text);
    }

    #[tokio::test]
    async fn small_answers_streams_and_pictures_stay_as_they_are() {
        let large = vec![b' '; 100_000];
        let stream = futures::stream::iter([Ok::<_, axum::Error>(Bytes::from(large.clone()))]);
        let picture = ([(header::CONTENT_TYPE, "image/png")], large.clone()).into_response();
        let packed = ([(header::CONTENT_ENCODING, "br")], json(large.clone())).into_response();
        let streamed = json(Body::from_stream(stream));
        for response in [json("{}"), streamed, picture, packed] {
            let response = compressed(Some(&GZIP), response).await;
            assert!(!response.headers().contains_key("vary"));
            assert_ne!(response.headers().get("content-encoding"), Some(&GZIP));
        }
    }

    #[tokio::test]
    async fn an_answer_does_not_wait_for_an_encoder() {
        let _all = ENCODERS
            .acquire_many(u32::try_from(ENCODERS_MAX).unwrap())
            .await;
        let response = compressed(Some(&GZIP), json(vec![b' '; 100_000])).await;
        assert_eq!(response.body().size_hint().exact(), Some(100_000));
    }
}
