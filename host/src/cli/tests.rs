//! Golden outputs and parsing.
