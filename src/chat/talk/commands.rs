//! What the user asks for.

use super::super::command::HISTORY;
use super::super::people::Found;
use super::super::terminal::Tone;
use super::super::wording::{brief, clean, explain, note};
use super::{Open, TITLES, Talk, Title};
use reedi_client::{CommandError, Page, RestError};
use reedi_protocol::resource::{Conversation, ConversationType, Message, Profile};
use reedi_protocol::{AccountId, ConversationId, limits};

impl Talk {
    /// Opens the conversation with a person, or a group. A user name comes first: anybody may give
    /// themselves or a group the name that somebody else shows.
    pub(super) async fn to(&mut self, who: &str) {
        let found = match self.people.find(self.client.rest(), who).await {
            Ok(found) => found,
            Err(error) => return self.warn(&explain(&error)),
        };
        match (found, self.group_named(who)) {
            (Found::Exactly(person), _) | (Found::Only(person), None) => self.open_direct(&person).await,
            (_, Some((id, title))) => self.open(id, title).await,
            (Found::Several(others), None) => self.not_found(who, &others),
        }
    }

    async fn open_direct(&mut self, person: &Profile) {
        if person.user_id == self.client.account() {
            return self.warn("That is you. /people finds others.");
        }
        match self.client.rest().create_direct(person.user_id).await {
            Ok((conversation, _)) => {
                self.open(conversation.conversation_id, clean(&person.display_name)).await
            }
            Err(error) => self.warn(&explain(&error)),
        }
    }

    pub(super) async fn find_people(&mut self, query: &str) {
        let found = match self.client.rest().people(query).await {
            Ok(found) => found,
            Err(error) => return self.warn(&explain(&error)),
        };
        found.iter().for_each(|profile| self.people.remember(profile));
        if found.is_empty() {
            return self.notice("Nobody. They have to sign up first: `reedi chat --as NAME`.");
        }
        let lines: Vec<_> = found.iter().map(describe).collect();
        self.notice(&lines.join("\n"));
    }

    pub(super) async fn list(&mut self) {
        let page = match self.client.rest().conversations(None, limits::PAGE_DEFAULT).await {
            Ok(page) => page,
            Err(error) => return self.warn(&explain(&error)),
        };
        if page.conversations.is_empty() {
            return self.notice("No conversations yet. /people finds people.");
        }
        let mut lines = vec!["Your conversations:".to_owned()];
        for conversation in &page.conversations {
            let title = self.people.title(self.client.rest(), conversation).await;
            self.remember_title(conversation, &title);
            lines.push(self.summary(conversation, &title).await);
        }
        if page.next_cursor.is_some() {
            lines.push("  … and more".into());
        }
        self.notice(&lines.join("\n"));
    }

    pub(super) async fn group(&mut self, name: &str, members: &[String]) {
        let mut ids: Vec<AccountId> = Vec::new();
        for member in members {
            match self.people.find(self.client.rest(), member).await {
                Ok(Found::Exactly(person) | Found::Only(person)) => ids.push(person.user_id),
                Ok(Found::Several(others)) => return self.not_found(member, &others),
                Err(error) => return self.warn(&explain(&error)),
            }
        }
        match self.client.rest().create_group(name, &ids).await {
            Ok(group) => {
                let title = clean(group.name.as_deref().unwrap_or(name));
                self.remember_title(&group, &title);
                self.open(group.conversation_id, title).await;
            }
            Err(error) => self.warn(&explain(&error)),
        }
    }

    /// Shows the newest messages of the open conversation.
    pub(super) async fn history(&mut self, count: usize) {
        let Some(id) = self.open.as_ref().map(|open| open.id) else {
            return self.warn("Open a conversation first: /to NAME");
        };
        let messages = match self.client.rest().history(id, Page::Newest, count).await {
            Ok(history) => history.messages,
            Err(error) => return self.warn(&explain(&error)),
        };
        if messages.is_empty() {
            return self.notice("No messages yet. Write the first one.");
        }
        for message in messages.iter().rev() {
            let line = self.line(message).await;
            self.terminal.show(Tone::Message, &line);
        }
        let newest = &messages[0];
        if let Some(open) = &mut self.open {
            open.newest = open.newest.max(Some(newest.message_id));
        }
        if newest.sender_id == self.client.account() {
            self.ticks(newest).await;
        } else {
            self.client.mark_read(newest.message_id);
        }
    }

    async fn open(&mut self, id: ConversationId, title: String) {
        if let Some(before) = self.open.take().filter(|before| before.id != id) {
            self.typing_stops(before.id, before.said_typing.is_some());
            let client = self.client.clone();
            // Nothing is shown of it any more, whether the server has heard or not.
            drop(tokio::spawn(async move { client.leave(before.id).await }));
        }
        self.notice(&format!("--- {title} ---"));
        self.terminal.set_status("");
        self.terminal.set_prompt(&format!("{}> ", brief(&title, 20)));
        let (said_typing, typing) = (None, std::collections::HashMap::new());
        self.open = Some(Open { id, newest: None, said_typing, typing });
        match self.client.join(id).await {
            // It is joined with the next connection.
            Ok(_) | Err(CommandError::NotConnected | CommandError::Lost) => {}
            Err(error) => self.warn(&format!("Typing and presence are not shown: {error}.")),
        }
        self.history(HISTORY).await;
    }

    fn typing_stops(&self, id: ConversationId, said: bool) {
        if said {
            self.client.typing(id, false);
        }
    }

    fn group_named(&self, name: &str) -> Option<(ConversationId, String)> {
        let wanted = name.to_lowercase();
        let fits =
            |(_, title): &(&ConversationId, &Title)| title.is_group && title.text.to_lowercase() == wanted;
        self.titles.iter().find(fits).map(|(id, title)| (*id, title.text.clone()))
    }

    fn not_found(&mut self, who: &str, others: &[Profile]) {
        if others.is_empty() {
            let who = clean(who);
            return self
                .warn(&format!("Nobody here is called {who}. /people finds people, by parts of names too."));
        }
        let lines: Vec<_> = others.iter().map(describe).collect();
        self.warn(&format!("Which one?\n{}", lines.join("\n")));
    }

    /// One line of the list.
    async fn summary(&mut self, conversation: &Conversation, title: &str) -> String {
        let mut line = format!("  {title}");
        if conversation.kind == ConversationType::Group {
            line.push_str(&format!(" (group of {})", conversation.participants.len()));
        }
        let Some(activity) = &conversation.activity else { return line };
        match activity.unread_count {
            0 => {}
            count if count > limits::UNREAD_EXACT => {
                line.push_str(&format!("  [more than {} unread]", limits::UNREAD_EXACT));
            }
            count => line.push_str(&format!("  [{count} unread]")),
        }
        if let Some(message) = &activity.last_message {
            line.push_str(&format!("  {}", brief(&self.line(message).await, 60)));
        }
        line
    }

    /// A message as it is shown.
    pub(super) async fn line(&mut self, message: &Message) -> String {
        let time = self.clock.show(message.timestamp);
        let rest = self.client.rest();
        if let Some(system) = &message.system {
            let by = self.people.name(rest, system.by).await;
            let who = self.people.names(rest, &system.user_ids).await;
            return format!("{time} * {}", note(system, &by, &who));
        }
        let sender = self.people.name(rest, message.sender_id).await;
        let text = match &message.content {
            Some(content) => clean(content),
            None => "(deleted)".into(),
        };
        let edited = if message.edited_at.is_some() { " (edited)" } else { "" };
        let reactions: String =
            message.reactions.iter().map(|r| format!(" {}", clean(&r.reaction))).collect();
        let tick = if message.sender_id == self.client.account() { " ✓" } else { "" };
        format!("{time} {sender}: {text}{edited}{reactions}{tick}")
    }

    /// Who has received and read the newest message, which stands for all before it.
    async fn ticks(&mut self, message: &Message) {
        let receipts = match self.client.rest().receipts(message.message_id).await {
            Ok(receipts) => receipts,
            Err(error) => return tracing::debug!(%error, "receipts are not shown"),
        };
        let read: Vec<_> = receipts.iter().filter(|r| r.read_at.is_some()).map(|r| r.user_id).collect();
        let delivered: Vec<_> = receipts
            .iter()
            .filter(|r| r.read_at.is_none() && r.delivered_at.is_some())
            .map(|r| r.user_id)
            .collect();
        for (accounts, what) in [(delivered, "delivered to"), (read, "read by")] {
            if !accounts.is_empty() {
                let names = self.people.names(self.client.rest(), &accounts).await;
                self.notice(&format!("      ✓✓ {what} {names}"));
            }
        }
    }

    /// What a conversation is called, asked for where it is not known.
    pub(super) async fn title(&mut self, id: ConversationId) -> Result<String, RestError> {
        if let Some(title) = self.titles.get(&id) {
            return Ok(title.text.clone());
        }
        let conversation = self.client.rest().conversation(id).await?;
        let title = self.people.title(self.client.rest(), &conversation).await;
        self.remember_title(&conversation, &title);
        Ok(title)
    }

    pub(super) fn remember_title(&mut self, conversation: &Conversation, title: &str) {
        if self.titles.len() >= TITLES {
            self.titles.clear();
        }
        let is_group = conversation.kind == ConversationType::Group;
        self.titles.insert(conversation.conversation_id, Title { text: title.to_owned(), is_group });
    }
}

fn describe(profile: &Profile) -> String {
    format!("  {}  ({})", clean(&profile.username), clean(&profile.display_name))
}
