//! Who reads much, and who asks for much and takes nothing of it.

use crate::raw::Raw;
use crate::service::{self, Person, Service, messages};
use reedi_protocol::ErrorCode;
use std::time::Duration;
use tokio::io::BufReader;
use tokio::net::TcpSocket;
use tokio::time::Instant;

#[tokio::test]
async fn reads_are_counted() {
    let service = service::start("reads", &[("read_burst", "5"), ("read_rate", "1")]).await;
    let (one, other, conversation) = service.pair().await;
    let path = messages(&conversation);
    let id = one.says(&conversation, "hello").await;
    let paths = [
        path.clone(),
        format!("/api/messages/conversations/{conversation}"),
        format!("/api/messages/conversations/{conversation}/events"),
        "/api/messages/conversations".to_owned(),
        format!("/api/messages/messages/{id}/receipts"),
        "/api/messages/settings".to_owned(),
        "/api/messages/blocks".to_owned(),
        format!("/api/users/{}", other.account),
    ];
    for path in &paths {
        // Whatever others have counted by now, twenty of this one are more than there are.
        let mut refused = 0;
        for _ in 0..20 {
            let reply = one.client.get(path).await;
            if reply.status == 429 {
                reply.refuses(path, &[ErrorCode::RateLimited]);
                refused += 1;
            }
        }
        assert!(refused > 0, "{path} is not counted");
    }
    assert_eq!(other.client.get(&path).await.status, 200, "another is not held up");
    one.says(&conversation, "who reads too much may still send").await;
}

/// Asks for a large page and reads nothing of it.
async fn ask(service: &Service, person: &Person, conversation: &str) -> Raw {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4_096).expect("a small buffer");
    let stream = socket.connect(service.address).await.expect("a connection");
    let mut raw = Raw(BufReader::new(stream));
    let (path, token) = (messages(conversation), &person.token);
    let head = format!("GET {path}?limit=100 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n");
    raw.write(head.as_bytes()).await;
    raw
}

#[tokio::test]
async fn who_takes_no_answers_gets_no_more_of_them() {
    let settings = [("account_burst", "100000"), ("conversation_burst", "100000")];
    let service = service::start("untaken", &settings).await;
    let (one, other, conversation) = service.pair().await;
    let content = "x".repeat(65_536);
    for _ in 0..100 {
        one.says(&conversation, &content).await;
    }
    let held = || service.shared.metrics.answer_bytes.get();
    let until = Instant::now() + Duration::from_secs(40);
    let mut untaken = Vec::new();
    for n in 1..=2 {
        untaken.push(ask(&service, &one, &conversation).await);
        // Made, and nothing of it is free again: the system takes a part of it in, and no more.
        while held() < n * 100 * 65_536 {
            assert!(Instant::now() < until, "{} of {n} answers", held());
            tokio::task::yield_now().await;
        }
    }
    let path = format!("{}?limit=100", messages(&conversation));
    one.client.get(&path).await.refuses("a third one", &[ErrorCode::RateLimited]);
    assert_eq!(other.client.get(&path).await.status, 200, "another is not held up");
    let mut taken = untaken.pop().expect("one of two");
    let reply = taken.reply().await.expect("it is still there");
    assert_eq!(reply.status, 200);
    assert!(reply.body.len() > 100 * 65_536);
    assert_eq!(one.client.get(&path).await.status, 200, "there is room again");
    drop((untaken, taken));
    while held() > 0 {
        assert!(Instant::now() < until, "{} bytes are still held", held());
        tokio::task::yield_now().await;
    }
}
