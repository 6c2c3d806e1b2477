//! Frames: no JSON, no commands, no text, too large, in pieces, and too many.

use crate::service::{self, Service};
use crate::websocket::Socket;
use reedi::edge::session::JOINED_MOST;
use reedi_protocol::{ErrorCode, limits};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame};

async fn socket(service: &Service) -> Socket {
    Socket::connect(service, Some(&service.person().token)).await
}

/// A frame of the client as bytes: masked by zeros.
fn frame(first: u8, length: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first, 0x80 | 127];
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(payload);
    bytes
}

#[track_caller]
fn is_refusal(answer: &Value, code: ErrorCode) {
    assert_eq!(answer["ok"], false, "{answer}");
    assert_eq!(answer["error"]["code"], code.code(), "{answer}");
    assert!(answer["error"]["message"].as_str().is_some_and(|m| m.len() > 3), "says nothing: {answer}");
}

#[tokio::test]
async fn a_frame_that_is_no_command_is_told_and_the_connection_goes_on() {
    let service = service::shared().await;
    let mut socket = socket(service).await;
    assert!(socket.is_well().await);
    let deep = format!(r#"{{"event":"typing_stop","data":{}1{}}}"#, "[".repeat(99), "]".repeat(99));
    for text in [
        "",
        " ",
        "nonsense",
        "null",
        "[]",
        "{}",
        "{",
        "\0",
        r#"{"event":5}"#,
        r#"{"event":null,"data":{}}"#,
        r#"{"event":"typing_stop","ack":-1}"#,
        r#"{"event":"typing_stop","ack":1.5}"#,
        r#"{"event":"typing_stop","ack":"1"}"#,
        r#"{"event":"typing_stop","event":"typing_start"}"#,
        r#"{"event":"\ud800"}"#,
        r#"42["send_message",{}]"#,
        &deep,
    ] {
        socket.text(text).await;
        let error = socket.event("error").await;
        assert_eq!(error["code"], "malformed", "{text}: {error}");
        assert!(error["message"].as_str().is_some_and(|m| m.len() > 3), "{text}: {error}");
    }
    assert!(socket.is_well().await);
}

#[tokio::test]
async fn commands_with_bad_data_are_refused_with_a_pointer() {
    let service = service::shared().await;
    let mut socket = socket(service).await;
    for (event, data, code, pointer) in [
        ("nonsense", json!({}), ErrorCode::UnknownEvent, None),
        ("", json!({}), ErrorCode::UnknownEvent, None),
        ("new_message", json!({}), ErrorCode::UnknownEvent, None),
        ("SEND_MESSAGE", json!({}), ErrorCode::UnknownEvent, None),
        ("send_message", json!(null), ErrorCode::Malformed, None),
        ("send_message", json!([]), ErrorCode::Malformed, None),
        ("send_message", json!("text"), ErrorCode::Malformed, None),
        ("send_message", json!({ "conversationId": 1 }), ErrorCode::Malformed, Some("/conversationId")),
        ("send_message", json!({ "conversationId": "x" }), ErrorCode::InvalidValue, Some("/conversationId")),
        ("mark_read", json!({ "messageId": "x" }), ErrorCode::InvalidValue, Some("/messageId")),
        ("mark_read", json!({ "messageId": {} }), ErrorCode::Malformed, Some("/messageId")),
        ("typing_start", json!({ "conversationId": "" }), ErrorCode::InvalidValue, Some("/conversationId")),
        ("resume", json!({ "checkpoint": "x" }), ErrorCode::InvalidValue, Some("/checkpoint")),
        ("resume", json!({ "checkpoint": 5 }), ErrorCode::Malformed, Some("/checkpoint")),
        ("resume", json!([]), ErrorCode::Malformed, None),
        ("resume", json!({ "cursors": [] }), ErrorCode::Malformed, Some("/cursors")),
        ("resume", json!({ "cursors": { "a.b": -1 } }), ErrorCode::InvalidValue, Some("/cursors/a.b")),
        (
            "delete_message",
            json!({ "messageId": "x", "scope": "all" }),
            ErrorCode::InvalidValue,
            Some("/scope"),
        ),
        ("resume", json!({ "cursors": { "x": u64::MAX } }), ErrorCode::InvalidValue, Some("/cursors/x")),
        ("authenticate", json!({}), ErrorCode::Malformed, None),
        ("authenticate", json!({ "token": "x" }), ErrorCode::InvalidToken, None),
    ] {
        let answer = socket.command(event, data.clone()).await;
        is_refusal(&answer, code);
        assert_eq!(answer["error"]["pointer"].as_str(), pointer, "{event} {data}: {answer}");
    }
    let surrogate = r#"{"event":"edit_message","ack":900,"data":{"messageId":"\ud800","content":"a"}}"#;
    socket.text(surrogate).await;
    is_refusal(&socket.answer(900).await, ErrorCode::NotUnicode);
    socket.text(r#"{"event":"nonsense"}"#).await;
    assert_eq!(socket.event("error").await["code"], "unknown_event", "told without an ack number too");
    assert!(socket.is_well().await);
}

#[tokio::test]
async fn a_resume_may_say_nothing() {
    let service = service::shared().await;
    for frame in [
        r#"{"event":"resume","ack":1}"#,
        r#"{"event":"resume","data":null,"ack":1}"#,
        r#"{"event":"resume","data":{"checkpoint":null,"cursors":null},"ack":1}"#,
    ] {
        let mut socket = socket(service).await;
        socket.text(frame).await;
        // In either order: a resume runs beside what it is answered with.
        let (mut answered, mut complete) = (false, false);
        while !(answered && complete) {
            let told = socket.next().await;
            assert!(told["ack"] != 1 || told["data"]["ok"] == true, "{frame}: {told}");
            answered |= told["ack"] == 1;
            complete |= told["event"] == "resume_complete";
        }
    }
}

#[tokio::test]
async fn who_has_joined_too_many_is_pointed_at_the_one_too_many() {
    let service = service::shared().await;
    let person = service.person();
    let made = (0..=JOINED_MOST).map(|_| async {
        let body = json!({ "participantId": uuid::Uuid::new_v4() });
        person.client.post("/api/messages/conversations/direct", &body).await.json()
    });
    let made = futures_util::future::join_all(made).await;
    let mut socket = Socket::connect(service, Some(&person.token)).await;
    let mut last = Value::Null;
    for (number, conversation) in made.iter().enumerate() {
        let data = json!({ "conversationId": conversation["conversationId"] });
        last = socket.command("join_conversation", data).await;
        assert_eq!(last["ok"], number < JOINED_MOST, "{number}: {last}");
    }
    is_refusal(&last, ErrorCode::InvalidValue);
    assert_eq!(last["error"]["pointer"], "/conversationId");
}

#[tokio::test]
async fn frames_that_break_the_protocol_end_the_connection() {
    let service = service::shared().await;
    let mut last = socket(service).await;
    for (what, bytes) in [
        ("binary", frame(0x82, 4, b"\0\x01\x02\x03")),
        ("no UTF-8", frame(0x81, 4, b"\xff\xfe\xfd\xfc")),
        ("a surrogate as UTF-8", frame(0x81, 3, b"\xed\xa0\x80")),
        ("a reserved opcode", frame(0x83, 0, b"")),
        ("a reserved control opcode", frame(0x8b, 0, b"")),
        ("a reserved bit", frame(0xc1, 0, b"")),
        ("not masked", vec![0x81, 0x02, b'{', b'}']),
        ("a continuation of nothing", frame(0x80, 2, b"{}")),
        ("a ping in pieces", frame(0x09, 0, b"")),
        ("a long ping", frame(0x89, 126, &[0; 126])),
        ("text within text", [frame(0x01, 1, b"{"), frame(0x81, 1, b"}")].concat()),
    ] {
        let mut socket = socket(service).await;
        socket.stream.get_mut().write_all(&bytes).await.expect("written");
        let (code, reason) = socket.closed().await;
        assert_eq!(code, 4400, "{what}: {reason}");
        assert!(!reason.is_empty(), "{what}");
    }
    assert!(last.is_well().await, "others notice nothing");
}

#[tokio::test]
async fn frames_that_are_too_large_end_it_with_1009() {
    let service = service::shared().await;
    let large = " ".repeat(limits::FRAME_BYTES + 1);
    let mut whole = socket(service).await;
    whole.text(&large).await;
    assert_eq!(whole.closed().await.0, 1009, "a frame of 256 KiB and one byte");

    let mut huge = socket(service).await;
    let megabytes = vec![b' '; 16 << 20];
    huge.stream.get_mut().write_all(&frame(0x81, 16 << 20, &megabytes)).await.ok();
    assert_eq!(huge.closed().await.0, 1009, "a frame of 16 MiB");

    let mut said = socket(service).await;
    said.stream.get_mut().write_all(&frame(0x81, i64::MAX as u64, b"")).await.expect("written");
    assert_eq!(said.closed().await.0, 1009, "a frame that only says to be large");

    let mut pieces = socket(service).await;
    for number in 0..6 {
        let opcode = OpCode::Data(if number == 0 { Data::Text } else { Data::Continue });
        let piece = Frame::message(" ".repeat(50_000), opcode, false);
        pieces.message(Message::Frame(piece)).await;
    }
    assert_eq!(pieces.closed().await.0, 1009, "pieces of a frame that is too large");

    let mut stranger = Socket::connect(service, None).await;
    stranger.text(&" ".repeat(20_000)).await;
    assert_eq!(stranger.closed().await.0, 1009, "who is not known yet has a token to say and no more");

    let mut fits = socket(service).await;
    let short = r#"{"event":"resume","data":{},"ack":77}"#;
    let padded = format!("{short}{}", " ".repeat(limits::FRAME_BYTES - short.len()));
    fits.text(&padded).await;
    assert_eq!(fits.answer(77).await["ok"], true, "a frame of exactly 256 KiB");
}

#[tokio::test]
async fn frames_in_pieces_and_pings_between_them_are_fine() {
    let service = service::shared().await;
    let (one, _, conversation) = service.pair().await;
    let mut socket = Socket::connect(service, Some(&one.token)).await;
    let data = json!({ "conversationId": conversation, "content": "in pieces ü", "messageType": "text" });
    let text = json!({ "event": "send_message", "data": data, "ack": 5 }).to_string();
    let pieces: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
    for (number, piece) in pieces.iter().enumerate() {
        let opcode = OpCode::Data(if number == 0 { Data::Text } else { Data::Continue });
        let last = number + 1 == pieces.len();
        socket.message(Message::Frame(Frame::message(piece.to_vec(), opcode, last))).await;
        if number % 50 == 0 {
            socket.message(Message::Ping(vec![7].into())).await;
        }
    }
    assert_eq!(socket.answer(5).await["ok"], true);
    assert_eq!(one.reads(&conversation).await, ["in pieces ü"]);
}

#[tokio::test]
async fn many_pings_are_answered_and_a_flood_ends_its_connection() {
    let service = service::shared().await;
    let mut socket = socket(service).await;
    let pings = frame(0x89, 8, b"pingping").repeat(100);
    for _ in 0..5 {
        socket.stream.get_mut().write_all(&pings).await.expect("written");
    }
    assert!(socket.is_well().await);
    for _ in 0..200 {
        // Until the other side has had enough.
        let _ = socket.stream.get_mut().write_all(&pings).await;
    }
    let (code, reason) = socket.closed().await;
    assert_eq!(code, 4429, "{reason}");
}

/// What is no command counts too, however it is wrong.
#[tokio::test]
async fn a_flood_of_nonsense_ends_its_connection() {
    let service = service::shared().await;
    let nonsense = [
        "{",
        r#"{"event":"no_such_thing"}"#,
        r#"{"event":"authenticate","data":{}}"#,
        r#"{"event":"send_message","data":{}}"#,
    ];
    for text in nonsense {
        let mut socket = socket(service).await;
        for _ in 0..5_000 {
            socket.text(text).await;
        }
        let (code, reason) = socket.closed().await;
        assert_eq!(code, 4429, "{text}: {reason}");
    }
}

#[tokio::test]
async fn every_way_of_saying_goodbye_is_understood() {
    let service = service::shared().await;
    let reasons = [
        None,
        Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }),
        Some(CloseFrame { code: CloseCode::from(4999), reason: "x".repeat(120).into() }),
    ];
    for close in reasons {
        let mut socket = socket(service).await;
        let what = format!("{close:?}");
        socket.message(Message::Close(close)).await;
        while let Some(message) = socket.any().await {
            assert!(matches!(message, Message::Close(_)), "{what}: {message:?}");
        }
    }
    for bytes in [frame(0x88, 1, b"\x03"), frame(0x88, 2, b"\0\0"), frame(0x88, 4, b"\x03\xe8\xff\xff")] {
        let mut socket = socket(service).await;
        socket.stream.get_mut().write_all(&bytes).await.expect("written");
        socket.closed().await;
    }
    // Not a word: the other side is simply gone.
    drop(socket(service).await);
    assert!(socket(service).await.is_well().await);
}

#[tokio::test]
async fn the_first_frame_must_be_who_it_is() {
    let service = service::shared().await;
    let faces = r#"{"event":"authenticate","data":"🙂"#.to_owned() + &"🙂".repeat(200) + r#""}"#;
    for (text, code) in [
        ("", 4400),
        ("nonsense", 4400),
        (r#"{"event":"authenticate"}"#, 4400),
        (r#"{"event":"authenticate","data":{"token":5}}"#, 4400),
        (&faces, 4400),
        (r#"{"event":"authenticate","data":{"token":""}}"#, 4401),
        (r#"{"event":"resume","data":{}}"#, 4401),
        (r#"{"event":"send_message","data":{}}"#, 4401),
    ] {
        let mut socket = Socket::connect(service, None).await;
        socket.text(text).await;
        let (told, reason) = socket.closed().await;
        assert_eq!(told, code, "{text}: {reason}");
        assert!(!reason.is_empty(), "{text}");
    }
    let mut socket = Socket::connect(service, None).await;
    socket.message(Message::Binary(vec![1].into())).await;
    assert_eq!(socket.closed().await.0, 4400);
}
