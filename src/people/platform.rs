//! The platform's people, asked by HTTP and remembered for a while.
//!
//! What the platform has to answer under `REEDI_PEOPLE_URL`, in JSON, at most 256 KiB, within 2 s; a
//! user and a password in the URL are sent as basic authentication, unknown fields are ignored:
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /users?query=<text>&limit=<n>` | 200 `{"users": [{"userId", "username", "displayName"}]}`: whose user name begins with the text (lower case), in order |
//! | `GET /users/<uuid>` | 200 `{"userId", "username", "displayName"}`, or 404 if there is nobody |
//! | `GET /users/<follower>/follows/<followee>` | 200 `{"follows": true}` or `{"follows": false}`; 404 if there is no such person |
//!
//! No answer, 5xx, 401 and 429 count as the platform being away: then answers up to a day old serve, and it is left alone for
//! 5 s, so that nobody waits for it in vain again and again. 403 and 408 are told in the log; any other answer is of the one
//! question alone. Operators read this in `docs/operations.md`.

use super::cache::AnswerCache;
use super::{PeopleError, PeoplePort, beginning};
use futures_util::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use reedi_protocol::AccountId;
use reedi_protocol::resource::{Profile, Profiles};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use url::Url;

/// A request's time, from beginning to end; a sender may be waiting.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// After a failure the platform is left alone for this long.
const PAUSE: Duration = Duration::from_secs(5);
/// How old an answer may be that is given without asking: a changed name shows after five minutes, a
/// changed follow, which lets messages pass or not, after one.
const PROFILE_FRESH: Duration = Duration::from_secs(300);
const FOLLOW_FRESH: Duration = Duration::from_secs(60);
const SEARCH_FRESH: Duration = Duration::from_secs(30);
/// How old an answer may be that is given while the platform is away.
const STALE: Duration = Duration::from_secs(24 * 3_600);
/// Answers kept, of some 300 bytes (profiles), 60 bytes (follows) and 10 KiB (searches) each: 25 MiB.
const PROFILES_KEPT: usize = 50_000;
const FOLLOWS_KEPT: usize = 100_000;
const SEARCHES_KEPT: usize = 200;
/// Requests under way at once, of the process and of one question.
const REQUESTS_AT_ONCE: usize = 64;
const LOOKUPS_AT_ONCE: usize = 16;
/// A page of a hundred people has some 20 KiB.
const ANSWER_BYTES: usize = 256 * 1024;

/// The platform's people; clones share connections and answers.
#[derive(Clone)]
pub struct Platform(Arc<Inner>);

struct Inner {
    base: Url,
    client: reqwest::Client,
    requests: Semaphore,
    standing: Mutex<Standing>,
    profiles: AnswerCache<AccountId, Option<Profile>>,
    follows: AnswerCache<(AccountId, AccountId), bool>,
    searches: AnswerCache<(String, usize), Vec<Profile>>,
}

/// What the last answers say of the platform.
#[derive(Default)]
struct Standing {
    /// Nothing is asked before.
    away_until: Option<Instant>,
    /// It says that this server may not ask.
    refuses: bool,
}

impl Standing {
    fn is_well(&self) -> bool {
        self.away_until.is_none() && !self.refuses
    }
}

/// What a question that got no answer to go by says of the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It would fare no better.
    Away,
    /// It may be this server that is refused, or only what somebody has asked for: a firewall in front does not like a
    /// search. It is told, and does not keep others from asking.
    Refused,
    /// Nothing.
    OfOne,
}

/// A question that got no answer to go by.
struct Failed {
    error: PeopleError,
    verdict: Verdict,
}

impl Failed {
    fn new(verdict: Verdict, why: impl ToString) -> Self {
        Self { error: PeopleError(why.to_string()), verdict }
    }

    fn away(why: impl ToString) -> Self {
        Self::new(Verdict::Away, why)
    }

    /// Of this question alone: somebody may ask for what the platform refuses.
    fn of_one(why: impl ToString) -> Self {
        Self::new(Verdict::OfOne, why)
    }
}

#[derive(Deserialize)]
struct Follows {
    follows: bool,
}

impl Platform {
    /// `base` is what `REEDI_PEOPLE_URL` says.
    ///
    /// # Errors
    /// No HTTP client can be made.
    pub fn new(base: Url) -> Result<Self, PeopleError> {
        let client = reqwest::Client::builder()
            .timeout(ANSWER_WITHIN)
            .connect_timeout(CONNECT_WITHIN)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("reedi/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| PeopleError(error.to_string()))?;
        Ok(Self(Arc::new(Inner {
            base,
            client,
            requests: Semaphore::new(REQUESTS_AT_ONCE),
            standing: Mutex::default(),
            profiles: AnswerCache::new(PROFILES_KEPT),
            follows: AnswerCache::new(FOLLOWS_KEPT),
            searches: AnswerCache::new(SEARCHES_KEPT),
        })))
    }

    /// The address of `path` below the base.
    fn address(&self, path: &[&str]) -> Result<Url, PeopleError> {
        let mut url = self.0.base.clone();
        url.path_segments_mut()
            .map_err(|()| PeopleError("REEDI_PEOPLE_URL has no path".into()))?
            .pop_if_empty()
            .extend(path);
        Ok(url)
    }

    /// An answer from the cache if it is fresh, else from the platform, else from the cache if it is
    /// not older than [`STALE`].
    async fn answer<K, V, T>(
        &self,
        cache: &AnswerCache<K, V>,
        key: K,
        fresh: Duration,
        url: Url,
        read: impl FnOnce(Option<T>) -> Result<V, PeopleError>,
    ) -> Result<V, PeopleError>
    where
        K: Eq + Hash + Clone,
        V: Clone,
        T: DeserializeOwned,
    {
        if let Some(value) = cache.get(&key, fresh) {
            return Ok(value);
        }
        match self.get(url).await.and_then(read) {
            Ok(value) => {
                cache.put(key, value.clone());
                Ok(value)
            }
            Err(error) => cache.get(&key, STALE).ok_or(error),
        }
    }

    /// Whether the last question that told of it found the platform away, or refusing this server.
    #[must_use]
    pub fn is_away(&self) -> bool {
        !self.0.standing.lock().is_well()
    }

    /// The body of a 200, or `None` for a 404.
    async fn get<T: DeserializeOwned>(&self, url: Url) -> Result<Option<T>, PeopleError> {
        if self.0.standing.lock().away_until.is_some_and(|until| Instant::now() < until) {
            return Err(PeopleError("the platform did not answer a moment ago".into()));
        }
        // Many questions at once say nothing about the platform: only its own time counts.
        let turn = tokio::time::timeout(ANSWER_WITHIN, self.0.requests.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            return Err(PeopleError("too many questions wait for the platform".into()));
        };
        let asked = tokio::time::timeout(ANSWER_WITHIN, self.ask(url)).await;
        let result = asked.unwrap_or_else(|_| Err(Failed::away("the platform does not answer in time")));
        let mut standing = self.0.standing.lock();
        let was_well = standing.is_well();
        match &result {
            Ok(_) | Err(Failed { verdict: Verdict::OfOne, .. }) => {
                *standing = Standing::default();
                if !was_well {
                    tracing::info!("the platform answers again");
                }
            }
            Err(Failed { verdict: Verdict::Refused, error }) => {
                *standing = Standing { away_until: None, refuses: true };
                if was_well {
                    tracing::warn!(%error, "the platform refuses a question; remembered answers serve");
                }
            }
            Err(Failed { verdict: Verdict::Away, error }) => {
                standing.away_until = Some(Instant::now() + PAUSE);
                if was_well {
                    tracing::warn!(%error, "the platform is away; remembered answers serve");
                }
            }
        }
        result.map_err(|failed| failed.error)
    }

    async fn ask<T: DeserializeOwned>(&self, url: Url) -> Result<Option<T>, Failed> {
        // The URL may hold a password: it is not for the log.
        let told = |error: reqwest::Error| Failed::away(error.without_url());
        let request = self.0.client.get(url).header("accept", "application/json");
        let mut response = request.send().await.map_err(told)?;
        match response.status().as_u16() {
            200 => {}
            404 => return Ok(None),
            // These are for this server, whatever it asks: a wrong password, or too many questions.
            status @ (401 | 429) => return Err(Failed::away(format!("the platform answers {status}"))),
            status @ (403 | 408) => {
                return Err(Failed::new(Verdict::Refused, format!("the platform answers {status}")));
            }
            status @ 400..500 => return Err(Failed::of_one(format!("the platform answers {status}"))),
            status => return Err(Failed::away(format!("the platform answers {status}"))),
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(told)? {
            if body.len() + chunk.len() > ANSWER_BYTES {
                let why = format!("the platform's answer has more than {ANSWER_BYTES} bytes");
                return Err(Failed::of_one(why));
            }
            body.extend_from_slice(&chunk);
        }
        let parsed = serde_json::from_slice(&body);
        parsed.map(Some).map_err(|_| Failed::of_one("the platform's answer cannot be read"))
    }
}

impl PeoplePort for Platform {
    async fn search(&self, query: &str, limit: usize) -> Result<Vec<Profile>, PeopleError> {
        let Some(beginning) = beginning(query).filter(|_| limit > 0) else { return Ok(Vec::new()) };
        let mut url = self.address(&["users"])?;
        url.query_pairs_mut().append_pair("query", &beginning).append_pair("limit", &limit.to_string());
        let read = |answer: Option<Profiles>| {
            let mut users = answer.map_or_else(Vec::new, |profiles| profiles.users);
            users.truncate(limit);
            Ok(users)
        };
        self.answer(&self.0.searches, (beginning, limit), SEARCH_FRESH, url, read).await
    }

    async fn profile(&self, account: AccountId) -> Result<Option<Profile>, PeopleError> {
        let url = self.address(&["users", &account.to_string()])?;
        let read = |answer: Option<Profile>| match answer {
            Some(profile) if profile.user_id != account => {
                Err(PeopleError("the platform answers with another person".into()))
            }
            answer => Ok(answer),
        };
        self.answer(&self.0.profiles, account, PROFILE_FRESH, url, read).await
    }

    async fn existing(&self, accounts: &[AccountId]) -> Result<Vec<bool>, PeopleError> {
        let lookups: Vec<_> = accounts.iter().map(|account| self.profile(*account)).collect();
        let found = futures_util::stream::iter(lookups).buffered(LOOKUPS_AT_ONCE);
        found.map_ok(|profile| profile.is_some()).try_collect().await
    }

    async fn follows(&self, follower: AccountId, followee: AccountId) -> Result<bool, PeopleError> {
        let url = self.address(&["users", &follower.to_string(), "follows", &followee.to_string()])?;
        let read = |answer: Option<Follows>| Ok(answer.is_some_and(|answer| answer.follows));
        self.answer(&self.0.follows, (follower, followee), FOLLOW_FRESH, url, read).await
    }
}

#[cfg(test)]
mod tests;
