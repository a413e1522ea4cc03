// JSON objects of text and whole numbers. Invariant: whatever the bytes are, reading them ends in values or in a fault;
// it takes memory and time in proportion to their number, and no stack.
#pragma once

#include "text.h"

typedef enum { JSON_TEXT, JSON_INTEGER, JSON_NATURAL } json_type;

// A field that must be there, once.
typedef struct {
  const char *name;
  json_type type;
  // A `text`, an `int64_t` or an `uint64_t`.
  void *value;
  bool seen;
} json_field;

// What is wrong, as a fragment of a sentence, and where.
typedef struct {
  const char *what;
  // NULL: in no field that is asked for.
  const char *field;
  size_t at;
} json_fault;

// Reads one object; fields that nobody asks for are skipped. What it read may point into `data`.
bool json_read(text data, json_field *fields, size_t count, json_fault *fault);
// "at NAME: …", for people.
text json_explain(json_fault fault);

// Names are written as they are, values escaped.
void json_open(writing *out);
void json_write_text(writing *out, const char *name, text value);
void json_write_integer(writing *out, const char *name, int64_t value);
void json_write_natural(writing *out, const char *name, uint64_t value);
plugin_list_u8_t json_close(writing *out);
