//! Traffic: messages at random times from random people, until told to stop.

use crate::book::{Book, Outcome, SentMessage};
use crate::population::Population;
use rand::Rng;
use rand::rngs::StdRng;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::{sleep_until, timeout};

/// The longest text, in characters.
const PADDING_MOST: usize = 400;
/// For every outbox to empty after the last message: what waits behind one another goes one at a time, and
/// a client waits up to 5 s before it sends again what was refused.
const FLUSH_WITHIN: Duration = Duration::from_secs(60);

/// Sends `per_second` messages a second over all people until `stop`.
pub async fn run(
    book: Book,
    population: Arc<Population>,
    per_second: f64,
    mut random: StdRng,
    mut stop: watch::Receiver<bool>,
) {
    let mut next = tokio::time::Instant::now();
    loop {
        // Independent people: exponential times between messages, and late ones are made up for.
        let wait_s = -(1.0 - random.random::<f64>()).ln() / per_second;
        next += Duration::from_secs_f64(wait_s);
        tokio::select! {
            () = sleep_until(next) => {}
            _ = stop.changed() => return,
        }
        send(&book, &population, &mut random);
    }
}

fn send(book: &Book, population: &Population, random: &mut StdRng) {
    let (person, conversation) = population.choose(random);
    let session = &population.people[person].sessions[0];
    let number = book.next_number();
    let text = book.text(number, random.random_range(0..PADDING_MOST));
    let at = Instant::now();
    match session.client.send(conversation, text) {
        Ok(ticket) => {
            let client_message_id = ticket.client_message_id().to_owned();
            let outcome = Outcome::Waiting;
            book.sent(SentMessage { session: session.number, conversation, client_message_id, at, outcome });
            let book = book.clone();
            tokio::spawn(async move {
                let answer = ticket.await;
                book.answered(number, answer.map_err(|error| error.to_string()));
            });
        }
        Err(error) => book.problem(session.number, format!("a message was not taken: {error}")),
    }
}

/// Waits until every outbox is empty. Gives what is left.
pub async fn flush(population: &Population) -> usize {
    let clients = || population.people.iter().flat_map(|p| &p.sessions).map(|session| &session.client);
    let flushing = async {
        for client in clients() {
            client.flushed().await;
        }
    };
    let _ = timeout(FLUSH_WITHIN, flushing).await;
    clients().map(reedi_client::Client::unsent).sum()
}
