//! The example client against the real server: whatever the two sides hold, both hold the union
//! afterwards, and what a filter gets wrong costs repeated events at most.

#[path = "../../examples/sync/client.rs"]
mod client;
#[path = "../../examples/sync/directory.rs"]
mod directory;
#[path = "../../examples/sync/http.rs"]
mod http;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::ops::Range;
use std::thread;

use crate::harness::{Folder, Random, Server, encode};
use client::{Approach, Client, Failure, Outcome};
use directory::Directory;
use http::Http;
use rill::event::Hash;
use rill::filter::{Filter, InverseBloom, Sketch};

/// Some are unlike the others, as files are.
fn value(number: usize) -> String {
    match number % 100 {
        0 if number == 0 => String::new(),
        1 => format!("\"{number}\"\r\n\u{0}\u{2028}\\"),
        2 => format!("é{number}😀").repeat(500),
        _ => format!("value {number}"),
    }
}

fn values(numbers: Range<usize>) -> Vec<String> {
    numbers.map(value).collect()
}

fn append(server: &Server, id: &str, values: &[String]) {
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    if !values.is_empty() {
        server.set(id, &values);
    }
}

fn folder_of(values: &[String]) -> Folder {
    let folder = Folder::new();
    for (number, value) in values.iter().enumerate() {
        fs::write(folder.file(&format!("{number}.md")), value).expect("a file can be written");
    }
    folder
}

fn open(folder: &Folder) -> Directory {
    let directory = Directory::open(&folder.file(".")).expect("the folder can be read");
    assert!(directory.refused.is_empty(), "{:?}", directory.refused);
    directory
}

fn client(server: &Server, id: &str, random: &mut Random) -> Client<impl FnMut() -> u64 + use<>> {
    let mut random = random.fork();
    let url = format!("http://{}", server.address());
    Client::new(&url, id, move || random.next()).expect("the address is one")
}

/// What the storage holds, each value once.
fn held(server: &Server, id: &str) -> BTreeSet<String> {
    let reply = server.read(&format!("/get?id={}", encode(id)));
    let events = reply["items"][0]["events"].as_array().expect("a read has events");
    let held: BTreeSet<String> =
        events.iter().map(|event| event["value"].as_str().expect("a string").to_owned()).collect();
    assert_eq!(held.len(), events.len(), "no value is stored twice");
    held
}

/// Exactly these on both sides, and in files of whole values.
fn check_both(server: &Server, id: &str, folder: &Folder, expected: &[String], shown: &str) {
    let mut files: Vec<String> = folder
        .contents()
        .into_values()
        .map(|bytes| String::from_utf8(bytes).expect("files are text"))
        .collect();
    files.sort();
    let expected: BTreeSet<String> = expected.iter().cloned().collect();
    assert!(files.iter().eq(&expected), "{shown}: {} files of {}", files.len(), expected.len());
    assert!(held(server, id) == expected, "{shown}: the storage");
}

/// How many events both sides hold, we alone, the server alone.
type Shape = (usize, usize, usize);

fn shapes(random: &mut Random) -> Vec<Shape> {
    let mut shapes = vec![
        (0, 0, 0),
        (0, 0, 1),
        (0, 1, 0),
        (1, 0, 0),
        (0, 1, 1),
        (0, 500, 0),
        (0, 0, 500),
        (20, 19, 19),
        (150, 3, 0),
        (2_000, 0, 0),
        (2_000, 1, 1),
        (1_750, 250, 250),
    ];
    shapes.extend((0..6).map(|_| {
        let difference = random.range(0, 500);
        let ours = random.range(0, difference);
        (random.range(0, 2_000 - difference), ours, difference - ours)
    }));
    shapes
}

/// What is tried: the client's own choice, or a way that it could have come to.
const APPROACHES: [Option<Approach>; 5] = [
    None,
    Some(Approach::Sketch { cells: 1 }),
    Some(Approach::Sketch { cells: 80 }),
    Some(Approach::InverseBloom),
    Some(Approach::Everything),
];

fn check_union(server: &Server, shape: Shape, approach: Option<Approach>, random: &mut Random) {
    let (shared, ours, theirs) = shape;
    let end = shared + ours + theirs;
    let shown = format!("{shared} + {ours} + {theirs} by {approach:?}");
    let id = format!("ü/{shown}? {:x}", random.next());
    append(server, &id, &values(0..shared));
    append(server, &id, &values(shared + ours..end));
    let folder = folder_of(&values(0..shared + ours));
    let (mut own, mut client) = (open(&folder), client(server, &id, random));
    client.page_events = random.range(1, 10) * 50;
    let result = match approach {
        None => client.sync(&mut own),
        Some(approach) => client.sync_from(&mut own, (shared + theirs) as u64, approach),
    };
    result.unwrap_or_else(|error| panic!("{shown}: {error}"));
    check_both(server, &id, &folder, &values(0..end), &shown);
}

/// Several at a time, as each mostly waits for the disk.
#[test]
fn any_two_sets_become_their_union() {
    let mut random = Random::from_environment();
    let shapes = shapes(&mut random);
    thread::scope(|scope| {
        for shapes in shapes.chunks(3) {
            let mut random = random.fork();
            scope.spawn(move || {
                let server = Server::start();
                for shape in shapes {
                    let forced = random.range(1, APPROACHES.len() - 1);
                    for approach in [APPROACHES[0], APPROACHES[forced]] {
                        check_union(&server, *shape, approach, &mut random);
                    }
                }
            });
        }
    });
}

#[test]
fn the_cost_follows_the_difference() {
    let mut random = Random::from_environment();
    let server = Server::start();
    append(&server, "a", &values(0..2_005));
    let folder = folder_of(&values(5..2_010));
    let (mut own, mut client) = (open(&folder), client(&server, "a", &mut random));
    client.page_events = 2;
    client.sync(&mut own).expect("nothing is in the way");
    let first = client.traffic();
    assert_eq!(first.round_trips, 6, "the count, the difference, an append, three pages");
    assert!(first.up_bytes + first.down_bytes < 16_000, "a version 1 filter alone has 16,848");
    client.sync(&mut open(&folder)).expect("nothing is in the way");
    let second = client.traffic();
    assert_eq!(second.round_trips, first.round_trips + 2, "the count, and the proof");
    assert!(second.up_bytes - first.up_bytes < 1_300, "{first:?} {second:?}");
    check_both(&server, "a", &folder, &values(0..2_010), "after both");
}

#[test]
fn large_values_go_in_several_requests() {
    let mut random = Random::from_environment();
    let server = Server::start();
    // Of all texts NUL grows most in JSON: 6 MiB each, and a request has 16 at most.
    let values: Vec<String> = (0..3).map(|n| "\0".repeat((1 << 20) - n)).collect();
    append(&server, "a", &values[..1]);
    let folder = folder_of(&values[1..]);
    append(&server, "a", &values[2..]);
    let (mut own, mut first) = (open(&folder), client(&server, "a", &mut random));
    first.sync(&mut own).expect("nothing is in the way");
    check_both(&server, "a", &folder, &values, "one came, one went");
    first = client(&server, "b", &mut random);
    first.sync(&mut own).expect("nothing is in the way");
    check_both(&server, "b", &folder, &values, "all went");
}

#[test]
fn the_cheaper_filter_is_chosen() {
    let sketch = |cells| Approach::Sketch { cells };
    for (own, servers, expected) in [
        (0, 0, Approach::Everything),
        (0, 1_000_000, Approach::Everything),
        (1, 0, Approach::InverseBloom),
        (80, 80, Approach::InverseBloom),
        (100, 100, sketch(48)),
        (1_000, 900, sketch(198)),
        (900, 1_000, sketch(198)),
        (1_000, 100, Approach::InverseBloom),
        (1_000_000, 1_000_000, sketch(48)),
        (1_000_000, 978_187, sketch(32_767)),
        (1_000_000, 978_186, Approach::InverseBloom),
        (2_000_000, 2_000_000, sketch(48)),
        (2_000_000, 1_000_000, Approach::Everything),
    ] {
        assert_eq!(Approach::choose(own, servers), expected, "{own} here, {servers} there");
    }
    for (cells, next_cells, events, expected) in [
        (48, Some(192), 1_000_000, sketch(192)),
        (48, Some(192), 300, Approach::InverseBloom),
        (12_288, None, 1_000_000, sketch(32_768)),
        (12_288, None, 60_000, Approach::InverseBloom),
        (32_768, None, 1_000_000, Approach::InverseBloom),
        (32_768, None, 2_000_000, Approach::Everything),
    ] {
        let after = sketch(cells).after_undecoded(next_cells, events, events);
        assert_eq!(after, expected, "{cells} cells were too few for {events} events");
    }
}

/// Filters that say what is not so: an event that we have is not in, or one is in that we lack.
#[test]
fn what_a_filter_gets_wrong_is_noticed_and_costs_repeated_events() {
    let mut random = Random::from_environment();
    let server = Server::start();
    let hashes = |numbers: Range<usize>| numbers.map(|n| Hash::of(&value(n))).collect::<Vec<_>>();
    let sketch = |hashes: &[Hash], seed| {
        let mut sketch = Sketch::new(200, seed);
        hashes.iter().for_each(|hash| sketch.add(hash));
        Filter::Sketch(sketch)
    };
    let bloom = |hashes: &[Hash], random: &mut Random| {
        Filter::InverseBloom(InverseBloom::build(hashes, 400, || random.next()))
    };
    // The server holds 0..300, we 40..340.
    for (number, (filter, expected)) in [
        (bloom(&hashes(40..340), &mut random), Outcome::Settled),
        (sketch(&hashes(40..340), random.next()), Outcome::Settled),
        // Some of ours have no place in it; of these the server has some.
        (bloom(&hashes(90..320), &mut random), Outcome::Settled),
        (bloom(&[], &mut random), Outcome::Settled),
        // It claims ten that we lack.
        (bloom(&hashes(30..340), &mut random), Outcome::Unsettled { servers: 340 }),
        (sketch(&hashes(30..340), random.next()), Outcome::Unsettled { servers: 340 }),
        (bloom(&hashes(0..340), &mut random), Outcome::Unsettled { servers: 340 }),
    ]
    .into_iter()
    .enumerate()
    {
        let (id, shown) = (number.to_string(), format!("case {number}"));
        append(&server, &id, &values(0..300));
        let folder = folder_of(&values(40..340));
        let (mut own, mut client) = (open(&folder), client(&server, &id, &mut random));
        let outcome = client.round(&mut own, Some(&filter)).expect("nothing is in the way");
        assert_eq!(outcome, expected, "{shown}");
        if outcome != Outcome::Settled {
            client.sync(&mut own).expect("nothing is in the way");
        }
        check_both(&server, &id, &folder, &values(0..340), &shown);
    }
}

#[test]
fn clients_that_sync_at_once_end_up_equal() {
    let mut random = Random::from_environment();
    let server = Server::start();
    append(&server, "a", &values(0..200));
    let folders: Vec<Folder> =
        (1..5).map(|client| folder_of(&values(150..200 + client * 60))).collect();
    let clients: Vec<_> = folders.iter().map(|_| client(&server, "a", &mut random)).collect();
    let mut clients = thread::scope(|scope| {
        let running: Vec<_> = clients
            .into_iter()
            .zip(&folders)
            .map(|(mut client, folder)| {
                scope.spawn(move || client.sync(&mut open(folder)).map(|()| client))
            })
            .collect();
        let ended = running.into_iter().map(|thread| thread.join().expect("no client panics"));
        ended.collect::<Result<Vec<_>, Failure>>().expect("nothing is in the way")
    });
    for (client, folder) in clients.iter_mut().zip(&folders) {
        client.sync(&mut open(folder)).expect("nothing is in the way");
        check_both(&server, "a", folder, &values(0..440), "after all had appended");
    }
}

#[test]
fn files_that_cannot_be_values_are_refused_by_name() {
    let folder = folder_of(&[]);
    for (name, bytes) in [
        ("empty", Vec::new()),
        ("large", vec![b'x'; 1 << 20]),
        ("same", vec![b'x'; 1 << 20]),
        ("too large", vec![b'x'; (1 << 20) + 1]),
        ("picture", vec![0xff, 0xd8, 0xff]),
        (".hidden", vec![0xff]),
    ] {
        fs::write(folder.file(name), bytes).expect("a file can be written");
    }
    fs::create_dir(folder.file("folder")).expect("a folder can be made");
    let directory = Directory::open(&folder.file(".")).expect("the folder can be read");
    let refused: Vec<&str> =
        directory.refused.iter().filter_map(|line| line.rsplit('/').next()).collect();
    assert_eq!(refused, ["folder: not a file", "picture: not UTF-8 text", "too large: over 1 MiB"]);
    assert_eq!(directory.len(), 2);
}

/// A server that gives each connection one request's time, and does not say so.
fn answering(replies: &[&'static str]) -> Http {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    let replies = replies.to_vec();
    thread::spawn(move || {
        for reply in replies {
            let (mut socket, _) = listener.accept().expect("somebody asks");
            let mut request = BufReader::new(socket.try_clone().expect("a socket can be cloned"));
            let mut line = String::new();
            while line != "\r\n" {
                line.clear();
                request.read_line(&mut line).expect("a whole head comes");
            }
            request.read_exact(&mut [0; 2]).expect("{} comes");
            socket.write_all(reply.as_bytes()).expect("the reply is taken");
        }
    });
    Http::new(&format!("http://{address}/")).expect("the address is one")
}

#[test]
fn replies_of_either_framing_are_read_and_broken_ones_refused() {
    for (reply, expected) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", Some((200, "abc"))),
        ("HTTP/1.1 409 Conflict\r\nconnection: close\r\ncontent-length:0\r\n\r\n", Some((409, ""))),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n",
            Some((200, "abc0123456789")),
        ),
        ("", None),
        ("HTTP/1.1 200 OK\r\n", None),
        ("HTTP/1.1 OK\r\nContent-Length: 0\r\n\r\n", None),
        ("HTTP/1.1 200 OK\r\n\r\n", None),
        ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc", None),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", None),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", None),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", None),
    ] {
        let read = answering(&[reply]).post("/", "{}").ok();
        let read = read.map(|reply| (reply.status, String::from_utf8(reply.body).expect("text")));
        let expected = expected.map(|(status, body)| (status, body.to_owned()));
        assert_eq!(read, expected, "{reply:?}");
    }
}

#[test]
fn a_connection_that_the_server_closed_is_opened_again() {
    let mut http = answering(&[
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb",
    ]);
    for expected in ["a", "b"] {
        let reply = http.post("/", "{}").expect("the second time over a new connection");
        assert_eq!(reply.body, expected.as_bytes());
    }
}

#[test]
fn an_address_is_a_host_of_http_and_no_more() {
    for (url, good) in [
        ("http://127.0.0.1:7400", true),
        ("http://[::1]:7400/", true),
        ("http://[::1]", true),
        ("http://localhost", true),
        ("https://localhost", false),
        ("localhost:7400", false),
        ("http://", false),
        ("http://localhost/get", false),
        ("http://user@localhost", false),
    ] {
        assert_eq!(Http::new(url).is_ok(), good, "{url}");
    }
}

#[test]
fn a_value_that_no_file_may_have_is_refused() {
    let mut random = Random::from_environment();
    let server = Server::start_with(&["--value-bytes-max", "2097152"]);
    append(&server, "a", &["x".repeat((1 << 20) + 1)]);
    let folder = folder_of(&[]);
    let result = client(&server, "a", &mut random).sync(&mut open(&folder));
    let error = result.expect_err("a file of that size would not be read again").to_string();
    assert!(error.ends_with("is over 1 MiB"), "{error}");
    assert!(folder.contents().is_empty());
}

#[test]
fn a_file_that_came_is_never_written_over() {
    let folder = folder_of(&[]);
    let digits = Hash::of("new").to_string();
    let mut expected = Vec::new();
    for length in [16, 24] {
        assert!(open(&folder).add("new").expect("the folder can be written"));
        assert!(!open(&folder).add("new").expect("the folder can be read"));
        let file = folder.file(&format!("{}.txt", &digits[..length]));
        let edited = format!("edited {length}");
        assert_eq!(fs::read_to_string(&file).expect("the file is there"), "new");
        fs::write(&file, &edited).expect("a file can be written");
        expected.push(edited.into_bytes());
    }
    assert!(folder.contents().into_values().eq(expected), "nothing else is left behind");
}
