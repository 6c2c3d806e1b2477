//! People: who there is, how they are called, and who follows whom. Either the platform's, asked by
//! HTTP, or own accounts.

mod cache;
pub mod conformance;
pub mod own;
pub mod password;
pub mod platform;

use crate::store::Store;
use reedi_protocol::AccountId;
use reedi_protocol::resource::Profile;
use std::future::Future;

/// Longest text to search for, in characters; nobody's name is longer.
pub const QUERY_CHARS: usize = 64;

/// Nobody can say now; ask again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("people cannot be looked up: {0}")]
pub struct PeopleError(pub String);

/// The port. Both adapters pass the conformance suite.
pub trait PeoplePort: Clone + Send + Sync + 'static {
    /// People whose user name begins with `query`, in any case and with or without a leading `@`, at
    /// most `limit`. Nobody for what no user name begins with, the empty text included.
    fn search(
        &self,
        query: &str,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Profile>, PeopleError>> + Send;

    fn profile(
        &self,
        account: AccountId,
    ) -> impl Future<Output = Result<Option<Profile>, PeopleError>> + Send;

    /// Which of `accounts` there are, in the order asked.
    fn existing(&self, accounts: &[AccountId])
    -> impl Future<Output = Result<Vec<bool>, PeopleError>> + Send;

    /// Whether `follower` follows `followee`; nobody follows whoever does not exist.
    fn follows(
        &self,
        follower: AccountId,
        followee: AccountId,
    ) -> impl Future<Output = Result<bool, PeopleError>> + Send;
}

/// The people of this process.
#[derive(Clone)]
pub enum People {
    Own(own::OwnPeople<Store>),
    Platform(platform::Platform),
}

impl People {
    /// Whether remembered answers serve, because the platform is away.
    #[must_use]
    pub fn degraded(&self) -> bool {
        match self {
            People::Own(_) => false,
            People::Platform(people) => people.is_away(),
        }
    }
}

macro_rules! dispatch {
    ($(fn $name:ident(&self $(, $arg:ident: $type:ty)*) -> $out:ty;)*) => {
        impl PeoplePort for People {
            $(async fn $name(&self $(, $arg: $type)*) -> Result<$out, PeopleError> {
                match self {
                    People::Own(people) => people.$name($($arg),*).await,
                    People::Platform(people) => Box::pin(people.$name($($arg),*)).await,
                }
            })*
        }
    };
}

dispatch! {
    fn search(&self, query: &str, limit: usize) -> Vec<Profile>;
    fn profile(&self, account: AccountId) -> Option<Profile>;
    fn existing(&self, accounts: &[AccountId]) -> Vec<bool>;
    fn follows(&self, follower: AccountId, followee: AccountId) -> bool;
}

/// What of a query can begin a user name; `None` if nobody's can.
fn beginning(query: &str) -> Option<String> {
    let query = query.trim();
    let name = query.strip_prefix('@').unwrap_or(query).to_lowercase();
    let fits = !name.is_empty() && name.chars().count() <= QUERY_CHARS;
    (fits && !name.chars().any(|c| c.is_control() || c.is_whitespace())).then_some(name)
}
