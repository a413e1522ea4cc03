//! Many connections on the real socket, and slow ones: an operator is answered beside all of them.

use std::{
    io::{ErrorKind, Read as _},
    net::Shutdown,
    thread,
    time::Instant,
};

use super::*;

/// What an operator may have to wait beside others who do nothing. (Measured: a few milliseconds.)
const AT_ONCE: Duration = Duration::from_secs(5);

fn server(change: impl FnOnce(&mut AdminSettings)) -> (tempfile::TempDir, Server, Settings) {
    let dir = tempfile::tempdir().unwrap();
    let mut desk = desk(dir.path(), None);
    change(&mut desk.settings.admin);
    let settings = desk.settings.clone();
    (dir, Server::start(desk).unwrap(), settings)
}

fn connect(server: &Server, sent: &[u8]) -> UnixStream {
    let mut stream = UnixStream::connect(server.path()).unwrap();
    stream.write_all(sent).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream
}

fn answered_at_once(settings: &Settings) {
    let begun = Instant::now();
    let status = client(settings).ask(&Request::Status).unwrap();
    assert_eq!(status["running"], false);
    assert!(begun.elapsed() < AT_ONCE, "answered after {:?}", begun.elapsed());
}

/// All that the host says until it closes the connection.
fn last_words(mut stream: &UnixStream) -> String {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        // Something that was sent meanwhile was not read any more; what was answered before that is here.
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        read => drop(read.unwrap()),
    }
    String::from_utf8(bytes).unwrap()
}

/// What the host has said; None: nothing, and the connection is open.
fn said(mut stream: &UnixStream) -> Option<String> {
    stream.set_nonblocking(true).unwrap();
    let mut text = String::new();
    let open = matches!(stream.read_to_string(&mut text), Err(error) if error.kind() == ErrorKind::WouldBlock);
    stream.set_nonblocking(false).unwrap();
    (!open || !text.is_empty()).then_some(text)
}

/// Clients and host are in one process here, and a machine may allow 1,024 open files.
#[expect(unsafe_code, reason = "the standard library does not set limits")]
fn allow_open_files() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls get a valid pointer to a value of their own type.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit), 0);
        limit.rlim_cur = limit.rlim_max.min(limit.rlim_cur.max(8192));
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
    }
}

#[test]
fn idle_connections_keep_nobody_out() {
    allow_open_files();
    let (_dir, server, settings) = server(|_| {});
    for crowd in [16, 100, 1000] {
        let idle: Vec<_> = (0..crowd).map(|_| connect(&server, b"")).collect();
        answered_at_once(&settings);
        let gone: Vec<_> = idle.iter().map_while(said).collect();
        // The operator had a place, too.
        assert!(crowd - gone.len() <= settings.admin.connections_max, "{} of {crowd} are closed", gone.len());
        assert!(idle[gone.len()..].iter().all(|stream| said(stream).is_none()), "the oldest go");
        if let Some(last_word) = gone.first() {
            expect![[r#"
                {"refused":{"why":"unavailable","text":"other connections needed the room, and this one had waited longest: try again"}}
            "#]]
            .assert_eq(last_word);
        }
    }
}

#[test]
fn operator_is_answered_while_connections_pour_in() {
    allow_open_files();
    let (_dir, server, settings) = server(|_| {});
    let path = server.path().to_owned();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let flood = thread::spawn(move || {
        let mut open = std::collections::VecDeque::new();
        let mut made = 0;
        while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            open.push_back(UnixStream::connect(&path).unwrap());
            made += 1;
            if open.len() > 500 {
                open.pop_front();
            }
        }
        made
    });
    (0..10).for_each(|_| answered_at_once(&settings));
    drop(stop);
    let made = flood.join().unwrap();
    assert!(made > settings.admin.connections_max, "{made} connections are too few to be a flood");
}

#[test]
fn half_sent_requests_keep_nobody_out() {
    let (_dir, server, settings) = server(|_| {});
    let half: Vec<_> = (0..200).map(|_| connect(&server, b"{\"request\":\"sta")).collect();
    answered_at_once(&settings);
    let text = last_words(&half[0]);
    assert!(text.contains("other connections needed the room"), "{text}");
    let mut newest = half.last().unwrap();
    newest.write_all(b"tus\"}\n").unwrap();
    newest.shutdown(Shutdown::Write).unwrap();
    let text = last_words(newest);
    assert!(text.starts_with(r#"{"ok":"#), "the newest may still be sent to its end: {text}");
}

#[test]
fn idle_connection_ends() {
    let (_dir, server, _) = server(|admin| admin.idle_timeout = Duration::from_millis(100));
    expect![[r#"
        {"refused":{"why":"timed-out","text":"no request came within 100ms"}}
    "#]]
    .assert_eq(&last_words(&connect(&server, b"")));
    // Behind an answer, too.
    let text = last_words(&connect(&server, b"{\"request\":\"status\"}\n"));
    assert!(text.starts_with(r#"{"ok":"#) && text.contains("no request came within 100ms"), "{text}");
}

#[test]
fn trickled_request_ends_with_the_time_of_a_request() {
    let (_dir, server, settings) = server(|admin| {
        admin.request_timeout = Duration::from_millis(500);
        admin.connections_max = 8;
    });
    let trickles: Vec<_> = (0..16).map(|_| connect(&server, b"{")).collect();
    let begun = Instant::now();
    let mut newest = trickles.last().unwrap();
    // Ends when the host has closed it.
    while newest.write_all(b" ").is_ok() {
        assert!(begun.elapsed() < AT_ONCE, "it never ends");
        answered_at_once(&settings);
    }
    assert!(begun.elapsed() >= Duration::from_millis(400), "it ended after {:?}", begun.elapsed());
    let text = last_words(newest);
    assert!(text.contains("not complete within 500ms: nothing was done"), "{text}");
}

#[test]
fn bytes_of_all_requests_are_bounded() {
    let (_dir, server, settings) = server(|admin| {
        admin.request_bytes_max = 1 << 20;
        admin.requests_bytes_max = 2 << 20;
    });
    let half = [vec![b'{'; 1], vec![b' '; 900 << 10]].concat();
    let large: Vec<_> = (0..4).map(|_| connect(&server, &half)).collect();
    for first in &large[..2] {
        let text = last_words(first);
        assert!(text.contains("other connections needed the room"), "{text}");
    }
    assert_eq!(said(&large[3]), None);
    answered_at_once(&settings);
}

#[test]
fn client_is_told_that_its_request_is_too_long() {
    let (_dir, _server, settings) = server(|admin| admin.request_bytes_max = 100_000);
    let value = Some(vec![b'x'; 1 << 20]);
    let record = Outgoing { topic: "order-created".into(), key: None, value, headers: vec![] };
    let refused = client(&settings).ask(&Request::Emit { record, kind: None }).unwrap_err();
    expect!["a request has at most 100000 bytes"].assert_eq(&refused.to_string());
}
