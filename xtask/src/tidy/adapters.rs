//! Which outside crates are named where: what stands behind a port stays behind it.

use super::Finding;
use super::paths;
use super::tree::Source;

/// An outside crate and the only places of the service that may name it.
struct Confined {
    crates: &'static [&'static str],
    within: &'static [&'static str],
    why: &'static str,
}

const CONFINED: &[Confined] = &[
    Confined {
        crates: &["async_nats"],
        within: &["src/log/nats", "src/edge_link/nats", "src/ownership/nats", "src/role"],
        why: "NATS stands behind the ports log, edge_link and ownership",
    },
    Confined {
        crates: &["scylla"],
        within: &["src/store/cql", "src/role"],
        why: "CQL stands behind the port store",
    },
    Confined {
        crates: &["redis"],
        within: &["src/redis_access", "src/presence/redis", "src/rate_limit/redis", "src/role"],
        why: "Redis stands behind redis_access, presence and rate_limit",
    },
    Confined {
        crates: &["fjall"],
        within: &["src/store/embedded", "src/role"],
        why: "the embedded engine stands behind the port store",
    },
    Confined {
        crates: &["axum", "axum_core"],
        within: &["src/edge", "src/runtime/health"],
        why: "HTTP is spoken by the edge and by the health page",
    },
    Confined {
        crates: &["socketioxide", "tokio_tungstenite"],
        within: &["src/edge"],
        why: "sockets end at the edge",
    },
];

/// The domain is pure and synchronous.
const NOT_IN_DOMAIN: &[&str] = &["tokio", "futures_util", "reqwest", "hyper", "hyper_util", "tracing"];
const NOT_IN_DOMAIN_STD: &[&str] = &["fs", "net", "thread", "process", "env", "io"];

pub fn check(source: &Source, findings: &mut Vec<Finding>) {
    if !source.path.starts_with("src/") {
        return;
    }
    let local = local_modules(&source.parsed);
    for named in paths::named(source) {
        // `redis::X` in a file with `mod redis` is that module.
        let [first, rest @ ..] = named.segments.as_slice() else { continue };
        // And a lone `redis` is a variable.
        if rest.is_empty() || local.contains(first) {
            continue;
        }
        let confined = CONFINED.iter().find(|c| c.crates.contains(&first.as_str()));
        if let Some(confined) = confined
            && !confined.within.iter().any(|place| is_within(&source.path, place))
        {
            findings.push(Finding {
                file: source.path.clone(),
                line: named.line,
                rule: "adapters",
                says: format!("`{first}` is named outside {}: {}", confined.within.join(", "), confined.why),
            });
        }
        let second = rest.first().map_or("", String::as_str);
        let impure = NOT_IN_DOMAIN.contains(&first.as_str())
            || first == "std" && NOT_IN_DOMAIN_STD.contains(&second)
            || first == "crate" && second == "tokio";
        if impure && source.path.starts_with("src/domain/") && !named.in_test {
            findings.push(Finding {
                file: source.path.clone(),
                line: named.line,
                rule: "adapters",
                says: format!(
                    "`{}` in the domain, which is pure: give it the result",
                    named.segments.join("::")
                ),
            });
        }
    }
}

fn is_within(path: &str, place: &str) -> bool {
    path.strip_prefix(place).is_some_and(|rest| rest.starts_with('/') || rest == ".rs")
}

fn local_modules(file: &syn::File) -> Vec<String> {
    let modules = file.items.iter().filter_map(|item| match item {
        syn::Item::Mod(module) => Some(module.ident.to_string()),
        _ => None,
    });
    modules.collect()
}

#[cfg(test)]
mod tests {
    use crate::tidy::broken_by;

    #[test]
    fn an_adapters_crate_stays_with_the_adapter() {
        let files = [
            ("src/delivery/consume.rs", "use async_nats::Client;\n"),
            ("src/log/nats/api.rs", "use async_nats::Client;\n"),
            ("src/presence/redis.rs", "use redis::Cmd;\n"),
            (
                "src/presence/mod.rs",
                "mod redis;\nenum P { Redis(redis::RedisPresence) }\nfn f(redis: A) { redis.get() }\n",
            ),
            ("src/presence/in_memory.rs", "fn f(c: redis::Cmd) {}\n"),
            ("src/role/cluster.rs", "fn f() -> Result<scylla::Session, E> {}\n"),
            ("src/writer/a.rs", "fn f() {\n    let x: scylla::client::Session;\n}\n"),
            ("src/edge/b.rs", "use {bytes::Bytes, fjall::Database};\n"),
        ];
        let expected = [
            "src/delivery/consume.rs:1 [adapters]",
            "src/edge/b.rs:1 [adapters]",
            "src/presence/in_memory.rs:1 [adapters]",
            "src/writer/a.rs:2 [adapters]",
        ];
        assert_eq!(broken_by(&files), expected);
    }

    #[test]
    fn http_is_spoken_by_the_edge() {
        let files = [
            ("src/edge/rest/body.rs", "use axum::Json;\n"),
            ("src/runtime/health.rs", "use axum::Json;\n"),
            ("src/runtime/telemetry.rs", "use axum::Json;\n"),
            ("src/people/platform.rs", "fn f() { axum::serve(a, b); }\n"),
        ];
        assert_eq!(
            broken_by(&files),
            ["src/people/platform.rs:1 [adapters]", "src/runtime/telemetry.rs:1 [adapters]"]
        );
    }

    #[test]
    fn the_domain_is_pure() {
        let text = "use std::collections::BTreeMap;\nfn f() {\n    tokio::spawn(g());\n    std::fs::read(p);\n}\n\
                    #[cfg(test)]\nmod tests {\n    use tokio::time;\n}\n";
        assert_eq!(
            broken_by(&[("src/domain/a.rs", text)]),
            ["src/domain/a.rs:3 [adapters]", "src/domain/a.rs:4 [adapters]"]
        );
    }
}
