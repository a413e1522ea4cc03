// The part of <stdlib.h> that a plugin needs. Invariant: memory lives as long as its instance.
#pragma once

#include <stddef.h>

// Traps where the host gives no more memory: no caller has to ask.
void *malloc(size_t size);
void *realloc(void *block, size_t size);
// Does nothing: each call runs in a fresh instance, and the host throws that away.
void free(void *block);
_Noreturn void abort(void);
