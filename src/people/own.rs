//! Own accounts: sign-up, login and people search over the store. They have no follow graph: nobody
//! follows anybody, so that `messagesFrom: followers` means nobody.

use super::password::{Busy, Hasher, Password};
use super::{PeopleError, PeoplePort, beginning};
use crate::store::{Accounts, Claimed, OwnAccount, StoreError};
use futures_util::{StreamExt, TryStreamExt};
use reedi_protocol::resource::Profile;
use reedi_protocol::text::{Name, Username};
use reedi_protocol::{AccountId, Timestamp};
use uuid::Uuid;

/// Look-ups of one question that are under way at once.
const LOOKUPS_AT_ONCE: usize = 16;

/// Why nobody was signed up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignUpError {
    #[error("this user name is taken")]
    Taken,
    #[error(transparent)]
    Busy(#[from] Busy),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why nobody was logged in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogInError {
    /// Which of them is wrong is not told, and does not show in the time it takes.
    #[error("wrong user name or password")]
    WrongCredentials,
    #[error(transparent)]
    Busy(#[from] Busy),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Own accounts over a store.
#[derive(Clone)]
pub struct OwnPeople<S> {
    store: S,
    hasher: Hasher,
}

impl<S: Accounts + Clone + Send + Sync + 'static> OwnPeople<S> {
    #[must_use]
    pub fn new(store: S) -> Self {
        Self { store, hasher: Hasher::default() }
    }

    /// Makes an account. Without a display name it is shown by its user name.
    ///
    /// # Errors
    /// The name is taken, too many sign up at once, or the store is away.
    pub async fn sign_up(
        &self,
        username: Username,
        password: Password,
        display_name: Option<Name>,
        now: Timestamp,
    ) -> Result<AccountId, SignUpError> {
        // Asked before the costly hash; the store decides between two who come at once.
        if self.store.account_by_username(&username).await?.is_some() {
            return Err(SignUpError::Taken);
        }
        let display_name = display_name.unwrap_or_else(|| Name::from(&username));
        let account = OwnAccount {
            account: AccountId::new(Uuid::new_v4()),
            username,
            display_name,
            password_hash: self.hasher.hash(password).await?,
            created_at: now,
        };
        match self.store.create_account(&account).await? {
            Claimed::New => Ok(account.account),
            Claimed::Stood(_) => Err(SignUpError::Taken),
        }
    }

    /// Whose name and password these are. What cannot be a user name is refused at once: that tells
    /// nothing of who there is.
    ///
    /// # Errors
    /// Name or password is wrong, too many log in at once, or the store is away.
    pub async fn log_in(&self, username: &str, password: String) -> Result<AccountId, LogInError> {
        let wrong = LogInError::WrongCredentials;
        let username = Username::parse(username).map_err(|_| wrong.clone())?;
        let password = Password::parse(password).map_err(|_| wrong.clone())?;
        let standing = self.store.account_by_username(&username).await?;
        let hash = standing.as_ref().map(|own| own.password_hash.clone());
        let matches = self.hasher.verify(password, hash).await?;
        match standing {
            Some(own) if matches => Ok(own.account),
            _ => Err(wrong),
        }
    }
}

fn profile_of(own: OwnAccount) -> Profile {
    Profile {
        user_id: own.account,
        username: own.username.into_string(),
        display_name: own.display_name.into_string(),
    }
}

fn away(error: StoreError) -> PeopleError {
    PeopleError(error.to_string())
}

impl<S: Accounts + Clone + Send + Sync + 'static> PeoplePort for OwnPeople<S> {
    async fn search(&self, query: &str, limit: usize) -> Result<Vec<Profile>, PeopleError> {
        match beginning(query) {
            Some(beginning) if limit > 0 => {
                let found = self.store.search_accounts(&beginning, limit).await.map_err(away)?;
                Ok(found.into_iter().map(profile_of).collect())
            }
            _ => Ok(Vec::new()),
        }
    }

    async fn profile(&self, account: AccountId) -> Result<Option<Profile>, PeopleError> {
        Ok(self.store.account(account).await.map_err(away)?.map(profile_of))
    }

    async fn existing(&self, accounts: &[AccountId]) -> Result<Vec<bool>, PeopleError> {
        let lookups: Vec<_> = accounts.iter().map(|account| self.store.account(*account)).collect();
        let found = futures_util::stream::iter(lookups).buffered(LOOKUPS_AT_ONCE);
        found.map_ok(|own| own.is_some()).try_collect().await.map_err(away)
    }

    async fn follows(&self, _: AccountId, _: AccountId) -> Result<bool, PeopleError> {
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::super::conformance;
    use super::*;
    use crate::runtime::clock::LogClock;
    use crate::store::embedded::EmbeddedStore;
    use futures_util::future::join_all;

    fn people() -> OwnPeople<EmbeddedStore> {
        OwnPeople::new(EmbeddedStore::in_memory(LogClock::from_system()))
    }

    fn username(text: &str) -> Username {
        Username::parse(text).unwrap()
    }

    fn password(text: &str) -> Password {
        Password::parse(text.to_owned()).unwrap_or_else(|_| panic!("{text} is no password"))
    }

    async fn sign_up(people: &OwnPeople<EmbeddedStore>, name: &str) -> Result<AccountId, SignUpError> {
        let display = Name::parse(&format!("{name} the tester")).unwrap();
        people
            .sign_up(username(name), password("correct horse"), Some(display), Timestamp::from_millis(7))
            .await
    }

    #[tokio::test]
    async fn own_accounts_are_people() {
        let people = people();
        let mut known = Vec::new();
        for name in conformance::USERNAMES {
            let account = sign_up(&people, name).await.unwrap();
            known.push(Profile {
                user_id: account,
                username: name.into(),
                display_name: format!("{name} the tester"),
            });
        }
        conformance::all(&people, &conformance::World { known, follows: Vec::new() }).await;
    }

    #[tokio::test]
    async fn whoever_signed_up_can_log_in_and_nobody_else() {
        let people = people();
        let account = sign_up(&people, "alice").await.unwrap();
        assert_eq!(people.log_in("alice", "correct horse".into()).await, Ok(account));
        assert_eq!(people.log_in("ALICE", "correct horse".into()).await, Ok(account));
        for (name, password) in [
            ("alice", "battery staple"),
            ("alice", "short"),
            ("bob", "correct horse"),
            ("not a name", "correct horse"),
            ("", ""),
        ] {
            let outcome = people.log_in(name, password.into()).await;
            assert_eq!(outcome, Err(LogInError::WrongCredentials), "{name} {password}");
        }
        let plain =
            people.sign_up(username("plain"), password("correct horse"), None, Timestamp::default()).await;
        assert_eq!(people.profile(plain.unwrap()).await.unwrap().unwrap().display_name, "plain");
    }

    #[tokio::test]
    async fn a_name_is_taken_once_however_many_want_it() {
        let people = people();
        let all = join_all((0..6).map(|_| sign_up(&people, "alice"))).await;
        assert_eq!(all.iter().filter(|one| one.is_ok()).count(), 1);
        assert!(all.iter().all(|one| one.is_ok() || *one == Err(SignUpError::Taken)), "{all:?}");
        assert_eq!(sign_up(&people, "alice").await, Err(SignUpError::Taken));
    }
}
