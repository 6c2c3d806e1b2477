//! Appending: one publish, and what each of its answers means.

use super::api::{ApiError, PublishAck, Refusal, code};
use super::connection::{NatsConnection, RequestError};
use super::stream::SliceStream;
use super::{ANSWER_WITHIN, Shared};
use crate::log::{Append, AppendError, Appended, Lane};
use async_nats::HeaderMap;
use async_nats::header::{NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_EXPECTED_STREAM, NATS_MESSAGE_ID};
use bytes::Bytes;
use reedi_protocol::{ConversationKey, Epoch, Position};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// The header of W3C trace context.
pub(super) const TRACEPARENT: &str = "traceparent";

/// A name that no stream of ours has.
const NO_STREAM: &str = "none";
const REACH_AGAIN_AFTER: Duration = Duration::from_millis(20);

impl Shared {
    pub(super) async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        self.append_allowed()?;
        let deadline = Instant::now() + ANSWER_WITHIN;
        let turn = timeout_at(deadline, self.in_flight.acquire()).await;
        let Ok(Ok(_permit)) = turn else {
            return Err(AppendError::Unavailable("too many appends wait for the log".to_owned()));
        };
        let stream = self.slice_of(append.conversation.shard());
        let headers = self.headers(stream, &append)?;
        let is_control = append.lane != Lane::Event;
        let subject = self.namespace.record(append.conversation, is_control);
        let seen_before = stream.seen();
        let live = self.appending()?;
        let answer = live.publish(subject, headers, append.payload, deadline).await;
        match answer {
            Ok(ack) => self.acknowledged(stream, ack, seen_before),
            Err(error) => Err(self.refused(stream, error)),
        }
    }

    /// Waits until every connection reaches every stream: a stream just made is not known at once to all
    /// servers, and appends would be refused for some milliseconds.
    pub(super) async fn reach_all(&self) {
        for connection in &self.appends {
            for stream in &self.slices {
                while let Err(why) = self.reach(connection, stream).await {
                    tracing::debug!(stream = stream.name, %why, "waiting for the stream");
                    tokio::time::sleep(REACH_AGAIN_AFTER).await;
                }
            }
        }
    }

    /// Appends what the stream must refuse, for the answer.
    async fn reach(&self, connection: &NatsConnection, stream: &SliceStream) -> Result<(), ApiError> {
        let shard = u64::from(stream.slice.index) * 256 / u64::from(stream.slice.count);
        let subject = self.namespace.record(ConversationKey::from_u64(shard << 56), false);
        let mut headers = HeaderMap::new();
        headers.insert(NATS_EXPECTED_STREAM, NO_STREAM);
        let live = connection.connected().await;
        match live.publish(subject, headers, Bytes::new(), Instant::now() + ANSWER_WITHIN).await {
            Err(error) if !error.is_refusal(&[code::OTHER_STREAM]) => Err(error),
            _ => Ok(()),
        }
    }

    fn append_allowed(&self) -> Result<(), AppendError> {
        match self.fenced.get() {
            Some(why) => Err(AppendError::Fenced(why.clone())),
            None => Ok(()),
        }
    }

    fn headers(&self, stream: &SliceStream, append: &Append) -> Result<HeaderMap, AppendError> {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_EXPECTED_STREAM, stream.name.as_str());
        if let Some(key) = append.duplicate_key {
            headers.insert(NATS_MESSAGE_ID, key.to_string());
        }
        if let Some(traceparent) = append.traceparent {
            headers.insert(TRACEPARENT, traceparent.to_string());
        }
        if let Lane::Control { expected } = append.lane {
            let sequence = expected_sequence(self.epoch, expected)?;
            headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, sequence.to_string());
        }
        Ok(headers)
    }

    pub(super) fn acknowledged(
        &self,
        stream: &SliceStream,
        ack: PublishAck,
        seen_before: u64,
    ) -> Result<Appended, AppendError> {
        let place = Position::new(self.epoch, ack.sequence).filter(|_| {
            // A new record stands above all that were acknowledged before it was sent, or the
            // stream's sequence ran backwards.
            ack.duplicate || ack.sequence > seen_before
        });
        let Some(position) = place else {
            self.fence(format!(
                "{} gave a new record sequence {} after {seen_before} had been acknowledged",
                stream.name, ack.sequence
            ));
            return Err(AppendError::Fenced("its sequence ran backwards".to_owned()));
        };
        stream.saw(ack.sequence);
        // Fenced meanwhile: what this log acknowledges is worth nothing any more.
        self.append_allowed()?;
        Ok(if ack.duplicate { Appended::Duplicate(position) } else { Appended::New(position) })
    }

    pub(super) fn refused(&self, stream: &SliceStream, error: ApiError) -> AppendError {
        match error {
            ApiError::Request(RequestError::NotSent(why)) => AppendError::Unavailable(why),
            ApiError::Request(RequestError::NoResponders) => {
                AppendError::Unavailable(format!("{} has no leader", stream.name))
            }
            ApiError::Request(RequestError::Unanswered(why)) | ApiError::Unreadable(why) => {
                AppendError::OutcomeUnknown(why)
            }
            ApiError::Refused(refusal) => self.meaning(stream, refusal),
        }
    }

    fn meaning(&self, stream: &SliceStream, refusal: Refusal) -> AppendError {
        match refusal.err_code {
            code::WRONG_LAST_SEQUENCE => AppendError::ControlMoved(told_position(self.epoch, &refusal)),
            code::WRONG_LAST_SEQUENCE_UNTOLD => AppendError::ControlMoved(None),
            code::DUPLICATE_IN_FLIGHT => AppendError::InFlight,
            code::ACCOUNT_FULL | code::STORAGE_FULL => AppendError::Full,
            // Told where an entry that was agreed on finds no room, too: another server may have it.
            code::NO_ROOM => AppendError::OutcomeUnknown(refusal.to_string()),
            code::STORE_FAILED if refusal.description.contains("maximum bytes") => AppendError::Full,
            code::OTHER_STREAM | code::STREAM_SEALED => {
                let why = format!("{} takes no more records: {}", stream.name, refusal.description);
                self.fence(why.clone());
                AppendError::Fenced(why)
            }
            code::LAST_SEQUENCE_NOT_READY | code::TOO_MANY_REQUESTS => {
                AppendError::Unavailable(refusal.to_string())
            }
            // The request's fault, found before anything was stored.
            _ if (400..500).contains(&refusal.code) => AppendError::Unavailable(refusal.to_string()),
            // The server's fault, found at a time that it does not tell.
            _ => AppendError::OutcomeUnknown(refusal.to_string()),
        }
    }
}

/// What the newest control record's sequence must be. One of an epoch before this stream's is not in
/// the stream: none may be.
fn expected_sequence(epoch: Epoch, expected: Position) -> Result<u64, AppendError> {
    match expected.epoch() {
        None => Ok(0),
        Some(of) if of < epoch => Ok(0),
        Some(of) if of == epoch => Ok(expected.sequence()),
        Some(of) => Err(AppendError::Fenced(format!(
            "a record of epoch {} is known, this log is of epoch {}",
            of.number(),
            epoch.number()
        ))),
    }
}

/// The position in "wrong last sequence: 5"; 0 stands for none.
fn told_position(epoch: Epoch, refusal: &Refusal) -> Option<Position> {
    let sequence: u64 = refusal.description.rsplit(' ').next()?.parse().ok()?;
    if sequence == 0 { Some(Position::START) } else { Position::new(epoch, sequence) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(number: u16) -> Epoch {
        Epoch::new(number).unwrap()
    }

    #[test]
    fn a_control_position_of_an_older_epoch_counts_as_none() {
        let at = |number, sequence| Position::new(epoch(number), sequence).unwrap();
        assert_eq!(expected_sequence(epoch(2), Position::START), Ok(0));
        assert_eq!(expected_sequence(epoch(2), at(1, 9)), Ok(0));
        assert_eq!(expected_sequence(epoch(2), at(2, 9)), Ok(9));
        assert!(matches!(expected_sequence(epoch(2), at(3, 9)), Err(AppendError::Fenced(_))));
    }

    #[test]
    fn the_server_tells_the_right_position() {
        let told = |description: &str| {
            let description = description.to_owned();
            told_position(epoch(1), &Refusal { code: 400, err_code: code::WRONG_LAST_SEQUENCE, description })
        };
        assert_eq!(told("wrong last sequence: 5"), Position::new(epoch(1), 5));
        assert_eq!(told("wrong last sequence: 0"), Some(Position::START));
        assert_eq!(told("wrong last sequence"), None);
    }
}
