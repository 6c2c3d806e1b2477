//! Configuration: flags, environment variables and a TOML file name the same settings, in this order
//! of precedence. The table below declares each once; parsing, `--help`, `reedi config check` and
//! `docs/configuration.md` come from it.

pub mod address;
pub mod error;
pub mod needs;
pub mod networks;
pub mod reference;
pub mod secret;
pub mod sources;
mod table;
pub mod value;

pub use address::{ContactPoints, Datacenter, HttpUrl, NatsUrls, Origins, RedisUrls, Replication};
pub use error::{ConfigError, ConfigErrors, Source};
pub use networks::Networks;
pub use secret::{SealKey, SealKeys, Secret, SigningSecret};
pub use sources::{Effective, Inputs, Shown, flags};
pub use table::Setting;
pub use value::{AccountsOf, ByteSize, Keyspace, LogFormat, LogLevel, NatsName, PowerOfTwo, Value, Word};

use std::net::SocketAddr;
use std::path::PathBuf;
use table::{Names, Told, settings};

settings! {
    /// Where a process listens, and what it keeps on its own disk.
    process: ProcessConfig = "Process" {
        listen = "listen": SocketAddr, default "127.0.0.1:8080",
            "Address of REST and of the sockets.";
        admin_listen = "admin_listen": SocketAddr, default "127.0.0.1:9090",
            "Address of /healthz, /readyz and /metrics; not for the public.";
        data_dir = "data_dir": PathBuf, default "./reedi-data",
            "Folder of the embedded parts' data and of the secrets that `reedi dev` makes.";
        cors_origins = "cors_origins": Origins, default "",
            "Web pages that may call this service from a browser.";
        trusted_proxies = "trusted_proxies": Networks, default "",
            "Networks of the proxies in front, whose `X-Forwarded-For` is believed; only of such that set it themselves. Without it, all who come through one proxy count as one client where clients are counted by address.";
        drain_seconds = "drain_seconds": u64, in 0..=3_600, default "15",
            "Seconds over which a leaving process spreads its goodbyes. It has ended up to 14 s later; Kubernetes kills after 30 s by default.";
        log_format = "log_format": LogFormat, default "auto",
            "How log lines look; `auto` is pretty on a terminal and JSON elsewhere.";
        log_level = "log_level": LogLevel, default "info",
            "Which log lines are written.";
    }

    /// Who signs tokens, and whose the accounts are.
    auth: AuthConfig = "Accounts and tokens" {
        accounts = "accounts": Option<AccountsOf>, default "",
            "Whose accounts these are: `own` has sign-up, login and people search; `platform` asks `people_url`. \
             Where it is not set, `reedi dev` has its own, and a cluster the platform's.";
        hs256_secret = "auth_hs256_secret": Option<SigningSecret>, default "",
            "Secret of tokens signed by HMAC-SHA-256; own accounts need it. `reedi dev` makes one in the data \
             folder where neither this nor a JWKS URL is set.";
        jwks_url = "auth_jwks_url": Option<HttpUrl>, default "",
            "URL of the JSON Web Key Set whose RS256, ES256 and EdDSA keys verify tokens; asked again for unknown keys.";
        issuer = "auth_issuer": Option<Word>, default "",
            "The `iss` that a token must have, if set.";
        audience = "auth_audience": Option<Word>, default "",
            "The `aud` that a token must have, if set.";
        token_hours = "auth_token_hours": u64, in 1..=8_760, default "168",
            "Hours that a token of an own account is valid.";
        people_url = "people_url": Option<HttpUrl>, default "",
            "Where the platform tells profiles and follows; what it has to answer stands in docs/operations.md.";
    }

    /// The keys of content in the clear.
    seal: SealConfig = "Sealing" {
        keys = "seal_keys": Option<SealKeys>, default "",
            "Key ring for content in the clear: the first key seals, all of them open. To rotate, put a new key last on \
             all edges, then first on all, and keep the old ones as long as what they have sealed. `reedi dev` makes one \
             in the data folder.";
    }

    /// How the work is divided.
    division: DivisionConfig = "Division of the work" {
        shards = "shards": PowerOfTwo, default "64",
            "Lease units that workers share, of each role; a worker that differs from those who hold them takes none.";
        log_slices = "log_slices": PowerOfTwo, default "1",
            "Streams that a new log is divided into; more than 1 only when one leader is the bottleneck.";
    }

    /// The log's NATS.
    nats: NatsConfig = "NATS" {
        urls = "nats_url": Option<NatsUrls>, default "",
            "Servers of the NATS cluster.";
        name = "nats_name": NatsName, default "reedi",
            "What streams, buckets and subjects begin with: installations with names of their own can share a cluster.";
        credentials = "nats_credentials": Option<PathBuf>, default "",
            "Credentials file (`.creds`) to sign in with.";
        ca = "nats_ca": Option<PathBuf>, default "",
            "PEM file of the authorities that sign the servers' certificates; the public ones where it is not set.";
        replicas = "nats_replicas": u8, in 1..=5, default "3",
            "Copies of each stream and bucket; fewer than 3 lose acknowledged messages with one disk.";
        max_bytes = "nats_max_bytes": ByteSize, default "8GiB",
            "Largest size of each stream; a full log refuses sends. It keeps what 24 h bring, and more while the store is away.";
    }

    /// The store's ScyllaDB or Cassandra.
    cql: CqlConfig = "ScyllaDB or Cassandra" {
        contact_points = "cql_contact_points": Option<ContactPoints>, default "",
            "Nodes that are asked first for the others.";
        keyspace = "cql_keyspace": Keyspace, default "reedi",
            "Keyspace of all tables; `reedi migrate` makes it.";
        user = "cql_user": Option<Word>, default "",
            "User to sign in as.";
        password = "cql_password": Option<Secret>, default "",
            "The user's password.";
        ca = "cql_ca": Option<PathBuf>, default "",
            "PEM file of the authorities that sign the nodes' certificates; TLS is used where it is set.";
        replication = "cql_replication": Replication, default "3",
            "Copies of the keyspace that `reedi migrate` makes.";
        local_datacenter = "cql_local_datacenter": Option<Datacenter>, default "",
            "Datacenter whose copies are written and read, the same for all processes; wanted where `cql_replication` names more than one.";
    }

    /// Presence and rate limits: Redis or Valkey.
    redis: RedisConfig = "Redis or Valkey" {
        urls = "redis_url": Option<RedisUrls>, default "",
            "Servers; with more than one, or a server in cluster mode, the cluster's.";
        ca = "redis_ca": Option<PathBuf>, default "",
            "PEM file of the authorities that sign the servers' certificates, where `redis_url` is `rediss://`; the public ones where it is not set.";
    }

    /// What a client may use up; rule P11 where no other source is named.
    limits: LimitsConfig = "Limits" {
        group_members = "group_members": u32, in 2..=10_000, default "1000",
            "Members of a group.";
        typing_members = "typing_members": u32, in 0..=10_000, default "100",
            "Members of a conversation up to which typing is told.";
        presence_members = "presence_members": u32, in 0..=10_000, default "50",
            "Members of a conversation up to which presence is told.";
        account_rate = "account_rate": u32, in 1..=1_000_000, default "10",
            "Events a second that an account may send for ever.";
        account_burst = "account_burst": u32, in 1..=1_000_000, default "600",
            "Events that an account may send at once.";
        conversation_rate = "conversation_rate": u32, in 1..=1_000_000, default "20",
            "Events a second that a conversation takes for ever.";
        conversation_burst = "conversation_burst": u32, in 1..=1_000_000, default "1000",
            "Events that a conversation takes at once.";
        read_rate = "read_rate": u32, in 1..=1_000_000, default "50",
            "Reads a second that an account may ask one edge for, for ever: of REST, and the message that a command is about.";
        read_burst = "read_burst": u32, in 1..=1_000_000, default "1000",
            "Reads that an account may ask one edge for at once.";
        answer_bytes = "answer_bytes": ByteSize, default "256MiB",
            "Memory of one edge for answers to reads that clients have not taken yet; a sixteenth of it for each account.";
        sign_in_rate = "sign_in_rate": u32, in 1..=1_000_000, default "1",
            "Tries a second to sign up or log in from one address for ever; each costs some 30 ms of a core.";
        sign_in_burst = "sign_in_burst": u32, in 1..=1_000_000, default "30",
            "Tries to sign up or log in from one address at once.";
        connections = "connections": u32, in 1..=10_000_000, default "100000",
            "Sockets of one edge; 4 KiB each when idle, before the system's own buffers.";
        connections_per_account = "connections_per_account": u32, in 1..=100_000, default "50",
            "Sockets of one account on one edge.";
        http_connections = "http_connections": u32, in 16..=1_000_000, default "16384",
            "Connections of one edge that are not sockets, or not yet; one address has half of them at most, unless it is a trusted proxy.";
        sockets_unauthenticated = "sockets_unauthenticated": u32, in 1..=1_000_000, default "4096",
            "Sockets of one edge that may wait for their token, each at most 10 s.";
        outbox_frames = "outbox_frames": u32, in 16..=1_000_000, default "1024",
            "Frames that wait for a slow client before its socket is closed with 4408.";
        outbox_bytes = "outbox_bytes": ByteSize, default "2MiB",
            "Bytes of frames that wait for a slow client before its socket is closed with 4408.";
    }
}

#[cfg(test)]
mod tests;
