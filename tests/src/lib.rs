//! The judge of the whole house: its tests stand in `tests/tests`, one binary a subject.
//!
//! A test that needs one crate lives in that crate; here is what crosses two of them, or looks at the repository itself. Small real
//! vectors stand in `tests/data`.
