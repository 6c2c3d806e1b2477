//! Messages, what changed them, and who has seen them.

use super::Rest;
use crate::error::RestError;
use reedi_protocol::command::{DeleteScope, EditMessage, React, SendMessage};
use reedi_protocol::resource::{Events, History, Message, Receipt, Receipts};
use reedi_protocol::{ConversationId, MessageId, Position};
use reqwest::Method;

/// Which page of a history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Page {
    #[default]
    Newest,
    Before(MessageId),
    After(MessageId),
    Around(MessageId),
}

impl Rest {
    /// Sends one message over REST; `true` where this call made it, `false` where it stood already.
    /// [`crate::Client::send`] is the way that also survives a lost answer.
    ///
    /// # Errors
    /// `outcome_unknown` (send the same again), `log_unavailable`, `idempotency_key_reused`,
    /// `client_message_id_time`, `rate_limited`, `recipient_unavailable`, or no answer.
    pub async fn send_message(
        &self,
        conversation: ConversationId,
        message: &SendMessage,
    ) -> Result<(Message, bool), RestError> {
        let parts = ["conversations", &conversation.to_string(), "messages"];
        self.messages(Method::POST, &parts).body(message).json_and_made().await
    }

    /// A page of messages, newest first.
    ///
    /// # Errors
    /// `not_found`, `store_unavailable`, or no answer.
    pub async fn history(
        &self,
        conversation: ConversationId,
        page: Page,
        limit: usize,
    ) -> Result<History, RestError> {
        let mut query = vec![("limit", limit.to_string())];
        match page {
            Page::Newest => {}
            Page::Before(id) => query.push(("before", id.to_string())),
            Page::After(id) => query.push(("after", id.to_string())),
            Page::Around(id) => query.push(("around", id.to_string())),
        }
        let parts = ["conversations", &conversation.to_string(), "messages"];
        self.messages(Method::GET, &parts).query(&query).json().await
    }

    /// Everything that changed in a conversation since `after`, in order.
    ///
    /// # Errors
    /// `not_found`, `store_unavailable`, or no answer.
    pub async fn events(
        &self,
        conversation: ConversationId,
        after: Position,
        limit: usize,
    ) -> Result<Events, RestError> {
        let query = [("after", after.to_string()), ("limit", limit.to_string())];
        let parts = ["conversations", &conversation.to_string(), "events"];
        self.messages(Method::GET, &parts).query(&query).json().await
    }

    /// # Errors
    /// `forbidden`, `edit_window_over`, `gone`, or no answer.
    pub async fn edit(&self, message: MessageId, content: &str) -> Result<Message, RestError> {
        let body = EditMessage { content: content.to_owned() };
        self.messages(Method::PUT, &["messages", &message.to_string()]).body(&body).json().await
    }

    /// # Errors
    /// `forbidden`, `edit_window_over`, or no answer.
    pub async fn delete(&self, message: MessageId, scope: DeleteScope) -> Result<(), RestError> {
        let scope = match scope {
            DeleteScope::Everyone => "everyone",
            DeleteScope::Me => "me",
        };
        let call = self.messages(Method::DELETE, &["messages", &message.to_string()]);
        call.query(&[("scope", scope)]).done().await
    }

    /// Who has received and read a message: all participants but its sender.
    ///
    /// # Errors
    /// `not_found`, or no answer.
    pub async fn receipts(&self, message: MessageId) -> Result<Vec<Receipt>, RestError> {
        let parts = ["messages", &message.to_string(), "receipts"];
        Ok(self.messages(Method::GET, &parts).json::<Receipts>().await?.receipts)
    }

    /// # Errors
    /// `invalid_value` where `reaction` is not exactly one emoji, `gone`, or no answer.
    pub async fn react(&self, message: MessageId, reaction: &str) -> Result<(), RestError> {
        let body = React { reaction: reaction.to_owned() };
        let parts = ["messages", &message.to_string(), "reactions"];
        self.messages(Method::POST, &parts).body(&body).done().await
    }

    /// # Errors
    /// `not_found` where it was not there, or no answer.
    pub async fn unreact(&self, message: MessageId, reaction: &str) -> Result<(), RestError> {
        let parts = ["messages", &message.to_string(), "reactions", reaction];
        self.messages(Method::DELETE, &parts).done().await
    }
}
