//! Large cells, compressed: what a journal writes costs more than what it computes. Invariant: a cell of either kind is read, or
//! refused by name.
//!
//! One byte that no format of a cell begins with, the length in four bytes (little endian), and an LZ4 block
//! (<https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md>).

use std::borrow::Cow;

use super::fault::{Outcome, corrupt};

const PACKED: u8 = b'Z';
const HEAD: usize = 5;
/// No block becomes more than so many times its length.
const RATIO_MAX: usize = 255;

/// As it is, where that is shorter.
pub(super) fn pack(cell: &[u8]) -> Cow<'_, [u8]> {
    let Ok(length) = u32::try_from(cell.len()) else { return Cow::Borrowed(cell) };
    let mut packed = vec![0; HEAD + lz4_flex::block::get_maximum_output_size(cell.len())];
    packed[0] = PACKED;
    packed[1..HEAD].copy_from_slice(&length.to_le_bytes());
    match lz4_flex::block::compress_into(cell, &mut packed[HEAD..]) {
        Ok(block) if HEAD + block < cell.len() => {
            packed.truncate(HEAD + block);
            Cow::Owned(packed)
        }
        Ok(_) | Err(_) => Cow::Borrowed(cell),
    }
}

pub(super) fn unpack<'c>(cell: &'c [u8], what: &str) -> Outcome<Cow<'c, [u8]>> {
    let Some((&PACKED, rest)) = cell.split_first() else { return Ok(Cow::Borrowed(cell)) };
    let unreadable = |why: &str| corrupt(format!("{what} cannot be read: {why}"));
    let (length, block) = rest.split_first_chunk().ok_or_else(|| unreadable("its length is cut off"))?;
    let length = u32::from_le_bytes(*length) as usize;
    if length > block.len().saturating_mul(RATIO_MAX) {
        return Err(unreadable(&format!("{} bytes cannot have been {length}", block.len())));
    }
    let cell = lz4_flex::block::decompress(block, length).map_err(|error| unreadable(&error.to_string()))?;
    if cell.len() != length {
        return Err(unreadable(&format!("{length} bytes are {}", cell.len())));
    }
    Ok(Cow::Owned(cell))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_comes_back_whether_it_was_compressed_or_not() {
        for (cell, shorter) in [(vec![], false), (vec![2, 3], false), (b"\x06order-1 ".repeat(200), true)] {
            let packed = pack(&cell);
            assert_eq!((packed.len() < cell.len(), packed.first() == Some(&PACKED)), (shorter, shorter));
            assert_eq!(unpack(&packed, "a cell").expect("it was written"), cell);
        }
    }

    #[test]
    fn a_cell_that_is_cut_or_says_a_wrong_length_is_refused_by_name() {
        let packed = pack(&b"\x06order-1 ".repeat(200)).into_owned();
        for length in 1..packed.len() {
            let error = unpack(&packed[..length], "a saga").expect_err("it is cut");
            assert!(format!("{error:?}").contains("a saga cannot be read"), "{length}: {error:?}");
        }
        for length in [0, 1, 1_799, 1_801, 1 << 20, u32::MAX] {
            let mut wrong = packed.clone();
            wrong[1..HEAD].copy_from_slice(&length.to_le_bytes());
            assert!(unpack(&wrong, "a saga").is_err(), "{length}");
        }
    }
}
