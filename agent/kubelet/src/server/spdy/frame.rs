//! Frames of SPDY/3.1 (SPDY protocol draft 3.1, 2.2 and 2.6): bytes to frames and back. Pure. What frames mean for
//! streams is `session`'s.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::SpdyError;
use super::headers::{Deflater, Headers, Inflater};

/// FLAG_FIN: the sender says no more on this stream.
const FIN: u8 = 0x01;
/// Bit that tells control frames from data.
const CONTROL: u32 = 0x8000_0000;
/// Version in control frames; 3.1 says 3.
const VERSION: u32 = 3;
/// A control frame may have this many bytes.
const CONTROL_LIMIT: usize = 64 * 1024;
/// Every frame begins with so many bytes.
const HEAD: usize = 8;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

/// RST_STREAM: the stream broke the protocol.
pub const PROTOCOL_ERROR: u32 = 1;
/// RST_STREAM: the stream is not wanted any more.
pub const CANCEL: u32 = 5;

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A piece of a stream. A frame that arrives may be told in several pieces, the last with its `fin`.
    Data {
        /// Stream.
        stream: u32,
        /// Bytes.
        data: Bytes,
        /// The last of this direction.
        fin: bool,
    },
    /// Opens a stream.
    SynStream {
        /// Stream; odd when the client opens it.
        stream: u32,
        /// What it is for.
        headers: Headers,
        /// Nothing follows from the opener.
        fin: bool,
    },
    /// Accepts a stream.
    SynReply {
        /// Stream.
        stream: u32,
        /// Answer.
        headers: Headers,
        /// Nothing follows from the accepter.
        fin: bool,
    },
    /// Ends both directions of a stream at once.
    RstStream {
        /// Stream.
        stream: u32,
        /// Why.
        status: u32,
    },
    /// Wishes about the connection: id and value.
    Settings(Vec<(u32, u32)>),
    /// Asks for the same frame back.
    Ping(u32),
    /// No new streams will be served.
    GoAway {
        /// The last that was.
        last: u32,
        /// Why.
        status: u32,
    },
    /// More headers of an open stream.
    Headers {
        /// Stream.
        stream: u32,
        /// Headers.
        headers: Headers,
        /// Nothing follows from the sender.
        fin: bool,
    },
    /// The sender has room for more of a stream, or (stream 0) of the connection.
    WindowUpdate {
        /// Stream.
        stream: u32,
        /// Bytes.
        delta: u32,
    },
}

/// The rest of a data frame.
struct Remainder {
    stream: u32,
    length: usize,
    fin: bool,
}

/// Reads a peer's frames, from the beginning of a connection.
#[derive(Default)]
pub struct Decoder {
    inflater: Inflater,
    data: Option<Remainder>,
}

impl Decoder {
    /// Takes the next frame from `buffer`; `None`: more bytes are needed. After an error the connection is lost.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, SpdyError> {
        loop {
            if let Some(data) = self.data.take() {
                return Ok(self.piece(data, buffer));
            }
            let Some(head) = buffer.first_chunk::<HEAD>() else { return Ok(None) };
            let (word, flags) = (u32::from_be_bytes([head[0], head[1], head[2], head[3]]), head[4]);
            let length = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
            if word & CONTROL == 0 {
                buffer.advance(HEAD);
                self.data = Some(Remainder { stream: word, length, fin: flags & FIN != 0 });
                continue;
            }
            if length > CONTROL_LIMIT {
                return Err(SpdyError::TooLarge("control frame"));
            }
            if buffer.len() < HEAD + length {
                return Ok(None);
            }
            buffer.advance(HEAD);
            let payload = buffer.split_to(length).freeze();
            if (word & !CONTROL) >> 16 != VERSION {
                return Err(SpdyError::Version);
            }
            // Frames of unknown types must be ignored (2.2.1).
            if let Some(frame) = self.control((word & 0xffff) as u16, flags & FIN != 0, payload)? {
                return Ok(Some(frame));
            }
        }
    }

    fn piece(&mut self, data: Remainder, buffer: &mut BytesMut) -> Option<Frame> {
        let here = data.length.min(buffer.len());
        let Remainder { stream, length, fin } = data;
        if here < length {
            self.data = Some(Remainder { stream, length: length - here, fin });
            if here == 0 {
                return None;
            }
        }
        Some(Frame::Data { stream, data: buffer.split_to(here).freeze(), fin: fin && here == length })
    }

    fn control(&mut self, kind: u16, fin: bool, mut payload: Bytes) -> Result<Option<Frame>, SpdyError> {
        let frame = match kind {
            SYN_STREAM => {
                let stream = number(&mut payload)?;
                // The stream it belongs to, priority and slot: no use here.
                number(&mut payload)?;
                if payload.len() < 2 {
                    return Err(SpdyError::Malformed("SYN_STREAM"));
                }
                payload.advance(2);
                Frame::SynStream { stream: stream & !CONTROL, headers: self.inflater.read(&payload)?, fin }
            }
            SYN_REPLY => {
                let stream = number(&mut payload)?;
                Frame::SynReply { stream, headers: self.inflater.read(&payload)?, fin }
            }
            RST_STREAM => Frame::RstStream { stream: number(&mut payload)?, status: number(&mut payload)? },
            SETTINGS => {
                let count = number(&mut payload)? as usize;
                if payload.len() != count * 8 {
                    return Err(SpdyError::Malformed("SETTINGS"));
                }
                let mut settings = Vec::with_capacity(count);
                while payload.has_remaining() {
                    // The upper byte has flags.
                    let id = number(&mut payload)? & 0x00ff_ffff;
                    settings.push((id, number(&mut payload)?));
                }
                Frame::Settings(settings)
            }
            PING => Frame::Ping(number(&mut payload)?),
            GOAWAY => Frame::GoAway { last: number(&mut payload)?, status: number(&mut payload)? },
            HEADERS => {
                let stream = number(&mut payload)?;
                Frame::Headers { stream, headers: self.inflater.read(&payload)?, fin }
            }
            WINDOW_UPDATE => {
                Frame::WindowUpdate { stream: number(&mut payload)?, delta: number(&mut payload)? }
            }
            _ => return Ok(None),
        };
        Ok(Some(frame))
    }
}

fn number(payload: &mut Bytes) -> Result<u32, SpdyError> {
    payload.try_get_u32().map_err(|_| SpdyError::Malformed("control frame"))
}

/// Writes frames for a peer.
pub struct Encoder {
    deflater: Deflater,
}

impl Encoder {
    /// At the beginning of a connection.
    pub fn new() -> Result<Self, SpdyError> {
        Ok(Self { deflater: Deflater::new()? })
    }

    /// Appends a frame to `out`. Data is less than 16 MiB.
    pub fn encode(&mut self, frame: &Frame, out: &mut BytesMut) -> Result<(), SpdyError> {
        let mut payload = Vec::new();
        let (kind, fin) = match frame {
            Frame::Data { stream, data, fin } => {
                out.put_u32(stream & !CONTROL);
                put_length(out, *fin, data.len())?;
                out.put_slice(data);
                return Ok(());
            }
            Frame::SynStream { stream, headers, fin } => {
                payload.put_u32(*stream);
                payload.put_slice(&[0; 6]);
                payload.extend(self.deflater.write(headers)?);
                (SYN_STREAM, *fin)
            }
            Frame::SynReply { stream, headers, fin } => {
                payload.put_u32(*stream);
                payload.extend(self.deflater.write(headers)?);
                (SYN_REPLY, *fin)
            }
            Frame::RstStream { stream, status } => (RST_STREAM, pair(&mut payload, *stream, *status)),
            Frame::Settings(settings) => {
                payload.put_u32(u32::try_from(settings.len()).unwrap_or(u32::MAX));
                for (id, value) in settings {
                    pair(&mut payload, id & 0x00ff_ffff, *value);
                }
                (SETTINGS, false)
            }
            Frame::Ping(id) => {
                payload.put_u32(*id);
                (PING, false)
            }
            Frame::GoAway { last, status } => (GOAWAY, pair(&mut payload, *last, *status)),
            Frame::Headers { stream, headers, fin } => {
                payload.put_u32(*stream);
                payload.extend(self.deflater.write(headers)?);
                (HEADERS, *fin)
            }
            Frame::WindowUpdate { stream, delta } => (WINDOW_UPDATE, pair(&mut payload, *stream, *delta)),
        };
        out.put_u32(CONTROL | VERSION << 16 | u32::from(kind));
        put_length(out, fin, payload.len())?;
        out.put_slice(&payload);
        Ok(())
    }
}

/// Two numbers, in a frame that knows no FIN.
fn pair(payload: &mut Vec<u8>, first: u32, second: u32) -> bool {
    payload.put_u32(first);
    payload.put_u32(second);
    false
}

fn put_length(out: &mut BytesMut, fin: bool, length: usize) -> Result<(), SpdyError> {
    let length = u32::try_from(length).ok().filter(|length| *length < 1 << 24);
    let length = length.ok_or(SpdyError::TooLarge("frame"))?;
    out.put_u32(if fin { u32::from(FIN) << 24 } else { 0 } | length);
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn every_frame() -> Vec<Frame> {
        let headers = Headers::new(&[("streamtype", "stdin")]);
        vec![
            Frame::SynStream { stream: 1, headers: headers.clone(), fin: false },
            Frame::SynReply { stream: 1, headers: Headers::default(), fin: true },
            Frame::Headers { stream: 1, headers, fin: false },
            Frame::Data { stream: 1, data: Bytes::from_static(b"hello"), fin: false },
            Frame::Data { stream: 3, data: Bytes::new(), fin: true },
            Frame::RstStream { stream: 1, status: CANCEL },
            Frame::Settings(vec![(7, 65536), (4, 100)]),
            Frame::Ping(1),
            Frame::GoAway { last: 1, status: 0 },
            Frame::WindowUpdate { stream: 1, delta: 5 },
        ]
    }

    #[test]
    fn every_frame_is_read_as_it_was_written() {
        let (mut encoder, mut decoder) = (Encoder::new().unwrap(), Decoder::default());
        let mut buffer = BytesMut::new();
        let frames = every_frame();
        for frame in &frames {
            encoder.encode(frame, &mut buffer).unwrap();
        }
        for frame in frames {
            assert_eq!(decoder.decode(&mut buffer).unwrap(), Some(frame));
        }
        assert_eq!(decoder.decode(&mut buffer).unwrap(), None);
    }

    #[test]
    fn frames_may_arrive_byte_by_byte() {
        let (mut encoder, mut decoder) = (Encoder::new().unwrap(), Decoder::default());
        let (mut bytes, mut buffer) = (BytesMut::new(), BytesMut::new());
        for frame in every_frame() {
            encoder.encode(&frame, &mut bytes).unwrap();
        }
        let (mut read, mut data, mut fins) = (0, Vec::new(), 0);
        for byte in bytes {
            buffer.put_u8(byte);
            while let Some(frame) = decoder.decode(&mut buffer).unwrap() {
                read += 1;
                if let Frame::Data { data: piece, fin, .. } = frame {
                    data.extend_from_slice(&piece);
                    fins += u32::from(fin);
                }
            }
        }
        // "hello" comes in five pieces.
        assert_eq!((read, data.as_slice(), fins), (14, &b"hello"[..], 1));
    }

    #[test]
    fn bytes_are_laid_out_as_the_draft_says() {
        let table: [(Frame, &[u8]); 4] = [
            (Frame::Ping(1), &[0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1]),
            (
                Frame::RstStream { stream: 5, status: PROTOCOL_ERROR },
                &[0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, 5, 0, 0, 0, 1],
            ),
            (
                Frame::WindowUpdate { stream: 1, delta: 256 },
                &[0x80, 3, 0, 9, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 1, 0],
            ),
            (
                Frame::Data { stream: 3, data: Bytes::from_static(b"x"), fin: true },
                &[0, 0, 0, 3, 1, 0, 0, 1, b'x'],
            ),
        ];
        for (frame, expected) in table {
            let mut out = BytesMut::new();
            Encoder::new().unwrap().encode(&frame, &mut out).unwrap();
            assert_eq!(&out[..], expected, "{frame:?}");
        }
    }

    #[test]
    fn what_is_no_spdy_3_is_refused_and_unknown_types_are_passed_over() {
        let table: [(&[u8], Result<Option<Frame>, SpdyError>); 6] = [
            (&[0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1], Err(SpdyError::Version)),
            (&[0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff], Err(SpdyError::TooLarge("control frame"))),
            (&[0x80, 3, 0, 6, 0, 0, 0, 2, 0, 1], Err(SpdyError::Malformed("control frame"))),
            (&[0x80, 3, 0, 4, 0, 0, 0, 4, 0, 0, 0, 9], Err(SpdyError::Malformed("SETTINGS"))),
            (&[0x80, 3, 0, 5, 0, 0, 0, 0], Ok(None)),
            (&[0x80, 3, 0], Ok(None)),
        ];
        for (bytes, expected) in table {
            assert_eq!(Decoder::default().decode(&mut BytesMut::from(bytes)), expected, "{bytes:?}");
        }
    }
}
