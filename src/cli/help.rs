//! What `reedi <command> --help` says before the settings: what it does, what it needs, an example.

pub const DEV: &str = "\
The whole service in one process: REST, WebSocket and Socket.IO, delivery, and storage in a folder. Nothing else is \
needed. It has accounts of its own, and makes the secrets it needs in that folder.

  reedi dev                                      on 127.0.0.1:8080, data in ./reedi-data
  reedi dev --listen 0.0.0.0:8080 --data-dir /var/lib/reedi

One process at a time works on a folder. Stop it with Ctrl-C; a second Ctrl-C does not wait.";

pub const EDGE: &str = "\
An edge of a cluster: holds the clients' connections, judges what they ask for, seals it and gives it to the log, and \
tells them what happens. Run several behind a load balancer, with /readyz as health check. It keeps nothing itself.

  REEDI_NATS_URL=nats://n1:4222,nats://n2:4222
  REEDI_CQL_CONTACT_POINTS=c1,c2
  REEDI_REDIS_URL=redis://r1:6379
  REEDI_SEAL_KEYS=k1:...     the same on all edges; `openssl rand -base64 32` makes a key
  REEDI_ACCOUNTS=own REEDI_AUTH_HS256_SECRET=... or REEDI_AUTH_JWKS_URL and REEDI_PEOPLE_URL

It waits for parts that are away, and says on /readyz which.";

pub const DELIVERY: &str = "\
A delivery worker of a cluster: reads the log and passes each event to the edges that hold its recipients' connections. \
Workers share the work; one that comes or goes takes or leaves its share. It needs NATS and the store and keeps nothing.

  REEDI_NATS_URL=... REEDI_CQL_CONTACT_POINTS=... REEDI_REDIS_URL=... reedi delivery";

pub const WRITER: &str = "\
A writer of a cluster: brings what the log has into the store, and lets the log forget what is stored and a day old. \
Writers share the work as delivery workers do. While none runs, messages are delivered and history stands still.

  REEDI_NATS_URL=... REEDI_CQL_CONTACT_POINTS=... REEDI_REDIS_URL=... reedi writer";

pub const MIGRATE: &str = "\
Makes the keyspace and its tables, or brings them up to date. Run it before the first start, and with each new version; \
the service may run meanwhile, and two at once wait for each other. It refuses a keyspace without lightweight \
transactions, on which accounts and conversations rely.

  reedi migrate --cql-contact-points c1,c2 --cql-replication 3";

pub const TOKEN: &str = "\
Prints a token for an account, signed by the same secret as the server's: that of REEDI_AUTH_HS256_SECRET, or the one \
that `reedi dev` made in the data folder. For tests and for trying things by hand; whoever can run this is everybody.

  reedi token --sub 0b0b0000-0000-4000-8000-000000000002";

pub const CHECK: &str = "\
Prints every setting with its value and where it came from (flag, environment, file or default), secrets hidden. Says \
all that is wrong at once, with what would be accepted, and ends with 1 then.

  reedi config check --config /etc/reedi.toml";
