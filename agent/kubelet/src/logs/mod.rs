//! Container logs in the CRI format: `format` is the line, `writer` appends and rotates, `reader` serves
//! `kubectl logs`.

pub mod format;
pub mod reader;
pub mod writer;
