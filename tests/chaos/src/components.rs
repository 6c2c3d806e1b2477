//! The real components, by the scripts that every test uses.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::Command;

/// Why a component is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum ComponentError {
    #[error("{script} cannot be run: {source}")]
    Script { script: PathBuf, source: io::Error },
    #[error("{what} failed:\n{said}")]
    Failed { what: String, said: String },
    #[error("the components' addresses lack {0}")]
    Address(&'static str),
}

/// NATS, Cassandra and Redis, three nodes each.
pub struct Components {
    scripts: PathBuf,
    state: PathBuf,
    addresses: HashMap<String, String>,
}

impl Components {
    /// Starts all of them; they end with this process, however it ends.
    pub async fn start(scripts: &Path, state: &Path) -> Result<Self, ComponentError> {
        let mut components =
            Self { scripts: scripts.to_owned(), state: state.to_owned(), addresses: HashMap::new() };
        let parent = std::process::id().to_string();
        let arguments =
            ["--cassandra-nodes", "3", "--only", "nats,cassandra,redis", "--parent", parent.as_str()];
        components.run("start.sh", &arguments).await?;
        let env = state.join("env");
        let text =
            std::fs::read_to_string(&env).map_err(|source| ComponentError::Script { script: env, source })?;
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        components.addresses = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Ok(components)
    }

    pub fn address(&self, name: &'static str) -> Result<&str, ComponentError> {
        self.addresses.get(name).map(String::as_str).ok_or(ComponentError::Address(name))
    }

    /// `action` is one of `node.sh`: kill, stop, cont, restart.
    pub async fn node(&self, action: &str, name: &str) -> Result<(), ComponentError> {
        self.run("node.sh", &[action, name]).await
    }

    /// Ends everything, the processes of the service included.
    pub async fn stop(&self) -> Result<(), ComponentError> {
        self.run("stop.sh", &[]).await
    }

    async fn run(&self, script: &str, arguments: &[&str]) -> Result<(), ComponentError> {
        let path = self.scripts.join(script);
        let mut command = Command::new(&path);
        command.arg("--state").arg(&self.state).args(arguments);
        // To a file, not a pipe: what the script starts would hold the pipe open.
        let said = self.state.with_extension(format!("{script}.said"));
        let failed = |source| ComponentError::Script { script: path.clone(), source };
        let file = std::fs::File::create(&said).map_err(failed)?;
        command.stdin(Stdio::null()).stdout(file.try_clone().map_err(failed)?).stderr(file);
        let status = command.status().await.map_err(failed)?;
        if status.success() {
            return Ok(());
        }
        let what = format!("{script} {}", arguments.join(" "));
        Err(ComponentError::Failed { what, said: std::fs::read_to_string(&said).unwrap_or_default() })
    }
}
