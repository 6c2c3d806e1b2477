//! What comes from the server.

use super::super::command::HISTORY;
use super::super::terminal::Tone;
use super::super::wording::{brief, clean, explain};
use super::{TYPING_LASTS, TYPING_MOST, Talk};
use reedi_client::{Link, Update};
use reedi_protocol::event::{Lack, PresenceStatus, ServerEvent};
use reedi_protocol::resource::{Conversation, ConversationType, Message};
use reedi_protocol::{AccountId, ConversationId};
use std::time::Instant;

/// What does not work, for a person.
fn lacking(lacks: &[Lack]) -> &'static str {
    match (lacks.contains(&Lack::Sends), lacks.contains(&Lack::History)) {
        (true, true) => "(the server cannot take or show messages now; what you write is sent later)",
        (true, false) => "(the server takes no messages now; what you write is sent later)",
        (false, true) => "(the server cannot read its history now; messages still come and go)",
        (false, false) => "(the server is well again)",
    }
}

impl Talk {
    pub(super) async fn update(&mut self, update: Update) {
        match update {
            Update::Event(event) => self.event(*event).await,
            Update::Link(link) => self.link(link).await,
            Update::Lacks(lacks) => self.notice(lacking(&lacks)),
            Update::Reset(id) if self.is_open(id) => {
                self.notice("(much has happened; the newest messages:)");
                self.history(HISTORY).await;
            }
            Update::ResetAll => {
                self.notice("(the server has lost track of what was shown here; the newest messages:)");
                self.history(HISTORY).await;
            }
            Update::NotSent { error, .. } => {
                self.warn(&format!("A message from before was not sent: {error}."));
            }
            // The list was not shown yet, or shows it when asked for; a token is no news for a person.
            _ => {}
        }
    }

    async fn link(&mut self, link: Link) {
        match link {
            Link::Connected => {}
            Link::CaughtUp => {
                if self.offline {
                    self.offline = false;
                    self.notice("connected");
                }
                if !self.begun {
                    self.begin().await;
                }
            }
            Link::Behind { reason } => {
                self.offline = false;
                let reason = clean(&reason);
                self.notice(&format!("connected; what was missed comes later ({reason})"));
            }
            Link::Lost { reason, .. } => {
                tracing::debug!(reason, "connection lost");
                if !self.offline {
                    self.offline = true;
                    self.notice("reconnecting...");
                }
            }
        }
    }

    async fn event(&mut self, event: ServerEvent) {
        match event {
            ServerEvent::NewMessage(message) => self.message(&message).await,
            ServerEvent::MessageEdited { conversation_id, content, .. } if self.is_open(conversation_id) => {
                let content = content.as_deref().map(clean).unwrap_or_default();
                self.notice(&format!("* a message was edited: {content}"));
            }
            ServerEvent::MessageDeleted { conversation_id, deleted_by, .. }
                if self.is_open(conversation_id) =>
            {
                self.did(deleted_by, "deleted a message").await;
            }
            ServerEvent::ReactionAdded { conversation_id, user_id, reaction, .. }
                if self.is_open(conversation_id) =>
            {
                self.did(user_id, &format!("reacted {}", clean(&reaction))).await;
            }
            ServerEvent::MessageDelivered { conversation_id, user_id, .. } => {
                self.receipt(conversation_id, user_id, "delivered to").await;
            }
            ServerEvent::MessageRead { conversation_id, user_id, .. } => {
                self.receipt(conversation_id, user_id, "read by").await;
            }
            ServerEvent::ConversationCreated { conversation, .. } => self.created(&conversation).await,
            ServerEvent::ConversationUpdated { conversation_id, .. } => {
                self.titles.remove(&conversation_id);
            }
            ServerEvent::ParticipantRemoved { conversation_id, user_id, .. }
                if user_id == self.client.account() =>
            {
                self.removed(conversation_id);
            }
            ServerEvent::UserTyping { conversation_id, user_id, typing } => {
                self.other_types(conversation_id, user_id, typing).await;
            }
            ServerEvent::UserStatusChange { user_id, status, .. } => {
                let what = match status {
                    PresenceStatus::Online => "is here",
                    PresenceStatus::Offline => "is away",
                };
                self.did(user_id, what).await;
            }
            ServerEvent::Error { refusal, .. } => {
                self.warn(&format!("The server says: {}", clean(&refusal.message)));
            }
            // Participants who come and go are told by system messages.
            _ => {}
        }
    }

    async fn message(&mut self, message: &Message) {
        let (id, mine) = (message.conversation_id, message.sender_id == self.client.account());
        if !mine {
            self.client.mark_delivered(message.message_id);
        }
        // What was missed before the list was shown is counted there.
        if !self.begun {
            return;
        }
        match &mut self.open {
            Some(open) if open.id == id => {
                if open.newest >= Some(message.message_id) {
                    return;
                }
                open.newest = Some(message.message_id);
                open.typing.remove(&message.sender_id);
                let line = self.line(message).await;
                self.terminal.show(Tone::Message, &line);
                self.show_typing().await;
                if !mine {
                    self.client.mark_read(message.message_id);
                }
            }
            _ if mine => {}
            _ => {
                let line = self.line(message).await;
                match self.title(id).await {
                    Ok(title) => self.notice(&format!("[{title}] {}", brief(&line, 120))),
                    Err(error) => self.notice(&format!("{} ({})", brief(&line, 120), explain(&error))),
                }
            }
        }
    }

    async fn receipt(&mut self, id: ConversationId, account: AccountId, what: &str) {
        if self.begun && self.is_open(id) && account != self.client.account() {
            let name = self.people.name(self.client.rest(), account).await;
            self.notice(&format!("      ✓✓ {what} {name}"));
        }
    }

    async fn created(&mut self, conversation: &Conversation) {
        let title = self.people.title(self.client.rest(), conversation).await;
        self.remember_title(conversation, &title);
        let opened_here = self.is_open(conversation.conversation_id);
        if self.begun && !opened_here && conversation.kind == ConversationType::Group {
            self.notice(&format!("* you are in the group {title} now (/to {title})"));
        }
    }

    fn removed(&mut self, id: ConversationId) {
        self.titles.remove(&id);
        if self.is_open(id) {
            self.open = None;
            self.terminal.set_status("");
            self.terminal.set_prompt("> ");
            self.notice("* you take part in this conversation no more");
        }
    }

    async fn did(&mut self, account: AccountId, what: &str) {
        if self.begun && account != self.client.account() {
            let name = self.people.name(self.client.rest(), account).await;
            self.notice(&format!("* {name} {what}"));
        }
    }

    async fn other_types(&mut self, id: ConversationId, account: AccountId, typing: bool) {
        let me = self.client.account();
        let Some(open) = self.open.as_mut().filter(|open| open.id == id && account != me) else { return };
        let began = if typing {
            open.typing.insert(account, Instant::now() + TYPING_LASTS).is_none()
        } else {
            open.typing.remove(&account);
            false
        };
        self.show_typing().await;
        if began && !self.terminal.is_interactive() {
            self.did(account, "is typing").await;
        }
    }

    pub(super) async fn forget_typing(&mut self) {
        let now = Instant::now();
        if let Some(open) = &mut self.open {
            open.typing.retain(|_, until| *until > now);
        }
        self.show_typing().await;
    }

    /// Who is writing, before the prompt.
    async fn show_typing(&mut self) {
        if !self.terminal.is_interactive() {
            return;
        }
        let who =
            self.open.as_ref().map(|open| open.typing.keys().copied().take(TYPING_MOST).collect::<Vec<_>>());
        let who = who.unwrap_or_default();
        let status = match who.len() {
            0 => String::new(),
            _ => format!("({} typing) ", self.people.names(self.client.rest(), &who).await),
        };
        self.terminal.set_status(&status);
    }

    fn is_open(&self, id: ConversationId) -> bool {
        self.open.as_ref().is_some_and(|open| open.id == id)
    }
}
