//! Header blocks of SPDY/3 (SPDY protocol draft 3, 2.6.10): names and values, compressed with one zlib stream for
//! each direction of a connection, so every block must pass through here, in order, even if nobody reads it. Pure.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

use super::SpdyError;
use super::dictionary::DICTIONARY;

/// A block may grow to this many bytes; those of Kubernetes' clients have some hundred.
const LIMIT: usize = 64 * 1024;

/// Names (lower case) and values, in the order of the block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// Headers of these names and values.
    pub fn new(pairs: &[(&str, &str)]) -> Self {
        Self(pairs.iter().map(|(name, value)| (name.to_ascii_lowercase(), (*value).to_owned())).collect())
    }

    /// The value of a header; several come joined by NUL. Case of `name` does not matter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = length(self.0.len());
        for (name, value) in &self.0 {
            for text in [name, value] {
                bytes.extend(length(text.len()));
                bytes.extend_from_slice(text.as_bytes());
            }
        }
        bytes
    }

    fn from_bytes(mut bytes: &[u8]) -> Option<Self> {
        let count = take_number(&mut bytes)?;
        let mut pairs = Vec::new();
        for _ in 0..count {
            let name = take_text(&mut bytes)?.to_ascii_lowercase();
            pairs.push((name, take_text(&mut bytes)?));
        }
        Some(Self(pairs))
    }
}

fn length(length: usize) -> Vec<u8> {
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes().to_vec()
}

fn take_number(bytes: &mut &[u8]) -> Option<usize> {
    let (number, rest) = bytes.split_first_chunk::<4>()?;
    *bytes = rest;
    usize::try_from(u32::from_be_bytes(*number)).ok()
}

fn take_text(bytes: &mut &[u8]) -> Option<String> {
    let length = take_number(bytes)?;
    let (text, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(String::from_utf8_lossy(text).into_owned())
}

/// Reads the blocks of a peer, from the beginning of a connection.
pub struct Inflater(Decompress);

impl Default for Inflater {
    fn default() -> Self {
        Self(Decompress::new(true))
    }
}

impl Inflater {
    /// Reads the next block.
    pub fn read(&mut self, block: &[u8]) -> Result<Headers, SpdyError> {
        let start = self.0.total_in();
        let mut bytes = Vec::with_capacity(1024);
        let mut rest = block;
        loop {
            let before = (self.0.total_in(), bytes.len());
            match self.0.decompress_vec(rest, &mut bytes, FlushDecompress::Sync) {
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(&DICTIONARY).map_err(|_| SpdyError::Compression)?;
                }
                Err(_) => return Err(SpdyError::Compression),
                Ok(_) if before == (self.0.total_in(), bytes.len()) && !rest.is_empty() => {
                    return Err(SpdyError::Compression);
                }
                Ok(_) => {}
            }
            let used = usize::try_from(self.0.total_in() - start).unwrap_or(usize::MAX);
            rest = block.get(used..).unwrap_or_default();
            if bytes.len() > LIMIT {
                return Err(SpdyError::TooLarge("header block"));
            }
            if bytes.len() == bytes.capacity() {
                bytes.reserve(bytes.len());
            } else if rest.is_empty() {
                break;
            }
        }
        Headers::from_bytes(&bytes).ok_or(SpdyError::Malformed("header block"))
    }
}

/// Writes blocks for a peer.
pub struct Deflater(Compress);

impl Deflater {
    /// At the beginning of a connection.
    pub fn new() -> Result<Self, SpdyError> {
        let mut compress = Compress::new(Compression::default(), true);
        compress.set_dictionary(&DICTIONARY).map_err(|_| SpdyError::Compression)?;
        Ok(Self(compress))
    }

    /// Writes the next block.
    pub fn write(&mut self, headers: &Headers) -> Result<Vec<u8>, SpdyError> {
        let plain = headers.to_bytes();
        let start = self.0.total_in();
        let mut block = Vec::with_capacity(plain.len() + 64);
        let mut rest = plain.as_slice();
        loop {
            self.0.compress_vec(rest, &mut block, FlushCompress::Sync).map_err(|_| SpdyError::Compression)?;
            let used = usize::try_from(self.0.total_in() - start).unwrap_or(usize::MAX);
            rest = plain.get(used..).unwrap_or_default();
            if rest.is_empty() && block.len() < block.capacity() {
                return Ok(block);
            }
            block.reserve(block.len());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn blocks_of_one_connection_are_read_in_order() {
        let long = "x".repeat(5000);
        let table = [
            Headers::new(&[("streamType", "error"), ("port", "80"), ("requestID", "0")]),
            Headers::new(&[]),
            Headers::new(&[("streamType", "data"), ("port", "80"), ("requestID", "0")]),
            Headers::new(&[("long", &long)]),
        ];
        let (mut deflater, mut inflater) = (Deflater::new().unwrap(), Inflater::default());
        for headers in table {
            let block = deflater.write(&headers).unwrap();
            assert_eq!(inflater.read(&block).unwrap(), headers);
        }
    }

    #[test]
    fn names_are_found_in_any_case() {
        let headers = Headers::new(&[("StreamType", "stdin")]);
        assert_eq!(headers.get("streamtype"), Some("stdin"));
        assert_eq!(headers.get("streamType"), Some("stdin"));
        assert_eq!(headers.get("port"), None);
    }

    #[test]
    fn broken_and_bursting_blocks_are_refused() {
        assert_eq!(Inflater::default().read(b"no zlib here"), Err(SpdyError::Compression));
        assert_eq!(Inflater::default().read(b""), Err(SpdyError::Malformed("header block")));
        let bomb = Deflater::new().unwrap().write(&Headers::new(&[("a", &"0".repeat(1 << 20))])).unwrap();
        assert!(bomb.len() < 4096);
        assert_eq!(Inflater::default().read(&bomb), Err(SpdyError::TooLarge("header block")));
        assert_eq!(Headers::from_bytes(&[0, 0, 0, 1, 0, 0, 0, 9, b'a']), None);
    }
}
