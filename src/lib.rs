//! rill: append-only event storages over plain HTTP, live over Server-Sent Events.
//!
//! # The map
//!
//! ```text
//! main ─▶ reactor ─▶ hub ─▶ http, route, plan, sse, json, feed, hot, outbox ─▶ selection, event, id, problem
//!   │                 └───▶ index (reads a published copy)
//!   ├──▶ writer ─▶ syncer, store, index (changes the shadow)
//!   └──▶ reader ─▶ store, plan, gather, compare, sse, json
//! ```
//!
//! | module | is |
//! | --- | --- |
//! | `main`, [`cli`], [`logging`] | the process: arguments, threads, log lines, exit code |
//! | [`config`] | every limit, and the relations between them |
//! | [`message`] | everything that threads say to each other |
//! | [`reactor`] | the mio shell: sockets, and the one place where the loop sleeps |
//! | [`hub`] | what the loop decides: bytes, messages and `now` in, effects out |
//! | [`http`] | HTTP/1.1 without I/O: heads, bodies, replies |
//! | [`route`] | `Request → Answer`: what a request asks for, as plain data |
//! | [`sse`] | the layer that answers a selection as a stream, and its encoding |
//! | [`feed`] | the state of one stream: a cursor and a horizon |
//! | [`json`] | the layer that answers a selection as one reply: its encoding |
//! | [`hot`] | storages that are read often, encoded, in memory |
//! | [`outbox`] | what is queued for one connection |
//! | [`filter`] | inverse Bloom filters and sketches: what a client sends to find a difference |
//! | [`index`] | who gets a storage's events: two copies, swapped |
//! | [`plan`] | a read whose cursors were resolved, and what its filters need first |
//! | [`gather`] | the oldest or newest events of many storages, in slices of a scan or of look-ups |
//! | [`compare`] | the answer of `/bloom`, in slices |
//! | [`held`] | a count of what is held across threads |
//! | [`sync`] | what threads share beside channels |
//! | [`writer`], [`reader`] | the threads that use the store: a `step`, and a loop around it |
//! | [`store`] | the log's seam, and the SQLite behind it |
//! | [`selection`], [`event`], [`id`], [`problem`] | the nouns |
//!
//! # What always holds
//!
//! 1. **Durable → visible → acknowledged → delivered.** The writer commits; the syncer sends a commit's
//!    notice once it is synced, together with whatever was committed during the last sync; the hub
//!    raises `visible`, then answers who asked, then queues the events for their feeds. Reads and
//!    feeds are bounded by `visible`.
//! 2. **The loop waits in one place**, `Reactor::sleep`. It touches no disk and no lock. It counts
//!    what it sends to other threads: these credits bound the queues; at a limit the client is
//!    told 503. Of what may hold a reader for long, few requests are with the readers at any time,
//!    so that a first page waits for no more than these.
//! 3. **A feed is a cursor.** Joining, catching up, lagging and resuming are one mechanism: what was
//!    queued, and what is known to exist ([`feed`]). An event is queued for a feed if and only if
//!    everything before it was.
//! 4. **A notice and its index belong together.** The writer publishes the index before it says
//!    `Joined`, and the loop loads it after it took the notices: an event that is noticed after a
//!    feed's `Joined` finds the feed in the index.
//! 5. **A slot is used again only when nobody can mean its former tenant**: after `Left`, and after
//!    the last page that was on its way.
//! 6. **The log is the truth.** A commit writes one table. Everything else is derived from it, trails
//!    it by a mark, and could be made again from it. What is past the mark, writer and readers each
//!    hold in memory; a reader reads every new row of the log once, when it is next asked, so that
//!    nothing need be sent to it. What the hot cache does not hold comes from a reader: there is no
//!    tail of recent events in the loop.
//! 7. **Storages have no numbers.** The store's indexes use 128 bits of SHA-256 over the identifier,
//!    so an append looks no name up, and there is no table of names to keep.
//! 8. **Every limit is in [`config`]** and has an answer that a client can see.

pub mod cli;
pub mod compare;
pub mod config;
pub mod event;
pub mod feed;
pub mod filter;
pub mod gather;
pub mod held;
pub mod hot;
pub mod http;
pub mod hub;
pub mod id;
pub mod index;
pub mod json;
pub mod logging;
pub mod message;
pub mod outbox;
pub mod plan;
pub mod problem;
pub mod reactor;
pub mod reader;
pub mod route;
pub mod selection;
pub mod sse;
pub mod store;
pub mod sync;
pub mod writer;
