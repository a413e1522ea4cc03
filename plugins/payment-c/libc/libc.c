// The C library of a plugin: no system beneath it, so nothing is imported. Invariant: blocks lie one behind the other
// from `__heap_base` on, each behind its size; only the last one ever grows in place.

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { PAGE = 64 * 1024, ALIGN = 8 };

extern uint8_t __heap_base;
// Where the next block begins; 0: there is none yet.
static uintptr_t top;

// Memory up to `end` is there.
static void reach(uintptr_t end) {
  const size_t pages = __builtin_wasm_memory_size(0), wanted = (end + PAGE - 1) / PAGE;
  if (wanted > pages && __builtin_wasm_memory_grow(0, wanted - pages) == SIZE_MAX) abort();
}

static uintptr_t aligned(uintptr_t place) { return (place + ALIGN - 1) & ~(uintptr_t)(ALIGN - 1); }

static size_t *size_of(void *block) { return (size_t *)((uint8_t *)block - ALIGN); }

void *malloc(size_t size) {
  if (!top) top = aligned((uintptr_t)&__heap_base);
  // No sum of sizes below goes round.
  if (size > SIZE_MAX / 4 || top > SIZE_MAX / 2) abort();
  void *block = (uint8_t *)top + ALIGN;
  reach((uintptr_t)block + size);
  *size_of(block) = size;
  top = aligned((uintptr_t)block + size);
  return block;
}

void *realloc(void *block, size_t size) {
  if (!block) return malloc(size);
  const size_t old = *size_of(block);
  if (size <= old) return block;
  if (aligned((uintptr_t)block + old) == top) {
    top = (uintptr_t)size_of(block);
    return malloc(size);
  }
  return memcpy(malloc(size), block, old);
}

void free(void *block) { (void)block; }

_Noreturn void abort(void) { __builtin_trap(); }

// One instruction each, with -mbulk-memory.
void *memcpy(void *restrict to, const void *restrict from, size_t count) { return __builtin_memcpy(to, from, count); }

void *memset(void *to, int byte, size_t count) { return __builtin_memset(to, byte, count); }

int memcmp(const void *left, const void *right, size_t count) {
  const uint8_t *l = left, *r = right;
  for (; count; count--, l++, r++)
    if (*l != *r) return *l - *r;
  return 0;
}

size_t strlen(const char *words) {
  const char *end = words;
  while (*end) end++;
  return (size_t)(end - words);
}
