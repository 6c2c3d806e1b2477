//! What a client makes of what it is told.

use super::*;

impl Client {
    /// Writes down what this connection was told, for the order of it. A resume replays behind what came live
    /// meanwhile: from there on it is another sequence.
    pub(super) fn note_told(&mut self, event: &ServerEvent, told: &mut Seen) {
        match event {
            ServerEvent::ResumePending { .. } => self.goes_back = true,
            ServerEvent::ResumeComplete { .. } => self.goes_back = false,
            _ => {}
        }
        let Some(next) = as_told(event) else { return };
        let is_before = |earlier: &ToldEvent| {
            earlier.event.key() == next.event.key()
                && (earlier.event.position() > next.event.position() || *earlier == next)
        };
        if self.goes_back && told.told.iter().any(is_before) {
            self.goes_back = false;
            let (client, account) = (told.client.clone(), told.account);
            let begun = Seen { client, account, ..Seen::default() };
            self.observed.connection_ended(std::mem::replace(told, begun));
        }
        told.told.push(next);
    }

    pub(super) fn learn(&mut self, event: &ServerEvent) {
        match event {
            ServerEvent::NewMessage(message) if message.message_type == MessageType::Text => {
                self.recent.push_back(message.message_id);
                if self.recent.len() > RECENT {
                    self.recent.pop_front();
                }
            }
            ServerEvent::ConversationCreated { conversation, .. } => {
                self.conversations.insert(conversation.conversation_id.key());
            }
            ServerEvent::ParticipantRemoved { conversation_id, user_id, .. } if *user_id == self.account => {
                self.conversations.remove(&conversation_id.key());
            }
            _ => {}
        }
    }

    pub(super) fn apply(&mut self, mut out: Vec<Told>) {
        // Conversations come in any order; within each it is the order of what happened.
        out.sort_by_key(|told| match told {
            Told::Event(event) => event.place().map(|(conversation, _)| conversation),
            Told::Reset(conversation) | Told::Fetch { conversation, .. } => Some(*conversation),
        });
        for told in out {
            match told {
                Told::Event(event) => {
                    let Some((conversation, place)) = event.place() else { continue };
                    let conversation = conversation.key();
                    if let Some(after) = self.resets.remove(&conversation) {
                        let up_to = Position::from_u64(place.position.as_u64() - 1).unwrap_or_default();
                        self.seen.noticed.push(Gap { conversation, after, up_to });
                    }
                    self.seen.told.extend(as_told(&event));
                }
                Told::Reset(conversation) => {
                    self.note(|| format!("{conversation} is reset"));
                    let last =
                        self.seen.told.iter().rev().find(|told| told.event.key() == conversation.key());
                    // It loads the whole of what is not proven to be here, receipts that it missed included.
                    let told = last.map_or(Position::START, |told| told.event.position());
                    let after = told.min(self.timelines.complete(conversation));
                    self.resets.entry(conversation.key()).or_insert(after);
                }
                Told::Fetch { conversation, after, .. } => self.fetch(conversation, after),
            }
        }
    }

    pub(super) fn fetch(&mut self, conversation: ConversationId, after: Position) {
        self.note(|| format!("asks for events of {conversation} after {after}"));
        let (cluster, account) = (self.cluster.clone(), self.account);
        self.fetches.spawn(async move {
            let Some(edge) = pick(&cluster.edges()) else { return (conversation, None) };
            let reached = edge.edge.clone();
            let asking =
                async move { query::events::get(&reached, account, conversation.key(), after, 100).await };
            let filled = match ask(&edge, asking).await {
                Some(Ok((_, page))) => Some(Filled::Page(page)),
                Some(Err(refused)) if !refused.code.is_retryable() => Some(Filled::Refused),
                _ => {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    None
                }
            };
            (conversation, filled)
        });
    }

    pub(super) fn filled(&mut self, conversation: ConversationId, filled: Option<Filled>) {
        let filled = filled.unwrap_or_else(|| {
            // No answer: a page that says nothing makes the client ask again.
            let complete_to = self.timelines.complete(conversation);
            Filled::Page(Events { events: Vec::new(), complete_to, has_more: true })
        });
        let mut out = Vec::new();
        self.timelines.filled(conversation, filled, &mut out);
        self.apply(out);
    }
}

/// What a durable event is, for the record.
pub(super) fn as_told(event: &ServerEvent) -> Option<ToldEvent> {
    let (conversation, position) = event.stands_at()?;
    let name = summary(event).split(' ').next().unwrap_or_default().to_owned();
    Some(ToldEvent { event: conversation.key().event_id(position), name })
}
