//! Owns every limit, named, with the relations between them, and the settings a person may change.
//! Read by everything; decides nothing. Sizes are bytes, times milliseconds, unless a name says more.

use std::net::SocketAddr;
use std::path::PathBuf;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

// --- What a client may send -------------------------------------------------------------------

/// A storage identifier, in UTF-8.
pub const ID_BYTES_MAX: usize = 512;
/// The request target; longer is a 414.
pub const TARGET_BYTES_MAX: usize = 64 * KIB;
/// Request line and header fields together; longer is a 431. Trailers have the same limit.
pub const HEAD_BYTES_MAX: usize = 80 * KIB;
/// Header fields of one request; more are a 431.
pub const HEADERS_MAX: usize = 128;
/// So many are looked for first.
pub const HEADERS_FEW: usize = 16;
/// A request body; longer is a 413.
pub const BODY_BYTES_MAX: usize = 16 * MIB;
/// One value; longer is a 413.
pub const VALUE_BYTES_MAX: usize = MIB;
/// Values of one append; more are a 400.
pub const VALUES_MAX: usize = 10_000;
/// Values in one JSON document, those that mean nothing too; more are a 400. Each takes a reader up to
/// 0.1 µs.
pub const DOCUMENT_VALUES_MAX: usize = 100_000;
/// Storages of one selection; more are a 400.
pub const SELECTION_STORAGES_MAX: usize = 10_000;
/// Filters of one selection; more are a 400.
pub const SELECTION_FILTERS_MAX: usize = 64;
/// Items of one comparison; more are a 400.
pub const COMPARE_ITEMS_MAX: usize = 64;
/// `limit` and `last`.
pub const WINDOW_EVENTS_MAX: u32 = 10_000;
/// Events that an inverse Bloom filter may be made for, by a client or by the server.
pub const FILTER_EVENTS_MAX: u64 = 1_048_576;
/// Cells of one sketch.
pub const SKETCH_CELLS_MAX: u32 = 32_768;
/// `synced` lists the counts of the storages up to so many.
pub const SYNCED_ITEMS_MAX: usize = 100;
/// Request bodies, and filters, in memory together, whatever they wait for; beyond it a request is a
/// 503.
pub const BODIES_BYTES_MAX: usize = 128 * MIB;
/// The same where the one at hand is not small: a few connections that send large bodies, and never
/// end them, leave room for everybody's small ones.
pub const BODIES_BYTES_LARGE_MAX: usize = 96 * MIB;
/// A body up to this is small.
pub const BODY_SMALL_BYTES: usize = 64 * KIB;
/// Heads that are not whole or whose requests are not answered, and requests behind others of their
/// connections, in memory together: beyond it a head is a 503, and what follows a request is not read
/// before that was answered.
pub const INPUTS_BYTES_MAX: usize = 64 * MIB;
/// A whole head up to this counts as part of its connection.
pub const HEAD_SMALL_BYTES: usize = 2 * KIB;
/// What a storage of a selection takes besides its name: in the plan, in both copies of the index.
pub const SELECTED_STORAGE_BYTES: usize = 256;
/// A selection up to this counts as part of its connection.
pub const SELECTION_SMALL_BYTES: usize = 2 * KIB;
/// Larger selections in memory together, of streams for as long as those last; beyond it a request
/// is a 503, and a stream sent away.
pub const SELECTIONS_BYTES_MAX: usize = 256 * MIB;
/// Bodies above this are parsed and hashed by a reader thread: 32 KiB take the loop 0.1 ms, or 0.7 of
/// the smallest values.
pub const PARSE_ON_LOOP_BYTES_MAX: usize = 32 * KIB;

// --- Connections ------------------------------------------------------------------------------

/// Bytes read from a connection, and written to it, in one turn of the loop.
pub const TURN_BYTES_MAX: usize = 64 * KIB;
/// Requests of one connection that are begun in one turn: those that it sent with them wait for the
/// next, or a few connections that pipeline would keep the loop from all others.
pub const TURN_REQUESTS_MAX: usize = 8;
/// Connections that are read from before any of them is answered, and between two looks at what was
/// answered.
pub const TURN_READS_TOGETHER: usize = 16;
/// Connections that go on so in one turn, or that filled a read of this size and are read from again:
/// after all that have sent something small.
pub const TURN_RESUMES_MAX: usize = 8;
pub const SMALL_READ_BYTES: usize = 16 * KIB;
/// What comes for all that are read from together; only what is written to takes memory.
pub const READ_BUFFER_BYTES: usize = (TURN_READS_TOGETHER - 1) * SMALL_READ_BYTES + TURN_BYTES_MAX;
/// Streams written to in one turn, and replies; the rest of a broadcast waits for the next.
pub const TURN_FLUSHES_MAX: usize = 256;
/// Streams written to in one turn where little was read. With 64, small reads beside a broadcast wait
/// a third longer; with 16, the polls between take up to a tenth of the broadcast's time.
pub const TURN_DELIVERIES_MIN: usize = 32;
/// Connections taken beyond the limit, only to be told so in HTTP; further ones are just closed.
pub const CONNECTIONS_OVERFLOW: usize = 128;
/// Connections accepted in one turn.
pub const TURN_ACCEPTS_MAX: usize = 128;
/// After the process or the system ran out of descriptors, accepting is tried again this later.
pub const ACCEPT_RETRY: u64 = 100;
/// `--listen` may be given so often.
pub const LISTENERS_MAX: usize = 64;
/// Connections that the kernel keeps until they are accepted.
pub const LISTEN_BACKLOG: i32 = 4_096;
/// Descriptors kept back from connections: the database, its log, the poll, the listeners.
pub const RESERVED_DESCRIPTORS: usize = 64;
/// Effects of the hub that keep their room once they were carried out.
pub const EFFECTS_KEPT: usize = 256;
/// Buffers of replies that were sent that keep their room, and the largest that does.
pub const BUFFERS_KEPT: usize = 128;
pub const BUFFER_KEPT_BYTES_MAX: usize = 2 * KIB;
/// Pieces smaller than this are copied together and sent as one: a vectored write of small pieces
/// costs the kernel more than the copy.
pub const GATHERED_BYTES: usize = 16 * KIB;
/// What may be queued for one connection, unless a single frame is larger than that.
pub const OUTBOX_BYTES_MAX: usize = 256 * KIB;
/// What is queued for all connections together, what several get once. Beyond it those that hold
/// the most are closed.
pub const OUTBOXES_BYTES_MAX: usize = 256 * MIB;
/// Events of one append go to their subscribers in frames of this size, unless one event is larger:
/// each frame costs every subscriber a step of the loop.
pub const FRAME_BYTES: usize = 16 * KIB;
/// What a reader encodes in one page, unless one event is larger than that: of twice as much the
/// allocator gives the memory back to the system each time, and it is out of the processor's cache.
pub const PAGE_BYTES: usize = 64 * KIB;
/// The same of a stream's page of a large selection, whose events cost much to look for: with three
/// quarters of this a history of 1,000 storages takes a tenth more time.
pub const GATHERED_PAGE_BYTES: usize = 128 * KIB;
/// First pages that are made in one view of the log, unless they come to the bytes of one before.
pub const VIEW_PAGES_MAX: usize = 16;
/// Events of a page whose values are looked up by one query. The last of them may be found in vain, as the
/// page is full before.
pub const VALUES_TOGETHER: usize = 128;
/// Hashes that are put to a filter in one slice of a reader's work: about 3 ms.
pub const SCAN_EVENTS: usize = 16_384;
/// Comparisons and preparations of filtered reads under way; beyond it a request is a 503.
pub const SCANS_MAX: usize = 64;
/// The server's own filter is left out of an answer where it would be larger, before base64.
pub const OWN_FILTER_BYTES_MAX: u64 = MIB as u64;
/// What the hashes for it take meanwhile: 32 bytes each, for 6.3 of the filter.
pub const OWN_FILTER_HASHES_BYTES_MAX: usize = 6 * MIB;
/// The hot cache, and what one storage may take of it.
pub const HOT_BYTES_MAX: usize = 16 * MIB;
pub const HOT_ENTRY_BYTES_MAX: usize = 64 * KIB;
/// A reply is made from the hot cache for so many storages at most, and so large.
pub const HOT_ITEMS_MAX: usize = 64;
pub const HOT_REPLY_BYTES_MAX: usize = 128 * KIB;
/// Storages of which one page is made at most: each costs look-ups, however few events it has. A
/// selection of more is a large one.
pub const PAGE_ITEMS_MAX: usize = 100;
/// Storages of a large selection that are looked at in one slice of a reader's work.
pub const GATHERED_STORAGES: usize = 128;
/// Events of the log that are looked at in one slice instead; and that can be in the time that it
/// takes to look one storage up: 2.4 µs over eight segments.
pub const SCANNED_EVENTS: usize = 4_096;
pub const LOOK_UP_EVENTS: usize = 3;
/// Events that are looked for for a stream's page of a large selection: about as many as it holds.
pub const GATHERED_EVENTS_MAX: usize = 1_024;
/// What an event takes while its page, or the window it begins or ends, is being looked for.
const GATHERED_EVENT_BYTES: usize = 16;
/// A further page is asked for once no more than this is queued: while the last one is written.
pub const OUTBOX_LOW_BYTES: usize = 96 * KIB;

pub const HEAD_TIMEOUT: u64 = 10_000;
pub const BODY_STALL_TIMEOUT: u64 = 10_000;
pub const KEEP_ALIVE_TIMEOUT: u64 = 75_000;
/// An outbox that makes no progress for so long closes its connection (TCP_USER_TIMEOUT too).
pub const WRITE_STALL_TIMEOUT: u64 = 60_000;
/// A closing connection reads what the peer still sends for so long, so that no RST eats the reply.
pub const LINGER_TIMEOUT: u64 = 2_000;
/// Silence on a stream after which a comment is sent.
pub const COMMENT_INTERVAL: u64 = 15_000;
/// The writer must answer a health check within this.
pub const HEALTH_TIMEOUT: u64 = 2_000;
/// From the first signal to the exit, whatever clients do.
pub const STOP_TIMEOUT: u64 = 5_000;

/// `retry:` of a stream that is served, of one that is sent away, and the spread of the latter.
pub const RETRY: u64 = 2_000;
pub const RETRY_AWAY: u64 = 3_000;
pub const RETRY_AWAY_JITTER: u64 = 7_000;
/// `Retry-After` of a 503, in seconds.
pub const RETRY_AFTER_SECONDS: u64 = 2;

/// What a connection takes of itself, its stream and its small selection with it.
pub const CONNECTION_BYTES: usize = 8 * KIB;

// --- Queues between threads -------------------------------------------------------------------

/// Appends with the writer; beyond it a request is a 503.
pub const APPENDS_IN_FLIGHT_MAX: usize = 16_384;
/// Subscriptions and their ends with the writer; further ones wait, at most two a feed.
pub const SUBSCRIPTIONS_IN_FLIGHT_MAX: usize = 4_096;
/// Streams that ended and that the writer or a reader was asked for meanwhile. With more, a new
/// stream is sent away, or clients that come and go would fill the queues behind a slow disk.
pub const STREAMS_LEAVING_MAX: usize = 16_384;
/// Health checks with the writer.
pub const PINGS_IN_FLIGHT_MAX: usize = 64;
/// First pages with the readers; further ones wait.
pub const READS_IN_FLIGHT_MAX: usize = 1_024;
/// Of what may take long, the requests with the readers, for each of them: further pages, slices of
/// scans, bodies. Others wait, and a first page waits for no more than these.
pub const FURTHER_READS_IN_FLIGHT_MAX: usize = 2;
/// Requests of a kind that the hub keeps because the readers have enough; beyond it a request is a
/// 503, and pages of what was begun wait.
pub const READS_WAITING_MAX: usize = 16_384;
/// Notices from the writer that the loop has not taken; a full queue holds the writer.
pub const NOTICES_MAX: usize = 1_024;
/// Notices, and answers of the readers, taken in one turn.
pub const TURN_MESSAGES_MAX: usize = 256;
/// Bytes in answers of the readers after which the others wait for the next turn.
pub const TURN_ANSWERS_BYTES: usize = 512 * KIB;
/// Answers of the readers that the loop has not taken; a full queue holds the readers.
pub const ANSWERS_MAX: usize = 16;
/// Log lines that the log thread has not written; further ones are counted and dropped.
pub const LOG_LINES_MAX: usize = 1_024;

/// What a message between threads takes besides what it carries.
pub const MESSAGE_BYTES: usize = 512;

// --- The writer and the store -----------------------------------------------------------------

/// Appends, and bytes of values, that one transaction takes beside large ones.
pub const COMMIT_APPENDS_MAX: usize = 1_024;
pub const COMMIT_BYTES_MAX: usize = 16 * MIB;
/// So few values the writer syncs by itself where nothing else waits: to hand them over is two changes of
/// threads, which few do not share.
pub const SYNC_FEW: usize = 32;
/// Transactions that wait to be synced, together; the writer waits beyond it, and what it then takes is
/// one transaction.
pub const UNSYNCED_MAX: usize = 4;
/// Where syncs take so many milliseconds, each waits for appends that are on their way round, for this
/// part of what it takes; how many that are, and what it takes, is noted for so many syncs.
pub const SYNC_LONG: u64 = 1;
pub const SYNC_PATIENCE_PART: u32 = 16;
pub const PACE_SYNCS: u32 = 16;
/// Values that one transaction takes, but for the last append's.
pub const COMMIT_VALUES_MAX: usize = 65_536;
/// Values of it that are looked up together, but for the last append's, and what that takes for each.
pub const LOOKED_UP_VALUES: usize = 1_024;
pub const LOOKED_UP_VALUE_BYTES: usize = 104;
/// Appends that hold more than this wait for others, and the share of them that is added to one
/// transaction, unless a single one is larger: 10,000 values are looked up and stored in 30 ms.
pub const APPEND_SMALL_BYTES: usize = 64 * KIB;
pub const COMMIT_LARGE_BYTES: usize = MIB;
/// How long the writer waits until it looks again whether an index change can be published, and whether
/// what it committed was told.
pub const WRITER_RETRY: u64 = 1;
/// Storages that subscriptions are changed for before appends are looked at again, unless one stream
/// has more of them.
pub const PUBLISH_STORAGES: usize = 2_048;
/// The log is indexed this many events at a time. A reader that has not read for a while first
/// reads what no index holds from the log, a microsecond each: up to half as many more under single
/// appends, and four times as many in all under batches of a hundred values.
pub const FOLD_EVENTS: usize = 4_096;
/// Events past the indexes that a commit may find; above it, it folds before it appends.
pub const UNFOLDED_EVENTS_MAX: usize = 32 * FOLD_EVENTS;
/// What such an event takes in the memory of each thread that finds it there.
pub const UNFOLDED_EVENT_BYTES: usize = 192;
/// Appended events whose share of the indexing is done at once while the writer has nothing to append.
pub const INDEX_AHEAD_EVENTS: usize = 64;
/// So many for whom it was not done then: the next commit does it.
pub const INDEX_SHARE_EVENTS: usize = 256;
/// Between commits the log is indexed from so many events on: fewer are not worth a segment.
pub const IDLE_FOLD_EVENTS: usize = 1_024;
/// So many segments of the indexes are merged into one, up to a size.
pub const SEGMENT_FAN_OUT: usize = 8;
pub const SEGMENT_EVENTS_MAX: usize = 1 << 26;
/// At rest the newest segments are merged with the one before them once they hold as many events as that, up
/// to so many in all: a look-up is one in each segment. An event is in no more than ten such merges, and a
/// whole one takes some seconds.
pub const REST_MERGE_EVENTS_MAX: usize = 1 << 20;
/// After a commit was synced there is no slice of upkeep for so long: between appends that follow each other
/// closely it would hold up the next, and would make many small segments where the appends' own shares,
/// which are smaller, make few.
pub const UPKEEP_IDLE: u64 = 10;
/// After so long without a commit the newest segments are merged ahead of their time.
pub const UPKEEP_REST: u64 = 100;
/// Events of one slice of indexing between commits; a fold or a merge passes each event twice.
pub const UPKEEP_SLICE_UNITS: usize = 4_096;
/// Of the filters over the values of segments, in the writer's memory. One of 12 bits claims one new value
/// in 185, one of 16 one in 760, and what is claimed is looked up in vain, in each of some twenty.
pub const FILTER_BITS_PER_EVENT: usize = 16;
/// All of them together. The largest segments go without beyond it, and a look-up for a new value in
/// one then reads the disk.
pub const FILTERS_BYTES_MAX: usize = 256 * MIB;
/// Above the soft limit the checkpointer copies the write-ahead log and the writer restarts it, beside
/// which some appends wait for the disk; above the hard one all wait for that.
pub const WAL_BYTES_SOFT: usize = 64 * MIB;
pub const WAL_BYTES_HARD: usize = 512 * MIB;
/// What was committed while the checkpointer ran is copied by the writer as it restarts the log, in
/// some milliseconds; where it is more than this the checkpointer runs again, but so often at most.
pub const WAL_REST_BYTES: usize = 512 * KIB;
pub const CHECKPOINT_RUNS_MAX: u32 = 4;
/// What was copied is written to the disk in parts of so much before it is synced, as a sync of the log
/// would have to wait for all of it.
pub const WRITE_BACK_BYTES: usize = 256 * KIB;
/// The log's file is this long at first, and twice as long whenever a third of it is used, up to an
/// eighth more than the soft limit: a commit that makes it longer by itself takes twice as long to sync.
/// It is made longer by parts of so much, each of which a sync may have to wait for, and not where the
/// disk would have less room left than this.
pub const WAL_FILE_BYTES_MIN: usize = 256 * KIB;
pub const WAL_FILE_PART_BYTES: usize = 128 * KIB;
pub const WAL_SPARE_BYTES: usize = 256 * MIB;
/// Requests that wait for the checkpointer: one to copy the log, and one to make its file longer.
pub const CHECKPOINTER_REQUESTS_MAX: usize = 2;
/// SQLite's page caches: the writer's, and that of each other connection. Readers are no faster with
/// more, neither a history's nor those of 100,000 storages: what they read the system has, too.
pub const WRITER_PAGE_CACHE_BYTES: usize = 6 * MIB;
pub const PAGE_CACHE_BYTES: usize = 2 * MIB;

const _: () = {
    assert!(TARGET_BYTES_MAX < HEAD_BYTES_MAX, "a longest target fits into a head");
    assert!(HEADERS_FEW < HEADERS_MAX, "few are not all");
    assert!(BODY_BYTES_MAX <= BODIES_BYTES_LARGE_MAX, "the largest body may be taken");
    assert!(BODIES_BYTES_LARGE_MAX < BODIES_BYTES_MAX, "large bodies leave room for small ones");
    assert!(VALUE_BYTES_MAX < BODY_BYTES_MAX, "the largest value fits into a body");
    assert!(SMALL_READ_BYTES < TURN_BYTES_MAX, "what follows a small read is read in larger ones");
    assert!(
        VIEW_PAGES_MAX <= ANSWERS_MAX,
        "a view does not wait for the loop, but for its own pages"
    );
    assert!(
        PAGE_BYTES < OUTBOX_LOW_BYTES,
        "a page, which is a little more, and the next are queued"
    );
    assert!(PAGE_BYTES <= GATHERED_PAGE_BYTES, "what costs much to look for is worth a large page");
    assert!(
        OUTBOX_LOW_BYTES + GATHERED_PAGE_BYTES <= OUTBOX_BYTES_MAX,
        "a page fits when it is asked for"
    );
    assert!(HOT_REPLY_BYTES_MAX <= OUTBOX_BYTES_MAX, "a reply from the hot cache fits");
    assert!(
        GATHERED_EVENTS_MAX <= WINDOW_EVENTS_MAX as usize,
        "a window's events are the most gathered"
    );
    assert!(COMPARE_ITEMS_MAX <= SELECTION_FILTERS_MAX, "every item compared may have a filter");
    assert!(
        COMMENT_INTERVAL < WRITE_STALL_TIMEOUT,
        "a dead peer is written to before it is given up"
    );
    assert!(SYNCED_ITEMS_MAX <= PAGE_ITEMS_MAX, "`synced` lists no storages of a large selection");
    assert!(HOT_ITEMS_MAX <= PAGE_ITEMS_MAX, "a large selection is not made from the hot cache");
    assert!(HOT_ENTRY_BYTES_MAX < HOT_BYTES_MAX, "the hot cache holds several storages");
    assert!(FOLD_EVENTS < UNFOLDED_EVENTS_MAX, "folding starts before it takes precedence");
    assert!(TURN_DELIVERIES_MIN <= TURN_FLUSHES_MAX, "the least is not more than the most");
    assert!(APPEND_SMALL_BYTES <= COMMIT_LARGE_BYTES, "the smallest large append is one share");
    assert!(INDEX_AHEAD_EVENTS <= INDEX_SHARE_EVENTS, "what is done ahead does not come due");
    assert!(INDEX_SHARE_EVENTS <= FOLD_EVENTS / 4, "a fold ends before the next is due");
    assert!(IDLE_FOLD_EVENTS <= FOLD_EVENTS, "an idle fold is no larger than a due one");
    assert!(REST_MERGE_EVENTS_MAX <= SEGMENT_EVENTS_MAX, "no merge makes a larger segment");
    assert!(UPKEEP_IDLE < UPKEEP_REST, "what is due is done before what only pays at rest");
    assert!(SEGMENT_EVENTS_MAX < 1 << 32, "a place in a segment fits into 32 bits");
    assert!(WAL_BYTES_SOFT < WAL_BYTES_HARD, "checkpoints start before appends wait for them");
};

/// What a person may set, by flag or by `RILL_…` variable.
#[derive(Clone, Debug)]
pub struct Settings {
    pub listen: Vec<SocketAddr>,
    pub db: PathBuf,
    pub readers: usize,
    pub cors_origin: String,
    pub access_log: bool,
    pub log_level: log::LevelFilter,
    pub body_bytes_max: usize,
    pub value_bytes_max: usize,
    pub outbox_bytes_max: usize,
    pub connections_max: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 7400))],
            db: PathBuf::from("rill.db"),
            readers: 1,
            cors_origin: "*".to_owned(),
            access_log: false,
            log_level: log::LevelFilter::Info,
            body_bytes_max: BODY_BYTES_MAX,
            value_bytes_max: VALUE_BYTES_MAX,
            outbox_bytes_max: OUTBOX_BYTES_MAX,
            connections_max: usize::MAX,
        }
    }
}

/// The most memory that the process may take with these settings and so many events in the database,
/// the sum of the limits above; its code and what the kernel holds for sockets aside. Most of it is
/// for clients that mean harm: a thousand idle streams take half a megabyte.
pub fn memory_bytes_max(settings: &Settings, events: usize) -> usize {
    // As JSON a character may take six bytes.
    let largest_event = 6 * settings.value_bytes_max + 6 * ID_BYTES_MAX + KIB;
    let largest_page = GATHERED_PAGE_BYTES + largest_event;
    let connections = settings.connections_max.saturating_add(CONNECTIONS_OVERFLOW);
    // What came for a connection and has no other place is in one buffer, that of the loop.
    let connections =
        connections.saturating_mul(CONNECTION_BYTES).saturating_add(READ_BUFFER_BYTES);
    // A body that grows takes up to twice what is in it, and one is being moved. What is kept of heads
    // takes what is in it, and one is being added to.
    let received = 2 * BODIES_BYTES_MAX
        + settings.body_bytes_max
        + INPUTS_BYTES_MAX
        + 2 * (HEAD_BYTES_MAX + TURN_BYTES_MAX);
    // Readers and the writer each know the events that no index holds yet.
    let unfolded = (UNFOLDED_EVENTS_MAX + FOLD_EVENTS) * UNFOLDED_EVENT_BYTES;
    // Each reader parses a body, which stands there twice then, or makes a page.
    let reader = (2 * settings.body_bytes_max).max(2 * largest_page) + PAGE_CACHE_BYTES + unfolded;
    let readers = settings.readers * reader + (ANSWERS_MAX * largest_page);
    // What brings outboxes over their limit may be of any size, and is encoded and copied to be framed.
    let sent = OUTBOXES_BYTES_MAX
        + TURN_ANSWERS_BYTES
        + 4 * largest_page
        + BUFFERS_KEPT * BUFFER_KEPT_BYTES_MAX;
    // One is made while the others are in memory.
    let filters =
        FILTERS_BYTES_MAX.min(filter_bytes(events)) + filter_bytes(events.min(SEGMENT_EVENTS_MAX));
    let looked_up = (LOOKED_UP_VALUES + VALUES_MAX) * LOOKED_UP_VALUE_BYTES;
    let writer = COMMIT_BYTES_MAX
        + settings.body_bytes_max
        + looked_up
        + WRITER_PAGE_CACHE_BYTES
        + unfolded
        + filters;
    let checkpointer = PAGE_CACHE_BYTES;
    // Entries grow, and take up to twice what is in them.
    let hot = 2 * (HOT_BYTES_MAX + HOT_ENTRY_BYTES_MAX);
    // What preparations gathered of a window, whether filters need them or large selections, and what
    // pages of streams of those did.
    let gathering = 2 * GATHERED_EVENT_BYTES * WINDOW_EVENTS_MAX as usize
        + SELECTION_STORAGES_MAX * size_of::<u32>();
    let gathered = (SCANS_MAX + settings.readers * FURTHER_READS_IN_FLIGHT_MAX) * gathering;
    // Messages hold little besides what is counted above.
    let queues = (APPENDS_IN_FLIGHT_MAX
        + SUBSCRIPTIONS_IN_FLIGHT_MAX
        + READS_IN_FLIGHT_MAX
        + settings.readers * FURTHER_READS_IN_FLIGHT_MAX
        // First pages, scans, large selections, bodies; pages of what was begun are one a connection.
        + 4 * READS_WAITING_MAX
        + STREAMS_LEAVING_MAX
        + NOTICES_MAX)
        * MESSAGE_BYTES;
    let all = [
        received,
        SELECTIONS_BYTES_MAX,
        readers,
        sent,
        writer,
        checkpointer,
        hot,
        gathered,
        queues,
    ];
    all.into_iter().fold(connections, usize::saturating_add)
}

/// Of a filter over the values of so many events.
const fn filter_bytes(events: usize) -> usize {
    events.saturating_mul(FILTER_BITS_PER_EVENT) / 8 + KIB
}
