//! Upgraded connections: two byte streams joined, whatever protocol they speak.

use http::HeaderMap;
use http::header::{CONNECTION, HeaderName, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;

/// Headers that are about one connection, not about the request (RFC 9110, 7.6.1).
const HOP_HEADERS: [HeaderName; 4] =
    [CONNECTION, UPGRADE, TRANSFER_ENCODING, HeaderName::from_static("keep-alive")];

/// Whether a request asks to upgrade its connection.
pub fn is_wanted(headers: &HeaderMap) -> bool {
    wanted(headers).is_some()
}

/// The protocol that a request asks to upgrade to: `websocket`, `SPDY/3.1`.
pub fn wanted(headers: &HeaderMap) -> Option<HeaderValue> {
    let connection = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let asks =
        connection.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case("upgrade"));
    if asks { headers.get(UPGRADE).cloned() } else { None }
}

/// Asks to upgrade to `protocol`.
pub fn ask(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// Removes the headers that end here.
pub fn strip_hop_headers(headers: &mut HeaderMap) {
    for name in HOP_HEADERS {
        headers.remove(name);
    }
}

/// Moves bytes between the two connections, once both have switched protocols, until the kubelet's ends. A client
/// that ends first is told to the kubelet, which then ends too.
pub fn join(client: OnUpgrade, kubelet: OnUpgrade) {
    tokio::spawn(async move {
        let (client, kubelet) = match tokio::try_join!(client, kubelet) {
            Ok(both) => both,
            Err(error) => {
                tracing::debug!(%error, "connection was not upgraded");
                return;
            }
        };
        let (mut from_client, mut to_client) = tokio::io::split(TokioIo::new(client));
        let (mut from_kubelet, mut to_kubelet) = tokio::io::split(TokioIo::new(kubelet));
        let up = async {
            let _ = tokio::io::copy(&mut from_client, &mut to_kubelet).await;
            let _ = to_kubelet.shutdown().await;
            std::future::pending::<()>().await;
        };
        let down = async {
            let moved = tokio::io::copy(&mut from_kubelet, &mut to_client).await;
            let _ = to_client.shutdown().await;
            moved
        };
        tokio::select! {
            () = up => {}
            moved = down => match moved {
                Ok(bytes) => tracing::debug!(bytes, "upgraded connection ended"),
                Err(error) => tracing::debug!(%error, "upgraded connection ended"),
            },
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upgrade_is_asked_for_by_both_headers() {
        for (connection, upgrade, expected) in [
            (Some("Upgrade"), Some("websocket"), Some("websocket")),
            (Some("keep-alive, upgrade"), Some("SPDY/3.1"), Some("SPDY/3.1")),
            (Some("keep-alive"), Some("websocket"), None),
            (None, Some("websocket"), None),
            (Some("Upgrade"), None, None),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in [(CONNECTION, connection), (UPGRADE, upgrade)] {
                if let Some(value) = value {
                    headers.insert(name, HeaderValue::from_static(value));
                }
            }
            assert_eq!(
                wanted(&headers),
                expected.map(HeaderValue::from_static),
                "{connection:?} {upgrade:?}"
            );
        }
    }
}
