//! Who may import whom.

use super::Finding;
use super::paths;
use super::tree::{Source, Tree};

/// What a port may name of `runtime`: its settings, and what every task needs to live in a process.
/// Not `health`, which speaks HTTP, nor `telemetry`, which belongs to the process.
const RUNTIME_FOR_PORTS: &[&str] =
    &["backoff", "clock", "config", "metrics", "random", "shutdown", "trace_context"];

const PORTS: &[&str] =
    &["edge_link", "log", "ownership", "people", "presence", "rate_limit", "redis_access", "store"];

/// Which module of the service may import which others. A new module gets a row here.
const ALLOWED: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("runtime", &[]),
    // Ports. One may stand on another as long as there is no way back.
    ("log", &["domain", "runtime"]),
    ("store", &["domain", "runtime"]),
    ("redis_access", &["domain", "runtime"]),
    ("edge_link", &["domain", "log", "runtime"]),
    ("ownership", &["domain", "edge_link", "log", "runtime"]),
    ("people", &["domain", "runtime", "store"]),
    ("presence", &["domain", "edge_link", "redis_access", "runtime"]),
    ("rate_limit", &["domain", "redis_access", "runtime"]),
    // Roles. Never each other.
    ("edge", &["domain", THE_PORTS, "runtime"]),
    ("delivery", &["domain", THE_PORTS, "runtime"]),
    ("writer", &["domain", THE_PORTS, "runtime"]),
    // What composes them all, and a program of its own in the same binary.
    ("role", &["domain", THE_PORTS, "delivery", "edge", "runtime", "writer"]),
    ("chat", &[]),
];

const THE_PORTS: &str = "the ports";

/// Crates of ours that a crate may depend on, in its manifest.
const CRATES: &[(&str, &[&str])] = &[
    ("protocol", &[]),
    ("client", &["reedi-protocol"]),
    ("invariants", &["reedi-protocol"]),
    ("loadtest", &["reedi-client", "reedi-invariants", "reedi-protocol"]),
    ("tests/chaos", &["reedi-client", "reedi-invariants", "reedi-protocol"]),
    ("xtask", &[]),
];

pub fn check(source: &Source, findings: &mut Vec<Finding>) {
    if !source.path.starts_with("src/") {
        return;
    }
    let modules = source.modules();
    // The crate's root names all modules, the command line starts any of them, and fuzzing tries all.
    let Some(&from) = modules.first().filter(|m| !matches!(**m, "cli" | "fuzz")) else { return };
    let Some((_, allowed)) = ALLOWED.iter().find(|(module, _)| *module == from) else {
        findings.push(Finding {
            file: source.path.clone(),
            line: 1,
            rule: "imports",
            says: format!("`{from}` is a new module: say in xtask/src/tidy/imports.rs what it may import"),
        });
        return;
    };
    for named in paths::named(source) {
        let Some(to) = named.segments.get(1).filter(|_| named.segments[0] == "crate") else { continue };
        if to == from || !ALLOWED.iter().any(|(module, _)| module == to) {
            continue;
        }
        // One simulated part may stand behind several ports, and goes wrong for all of them at once.
        let is_simulated = modules.contains(&"simulated") || named.segments.iter().any(|s| s == "simulated");
        if is_simulated && PORTS.contains(&from) && (to == "runtime" || PORTS.contains(&to.as_str())) {
            continue;
        }
        let port = allowed.contains(&THE_PORTS) && PORTS.contains(&to.as_str());
        if !port && !allowed.contains(&to.as_str()) {
            findings.push(refused(source, named.line, from, to, allowed));
            continue;
        }
        let part = named.segments.get(2).map_or("", String::as_str);
        if to == "runtime" && PORTS.contains(&from) && !RUNTIME_FOR_PORTS.contains(&part) {
            findings.push(Finding {
                file: source.path.clone(),
                line: named.line,
                rule: "imports",
                says: format!(
                    "the port `{from}` names `runtime::{part}`; of runtime a port may name {} alone",
                    RUNTIME_FOR_PORTS.join(", ")
                ),
            });
        }
    }
}

fn refused(source: &Source, line: usize, from: &str, to: &str, allowed: &[&str]) -> Finding {
    let may = if allowed.is_empty() { "nothing of the service".to_owned() } else { allowed.join(", ") };
    Finding {
        file: source.path.clone(),
        line,
        rule: "imports",
        says: format!(
            "`{from}` imports `{to}`, and may import {may} alone; what both need belongs into one of those"
        ),
    }
}

/// Features that write what a packet says into the log, where no content may be.
const TELLING: &[(&str, &str)] = &[("socketioxide", "\"tracing\""), ("engineioxide", "\"tracing\"")];

/// Checks that no dependency is built to log what it carries.
pub fn check_features(tree: &Tree, findings: &mut Vec<Finding>) {
    for manifest in tree.texts.iter().filter(|text| text.path.ends_with("Cargo.toml")) {
        for (line, text) in manifest.text.lines().enumerate() {
            let telling =
                |(name, feature): &&(&str, &str)| text.starts_with(*name) && text.contains(*feature);
            if let Some((name, feature)) = TELLING.iter().find(telling) {
                findings.push(Finding {
                    file: manifest.path.clone(),
                    line: line + 1,
                    rule: "imports",
                    says: format!("`{name}` with {feature} logs content: leave the feature out"),
                });
            }
        }
    }
}

/// Checks what each crate depends on.
pub fn check_manifests(tree: &Tree, findings: &mut Vec<Finding>) {
    for (folder, allowed) in CRATES {
        let path = format!("{folder}/Cargo.toml");
        let Some(manifest) = tree.texts.iter().find(|text| text.path == path) else { continue };
        let mut dependencies = false;
        for (line, text) in manifest.text.lines().enumerate() {
            if text.starts_with('[') {
                // Tests may stand on more.
                dependencies = text.ends_with("dependencies]") && !text.contains("dev-");
            }
            let name = text.split(['=', '.', ' ']).next().unwrap_or_default();
            if dependencies && name.starts_with("reedi") && !allowed.contains(&name) {
                findings.push(Finding {
                    file: path.clone(),
                    line: line + 1,
                    rule: "imports",
                    says: format!("the crate `{folder}` may not depend on `{name}`"),
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::tidy::broken_by;

    #[test]
    fn roles_do_not_know_each_other() {
        let files = [
            ("src/writer/mod.rs", "use crate::log::Log;\nuse crate::edge::append::tick;\n"),
            ("src/edge/command/x.rs", "fn f() {\n    super::super::super::delivery::go();\n}\n"),
            ("src/delivery/a.rs", "fn f() { select! { a = crate::writer::b() => {} } }\n"),
            ("src/role/single.rs", "use crate::{edge::Edge, writer::Writer, delivery::Delivery};\n"),
        ];
        let expected = [
            "src/delivery/a.rs:1 [imports]",
            "src/edge/command/x.rs:2 [imports]",
            "src/writer/mod.rs:2 [imports]",
        ];
        assert_eq!(broken_by(&files), expected);
    }

    #[test]
    fn the_domain_and_the_runtime_know_nobody() {
        let files = [
            ("src/domain/a.rs", "use crate::domain::b;\nuse crate::store::Store;\n"),
            ("src/domain/b.rs", "mod tests {\n    use super::super::super::log::Log;\n}\n"),
            ("src/runtime/c.rs", "use crate::domain::record::Record;\n"),
        ];
        let expected =
            ["src/domain/a.rs:2 [imports]", "src/domain/b.rs:2 [imports]", "src/runtime/c.rs:1 [imports]"];
        assert_eq!(broken_by(&files), expected);
    }

    #[test]
    fn a_port_knows_the_domain_settings_and_the_ports_it_stands_on() {
        let files = [
            ("src/log/a.rs", "use crate::domain::x;\nuse crate::runtime::config::Y;\nuse crate::store::Z;\n"),
            ("src/log/b.rs", "use crate::runtime::health::Readiness;\n"),
            ("src/ownership/c.rs", "use crate::log::ShardSet;\nuse crate::edge::Edge;\n"),
        ];
        let expected =
            ["src/log/a.rs:3 [imports]", "src/log/b.rs:1 [imports]", "src/ownership/c.rs:2 [imports]"];
        assert_eq!(broken_by(&files), expected);
    }

    #[test]
    fn one_simulated_part_stands_behind_several_ports() {
        let files = [
            ("src/presence/simulated.rs", "use crate::runtime::fault::X;\nuse crate::rate_limit::Y;\n"),
            ("src/rate_limit/mod.rs", "use crate::presence::simulated::X;\nuse crate::presence::Y;\n"),
            ("src/store/simulated.rs", "use crate::writer::Writer;\n"),
        ];
        assert_eq!(
            broken_by(&files),
            ["src/rate_limit/mod.rs:2 [imports]", "src/store/simulated.rs:1 [imports]"]
        );
    }

    #[test]
    fn a_new_module_must_say_what_it_imports() {
        assert_eq!(
            broken_by(&[("src/gossip/mod.rs", "use crate::log::Log;\n")]),
            ["src/gossip/mod.rs:1 [imports]"]
        );
    }

    #[test]
    fn no_dependency_logs_what_it_carries() {
        let text = "socketioxide = { version = \"1\", features = [\"tracing\"] }\nsocketioxide = \"1\"\n";
        assert_eq!(broken_by(&[("Cargo.toml", text)]), ["Cargo.toml:1 [imports]"]);
    }

    #[test]
    fn crates_depend_on_the_contract_alone() {
        let files = [
            (
                "protocol/Cargo.toml",
                "[dependencies]\nserde.workspace = true\nreedi-client.workspace = true\n",
            ),
            (
                "client/Cargo.toml",
                "[package]\nname = \"reedi-client\"\n[dependencies]\nreedi-protocol.workspace = true\nreedi = { path = \"..\" }\n\
                 [dev-dependencies]\nreedi-loadtest.workspace = true\n",
            ),
        ];
        assert_eq!(broken_by(&files), ["client/Cargo.toml:5 [imports]", "protocol/Cargo.toml:3 [imports]"]);
    }
}
