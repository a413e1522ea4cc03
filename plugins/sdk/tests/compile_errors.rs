//! What an author reads who has made a mistake: one file each in `mistakes`, and beside it what the compiler says.
//! Invariant: the text points at the author's own line, and says what to write there.
//!
//! After a change that is meant: `TRYBUILD=overwrite cargo test -p sagahost-sdk --test compile_errors`, then read the
//! difference.

#[test]
fn mistakes_are_explained() {
    trybuild::TestCases::new().compile_fail("tests/mistakes/*.rs");
}
