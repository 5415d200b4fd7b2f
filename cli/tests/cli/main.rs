//! The command as a user meets it: what it takes, what it prints, how it ends, and what it leaves behind.

mod asked;
mod bad_input;
mod bases;
mod cgroup;
mod changes;
mod collection;
mod damage;
mod door;
mod eval;
mod foreign;
mod json;
mod killed;
mod nightly;
mod outputs;
mod scale;
mod serving;
mod shell;
mod stopped;
mod usage;
