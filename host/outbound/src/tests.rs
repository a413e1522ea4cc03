//! Requests to a server on this machine, and what a plugin hears of each.

#![expect(clippy::unwrap_used, reason = "tests may panic")]

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use http::HeaderName;
use sagahost_manifest::{
    http::{Answer, Failure, Grant, Request, Target},
    sends::Send,
};
use sagahost_net::{Runtime, Secret, SentHeader};
use sagahost_saga::{
    event::Event,
    id::{Direction, EventKey, SagaId, Time},
    outcome::{Behaviour, Call, Runs},
};
use tokio::sync::watch;

use crate::{GrantSettings, senders::Line};

/// Answers each connection with the same bytes, and says what it was asked.
fn server(answer: &'static str, wait: Duration) -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (asked, heard) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
            while !whole(&request) {
                let read = stream.read(&mut buffer).unwrap_or(0);
                if read == 0 {
                    break;
                }
                request.extend_from_slice(&buffer[..read]);
            }
            if asked.send(String::from_utf8_lossy(&request).into_owned()).is_err() {
                return;
            }
            thread::sleep(wait);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (address, heard)
}

fn whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    body.len() >= length.unwrap_or(0)
}

const OK: &str = "HTTP/1.1 201 Created\r\nx-id: 7\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}";

fn granted(url: &str, networks: &[&str]) -> GrantSettings {
    let authorization = SentHeader {
        name: HeaderName::from_static("authorization"),
        value: Secret::new("Bearer s3cret-of-the-shop"),
        shown: "(env TOKEN)".to_owned(),
    };
    GrantSettings {
        grant: Grant::parse(url).unwrap(),
        headers: vec![authorization],
        allow_networks: networks.iter().map(|network| network.parse().unwrap()).collect(),
        timeout: Duration::from_millis(400),
        calls_at_once_max: 4,
    }
}

fn call() -> Call {
    Call {
        participant: "payment".into(),
        step_id: "payment:e".into(),
        direction: Direction::Forward,
        ordinal: 0,
        attempt: 2,
        idempotency_key: "k".into(),
        event: Event {
            key: EventKey::new("s", "e"),
            saga: SagaId::new("o-1"),
            kind: "OrderCreated".into(),
            time: Time(0),
            content_type: "application/json".into(),
            data: (*b"{}").into(),
            attributes: vec![("traceparent".into(), "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into())],
            hops: 0,
            origin: None,
            record_key: None,
        },
        state: None,
        undo: None,
        now: Time(0),
        runs: Runs::Outside,
        send: 1,
    }
}

fn request(url: String) -> Request {
    let headers = vec![("x-a".into(), "1".into()), ("x-a".into(), "2".into())];
    Request { method: "POST".into(), url, headers, body: b"{\"cents\":1}".to_vec(), timeout_ms: None }
}

fn sent(settings: &GrantSettings, request: Request) -> Answer {
    let line = Line::new(settings, settings.headers.clone(), 300).unwrap();
    let target = Target::parse(&request.url).unwrap();
    let send = Send { request, key: "the-key".into(), by: Behaviour::default() };
    let (_keep, stopping) = watch::channel(false);
    Runtime::start().unwrap().block_on(line.send(&target, &send, &call(), stopping))
}

fn code(answer: Answer) -> (bool, String) {
    let Err(Failure { sent, code, detail }) = answer else { panic!("it was answered: {answer:?}") };
    assert!(!detail.contains("s3cret"), "{detail}");
    (sent, code)
}

#[test]
fn a_request_goes_out_with_what_the_host_and_the_operator_add() {
    let (address, heard) = server(OK, Duration::ZERO);
    let url = format!("http://{address}/v1");
    let answer = sent(&granted(&url, &["127.0.0.1/32"]), request(format!("{url}/charges?x=1"))).unwrap();
    assert_eq!((answer.status, answer.body.as_slice()), (201, &b"{}"[..]));
    assert_eq!(answer.headers, [("x-id".to_owned(), "7".to_owned()), ("content-length".to_owned(), "2".to_owned())]);
    let asked = heard.recv().unwrap();
    let lines: Vec<&str> = asked.lines().collect();
    assert_eq!(lines[0], "POST /v1/charges?x=1 HTTP/1.1");
    for line in [
        "x-a: 1",
        "x-a: 2",
        "accept-encoding: identity",
        "idempotency-key: the-key",
        "sagahost-attempt: 2",
        "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "authorization: Bearer s3cret-of-the-shop",
        "{\"cents\":1}",
    ] {
        assert!(lines.contains(&line), "no `{line}` in {lines:?}");
    }
}

#[test]
fn an_address_is_asked_only_where_it_may_be_whatever_it_is_called() {
    let (address, heard) = server(OK, Duration::ZERO);
    for host in ["127.0.0.1", "localhost", "LOCALHOST", "[::ffff:127.0.0.1]"] {
        let url = format!("http://{host}:{}/", address.port());
        let answer = sent(&granted(&url, &[]), request(url.clone()));
        assert_eq!(code(answer), (false, "forbidden-address".to_owned()), "{host}");
        let other = sent(&granted(&url, &["10.0.0.0/8"]), request(url.clone()));
        assert_eq!(code(other), (false, "forbidden-address".to_owned()), "{host}");
    }
    // Other spellings of it are names that nobody has, or that the system reads as addresses: those are looked at, too.
    for host in ["localhost.", "127.0.0.1.", "127.1", "2130706433", "0x7f.1", "0177.0.0.1"] {
        let url = format!("http://{host}:{}/", address.port());
        let (sent, _) = code(sent(&granted(&url, &[]), request(url.clone())));
        assert!(!sent, "{host}");
    }
    assert!(heard.try_recv().is_err(), "nobody was asked");
    let url = format!("http://localhost:{}/", address.port());
    assert_eq!(sent(&granted(&url, &["127.0.0.0/8"]), request(url.clone())).unwrap().status, 201);
}

#[test]
fn a_plugin_hears_whether_its_request_can_have_arrived() {
    let url = |address: SocketAddr| format!("http://{address}/");
    let networks: &[&str] = &["127.0.0.0/8"];
    let asked = |answer: &'static str, wait: Duration, change: &dyn Fn(&mut Request)| {
        let (address, _heard) = server(answer, wait);
        let mut request = request(url(address));
        change(&mut request);
        code(sent(&granted(&url(address), networks), request))
    };
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_eq!(code(sent(&granted(&url(free), networks), request(url(free)))), (false, "unreachable".to_owned()));
    let same = |_: &mut Request| {};
    assert_eq!(asked(OK, Duration::from_secs(2), &same), (true, "timeout".to_owned()));
    assert_eq!(
        asked(OK, Duration::from_millis(200), &|request| request.timeout_ms = Some(50)),
        (true, "timeout".to_owned()),
        "it may have less patience than it is allowed"
    );
    assert_eq!(asked("", Duration::ZERO, &same), (true, "no-answer".to_owned()));
    let cut = "HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\nabc";
    assert_eq!(asked(cut, Duration::ZERO, &same), (true, "answer-cut".to_owned()));
    let long = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n\
        0123456789012345678901234567890123456789012345678901234567890123456789\
        0123456789012345678901234567890123456789012345678901234567890123456789\
        0123456789012345678901234567890123456789012345678901234567890123456789\
        0123456789012345678901234567890123456789012345678901234567890123456789\
        0123456789012345678901234567890123456789012345678901234567890123456789";
    assert_eq!(asked(long, Duration::ZERO, &same), (true, "answer-too-long".to_owned()));
    let heads = "HTTP/1.1 200 OK\r\na: 1\r\nb: 2\r\nc: 3\r\nd: 4\r\ne: 5\r\nconnection: close\r\n\r\n";
    assert_eq!(asked(heads, Duration::ZERO, &same), (true, "answer-too-long".to_owned()), "headers count");
    let echo = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nyou are s3cret-of-the-shop";
    assert_eq!(asked(echo, Duration::ZERO, &same), (true, "secret-echoed".to_owned()));
}

#[test]
fn a_redirect_is_an_answer_like_any_other() {
    let (address, heard) = server(
        "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
        Duration::ZERO,
    );
    let url = format!("http://{address}/");
    let answer = sent(&granted(&url, &["127.0.0.0/8"]), request(url.clone())).unwrap();
    assert_eq!(answer.status, 302);
    assert!(heard.recv().is_ok() && heard.try_recv().is_err());
}
