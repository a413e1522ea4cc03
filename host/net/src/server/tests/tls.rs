//! TLS, and who a client is. The certificates are made by `openssl`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tempfile::TempDir;

use super::*;
use crate::Subject;

const GET: &str = "GET / HTTP/1.1\r\nhost: h\r\n\r\n";

/// Authorities `ca` and `other`, each with a certificate that it signed.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        let files = Self(TempDir::new().unwrap());
        for ca in ["ca", "other"] {
            files.openssl(&format!("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN={ca} -keyout {ca}.key -out {ca}.pem"));
        }
        fs::write(files.path("ext"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n").unwrap();
        files.sign("ca", "server", "/CN=server");
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// What it printed.
    fn openssl(&self, arguments: &str) -> String {
        let mut command = Command::new("openssl");
        let ran = command.args(arguments.split(' ')).current_dir(&self.0).output().expect("openssl is installed");
        assert!(ran.status.success(), "{arguments}: {}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8(ran.stdout).expect("it is text")
    }

    fn sign(&self, ca: &str, name: &str, subject: &str) {
        self.openssl(&format!("req -new -utf8 -multivalue-rdn -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj {subject} -keyout {name}.key -out {name}.csr"));
        self.openssl(&format!("x509 -req -in {name}.csr -CA {ca}.pem -CAkey {ca}.key -CAcreateserial -days 30 -extfile ext -out {name}.pem"));
    }

    fn settings(&self) -> TlsSettings {
        TlsSettings { certificate: self.path("server.pem"), key: self.path("server.key"), client_ca: None }
    }

    fn with_clients(&self) -> TlsSettings {
        TlsSettings { client_ca: Some(self.path("ca.pem")), ..self.settings() }
    }

    /// One that trusts `ca`, and shows the certificate of this name.
    fn client(&self, shows: Option<&str>) -> ClientConfig {
        let mut trusted = RootCertStore::empty();
        trusted.add(CertificateDer::from_pem_file(self.path("ca.pem")).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(trusted);
        match shows {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let certificate = CertificateDer::from_pem_file(self.path(&format!("{name}.pem"))).unwrap();
                let key = PrivateKeyDer::from_pem_file(self.path(&format!("{name}.key"))).unwrap();
                builder.with_client_auth_cert(vec![certificate], key).unwrap()
            }
        }
    }
}

fn serve(tls: TlsSettings) -> Host {
    start(ServerSettings { tls: Some(tls), ..settings() })
}

fn connect(host: &Host, client: ClientConfig) -> StreamOwned<ClientConnection, TcpStream> {
    let name = "localhost".try_into().unwrap();
    StreamOwned::new(ClientConnection::new(Arc::new(client), name).unwrap(), host.connect())
}

/// The subject that the service saw, or why there was no answer.
fn ask(host: &Host, client: ClientConfig) -> Result<Option<String>, String> {
    let mut stream = connect(host, client);
    let asked = stream.write_all(GET.as_bytes()).and_then(|()| stream.read_exact(&mut [0; 12]));
    asked.map_err(|error| error.to_string())?;
    let Seen::Request(_, subject) = host.next() else { panic!("it is the first that is seen") };
    assert_eq!(host.next(), Seen::Over);
    Ok(subject)
}

#[test]
fn both_versions_are_served_and_http_1_1_is_chosen() {
    let files = Files::new();
    let host = serve(files.settings());
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut trusted = RootCertStore::empty();
        trusted.add(CertificateDer::from_pem_file(files.path("ca.pem")).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_protocol_versions(&[version]).unwrap().with_root_certificates(trusted);
        let mut client = builder.with_no_client_auth();
        client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let mut stream = connect(&host, client);
        for _ in 0..2 {
            stream.write_all(GET.as_bytes()).unwrap();
            assert_eq!(answer(&mut stream).0, 200);
        }
        assert_eq!(stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
        assert_eq!(stream.conn.protocol_version(), Some(version.version));
    }
    let mut client = files.client(None);
    client.alpn_protocols = vec![b"h2".to_vec()];
    ask(&host, client).unwrap_err();
}

#[test]
fn a_client_without_tls_is_refused() {
    let files = Files::new();
    let host = serve(files.settings());
    let text = {
        let (mut stream, mut text) = (host.send(GET), Vec::new());
        let _ = stream.read_to_end(&mut text);
        text
    };
    assert!(!text.starts_with(b"HTTP"), "{text:?}");
    host.wait_for_open(0);
    assert_eq!(host.served(), [""; 0]);
}

#[test]
fn a_handshake_has_its_time_and_its_place() {
    let files = Files::new();
    let tls = Some(files.settings());
    let host =
        start(ServerSettings { tls, connections_max: 1, header_timeout: Duration::from_millis(300), ..settings() });
    let mut silent = host.connect();
    host.wait_for_open(1);
    assert_eq!(rest(&mut host.connect()), "");
    assert_eq!(rest(&mut silent), "");
    host.wait_for_open(0);
}

/// An idle one too: what a connection may wait does not depend on TLS.
#[test]
fn a_connection_that_idles_ends() {
    let files = Files::new();
    let host =
        start(ServerSettings { tls: Some(files.settings()), header_timeout: Duration::from_millis(300), ..settings() });
    let mut stream = connect(&host, files.client(None));
    stream.write_all(GET.as_bytes()).unwrap();
    answer(&mut stream);
    // It says that it ends, so that a client knows that nothing was cut off.
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    host.wait_for_open(0);
}

#[test]
fn the_end_does_not_wait_for_handshakes() {
    let files = Files::new();
    let host = serve(files.settings());
    let mut silent = host.connect();
    host.wait_for_open(1);
    let start = Instant::now();
    host.serving.end(LONG);
    assert!(start.elapsed() < LONG / 2);
    assert_eq!(rest(&mut silent), "");
}

#[test]
fn the_service_sees_whose_certificate_it_is() {
    let files = Files::new();
    let host = serve(files.with_clients());
    assert_eq!(ask(&host, files.client(None)), Ok(None));
    for (number, (subject, expected)) in [
        ("/C=CH/O=Shop/OU=Orders/CN=cart", "CN=cart,OU=Orders,O=Shop,C=CH"),
        // Nobody becomes another one by what their name contains.
        ("/O=Shop/CN=cart,O=Bank", "CN=cart\\,O\\=Bank,O=Shop"),
        ("/CN=#a\\+\"b;<c>\\\\", "CN=\\#a\\+\\\"b\\;\\<c\\>\\\\"),
        ("/O=Käserei/CN=a+UID=7", "CN=a+UID=7,O=Käserei"),
        ("/DC=test/DC=shop/CN=cart", "CN=cart,DC=shop,DC=test"),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("client{number}");
        files.sign("ca", &name, subject);
        let seen = ask(&host, files.client(Some(&name))).map(|seen| seen.unwrap_or_default());
        assert_eq!(seen, Ok(expected.replace("\\=", "=")), "{subject}");
    }
}

/// As `openssl` prints a subject it may be written down, whatever is in it.
#[test]
fn a_subject_is_the_same_however_it_is_spelled() {
    let files = Files::new();
    let of = |number: usize, subject: &str| {
        let name = format!("client{number}");
        files.sign("ca", &name, subject);
        let certificate = CertificateDer::from_pem_file(files.path(&format!("{name}.pem"))).unwrap();
        let printed = files.openssl(&format!("x509 -in {name}.pem -noout -subject -nameopt RFC2253"));
        let printed: Subject = printed.trim().strip_prefix("subject=").unwrap().parse().unwrap();
        let shown = crate::peer::subject(&certificate).unwrap().unwrap();
        assert_eq!(shown, printed, "{subject}");
        shown
    };
    let subjects = [
        "/C=CH/O=Shop/OU=Orders/CN=cart",
        "/O=Käserei/CN=Zoë+UID=7",
        "/DC=test/DC=shop/CN=cart/emailAddress=cart@shop.test",
        "/CN=#a\\+\"b;<c>\\\\",
        "/O=Shop/CN=cart,O=Bank",
        "/O=Shop/serialNumber=42/CN=cart",
    ];
    let shown: Vec<_> = subjects.iter().enumerate().map(|(number, subject)| of(number, subject)).collect();
    let spelled = |text: &str| text.parse::<Subject>().unwrap();
    assert_eq!(shown[0], spelled("cn=cart,ou=Orders,o=Shop,c=CH"));
    assert_eq!(shown[1], spelled("UID=7+CN=Zoë,O=Käserei"));
    for other in ["CN=cart,OU=orders,O=Shop,C=CH", "C=CH,O=Shop,OU=Orders,CN=cart", "CN=cart,OU=Orders,O=Shop"] {
        assert_ne!(shown[0], spelled(other), "{other}");
    }
    assert_ne!(shown[4], spelled("CN=cart,O=Bank,O=Shop"), "nobody becomes another one by what a name contains");
    for wrong in ["cart", "CN", "X=1"] {
        assert!(wrong.parse::<Subject>().is_err(), "{wrong}");
    }
}

#[test]
fn a_certificate_that_another_authority_signed_is_refused() {
    let files = Files::new();
    let host = serve(files.with_clients());
    files.sign("other", "stranger", "/CN=cart");
    let why = ask(&host, files.client(Some("stranger"))).unwrap_err();
    assert!(why.contains("UnknownCA"), "{why}");
    assert_eq!(host.served(), [""; 0]);
}

/// Without an authority nobody is asked for a certificate, and nobody has a subject.
#[test]
fn a_certificate_that_nobody_verifies_is_no_subject() {
    let files = Files::new();
    let host = serve(files.settings());
    files.sign("ca", "client", "/CN=cart");
    assert_eq!(ask(&host, files.client(Some("client"))), Ok(None));
}

fn replace(files: &Files, from: &str, to: &str) {
    for end in ["pem", "key"] {
        fs::rename(files.path(&format!("{from}.{end}")), files.path(&format!("{to}.{end}"))).unwrap();
    }
}

#[test]
fn a_replaced_certificate_is_shown_to_the_next_client() {
    let files = Files::new();
    let host = serve(files.with_clients());
    let shown = || {
        let mut stream = connect(&host, files.client(None));
        stream.write_all(GET.as_bytes()).unwrap();
        answer(&mut stream);
        let chain = stream.conn.peer_certificates().unwrap();
        crate::peer::subject(&chain[0]).unwrap().unwrap().to_string()
    };
    assert_eq!(shown(), "CN=server");
    files.sign("ca", "next", "/CN=next");
    replace(&files, "next", "server");
    assert_eq!(shown(), "CN=next");
    // One that cannot be loaded changes nothing, nor one without its key.
    fs::write(files.path("server.pem"), "nothing").unwrap();
    assert_eq!(shown(), "CN=next");
    fs::remove_file(files.path("server.pem")).unwrap();
    assert_eq!(shown(), "CN=next");
    files.sign("ca", "last", "/CN=last");
    fs::rename(files.path("last.pem"), files.path("server.pem")).unwrap();
    assert_eq!(shown(), "CN=next");
    fs::rename(files.path("last.key"), files.path("server.key")).unwrap();
    assert_eq!(shown(), "CN=last");
}

#[test]
fn a_replaced_authority_decides_on_the_next_client() {
    let files = Files::new();
    fs::copy(files.path("ca.pem"), files.path("clients.pem")).unwrap();
    let host = serve(TlsSettings { client_ca: Some(files.path("clients.pem")), ..files.settings() });
    files.sign("ca", "client", "/CN=cart");
    // One configuration resumes its session if the server allows it.
    let client = files.client(Some("client"));
    assert_eq!(ask(&host, client.clone()), Ok(Some("CN=cart".to_owned())));
    assert_eq!(ask(&host, client.clone()), Ok(Some("CN=cart".to_owned())));
    fs::copy(files.path("other.pem"), files.path("clients.pem")).unwrap();
    ask(&host, client).unwrap_err();
}

#[test]
fn keys_of_each_format_are_loaded() {
    let files = Files::new();
    files.openssl("ecparam -genkey -name prime256v1 -out sec1.key");
    files.openssl("genrsa -traditional -out pkcs1.key 2048");
    files.openssl("pkcs8 -topk8 -nocrypt -in sec1.key -out pkcs8.key");
    for (key, begin) in [("sec1", "BEGIN EC PRIVATE"), ("pkcs1", "BEGIN RSA PRIVATE"), ("pkcs8", "BEGIN PRIVATE")] {
        let path = files.path(&format!("{key}.key"));
        assert!(fs::read_to_string(&path).unwrap().contains(begin), "{key}");
        files.openssl(&format!("req -x509 -new -key {key}.key -days 30 -subj /CN=x -out {key}.pem"));
        let settings = TlsSettings { certificate: files.path(&format!("{key}.pem")), key: path, client_ca: None };
        settings.check().unwrap();
    }
}

/// The whole chain of causes, with names of files and not of directories.
fn fault(files: &Files, settings: &TlsSettings) -> String {
    let error = settings.check().expect_err("something is wrong");
    let (mut text, mut cause) = (error.to_string(), Error::source(&error));
    while let Some(next) = cause {
        text += &format!(": {next}");
        cause = next.source();
    }
    text.replace(&format!("{}/", Path::display(files.0.path())), "")
}

#[test]
fn what_cannot_be_loaded_is_named() {
    let files = Files::new();
    files.openssl("pkcs8 -topk8 -passout pass:x -in server.key -out locked.key");
    fs::write(files.path("cut.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n").unwrap();
    fs::write(files.path("long.pem"), vec![b'\n'; 2 << 20]).unwrap();
    let with_certificate = |name| TlsSettings { certificate: files.path(name), ..files.settings() };
    let with_key = |name| TlsSettings { key: files.path(name), ..files.settings() };
    let with_ca = |name| TlsSettings { client_ca: Some(files.path(name)), ..files.settings() };
    let faults: Vec<_> = [
        with_certificate("none.pem"),
        with_certificate("server.key"),
        with_certificate("cut.pem"),
        with_certificate("long.pem"),
        with_key("none.key"),
        with_key("server.pem"),
        with_key("locked.key"),
        with_key("ca.key"),
        with_ca("none.pem"),
        with_ca("server.key"),
    ]
    .iter()
    .map(|settings| fault(&files, settings))
    .collect();
    expect_test::expect![[r#"
        failed to read none.pem: No such file or directory (os error 2)
        failed to find a certificate in server.key
        failed to find the end of a section (`-----END`) in cut.pem
        failed to load long.pem: it has more than 1048576 bytes
        failed to read none.key: No such file or directory (os error 2)
        failed to find an unencrypted private key (PKCS#8, SEC1 or PKCS#1) in server.pem
        failed to find an unencrypted private key (PKCS#8, SEC1 or PKCS#1) in locked.key
        failed to use the key ca.key with the certificate server.pem: keys may not be consistent: KeyMismatch
        failed to read none.pem: No such file or directory (os error 2)
        failed to find a certificate in server.key"#]]
    .assert_eq(&faults.join("\n"));
}
