//! Kubernetes' channel protocols over WebSocket: which one a client gets, and how messages carry channels. Pure.
//! Channels: 0 input, 1 output, 2 error output, 3 status, 4 terminal size, 255 (v5 only) close of a channel.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

/// Channel numbers.
pub const STDIN: u8 = 0;
/// Output.
pub const STDOUT: u8 = 1;
/// Error output.
pub const STDERR: u8 = 2;
/// The final status.
pub const STATUS: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// A negotiated protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protocol {
    /// As in Sec-WebSocket-Protocol.
    pub name: &'static str,
    base64: bool,
    /// Whether the end of a channel can be told.
    closes: bool,
    /// Whether the status is a JSON Status; before v4 it is plain text.
    json_status: bool,
}

/// Protocols of exec and attach, the best first.
const PROTOCOLS: [Protocol; 5] = [
    Protocol { name: "v5.channel.k8s.io", base64: false, closes: true, json_status: true },
    Protocol { name: "v4.channel.k8s.io", base64: false, closes: false, json_status: true },
    Protocol { name: "v4.base64.channel.k8s.io", base64: true, closes: false, json_status: true },
    Protocol { name: "channel.k8s.io", base64: false, closes: false, json_status: false },
    Protocol { name: "base64.channel.k8s.io", base64: true, closes: false, json_status: false },
];

/// The best protocol among those a client offers. None offered: the oldest.
pub fn negotiate(offered: &str) -> Option<Protocol> {
    let offered: Vec<&str> = offered.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    if offered.is_empty() {
        return PROTOCOLS.iter().find(|protocol| protocol.name == "channel.k8s.io").copied();
    }
    PROTOCOLS.iter().find(|protocol| offered.contains(&protocol.name)).copied()
}

/// What a client says.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming {
    /// Input.
    Input(Vec<u8>),
    /// No more input.
    EndOfInput,
    /// The terminal is so many characters wide and high.
    Resize(u16, u16),
    /// The client left.
    Gone,
    /// Nothing to act on.
    Nothing,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u16,
    height: u16,
}

impl Protocol {
    /// Reads a message.
    pub fn decode(self, message: Message) -> Incoming {
        let (channel, data) = match message {
            Message::Binary(bytes) if !self.base64 => match bytes.split_first() {
                Some((channel, data)) => (*channel, data.to_vec()),
                None => return Incoming::Nothing,
            },
            Message::Text(text) if self.base64 => match text.as_bytes().split_first() {
                Some((digit, data)) => match STANDARD.decode(data) {
                    Ok(data) => (digit.wrapping_sub(b'0'), data),
                    Err(_) => return Incoming::Nothing,
                },
                None => return Incoming::Nothing,
            },
            Message::Close(_) => return Incoming::Gone,
            _ => return Incoming::Nothing,
        };
        match channel {
            STDIN => Incoming::Input(data),
            RESIZE => size(&data),
            CLOSE if self.closes && data == [STDIN] => Incoming::EndOfInput,
            _ => Incoming::Nothing,
        }
    }

    /// Puts data on a channel.
    pub fn encode(self, channel: u8, data: &[u8]) -> Message {
        if self.base64 {
            return Message::text(format!("{channel}{}", STANDARD.encode(data)));
        }
        let mut bytes = Vec::with_capacity(data.len() + 1);
        bytes.push(channel);
        bytes.extend_from_slice(data);
        Message::binary(bytes)
    }

    /// The final status, for channel 3. Older protocols say nothing of success.
    pub fn status(self, end: &Result<i32, String>) -> Option<Message> {
        if self.json_status {
            return Some(self.encode(STATUS, status_object(end).to_string().as_bytes()));
        }
        match end {
            Ok(0) => None,
            Ok(code) => Some(
                self.encode(STATUS, format!("command terminated with non-zero exit code: {code}").as_bytes()),
            ),
            Err(message) => Some(self.encode(STATUS, message.as_bytes())),
        }
    }
}

/// Reads a terminal size: `{"Width":80,"Height":24}`.
pub fn size(json: &[u8]) -> Incoming {
    match serde_json::from_slice::<Size>(json) {
        Ok(size) => Incoming::Resize(size.width, size.height),
        Err(_) => Incoming::Nothing,
    }
}

/// metav1.Status of an ended command.
pub fn status_object(end: &Result<i32, String>) -> Value {
    match end {
        Ok(0) => json!({"metadata": {}, "status": "Success"}),
        Ok(code) => json!({
            "metadata": {},
            "status": "Failure",
            "message": format!("command terminated with non-zero exit code: error executing command, exit code {code}"),
            "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        Err(message) => json!({
            "metadata": {}, "status": "Failure", "message": message, "reason": "InternalError",
            "details": {"causes": [{"message": message}]}, "code": 500,
        }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_best_offered_protocol_is_chosen() {
        let table = [
            ("v5.channel.k8s.io", Some("v5.channel.k8s.io")),
            ("v4.channel.k8s.io, v5.channel.k8s.io", Some("v5.channel.k8s.io")),
            ("base64.channel.k8s.io", Some("base64.channel.k8s.io")),
            ("", Some("channel.k8s.io")),
            ("SPDY/3.1+portforward.k8s.io", None),
        ];
        for (offered, expected) in table {
            assert_eq!(negotiate(offered).map(|protocol| protocol.name), expected, "{offered:?}");
        }
    }

    #[test]
    fn messages_carry_their_channel() {
        let v5 = negotiate("v5.channel.k8s.io").unwrap();
        let v4 = negotiate("v4.channel.k8s.io").unwrap();
        let text = negotiate("v4.base64.channel.k8s.io").unwrap();
        assert_eq!(v5.decode(Message::binary(vec![0, b'x'])), Incoming::Input(b"x".to_vec()));
        assert_eq!(v5.decode(Message::binary(vec![255, 0])), Incoming::EndOfInput);
        assert_eq!(v4.decode(Message::binary(vec![255, 0])), Incoming::Nothing);
        let size = [&[4][..], br#"{"Width":80,"Height":24}"#].concat();
        assert_eq!(v4.decode(Message::binary(size)), Incoming::Resize(80, 24));
        assert_eq!(text.decode(Message::text("0eA==")), Incoming::Input(b"x".to_vec()));
        assert_eq!(text.encode(STDOUT, b"x"), Message::text("1eA=="));
        assert_eq!(v5.encode(STDERR, b"x"), Message::binary(vec![2, b'x']));
    }

    #[test]
    fn exit_codes_are_told_as_causes() {
        let status = status_object(&Ok(3));
        assert_eq!(status["reason"], "NonZeroExitCode");
        assert_eq!(status["details"]["causes"][0], json!({"reason": "ExitCode", "message": "3"}));
        assert_eq!(status_object(&Ok(0))["status"], "Success");
        let old = negotiate("channel.k8s.io").unwrap();
        assert_eq!(old.status(&Ok(0)), None);
    }
}
