// Comparing, reading and writing text. Invariant: nothing is read beyond the length of a text.

#include "text.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

text text_of(const char *words) { return (text){(uint8_t *)words, strlen(words)}; }

bool text_is(text left, text right) { return left.len == right.len && !memcmp(left.ptr, right.ptr, left.len); }

bool text_ends(text whole, text end) {
  return whole.len >= end.len && !memcmp(whole.ptr + whole.len - end.len, end.ptr, end.len);
}

// How many bytes the character that begins here has; 0: it is none.
static size_t character(const uint8_t *at, size_t left) {
  const uint8_t first = at[0];
  if (first < 0x80) return 1;
  const size_t length = first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
  if (!length || length > left) return 0;
  for (size_t i = 1; i < length; i++)
    if ((at[i] & 0xc0) != 0x80) return 0;
  // Longer than needed, a surrogate, beyond the last code point.
  const bool wrong = (first == 0xe0 && at[1] < 0xa0) || (first == 0xed && at[1] > 0x9f) ||
                     (first == 0xf0 && at[1] < 0x90) || (first == 0xf4 && at[1] > 0x8f);
  return wrong ? 0 : length;
}

bool text_is_valid(text bytes) {
  for (size_t at = 0, length; at < bytes.len; at += length) {
    length = character(bytes.ptr + at, bytes.len - at);
    if (!length) return false;
  }
  return true;
}

bool text_natural(text digits, uint64_t *value) {
  *value = 0;
  for (size_t i = 0; i < digits.len; i++) {
    const uint8_t digit = digits.ptr[i] - '0';
    if (digit > 9 || *value > (UINT64_MAX - digit) / 10) return false;
    *value = *value * 10 + digit;
  }
  return digits.len > 0;
}

bool text_integer(text digits, int64_t *value) {
  const bool negative = digits.len > 0 && digits.ptr[0] == '-';
  uint64_t magnitude;
  if (!text_natural((text){digits.ptr + negative, digits.len - negative}, &magnitude)) return false;
  if (magnitude > (uint64_t)INT64_MAX + negative) return false;
  *value = (int64_t)(negative ? 0 - magnitude : magnitude);
  return true;
}

void write_bytes(writing *out, const void *bytes, size_t count) {
  if (count > out->capacity - out->len) {
    out->capacity = out->len + count + out->capacity / 2 + 64;
    out->ptr = realloc(out->ptr, out->capacity);
  }
  memcpy(out->ptr + out->len, bytes, count);
  out->len += count;
}

void write_byte(writing *out, uint8_t byte) { write_bytes(out, &byte, 1); }

void write_natural(writing *out, uint64_t number) {
  uint8_t digits[20];
  size_t at = sizeof digits;
  do {
    digits[--at] = (uint8_t)('0' + number % 10);
    number /= 10;
  } while (number);
  write_bytes(out, digits + at, sizeof digits - at);
}

void write_integer(writing *out, int64_t number) {
  if (number < 0) write_byte(out, '-');
  write_natural(out, number < 0 ? 0 - (uint64_t)number : (uint64_t)number);
}

void write_hex(writing *out, uint64_t number) {
  for (int shift = 60; shift >= 0; shift -= 4) write_byte(out, (uint8_t) "0123456789abcdef"[number >> shift & 15]);
}

text written(writing out) { return (text){out.ptr, out.len}; }

text format(const char *pattern, ...) {
  writing out = {0};
  va_list values;
  va_start(values, pattern);
  for (; *pattern; pattern++) {
    if (*pattern != '%') {
      write_byte(&out, (uint8_t)*pattern);
      continue;
    }
    text word;
    switch (*++pattern) {
      case 't': word = va_arg(values, text); write_bytes(&out, word.ptr, word.len); break;
      case 's': word = text_of(va_arg(values, const char *)); write_bytes(&out, word.ptr, word.len); break;
      case 'i': write_integer(&out, va_arg(values, int64_t)); break;
      case 'u': write_natural(&out, va_arg(values, uint64_t)); break;
      case 'x': write_hex(&out, va_arg(values, uint64_t)); break;
      default: abort();
    }
  }
  va_end(values);
  return written(out);
}
