//! Large cells, compressed: what a journal writes costs more than what it computes. Invariant: a cell of either kind is read, or
//! refused by name.
//!
//! One byte that no format of a cell begins with, then blocks: the length of what is in it and its own in four bytes each (little
//! endian), and an LZ4 block (<https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md>), or what is in it as it is where that is
//! no longer.

use std::{
    borrow::Cow,
    io::{self, Write},
};

use super::fault::{Outcome, corrupt};

const PACKED: u8 = b'Z';
/// What is in a block, at most. A batch's body is never whole in memory beside its records.
const BLOCK_MAX: usize = 64 << 10;
const LENGTHS: usize = 8;
/// No block becomes more than so many times its length.
const RATIO_MAX: usize = 255;

/// Writes a cell.
pub(super) struct Packer {
    cell: Vec<u8>,
    block: Vec<u8>,
}

impl Packer {
    /// `format`: the first byte of what is in the cell.
    pub(super) fn new(format: u8) -> Self {
        Self { cell: vec![PACKED], block: vec![format] }
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.end_block();
        self.cell
    }

    fn end_block(&mut self) {
        add_block(&mut self.cell, &self.block);
        self.block.clear();
    }
}

impl Write for Packer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = BLOCK_MAX - self.block.len();
        let taken = bytes.len().min(room);
        self.block.extend_from_slice(&bytes[..taken]);
        if self.block.len() == BLOCK_MAX {
            self.end_block();
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn add_block(cell: &mut Vec<u8>, block: &[u8]) {
    if block.is_empty() {
        return;
    }
    let start = cell.len() + LENGTHS;
    cell.resize(start + lz4_flex::block::get_maximum_output_size(block.len()), 0);
    let packed = lz4_flex::block::compress_into(block, &mut cell[start..]).ok().filter(|packed| *packed < block.len());
    cell.truncate(start + packed.unwrap_or(0));
    if packed.is_none() {
        cell.extend_from_slice(block);
    }
    let lengths = [block.len(), packed.unwrap_or(block.len())];
    for (place, length) in lengths.into_iter().enumerate() {
        let at = start - LENGTHS + 4 * place;
        // A block has at most BLOCK_MAX.
        cell[at..at + 4].copy_from_slice(&(length as u32).to_le_bytes());
    }
}

/// As it is, where that is shorter.
pub(super) fn pack(bytes: &[u8]) -> Cow<'_, [u8]> {
    let mut cell = vec![PACKED];
    bytes.chunks(BLOCK_MAX).for_each(|block| add_block(&mut cell, block));
    if cell.len() < bytes.len() { Cow::Owned(cell) } else { Cow::Borrowed(bytes) }
}

pub(super) fn unpack<'c>(cell: &'c [u8], what: &str) -> Outcome<Cow<'c, [u8]>> {
    let Some((&PACKED, mut rest)) = cell.split_first() else { return Ok(Cow::Borrowed(cell)) };
    let unreadable = |why: &str| corrupt(format!("{what} cannot be read: {why}"));
    let mut bytes = Vec::new();
    while !rest.is_empty() {
        let (length, behind) = rest.split_first_chunk().ok_or_else(|| unreadable("a length is cut off"))?;
        let (packed, behind) = behind.split_first_chunk().ok_or_else(|| unreadable("a length is cut off"))?;
        let (length, packed) = (u32::from_le_bytes(*length) as usize, u32::from_le_bytes(*packed) as usize);
        let (block, behind) = behind.split_at_checked(packed).ok_or_else(|| unreadable("a block is cut off"))?;
        if length < packed || length > BLOCK_MAX || length > packed.saturating_mul(RATIO_MAX) {
            return Err(unreadable(&format!("{packed} bytes cannot have been {length}")));
        }
        if length == packed {
            bytes.extend_from_slice(block);
        } else {
            let block = lz4_flex::block::decompress(block, length).map_err(|error| unreadable(&error.to_string()))?;
            if block.len() != length {
                return Err(unreadable(&format!("{length} bytes are {}", block.len())));
            }
            bytes.extend_from_slice(&block);
        }
        rest = behind;
    }
    Ok(Cow::Owned(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that no compression makes shorter.
    fn noise(length: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        (0..length).map(|_| next()).collect()
    }

    #[test]
    fn a_cell_comes_back_whether_it_was_compressed_or_not() {
        let text = b"\x06order-1 ".repeat(40_000);
        let mixed = [noise(BLOCK_MAX), text.clone()].concat();
        for (cell, shorter) in
            [(vec![], false), (vec![2, 3], false), (noise(2_000), false), (text, true), (mixed, true)]
        {
            let packed = pack(&cell);
            assert_eq!((packed.len() < cell.len(), packed.first() == Some(&PACKED)), (shorter, shorter));
            assert_eq!(unpack(&packed, "a cell").expect("it was written"), cell);
            let mut packer = Packer::new(2);
            cell.chunks(777).for_each(|piece| packer.write_all(piece).expect("memory takes all"));
            assert_eq!(unpack(&packer.finish(), "a cell").expect("it was written"), [&[2], &cell[..]].concat());
        }
    }

    #[test]
    fn a_cell_that_is_cut_or_says_a_wrong_length_is_refused_by_name() {
        let packed = pack(&b"\x06order-1 ".repeat(200)).into_owned();
        for length in 2..packed.len() {
            let error = unpack(&packed[..length], "a saga").expect_err("it is cut");
            assert!(format!("{error:?}").contains("a saga cannot be read"), "{length}: {error:?}");
        }
        for place in [1, 5] {
            for length in [0, 1, 1_799, 1_801, 1 << 20, u32::MAX] {
                let mut wrong = packed.clone();
                wrong[place..place + 4].copy_from_slice(&length.to_le_bytes());
                assert!(unpack(&wrong, "a saga").is_err(), "{place}: {length}");
            }
        }
    }
}
