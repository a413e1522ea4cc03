//! A request's way through socket and desk, with a journal of its own, and what happens to a bad one.

#![expect(clippy::unwrap_used, reason = "tests may panic")]

mod crowds;

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::Path,
    sync::Arc,
    time::Duration,
};

use expect_test::expect;
use parking_lot::Mutex;
use sagahost_codec::TopicSettings;
use sagahost_journal_sqlite::{OpenOptions, SqliteJournal};
use sagahost_saga::{
    id::{Participant, SagaId},
    input::{Answer, Command},
};
use sagahost_transport_embedded::EmbeddedTransport;
use sagahost_wire::{Outgoing, Partition, StoredLetter};

use super::{
    Live, LiveStatus, OutboxAction, PluginAction, ResumeFrom,
    client::{Client, ClientError},
    desk::Desk,
    plugin_view::PluginsView,
    protocol::{LetterSelection, Refusal, Reply, Request},
    server::Server,
    socket,
    view::{Done, Placed, SagaPage, StatusView},
};
use crate::settings::{AdminSettings, Settings};

/// Notes what it is asked for.
#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Live for Told {
    fn command(&self, saga: &SagaId, command: Command) -> Result<Answer, Refusal> {
        self.0.lock().push(format!("{saga}: {command:?}"));
        Ok(Answer { done: true, text: "the saga is cancelled".to_owned() })
    }
    fn outbox(&self, _: OutboxAction) -> Result<Answer, Refusal> {
        Ok(Answer { done: false, text: "no outbox row is refused".to_owned() })
    }
    fn redrive_record(&self, _: StoredLetter) -> Result<Answer, Refusal> {
        Err(Refusal::invalid("not in this test"))
    }
    fn discard_record(&self, _: StoredLetter, _: String, _: String) -> Result<Answer, Refusal> {
        Err(Refusal::invalid("not in this test"))
    }
    fn resume(&self, partition: &Partition, from: Option<ResumeFrom>) -> Result<Answer, Refusal> {
        self.0.lock().push(format!("{partition}: {from:?}"));
        Err(Refusal::not_found("it is not held"))
    }
    fn change_plugin(&self, plugin: &Participant, action: PluginAction) -> Result<Answer, Refusal> {
        self.0.lock().push(format!("{plugin}: {action:?}"));
        Err(Refusal::invalid("not in this test"))
    }
    fn reload_config(&self) -> Result<Answer, Refusal> {
        Err(Refusal::invalid("not in this test"))
    }
    fn plugins(&self) -> PluginsView {
        PluginsView::default()
    }
    fn status(&self) -> LiveStatus {
        LiveStatus { batch: 7, published: 6, waiting_for: vec!["the broker".to_owned()], ..LiveStatus::default() }
    }
}

fn desk(dir: &Path, live: Option<Arc<dyn Live>>) -> Desk {
    let app = "sagahost";
    let settings = Settings {
        app: app.into(),
        data_dir: dir.to_owned(),
        plugins_dir: dir.join("plugins"),
        service_manifests: Vec::new(),
        topics: TopicSettings::of_app(app),
        record_bytes_max: 1_000_000,
        create_topics: true,
        partitions: 4,
        configured: BTreeMap::new(),
        way: String::new(),
        admin: AdminSettings::default(),
    };
    let journal = SqliteJournal::open(dir, app, OpenOptions::default()).unwrap();
    let transport = EmbeddedTransport::open(dir, app).unwrap();
    Desk { settings, journal: Arc::new(journal), transport: Arc::new(transport), live }
}

fn client(settings: &Settings) -> Client {
    Client::connect(&socket::find(settings).unwrap(), Duration::from_secs(10)).unwrap().unwrap()
}

fn cancel() -> Request {
    let command = Command::Cancel { by: "ann".to_owned(), reason: "twice".to_owned() };
    Request::Command { saga: SagaId::new("o-1"), command }
}

#[test]
fn requests_reach_the_running_host_through_the_socket() {
    let dir = tempfile::tempdir().unwrap();
    let told = Arc::new(Told::default());
    let desk = desk(dir.path(), Some(told.clone()));
    let settings = desk.settings.clone();
    let server = Server::start(desk).unwrap();
    let mode = std::fs::metadata(server.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let mut client = client(&settings);
    let done: Done = serde_json::from_value(client.ask(&cancel()).unwrap()).unwrap();
    assert_eq!((done.done, done.queued, done.text.as_str()), (true, false, "the saga is cancelled"));
    expect![[r#"
        [
            "o-1: Cancel { by: \"ann\", reason: \"twice\" }",
        ]
    "#]]
    .assert_debug_eq(&*told.0.lock());
    let status: StatusView = serde_json::from_value(client.ask(&Request::Status).unwrap()).unwrap();
    assert_eq!((status.running, status.batch, status.waiting_for), (true, 7, vec!["the broker".to_owned()]));
    let missing = Outgoing { topic: "order-creatd".into(), key: None, value: Some(b"{}".to_vec()), headers: vec![] };
    let refused = client.ask(&Request::Emit { record: missing, kind: None }).unwrap_err();
    expect!["the record for topic order-creatd was refused: there is no such topic; make it with `sagahost topics create order-creatd`"].assert_eq(&refused.to_string());
    client.ask(&Request::CreateTopics { names: vec!["order-created".to_owned()], partitions: 2 }).unwrap();
    let record = Outgoing { topic: "order-created".into(), key: None, value: Some(b"{}".to_vec()), headers: vec![] };
    let placed: Placed = serde_json::from_value(client.ask(&Request::Emit { record, kind: None }).unwrap()).unwrap();
    assert_eq!((placed.topic.as_str(), placed.offset), ("order-created", 0));
    let page: SagaPage = serde_json::from_value(
        client.ask(&Request::Sagas { status: None, notes: vec![], before: None, limit: 10 }).unwrap(),
    )
    .unwrap();
    assert_eq!(page.sagas, []);
    let refused = client.ask(&Request::Saga { id: SagaId::new("o-9") }).unwrap_err();
    assert!(matches!(refused, ClientError::Refused(_)));
    expect!["there is no saga o-9 in app sagahost"].assert_eq(&refused.to_string());

    drop(server);
    assert!(Client::connect(&socket::find(&settings).unwrap(), Duration::from_secs(1)).unwrap().is_none());
}

#[test]
fn a_bad_request_is_answered_and_a_long_one_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let mut desk = desk(dir.path(), None);
    desk.settings.admin.request_bytes_max = 2000;
    let server = Server::start(desk).unwrap();
    let mut stream = UnixStream::connect(server.path()).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    stream.write_all(b"{\"request\":\"fly\"}\n").unwrap();
    let line = lines.next().unwrap().unwrap();
    assert!(
        line.starts_with(r#"{"refused":{"why":"invalid","text":"failed to read the request: unknown variant `fly`"#),
        "{line}"
    );
    stream.write_all(&[b' '; 3000]).unwrap();
    expect![[r#"{"refused":{"why":"invalid","text":"a request has at most 2000 bytes"}}"#]]
        .assert_eq(&lines.next().unwrap().unwrap());
}

#[test]
fn without_a_host_a_command_is_journaled() {
    let dir = tempfile::tempdir().unwrap();
    let desk = desk(dir.path(), None);
    let Reply::Ok(value) = desk.reply(cancel()) else { panic!("it is refused") };
    let done: Done = serde_json::from_value(value).unwrap();
    assert!(done.done && done.queued);
    expect!["no host is running: journaled `cancel by ann`; it takes effect when the host starts"]
        .assert_eq(&done.text);
    assert_eq!(desk.journal.queued_commands().unwrap().len(), 1);
    let retry = Request::Command { saga: SagaId::new("o-1"), command: Command::Retry { by: "ann".to_owned() } };
    let Reply::Refused(refusal) = desk.reply(retry) else { panic!("there is no such saga") };
    expect!["there is no saga o-1 in app sagahost"].assert_eq(&refusal.text);
    let all = Request::Redrive { of: LetterSelection::default(), by: "ann".to_owned(), dry_run: true };
    let Reply::Refused(refusal) = desk.reply(all) else { panic!("there is no letter") };
    expect!["no open dead letter matches"].assert_eq(&refusal.text);
}

#[test]
fn a_long_data_directory_has_its_socket_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("d".repeat(120));
    std::fs::create_dir_all(&deep).unwrap();
    let desk = desk(&deep, None);
    let settings = desk.settings.clone();
    let server = Server::start(desk).unwrap();
    let path = server.path().to_owned();
    assert!(socket::fits(&path));
    assert_eq!(socket::find(&settings).unwrap(), path);
    let status = client(&settings).ask(&Request::Status).unwrap();
    assert_eq!(status["running"], false);
    let dir = path.parent().unwrap();
    match std::os::unix::fs::chown(dir, Some(54_321), None) {
        // A host that was killed leaves its directory behind, and others may have one of that name later.
        Ok(()) => {
            let error = socket::find(&settings).unwrap_err().to_string();
            assert!(error.contains("belongs to user 54321, the data directory to user 0"), "{error}");
            std::os::unix::fs::chown(dir, Some(0), None).unwrap();
        }
        // Not by a macro, whose output a test that passes does not show.
        Err(_) => {
            let text = b"NOT SHOWN (needs root): the socket in another user's directory is not used\n";
            std::io::Write::write_all(&mut std::io::stderr(), text).unwrap();
        }
    }
    drop(server);
    assert!(!path.exists() && !path.parent().unwrap().exists() && !deep.join("socket").exists());
}

#[test]
fn a_socket_that_was_left_behind_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let desk = desk(dir.path(), None);
    let path = dir.path().canonicalize().unwrap().join("admin.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(Client::connect(&path, Duration::from_secs(1)).unwrap().is_none());
    let first = Server::start(desk.clone()).unwrap();
    let second = Server::start(desk).err().unwrap();
    assert!(second.to_string().contains("another host serves there"), "{second}");
    drop(first);
}

#[test]
fn requests_are_read_as_they_are_written() {
    let of = LetterSelection { code: Some("trap".to_owned()), limit: 5, ..LetterSelection::default() };
    for request in [
        cancel(),
        Request::Redrive { of: of.clone(), by: "ann".to_owned(), dry_run: true },
        Request::Discard { of, by: "ann".to_owned(), reason: "old".to_owned() },
        Request::Topics,
    ] {
        let text = serde_json::to_string(&request).unwrap();
        assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request, "{text}");
    }
    expect![[r#"{"request":"command","saga":"o-1","command":"cancel","by":"ann","reason":"twice"}"#]]
        .assert_eq(&serde_json::to_string(&cancel()).unwrap());
}
