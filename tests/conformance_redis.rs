//! Presence and rate limits on a real Redis and a real Valkey, each a cluster or a single server.
//! `REEDI_TEST_REDIS_URL` and `REEDI_TEST_VALKEY_URL` name all their servers, separated by commas. These
//! tests empty and pause them, so nothing else may use them at the same time.

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use reedi::edge_link::EdgeId;
use reedi::presence::conformance as presence_conformance;
use reedi::presence::redis::RedisPresence;
use reedi::presence::{Presence, PresencePort, PresenceStore};
use reedi::rate_limit::conformance as rate_limit_conformance;
use reedi::rate_limit::redis::RedisRateLimit;
use reedi::rate_limit::{Decision, Rate, RateLimit, RateLimitPort, Subject};
use reedi::redis_access::key::Key;
use reedi::redis_access::{COMMAND_MS, RedisAccess, RedisConfig};
use reedi_protocol::{AccountId, Timestamp};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, MutexGuard};
use uuid::Uuid;

const HERE: Presence = Presence { online: true, last_seen: None };

/// A server under test.
struct Server {
    variable: &'static str,
    /// One test at a time empties or pauses it.
    turn: Mutex<()>,
}

static REDIS: Server = Server { variable: "REEDI_TEST_REDIS_URL", turn: Mutex::const_new(()) };
static VALKEY: Server = Server { variable: "REEDI_TEST_VALKEY_URL", turn: Mutex::const_new(()) };

impl Server {
    fn urls(&self) -> Vec<String> {
        let urls = std::env::var(self.variable).unwrap_or_default();
        assert!(!urls.is_empty(), "{} must name the servers, separated by commas", self.variable);
        urls.split(',').map(str::to_owned).collect()
    }

    async fn access(&self, command_timeout: Duration) -> (MutexGuard<'_, ()>, RedisAccess) {
        let turn = self.turn.lock().await;
        let config = RedisConfig { command_timeout, ..RedisConfig::new(self.urls()) };
        let access = RedisAccess::connect(&config).await.expect("a usable configuration");
        assert!(!access.degraded(), "{} names servers that do not answer", self.variable);
        (turn, access)
    }

    /// Patient, so that a busy machine is not taken for a Redis that is away.
    async fn patient(&self) -> (MutexGuard<'_, ()>, RedisAccess) {
        self.access(Duration::from_secs(10)).await
    }

    /// A command to one server by itself.
    async fn try_tell<T: redis::FromRedisValue>(&self, at: usize, command: &[&str]) -> redis::RedisResult<T> {
        let client = redis::Client::open(self.urls()[at].as_str()).expect("a URL");
        let mut connection = client.get_multiplexed_async_connection().await?;
        redis::cmd(command[0]).arg(&command[1..]).query_async(&mut connection).await
    }

    async fn tell<T: redis::FromRedisValue>(&self, at: usize, command: &[&str]) -> T {
        self.try_tell(at, command).await.unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// The same command to each server by itself.
    async fn tell_each<T: redis::FromRedisValue>(&self, command: &[&str]) -> Vec<T> {
        let mut answers = Vec::new();
        for at in 0..self.urls().len() {
            answers.push(self.tell(at, command).await);
        }
        answers
    }

    async fn empty(&self) {
        let _: Vec<()> = self.tell_each(&["FLUSHALL"]).await;
        // A server that starts again knows no scripts either.
        let _: Vec<()> = self.tell_each(&["SCRIPT", "FLUSH"]).await;
    }
}

async fn presence_conforms(server: &Server) {
    let (_turn, access) = server.patient().await;
    presence_conformance::all(&PresenceStore::Redis(RedisPresence::new(access))).await;
}

async fn presence_heals(server: &Server) {
    let (_turn, access) = server.patient().await;
    let presence = RedisPresence::new(access);
    presence_conformance::heals_after_being_emptied(&presence, async || server.empty().await).await;
}

async fn rate_limit_conforms(server: &Server) {
    let (_turn, access) = server.patient().await;
    let limit = RedisRateLimit::new(access);
    rate_limit_conformance::all(&limit).await;
    rate_limit_conformance::allows_after_being_emptied(&limit, async || server.empty().await).await;
}

/// The Lua and the Rust of the same rule, on sequences that proptest makes.
async fn lua_is_gcra(server: &Server) {
    let (_turn, access) = server.patient().await;
    let limit = RedisRateLimit::new(access);
    let slow = (-2_000i16..3_000, 0u16..20, 0u16..20);
    let any = proptest::arbitrary::any::<rate_limit_conformance::Try>();
    let sequences = proptest::collection::vec(proptest::prop_oneof![slow, any], 1..60);
    let mut runner = TestRunner::default();
    for _ in 0..100 {
        let tries = sequences.new_tree(&mut runner).expect("a sequence").current();
        rate_limit_conformance::follows_gcra(&limit, &tries).await;
    }
}

/// What is written goes by itself, and stands on all servers.
async fn every_key_expires(server: &Server) {
    let (_turn, access) = server.patient().await;
    server.empty().await;
    presence_conformance::all(&RedisPresence::new(access.clone())).await;
    rate_limit_conformance::all(&RedisRateLimit::new(access)).await;
    let mut kinds = BTreeSet::new();
    for (url, keys) in server.urls().into_iter().zip(server.tell_each::<Vec<String>>(&["KEYS", "*"]).await) {
        assert!(keys.len() > 500, "{url} has {} keys only", keys.len());
        let client = redis::Client::open(url).expect("a URL");
        let mut connection = client.get_multiplexed_async_connection().await.expect("a connection");
        let mut pipeline = redis::pipe();
        for key in &keys {
            pipeline.cmd("PTTL").arg(key);
        }
        let left_ms: Vec<i64> = pipeline.query_async(&mut connection).await.expect("an answer");
        for (key, left_ms) in keys.iter().zip(left_ms) {
            assert!(left_ms != -1, "{key} would stay for ever");
        }
        kinds.extend(keys.iter().filter_map(|key| Some(key.rsplit_once(':')?.0.to_owned())));
    }
    let expected = ["presence", "rate:account", "rate:conversation", "rate:sign-in"];
    assert!(kinds.into_iter().eq(expected.map(|kind| format!("reedi:{kind}"))));
}

/// The servers hang: connections stay, answers do not come.
async fn a_hanging_server_slows_nothing(server: &Server) {
    const PAUSE_MS: u64 = 6_000;
    let (_turn, access) = server.access(Duration::from_millis(COMMAND_MS)).await;
    let presence = PresenceStore::Redis(RedisPresence::new(access.clone()));
    let limit = RateLimit::redis(RedisRateLimit::new(access));
    let now = Timestamp::from_millis(1_750_000_000_000);
    let rate = Rate { per_second: 1, burst: 1 };
    let paused = Instant::now();
    let _: Vec<()> = server.tell_each(&["CLIENT", "PAUSE", &PAUSE_MS.to_string(), "ALL"]).await;

    let (mut slow, mut quick) = (0, Duration::ZERO);
    for _ in 0..500 {
        let who = Subject::SignIn(rand::random());
        for expected in [Decision::Allowed, Decision::Refused { retry_after_ms: 1_000 }] {
            let started = Instant::now();
            assert_eq!(limit.take(who, rate, now).await, Ok(expected), "the edge limits by itself");
            match started.elapsed() {
                waited if waited < Duration::from_millis(COMMAND_MS / 2) => quick += waited,
                waited => {
                    assert!(waited < Duration::from_millis(4 * COMMAND_MS), "a decision took {waited:?}");
                    slow += 1;
                }
            }
        }
    }
    assert!(slow <= 3 * server.urls().len(), "{slow} decisions were slow");
    assert!(quick < Duration::from_secs(1), "{quick:?} for {} decisions", 1_000 - slow);
    assert_eq!(limit.fallbacks(), 1_000);
    let who = [AccountId::new(Uuid::new_v4())];
    let started = Instant::now();
    assert!(presence.hold(EdgeId(1), &who, now).await[0].is_err());
    assert!(presence.leave(EdgeId(1), &who, now).await[0].is_err());
    assert!(presence.look(&who, now).await[0].is_err());
    assert!(started.elapsed() < Duration::from_millis(COMMAND_MS), "{:?}", started.elapsed());
    assert!(paused.elapsed() < Duration::from_millis(PAUSE_MS), "the machine is too slow for this test");
    assert!(presence.degraded() && limit.degraded());

    while limit.degraded() {
        assert!(paused.elapsed() < Duration::from_secs(60), "it did not heal");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(presence.hold(EdgeId(1), &who, now).await, [Ok(true)], "the failed hold is made up for");
    assert_eq!(limit.take(Subject::SignIn(rand::random()), rate, now).await, Ok(Decision::Allowed));
    assert_eq!(limit.fallbacks(), 1_000, "by Redis again");
}

/// Who is kept on the other servers is answered for. A single server has no others.
async fn one_server_of_several_hangs(server: &Server) {
    // Longer than a busy machine is late, and shorter than the server hangs.
    let (_turn, access) = server.access(Duration::from_secs(2)).await;
    if server.urls().len() == 1 {
        return;
    }
    let presence = RedisPresence::new(access.clone());
    let now = Timestamp::from_millis(1_750_000_000_000);
    let accounts: Vec<AccountId> = (0..64).map(|_| AccountId::new(Uuid::new_v4())).collect();
    let mut hangs = Vec::new();
    for account in &accounts {
        hangs.push(owner_of(server, Key::presence(*account).slot()).await == 0);
    }
    assert!(hangs.contains(&true) && hangs.contains(&false), "the accounts are on several servers");
    assert_eq!(presence.hold(EdgeId(1), &accounts, now).await, vec![Ok(true); accounts.len()]);
    let paused = Instant::now();
    let _: () = server.tell(0, &["CLIENT", "PAUSE", "8000", "ALL"]).await;
    let found = presence.look(&accounts, now).await;
    let left = presence.leave(EdgeId(1), &accounts, now).await;
    for (place, hangs) in hangs.iter().enumerate() {
        assert_eq!(found[place].is_err(), *hangs, "{:?}", found[place]);
        assert_eq!(left[place].is_err(), *hangs, "{:?}", left[place]);
    }
    assert!(paused.elapsed() < Duration::from_secs(8), "the machine is too slow for this test");
    // The next test begins with servers that do not hang.
    while server.try_tell::<String>(0, &["PING"]).await.is_err() || access.degraded() {
        assert!(paused.elapsed() < Duration::from_secs(60), "it did not heal");
        // sleeps: between two looks
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A cluster's slot goes to another server, key by key, while it is used, and back again. A single server has
/// nowhere to move one to.
async fn a_slot_may_move(server: &Server) {
    let (_turn, access) = server.patient().await;
    if server.urls().len() == 1 {
        return;
    }
    let presence = RedisPresence::new(access.clone());
    let (one, now) = (EdgeId(rand::random()), Timestamp::from_millis(1_750_000_000_000));
    let mut accounts = std::iter::repeat_with(|| AccountId::new(Uuid::new_v4()));
    let old = accounts.next().expect("an account");
    let slot = Key::presence(old).slot();
    let mut of_slot = accounts.filter(|account| Key::presence(*account).slot() == slot);
    let ids: Vec<String> = server.tell_each(&["CLUSTER", "MYID"]).await;
    let owner = owner_of(server, slot).await;
    let other = (owner + 1) % ids.len();

    let mut all = vec![old];
    assert_eq!(presence.hold(one, &all, now).await, [Ok(true)]);
    for (from, to) in [(owner, other), (other, owner)] {
        let set_slot = async |at: usize, state: &str, id: &str| {
            let _: () = server.tell(at, &["CLUSTER", "SETSLOT", &slot.to_string(), state, id]).await;
        };
        set_slot(to, "IMPORTING", &ids[from]).await;
        set_slot(from, "MIGRATING", &ids[to]).await;
        let new = of_slot.next().expect("an account");
        assert_eq!(presence.hold(one, &[new], now).await, [Ok(true)], "by way of the new server");
        all.push(new);
        let told = presence.look(&all, now).await;
        assert!(told.iter().all(|found| *found == Ok(HERE)), "some here, some there: {told:?}");
        migrate(server, &all, from, to).await;
        set_slot(to, "NODE", &ids[to]).await;
        set_slot(from, "NODE", &ids[to]).await;
        let told = presence.look(&all, now).await;
        assert!(told.iter().all(|found| *found == Ok(HERE)), "at the new server: {told:?}");
    }
    assert!(!access.degraded(), "that slots move is no failure");
}

async fn migrate(server: &Server, accounts: &[AccountId], from: usize, to: usize) {
    let url = url::Url::parse(&server.urls()[to]).expect("a URL");
    let (host, port) = (url.host_str().expect("a host"), url.port().expect("a port").to_string());
    for account in accounts {
        let key = format!("reedi:presence:{}", account.as_uuid());
        // NOKEY for one that went there at once.
        let _: String = server.tell(from, &["MIGRATE", host, &port, &key, "0", "5000"]).await;
    }
}

/// Which of the servers has `slot`.
async fn owner_of(server: &Server, slot: u16) -> usize {
    for at in 0..server.urls().len() {
        let counted: Result<i64, _> = server.try_tell(at, &["EXISTS", &probe_in(slot)]).await;
        if counted.is_ok() {
            return at;
        }
    }
    panic!("no server of {} has slot {slot}", server.variable);
}

/// The text of a key in `slot`.
fn probe_in(slot: u16) -> String {
    (0u64..)
        .map(|number| number.to_string())
        .find(|text| {
            redis::cluster_routing::Slot::for_key(text)
                == redis::cluster_routing::Slot::new(slot).expect("a slot")
        })
        .expect("a key")
}

macro_rules! on_both {
    ($($test:ident)*) => {
        mod redis_server {
            $(#[tokio::test] async fn $test() { super::$test(&super::REDIS).await })*
        }
        mod valkey_server {
            $(#[tokio::test] async fn $test() { super::$test(&super::VALKEY).await })*
        }
    };
}

on_both! {
    presence_conforms
    presence_heals
    rate_limit_conforms
    lua_is_gcra
    every_key_expires
    a_slot_may_move
    a_hanging_server_slows_nothing
    one_server_of_several_hangs
}
