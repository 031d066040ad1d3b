//! The bytes of a bulk stream: numbered blocks, so that bytes that are lost, doubled or moved are found.

use std::io::{self, Read, Write};

/// Bytes of a block: more than the largest segment.
pub const BLOCK: usize = 1 << 18;

/// The block with this number.
fn block(number: u32) -> Vec<u8> {
    let word = number.to_be_bytes();
    let mut block = Vec::with_capacity(BLOCK);
    while block.len() < BLOCK {
        // The position in steps of 1 KiB, over and over: no two steps are alike.
        let step = (block.len() as u32).to_be_bytes();
        block.extend([word, step].concat().repeat(128));
    }
    block
}

/// Writes so many blocks.
pub fn give(to: &mut impl Write, blocks: u32) -> io::Result<()> {
    (0..blocks).try_for_each(|number| to.write_all(&block(number)))
}

/// Reads so many blocks, which must be as they were written.
pub fn take(from: &mut impl Read, blocks: u32) -> io::Result<()> {
    let mut found = vec![0; BLOCK];
    for number in 0..blocks {
        from.read_exact(&mut found)?;
        if found != block(number) {
            return Err(io::Error::other(format!("block {number} is not as it was sent")));
        }
    }
    Ok(())
}
