// The part of <stdlib.h> that a plugin needs. Invariant: memory lives as long as one call.
#pragma once

#include <stddef.h>

// Traps where the host gives no more memory: no caller has to ask.
void *malloc(size_t size);
void *realloc(void *block, size_t size);
// Does nothing: `free_all` gives everything back.
void free(void *block);
_Noreturn void abort(void);

// Not of the C library: after a call, all that was allocated in it.
void free_all(void);
