//! Conversations and their participants.

use super::Rest;
use crate::error::RestError;
use reedi_protocol::command::{AddParticipants, CreateDirect, CreateGroup, SetRole, UpdateConversation};
use reedi_protocol::resource::{Conversation, ConversationList, Role};
use reedi_protocol::{AccountId, ConversationId};
use reqwest::Method;

impl Rest {
    /// The conversation with one other person, and whether it was made by this call.
    ///
    /// # Errors
    /// `recipient_unavailable`, `not_found`, or no answer.
    pub async fn create_direct(&self, with: AccountId) -> Result<(Conversation, bool), RestError> {
        let body = CreateDirect { participant_id: with.to_string() };
        self.messages(Method::POST, &["conversations", "direct"]).body(&body).json_and_made().await
    }

    /// # Errors
    /// `invalid_value`, `group_full`, `recipient_unavailable`, or no answer.
    pub async fn create_group(
        &self,
        name: &str,
        participants: &[AccountId],
    ) -> Result<Conversation, RestError> {
        let participant_ids = participants.iter().map(ToString::to_string).collect();
        let body = CreateGroup { name: name.to_owned(), participant_ids, avatar_url: None };
        self.messages(Method::POST, &["conversations", "group"]).body(&body).json().await
    }

    /// One page of my conversations, by latest activity.
    ///
    /// # Errors
    /// `store_unavailable`, or no answer.
    pub async fn conversations(
        &self,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<ConversationList, RestError> {
        let mut query = vec![("limit", limit.to_string())];
        query.extend(cursor.map(|c| ("cursor", c.to_owned())));
        self.messages(Method::GET, &["conversations"]).query(&query).json().await
    }

    /// # Errors
    /// `not_found`, also for conversations that are not mine; or no answer.
    pub async fn conversation(&self, id: ConversationId) -> Result<Conversation, RestError> {
        self.messages(Method::GET, &["conversations", &id.to_string()]).json().await
    }

    /// # Errors
    /// `forbidden`, `not_a_group`, `invalid_value`, or no answer.
    pub async fn update_conversation(
        &self,
        id: ConversationId,
        change: &UpdateConversation,
    ) -> Result<Conversation, RestError> {
        self.messages(Method::PUT, &["conversations", &id.to_string()]).body(change).json().await
    }

    /// # Errors
    /// `forbidden`, `not_a_group`, `group_full`, `conflict`, or no answer.
    pub async fn add_participants(&self, id: ConversationId, who: &[AccountId]) -> Result<(), RestError> {
        let body = AddParticipants { participant_ids: who.iter().map(ToString::to_string).collect() };
        let parts = ["conversations", &id.to_string(), "participants"];
        self.messages(Method::POST, &parts).body(&body).done().await
    }

    /// # Errors
    /// `forbidden`, `not_a_group`, `conflict`, or no answer.
    pub async fn remove_participant(&self, id: ConversationId, who: AccountId) -> Result<(), RestError> {
        let parts = ["conversations", &id.to_string(), "participants", &who.to_string()];
        self.messages(Method::DELETE, &parts).done().await
    }

    /// # Errors
    /// `last_admin`, `forbidden`, `not_a_group`, `conflict`, or no answer.
    pub async fn set_role(&self, id: ConversationId, who: AccountId, role: Role) -> Result<(), RestError> {
        let parts = ["conversations", &id.to_string(), "participants", &who.to_string()];
        self.messages(Method::PUT, &parts).body(&SetRole { role }).done().await
    }

    /// # Errors
    /// `not_a_group`, `conflict`, or no answer.
    pub async fn leave(&self, id: ConversationId) -> Result<(), RestError> {
        let parts = ["conversations", &id.to_string(), "participants", "me"];
        self.messages(Method::DELETE, &parts).done().await
    }
}
