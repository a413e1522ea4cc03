//! How connections begin and end.

use super::*;

const SOON: Duration = Duration::from_millis(300);
const GET: &str = "GET /a HTTP/1.1\r\nhost: h\r\n\r\n";

#[test]
fn requests_of_one_connection_are_answered() {
    let host = start(settings());
    let mut stream = host.connect();
    for _ in 0..3 {
        stream.write_all(b"POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\nhello").unwrap();
        assert_eq!(answer(&mut stream), (200, "5 bytes".to_owned()));
    }
    assert_eq!(host.serving.open(), 1);
    drop(stream);
    host.wait_for_open(0);
}

#[test]
fn requests_that_were_sent_together_are_answered_in_order() {
    let host = start(settings());
    let stream = &mut host.send(&format!("{GET}{}", GET.replace("/a", "/b")));
    assert_eq!([answer(stream).0, answer(stream).0], [200, 200]);
    assert_eq!(host.served(), ["/a", "/b"]);
}

#[test]
fn a_connection_that_idles_ends() {
    let host = start(ServerSettings { header_timeout: SOON, ..settings() });
    let mut fresh = host.connect();
    let mut used = host.send(GET);
    answer(&mut used);
    assert_eq!((rest(&mut fresh), rest(&mut used)), (String::new(), String::new()));
    host.wait_for_open(0);
}

/// An exchange takes longer than a head may.
#[test]
fn a_connection_that_waits_for_its_answer_does_not_idle() {
    let host = start(ServerSettings { header_timeout: SOON, ..settings() });
    let mut waiting = host.send(&GET.replace("/a", "/wait"));
    assert_eq!(host.next(), request("/wait"));
    // The end of another one shows that the time has passed.
    rest(&mut host.connect());
    host.gate.add_permits(1);
    assert_eq!(answer(&mut waiting).0, 200);
}

#[test]
fn a_head_that_comes_byte_by_byte_is_cut() {
    let host = start(ServerSettings { header_timeout: SOON, ..settings() });
    let (mut stream, start) = (host.send("GET / HTTP/1.1\r\nx: "), Instant::now());
    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let ended = loop {
        // Whether it is closed shows in what it says or takes.
        match stream.read(&mut [0]) {
            Ok(n) => break n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => break 0,
        }
        if stream.write_all(b"x").is_err() {
            break 0;
        }
        assert!(start.elapsed() < LONG, "it is still open");
    };
    assert_eq!(ended, 0);
    assert!(start.elapsed() >= SOON);
    assert_eq!(host.served(), [""; 0]);
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    for max in [1 << 10, 16 << 10, 256 << 10] {
        let host = start(ServerSettings { header_bytes_max: max, ..settings() });
        let head =
            |bytes| format!("GET /a HTTP/1.1\r\nhost: h\r\nconnection: close\r\nx: {}\r\n\r\n", "x".repeat(bytes));
        assert_eq!(statuses(&rest(&mut host.send(&head(max - 200)))), [200], "{max}");
        for more in [0, 1 << 20] {
            assert_eq!(statuses(&rest(&mut host.send(&head(max + more)))), [431], "{max}");
        }
        assert_eq!(host.served(), ["/a"]);
    }
}

#[test]
fn too_many_headers_are_refused() {
    let host = start(settings());
    let head =
        |count: usize| format!("GET /a HTTP/1.1\r\nhost: h\r\nconnection: close\r\n{}\r\n", "x: y\r\n".repeat(count));
    assert_eq!(statuses(&rest(&mut host.send(&head(98)))), [200]);
    assert_eq!(statuses(&rest(&mut host.send(&head(99)))), [431]);
}

#[test]
fn connections_beyond_the_most_are_closed_and_room_returns() {
    let host = start(ServerSettings { connections_max: 2, ..settings() });
    let (mut first, second) = (host.send(GET), host.connect());
    answer(&mut first);
    host.wait_for_open(2);
    for _ in 0..20 {
        assert_eq!(rest(&mut host.send(GET)), "");
    }
    drop(second);
    host.wait_for_open(1);
    assert_eq!(answer(&mut host.send(GET)).0, 200);
}

#[test]
fn a_client_that_has_sent_all_still_gets_its_answer() {
    let host = start(settings());
    let mut stream = host.send(&GET.replace("/a", "/wait"));
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(host.next(), request("/wait"));
    // Time for the server to see the end, which is no event that anything here could wait for.
    answer(&mut host.send(GET));
    assert_eq!(host.next(), request("/a"));
    assert_eq!(host.next(), Seen::Over);
    host.gate.add_permits(1);
    assert_eq!(statuses(&rest(&mut stream)), [200]);
    host.wait_for_open(0);
}

#[test]
fn what_serves_a_client_that_reset_its_connection_is_dropped() {
    let host = start(settings());
    let stream = host.send(&GET.replace("/a", "/wait"));
    assert_eq!(host.next(), request("/wait"));
    let at_once = Some(Duration::ZERO);
    rustix::net::sockopt::set_socket_linger(&stream, at_once).unwrap();
    drop(stream);
    assert_eq!(host.next(), Seen::Over);
    host.wait_for_open(0);
}

/// As far as a configuration can say.
#[test]
fn the_longest_times_and_the_most_of_all_can_be_served() {
    let times = ServerSettings { header_timeout: Duration::MAX, write_timeout: Duration::MAX, ..settings() };
    let host = start(ServerSettings { connections_max: usize::MAX, header_bytes_max: usize::MAX, ..times });
    assert_eq!(answer(&mut host.send(GET)).0, 200);
    host.wait_for_open(0);
    host.serving.end(Duration::MAX);
}

/// A client that closes while it still sends a body is gone as well.
#[test]
fn what_waits_for_a_body_ends_with_its_client() {
    let host = start(settings());
    let stream = host.send("POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\nhe");
    assert_eq!(host.next(), request("/a"));
    drop(stream);
    assert_eq!(host.next(), Seen::Over);
    host.wait_for_open(0);
}

#[test]
fn a_client_that_is_still_sending_gets_the_answer_that_refuses_it() {
    let host = start(settings());
    let body = 4 << 20;
    let mut stream = host.send(&format!("POST /early HTTP/1.1\r\nhost: h\r\ncontent-length: {body}\r\n\r\n"));
    // What is sent after the server has closed its direction must not cost the answer.
    assert_eq!(host.next(), request("/early"));
    stream.write_all(&vec![b'x'; body]).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(statuses(&rest(&mut stream)), [413]);
    host.wait_for_open(0);
}

/// It acknowledges bytes as long as there is room for them, and then only that there is none.
#[test]
fn a_client_that_does_not_read_is_cut() {
    let host = start(ServerSettings { write_timeout: SOON, ..settings() });
    let _stream = host.send(&GET.replace("/a", "/large"));
    assert_eq!(host.next(), request("/large"));
    host.wait_for_open(0);
}

#[test]
fn a_panic_ends_its_connection_alone() {
    let host = start(ServerSettings { connections_max: 2, ..settings() });
    let mut other = host.send(GET);
    answer(&mut other);
    for _ in 0..5 {
        assert_eq!(rest(&mut host.send(&GET.replace("/a", "/panic"))), "");
        host.wait_for_open(1);
    }
    other.write_all(GET.as_bytes()).unwrap();
    assert_eq!(answer(&mut other).0, 200);
}

#[test]
fn an_address_in_use_says_what_to_do() {
    let host = start(settings());
    let settings = ServerSettings { listen: host.address, ..settings() };
    let Err(error) = Server::bind(&host.runtime, settings) else { panic!("it is in use") };
    let text = error.to_string();
    assert!(text.starts_with(&format!("failed to listen on {}: another process listens there; stop it", host.address)));
    assert!(matches!(error, ServerError::InUse { .. }));
}
