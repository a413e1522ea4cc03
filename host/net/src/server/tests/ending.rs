//! How a server ends.

use super::*;

const WAIT: &str = "GET /wait HTTP/1.1\r\nhost: h\r\n\r\n";

#[test]
fn idle_connections_end_at_once_and_an_exchange_is_finished() {
    let host = start(settings());
    let (fresh, mut used) = (host.connect(), host.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n"));
    answer(&mut used);
    let mut waiting = host.send(WAIT);
    host.wait_for_open(3);
    assert_eq!([host.next(), host.next(), host.next()], [request("/"), Seen::Over, request("/wait")]);
    let Host { serving, gate, address, runtime, .. } = host;
    let ending = thread::spawn(move || {
        let start = Instant::now();
        serving.end(LONG);
        start.elapsed()
    });
    for mut idle in [fresh, used] {
        assert_eq!(rest(&mut idle), "");
    }
    let refused = TcpStream::connect(address).expect_err("nobody listens any more");
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    assert!(!ending.is_finished());
    gate.add_permits(1);
    let text = rest(&mut waiting);
    assert_eq!(statuses(&text), [200]);
    assert!(text.contains("connection: close\r\n"), "{text}");
    assert!(ending.join().unwrap() < LONG);
    drop(runtime);
}

/// Its last request had a body, which was read: nothing more is expected of its client. A busy machine may need some attempts.
#[test]
fn an_idle_connection_is_not_waited_for() {
    let ended_at_once = || {
        let host = start(settings());
        let mut idle = host.send("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\n\r\nx");
        answer(&mut idle);
        let start = Instant::now();
        host.serving.end(LONG);
        start.elapsed() < socket::DRAIN
    };
    assert!((0..5).any(|_| ended_at_once()));
}

#[test]
fn a_stuck_exchange_is_cut_in_time() {
    let host = start(settings());
    let mut waiting = host.send(WAIT);
    assert_eq!(host.next(), request("/wait"));
    let (start, within) = (Instant::now(), Duration::from_millis(200));
    host.serving.end(within);
    assert!(start.elapsed() >= within);
    assert_eq!(host.seen.try_recv(), Ok(Seen::Over));
    assert_eq!(rest(&mut waiting), "");
}

/// A request of which a part has come is no exchange yet, and has its time.
#[test]
fn a_half_sent_head_does_not_hold_up_the_end_for_longer_than_allowed() {
    let host = start(settings());
    let mut half = host.send("GET /half");
    host.wait_for_open(1);
    host.serving.end(Duration::from_millis(200));
    assert_eq!(rest(&mut half), "");
}

#[test]
fn with_nobody_connected_the_end_is_immediate() {
    let host = start(settings());
    let start = Instant::now();
    host.serving.end(LONG);
    assert!(start.elapsed() < LONG / 2);
}

/// No timer and no thread is left then; `end` must neither panic nor wait.
#[test]
fn the_runtime_may_end_first() {
    let host = start(settings());
    let mut waiting = host.send(WAIT);
    assert_eq!(host.next(), request("/wait"));
    drop(host.runtime);
    assert_eq!(rest(&mut waiting), "");
    let start = Instant::now();
    host.serving.end(LONG);
    assert!(start.elapsed() < LONG / 2);
}

#[test]
fn a_server_that_is_dropped_cuts_its_connections() {
    let host = start(settings());
    let mut waiting = host.send(WAIT);
    assert_eq!(host.next(), request("/wait"));
    drop(host.serving);
    assert_eq!(rest(&mut waiting), "");
}
