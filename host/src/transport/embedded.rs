//! Topics as tables of an embedded database.
