//! What RFC 6455 says, and the other implementation of it as the measure.

use super::encode::{Opcode, header};
use super::{Decoder, Said, Violation, WebSocket};
use bytes::Bytes;
use futures_util::{FutureExt, SinkExt, StreamExt};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, error::ProtocolError};

const MOST: usize = 1_000;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const FIN: u8 = 0x80;

/// A client's frame with this first byte.
pub(super) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    header(Opcode::Text, payload.len(), &mut bytes);
    bytes[0] = first;
    bytes[1] |= 0x80;
    bytes.extend_from_slice(&MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// All that is said by `bytes`, given `step` at a time.
pub(super) fn said(bytes: &[u8], step: usize) -> (Vec<Said>, Option<Violation>) {
    let (mut decoder, mut all) = (Decoder::new(MOST), Vec::new());
    for part in bytes.chunks(step.max(1)) {
        decoder.take(part);
        loop {
            match decoder.message() {
                Ok(Some(said)) => all.push(said),
                Ok(None) => break,
                Err(violation) => return (all, Some(violation)),
            }
        }
    }
    (all, None)
}

fn text(text: &str) -> Said {
    Said::Text(text.to_owned())
}

#[test]
fn every_kind_of_frame_is_read_however_it_is_cut() {
    let frames = [
        frame(FIN | 1, "Hellö".as_bytes()),
        frame(FIN | 9, b"ping"),
        frame(FIN | 10, b""),
        frame(FIN | 2, &[0xff; 130]),
        frame(1, "a é".as_bytes()),
        frame(FIN | 9, b"between"),
        frame(0, b""),
        frame(FIN, "é z".as_bytes()),
        frame(FIN | 1, &[b'x'; 126]),
        frame(FIN | 1, b""),
        frame(FIN | 8, &[0x03, 0xe8, b'b', b'y', b'e']),
    ];
    let expected = [
        text("Hellö"),
        Said::Ping(b"ping".to_vec()),
        Said::Pong,
        Said::Binary,
        Said::Ping(b"between".to_vec()),
        text("a éé z"),
        text(&"x".repeat(126)),
        text(""),
        Said::Close(Some(1000)),
    ];
    let bytes = frames.concat();
    for step in 1..=bytes.len() {
        assert_eq!(said(&bytes, step), (expected.to_vec(), None), "{step} bytes at a time");
    }
    for cut in 0..bytes.len() {
        let (before, violation) = said(&bytes[..cut], 7);
        assert!(expected.starts_with(&before) && violation.is_none());
    }
}

#[test]
fn a_character_may_be_cut_by_frames_and_a_wrong_one_is_refused_at_once() {
    let smile = "😀".as_bytes();
    let bytes = [frame(1, &smile[..1]), frame(0, &smile[1..3]), frame(FIN, &smile[3..])].concat();
    assert_eq!(said(&bytes, 3), (vec![text("😀")], None));
    // Not final, so that only looking at each part can tell.
    assert_eq!(said(&[frame(1, &smile[..2]), frame(0, b"a")].concat(), 99).1, Some(Violation::NotUtf8));
    assert_eq!(said(&[frame(1, b"a"), frame(FIN, &smile[..2])].concat(), 99).1, Some(Violation::NotUtf8));
    for wrong in [&b"\xff"[..], b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80", &smile[..3]] {
        assert_eq!(said(&frame(FIN | 1, wrong), 99).1, Some(Violation::NotUtf8), "{wrong:?}");
    }
}

#[test]
fn what_is_no_frame_is_refused() {
    let not_masked = vec![FIN | 1, 2, b'h', b'i'];
    let mut wrong = vec![
        not_masked,
        frame(FIN, b"a part of nothing"),
        [frame(1, b"a"), frame(FIN | 1, b"b")].concat(),
        [frame(1, b"a"), frame(FIN | 2, b"b")].concat(),
        frame(9, b"a control frame in parts"),
        frame(FIN | 9, &[0; 126]),
        frame(FIN | 8, &[3]),
    ];
    wrong.extend([0x40, 0x20, 0x10].map(|reserved| frame(FIN | reserved | 1, b"a")));
    wrong.extend([3, 4, 5, 6, 7, 11, 12, 13, 14, 15].map(|opcode| frame(FIN | opcode, b"")));
    wrong.extend(
        [0u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000].map(|code| frame(FIN | 8, &code.to_be_bytes())),
    );
    for bytes in wrong {
        for step in [1, 2, 999] {
            let (said, violation) = said(&bytes, step);
            assert!(said.is_empty() && matches!(violation, Some(Violation::NotAFrame(_))), "{bytes:?}");
        }
    }
    assert_eq!(said(&frame(FIN | 8, &[0x03, 0xe8, 0xff]), 9).1, Some(Violation::NotUtf8));
    assert_eq!(said(&frame(FIN | 8, b""), 9), (vec![Said::Close(None)], None));
}

#[test]
fn a_message_that_is_too_long_is_refused_before_it_has_come() {
    assert_eq!(said(&frame(FIN | 1, &[b'a'; MOST]), 99).0.len(), 1);
    let long = frame(FIN | 1, &[b'a'; MOST + 1]);
    assert_eq!(said(&long[..4], 1).1, Some(Violation::TooLarge));
    let endless = [&[FIN | 2, 0xff][..], &u64::MAX.to_be_bytes()].concat();
    assert_eq!(said(&endless, 1).1, Some(Violation::TooLarge));
    for opcode in [1, 2] {
        let parts = [frame(opcode, &[b'a'; MOST]), frame(0, b""), frame(FIN, b"b")].concat();
        assert_eq!(said(&parts, 99).1, Some(Violation::TooLarge));
    }
}

#[test]
fn nothing_is_held_between_messages() {
    let mut decoder = Decoder::new(MOST);
    decoder.take(&frame(FIN | 1, &[b'a'; 900]));
    assert!(decoder.message().unwrap().is_some());
    assert_eq!(decoder.held(), 0);
    decoder.take(&frame(1, b"a"));
    assert_eq!(decoder.message(), Ok(None));
    assert!(decoder.held() > 0, "a part is held");
    decoder.take(&frame(FIN, b"b"));
    assert_eq!(decoder.message(), Ok(Some(text("ab"))));
    assert_eq!(decoder.held(), 0);
}

fn client(io: tokio::io::DuplexStream) -> impl Future<Output = WebSocketStream<tokio::io::DuplexStream>> {
    WebSocketStream::from_raw_socket(io, Role::Client, None)
}

/// Writes all of `texts`, in as many writes as they take.
async fn all(
    server: &mut WebSocket<tokio::io::DuplexStream>,
    texts: impl Iterator<Item = Bytes>,
) -> std::io::Result<()> {
    let mut texts = texts.peekable();
    while texts.peek().is_some() {
        server.texts(&mut texts).await?;
    }
    Ok(())
}

#[tokio::test]
async fn another_implementation_understands_what_is_written() {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let (mut server, mut client) = (WebSocket::new(ours, MOST), client(theirs).await);
    let texts: Vec<String> = [0, 1, 125, 126, 65_535, 65_536, 70_000].map(|n| "x".repeat(n)).into();
    all(&mut server, texts.iter().cloned().map(Bytes::from)).await.unwrap();
    for text in &texts {
        assert_eq!(client.next().await.unwrap().unwrap(), Message::text(text.clone()));
    }
    assert_eq!(server.held(), 0);
    client.send(Message::Ping(Bytes::from_static(b"there?"))).await.unwrap();
    let Ok(Some(Said::Ping(payload))) = server.next().await else { panic!() };
    server.pong(&payload).await.unwrap();
    assert_eq!(client.next().await.unwrap().unwrap(), Message::Pong(Bytes::from_static(b"there?")));
    server.ping().await.unwrap();
    assert_eq!(client.next().await.unwrap().unwrap(), Message::Ping(Bytes::new()));
    client.flush().await.unwrap();
    assert_eq!(server.next().await.unwrap(), Some(Said::Pong));
    server.close(Some(4408), &"é".repeat(100)).await.unwrap();
    let Message::Close(Some(close)) = client.next().await.unwrap().unwrap() else { panic!() };
    assert_eq!((u16::from(close.code), close.reason.as_str()), (4408, &*"é".repeat(61)));
    // The client answers, and waits for the server to leave.
    let (_, answer) = tokio::join!(client.next(), async move { server.next().await });
    assert_eq!(answer.unwrap(), Some(Said::Close(Some(4408))));
}

/// A backlog goes out in one write, and a write that was given up leaves the stream in step.
#[tokio::test]
async fn a_close_after_a_write_that_was_given_up_is_understood() {
    let (ours, theirs) = tokio::io::duplex(100);
    let mut server = WebSocket::new(ours, MOST);
    let texts = ["a".repeat(80), "b".repeat(80), "c".repeat(80)];
    let writing = all(&mut server, texts.clone().into_iter().map(Bytes::from));
    assert!(writing.now_or_never().is_none(), "nobody reads");
    let mut client = client(theirs).await;
    let (closed, heard) = tokio::join!(server.close(Some(4408), "slow"), async {
        let mut heard = Vec::new();
        while heard.len() < 4 {
            heard.push(client.next().await.unwrap().unwrap());
        }
        heard
    });
    closed.unwrap();
    assert_eq!(heard[..3], texts.map(Message::text));
    assert!(matches!(&heard[3], Message::Close(Some(close)) if u16::from(close.code) == 4408), "{heard:?}");
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed() {
    let (ours, mut theirs) = tokio::io::duplex(100);
    let mut server = WebSocket::new(ours, MOST);
    theirs.write_all(&frame(FIN | 1, b"last words")).await.unwrap();
    theirs.write_all(&[FIN | 1]).await.unwrap();
    theirs.shutdown().await.unwrap();
    assert_eq!(server.next().await.unwrap(), Some(text("last words")));
    assert_eq!(server.next().await.unwrap(), None);
    drop(theirs.read_u8().now_or_never());
    drop(theirs);
    assert!(all(&mut server, std::iter::once(Bytes::from_static(b"x"))).await.is_err());
}

/// What the other implementation makes of a client's bytes: what is said up to a close or a violation, and
/// whether there is one. Which of the two it is, and which violation, is not compared: of a frame with
/// several faults each may name another.
pub(super) async fn reference(bytes: &[u8]) -> (Vec<Said>, bool) {
    let (ours, mut theirs) = tokio::io::duplex(1 << 20);
    theirs.write_all(bytes).await.unwrap();
    theirs.shutdown().await.unwrap();
    let config = WebSocketConfig::default().max_message_size(Some(MOST)).max_frame_size(Some(MOST));
    let mut socket = WebSocketStream::from_raw_socket(ours, Role::Server, Some(config)).await;
    let mut all = Vec::new();
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) => all.push(Said::Text(text.as_str().to_owned())),
            Some(Ok(Message::Binary(_))) => all.push(Said::Binary),
            Some(Ok(Message::Ping(payload))) => all.push(Said::Ping(payload.to_vec())),
            Some(Ok(Message::Pong(_))) => all.push(Said::Pong),
            // The end of the stream is told as a violation.
            Some(Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake))) | None => {
                return (all, false);
            }
            Some(Ok(Message::Close(_) | Message::Frame(_)) | Err(_)) => return (all, true),
        }
    }
}

/// What we make of them, in the same words.
pub(super) fn ours(bytes: &[u8], step: usize) -> (Vec<Said>, bool) {
    let (mut all, violation) = said(bytes, step);
    let close = all.iter().position(|said| matches!(said, Said::Close(_)));
    all.truncate(close.unwrap_or(all.len()));
    (all, close.is_some() || violation.is_some())
}

fn frames() -> impl Strategy<Value = Vec<u8>> {
    let opcode = prop_oneof![8 => Just(1u8), 4 => Just(0u8), 1 => Just(2u8), 1 => Just(8u8), 2 => Just(9u8), 1 => 0..16u8];
    let payload = prop_oneof![
        ".{0,20}".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..8),
        Just(vec![0x03, 0xe8]),
        (0..2_000usize).prop_map(|n| vec![b'x'; n]),
    ];
    let one = (opcode, any::<bool>(), payload, prop_oneof![20 => Just(0u8), 1 => 0..8u8]).prop_map(
        |(opcode, last, payload, reserved)| {
            frame(opcode | if last { FIN } else { 0 } | reserved << 4, &payload)
        },
    );
    proptest::collection::vec(one, 0..8).prop_map(|frames| frames.concat())
}

proptest! {
    #[test]
    fn both_implementations_understand_the_same(bytes in frames(), step in 1..50usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        prop_assert_eq!(ours(&bytes, step), runtime.block_on(reference(&bytes)));
    }

    #[test]
    fn any_bytes_are_messages_or_refused(bytes: Vec<u8>, step in 1..9usize) {
        let (all, violation) = said(&bytes, step);
        prop_assert_eq!((all, violation), said(&bytes, usize::MAX));
    }
}
