//! `reedi dev`: the whole service, and what to try next.

use clap::ArgMatches;
use reedi::chat;
use reedi::role::single;
use reedi::runtime::shutdown::Shutdown;
use reedi::runtime::telemetry;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub fn run(matches: &ArgMatches) -> Result<(), String> {
    let config = super::effective(matches)?.config;
    telemetry::start(config.process.log_format, &config.process.log_level).map_err(|e| e.to_string())?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|e| e.to_string())?;
    runtime.block_on(async {
        let shutdown = Shutdown::new();
        let drain = Duration::from_secs(config.process.drain_seconds);
        shutdown.on_signals(drain).map_err(|e| e.to_string())?;
        let folder = config.process.data_dir.display().to_string();
        for warning in config.warnings() {
            tracing::warn!("{warning}");
        }
        let single = tokio::select! {
            single = single::start(config, shutdown.clone()) => single.map_err(|e| e.to_string())?,
            () = shutdown.draining() => return super::ended(&shutdown),
        };
        tokio::select! {
            () = single.shared.readiness.until_ready() => {}
            // Who leaves takes no leases, and so would never be ready.
            () = shutdown.draining() => {
                single.ended().await;
                return super::ended(&shutdown);
            }
        }
        let Some(address) = single.address else { return Ok(()) };
        println!("{}", what_to_try(&program(), address, single.admin_address, &folder));
        single.ended().await;
        super::ended(&shutdown)
    })
}

/// What is there now, and what to type next: to be pasted into another terminal as it stands.
fn what_to_try(program: &str, address: SocketAddr, admin: SocketAddr, folder: &str) -> String {
    let server = server_at(address);
    let named = if server == chat::SERVER { String::new() } else { format!(" --server {}", quoted(&server)) };
    let sign_up = quoted(&format!("{server}/api/auth/signup"));
    format!(
        "Reedi listens on http://{address}, with its data in {folder}.\n\n\
         Talk to each other, in two more terminals:\n\
         \x20 {program} chat --as alice{named}\n\
         \x20 {program} chat --as bob{named}\n\n\
         Or by hand:\n\
         \x20 curl -s {sign_up} -H 'content-type: application/json' \\\n\
         \x20   -d '{{\"username\":\"carol\",\"password\":\"correct horse\"}}'\n\n\
         Metrics: http://{admin}/metrics. Stop with Ctrl-C."
    )
}

/// Where a program on this machine finds what listens on `address`, which may be all of its addresses.
fn server_at(address: SocketAddr) -> String {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(ip, address.port()))
}

/// This program, as a shell in this folder starts it.
fn program() -> String {
    let started = std::env::args_os().next().map_or_else(|| PathBuf::from("reedi"), PathBuf::from);
    let here = std::env::current_dir().ok();
    quoted(&from_here(&started, here.as_deref()).to_string_lossy())
}

/// A path below `here` as it is called there. A name alone was found by PATH, and is again.
fn from_here(started: &Path, here: Option<&Path>) -> PathBuf {
    match here.and_then(|here| started.strip_prefix(here).ok()) {
        // Without a slash it would be looked for by PATH.
        Some(below) if below.components().count() == 1 => Path::new(".").join(below),
        Some(below) => below.to_path_buf(),
        None => started.to_path_buf(),
    }
}

/// One word for a shell.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-:+=@%,".contains(c);
    if word.chars().all(is_plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(address: &str) -> String {
        let admin = "127.0.0.1:9090".parse().unwrap();
        what_to_try("target/release/reedi", address.parse().unwrap(), admin, "./reedi-data")
    }

    #[test]
    fn what_is_told_names_the_program_as_it_was_started() {
        let text = told("127.0.0.1:8080");
        assert!(text.starts_with("Reedi listens on http://127.0.0.1:8080, with its data in ./reedi-data.\n"));
        for line in ["  target/release/reedi chat --as alice\n", "  target/release/reedi chat --as bob\n"] {
            assert!(text.contains(line), "{text}");
        }
    }

    #[test]
    fn chat_is_told_the_server_unless_it_goes_there_by_itself() {
        for (listens, named) in [
            ("127.0.0.1:8080", ""),
            ("0.0.0.0:8080", ""),
            ("127.0.0.1:8081", " --server http://127.0.0.1:8081"),
            ("0.0.0.0:80", " --server http://127.0.0.1:80"),
            ("10.0.0.7:8080", " --server http://10.0.0.7:8080"),
            ("[::]:8080", " --server 'http://[::1]:8080'"),
        ] {
            let text = told(listens);
            assert!(text.contains(&format!(" chat --as bob{named}\n")), "{text}");
        }
        assert!(told("0.0.0.0:81").contains("curl -s http://127.0.0.1:81/api/auth/signup -H"));
    }

    #[test]
    fn the_program_is_called_as_it_is_from_this_folder() {
        for (started, called) in [
            ("target/release/reedi", "target/release/reedi"),
            ("/work/main/target/release/reedi", "target/release/reedi"),
            ("/work/main/reedi", "./reedi"),
            ("/usr/bin/reedi", "/usr/bin/reedi"),
            ("./reedi", "./reedi"),
            ("reedi", "reedi"),
        ] {
            let from = from_here(Path::new(started), Some(Path::new("/work/main")));
            // As text: paths are equal that a shell tells apart.
            assert_eq!(from.to_str(), Some(called));
        }
        assert_eq!(from_here(Path::new("/opt/reedi"), None), Path::new("/opt/reedi"));
    }

    #[test]
    fn what_a_shell_would_take_apart_is_quoted() {
        assert_eq!(quoted("./target/release/reedi"), "./target/release/reedi");
        assert_eq!(quoted("/home/ann/my things/reedi"), "'/home/ann/my things/reedi'");
        assert_eq!(quoted("ann's/reedi"), r"'ann'\''s/reedi'");
    }
}
