//! The real components of a cluster, started by the project's own scripts.

use crate::server::ServerError;
use std::path::{Path, PathBuf};
use tokio::process::Command;

/// NATS, Cassandra and Redis that run.
pub struct Components {
    scripts: PathBuf,
    folder: PathBuf,
    /// Settings by which the roles find them.
    pub settings: Vec<(String, String)>,
    pids: Vec<(&'static str, u32)>,
}

impl Components {
    /// Starts NATS x 3, Cassandra x 1 and Redis x 3 in `folder`. They end with this process, however
    /// it goes.
    ///
    /// # Errors
    /// They are not installed, or one does not start.
    pub async fn start(scripts: &Path, folder: &Path) -> Result<Self, ServerError> {
        let status = Command::new(scripts.join("start.sh"))
            .args(["--only", "nats,cassandra,redis", "--parent", &std::process::id().to_string(), "--state"])
            .arg(folder)
            .status()
            .await
            .map_err(ServerError::io("start.sh cannot be run"))?;
        if !status.success() {
            let text = "the real components did not start; tests/components/install.sh installs them";
            return Err(ServerError::Components(text.to_owned()));
        }
        let environment = std::fs::read_to_string(folder.join("env"))
            .map_err(ServerError::io("the components' addresses cannot be read"))?;
        let value = |name: &str| -> Result<String, ServerError> {
            let found = environment.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            let missing = || ServerError::Components(format!("start.sh told no {name}"));
            Ok(found.ok_or_else(missing)?.trim_matches('\'').to_owned())
        };
        let settings = [
            ("REEDI_NATS_URL", value("REEDI_TEST_NATS_URL")?),
            // Reserved at once on each of the three nodes, which share one disk here.
            ("REEDI_NATS_MAX_BYTES", "1GiB".to_owned()),
            ("REEDI_CQL_CONTACT_POINTS", value("REEDI_TEST_CQL")?),
            ("REEDI_CQL_REPLICATION", "1".to_owned()),
            ("REEDI_REDIS_URL", value("REEDI_TEST_REDIS_URL")?),
            ("REEDI_SEAL_KEYS", seal_keys()),
        ];
        let settings = settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let pids = pids(folder).map_err(ServerError::io("the components' process ids cannot be read"))?;
        Ok(Self { scripts: scripts.to_owned(), folder: folder.to_owned(), settings, pids })
    }

    pub fn pids(&self) -> impl Iterator<Item = (&str, u32)> {
        self.pids.iter().copied()
    }

    pub async fn stop(self) {
        let stopped = Command::new(self.scripts.join("stop.sh")).arg("--state").arg(&self.folder).status();
        if !stopped.await.is_ok_and(|status| status.success()) {
            eprintln!("the components may still run: {}", self.folder.display());
        }
    }
}

/// A key ring for one run.
fn seal_keys() -> String {
    use base64::Engine as _;
    let key: [u8; 32] = rand::random();
    format!("loadtest:{}", base64::engine::general_purpose::STANDARD.encode(key))
}

fn pids(folder: &Path) -> std::io::Result<Vec<(&'static str, u32)>> {
    let mut pids = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = ["nats", "cassandra", "redis"].into_iter().find(|kind| name.starts_with(kind));
        let pid = std::fs::read_to_string(entry.path().join("pid")).ok().and_then(|p| p.trim().parse().ok());
        pids.extend(kind.zip(pid));
    }
    Ok(pids)
}
