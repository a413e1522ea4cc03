// The reader and the writer. Invariant: `at` never passes `end`, and a reader with a fault reads no further.

#include "json.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
  const uint8_t *start, *at, *end;
  // One bit for each list or object that is open in a value that is skipped: 1 for an object. Made when first needed.
  uint8_t *open;
  json_fault fault;
} reader;

static bool fail(reader *in, const char *what) {
  if (!in->fault.what) {
    in->fault.what = what;
    in->fault.at = (size_t)(in->at - in->start);
  }
  return false;
}

// The next byte that is no white space; 0 at the end (and for a byte 0, which nothing begins with).
static uint8_t token(reader *in) {
  for (; in->at < in->end; in->at++)
    if (*in->at != ' ' && *in->at != '\n' && *in->at != '\t' && *in->at != '\r') return *in->at;
  return 0;
}

static bool take(reader *in, uint8_t wanted, const char *otherwise) {
  if (token(in) != wanted) return fail(in, otherwise);
  in->at++;
  return true;
}

static bool is_digit(const reader *in) { return in->at < in->end && *in->at >= '0' && *in->at <= '9'; }

static bool digits(reader *in) {
  if (!is_digit(in)) return fail(in, "expected a digit");
  while (is_digit(in)) in->at++;
  return true;
}

// Any number; `whole`: it has neither a fraction nor an exponent.
static bool number(reader *in, text *literal, bool *whole) {
  const uint8_t *start = in->at;
  if (*in->at == '-') in->at++;
  if (in->at < in->end && *in->at == '0') {
    in->at++;
  } else if (!digits(in)) {
    return false;
  }
  *literal = (text){(uint8_t *)start, (size_t)(in->at - start)};
  *whole = true;
  if (in->at < in->end && *in->at == '.') {
    *whole = false;
    in->at++;
    if (!digits(in)) return false;
  }
  if (in->at < in->end && (*in->at == 'e' || *in->at == 'E')) {
    *whole = false;
    in->at++;
    if (in->at < in->end && (*in->at == '+' || *in->at == '-')) in->at++;
    if (!digits(in)) return false;
  }
  return true;
}

// The raw inside of a string, between its quotes.
static bool quoted(reader *in, text *raw, bool *escaped) {
  if (!take(in, '"', "expected a string")) return false;
  const uint8_t *start = in->at;
  *escaped = false;
  for (; in->at < in->end && *in->at != '"'; in->at++) {
    if (*in->at < 0x20) return fail(in, "a control character in a string");
    if (*in->at == '\\') {
      *escaped = true;
      if (++in->at == in->end) break;
    }
  }
  if (in->at >= in->end) return fail(in, "a string without an end");
  *raw = (text){(uint8_t *)start, (size_t)(in->at++ - start)};
  return true;
}

// Four hexadecimal digits; -1: they are none.
static int32_t hex4(const uint8_t *at, const uint8_t *end) {
  if (end - at < 4) return -1;
  int32_t value = 0;
  for (int i = 0; i < 4; i++) {
    const uint8_t c = at[i], letter = c | 0x20;
    const int digit = c >= '0' && c <= '9' ? c - '0' : letter >= 'a' && letter <= 'f' ? letter - 'a' + 10 : -1;
    if (digit < 0) return -1;
    value = value * 16 + digit;
  }
  return value;
}

static uint8_t *write_character(uint8_t *to, uint32_t code) {
  if (code < 0x80) {
    *to++ = (uint8_t)code;
  } else if (code < 0x800) {
    *to++ = (uint8_t)(0xc0 | code >> 6);
    *to++ = (uint8_t)(0x80 | (code & 0x3f));
  } else if (code < 0x10000) {
    *to++ = (uint8_t)(0xe0 | code >> 12);
    *to++ = (uint8_t)(0x80 | (code >> 6 & 0x3f));
    *to++ = (uint8_t)(0x80 | (code & 0x3f));
  } else {
    *to++ = (uint8_t)(0xf0 | code >> 18);
    *to++ = (uint8_t)(0x80 | (code >> 12 & 0x3f));
    *to++ = (uint8_t)(0x80 | (code >> 6 & 0x3f));
    *to++ = (uint8_t)(0x80 | (code & 0x3f));
  }
  return to;
}

// The character behind `\u`: one escape, or a pair of surrogates. False: half a pair.
static bool code_point(const uint8_t **at, const uint8_t *end, uint32_t *code) {
  const int32_t first = hex4(*at, end);
  if (first < 0 || (first >= 0xdc00 && first <= 0xdfff)) return false;
  *at += 4;
  *code = (uint32_t)first;
  if (first < 0xd800 || first > 0xdbff) return true;
  if (end - *at < 6 || (*at)[0] != '\\' || (*at)[1] != 'u') return false;
  const int32_t second = hex4(*at + 2, end);
  if (second < 0xdc00 || second > 0xdfff) return false;
  *at += 6;
  *code = 0x10000 + ((uint32_t)first - 0xd800) * 0x400 + ((uint32_t)second - 0xdc00);
  return true;
}

// What one letter behind `\` stands for; 0: nothing, or `u`.
static uint8_t simple_escape(uint8_t letter) {
  switch (letter) {
    case '"': case '\\': case '/': return letter;
    case 'b': return '\b';
    case 'f': return '\f';
    case 'n': return '\n';
    case 'r': return '\r';
    case 't': return '\t';
    default: return 0;
  }
}

// Escapes never become longer than they were.
static bool unescape(reader *in, text raw, text *value) {
  uint8_t *to = malloc(raw.len);
  value->ptr = to;
  const uint8_t *at = raw.ptr, *end = raw.ptr + raw.len;
  while (at < end) {
    if (*at != '\\') {
      *to++ = *at++;
      continue;
    }
    const uint8_t letter = at[1], simple = simple_escape(letter);
    at += 2;
    uint32_t code = simple;
    if (!simple && (letter != 'u' || !code_point(&at, end, &code))) return fail(in, "a wrong escape in a string");
    to = write_character(to, code);
  }
  value->len = (size_t)(to - value->ptr);
  return true;
}

static bool string(reader *in, text *value) {
  bool escaped;
  if (!quoted(in, value, &escaped)) return false;
  if (escaped && !unescape(in, *value, value)) return false;
  return text_is_valid(*value) || fail(in, "a string that is no UTF-8");
}

// Of what nobody reads only the end must be found; half a pair of surrogates passes.
static bool skip_string(reader *in) {
  text raw;
  bool escaped;
  if (!quoted(in, &raw, &escaped)) return false;
  const uint8_t *at = raw.ptr, *end = raw.ptr + raw.len;
  while (escaped && at < end) {
    if (*at++ != '\\') continue;
    const uint8_t letter = *at++;
    if (letter == 'u' ? hex4(at, end) < 0 : !simple_escape(letter)) return fail(in, "a wrong escape in a string");
  }
  return true;
}

static bool word(reader *in, const char *wanted) {
  const size_t length = strlen(wanted);
  if ((size_t)(in->end - in->at) < length || memcmp(in->at, wanted, length)) return fail(in, "expected a value");
  in->at += length;
  return true;
}

static bool skip_scalar(reader *in) {
  text literal;
  bool whole;
  switch (token(in)) {
    case 'n': return word(in, "null");
    case 't': return word(in, "true");
    case 'f': return word(in, "false");
    case '"': return skip_string(in);
    case '-': case '0': case '1': case '2': case '3': case '4': case '5': case '6': case '7': case '8': case '9':
      return number(in, &literal, &whole);
    default: return fail(in, "expected a value");
  }
}

static void push(reader *in, size_t depth, bool object) {
  // Each level takes one byte of the data at least.
  if (!in->open) in->open = malloc((size_t)(in->end - in->start) / 8 + 1);
  const uint8_t bit = (uint8_t)(1 << depth % 8);
  in->open[depth / 8] = (uint8_t)(object ? in->open[depth / 8] | bit : in->open[depth / 8] & ~bit);
}

static bool is_object(const reader *in, size_t depth) { return in->open[depth / 8] >> depth % 8 & 1; }

static bool skip_key(reader *in) { return skip_string(in) && take(in, ':', "expected `:`"); }

// Any value, however deep.
static bool skip_value(reader *in) {
  size_t depth = 0;
  do {
    const uint8_t first = token(in);
    bool ended = true;
    if (first == '[' || first == '{') {
      in->at++;
      push(in, depth++, first == '{');
      ended = token(in) == (first == '{' ? '}' : ']');
      if (!ended && first == '{' && !skip_key(in)) return false;
    } else if (!skip_scalar(in)) {
      return false;
    }
    // Close what ends here; behind a comma the next value begins.
    while (ended && depth > 0) {
      const bool object = is_object(in, depth - 1);
      if (token(in) == ',') {
        in->at++;
        if (object && !skip_key(in)) return false;
        ended = false;
      } else {
        if (!take(in, object ? '}' : ']', "expected `,` or an end")) return false;
        depth--;
      }
    }
  } while (depth > 0);
  return true;
}

static bool integer(reader *in, const json_field *field) {
  const uint8_t first = token(in);
  text literal;
  bool whole;
  if (first != '-' && (first < '0' || first > '9')) return fail(in, "expected a whole number");
  if (!number(in, &literal, &whole)) return false;
  // JSON has a negative zero, integers have none.
  if (!whole || text_is(literal, text_of("-0"))) return fail(in, "expected a whole number");
  const bool fits =
      field->type == JSON_INTEGER ? text_integer(literal, field->value) : text_natural(literal, field->value);
  return fits || fail(in, "the number is out of range");
}

static bool member(reader *in, json_field *fields, size_t count) {
  text name;
  if (!string(in, &name) || !take(in, ':', "expected `:`")) return false;
  for (size_t i = 0; i < count; i++) {
    json_field *field = &fields[i];
    if (!text_is(name, text_of(field->name))) continue;
    in->fault.field = field->name;
    if (field->seen) return fail(in, "it is there twice");
    field->seen = true;
    if (!(field->type == JSON_TEXT ? string(in, field->value) : integer(in, field))) return false;
    in->fault.field = NULL;
    return true;
  }
  return skip_value(in);
}

static bool members(reader *in, json_field *fields, size_t count) {
  if (!take(in, '{', "expected an object")) return false;
  if (token(in) != '}') {
    do {
      if (!member(in, fields, count)) return false;
    } while (token(in) == ',' && in->at++);
  }
  return take(in, '}', "expected `,` or `}`");
}

bool json_read(text data, json_field *fields, size_t count, json_fault *fault) {
  reader in = {.start = data.ptr, .at = data.ptr, .end = data.ptr + data.len};
  bool right = members(&in, fields, count);
  if (right && (token(&in) || in.at < in.end)) right = fail(&in, "more text behind the object");
  for (size_t i = 0; right && i < count; i++) {
    if (fields[i].seen) continue;
    in.fault.field = fields[i].name;
    right = fail(&in, "it is missing");
  }
  *fault = in.fault;
  return right;
}

text json_explain(json_fault fault) {
  if (!fault.field) return format("%s (byte %u)", fault.what, (uint64_t)fault.at);
  return format("at %s: %s (byte %u)", fault.field, fault.what, (uint64_t)fault.at);
}

static void write_name(writing *out, const char *name) {
  if (out->ptr[out->len - 1] != '{') write_byte(out, ',');
  write_byte(out, '"');
  write_bytes(out, name, strlen(name));
  write_bytes(out, "\":", 2);
}

static void escaped(writing *out, uint8_t byte) {
  static const char letters[] = {['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r'};
  write_byte(out, '\\');
  if (byte == '"' || byte == '\\') {
    write_byte(out, byte);
  } else if (byte < sizeof letters && letters[byte]) {
    write_byte(out, (uint8_t)letters[byte]);
  } else {
    write_bytes(out, "u00", 3);
    write_byte(out, (uint8_t)('0' + (byte >> 4)));
    write_byte(out, (uint8_t) "0123456789abcdef"[byte & 15]);
  }
}

void json_open(writing *out) { write_byte(out, '{'); }

void json_write_text(writing *out, const char *field, text value) {
  write_name(out, field);
  write_byte(out, '"');
  size_t plain = 0;
  for (size_t i = 0; i < value.len; i++) {
    const uint8_t byte = value.ptr[i];
    if (byte >= 0x20 && byte != '"' && byte != '\\') continue;
    write_bytes(out, value.ptr + plain, i - plain);
    escaped(out, byte);
    plain = i + 1;
  }
  write_bytes(out, value.ptr + plain, value.len - plain);
  write_byte(out, '"');
}

void json_write_integer(writing *out, const char *field, int64_t value) {
  write_name(out, field);
  write_integer(out, value);
}

void json_write_natural(writing *out, const char *field, uint64_t value) {
  write_name(out, field);
  write_natural(out, value);
}

plugin_list_u8_t json_close(writing *out) {
  write_byte(out, '}');
  return (plugin_list_u8_t){out->ptr, out->len};
}
