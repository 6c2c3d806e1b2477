//! Names of people, asked for once.

use super::wording::clean;
use reedi_client::{Rest, RestError};
use reedi_protocol::AccountId;
use reedi_protocol::resource::{Conversation, ConversationType, Profile};
use std::collections::HashMap;

/// Names remembered; more are forgotten all at once, and asked for again.
const REMEMBERED: usize = 10_000;

/// Whom a search found.
pub(super) enum Found {
    /// By user name, which nobody else can have.
    Exactly(Profile),
    /// The only one whose names fit.
    Only(Profile),
    Several(Vec<Profile>),
}

pub(super) struct People {
    me: AccountId,
    names: HashMap<AccountId, String>,
}

impl People {
    pub(super) fn new(me: AccountId) -> Self {
        Self { me, names: HashMap::new() }
    }

    pub(super) fn remember(&mut self, profile: &Profile) {
        if self.names.len() >= REMEMBERED {
            self.names.clear();
        }
        self.names.insert(profile.user_id, clean(&profile.display_name));
    }

    /// How a person is called, "you" among them; the beginning of the id where the server does not say.
    pub(super) async fn name(&mut self, rest: &Rest, account: AccountId) -> String {
        if account == self.me {
            return "you".into();
        }
        if let Some(name) = self.names.get(&account) {
            return name.clone();
        }
        match rest.person(account).await {
            Ok(profile) => {
                self.remember(&profile);
                clean(&profile.display_name)
            }
            Err(error) => {
                tracing::debug!(%error, "a name is not known");
                account.to_string().chars().take(8).collect()
            }
        }
    }

    pub(super) async fn names(&mut self, rest: &Rest, accounts: &[AccountId]) -> String {
        let mut names = Vec::new();
        for account in accounts {
            names.push(self.name(rest, *account).await);
        }
        names.join(", ")
    }

    /// What a conversation is called: a group by its name, a direct one by the other person.
    pub(super) async fn title(&mut self, rest: &Rest, conversation: &Conversation) -> String {
        if conversation.kind == ConversationType::Group {
            return conversation.name.as_deref().map_or_else(|| "a group".into(), clean);
        }
        match conversation.participants.iter().find(|p| p.user_id != self.me) {
            Some(other) => self.name(rest, other.user_id).await,
            None => "yourself".into(),
        }
    }

    /// Somebody by user name, or by a part of a name that only one other person fits.
    pub(super) async fn find(&mut self, rest: &Rest, query: &str) -> Result<Found, RestError> {
        let mut found = rest.people(query).await?;
        found.iter().for_each(|profile| self.remember(profile));
        let same = |profile: &Profile| profile.username.eq_ignore_ascii_case(query);
        if let Some(index) = found.iter().position(same) {
            return Ok(Found::Exactly(found.swap_remove(index)));
        }
        found.retain(|profile| profile.user_id != self.me);
        Ok(if found.len() == 1 { Found::Only(found.swap_remove(0)) } else { Found::Several(found) })
    }
}
