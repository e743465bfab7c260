//! Owns the counters of the hub and how they are shown: Prometheus text format 0.0.4. What another
//! thread counts comes with its messages.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::Hub;

/// What a request was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Get,
    Stream,
    Set,
    Bloom,
    Page,
    Health,
    Metrics,
    Other,
}

impl Kind {
    pub(super) fn of(path: &str, wants_stream: bool) -> Kind {
        match path {
            "/get" if wants_stream => Kind::Stream,
            "/get" => Kind::Get,
            "/bloom" => Kind::Bloom,
            "/" => Kind::Page,
            "/healthz" => Kind::Health,
            "/metrics" => Kind::Metrics,
            _ if path.starts_with("/set/") => Kind::Set,
            _ => Kind::Other,
        }
    }

    /// What an access line calls it: never an identifier.
    pub(super) fn path(self) -> &'static str {
        match self {
            Kind::Get => "/get",
            Kind::Stream => "/get (stream)",
            Kind::Set => "/set/",
            Kind::Bloom => "/bloom",
            Kind::Page => "/",
            Kind::Health => "/healthz",
            Kind::Metrics => "/metrics",
            Kind::Other => "(other)",
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Get => "get",
            Kind::Stream => "stream",
            Kind::Set => "set",
            Kind::Bloom => "bloom",
            Kind::Page => "page",
            Kind::Health => "healthz",
            Kind::Metrics => "metrics",
            Kind::Other => "other",
        }
    }
}

/// What clients did that they should not have, or more of it than is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Hostile {
    Malformed,
    SlowHead,
    SlowBody,
    StalledReader,
    TooManyConnections,
    StreamsTurnedAway,
    BodiesOverLimit,
    HeadsOverLimit,
    OutboxesOverLimit,
}

impl Hostile {
    const ALL: [Hostile; 9] = [
        Hostile::Malformed,
        Hostile::SlowHead,
        Hostile::SlowBody,
        Hostile::StalledReader,
        Hostile::TooManyConnections,
        Hostile::StreamsTurnedAway,
        Hostile::BodiesOverLimit,
        Hostile::HeadsOverLimit,
        Hostile::OutboxesOverLimit,
    ];

    fn name(self) -> &'static str {
        match self {
            Hostile::Malformed => "malformed",
            Hostile::SlowHead => "slow_head",
            Hostile::SlowBody => "slow_body",
            Hostile::StalledReader => "stalled_reader",
            Hostile::TooManyConnections => "too_many_connections",
            Hostile::StreamsTurnedAway => "streams_turned_away",
            Hostile::BodiesOverLimit => "bodies_over_limit",
            Hostile::HeadsOverLimit => "heads_over_limit",
            Hostile::OutboxesOverLimit => "outboxes_over_limit",
        }
    }
}

/// Upper bounds of the commit latency's buckets, in microseconds.
const COMMIT_BUCKETS: [u64; 12] =
    [250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 2_500_000];

#[derive(Debug, Default)]
pub(super) struct Metrics {
    requests: BTreeMap<(Kind, u16), u64>,
    hostile: [u64; Hostile::ALL.len()],
    pub(super) events_appended: u64,
    pub(super) events_repeated: u64,
    pub(super) events_delivered: u64,
    pub(super) appends_refused: u64,
    pub(super) appends_failed: u64,
    pub(super) replies_cut: u64,
    pub(super) streams: u64,
    pub(super) hot_hits: u64,
    pub(super) pages: u64,
    pub(super) bytes_received: u64,
    pub(super) bytes_sent: u64,
    commits: u64,
    commit_buckets: [u64; COMMIT_BUCKETS.len()],
    commit_time: Duration,
}

impl Metrics {
    pub(super) fn request(&mut self, kind: Kind, status: u16) {
        *self.requests.entry((kind, status)).or_default() += 1;
    }

    pub(super) fn hostile(&mut self, what: Hostile) {
        self.hostile[what as usize] += 1;
    }

    pub(super) fn committed(&mut self, took: Duration) {
        self.commits += 1;
        self.commit_time += took;
        let microseconds = took.as_micros() as u64;
        if let Some(bucket) = COMMIT_BUCKETS.iter().position(|bound| microseconds <= *bound) {
            self.commit_buckets[bucket] += 1;
        }
    }
}

impl Hub {
    pub(super) fn render_metrics(&self) -> String {
        let metrics = &self.metrics;
        let (streams, lagging) = self.count_streams();
        let leaving = self.tenants.len() - streams;
        let changes = self.credits.subscriptions + self.waiting_subscriptions.len();
        let queued: usize = self.connections.iter().map(|(_, c)| c.outbox.bytes()).sum();
        let (outboxes, inputs) = (self.outboxes_bytes.get() as u64, self.all_inputs_bytes() as u64);
        let selections = self.selections_bytes.get() as u64;
        let mut text = Text(String::with_capacity(4096));
        text.head("rill_requests_total", "counter", "Requests answered, by kind and status.");
        for ((kind, status), count) in &metrics.requests {
            let labels = format!("{{kind=\"{}\",status=\"{status}\"}}", kind.name());
            text.sample("rill_requests_total", &labels, *count);
        }
        text.head(
            "rill_hostile_total",
            "counter",
            "Input refused or connections ended, by reason.",
        );
        for what in Hostile::ALL {
            let labels = format!("{{reason=\"{}\"}}", what.name());
            text.sample("rill_hostile_total", &labels, metrics.hostile[what as usize]);
        }
        text.commit_latency(metrics);
        for (name, help, count) in [
            ("rill_events_appended_total", "Events stored.", metrics.events_appended),
            (
                "rill_events_repeated_total",
                "Values that were there before.",
                metrics.events_repeated,
            ),
            ("rill_events_delivered_total", "Live events queued.", metrics.events_delivered),
            ("rill_appends_refused_total", "Appends answered 503.", metrics.appends_refused),
            ("rill_appends_failed_total", "Appends the store failed.", metrics.appends_failed),
            ("rill_replies_cut_total", "Replies the store cut short.", metrics.replies_cut),
            ("rill_hot_hits_total", "Reads answered from the hot cache.", metrics.hot_hits),
            ("rill_streams_opened_total", "Streams opened.", metrics.streams),
            ("rill_stream_pages_total", "Pages streams asked for.", metrics.pages),
            ("rill_received_bytes_total", "Bytes received.", metrics.bytes_received),
            ("rill_sent_bytes_total", "Bytes sent.", metrics.bytes_sent),
        ] {
            text.metric(name, "counter", help, count);
        }
        for (name, help, value) in [
            ("rill_connections", "Open connections.", self.connections.len() as u64),
            ("rill_subscribers", "Streams being served.", streams as u64),
            ("rill_subscribers_lagging", "Streams behind the log.", lagging as u64),
            ("rill_queued_bytes", "Bytes queued for all connections.", queued as u64),
            ("rill_outboxes_bytes", "The same, what is shared once.", outboxes),
            ("rill_inputs_bytes", "Heads, and requests behind others.", inputs),
            ("rill_selections_bytes", "Large selections in memory.", selections),
            ("rill_bodies_bytes", "Request bodies in memory.", self.bodies_bytes as u64),
            ("rill_appends_in_flight", "Appends with the writer.", self.credits.appends as u64),
            ("rill_subscriptions_in_flight", "Changes of the index under way.", changes as u64),
            ("rill_streams_leaving", "Ended streams with answers under way.", leaving as u64),
            ("rill_pings_in_flight", "Health checks with the writer.", self.credits.pings as u64),
            ("rill_reads_in_flight", "Requests with the readers.", self.reads.in_flight() as u64),
            ("rill_reads_waiting", "Requests kept back.", self.reads.waiting() as u64),
            ("rill_filters_bytes", "Filters in memory.", self.filters_bytes.get() as u64),
            ("rill_scans", "Filtered reads and comparisons that scan.", self.scans.get() as u64),
            ("rill_hot_bytes", "Size of the hot cache.", self.hot.bytes() as u64),
            ("rill_last_seq", "The newest event.", self.visible),
            ("rill_unfolded_events", "Events not indexed yet.", self.store.unfolded),
            ("rill_segments", "Index segments.", self.store.segments),
            ("rill_wal_bytes", "Size of the write-ahead log.", self.store.wal_bytes),
        ] {
            text.metric(name, "gauge", help, value);
        }
        text.0
    }
}

struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn sample(&mut self, name: &str, labels: &str, value: u64) {
        self.line(format_args!("{name}{labels} {value}"));
    }

    fn metric(&mut self, name: &str, kind: &str, help: &str, value: u64) {
        self.head(name, kind, help);
        self.sample(name, "", value);
    }

    fn commit_latency(&mut self, metrics: &Metrics) {
        const NAME: &str = "rill_commit_seconds";
        self.head(NAME, "histogram", "Commits and how long each took, the sync included.");
        let mut below = 0;
        for (bound, count) in COMMIT_BUCKETS.iter().zip(metrics.commit_buckets) {
            below += count;
            let bound = *bound as f64 / 1e6;
            self.line(format_args!("{NAME}_bucket{{le=\"{bound}\"}} {below}"));
        }
        self.line(format_args!("{NAME}_bucket{{le=\"+Inf\"}} {}", metrics.commits));
        self.line(format_args!("{NAME}_sum {}", metrics.commit_time.as_secs_f64()));
        self.line(format_args!("{NAME}_count {}", metrics.commits));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{line}").expect("writing to memory does not fail");
    }
}
