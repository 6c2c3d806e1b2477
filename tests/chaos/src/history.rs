//! What stands in the end, read by REST as anybody would.

use crate::book::{Book, ToldMessage};
use crate::invariants::History;
use crate::patience::patiently;
use crate::population::Population;
use reedi_client::{Page, Rest, RestError};
use reedi_protocol::resource::MessageType;
use reedi_protocol::{ConversationId, limits};
use std::time::Duration;
use tokio::task::JoinSet;

/// Conversations read at once.
const AT_ONCE: usize = 8;
/// One page, when all faults are over.
const PAGE_WITHIN: Duration = Duration::from_secs(30);

/// Reads every conversation from its end to its beginning.
pub async fn read(population: &Population, book: &Book) -> Result<History, String> {
    let mut wanted = population.conversations();
    let (mut reading, mut history) = (JoinSet::new(), History::new());
    loop {
        while reading.len() < AT_ONCE
            && let Some((conversation, person)) = wanted.next()
        {
            let (rest, book) = (person.rest.clone(), book.clone());
            reading.spawn(async move { (conversation, whole(&rest, &book, conversation).await) });
        }
        let Some(read) = reading.join_next().await else { return Ok(history) };
        let (conversation, messages) = read.map_err(|error| error.to_string())?;
        let messages = messages.map_err(|error| format!("{conversation} cannot be read: {error}"))?;
        history.insert(conversation, messages);
    }
}

/// Oldest first.
async fn whole(
    rest: &Rest,
    book: &Book,
    conversation: ConversationId,
) -> Result<Vec<ToldMessage>, RestError> {
    let (mut messages, mut page) = (Vec::new(), Page::Newest);
    loop {
        let read = || rest.history(conversation, page, limits::PAGE_MOST);
        let history = patiently(PAGE_WITHIN, read).await?;
        let written = history.messages.iter().filter(|m| m.message_type != MessageType::System);
        messages.extend(written.map(|message| book.entry(message)));
        match history.messages.last() {
            Some(last) if history.next_cursor.is_some() => page = Page::Before(last.message_id),
            _ => break,
        }
    }
    messages.reverse();
    Ok(messages)
}
