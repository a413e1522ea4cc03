//! Where a request ends. Each case is followed by bytes that a careless server takes for a request of their own.

use super::*;

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nhost: h\r\n\r\n";

/// The statuses that come back until the connection ends, and the paths that were served.
fn check(sent: &str) -> (Vec<u16>, Vec<String>) {
    let host = start(settings());
    let mut stream = host.send(sent);
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let text = rest(&mut stream);
    host.wait_for_open(0);
    (statuses(&text), host.served())
}

#[track_caller]
fn refused(head: &str) {
    let (statuses, served) = check(&format!("{head}{SMUGGLED}"));
    assert_eq!((&*statuses, served), (&[400][..], vec![]), "{head:?}");
}

#[test]
fn a_request_without_one_clear_end_is_refused() {
    for header in [
        // Two lengths.
        "content-length: 1\r\ncontent-length: 2",
        "content-length: 1, 1",
        "content-length: 1, 2",
        // Lengths that are none.
        "content-length: +1",
        "content-length: -1",
        "content-length: 0x1",
        "content-length: 1 1",
        "content-length: ",
        "content-length: 18446744073709551616",
        // Encodings that are not decoded, or not by everyone.
        "transfer-encoding: xchunked",
        "transfer-encoding: chunkedx",
        "transfer-encoding: identity",
        "transfer-encoding: chunked, identity",
        "transfer-encoding: gzip, chunked",
        "transfer-encoding: chunked, chunked",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ntransfer-encoding: identity",
        "transfer-encoding: identity\r\ntransfer-encoding: chunked",
        "transfer-encoding: \"chunked\"",
        "transfer-encoding: \x0bchunked",
        "transfer-encoding: ",
        // Names that are none.
        "transfer-encoding : chunked",
        "transfer-encoding\t: chunked",
        "content-length : 1",
        " content-length: 1",
        "content length: 1",
        ": x",
        "x",
        // Folded lines.
        "x: y\r\n transfer-encoding: chunked",
        "transfer-encoding:\r\n chunked",
        "content-length:\r\n\t1",
        // Control characters in a value.
        "x: y\0",
        "x: y\rtransfer-encoding: chunked",
    ] {
        refused(&format!("POST /a HTTP/1.1\r\nhost: h\r\n{header}\r\n\r\n"));
    }
}

#[test]
fn an_invalid_request_line_is_refused() {
    for line in
        ["GET  /a HTTP/1.1", "GET /a b HTTP/1.1", "GET /a HTTP/1.2", "GET /a HTTP/2.0", "GET /a", "GE(T /a HTTP/1.1"]
    {
        refused(&format!("{line}\r\nhost: h\r\n\r\n"));
    }
}

#[test]
fn a_request_names_one_host() {
    refused("GET /a HTTP/1.1\r\n\r\n");
    refused("GET /a HTTP/1.1\r\nhost: h\r\nhost: g\r\n\r\n");
    refused("GET /a HTTP/1.1\r\nhost: h\r\nhost: h\r\n\r\n");
    assert_eq!(check("GET /a HTTP/1.0\r\n\r\n"), (vec![200], vec!["/a".to_owned()]));
}

#[test]
fn http_1_0_has_no_chunks() {
    refused("POST /a HTTP/1.0\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n");
}

/// The service sees the beginning, its body fails, and nothing behind it is believed.
#[test]
fn chunks_that_are_not_valid_end_the_connection() {
    for chunks in [
        "ffffffffffffffff\r\n",
        "10000000000000000\r\n",
        "fffffffffffffffff\r\n",
        "-1\r\nx\r\n0\r\n\r\n",
        "0x1\r\nx\r\n0\r\n\r\n",
        "1\r\nxx0\r\n\r\n",
        "\r\n0\r\n\r\n",
        "g\r\n0\r\n\r\n",
        "1 1\r\nx\r\n0\r\n\r\n",
        "1\nx\n0\n\n",
        "1\rx\r0\r\r",
        "1;a\nb\r\nx\r\n0\r\n\r\n",
    ] {
        let head = "POST /a HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n";
        let (statuses, served) = check(&format!("{head}{chunks}{SMUGGLED}"));
        assert_eq!((statuses, served), (vec![400], vec!["/a".to_owned()]), "{chunks:?}");
    }
}

/// Hyper drops the length, whichever comes first, decodes the chunks, and closes behind the answer, as RFC 9112 (6.3) allows. So
/// this request is served, and none behind it.
#[test]
fn with_a_length_and_chunks_only_the_chunks_count_and_the_connection_ends() {
    for (headers, body) in [
        ("content-length: 3\r\ntransfer-encoding: chunked", "0\r\n\r\n"),
        ("transfer-encoding: chunked\r\ncontent-length: 3", "0\r\n\r\n"),
        ("transfer-encoding: chunked\r\ncontent-length: 100", "1\r\nx\r\n0\r\n\r\n"),
        ("transfer-encoding: chunked\r\ncontent-length: x", "0\r\n\r\n"),
        ("connection: keep-alive\r\ncontent-length: 3\r\ntransfer-encoding: chunked", "0\r\n\r\n"),
        ("content-length: 3\r\ntransfer-encoding: chunked\r\nconnection: keep-alive", "0\r\n\r\n"),
    ] {
        let sent = format!("POST /a HTTP/1.1\r\nhost: h\r\n{headers}\r\n\r\n{body}{SMUGGLED}");
        assert_eq!(check(&sent), (vec![200], vec!["/a".to_owned()]), "{headers:?}");
    }
}

/// RFC 9112 (6.3) allows the same length twice; it is one.
#[test]
fn one_length_twice_is_that_length() {
    let sent = "POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\nhelloGET /b HTTP/1.1\r\nhost: h\r\n\r\n";
    assert_eq!(check(sent), (vec![200, 200], vec!["/a".to_owned(), "/b".to_owned()]));
}

/// Hyper takes LF for the end of a line of a head, as RFC 9112 (2.2) allows, and CR in front of it or not ends the same line:
/// so a head ends where its first empty line is, and a body has its length from there.
#[test]
fn a_bare_lf_ends_a_line_of_a_head() {
    let a = vec!["/a".to_owned()];
    assert_eq!(check("GET /a HTTP/1.1\nhost: h\n\n"), (vec![200], a.clone()));
    let body = SMUGGLED.len();
    for head in [
        format!("POST /a HTTP/1.1\nhost: h\ncontent-length: {body}\n\n"),
        format!("POST /a HTTP/1.1\r\nhost: h\ncontent-length: {body}\r\n\n"),
        format!("POST /a HTTP/1.1\r\nhost: h\r\nx: y\ncontent-length: {body}\r\n\r\n"),
    ] {
        assert_eq!(check(&format!("{head}{SMUGGLED}")), (vec![200], a.clone()), "{head:?}");
    }
}

#[test]
fn chunks_and_their_trailers_have_their_bounds() {
    let head = "POST /a HTTP/1.1\r\nhost: h\r\ntransfer-encoding: Chunked\r\n\r\n";
    let chunks = "5;ext=\"1\"\r\nhello\r\n0\r\nx: y\r\n\r\n";
    assert_eq!(check(&format!("{head}{chunks}{}", SMUGGLED.replace("smuggled", "b"))).1, ["/a", "/b"]);
    for chunks in [
        format!("1;{}\r\nx\r\n0\r\n\r\n", "x".repeat(64 << 10)),
        format!("0\r\n{}\r\n", "x: y\r\n".repeat(101)),
        format!("0\r\nx: {}\r\n\r\n", "y".repeat(64 << 10)),
    ] {
        assert_eq!(check(&format!("{head}{chunks}{SMUGGLED}")), (vec![400], vec!["/a".to_owned()]));
    }
}
