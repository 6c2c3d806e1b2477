//! The whole cluster in one process: three edges, two delivery workers, two writers, each with a
//! runtime of its own, so that one can end as suddenly as a process that is killed.

use super::backend::Backend;
use super::lines;
use parking_lot::Mutex;
use reedi::role::cluster;
use reedi::role::process::{Member, Process, Roles};
use reedi::runtime::shutdown::Shutdown;
use reedi_protocol::ConversationId;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::OnceCell;
use tokio::time::timeout;

/// Longer than any wait of the protocol that is bound to end: two leases and their handover.
pub const WITHIN: Duration = Duration::from_secs(40);

/// One process.
pub struct Node {
    runtime: Option<Runtime>,
    shutdown: Shutdown,
    member: Option<Member>,
    address: Option<SocketAddr>,
    pub admin: String,
}

impl Node {
    pub async fn start(backend: &Backend, roles: Roles, settings: &[(&str, &str)]) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let (backend, shutdown) = (backend.clone(), Shutdown::new());
        let (config, told) = (backend.config(settings), shutdown.clone());
        let starting = runtime.spawn(async move {
            match backend {
                Backend::Embedded { parts, .. } => {
                    Process::open(config, roles, told).await?.start(parts).await
                }
                Backend::Real { .. } => cluster::start(config, roles, told).await,
            }
        });
        let member = timeout(WITHIN, starting).await.expect("in time").expect("no panic").expect("it starts");
        let admin = format!("http://{}", member.admin_address);
        Self { runtime: Some(runtime), shutdown, address: member.address, member: Some(member), admin }
    }

    pub fn member(&self) -> &Member {
        self.member.as_ref().expect("it has not ended")
    }

    /// Where its edge listens.
    pub fn url(&self) -> String {
        format!("http://{}", self.address.expect("an edge"))
    }

    pub async fn ready(&self) {
        let ready = timeout(WITHIN, self.member().shared.readiness.until_ready()).await;
        ready.unwrap_or_else(|_| panic!("not ready: {:?}", self.member().shared.readiness.missing()));
    }

    /// Ends once it says that it lacks something, which it looks at now and then.
    pub async fn not_ready(&self) {
        let gone = async {
            while self.member().shared.readiness.is_ready() {
                // sleeps: between two looks
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(WITHIN, gone).await.expect("it says that it lacks something");
    }

    /// Begins to leave as a process does that is told to.
    pub fn drain(&self) {
        self.shutdown.drain();
    }

    /// Leaves as a process does that is told to; ends when it has.
    pub async fn leave(mut self) {
        self.drain();
        let member = self.member.take().expect("it has not ended");
        timeout(WITHIN, member.ended()).await.expect("it leaves in time");
        self.shutdown.stop();
    }

    /// Ends at once: no task of it takes another step, its sockets close, its leases stand.
    pub fn kill(self) {
        drop(self);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

pub struct Cluster {
    pub backend: Backend,
    pub edges: Vec<Node>,
    pub deliveries: Mutex<Vec<Node>>,
    pub writers: Mutex<Vec<Node>>,
}

impl Cluster {
    /// Starts all seven processes; ends when all edges are ready.
    pub async fn start(backend: Backend) -> Self {
        lines::capture();
        let (mut writers, mut deliveries, mut edges) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..2 {
            writers.push(Node::start(&backend, Roles::WRITER, &[]).await);
            deliveries.push(Node::start(&backend, Roles::DELIVERY, &[]).await);
        }
        for _ in 0..3 {
            edges.push(Node::start(&backend, Roles::EDGE, &[]).await);
        }
        for edge in &edges {
            edge.ready().await;
        }
        Self { backend, edges, deliveries: Mutex::new(deliveries), writers: Mutex::new(writers) }
    }

    /// One more edge, with settings of its own.
    pub async fn edge(&self, settings: &[(&str, &str)]) -> Node {
        let edge = Node::start(&self.backend, Roles::EDGE, settings).await;
        edge.ready().await;
        edge
    }

    /// Waits until the store has everything that the log has by now of a conversation; any edge reads it then.
    pub async fn stored(&self, conversation: &str) {
        let conversation: ConversationId = conversation.parse().expect("a conversation");
        let edge = self.edges[0].member().edge.clone().expect("an edge");
        let shard = conversation.key().shard();
        let reached =
            timeout(WITHIN, async { while edge.appender.stored_up_to_now(shard).await.is_err() {} }).await;
        reached.expect("the writer gets there");
    }

    /// The addresses of the edges.
    pub fn urls(&self) -> Vec<String> {
        self.edges.iter().map(Node::url).collect()
    }
}

/// A cluster of one test's own, whose parts it may end.
pub async fn own(backend: Backend) -> &'static Cluster {
    Box::leak(Box::new(Cluster::start(backend).await))
}

/// The cluster that all tests on embedded parts share, each with people of its own.
pub async fn embedded() -> &'static Cluster {
    static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();
    CLUSTER.get_or_init(|| async { Cluster::start(Backend::embedded("shared").await).await }).await
}

/// The same on NATS, CQL and Redis.
pub async fn real() -> &'static Cluster {
    static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();
    CLUSTER.get_or_init(|| async { Cluster::start(Backend::real("shared").await).await }).await
}
