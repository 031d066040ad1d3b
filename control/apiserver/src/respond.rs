//! Responses: content type, compression, `Status` for errors, `Warning` headers.

use std::io::Write as _;

use api::ApiError;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::stream;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, VARY, WARNING};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use serde_json::Value;

use crate::body::{Body, Response, full};
use crate::negotiate::Media;

/// Smaller responses are not worth the client's time to inflate (upstream's threshold).
const GZIP_FROM: usize = 128 * 1024;
/// All `Warning` headers of a response together (upstream's limit).
const WARNINGS_MAX: usize = 4096;

/// How a client wants its bytes.
#[derive(Debug, Clone, Copy)]
pub struct Delivery {
    /// The media type.
    pub media: Media,
    /// Large responses may be compressed.
    pub gzip: bool,
}

impl Delivery {
    /// In `media`, compressed if the headers welcome it.
    #[must_use]
    pub fn new(media: Media, headers: &HeaderMap) -> Self {
        let encodings = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|it| it.to_str().ok());
        Self { media, gzip: encodings.into_iter().any(|it| it.contains("gzip")) }
    }
}

/// A response of JSON pieces, in the media type asked for, compressed if large and welcome.
pub async fn pieces(
    status: StatusCode,
    pieces: Vec<Bytes>,
    Delivery { media, gzip: welcome }: Delivery,
) -> Response {
    let size: usize = pieces.iter().map(Bytes::len).sum();
    if media == Media::Yaml {
        let value: Value = serde_json::from_slice(&pieces.concat()).unwrap_or_default();
        return typed(status, media.content_type(), full(yaml(&value)));
    }
    if size >= GZIP_FROM && welcome {
        // Megabytes take tens of milliseconds: not on a thread that others' sockets wait for.
        if let Ok(compressed) = tokio::task::spawn_blocking(move || gzip(&pieces)).await {
            let mut response = typed(status, media.content_type(), full(compressed));
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            response.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Encoding"));
            return response;
        }
        return error(&ApiError::internal("compression failed"));
    }
    let body = match pieces.len() {
        0 | 1 => full(pieces.into_iter().next().unwrap_or_default()),
        _ if size < 64 * 1024 => full(pieces.concat()),
        _ => StreamBody::new(stream::iter(pieces.into_iter().map(|it| Ok(http_body::Frame::data(it)))))
            .boxed_unsync(),
    };
    typed(status, media.content_type(), body)
}

/// A response of one JSON document.
#[must_use]
pub fn json(status: StatusCode, document: &Value) -> Response {
    typed(status, "application/json", full(document.to_string()))
}

/// A response of plain text.
#[must_use]
pub fn text(status: StatusCode, text: impl Into<Bytes>) -> Response {
    typed(status, "text/plain; charset=utf-8", full(text))
}

/// A response with a body of the given type.
#[must_use]
pub fn typed(status: StatusCode, content_type: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// The `Status` of a request that failed.
#[must_use]
pub fn error(error: &ApiError) -> Response {
    let status = StatusCode::from_u16(error.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(status, &error.to_status_json());
    if let Some(seconds) = error.retry_after_seconds() {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Adds `Warning: 299 - ".."` headers, each text once.
pub fn warn(response: &mut Response, warnings: &[String]) {
    let mut room = WARNINGS_MAX;
    for (at, text) in warnings.iter().enumerate() {
        if warnings[..at].contains(text) || text.len() > room {
            continue;
        }
        room -= text.len();
        let clean: String = text.chars().filter(|it| !it.is_control()).collect();
        let header = format!("299 - \"{}\"", clean.replace('\\', "\\\\").replace('"', "\\\""));
        if let Ok(value) = HeaderValue::from_str(&header) {
            response.headers_mut().append(WARNING, value);
        }
    }
}

fn yaml(value: &Value) -> String {
    serde_saphyr::to_string(value).unwrap_or_default()
}

fn gzip(pieces: &[Bytes]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    for piece in pieces {
        // Writing to a Vec cannot fail.
        let _ = encoder.write_all(piece);
    }
    encoder.finish().unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Read as _;

    use super::*;

    #[test]
    fn warnings_are_quoted_told_once_and_limited() {
        let mut response = text(StatusCode::OK, "");
        let long = "x".repeat(WARNINGS_MAX);
        warn(&mut response, &["a \"b\"".to_owned(), "a \"b\"".to_owned(), "line\nbreak".to_owned(), long]);
        let seen: Vec<_> =
            response.headers().get_all(WARNING).iter().map(|it| it.to_str().unwrap()).collect();
        assert_eq!(seen, [r#"299 - "a \"b\"""#, r#"299 - "linebreak""#]);
    }

    #[tokio::test]
    async fn only_large_responses_are_compressed_and_only_for_those_who_ask() {
        for (size, welcome, compressed) in
            [(GZIP_FROM, true, true), (GZIP_FROM, false, false), (GZIP_FROM - 1, true, false)]
        {
            let half = Bytes::from(vec![b'x'; size / 2]);
            let rest = Bytes::from(vec![b'y'; size - size / 2]);
            let delivery = Delivery { media: Media::Json, gzip: welcome };
            let response = pieces(StatusCode::OK, vec![half.clone(), rest.clone()], delivery).await;
            assert_eq!(response.headers().contains_key(CONTENT_ENCODING), compressed, "{size} {welcome}");
            let body = response.into_body().collect().await.unwrap().to_bytes();
            let mut plain = Vec::new();
            match compressed {
                true => drop(flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut plain).unwrap()),
                false => plain.extend_from_slice(&body),
            }
            assert_eq!(plain, [half, rest].concat());
        }
    }
}
