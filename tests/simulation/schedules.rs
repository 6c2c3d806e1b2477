//! The schedules that the protocols were written against, one by one. Each was seen to fail with the
//! rule that it is about broken; the rule stands in its comment.

use crate::client::{Client, Manner, Phase};
use crate::cluster::{Cluster, EdgeProcess, Shape};
use crate::groups;
use crate::judge::{entries, judge};
use crate::observed::Observed;
use crate::seed::{account, conversations, crash, finish, pass_days, pause, simulate};
use crate::wire::ask;
use reedi::domain::permission::Wish;
use reedi::domain::record::Body;
use reedi::edge::command::{change_conversation, send_message};
use reedi::edge::refused::Outcome;
use reedi::log::LogPort as _;
use reedi::log::embedded::EmbeddedLog;
use reedi::ownership::ShardedRole;
use reedi::presence::PresencePort as _;
use reedi::runtime::fault::Lines;
use reedi::runtime::random;
use reedi::store::{Conversations as _, Watermarks as _};
use reedi_invariants::Acked;
use reedi_protocol::command::SendMessage;
use reedi_protocol::resource::{MessageType, Role};
use reedi_protocol::{AccountId, ConversationKey, Epoch, ErrorCode};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

const PEOPLE: usize = 3;

/// A cluster in which a few people talk.
struct Scene {
    cluster: Cluster,
    observed: Observed,
    people: Vec<AccountId>,
    group: ConversationKey,
    phase: watch::Sender<Phase>,
    clients: Vec<JoinHandle<()>>,
}

impl Scene {
    /// With clients that talk every `pause` at most, or only listen.
    async fn begin(pause: Option<Duration>) -> Self {
        let cluster = Cluster::start(Shape::default(), Lines::Kept).await;
        let observed = Observed::default();
        let people: Vec<AccountId> = (0..PEOPLE).map(|_| account()).collect();
        let (first, others) = people.split_first().expect("people");
        // Workers need a moment to own their shards.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let group = groups::group(&cluster.edges()[0], *first, others).await.expect("nothing is wrong yet");
        let (phase, _) = watch::channel(if pause.is_some() { Phase::Working } else { Phase::Settling });
        let manner = Manner {
            pause: pause.unwrap_or_default(),
            leaves: 2,
            retries: vec![Duration::from_millis(300)],
            doubles: false,
            groups: false,
        };
        let mut clients = Vec::new();
        for number in 0..PEOPLE {
            let mut client = Client::new(&cluster, &observed, number, &people, manner.clone());
            client.conversations.insert(group);
            clients.push(tokio::spawn(client.run(phase.subscribe())));
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        Self { cluster, observed, people, group, phase, clients }
    }

    fn edge(&self, number: usize) -> EdgeProcess {
        self.cluster.edges()[number].clone()
    }

    /// A key as a client mints it now.
    fn key(&self) -> String {
        random::uuid_v7(self.cluster.now()).to_string()
    }

    /// The first person sends a message through `edge`; `None` where no answer comes.
    async fn send(&self, edge: &EdgeProcess, key: &str) -> Option<Outcome<send_message::Sent>> {
        let command = SendMessage {
            content: format!("about {key}"),
            message_type: MessageType::Text,
            reply_to_id: None,
            client_message_id: Some(key.to_owned()),
        };
        let (reached, sender, group) = (edge.edge.clone(), self.people[0], self.group);
        let sending = async move { send_message::run(&reached, sender, group, command, None).await };
        let sent = ask(edge, sending).await;
        if let Some(Ok(sent)) = &sent {
            self.observed.acked(Acked {
                sender,
                client_message_id: key.to_owned(),
                message: sent.message.message_id,
                at_ms: self.cluster.elapsed_ms(),
            });
        }
        sent
    }

    /// The same until it is acknowledged.
    async fn send_until_acknowledged(&self, edge: &EdgeProcess, key: &str) -> send_message::Sent {
        loop {
            match self.send(edge, key).await {
                Some(Ok(sent)) => return sent,
                Some(Err(refused)) => assert!(refused.code.is_retryable(), "{refused:?}"),
                None => {}
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Heals, waits for everybody, and asks all invariants.
    async fn end(self) {
        let stuck = finish(&self.cluster, &self.observed, &self.phase, self.clients.len()).await;
        for client in self.clients {
            client.await.expect("no client panics");
        }
        let mut wrong = judge(&self.cluster, &self.observed).await;
        wrong.extend(stuck);
        let lines = self.cluster.trace().lines();
        let last = lines.len().saturating_sub(200);
        assert!(wrong.is_empty(), "{}\n{wrong:#?}", lines[last..].join("\n"));
    }
}

/// Runs a schedule under a few seeds: the rest of what happens differs each time.
fn under_seeds<F: Future<Output = ()>>(schedule: impl Fn() -> F) {
    for seed in 1..=5 {
        simulate(seed, &schedule);
    }
}

async fn seconds(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// Rule P4.5: the log knows the key of what it took.
#[test]
fn an_edge_dies_between_publish_and_answer() {
    under_seeds(|| async {
        let scene = Scene::begin(None).await;
        let (edge, key) = (scene.edge(0), scene.key());
        edge.process.set_faults(|faults| faults.log.unanswered = 1_000);
        tokio::select! {
            answer = scene.send(&edge, &key) => assert!(answer.is_none_or(|sent| sent.is_err())),
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
        scene.cluster.kill(&edge.process);
        let sent = scene.send_until_acknowledged(&scene.edge(0), &key).await;
        assert!(sent.duplicate, "the log has it from the edge that died");
        scene.end().await;
    });
}

/// Rules P4.2, P4.3 and P4.6: within 30 s the log's window decides, later the store.
#[test]
fn retries_around_the_edges_of_the_windows_get_the_first_message() {
    for after_s in [29, 31, 119, 121, 600] {
        under_seeds(|| async move {
            let scene = Scene::begin(None).await;
            let (edge, key) = (scene.edge(0), scene.key());
            edge.process.set_faults(|faults| faults.log.unanswered = 1_000);
            assert!(scene.send(&edge, &key).await.is_none_or(|sent| sent.is_err()));
            edge.process.set_faults(|faults| faults.log.unanswered = 0);
            let minted = scene.cluster.elapsed_ms();
            tokio::time::sleep(Duration::from_secs(after_s)).await;
            let sent = scene.send_until_acknowledged(&scene.edge(1), &key).await;
            assert!(sent.duplicate, "{after_s} s after {minted}");
            let again = scene.send_until_acknowledged(&scene.edge(0), &key).await;
            assert_eq!(again.message.message_id, sent.message.message_id);
            scene.end().await;
        });
    }
}

/// Rule P4.4: late is void, for every reader.
#[test]
fn a_publish_that_lands_minutes_late_is_void() {
    for (late_s, again_s) in [(200, 1), (200, 100), (35, 1), (31, 40), (25, 1), (10, 130)] {
        under_seeds(|| async move {
            let scene = Scene::begin(None).await;
            let (edge, key) = (scene.edge(0), scene.key());
            let late_ms = late_s * 1_000..late_s * 1_000 + 1;
            edge.process.set_faults(|faults| (faults.log.late, faults.log.late_by_ms) = (1_000, late_ms));
            assert!(scene.send(&edge, &key).await.is_none_or(|sent| sent.is_err()));
            edge.process.set_faults(|faults| faults.log.late = 0);
            seconds(again_s).await;
            scene.send_until_acknowledged(&scene.edge(1), &key).await;
            seconds(late_s).await;
            scene.send_until_acknowledged(&scene.edge(0), &key).await;
            scene.end().await;
        });
    }
}

/// Rules P3 and P5: an owner that wakes finds its lease gone, and nobody believes its generation.
#[test]
fn a_delivery_worker_is_paused_and_wakes() {
    for paused_s in [5, 40, 180] {
        under_seeds(|| async move {
            let scene = Scene::begin(Some(Duration::from_millis(800))).await;
            let worker = scene.cluster.workers(ShardedRole::Delivery)[0].clone();
            pause(&scene.cluster, &worker.process, Duration::from_secs(paused_s));
            seconds(paused_s + 15).await;
            scene.end().await;
        });
    }
}

/// Rules P2, P3 and P8: what an old writer writes late is what the new one wrote.
#[test]
fn a_writer_is_paused_and_wakes() {
    for paused_s in [5, 40, 180] {
        under_seeds(|| async move {
            let scene = Scene::begin(Some(Duration::from_millis(800))).await;
            let worker = scene.cluster.workers(ShardedRole::Writer)[0].clone();
            pause(&scene.cluster, &worker.process, Duration::from_secs(paused_s));
            seconds(paused_s + 15).await;
            scene.end().await;
        });
    }
}

/// Rules P4.4 and P5: an edge that was paused does not acknowledge what the log took long ago; and where the
/// workers have forgotten it and it has not yet noticed that it was deaf, it is served from where it stands.
#[test]
fn an_edge_is_paused_and_wakes() {
    for paused_s in [5, 11, 13, 40, 180] {
        under_seeds(|| async move {
            let scene = Scene::begin(Some(Duration::from_millis(400))).await;
            let edge = scene.edge(0);
            pause(&scene.cluster, &edge.process, Duration::from_secs(paused_s));
            seconds(paused_s + 15).await;
            scene.end().await;
        });
    }
}

/// Rule P5: an edge that the workers have forgotten, and that has not noticed yet that it was deaf, is served
/// from where it stands, also where nothing follows by which a client could notice.
#[test]
fn an_edge_is_forgotten_and_wakes() {
    under_seeds(|| async {
        let scene = Scene::begin(None).await;
        pause(&scene.cluster, &scene.edge(0).process, Duration::from_secs(13));
        seconds(12).await;
        scene.send_until_acknowledged(&scene.edge(1), &scene.key()).await;
        seconds(10).await;
        scene.end().await;
    });
}

/// Rule P5: coverage that does not join on is asked for again.
#[test]
fn a_batch_to_an_edge_is_lost() {
    under_seeds(|| async {
        let scene = Scene::begin(None).await;
        let workers = scene.cluster.workers(ShardedRole::Delivery);
        workers.iter().for_each(|worker| worker.process.set_faults(|faults| faults.link.lost = 1_000));
        scene.send_until_acknowledged(&scene.edge(0), &scene.key()).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        workers.iter().for_each(|worker| worker.process.set_faults(|faults| faults.link.lost = 0));
        scene.end().await;
    });
}

/// Rule P5: a new owner begins at the lowest that any edge was served.
#[test]
fn an_owner_crashes_between_pull_and_push() {
    under_seeds(|| async {
        let scene = Scene::begin(None).await;
        let workers = scene.cluster.workers(ShardedRole::Delivery);
        workers.iter().for_each(|worker| worker.process.set_faults(|faults| faults.link.lost = 1_000));
        scene.send_until_acknowledged(&scene.edge(0), &scene.key()).await;
        for worker in workers {
            crash(&scene.cluster, &worker.process).await;
        }
        scene.end().await;
    });
}

/// Rule P7: a control event stands only where nobody else's came first.
#[test]
fn two_admins_remove_each_other() {
    under_seeds(|| async {
        let scene = Scene::begin(None).await;
        let (one, other, group) = (scene.people[0], scene.people[1], scene.group);
        let change = |edge: EdgeProcess, actor, wish: Wish| async move {
            let reached = edge.edge.clone();
            ask(&edge, async move { change_conversation::run(&reached, actor, group, &wish).await }).await
        };
        let promoted = change(scene.edge(0), one, Wish::SetRole(other, Role::Admin)).await;
        assert!(matches!(promoted, Some(Ok(_))));
        seconds(1).await;
        let (first, second) = tokio::join!(
            change(scene.edge(0), one, Wish::Remove(other)),
            change(scene.edge(1), other, Wish::Remove(one)),
        );
        let refusals: Vec<ErrorCode> = [first, second]
            .into_iter()
            .filter_map(|outcome| outcome.expect("an answer").err().map(|refused| refused.code))
            .collect();
        assert_eq!(refusals, [ErrorCode::NotFound], "one of them is no member any more");
        let (_, state) = scene.cluster.store().state(group).await.expect("there").expect("stands");
        assert_eq!(state.members.iter().filter(|member| member.role == Role::Admin).count(), 1);
        scene.end().await;
    });
}

/// Rule P11: Redis holds nothing that may not be lost.
#[test]
fn redis_is_emptied() {
    under_seeds(|| async {
        let scene = Scene::begin(Some(Duration::from_millis(700))).await;
        scene.cluster.redis().empty();
        seconds(35).await;
        let edge = scene.edge(0).edge;
        let present = edge.presence.look(&scene.people, scene.cluster.now()).await;
        assert!(
            present.iter().all(|found| found.as_ref().is_ok_and(|presence| presence.online)),
            "edges say again who is there: {present:?}"
        );
        scene.end().await;
    });
}

/// Rule P9: another log under the same name is not taken for the one that was acknowledged from.
#[test]
fn the_stream_is_made_anew() {
    for incarnation in ["second", "first"] {
        under_seeds(|| async move {
            let scene = Scene::begin(None).await;
            for _ in 0..5 {
                scene.send_until_acknowledged(&scene.edge(0), &scene.key()).await;
            }
            // Every edge has looked at the watermarks since, also one that acknowledged nothing.
            seconds(3).await;
            let (stored, acked) = (scene.cluster.store().contents(), scene.observed.all_acked().len());
            let watermarks = scene.cluster.store().watermarks().await;
            // Of another incarnation, or restored from before: it ends earlier than what was acknowledged.
            let log = EmbeddedLog::in_memory(Epoch::FIRST, incarnation, scene.cluster.now());
            scene.cluster.disks().replace(log.clone());
            seconds(5).await;
            for number in 0..2 {
                let refused = scene.send(&scene.edge(number), &scene.key()).await.expect("an answer").err();
                assert_eq!(refused.map(|r| r.code), Some(ErrorCode::LogUnavailable));
                assert!(
                    !scene.edge(number).edge.missing().is_empty(),
                    "an edge that takes nothing is not ready"
                );
            }
            seconds(60).await;
            assert_eq!(scene.cluster.store().contents(), stored);
            assert_eq!(scene.cluster.store().watermarks().await, watermarks);
            assert_eq!(scene.observed.all_acked().len(), acked);
            let state = log.state(log.slices()[0]).await.expect("there");
            assert!(state.last.is_start(), "nothing was appended to the other log");
        });
    }
}

/// Rule P2: a log that is busy in some shards forgets what the store has of all of them.
#[test]
fn a_busy_log_is_trimmed() {
    under_seeds(|| async {
        let scene = Scene::begin(Some(Duration::from_millis(20_000))).await;
        seconds(12 * 60).await;
        pass_days(&scene.cluster).await;
        assert!(!scene.cluster.trimmed().is_empty(), "nothing was trimmed");
        scene.end().await;
    });
}

/// Rule P7: a pair's conversation is claimed once, whoever of them comes first.
#[test]
fn one_pair_has_one_conversation() {
    under_seeds(|| async {
        let scene = Scene::begin(None).await;
        let (one, other) = (scene.people[0], scene.people[1]);
        let (edge, far) = (scene.edge(0), scene.edge(1));
        let (first, second) =
            tokio::join!(groups::direct(&edge, one, other), groups::direct(&far, other, one));
        assert!(first.is_some() && first == second, "{first:?} {second:?}");
        let created = entries(&scene.cluster)
            .iter()
            .filter(|entry| Some(entry.record.conversation) == first)
            .filter(|entry| matches!(entry.record.body, Body::Control { .. }))
            .count();
        assert_eq!(created, 1);
        assert!(conversations(&scene.cluster, &scene.people).await.contains(&first.expect("made")));
        scene.end().await;
    });
}
