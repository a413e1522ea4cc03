//! Tests of the core as a whole. Invariant: no test sleeps, and none looks into private state where the timeline,
//! the effects or the views say it.
