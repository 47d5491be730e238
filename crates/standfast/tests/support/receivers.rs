//! Receivers of notices, as the world outside has them: an HTTP listener and a mail server, in the clear and with TLS, that
//! can be slow, refuse, or not be there yet.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// A certificate for localhost that trusts itself.
#[derive(Clone)]
pub struct Certificate(Arc<ServerConfig>);

impl Certificate {
    /// A new one; whoever trusts what is written into the file trusts it.
    pub fn new(file: &Path) -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(file, made.cert.pem()).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
        Self(Arc::new(config))
    }

    fn accept(&self, stream: TcpStream) -> StreamOwned<ServerConnection, TcpStream> {
        StreamOwned::new(ServerConnection::new(self.0.clone()).unwrap(), stream)
    }
}

/// What a listener does with what it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// It takes it.
    Takes,
    /// It keeps the caller waiting for ever.
    Stalls,
    /// It is not in order, and says so.
    Fails,
}

/// A request that a webhook got.
#[derive(Clone, Debug)]
pub struct Got {
    /// Headers, names in small letters.
    pub headers: BTreeMap<String, String>,
    /// The body as it came.
    pub raw: Vec<u8>,
    /// The body.
    pub body: Value,
}

impl Got {
    /// The notice's id.
    pub fn id(&self) -> &str {
        self.body["id"].as_str().unwrap()
    }

    /// The notice's event.
    pub fn event(&self) -> &str {
        self.body["event"].as_str().unwrap()
    }
}

/// A webhook's other end.
#[derive(Clone)]
pub struct Webhook {
    /// Its port.
    pub port: u16,
    manner: Arc<Mutex<Manner>>,
    got: Arc<Mutex<Vec<Got>>>,
}

impl Webhook {
    /// Listen at a port, or at any.
    pub fn listen(port: Option<u16>, manner: Manner, tls: Option<Certificate>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port.unwrap_or(0))).unwrap();
        let (manner, got) = (Arc::new(Mutex::new(manner)), Arc::default());
        let webhook = Self { port: listener.local_addr().unwrap().port(), manner, got };
        let of_thread = webhook.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (webhook, tls) = (of_thread.clone(), tls.clone());
                std::thread::spawn(move || match tls {
                    Some(certificate) => webhook.serve(certificate.accept(stream)),
                    None => webhook.serve(stream),
                });
            }
        });
        webhook
    }

    /// From now on it behaves so.
    pub fn behave(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    /// What it has taken.
    pub fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    fn serve(&self, stream: impl Read + Write) {
        let mut stream = BufReader::new(stream);
        let Some((headers, raw)) = request(&mut stream) else { return };
        let manner = *self.manner.lock().unwrap();
        let answer = match manner {
            Manner::Takes => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
            Manner::Fails => "HTTP/1.1 503 Busy\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbusy",
            Manner::Stalls => loop {
                std::thread::park();
            },
        };
        if answer.starts_with("HTTP/1.1 200") {
            let body = serde_json::from_slice(&raw).unwrap();
            self.got.lock().unwrap().push(Got { headers, raw, body });
        }
        let _ = stream.get_mut().write_all(answer.as_bytes());
    }
}

fn request(stream: &mut impl BufRead) -> Option<(BTreeMap<String, String>, Vec<u8>)> {
    let mut line = String::new();
    stream.read_line(&mut line).ok().filter(|_| line.starts_with("POST "))?;
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let mut raw = vec![0; headers.get("content-length")?.parse().ok()?];
    stream.read_exact(&mut raw).ok()?;
    Some((headers, raw))
}

/// A mail that a server took.
#[derive(Clone, Debug)]
pub struct Mail {
    /// Whether the way was encrypted.
    pub encrypted: bool,
    /// User and password, as they came.
    pub signed_in: Option<String>,
    /// `RCPT TO`.
    pub to: Vec<String>,
    /// Headers and body.
    pub text: String,
}

/// A mail server: the part of RFC 5321 that a submission needs, with STARTTLS and AUTH PLAIN.
#[derive(Clone)]
pub struct MailServer {
    /// Its port.
    pub port: u16,
    certificate: Certificate,
    /// It asks for a user.
    signs_in: bool,
    got: Arc<Mutex<Vec<Mail>>>,
}

enum Line {
    Clear(BufReader<TcpStream>),
    Encrypted(Box<BufReader<StreamOwned<ServerConnection, TcpStream>>>),
}

impl Line {
    fn read(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = match self {
            Line::Clear(stream) => stream.read_line(&mut line),
            Line::Encrypted(stream) => stream.read_line(&mut line),
        };
        read.ok().filter(|n| *n > 0).map(|_| line.trim_end().to_owned())
    }

    fn say(&mut self, text: &str) {
        let text = format!("{text}\r\n");
        let _ = match self {
            Line::Clear(stream) => stream.get_mut().write_all(text.as_bytes()),
            Line::Encrypted(stream) => {
                let stream = stream.get_mut();
                stream.write_all(text.as_bytes()).and_then(|()| stream.flush())
            }
        };
    }
}

impl MailServer {
    /// Listen at any port.
    pub fn listen(certificate: Certificate, signs_in: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self { port: listener.local_addr().unwrap().port(), certificate, signs_in, got: Arc::default() };
        let of_thread = server.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = of_thread.clone();
                std::thread::spawn(move || server.serve(stream));
            }
        });
        server
    }

    /// What it has taken.
    pub fn got(&self) -> Vec<Mail> {
        self.got.lock().unwrap().clone()
    }

    fn serve(&self, stream: TcpStream) {
        let mut line = Line::Clear(BufReader::new(stream));
        let (mut signed_in, mut to) = (None, Vec::new());
        line.say("220 localhost");
        while let Some(said) = line.read() {
            let word = said.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
            let encrypted = matches!(line, Line::Encrypted(_));
            match word.as_str() {
                "EHLO" if encrypted => line.say("250-localhost\r\n250 AUTH PLAIN"),
                "EHLO" => line.say("250-localhost\r\n250 STARTTLS"),
                "STARTTLS" => {
                    line.say("220 go on");
                    let Line::Clear(clear) = line else { return };
                    line = Line::Encrypted(Box::new(BufReader::new(self.certificate.accept(clear.into_inner()))));
                }
                "AUTH" => {
                    signed_in = said.split_whitespace().nth(2).map(str::to_owned);
                    line.say("235 welcome");
                }
                "MAIL" if self.signs_in && signed_in.is_none() => line.say("530 sign in first"),
                "MAIL" => line.say("250 ok"),
                "RCPT" => {
                    to.push(said);
                    line.say("250 ok");
                }
                "DATA" => {
                    line.say("354 go on");
                    let mut text = String::new();
                    while let Some(next) = line.read().filter(|l| l != ".") {
                        text.push_str(&next);
                        text.push('\n');
                    }
                    let to = std::mem::take(&mut to);
                    self.got.lock().unwrap().push(Mail { encrypted, signed_in: signed_in.clone(), to, text });
                    line.say("250 taken");
                }
                "QUIT" => return line.say("221 bye"),
                _ => line.say("250 ok"),
            }
        }
    }
}
