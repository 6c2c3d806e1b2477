use super::*;
use reedi_protocol::{ConversationKey, Epoch, Position};

fn queues() -> Queues {
    Queues::new(OutboxLimits::default(), None)
}

fn conversation() -> ConversationId {
    ConversationKey::from_u64(1).conversation_id()
}

fn refusal(code: ErrorCode, server_time: Option<u64>) -> Answer {
    let refusal = Refusal {
        code,
        message: "no".into(),
        retry_after: None,
        server_time: server_time.map(Timestamp::from_millis),
        pointer: None,
    };
    Answer { ok: false, fields: serde_json::Map::default(), error: Some(refusal) }
}

fn acknowledgement() -> Answer {
    let position = Position::new(Epoch::FIRST, 5).unwrap();
    let id = ConversationKey::from_u64(1).event_id(position).to_string();
    let fields = serde_json::json!({ "messageId": id, "timestamp": "2025-01-01T00:00:00.000Z" });
    Answer { ok: true, fields: fields.as_object().unwrap().clone(), error: None }
}

/// Takes the one message that is due.
fn take(queues: &mut Queues, now: Instant) -> (EntryKey, String) {
    let (_, entry) = queues.take_due(now).expect("a message is due");
    (entry.key, entry.message.client_message_id.unwrap())
}

fn answer(queues: &mut Queues, key: EntryKey, answer: Answer, now: Instant) -> Option<Update> {
    queues.answered(key, answer, now).unwrap()
}

#[tokio::test]
async fn a_message_keeps_its_id_until_it_is_acknowledged() {
    let (mut queues, mut now) = (queues(), Instant::now());
    let ticket = queues.send(conversation(), "hi".into()).unwrap();
    let (key, id) = take(&mut queues, now);
    assert_eq!(ticket.client_message_id(), id);
    for code in [ErrorCode::OutcomeUnknown, ErrorCode::LogUnavailable, ErrorCode::RateLimited] {
        assert!(answer(&mut queues, key, refusal(code, None), now).is_none());
        assert!(queues.take_due(now).is_none(), "a refused message rests");
        now += Duration::from_secs(60);
        assert_eq!(take(&mut queues, now), (key, id.clone()));
    }
    queues.disconnected();
    assert_eq!(take(&mut queues, now), (key, id));
    answer(&mut queues, key, acknowledgement(), now);
    assert_eq!(ticket.await.unwrap().message_id.position().sequence(), 5);
    assert_eq!(*queues.unsent().borrow(), 0);
}

#[test]
fn however_long_the_service_was_away_a_message_goes_soon_after_it_is_back() {
    let (mut queues, mut now) = (queues(), Instant::now());
    drop(queues.send(conversation(), "hi".into()).unwrap());
    for _ in 0..20 {
        let (key, _) = take(&mut queues, now);
        answer(&mut queues, key, refusal(ErrorCode::LogUnavailable, None), now);
        let due = queues.next_due().expect("it goes again");
        assert!(due - now <= Duration::from_secs(5), "it waits {:?}", due - now);
        now = due;
    }
    let (key, _) = take(&mut queues, now);
    let mut asked = refusal(ErrorCode::RateLimited, None);
    asked.error.as_mut().unwrap().retry_after = Some(60);
    answer(&mut queues, key, asked, now);
    assert!(queues.next_due().unwrap() - now >= Duration::from_secs(60), "unless it is told to wait longer");
}

#[tokio::test]
async fn a_clock_that_is_ahead_is_corrected() {
    let (mut queues, now) = (queues(), Instant::now());
    let ticket = queues.send(conversation(), "hi".into()).unwrap();
    let (key, first) = take(&mut queues, now);
    let server = now_ms() - 3_600_000;
    answer(&mut queues, key, refusal(ErrorCode::ClientMessageIdTime, Some(server)), now);
    let (_, second) = take(&mut queues, now);
    assert_ne!(first, second);
    let age = server.abs_diff(minted_at(&second).unwrap());
    assert!(age < 5_000, "minted {age} ms from the server's time");
    answer(&mut queues, key, acknowledgement(), now);
    assert!(ticket.await.is_ok());
}

#[tokio::test]
async fn an_id_that_was_perhaps_taken_is_never_replaced() {
    let (mut queues, now) = (queues(), Instant::now());
    let ticket = queues.send(conversation(), "hi".into()).unwrap();
    let (key, _) = take(&mut queues, now);
    queues.disconnected();
    take(&mut queues, now);
    let in_three_days = now_ms() + 3 * 86_400_000;
    let too_old = refusal(ErrorCode::ClientMessageIdTime, Some(in_three_days));
    assert!(answer(&mut queues, key, too_old, now).is_none());
    assert!(matches!(ticket.await, Err(SendError::OutcomeUnknown)));
    assert!(queues.take_due(now).is_none());
}

#[test]
fn a_refusal_for_good_reaches_the_application_without_a_ticket() {
    let (mut queues, now) = (queues(), Instant::now());
    drop(queues.send(conversation(), "hi".into()).unwrap());
    let (key, id) = take(&mut queues, now);
    let update = answer(&mut queues, key, refusal(ErrorCode::RecipientUnavailable, None), now);
    let Some(Update::NotSent { client_message_id, error: SendError::Refused(refusal), .. }) = update else {
        panic!("{update:?}")
    };
    assert_eq!((client_message_id, refusal.code), (id, ErrorCode::RecipientUnavailable));
}

#[test]
fn what_cannot_be_sent_is_refused_at_once() {
    let mut queues = queues();
    assert!(matches!(queues.send(conversation(), "".into()), Err(SendError::Invalid(_))));
    let escaped = "\u{1}".repeat(limits::CONTENT_BYTES);
    let refused = queues.send(conversation(), escaped.into());
    assert!(matches!(refused, Err(SendError::TooLarge { .. })), "it outgrows the frame");
    queues.end(&Ended::Replaced);
    let refused = queues.send(conversation(), "hi".into());
    assert!(matches!(refused, Err(SendError::Ended(Ended::Replaced))));
}
