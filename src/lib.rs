//! rill: append-only event storages over plain HTTP, live over Server-Sent Events.

pub mod config;
pub mod event;
pub mod http;
pub mod id;
pub mod message;
pub mod problem;
pub mod route;
pub mod selection;
pub mod store;
