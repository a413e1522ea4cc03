// Text with a length, as the contract passes it. Invariant: it is never changed in place.
#pragma once

#include "bindings/plugin.h"

typedef plugin_string_t text;

// Text that is being written, at its end.
typedef struct {
  uint8_t *ptr;
  size_t len, capacity;
} writing;

text text_of(const char *words);
bool text_is(text left, text right);
bool text_ends(text whole, text end);
// Is it UTF-8?
bool text_is_valid(text bytes);
// Decimal digits with a sign before them or none. False: it is something else, or no 64 bits hold it.
bool text_integer(text digits, int64_t *value);
bool text_natural(text digits, uint64_t *value);

void write_bytes(writing *out, const void *bytes, size_t count);
void write_byte(writing *out, uint8_t byte);
void write_integer(writing *out, int64_t number);
void write_natural(writing *out, uint64_t number);
// Sixteen digits.
void write_hex(writing *out, uint64_t number);
text written(writing out);

// %t text, %s words, %i int64_t, %u uint64_t, %x uint64_t in sixteen hexadecimal digits.
text format(const char *pattern, ...);
