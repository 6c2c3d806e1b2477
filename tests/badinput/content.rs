//! Content is any valid UTF-8 of 1 to 65,536 bytes and comes back byte for byte, through both doors.
//!
//! One limit stands before that of content: a body or frame has at most 256 KiB, and JSON writes a control
//! character as six bytes. Content of control characters alone therefore ends at about 43,600 bytes; of
//! quotation marks and backslashes (two bytes each), as of all else, all 65,536 fit.

use crate::service::{self, Person, Service, messages};
use crate::websocket::Socket;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reedi_protocol::{ErrorCode, limits};
use serde_json::{Value, json};

const ROUNDS: u64 = 40;

/// Text of about `bytes` bytes, of one of several tastes.
fn text(random: &mut StdRng, bytes: usize) -> String {
    let taste = random.random_range(0..7);
    let mut text = String::with_capacity(bytes);
    loop {
        let next = match taste {
            0 => char::from(random.random_range(b' '..=b'~')),
            1 => ['"', '\\', '/', '\u{7f}', '<', '&'][random.random_range(0..6)],
            2 => ['\u{301}', '\u{200d}', '\u{202e}', '\u{feff}', '\u{fe0f}', 'e'][random.random_range(0..6)],
            3 => char::from_u32(random.random_range(0x1_0000..=0x10_ffff)).unwrap_or('𝄞'),
            4 => ['\u{d7ff}', '\u{e000}', '\u{fffe}', '\u{ffff}', '\u{2028}', '\u{85}']
                [random.random_range(0..6)],
            // Six bytes each in JSON: fewer of them fit.
            5 if bytes <= 40_000 => char::from(random.random_range(0..32u8)),
            _ => random.random(),
        };
        if text.len() + next.len_utf8() > bytes {
            return text;
        }
        text.push(next);
    }
}

struct Doors {
    service: &'static Service,
    one: Person,
    conversation: String,
    sending: Socket,
    receiving: Socket,
}

impl Doors {
    async fn open() -> Self {
        let service = service::shared().await;
        let (one, other, conversation) = service.pair().await;
        let sending = Socket::connect(service, Some(&one.token)).await;
        let mut receiving = Socket::connect(service, Some(&other.token)).await;
        assert!(receiving.is_well().await);
        Self { service, one, conversation, sending, receiving }
    }

    /// Sends through both doors and gives what came back through both.
    async fn pass(&mut self, content: &str) -> Vec<String> {
        let mut back = Vec::new();
        let mut body = json!({ "content": content, "messageType": "text" });
        let sent = self.one.client.post(&messages(&self.conversation), &body).await;
        assert_eq!(sent.status, 201, "{} bytes: {:?}", content.len(), sent.status);
        back.push(sent.json()["content"].clone());
        back.push(self.receiving.event("new_message").await["content"].clone());
        body["conversationId"] = json!(self.conversation);
        let answer = self.sending.command("send_message", body).await;
        assert_eq!(answer["ok"], true, "{} bytes: {}", content.len(), answer["error"]);
        back.push(self.receiving.event("new_message").await["content"].clone());
        back.push(self.edited(content, &answer["messageId"]).await);
        let page = self.one.client.get(&format!("{}?limit=2", messages(&self.conversation))).await.json();
        back.extend(page["messages"].as_array().expect("messages").iter().map(|m| m["content"].clone()));
        back.iter().map(|value| value.as_str().expect("content").to_owned()).collect()
    }

    async fn edited(&mut self, content: &str, message: &Value) -> Value {
        let data = json!({ "messageId": message, "content": content });
        let answer = self.sending.command("edit_message", data).await;
        assert_eq!(answer["ok"], true, "{} bytes: {}", content.len(), answer["error"]);
        self.receiving.event("message_edited").await["content"].clone()
    }
}

#[tokio::test]
async fn content_comes_back_byte_for_byte() {
    let mut doors = Doors::open().await;
    let seed: u64 = rand::random();
    let mut random = StdRng::seed_from_u64(seed);
    let fixed = [1, 2, 3, 4, 63, 64, 1_023, 1_024, 4_095, 4_096, 40_000, limits::CONTENT_BYTES];
    let sizes = fixed.into_iter().chain(std::iter::repeat_n(0, ROUNDS as usize));
    for (round, size) in sizes.enumerate() {
        let size = if size > 0 { size } else { 1 << random.random_range(2..=16) };
        let content = text(&mut random, size);
        let content = if content.is_empty() { "\0".to_owned() } else { content };
        for back in doors.pass(&content).await {
            assert!(back == content, "{} bytes changed: seed {seed}, round {round}", content.len());
        }
    }
}

#[tokio::test]
async fn the_longest_contents_pass() {
    let mut doors = Doors::open().await;
    let all = limits::CONTENT_BYTES;
    let longest = [
        "a".repeat(all),
        "\u{7f}".repeat(all),
        "\"".repeat(all),
        "\\".repeat(all),
        "🙂".repeat(all / 4),
        "\n".repeat(all),
    ];
    for content in longest {
        assert_eq!(content.len(), all);
        for back in doors.pass(&content).await {
            assert!(back == content, "{:?} changed", &content[..4]);
        }
    }
}

/// What fits into a frame goes in and comes out again, although what comes out carries more besides.
#[tokio::test]
async fn controls_pass_as_far_as_a_frame_goes() {
    let mut doors = Doors::open().await;
    let fits = (limits::FRAME_BYTES - 400) / 6;
    for control in ["\u{1}", "\0", "\u{1f}"] {
        let content = control.repeat(fits);
        for back in doors.pass(&content).await {
            assert!(back == content, "{fits} of {control:?} changed");
        }
    }
    let body = json!({ "content": "\0".repeat(limits::FRAME_BYTES / 6 + 1), "messageType": "text" });
    let path = messages(&doors.conversation);
    let reply = doors.one.client.post(&path, &body).await;
    reply.refuses("controls that do not fit", &[ErrorCode::TooLarge]);
    assert!(doors.receiving.is_well().await);
    let mut reader = Socket::connect(doors.service, Some(&doors.one.token)).await;
    assert!(reader.is_well().await);
}
