//! The guest's allocator: a static arena first, then the system's. Invariant: the arena only ever grows; the instance
//! is thrown away after the call, and with it everything.

#![expect(unsafe_code, reason = "an allocator hands out raw memory; there is no safe interface for it")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::{Cell, UnsafeCell},
    ptr,
};

/// Most calls fit, and none of its pages costs a `memory.grow`.
const BYTES: usize = 48 * 1024;

pub struct Arena {
    memory: UnsafeCell<[u8; BYTES]>,
    used: Cell<usize>,
}

// SAFETY: a guest has one thread.
unsafe impl Sync for Arena {}

#[global_allocator]
static ARENA: Arena = Arena { memory: UnsafeCell::new([0; BYTES]), used: Cell::new(0) };

impl Arena {
    fn start(&self) -> usize {
        self.memory.get() as usize
    }

    fn owns(&self, pointer: *mut u8) -> bool {
        (pointer as usize).wrapping_sub(self.start()) < BYTES
    }

    /// The end of what is used once `size` bytes lie at `offset`, where they fit.
    fn end(offset: usize, size: usize) -> Option<usize> {
        offset.checked_add(size).filter(|end| *end <= BYTES)
    }
}

// SAFETY: offsets only grow, so no two live allocations overlap; alignment is that of the layout; whatever is not in
// the arena came from `System` and goes back to it.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let free = self.start() + self.used.get();
        let offset = free.next_multiple_of(layout.align()) - self.start();
        match Self::end(offset, layout.size()) {
            Some(end) => {
                self.used.set(end);
                // SAFETY: `offset` lies within the arena.
                unsafe { self.memory.get().cast::<u8>().add(offset) }
            }
            // SAFETY: the caller keeps `alloc`'s contract.
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if !self.owns(pointer) {
            // SAFETY: it came from `System`.
            unsafe { System.dealloc(pointer, layout) }
        }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !self.owns(pointer) {
            // SAFETY: it came from `System`.
            return unsafe { System.realloc(pointer, layout, size) };
        }
        let offset = pointer as usize - self.start();
        let is_last = offset + layout.size() == self.used.get();
        if size <= layout.size() {
            return pointer;
        }
        if let (true, Some(end)) = (is_last, Self::end(offset, size)) {
            self.used.set(end);
            return pointer;
        }
        // SAFETY: the caller vouches for `size`; the old block is live and smaller than the new one.
        unsafe {
            let moved = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !moved.is_null() {
                ptr::copy_nonoverlapping(pointer, moved, layout.size());
            }
            moved
        }
    }
}
