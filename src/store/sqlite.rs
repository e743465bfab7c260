//! Owns the SQLite store. Used through the traits of `store`.
