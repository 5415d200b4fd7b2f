//! roxanne-bench
