// The contract's types under short names, and how answers are put together. Invariant: an answer owns nothing that
// would have to be freed.
#pragma once

#include "bindings/plugin.h"
#include "text.h"

typedef sagahost_plugin_types_event_t event;
typedef sagahost_plugin_types_context_t context;
typedef sagahost_plugin_types_step_t step;
typedef sagahost_plugin_types_emission_t emission;
typedef sagahost_plugin_types_problem_t problem;
typedef sagahost_plugin_types_outcome_t outcome;
typedef sagahost_plugin_types_undo_outcome_t undo_outcome;
typedef plugin_list_u8_t bytes;

problem problem_of(const char *code, text detail);
emission emission_of(const char *kind, bytes data);
sagahost_plugin_types_list_emission_t emit_one(emission event);
sagahost_plugin_types_attributes_t note_one(const char *name, text value);

outcome invalid(problem why);
outcome rejected(problem why, emission event, const char *note, text value);
// Done, and nothing came of it.
outcome nothing_done(void);
undo_outcome nothing_to_undo(void);
undo_outcome stuck(problem why);

// A line of level `warn`.
void warn(text message);
