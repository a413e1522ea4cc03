// Takes the money of an order from the customer's balance: the rules of `plugins/payment`, in C. Invariant: over all
// sagas, balances and charges that stand add up to the opening balances; and what one of the two plugins wrote, the
// other can read.

#include "answer.h"
#include "json.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static const char ORDER_CREATED[] = "OrderCreated";

typedef struct {
  text order_id, customer_id, sku, currency;
  int64_t quantity, amount_cents;
} order;

// A charge that stands: this saga's state, and what a refund has to know.
typedef struct {
  text payment_id, customer_id;
  uint64_t amount_cents;
} charge;

// What the operator may set; the defaults are the manifest's.
typedef struct {
  uint64_t limit_cents;
  int64_t opening_balance_cents;
} settings;

static bool read_order(const event *event, order *order, json_fault *fault) {
  json_field fields[] = {
      {"orderId", JSON_TEXT, &order->order_id, false},      {"customerId", JSON_TEXT, &order->customer_id, false},
      {"sku", JSON_TEXT, &order->sku, false},               {"quantity", JSON_INTEGER, &order->quantity, false},
      {"amountCents", JSON_INTEGER, &order->amount_cents, false}, {"currency", JSON_TEXT, &order->currency, false},
  };
  return json_read((text){event->data.ptr, event->data.len}, fields, COUNT(fields), fault);
}

static bool read_charge(bytes data, charge *charge, json_fault *fault) {
  json_field fields[] = {
      {"paymentId", JSON_TEXT, &charge->payment_id, false},
      {"customerId", JSON_TEXT, &charge->customer_id, false},
      {"amountCents", JSON_NATURAL, &charge->amount_cents, false},
  };
  return json_read((text){data.ptr, data.len}, fields, COUNT(fields), fault);
}

static bytes write_charge(const charge *charge) {
  writing out = {0};
  json_open(&out);
  json_write_text(&out, "paymentId", charge->payment_id);
  json_write_text(&out, "customerId", charge->customer_id);
  json_write_natural(&out, "amountCents", charge->amount_cents);
  return json_close(&out);
}

static emission payment_processed(const order *order, text payment_id) {
  writing out = {0};
  json_open(&out);
  json_write_text(&out, "orderId", order->order_id);
  json_write_text(&out, "paymentId", payment_id);
  json_write_text(&out, "sku", order->sku);
  json_write_integer(&out, "quantity", order->quantity);
  json_write_integer(&out, "amountCents", order->amount_cents);
  return emission_of("PaymentProcessed", json_close(&out));
}

static emission payment_failed(const order *order, problem why) {
  writing out = {0};
  json_open(&out);
  json_write_text(&out, "orderId", order->order_id);
  json_write_text(&out, "code", why.code);
  json_write_text(&out, "detail", why.detail);
  return emission_of("PaymentFailed", json_close(&out));
}

static emission payment_refunded(const order *order, text payment_id) {
  writing out = {0};
  json_open(&out);
  json_write_text(&out, "orderId", order->order_id);
  json_write_text(&out, "paymentId", payment_id);
  json_write_integer(&out, "amountCents", order->amount_cents);
  return emission_of("PaymentRefunded", json_close(&out));
}

static bool is_json(text content_type) {
  text essence = {content_type.ptr, 0};
  while (essence.len < content_type.len && content_type.ptr[essence.len] != ';') essence.len++;
  while (essence.len > 0 && essence.ptr[0] == ' ') essence = (text){essence.ptr + 1, essence.len - 1};
  while (essence.len > 0 && essence.ptr[essence.len - 1] == ' ') essence.len--;
  if (essence.len == 0 || text_ends(essence, text_of("+json"))) return true;
  const text json = text_of("application/json");
  if (essence.len != json.len) return false;
  for (size_t i = 0; i < json.len; i++) {
    const uint8_t byte = essence.ptr[i];
    if ((byte >= 'A' && byte <= 'Z' ? byte + 'a' - 'A' : byte) != json.ptr[i]) return false;
  }
  return true;
}

// False: it can never be read, for this reason.
static bool decode(const event *event, order *order, problem *why) {
  json_fault fault;
  if (!is_json(event->content_type)) {
    *why = problem_of("CONTENT_TYPE", format("%s must be JSON, not %t", ORDER_CREATED, event->content_type));
    return false;
  }
  if (read_order(event, order, &fault)) return true;
  *why = problem_of("MALFORMED", format("failed to read %s: %t", ORDER_CREATED, json_explain(fault)));
  return false;
}

static bool setting(const char *key, text *value) {
  text name = text_of(key);
  return sagahost_plugin_config_get(&name, value);
}

static text wrong_setting(const char *key, text value) {
  return format("configuration key `%s`: `%t` is no integer in its range", key, value);
}

static bool read_settings(settings *settings, text *error) {
  static const char LIMIT[] = "limit-cents", OPENING[] = "opening-balance-cents";
  text value;
  settings->limit_cents = 100000;
  settings->opening_balance_cents = 1000000;
  if (setting(LIMIT, &value) && !text_natural(value, &settings->limit_cents)) {
    *error = wrong_setting(LIMIT, value);
    return false;
  }
  if (setting(OPENING, &value) && !text_integer(value, &settings->opening_balance_cents)) {
    *error = wrong_setting(OPENING, value);
    return false;
  }
  return true;
}

// Of this saga; false: it is there and cannot be read.
static bool read_state(const context *context, bool *stands, charge *charge, text *error) {
  json_fault fault;
  *stands = context->state.is_some;
  if (!*stands || read_charge(context->state.val.data, charge, &fault)) return true;
  const uint64_t version = context->state.val.format;
  *error = format("failed to read the state (data format %u): %t", version, json_explain(fault));
  return false;
}

static uint64_t fnv(uint64_t hash, const uint8_t *data, size_t length) {
  for (size_t i = 0; i < length; i++) hash = (hash ^ data[i]) * 0x100000001b3;
  return hash;
}

static uint64_t mix(uint64_t word) {
  word = (word ^ word >> 30) * 0xbf58476d1ce4e5b9;
  word = (word ^ word >> 27) * 0x94d049bb133111eb;
  return word ^ word >> 31;
}

// A new id, the same on every attempt, and the same as `make_id` of the SDK for Rust gives.
static text make_id(const context *context, const char *prefix) {
  const text start = text_of(prefix);
  const bytes seed = context->seed;
  uint64_t word = fnv(0xcbf29ce484222325, start.ptr, start.len), halves[2];
  for (uint64_t index = 0; index < 2; index++) {
    for (size_t at = 0; at < seed.len; at += 8) {
      const size_t left = seed.len - at;
      word = mix(fnv(word, seed.ptr + at, left < 8 ? left : 8) + index);
    }
    halves[index] = word;
  }
  return format("%s-%x%x", prefix, halves[0], halves[1]);
}

static text balance(text customer_id) { return format("balance/%t", customer_id); }

static bool is_currency(text code) {
  if (code.len != 3) return false;
  for (size_t i = 0; i < code.len; i++)
    if (code.ptr[i] < 'A' || code.ptr[i] > 'Z') return false;
  return true;
}

// What can be a counter's name and a note: some text on one line.
static bool is_id(text id) {
  for (size_t i = 0; i < id.len; i++) {
    const uint8_t byte = id.ptr[i];
    const bool control = byte < 0x20 || byte == 0x7f || (byte == 0xc2 && id.ptr[i + 1] < 0xa0);
    if (control) return false;
  }
  return id.len >= 1 && id.len <= 128;
}

// False: no attempt could ever charge it, for this reason.
static bool can_be_charged(const order *order, problem *why) {
  if (!is_currency(order->currency)) {
    *why = problem_of("CURRENCY", format("`%t` is not a currency code such as EUR", order->currency));
  } else if (order->quantity <= 0) {
    *why = problem_of("QUANTITY", format("%i articles cannot be paid for", order->quantity));
  } else if (!is_id(order->customer_id)) {
    *why = problem_of("CUSTOMER", text_of("customerId is empty or no id"));
  } else if (order->amount_cents <= 0) {
    *why = problem_of("AMOUNT", format("%i cents cannot be taken", order->amount_cents));
  } else {
    return true;
  }
  return false;
}

static outcome declined(const order *order, const char *code, text detail) {
  const problem why = problem_of(code, detail);
  return rejected(why, payment_failed(order, why), "customer", order->customer_id);
}

static outcome charged(const order *order, const charge *charge) {
  outcome answer = nothing_done();
  sagahost_plugin_types_completion_t *done = &answer.val.completed;
  done->emit = emit_one(payment_processed(order, charge->payment_id));
  done->attributes = note_one("customer", charge->customer_id);
  done->state.tag = SAGAHOST_PLUGIN_TYPES_STATE_CHANGE_PUT;
  done->state.val.put = write_charge(charge);
  done->undo.tag = SAGAHOST_PLUGIN_TYPES_UNDO_DATA;
  done->undo.val.data = write_charge(charge);
  return answer;
}

static outcome take_money(const order *order, const settings *settings, const context *context) {
  const uint64_t amount = (uint64_t)order->amount_cents;
  if (amount > settings->limit_cents) {
    const text detail = format("%u cents are above the limit of %u", amount, settings->limit_cents);
    return declined(order, "LIMIT_EXCEEDED", detail);
  }
  text counter = balance(order->customer_id);
  sagahost_plugin_counters_ensure(&counter, settings->opening_balance_cents);
  if (!sagahost_plugin_counters_take(&counter, amount)) {
    const text detail = format("the balance of %t does not cover %u cents", order->customer_id, amount);
    return declined(order, "INSUFFICIENT", detail);
  }
  const charge charge = {make_id(context, "payment"), order->customer_id, amount};
  return charged(order, &charge);
}

bool exports_sagahost_plugin_participant_handle_event(event *event, context *context, outcome *answer, text *error) {
  settings settings;
  order order;
  charge standing;
  problem why;
  bool stands;
  if (!text_is(event->kind, text_of(ORDER_CREATED))) {
    const text detail = format("no handler for %t; there are handlers for %s", event->kind, ORDER_CREATED);
    *answer = invalid(problem_of("UNKNOWN_KIND", detail));
    return true;
  }
  if (!read_settings(&settings, error)) return false;
  if (!decode(event, &order, &why)) {
    *answer = invalid(why);
    return true;
  }
  if (!read_state(context, &stands, &standing, error)) return false;
  if (stands) {
    warn(format("it is charged already, with %t", standing.payment_id));
    *answer = nothing_done();
  } else if (!can_be_charged(&order, &why)) {
    *answer = invalid(why);
  } else {
    *answer = take_money(&order, &settings, context);
  }
  return true;
}

static undo_outcome refunded(const order *order, const charge *charge) {
  text counter = balance(charge->customer_id);
  sagahost_plugin_counters_give(&counter, charge->amount_cents);
  return (undo_outcome){
      .tag = SAGAHOST_PLUGIN_TYPES_UNDO_OUTCOME_UNDONE,
      .val.undone =
          {
              .emit = emit_one(payment_refunded(order, charge->payment_id)),
              .state.tag = SAGAHOST_PLUGIN_TYPES_STATE_CHANGE_DELETE,
          },
  };
}

// A step that was done.
static bool refund(const step *step, const context *context, undo_outcome *answer, text *error) {
  const sagahost_plugin_types_saved_t *saved = &step->evidence.val.done;
  charge charge, standing;
  order order;
  json_fault fault;
  problem why;
  bool stands;
  if (!read_charge(saved->data, &charge, &fault)) {
    const uint64_t version = saved->format;
    const text detail = format("failed to read undo data of format %u: %t", version, json_explain(fault));
    *answer = stuck(problem_of("UNREADABLE_UNDO", detail));
    return true;
  }
  if (!decode(&step->event, &order, &why)) {
    *answer = stuck(why);
    return true;
  }
  if (!read_state(context, &stands, &standing, error)) return false;
  // The charge stands as long as this saga's state says so: a second refund finds nothing.
  text closed;
  if (!stands || !text_is(standing.payment_id, charge.payment_id)) {
    *answer = nothing_to_undo();
  } else if (setting("closed-account", &closed) && text_is(closed, charge.customer_id)) {
    *answer = stuck(problem_of("ACCOUNT_CLOSED", format("the account of %t takes no refund", charge.customer_id)));
  } else {
    *answer = refunded(&order, &charge);
  }
  return true;
}

bool exports_sagahost_plugin_participant_compensate(step *step, context *context, undo_outcome *answer, text *error) {
  *answer = nothing_to_undo();
  if (!text_is(step->event.kind, text_of(ORDER_CREATED))) return true;
  switch (step->evidence.tag) {
    case SAGAHOST_PLUGIN_TYPES_EVIDENCE_DONE: return refund(step, context, answer, error);
    case SAGAHOST_PLUGIN_TYPES_EVIDENCE_UNCERTAIN:
      *answer = stuck(problem_of(
          "UNCERTAIN", text_of("the step may or may not have happened, and nothing here finds out")));
      return true;
    default: return true; // It never ran.
  }
}
