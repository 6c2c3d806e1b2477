//! The NATS adapters against a real NATS: `REEDI_TEST_NATS_URL` names its servers, separated by commas.

#[path = "support_nats/plain.rs"]
mod plain;
#[path = "support_nats/proxy.rs"]
mod proxy;
mod support_nats;
#[path = "support_nats/wire.rs"]
mod wire;

use bytes::Bytes;
use futures_util::StreamExt;
use plain::log_config;
use proxy::{Line, Proxy};
use reedi::edge_link;
use reedi::edge_link::nats::NatsLink;
use reedi::edge_link::{EdgeId, EdgeLinkPort as _, ToWorkers, WorkerId};
use reedi::log::nats::{NatsLog, NatsLogConfig, NatsLogError};
use reedi::log::reading::{Health, Reading};
use reedi::log::{AppendError, Appended, Log, LogPort, LogReader, ReadError, ShardSet, conformance};
use reedi::ownership;
use reedi::ownership::nats::{NatsOwnership, NatsOwnershipConfig};
use reedi::ownership::{OwnershipError, OwnershipPort, ShardedRole};
use reedi_protocol::{Epoch, Position};
use std::time::{Duration, Instant};
use support_nats::incarnations;

/// Nothing that is waited for may take longer.
const WITHIN: Duration = Duration::from_secs(40);

async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(WITHIN, work).await.unwrap_or_else(|_| panic!("{what}: not within {WITHIN:?}"))
}

async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon(what, waiting).await;
}

/// A log of its own, reached over lines that the test holds.
async fn log_over(lines: &[&Proxy]) -> (NatsLog, NatsLogConfig, Vec<String>) {
    let (mut config, incarnations) = (log_config(), incarnations(1));
    let direct = config.clone();
    config.nats.urls = lines.iter().map(|line| line.url.clone()).collect();
    let log = NatsLog::connect(config, Epoch::FIRST, &incarnations, &[]).await.unwrap();
    (log, direct, incarnations)
}

async fn append(log: &NatsLog, text: &'static str) -> Position {
    conformance::append_new(log, conformance::event(conformance::fresh(), text)).await
}

/// Appends until the log says more than that it cannot now.
async fn until_taken(log: &NatsLog) -> Result<Position, AppendError> {
    let taken = async {
        loop {
            match log.append(conformance::event(conformance::fresh(), "goes on")).await {
                Ok(Appended::New(position) | Appended::Duplicate(position)) => return Ok(position),
                Err(AppendError::Unavailable(_) | AppendError::OutcomeUnknown(_)) => {}
                Err(error) => return Err(error),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("an append", taken).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_conforms() {
    let log = NatsLog::connect(log_config(), Epoch::FIRST, &incarnations(1), &[]).await.unwrap();
    conformance::all(&log).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_of_four_slices_conforms() {
    let log = NatsLog::connect(log_config(), Epoch::FIRST, &incarnations(4), &[]).await.unwrap();
    assert_eq!(log.slices().len(), 4);
    conformance::all(&log).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_incarnation_is_fenced() {
    let config = log_config();
    let first = incarnations(1);
    let log = NatsLog::connect(config.clone(), Epoch::FIRST, &first, &[]).await.unwrap();
    conformance::append_new(&log, conformance::event(conformance::fresh(), "x")).await;
    let other = NatsLog::connect(config.clone(), Epoch::FIRST, &incarnations(1), &[]).await;
    assert!(matches!(other.err(), Some(NatsLogError::Fenced(_))));
    assert!(NatsLog::connect(config, Epoch::FIRST, &first, &[]).await.is_ok(), "the same one is let in");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_ends_before_the_watermark_is_fenced() {
    let stored = (conformance::fresh().shard(), Position::new(Epoch::FIRST, 5).unwrap());
    let log = NatsLog::connect(log_config(), Epoch::FIRST, &incarnations(1), &[stored]).await;
    assert!(matches!(log.err(), Some(NatsLogError::Fenced(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_log_says_so() {
    let config = NatsLogConfig { max_bytes: 1024 * 1024, ..log_config() };
    let log = NatsLog::connect(config, Epoch::FIRST, &incarnations(1), &[]).await.unwrap();
    let large = Bytes::from(vec![7; 100 * 1024]);
    let mut answer = Ok(());
    for _ in 0..20 {
        let append = conformance::event(conformance::fresh(), large.clone());
        if let Err(error) = log.append(append).await {
            answer = Err(error);
            break;
        }
    }
    assert_eq!(answer, Err(AppendError::Full));
    assert!(log.state(log.slices()[0]).await.unwrap().fill_percent >= 80);
}

/// Prints what the log takes; 5,000 appends at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_appends_at_once() {
    let log = NatsLog::connect(log_config(), Epoch::FIRST, &incarnations(1), &[]).await.unwrap();
    let took = conformance::append_many(&log, 20_000, 5_000, Bytes::from(vec![7; 300])).await;
    println!("20,000 appends, 5,000 at once: {:.0}/s", 20_000.0 / took.as_secs_f64());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_edge_link_conforms() {
    let NatsLogConfig { nats, namespace, .. } = log_config();
    let link = NatsLink::connect(&nats, namespace).await.unwrap();
    edge_link::conformance::all(&link).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_flushed_is_told_although_the_sender_has_ended() {
    let NatsLogConfig { nats, namespace, .. } = log_config();
    let link = NatsLink::connect(&nats, namespace.clone()).await.unwrap();
    let mut inbound = link.listen_as_worker(WorkerId(1)).await.unwrap();
    let bye = ToWorkers::Bye { edge: EdgeId(7) };
    let last = bye.clone();
    // A process of its own, as far as its connection goes: nothing of it runs after the flush.
    let sender = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let link = NatsLink::connect(&nats, namespace).await.unwrap();
            link.to_workers(last).await.unwrap();
            link.flush().await.unwrap();
        });
        runtime.shutdown_background();
    });
    let heard = tokio::time::timeout(Duration::from_secs(30), inbound.recv()).await;
    assert_eq!(heard.expect("in time"), Some(bye));
    sender.join().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ownership_conforms() {
    let NatsLogConfig { nats, namespace, replicas, .. } = log_config();
    let config = NatsOwnershipConfig { nats, namespace, replicas, epoch: Epoch::FIRST };
    let ownership = NatsOwnership::connect(&config).await.unwrap();
    ownership::conformance::all(&ownership).await;
}

/// What was handed to the client and did not reach the server before the connection ended is never
/// sent later, and while there is no connection an append is refused at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_sent_late_after_a_reconnect() {
    let proxy = Proxy::start().await;
    let mut config = log_config();
    config.nats.urls = vec![proxy.url.clone()];
    let log = NatsLog::connect(config, Epoch::FIRST, &incarnations(1), &[]).await.unwrap();
    let before = conformance::append_new(&log, conformance::event(conformance::fresh(), "before")).await;

    proxy.set(Line::Held);
    let held = conformance::fresh();
    let began = Instant::now();
    // More than the buffers on the way hold, so that some waits within the client.
    let large = Bytes::from(vec![7; 256 * 1024]);
    let appends = (0..100).map(|_| log.append(conformance::event(held, large.clone())));
    let appends = futures_util::future::join_all(appends);
    let cut = async {
        // sleeps: gives what the client would send late the time to be handed to it.
        tokio::time::sleep(Duration::from_millis(200)).await;
        // A client that reconnects by itself would be let in at once.
        proxy.drop_all();
        proxy.set(Line::Open);
    };
    let (answers, ()) = tokio::join!(appends, cut);
    assert!(began.elapsed() < Duration::from_secs(4), "the loss was noticed after {:?}", began.elapsed());
    for answer in answers {
        assert!(matches!(answer, Err(AppendError::OutcomeUnknown(_))), "{answer:?}");
    }
    // What is sent late comes within this time after the reconnect, if ever.
    let until = Instant::now() + Duration::from_secs(1);
    let mut end = None;
    while end.is_none() || Instant::now() < until {
        assert!(Instant::now() < until + Duration::from_secs(30), "no connection again");
        if let Ok(Appended::New(position)) = log.append(conformance::event(held, "end")).await {
            end = Some(position);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let until = (held, end.unwrap());
    let records = conformance::read_until(&log, log.slices()[0].shards(), before, until, &[held]).await;
    let late = records.iter().filter(|record| record.payload.len() == large.len()).count();
    assert_eq!(late, 0, "some were sent late");

    proxy.set(Line::Cut);
    let until = Instant::now() + Duration::from_secs(30);
    while log.is_connected() {
        assert!(Instant::now() < until, "the cut was not noticed");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let began = Instant::now();
    let refused = log.append(conformance::event(held, "refused")).await;
    assert!(matches!(refused, Err(AppendError::Unavailable(_))), "{refused:?}");
    assert!(began.elapsed() < Duration::from_millis(500), "refused after {:?}", began.elapsed());
}

/// A publish that waited on its way lands whenever it gets through, if the connection lasts: its
/// outcome is unknown after 5 s, and readers tell by its stamp that it is void (rule P4).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waited_on_its_way_lands_late() {
    let proxy = Proxy::start().await;
    let mut config = log_config();
    config.nats.urls = vec![proxy.url.clone()];
    let log = NatsLog::connect(config, Epoch::FIRST, &incarnations(1), &[]).await.unwrap();
    let (conversation, stamp) = (conformance::fresh(), log.now().await.unwrap());
    proxy.set(Line::Held);
    let answer = log.append(conformance::event(conversation, "late")).await;
    assert!(matches!(answer, Err(AppendError::OutcomeUnknown(_))), "{answer:?}");
    proxy.set(Line::Open);
    let mut reader = log.read(log.slices()[0], log.slices()[0].shards(), Position::START).await.unwrap();
    let records = tokio::time::timeout(Duration::from_secs(30), reader.next(1)).await.unwrap().unwrap();
    assert_eq!(records[0].conversation, conversation);
    assert!(records[0].log_time >= stamp.plus_millis(4_900), "{} after {stamp}", records[0].log_time);
}

/// A stream that was deleted and made anew under the same name is noticed by the first answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_made_anew_is_fenced() {
    let config = log_config();
    let log = NatsLog::connect(config.clone(), Epoch::FIRST, &incarnations(1), &[]).await.unwrap();
    for _ in 0..5 {
        conformance::append_new(&log, conformance::event(conformance::fresh(), "x")).await;
    }
    let mut reader = log.read(log.slices()[0], log.slices()[0].shards(), Position::START).await.unwrap();
    reader.next(5).await.unwrap();
    let client = async_nats::connect(config.nats.urls).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    let mut streams = jetstream.streams();
    let marked = loop {
        let info = streams.next().await.unwrap().unwrap();
        if log.state(log.slices()[0]).await.unwrap().incarnation
            == info.config.metadata.get("reedi-incarnation").cloned().unwrap_or_default()
        {
            break info.config;
        }
    };
    jetstream.delete_stream(&marked.name).await.unwrap();
    jetstream.create_stream(marked).await.unwrap();
    let answer = until_taken(&log).await;
    assert!(matches!(answer, Err(AppendError::Fenced(_))), "{answer:?}");
    assert!(log.fenced().is_some());
    assert!(matches!(log.now().await, Err(ReadError::Fenced(_))));
    let slice = log.slices()[0];
    assert!(matches!(log.read(slice, slice.shards(), Position::START).await, Err(ReadError::Fenced(_))));
    let spent = tokio::time::timeout(Duration::from_secs(10), reader.next(1)).await.unwrap();
    assert!(spent.is_err(), "a reader of a fenced log goes on: {spent:?}");
}

/// A leader that was cut off answers for a while, and knows nothing of what the others acknowledged since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_of_the_past_fences_nothing() {
    let proxy = Proxy::start().await;
    let (log, config, incarnations) = log_over(&[&proxy]).await;
    let last = append(&log, "what it does not know").await;
    proxy.set(Line::Behind);
    proxy.drop_all();
    let direct = NatsLog::connect(config, Epoch::FIRST, &incarnations, &[]).await.unwrap();
    let slice = direct.slices()[0];
    let mut reader = direct.read(slice, slice.shards(), last).await.unwrap();
    let proof = tokio::select! {
        proof = soon("a proof", reader.next(1)) => proof.unwrap().remove(0),
        () = eventually("fenced", || log.fenced().is_some()) => panic!("{:?}", log.fenced()),
    };
    assert!(proof.is_control && proof.position > last);
    let after = until_taken(&log).await.unwrap();
    assert!(after > proof.position);
    assert_eq!(log.fenced(), None);
}

/// As long as nobody acknowledges a proof, nothing is known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_that_nobody_can_prove_is_looked_at_again() {
    let proxy = Proxy::start().await;
    let (log, ..) = log_over(&[&proxy]).await;
    append(&log, "what it does not know").await;
    proxy.set(Line::Stale);
    proxy.drop_all();
    let told = || log.fenced().is_some() || proxy.withheld() >= 2;
    eventually("a second proof is tried", told).await;
    assert_eq!(log.fenced(), None);
    proxy.set(Line::Open);
    until_taken(&log).await.unwrap();
    assert_eq!(log.fenced(), None);
}

/// The proof moves the end of the log: who looks after that would miss nothing, but for what the proof says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_ran_backwards_is_fenced_for_everybody() {
    let (config, incarnations) = (log_config(), incarnations(1));
    let stored = (conformance::fresh().shard(), Position::new(Epoch::FIRST, 1).unwrap());
    for watermarks in [&[stored][..], &[stored], &[]] {
        let log = NatsLog::connect(config.clone(), Epoch::FIRST, &incarnations, watermarks).await;
        assert!(matches!(log.err(), Some(NatsLogError::Fenced(_))), "{watermarks:?}");
    }
}

/// The last of some deliveries, which no other follows that would show the gap.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_that_was_lost_is_noticed_before_the_next() {
    let proxy = Proxy::start().await;
    let (log, ..) = log_over(&[&proxy]).await;
    let slice = log.slices()[0];
    let first = append(&log, "arrives").await;
    let mut reader = log.read(slice, slice.shards(), Position::START).await.unwrap();
    assert_eq!(soon("a record", reader.next(1)).await.unwrap()[0].position, first);
    proxy.set(Line::Lossy);
    let lost = append(&log, "is lost").await;
    eventually("it is lost", || proxy.withheld() == 1).await;
    proxy.set(Line::Open);
    let ended = soon("a heartbeat that tells it", reader.next(1)).await;
    assert!(matches!(ended, Err(ReadError::Unavailable(_))), "{ended:?}");
    let mut reader = log.read(slice, slice.shards(), first).await.unwrap();
    assert_eq!(soon("the record", reader.next(1)).await.unwrap()[0].position, lost);
}

/// A replica that is behind has nothing to give and is alive: to a reader it looks like a log in which nothing
/// happens.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_behind_is_not_read_on() {
    let proxy = Proxy::start().await;
    let (log, ..) = log_over(&[&proxy]).await;
    let slice = log.slices()[0];
    let conversation = conformance::fresh();
    // Not all of the slice, so that most of what it goes through is not for this reader.
    let shards: ShardSet = slice.shards().iter().filter(|shard| *shard != conversation.shard()).collect();
    let mut reader = log.read(slice, shards, Position::START).await.unwrap();
    let stays_away = async {
        // As many heartbeats as would tell.
        for _ in 0..5 {
            conformance::append_new(&log, conformance::event(conversation, "for others")).await;
            // sleeps: what shows only by nothing happening
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::select! {
        () = stays_away => {}
        ended = reader.next(1) => panic!("a replica that keeps up was left: {ended:?}"),
    }
    proxy.set(Line::Behind);
    let ended = soon("it is left", reader.next(1)).await;
    assert!(matches!(ended, Err(ReadError::Unavailable(_))), "{ended:?}");
}

/// A server that was cut off takes connections and answers pings.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_at_which_jetstream_is_silent_is_left() {
    let (deaf, other) = (Proxy::to_server(0).await, Proxy::to_server(1).await);
    other.set(Line::Cut);
    let (log, ..) = log_over(&[&deaf, &other]).await;
    let connected = deaf.connections();
    deaf.set(Line::Deaf);
    other.set(Line::Open);
    until_taken(&log).await.unwrap();
    let answers = async {
        while log.now().await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("the other server", answers).await;
    assert!(log.is_connected());
    assert_eq!(deaf.connections(), connected, "it went back to where nobody answers");
}

/// What a worker's right to own shards hangs on (rule P3).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_knows_whether_it_can_read() {
    let proxy = Proxy::start().await;
    let (log, ..) = log_over(&[&proxy]).await;
    let slice = log.slices()[0];
    let reading = Reading::default();
    let mut health = reading.health();
    let (looker, log) = (reading.of(slice), Log::Nats(log));
    let watching = async {
        proxy.set(Line::Deaf);
        soon("it cannot read", health.wait_for(|health| *health == Health::Cannot)).await.unwrap();
        proxy.set(Line::Open);
        soon("it can again", health.wait_for(|health| health.can_read())).await.unwrap();
        // Of whoever's reader failed an answer is not enough: who has shards begins a reader itself.
        looker.wants(true);
        looker.failed(&ReadError::Unavailable("broken".to_owned()));
        soon("it cannot read", health.wait_for(|health| *health == Health::Cannot)).await.unwrap();
        looker.wants(false);
        soon("it has tried", health.wait_for(|health| health.can_read())).await.unwrap();
    };
    tokio::select! {
        () = looker.keep_looking(&log) => {}
        () = watching => {}
    }
}

/// Of two renewals of one lease one may come to stand while the other is under way: neither is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_that_meets_its_own_earlier_try_keeps_the_lease() {
    let NatsLogConfig { nats, namespace, replicas, .. } = log_config();
    let config = NatsOwnershipConfig { nats, namespace, replicas, epoch: Epoch::FIRST };
    let ownership = NatsOwnership::connect(&config).await.unwrap();
    let mut lease = ownership.acquire(ShardedRole::Writer, 1, "one").await.unwrap().unwrap();
    let (mut met, mut rounds) = (0, 0);
    // Until some have met their like on its way, whose end nobody knew yet.
    while met < 3 || rounds < 20 {
        rounds += 1;
        assert!(rounds < 2_000, "no two renewals met");
        let tries = futures_util::future::join_all((0..4).map(|_| ownership.renew(&lease, "one"))).await;
        for renewed in tries {
            match renewed {
                Ok(renewed) if renewed.token > lease.token => lease = renewed,
                Ok(_) => {}
                Err(OwnershipError::Unavailable(_)) => met += 1,
                Err(OwnershipError::Lost) => panic!("round {rounds}: the lease was taken for lost"),
            }
        }
    }
    assert_eq!(ownership.acquire(ShardedRole::Writer, 1, "other").await, Ok(None));
}
