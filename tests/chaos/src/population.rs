//! The people of the run: accounts, their sessions, their conversations.

use crate::book::Book;
use crate::cluster::Cluster;
use crate::patience::patiently;
use crate::session::Session;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::{IteratorRandom, SliceRandom};
use reedi_client::{Endpoint, Password, Rest, RestError, RestOptions, Token};
use reedi_protocol::{AccountId, ConversationId};
use std::path::Path;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Sign-ups and creations at once.
const AT_ONCE: usize = 8;
/// No fault happens yet, and 200 passwords to be hashed keep a busy machine.
const SET_UP_WITHIN: Duration = Duration::from_secs(180);
/// One account of so many has a second session.
const SECOND_SESSION_ONE_OF: usize = 10;
/// One session of so many keeps its state in a folder.
const FOLDER_ONE_OF: usize = 4;
/// Groups of a size whose members events name, and one of each size beyond: more than 32 are not
/// named in events, and more than 64 have a head of their own in the store.
const SMALL_GROUP: usize = 8;
const LARGE_GROUPS: [usize; 2] = [40, 80];

/// Why there are no people.
#[derive(Debug, thiserror::Error)]
pub enum PopulationError {
    #[error(transparent)]
    Endpoint(#[from] reedi_client::NotAnEndpoint),
    #[error("a call failed: {0}")]
    Rest(#[from] RestError),
    #[error("a client could not begin: {0}")]
    Connect(#[from] reedi_client::ConnectError),
    #[error("{0} was not connected and caught up within {SET_UP_WITHIN:?}")]
    NotCaughtUp(String),
    #[error("a task failed: {0}")]
    Task(#[from] tokio::task::JoinError),
}

pub struct Person {
    pub account: AccountId,
    pub rest: Rest,
    /// Of which the first sends.
    pub sessions: Vec<Session>,
    pub conversations: Vec<ConversationId>,
}

pub struct Population {
    pub people: Vec<Person>,
    /// Pairs and small groups; and the large ones, where less is said.
    pub small: Vec<(ConversationId, Vec<usize>)>,
    pub large: Vec<(ConversationId, Vec<usize>)>,
}

/// What people reach the service by.
pub fn rest(address: std::net::SocketAddr, answer_within: Duration) -> Result<Rest, PopulationError> {
    let options = RestOptions { answer_within, idle_connections: 16, ..RestOptions::default() };
    Ok(Rest::new(Endpoint::parse(&format!("http://{address}"))?, options)?)
}

/// Makes an account.
pub async fn sign_up(rest: &Rest, name: &str, password: &str) -> Result<(AccountId, Token), RestError> {
    let own = rest.for_token(Token::new(""));
    let password = Password::new(password);
    let signed_up = patiently(SET_UP_WITHIN, || own.sign_up(name, &password, None)).await;
    let session = match signed_up {
        // The answer to the try before was lost.
        Err(error) if error.code() == Some(reedi_protocol::ErrorCode::UsernameTaken) => {
            patiently(SET_UP_WITHIN, || own.log_in(name, &password)).await?
        }
        session => session?,
    };
    Ok((session.user_id, Token::new(&session.token)))
}

impl Population {
    /// Signs `count` people up, connects them and makes their conversations.
    pub async fn settle(
        cluster: &Cluster,
        book: &Book,
        folder: &Path,
        count: usize,
        random: &mut StdRng,
    ) -> Result<Self, PopulationError> {
        let rest = rest(cluster.entry, Duration::from_secs(15))?;
        let tokens = accounts(&rest, &cluster.secrets.password, count).await?;
        let mut people = Vec::with_capacity(count);
        for (number, (account, token)) in tokens.into_iter().enumerate() {
            let own = rest.for_token(token.clone());
            let mut sessions = Vec::new();
            let second = number.is_multiple_of(SECOND_SESSION_ONE_OF);
            for part in 0..=usize::from(second) {
                let name = format!("person-{number}/{part}");
                let keeps = (number + part).is_multiple_of(FOLDER_ONE_OF);
                let state = keeps.then(|| folder.join(format!("clients-{part}")));
                sessions.push(Session::open(book, name, &rest, (account, token.clone()), state).await?);
            }
            people.push(Person { account, rest: own, sessions, conversations: Vec::new() });
        }
        for session in people.iter_mut().flat_map(|person| &mut person.sessions) {
            let caught_up = timeout(SET_UP_WITHIN, session.caught_up.wait_for(|is| *is)).await;
            if !matches!(caught_up, Ok(Ok(_))) {
                let name = book.read(|pages| pages.sessions[session.number].name.clone());
                return Err(PopulationError::NotCaughtUp(name));
            }
        }
        let mut population = Self { people, small: Vec::new(), large: Vec::new() };
        population.converse(book, random).await?;
        Ok(population)
    }

    /// Makes a pair of every two neighbours, an eighth as many groups, and the large groups.
    async fn converse(&mut self, book: &Book, random: &mut StdRng) -> Result<(), PopulationError> {
        let count = self.people.len();
        let mut everybody: Vec<usize> = (0..count).collect();
        everybody.shuffle(random);
        let mut wanted: Vec<Vec<usize>> = everybody.chunks_exact(2).map(<[usize]>::to_vec).collect();
        for size in std::iter::repeat_n(SMALL_GROUP, count / 8).chain(LARGE_GROUPS) {
            wanted.push((0..count).choose_multiple(random, size.min(count)));
        }
        let mut making = JoinSet::new();
        let mut wanted = wanted.into_iter();
        loop {
            while making.len() < AT_ONCE
                && let Some(members) = wanted.next()
            {
                let rest = self.people[members[0]].rest.clone();
                let others: Vec<AccountId> = members[1..].iter().map(|m| self.people[*m].account).collect();
                making.spawn(async move { (create(&rest, &others).await, members) });
            }
            let Some(made) = making.join_next().await else { break };
            let (conversation, members) = made?;
            self.enter(book, conversation?, members);
        }
        Ok(())
    }

    fn enter(&mut self, book: &Book, conversation: ConversationId, members: Vec<usize>) {
        for member in &members {
            let person = &mut self.people[*member];
            person.conversations.push(conversation);
            person.sessions.iter().for_each(|session| book.joins(session.number, conversation));
        }
        let list = if members.len() > SMALL_GROUP { &mut self.large } else { &mut self.small };
        list.push((conversation, members));
    }

    /// Somebody and one of their conversations; large groups are chosen one time of twenty.
    pub fn choose(&self, random: &mut StdRng) -> (usize, ConversationId) {
        let list = if random.random_bool(0.05) { &self.large } else { &self.small };
        let (conversation, members) = &list[random.random_range(0..list.len())];
        (members[random.random_range(0..members.len())], *conversation)
    }

    /// All conversations, each with somebody in it.
    pub fn conversations(&self) -> impl Iterator<Item = (ConversationId, &Person)> {
        self.small.iter().chain(&self.large).map(|(id, members)| (*id, &self.people[members[0]]))
    }
}

async fn accounts(
    rest: &Rest,
    password: &str,
    count: usize,
) -> Result<Vec<(AccountId, Token)>, PopulationError> {
    let mut signing_up = JoinSet::new();
    let mut accounts = Vec::with_capacity(count);
    let mut next = 0;
    loop {
        while signing_up.len() < AT_ONCE && next < count {
            let (rest, password, name) = (rest.clone(), password.to_owned(), format!("chaos{next}"));
            signing_up.spawn(async move { sign_up(&rest, &name, &password).await });
            next += 1;
        }
        let Some(signed_up) = signing_up.join_next().await else { return Ok(accounts) };
        accounts.push(signed_up??);
    }
}

async fn create(rest: &Rest, others: &[AccountId]) -> Result<ConversationId, RestError> {
    let conversation = match others {
        [other] => patiently(SET_UP_WITHIN, || rest.create_direct(*other)).await?.0,
        others => patiently(SET_UP_WITHIN, || rest.create_group("chaos", others)).await?,
    };
    Ok(conversation.conversation_id)
}
