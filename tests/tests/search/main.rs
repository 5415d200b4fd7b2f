//! An opened index under every way of asking: readers, widths, threads, budgets, and queries that make no sense.

mod budget;
mod dense;
mod faults;
mod kinds;
mod many;
mod queries;
mod readers;
mod slack;
mod ways;
