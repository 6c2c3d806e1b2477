//! Bytes that are hardly HTTP: what a proxy in front might understand in another way, what never ends,
//! and what is no HTTP at all.

use crate::http::Reply;
use crate::service::{self, Service};
use reedi_protocol::ErrorCode;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// Longer than anything here takes, the ten seconds of patience with half a head among it.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to write anything to.
pub struct Raw(pub BufReader<TcpStream>);

impl Raw {
    pub async fn connect(service: &Service) -> Self {
        Self(BufReader::new(TcpStream::connect(service.address).await.expect("a connection")))
    }

    /// Writes as far as the other side takes it.
    pub async fn write(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes).await;
    }

    /// The next answer; `None` when the connection has ended instead.
    pub async fn reply(&mut self) -> Option<Reply> {
        tokio::time::timeout(PATIENCE, self.read_reply()).await.expect("an answer or an end in time")
    }

    async fn read_reply(&mut self) -> Option<Reply> {
        let mut line = String::new();
        self.0.read_line(&mut line).await.ok().filter(|n| *n > 0)?;
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line");
        let mut headers = HeaderMap::new();
        loop {
            line.clear();
            self.0.read_line(&mut line).await.ok().filter(|n| *n > 0)?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            let name: HeaderName = name.parse().expect("a header's name");
            headers.append(name, HeaderValue::from_str(value).expect("a header's value"));
        }
        let length = headers.get("content-length").and_then(|v| v.to_str().ok()?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        self.0.read_exact(&mut body).await.ok()?;
        Some(Reply { status, headers, body })
    }

    /// The status of an answer without headers.
    pub async fn status(&mut self) -> u16 {
        let mut lines = String::new();
        while !lines.ends_with("\r\n\r\n") {
            let read = tokio::time::timeout(PATIENCE, self.0.read_line(&mut lines)).await.expect("in time");
            assert!(read.expect("an answer") > 0, "it ended after {lines:?}");
        }
        lines.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line")
    }

    /// All answers until the connection ends.
    async fn replies(&mut self) -> Vec<Reply> {
        let mut replies = Vec::new();
        while let Some(reply) = self.reply().await {
            replies.push(reply);
        }
        replies
    }
}

/// A request whose end two readers may see at different places, with another one hidden behind.
fn ambiguous(framing: &str, body: &str) -> String {
    let hidden = "GET /api/messages/hidden HTTP/1.1\r\nHost: a\r\n\r\n";
    format!(
        "POST /api/auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\n{framing}\r\n{body}{hidden}"
    )
}

#[tokio::test]
async fn a_request_within_a_request_is_not_answered() {
    let service = service::shared().await;
    for (framing, body) in [
        ("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\nContent-Length: 6\r\n", "0\r\n\r\nX"),
        ("Content-Length: 0\r\nContent-Length: 44\r\n", ""),
        ("Content-Length: 0, 44\r\n", ""),
        ("Content-Length: +0\r\n", ""),
        ("Content-Length: -1\r\n", ""),
        ("Content-Length: 0x0\r\n", ""),
        ("Content-Length: 18446744073709551616\r\n", ""),
        ("Content-Length:\r\n", ""),
        ("Transfer-Encoding: xchunked\r\n", ""),
        ("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: gzip\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding\r\n : chunked\r\n", "0\r\n\r\n"),
        (" Transfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "ffffffffffffffffff\r\n"),
        ("Transfer-Encoding: chunked\r\n", "-1\r\n"),
        ("Transfer-Encoding: chunked\r\n", "0x1\r\na\r\n0\r\n\r\n"),
        ("X: a\0b\r\n", ""),
        ("X: a\rTransfer-Encoding: chunked\r\n", ""),
    ] {
        let mut raw = Raw::connect(service).await;
        raw.write(ambiguous(framing, body).as_bytes()).await;
        // A server that waits for the rest of a body has not seen the hidden one as a request either.
        let _ = raw.0.get_mut().shutdown().await;
        let replies = raw.replies().await;
        assert!(replies.len() <= 1, "{framing:?} {body:?}: {replies:?}");
        for reply in replies {
            assert!(reply.status.is_client_error(), "{framing:?} {body:?}: {reply:?}");
            assert!(
                !String::from_utf8_lossy(&reply.body).contains("There is no such path"),
                "{framing:?}: {reply:?}"
            );
        }
    }
}

#[tokio::test]
async fn what_is_hardly_http_is_refused_and_nobody_else_notices() {
    let service = service::shared().await;
    let long_path = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(70_000));
    let long_head = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "a".repeat(70_000));
    let many_heads = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: a\r\n".repeat(2_000));
    let cases: [&[u8]; 16] = [
        b"",
        b"\r\n\r\n\r\n",
        b"\0\0\0\0",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n",
        b"G",
        b"<script>alert(1)</script>\r\n\r\n",
        b"POST /api/auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"user",
        long_path.as_bytes(),
        long_head.as_bytes(),
        many_heads.as_bytes(),
        b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n",
    ];
    for case in cases {
        let mut raw = Raw::connect(service).await;
        raw.write(case).await;
        let _ = raw.0.get_mut().shutdown().await;
        for reply in raw.replies().await {
            let shown = String::from_utf8_lossy(&case[..case.len().min(60)]);
            assert!(reply.status.is_client_error(), "{shown}: {reply:?}");
        }
    }
    assert_eq!(service.person().client.get("/api/messages/conversations").await.status, 200);
}

#[tokio::test]
async fn other_forms_of_a_target_lead_nowhere_else() {
    let service = service::shared().await;
    for target in [
        "*",
        "http://example.org/api/messages/../../etc/passwd",
        "/../../etc/passwd",
        "/api/messages/./conversations",
        "//etc//passwd",
        "/\\..\\",
        "?x",
    ] {
        let mut raw = Raw::connect(service).await;
        raw.write(format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes()).await;
        for reply in raw.replies().await {
            assert!(reply.status.is_client_error(), "{target}: {reply:?}");
        }
    }
}

#[tokio::test]
async fn requests_in_one_write_are_answered_in_turn() {
    let service = service::shared().await;
    let mut raw = Raw::connect(service).await;
    let one = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n{more}\r\n");
    let both = one("/api/messages/conversations", "") + &one("/nowhere", "Connection: close\r\n");
    raw.write(both.as_bytes()).await;
    let statuses: Vec<u16> = raw.replies().await.iter().map(|reply| reply.status.as_u16()).collect();
    assert_eq!(statuses, [401, 404]);
}

/// Whoever is slow with a head, or says nothing at all, is let go after ten seconds. How long a body
/// may take is tested where it is read.
#[tokio::test]
async fn a_head_that_never_ends_is_ended() {
    let service = service::shared().await;
    let silent = async {
        let mut raw = Raw::connect(service).await;
        assert!(raw.reply().await.is_none(), "a silent connection got an answer");
    };
    let half = async {
        let mut raw = Raw::connect(service).await;
        raw.write(b"GET /api/messages/conversations HTTP/1.1\r\nHost: a\r\nX-Slow: ").await;
        assert!(raw.reply().await.is_none_or(|reply| reply.status == 408), "half a head got an answer");
    };
    let drips = async {
        let mut raw = Raw::connect(service).await;
        raw.write(b"GET /api/messages/conversations HTTP/1.1\r\n").await;
        for number in 0.. {
            assert!(number < 120, "a head may drip for ever");
            raw.write(b"X: a\r\n").await;
            // As slow as a client that keeps a server busy would be.
            let ended = tokio::time::timeout(Duration::from_millis(250), raw.reply()).await;
            if let Ok(reply) = ended {
                assert!(reply.is_none_or(|reply| reply.status == 408), "a dripping head got an answer");
                break;
            }
        }
    };
    tokio::join!(silent, half, drips);
}

/// Proxies keep connections that they do not use for a minute, and a request that meets their end is lost.
#[tokio::test]
async fn a_connection_that_was_used_may_rest() {
    /// More than the patience with a first head.
    const RESTS_FOR: Duration = Duration::from_secs(13);
    let service = service::shared().await;
    let mut raw = Raw::connect(service).await;
    let request = b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n";
    for rest in [RESTS_FOR, Duration::ZERO] {
        raw.write(request).await;
        assert_eq!(raw.reply().await.map(|reply| reply.status.as_u16()), Some(404));
        let ended = tokio::time::timeout(rest, raw.0.fill_buf()).await;
        assert!(ended.is_err(), "it was closed, or something came: {ended:?}");
    }
}

/// What the parser of HTTP refuses by itself has a status and no body (decision 0039), and the connection
/// ends: where the next request would begin nobody knows.
#[tokio::test]
async fn what_no_request_can_be_read_of_is_refused_without_a_body() {
    let service = service::shared().await;
    let long_head = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "a".repeat(20_000));
    let long_path = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(20_000));
    let many_heads = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: a\r\n".repeat(200));
    let cases: [(&str, u16); 8] = [
        ("G@T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/9.9\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nNo colon\r\n\r\n", 400),
        ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 400),
        (&long_head, 431),
        (&long_path, 431),
        (&many_heads, 431),
    ];
    for (case, status) in cases {
        let shown = &case[..case.len().min(60)];
        let mut raw = Raw::connect(service).await;
        raw.write(case.as_bytes()).await;
        raw.write(b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let replies = raw.replies().await;
        let [reply] = replies.as_slice() else { panic!("{shown:?}: one answer and an end, not {replies:?}") };
        assert_eq!((reply.status.as_u16(), reply.body.len()), (status, 0), "{shown:?}: {reply:?}");
        assert_eq!(
            reply.headers.get("connection").map(HeaderValue::as_bytes),
            Some(&b"close"[..]),
            "{shown:?}"
        );
    }
}

/// A body that is found to be wrong while it is read is refused as every other mistake.
#[tokio::test]
async fn a_body_in_bad_chunks_is_refused_as_everything_is() {
    let service = service::shared().await;
    for chunks in ["x\r\n", "5\r\n{\"use", "-1\r\n", "5\r\n{\"us\r\n"] {
        let mut raw = Raw::connect(service).await;
        let head = "POST /api/auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
        raw.write(format!("{head}{chunks}").as_bytes()).await;
        let _ = raw.0.get_mut().shutdown().await;
        let replies = raw.replies().await;
        let [reply] = replies.as_slice() else {
            panic!("{chunks:?}: one answer and an end, not {replies:?}")
        };
        reply.refuses(chunks, &[ErrorCode::Malformed]);
    }
}
