//! The programs, as embedded at build time (`build.rs`).

/// The ELF object; aya wants it aligned.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/beeline.o"));

/// The object, unless this build has none.
pub fn embedded() -> Option<&'static [u8]> {
    (!OBJECT.is_empty()).then_some(OBJECT)
}
