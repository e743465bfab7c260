//! Nothing: the microbenchmarks are in `benches`.
