//! The CQL store against a real cluster. REEDI_TEST_CQL names it: `host:port`, separated by commas.
//!
//! The checks share one keyspace, named after this process and dropped at the end; those about the
//! schema itself make and drop one of their own.

use futures_util::future::BoxFuture;
use reedi::domain::write::Write;
use reedi::runtime::clock::LogClock;
use reedi::runtime::config::Replication;
use reedi::store::conformance::replay::{Orders, random_steps, replay_converges};
use reedi::store::conformance::{self, fresh};
use reedi::store::cql::{
    CqlConfig, CqlStore, MIGRATIONS, MigrateError, Migration, migrate, migrate_back, migrate_with,
};
use reedi::store::{Messages, Order, Range, StoreError, StorePort, Writes};
use reedi_protocol::resource::ConversationType;
use reedi_protocol::{ConversationKey, Position};
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::statement::batch::{Batch, BatchType};
use std::collections::HashSet;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tokio::sync::watch;

#[path = "support/proxy.rs"]
mod proxy;

use proxy::Proxy;

/// How long the driver may take to notice that a cluster is back: its longest pause between tries is 8 s.
const BACK_WITHIN: Duration = Duration::from_secs(30);

fn contact_points() -> Vec<String> {
    let nodes = std::env::var("REEDI_TEST_CQL")
        .expect("REEDI_TEST_CQL must name a Cassandra or ScyllaDB to test against, as host:port[,host:port]");
    nodes.split(',').map(str::to_owned).collect()
}

fn config(suffix: &str) -> CqlConfig {
    CqlConfig {
        contact_points: contact_points(),
        keyspace: format!("reedi_test_{}{suffix}", std::process::id()),
        user: None,
        password: None,
        tls_ca_file: None,
        replication: Replication::Everywhere(u8::try_from(contact_points().len().min(3)).expect("at most 3")),
        local_datacenter: None,
    }
}

async fn bare_session() -> Session {
    SessionBuilder::new().known_nodes(contact_points()).build().await.expect("the cluster answers")
}

/// Runs a test with a keyspace that is dropped afterwards, also when the test fails.
async fn with_keyspace<F>(suffix: &str, test: impl FnOnce(CqlConfig) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let config = config(suffix);
    let ended = tokio::spawn(test(config.clone())).await;
    let drop = format!("DROP KEYSPACE IF EXISTS {}", config.keyspace);
    bare_session().await.query_unpaged(drop, ()).await.expect("it drops");
    if let Err(failed) = ended {
        std::panic::resume_unwind(failed.into_panic());
    }
}

async fn connected(config: &CqlConfig) -> CqlStore {
    CqlStore::connect(config, LogClock::from_system(), |_| ()).await.expect("it connects")
}

async fn migrated(config: &CqlConfig) -> CqlStore {
    migrate(config, |_| ()).await.expect("it migrates");
    connected(config).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_conforms() {
    with_keyspace("", |config| async move {
        let store = migrated(&config).await;
        let checks: Vec<(&str, BoxFuture<'static, ()>)> = vec![
            ("messages", Box::pin(own(&store, |s| async move { conformance::messages::all(&s).await }))),
            ("changes", Box::pin(own(&store, |s| async move { conformance::changes::all(&s).await }))),
            ("marks", Box::pin(own(&store, |s| async move { conformance::marks::all(&s).await }))),
            ("inbox", Box::pin(own(&store, |s| async move { conformance::inbox::all(&s).await }))),
            ("expiry", Box::pin(own(&store, |s| async move { conformance::expiry::all(&s).await }))),
            ("claims", Box::pin(own(&store, |s| async move { conformance::claims::all(&s).await }))),
            ("accounts", Box::pin(own(&store, |s| async move { conformance::accounts::all(&s).await }))),
            ("replay", Box::pin(own(&store, |s| async move { conformance::replay::all(&s).await }))),
            ("any order", Box::pin(own(&store, |s| async move { any_order_converges(&s).await }))),
            ("large batch", Box::pin(own(&store, |s| async move { a_large_batch_is_applied(&s).await }))),
            ("fresh process", Box::pin(a_fresh_process_finds_all(config.clone()))),
            ("erased", Box::pin(deleted_content_is_erased(config.clone()))),
            ("deletion marks", Box::pin(a_deletion_is_marked_as_long_as_its_message(config.clone()))),
            ("clock", Box::pin(what_has_ended_is_judged_by_the_logs_clock(config.clone()))),
            ("expired rows", Box::pin(more_expired_rows_than_one_read_passes_over(config.clone()))),
        ];
        store.ping().await.expect("it answers");
        let running: Vec<_> = checks.into_iter().map(|(name, check)| (name, tokio::spawn(check))).collect();
        let mut failed = Vec::new();
        for (name, check) in running {
            if check.await.is_err() {
                failed.push(name);
            }
        }
        assert!(failed.is_empty(), "these checks failed: {failed:?}");
    })
    .await;
}

fn own<F>(store: &CqlStore, check: impl FnOnce(CqlStore) -> F) -> F {
    check(store.clone())
}

/// More than the writer's order asks for: a change may come long before its message.
async fn any_order_converges(store: &CqlStore) {
    for _ in 0..4 {
        let seed = rand::random();
        replay_converges(store, &random_steps(seed, 60), seed, Orders::Any).await;
    }
}

async fn a_large_batch_is_applied(store: &CqlStore) {
    let (one, sender) = (fresh::conversation(), fresh::account());
    let mut writes: Vec<Write> =
        (1..=1_000).map(|n| fresh::message(one, fresh::position(n), sender, &format!("text {n}"))).collect();
    let others: Vec<_> = (0..500).map(|_| fresh::conversation()).collect();
    writes.extend(others.iter().map(|c| fresh::message(*c, fresh::position(7), sender, "alone")));
    store.apply(&writes).await.expect("it applies");
    let page = store.messages(one, Range::after(Position::START), Order::OldestFirst, 2_000).await;
    let at: Vec<u64> = page.expect("it reads").iter().map(|m| m.row.position.sequence()).collect();
    assert_eq!(at, (1..=1_000).collect::<Vec<_>>());
    for other in others {
        assert!(store.message(other, fresh::position(7)).await.expect("it reads").is_some());
    }
}

/// What one process has written and remembers, another finds without any memory.
async fn a_fresh_process_finds_all(config: CqlConfig) {
    let writer = connected(&config).await;
    let reader = connected(&config).await;
    let (conversation, sender) = (fresh::conversation(), fresh::account());
    for (n, weeks) in [(1, 60), (2, 2), (3, 1), (4, 0)] {
        let row = fresh::row(
            ConversationType::Group,
            fresh::position(n),
            sender,
            fresh::ago(weeks * 7 * fresh::DAY_MS),
        );
        let content = Some(fresh::sealed(b"text"));
        writer.apply(&[Write::Message { conversation, row, content }]).await.expect("it applies");
        // The reader has read the list of buckets before each new one was made.
        let all = Range::after(Position::START);
        let page = reader.messages(conversation, all, Order::NewestFirst, 10).await.expect("it reads");
        assert_eq!(page.len() as u64, n);
        assert!(reader.message(conversation, fresh::position(n)).await.expect("it reads").is_some());
    }
    // A writer that knows nothing finds an old message to change.
    let later = connected(&config).await;
    let target = fresh::position(1);
    let content = fresh::sealed(b"edited");
    let at = fresh::position(9);
    let edit = Write::EditContent {
        conversation,
        target,
        at,
        content: content.clone(),
        edited_at: fresh::now(),
        expires_at: None,
    };
    later.apply(&[edit]).await.expect("it applies");
    let got = reader.message(conversation, target).await.expect("it reads").expect("it stands");
    assert_eq!(got.content, Some(content));
}

/// Not only unseen: the cells are gone from every partition, and stay so whatever comes again.
async fn deleted_content_is_erased(config: CqlConfig) {
    let store = connected(&config).await;
    let (conversation, sender) = (fresh::conversation(), fresh::account());
    let message = fresh::message(conversation, fresh::position(1), sender, "secret");
    let edit = Write::EditContent {
        conversation,
        target: fresh::position(1),
        at: Range::END,
        content: fresh::sealed(b"secret too"),
        edited_at: fresh::now(),
        expires_at: None,
    };
    let delete = Write::DeleteContent {
        conversation,
        target: fresh::position(1),
        deleted_at: fresh::now(),
        deleted_by: sender,
    };
    for write in [&message, &edit, &delete, &edit, &message] {
        store.apply(std::slice::from_ref(write)).await.expect("it applies");
    }
    let query = format!(
        "SELECT content, edited_at, WRITETIME(header), WRITETIME(deletion) FROM {}.messages \
         WHERE conversation = ? ALLOW FILTERING",
        config.keyspace
    );
    let session = bare_session().await;
    let answer =
        session.query_unpaged(query, (conversation.as_u64().cast_signed(),)).await.expect("it reads");
    let rows = answer.into_rows_result().expect("rows");
    type Cells = (Option<Vec<u8>>, Option<i64>, Option<i64>, Option<i64>);
    let rows: Vec<Cells> = rows.rows().expect("of this shape").collect::<Result<_, _>>().expect("rows");
    assert_eq!(rows.len(), 1);
    let (content, edited_at, header_time, deletion_time) = &rows[0];
    assert_eq!((content, edited_at), (&None, &None));
    assert_eq!(*header_time, Some(fresh::position(1).as_u64().cast_signed()), "written at its position");
    assert!(deletion_time.is_some_and(|time| time < 0), "of two deletions the first stands");
}

/// Else the rows of what disappeared by itself would never go, if it was deleted before.
async fn a_deletion_is_marked_as_long_as_its_message(config: CqlConfig) {
    let (store, sender) = (connected(&config).await, fresh::account());
    let lives = async |expires_at, is_known: bool| {
        let (conversation, target) = (fresh::conversation(), fresh::position(1));
        let mut row = fresh::row(ConversationType::Direct, target, sender, fresh::now());
        row.expires_at = expires_at;
        let message = Write::Message { conversation, row, content: None };
        let deletion =
            Write::DeleteContent { conversation, target, deleted_at: fresh::now(), deleted_by: sender };
        store.apply(&[message]).await.expect("it applies");
        let other = connected(&config).await;
        let writer = if is_known { &store } else { &other };
        writer.apply(&[deletion]).await.expect("it applies");
        let text = format!(
            "SELECT TTL(header), TTL(deletion) FROM {}.messages WHERE conversation = ? ALLOW FILTERING",
            config.keyspace
        );
        let answer = bare_session().await.query_unpaged(text, (conversation.as_u64().cast_signed(),)).await;
        let rows = answer.expect("it reads").into_rows_result().expect("rows");
        rows.first_row::<(Option<i32>, Option<i32>)>().expect("one stands")
    };
    for is_known in [true, false] {
        let (header, deletion) = lives(Some(fresh::now().plus_millis(fresh::HOUR_MS)), is_known).await;
        assert!(header.zip(deletion).is_some_and(|(header, deletion)| deletion.abs_diff(header) <= 2));
        assert_eq!(lives(None, is_known).await, (None, None), "what stands for ever is marked for ever");
    }
}

/// The log's clock is an hour off this machine's, and what is stamped by it ends by it.
async fn what_has_ended_is_judged_by_the_logs_clock(config: CqlConfig) {
    let (now, hour) = (fresh::now(), fresh::HOUR_MS);
    for (log_time, expires_at, stands) in [
        (fresh::ago(hour), fresh::ago(hour / 2), true),
        (now.plus_millis(hour), now.plus_millis(hour / 2), false),
    ] {
        let store =
            CqlStore::connect(&config, LogClock::starting_at(log_time), |_| ()).await.expect("it connects");
        let (conversation, target) = (fresh::conversation(), fresh::position(1));
        let mut row = fresh::row(ConversationType::Direct, target, fresh::account(), log_time);
        row.expires_at = Some(expires_at);
        let content = Some(fresh::sealed(b"until then"));
        store.apply(&[Write::Message { conversation, row, content }]).await.expect("it applies");
        let page = store.messages(conversation, Range::after(Position::START), Order::OldestFirst, 10).await;
        assert_eq!(page.expect("it reads").len(), usize::from(stands), "at {log_time}, until {expires_at}");
    }
}

/// Two cells each: 120,000 tombstones, and a read that meets 100,000 is refused (`tombstone_failure_threshold`).
const EXPIRED: u64 = 60_000;

/// What has expired stands there until long after, and a server refuses to pass over too much of it in one read.
async fn more_expired_rows_than_one_read_passes_over(config: CqlConfig) {
    let store = connected(&config).await;
    let (conversation, sender) = (fresh::conversation(), fresh::account());
    let oldest = [
        fresh::message(conversation, fresh::position(1), sender, "oldest"),
        fresh::event(conversation, fresh::position(2), sender, fresh::now()),
    ];
    store.apply(&oldest).await.expect("it applies");
    expired_rows(&config, conversation, 10).await;
    let newest = fresh::position(10 + EXPIRED);
    let range = Range { after: Position::START, before: fresh::position(100_000) };
    let shown = async |order| {
        let page = store.messages(conversation, range, order, 10).await.expect("it reads");
        page.iter().map(|m| m.row.position).collect::<Vec<_>>()
    };
    assert_eq!(shown(Order::NewestFirst).await, [fresh::position(1)]);
    assert_eq!(shown(Order::OldestFirst).await, [fresh::position(1)]);
    store.apply(&[fresh::message(conversation, newest, sender, "newest")]).await.expect("it applies");
    assert_eq!(shown(Order::NewestFirst).await, [newest, fresh::position(1)]);
    assert_eq!(shown(Order::OldestFirst).await, [fresh::position(1), newest]);
    assert_eq!(store.events(conversation, range, 10).await.expect("it reads").len(), 1);
    // Without an end the range is as wide as can be: how far the shard is stored is not looked past.
    let all = store.messages(conversation, Range::after(Position::START), Order::NewestFirst, 10).await;
    assert_eq!(all.expect("it reads").len(), 2);
    assert_eq!(store.outlines(conversation, range, 10).await.expect("it reads").len(), 2);
}

/// Writes [`EXPIRED`] messages from `first` on beside one that stands, and waits until they have ended.
async fn expired_rows(config: &CqlConfig, conversation: ConversationKey, first: u64) {
    let session = bare_session().await;
    let key = conversation.as_u64().cast_signed();
    let bucket = format!("SELECT bucket FROM {}.buckets WHERE conversation = ?", config.keyspace);
    let answer = session.query_unpaged(bucket, (key,)).await.expect("it reads");
    let (bucket,) = answer.into_rows_result().expect("rows").first_row::<(i32,)>().expect("one stands");
    let put = format!(
        "INSERT INTO {}.messages (conversation, bucket, position, header, content) VALUES (?, ?, ?, 0x00, 0x00) \
         USING TIMESTAMP ? AND TTL 1",
        config.keyspace
    );
    let put = session.prepare(put).await.expect("it prepares");
    let places: Vec<i64> =
        (first..first + EXPIRED).map(|n| fresh::position(n).as_u64().cast_signed()).collect();
    for places in places.chunks(200) {
        let mut batch = Batch::new(BatchType::Unlogged);
        places.iter().for_each(|_| batch.append_statement(put.clone()));
        let values: Vec<_> = places.iter().map(|place| (key, bucket, *place, *place)).collect();
        session.batch(&batch, values).await.expect("it writes");
    }
    let last = places[places.len() - 1];
    let read = format!(
        "SELECT header FROM {}.messages WHERE conversation = ? AND bucket = ? AND position = ?",
        config.keyspace
    );
    let since = Instant::now();
    loop {
        let answer = session.query_unpaged(read.clone(), (key, bucket, last)).await.expect("it reads");
        if answer.into_rows_result().expect("rows").rows_num() == 0 {
            break;
        }
        assert!(since.elapsed() < BACK_WITHIN, "they live on");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schema_is_migrated_by_one_and_taken_back() {
    with_keyspace("_schema", |config| async move {
        // Two at once, on a cluster that has nothing yet.
        let (first, second) = tokio::join!(migrate(&config, |_| ()), migrate(&config, |_| ()));
        first.expect("it migrates");
        second.expect("so does the other");
        assert_eq!(versions(&config).await, MIGRATIONS.iter().map(|m| m.version).collect::<Vec<_>>());

        let told = Mutex::new(Vec::new());
        let tell = |line: &str| told.lock().expect("not poisoned").push(line.to_owned());
        migrate(&config, tell).await.expect("again changes nothing");
        let told = told.into_inner().expect("not poisoned");
        assert!(!told.iter().any(|line| line.starts_with("applying")), "{told:?}");
        let all = tables(&config).await;

        // The way back of each, the last one first, and forward again.
        for applied in (1..=MIGRATIONS.len()).rev() {
            assert_eq!(versions(&config).await.len(), applied);
            migrate_back(&config, |_| ()).await.expect("it goes back");
        }
        assert!(matches!(migrate_back(&config, |_| ()).await, Err(MigrateError::NothingApplied)));
        let own: HashSet<String> =
            ["schema_versions", "schema_lock", "schema_probe"].map(str::to_owned).into();
        assert_eq!(tables(&config).await, own, "nothing is left");
        migrate(&config, |_| ()).await.expect("it migrates anew");
        assert_eq!(tables(&config).await, all);

        let mut changed: Vec<Migration> = MIGRATIONS.to_vec();
        changed[1].text = "-- up\n-- down\n";
        let refused = migrate_with(&config, &changed, |_| ()).await;
        assert!(matches!(refused, Err(MigrateError::Changed(name)) if name == MIGRATIONS[1].name));
        let older = &MIGRATIONS[..MIGRATIONS.len() - 1];
        let refused = migrate_with(&config, older, |_| ()).await;
        assert!(matches!(refused, Err(MigrateError::Newer { .. })), "an older binary: {refused:?}");
        CqlStore::connect(&config, LogClock::from_system(), |_| ())
            .await
            .expect("nothing of that did any harm")
            .ping()
            .await
            .expect("it answers");
    })
    .await;
}

/// As when all processes of a new installation run it first: whoever comes second waits, and nobody fails because of
/// another.
#[tokio::test(flavor = "multi_thread")]
async fn many_migrate_a_new_keyspace_at_once() {
    with_keyspace("_many", |config| async move {
        let all = (0..10).map(|_| {
            let config = config.clone();
            tokio::spawn(async move { migrate(&config, |_| ()).await })
        });
        for ended in futures_util::future::join_all(all).await {
            ended.expect("no panic").expect("it migrates");
        }
        assert_eq!(versions(&config).await, MIGRATIONS.iter().map(|m| m.version).collect::<Vec<_>>());
        connected(&config).await.ping().await.expect("it answers");
    })
    .await;
}

async fn versions(config: &CqlConfig) -> Vec<i32> {
    let text = format!("SELECT version FROM {}.schema_versions WHERE scope = 0", config.keyspace);
    let answer = bare_session().await.query_unpaged(text, ()).await.expect("it reads");
    let rows = answer.into_rows_result().expect("rows");
    rows.rows::<(i32,)>().expect("of this shape").map(|row| row.expect("a row").0).collect()
}

async fn tables(config: &CqlConfig) -> HashSet<String> {
    let text = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ?";
    let answer = bare_session().await.query_unpaged(text, (&config.keyspace,)).await.expect("it reads");
    let rows = answer.into_rows_result().expect("rows");
    rows.rows::<(String,)>().expect("of this shape").map(|row| row.expect("a row").0).collect()
}

/// With one node only: of several the driver would go to another past the proxy.
#[tokio::test(flavor = "multi_thread")]
async fn the_store_connects_again() {
    with_keyspace("_again", |direct| async move {
        migrate(&direct, |_| ()).await.expect("it migrates");
        let proxy = Proxy::to(direct.contact_points[0].clone()).await;
        let through = CqlConfig { contact_points: vec![proxy.address.clone()], ..direct.clone() };
        let store = connected(&through).await;
        let conversation = fresh::conversation();
        let message = |n| [fresh::message(conversation, fresh::position(n), fresh::account(), "text")];
        store.apply(&message(1)).await.expect("it applies");

        proxy.open.send_replace(false);
        let failed = store.apply(&message(2)).await;
        if direct.contact_points.len() == 1 {
            assert!(matches!(failed, Err(StoreError::Unavailable(_))), "{failed:?}");
            let read = store.message(conversation, fresh::position(1)).await;
            assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
        }

        proxy.open.send_replace(true);
        let since = Instant::now();
        while let Err(error) = store.apply(&message(2)).await {
            assert!(since.elapsed() < BACK_WITHIN, "{error}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let page = store.messages(conversation, Range::before(Range::END), Order::NewestFirst, 10).await;
        assert_eq!(page.expect("it reads").len(), 2);
    })
    .await;
}

/// A store that starts before its schema waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn the_store_waits_for_its_schema() {
    with_keyspace("_waits", |config| async move {
        let (told, mut waits) = watch::channel(String::new());
        let connecting = {
            let config = config.clone();
            tokio::spawn(async move {
                CqlStore::connect(&config, LogClock::from_system(), |why| drop(told.send(why.to_owned())))
                    .await
            })
        };
        waits.wait_for(|why| why.contains("`reedi migrate`")).await.expect("it says what to do");
        migrate(&config, |_| ()).await.expect("it migrates");
        let store = connecting.await.expect("it ran").expect("it connects");
        store.ping().await.expect("it answers");
    })
    .await;
}
