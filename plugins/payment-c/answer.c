// Answers. Invariant: what is not set is the contract's "none".

#include "answer.h"

#include <stdlib.h>

problem problem_of(const char *code, text detail) { return (problem){.code = text_of(code), .detail = detail}; }

emission emission_of(const char *kind, bytes data) { return (emission){.kind = text_of(kind), .data = data}; }

sagahost_plugin_types_list_emission_t emit_one(emission event) {
  emission *list = malloc(sizeof *list);
  *list = event;
  return (sagahost_plugin_types_list_emission_t){list, 1};
}

sagahost_plugin_types_attributes_t note_one(const char *name, text value) {
  plugin_tuple2_string_string_t *list = malloc(sizeof *list);
  *list = (plugin_tuple2_string_string_t){text_of(name), value};
  return (sagahost_plugin_types_attributes_t){list, 1};
}

outcome invalid(problem why) {
  return (outcome){.tag = SAGAHOST_PLUGIN_TYPES_OUTCOME_INVALID, .val.invalid = why};
}

outcome rejected(problem why, emission event, const char *note, text value) {
  return (outcome){
      .tag = SAGAHOST_PLUGIN_TYPES_OUTCOME_REJECTED,
      .val.rejected = {.problem = why, .emit = emit_one(event), .attributes = note_one(note, value)},
  };
}

outcome nothing_done(void) {
  return (outcome){
      .tag = SAGAHOST_PLUGIN_TYPES_OUTCOME_COMPLETED,
      .val.completed =
          {
              .state.tag = SAGAHOST_PLUGIN_TYPES_STATE_CHANGE_KEEP,
              .undo.tag = SAGAHOST_PLUGIN_TYPES_UNDO_NOTHING_TO_UNDO,
              .progress.tag = SAGAHOST_PLUGIN_TYPES_PROGRESS_GOING_ON,
          },
  };
}

undo_outcome nothing_to_undo(void) {
  return (undo_outcome){.tag = SAGAHOST_PLUGIN_TYPES_UNDO_OUTCOME_NOTHING_TO_UNDO};
}

undo_outcome stuck(problem why) {
  return (undo_outcome){.tag = SAGAHOST_PLUGIN_TYPES_UNDO_OUTCOME_STUCK, .val.stuck = why};
}

void warn(text message) {
  plugin_list_tuple2_string_string_t none = {0};
  sagahost_plugin_log_write(SAGAHOST_PLUGIN_LOG_LEVEL_WARN, &message, &none);
}
