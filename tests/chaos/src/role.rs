//! One process of the service, as the run starts, stops and kills it.

use crate::line::Lines;
use crate::ready::is_ready;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{File, OpenOptions};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Leaving gracefully: the drain of 5 s that the run configures, 5 s for requests that were begun, and as
/// much again for a machine that is busy.
const LEAVE_WITHIN: Duration = Duration::from_secs(20);

/// Why a process is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum RoleError {
    #[error("{name} cannot be started: {source}")]
    Start { name: String, source: io::Error },
    #[error("{name} cannot be signalled: {source}")]
    Signal { name: String, source: io::Error },
    #[error("{name} ended by itself: {status}")]
    Ended { name: String, status: ExitStatus },
    #[error("{name} was asked to leave and is still there after {LEAVE_WITHIN:?}")]
    Stays { name: String },
    #[error("{name} was asked to leave and failed: {status}")]
    LeftBadly { name: String, status: ExitStatus },
}

/// A process of the service. Its folder has the form of a component's node, so that the components'
/// `stop.sh` ends it too, however the run ends.
pub struct Role {
    pub name: String,
    pub listen: SocketAddr,
    pub admin: SocketAddr,
    pub lines: Lines,
    binary: PathBuf,
    role: &'static str,
    settings: Vec<(&'static str, String)>,
    folder: PathBuf,
    child: Option<Child>,
}

impl Role {
    pub fn new(
        place: Place<'_>,
        lines: Lines,
        mut settings: Vec<(&'static str, String)>,
    ) -> Result<Self, io::Error> {
        let folder = place.parts.join(&place.name);
        std::fs::create_dir_all(&folder)?;
        // Never run: a node is a folder with this file.
        std::fs::write(folder.join("run"), "#!/bin/sh\nexit 1\n")?;
        settings.extend([
            ("REEDI_LISTEN", place.listen.to_string()),
            ("REEDI_ADMIN_LISTEN", place.admin.to_string()),
            ("REEDI_NATS_URL", lines.urls.join(",")),
        ]);
        Ok(Self {
            name: place.name,
            listen: place.listen,
            admin: place.admin,
            lines,
            binary: place.binary.to_owned(),
            role: place.role,
            settings,
            folder,
            child: None,
        })
    }

    pub fn start(&mut self) -> Result<(), RoleError> {
        let name = self.name.clone();
        self.spawn().map_err(|source| RoleError::Start { name, source })
    }

    fn spawn(&mut self) -> io::Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(self.folder.join("log"))?;
        let child = Command::new(&self.binary)
            .arg(self.role)
            .env_clear()
            .envs(self.settings.iter().cloned())
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let pid = child.id().ok_or_else(|| io::Error::other("it ended at once"))?;
        self.child = Some(child);
        std::fs::write(self.folder.join("started"), started_at(pid)?)?;
        std::fs::write(self.folder.join("pid"), pid.to_string())
    }

    pub fn signal(&self, signal: Signal) -> Result<(), RoleError> {
        let failed = |source| RoleError::Signal { name: self.name.clone(), source };
        let pid = self.child.as_ref().and_then(Child::id).and_then(|id| Pid::from_raw(id.cast_signed()));
        let pid = pid.ok_or_else(|| failed(io::Error::other("it is not running")))?;
        kill_process(pid, signal).map_err(|error| failed(error.into()))
    }

    /// `kill -9`.
    pub async fn kill(&mut self) -> Result<(), RoleError> {
        self.signal(Signal::KILL)?;
        if let Some(mut child) = self.child.take() {
            let ended = child.wait().await;
            ended.map_err(|source| RoleError::Signal { name: self.name.clone(), source })?;
        }
        Ok(())
    }

    /// Asks it to leave, and waits until it has.
    pub async fn leave(&mut self) -> Result<(), RoleError> {
        self.signal(Signal::TERM)?;
        let Some(mut child) = self.child.take() else { return Ok(()) };
        match timeout(LEAVE_WITHIN, child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(RoleError::LeftBadly { name: self.name.clone(), status }),
            Ok(Err(source)) => Err(RoleError::Signal { name: self.name.clone(), source }),
            Err(_) => {
                self.child = Some(child);
                Err(RoleError::Stays { name: self.name.clone() })
            }
        }
    }

    /// Whether it runs as it should.
    pub fn check(&mut self) -> Result<(), RoleError> {
        match self.child.as_mut().and_then(|child| child.try_wait().ok()).flatten() {
            Some(status) => Err(RoleError::Ended { name: self.name.clone(), status }),
            None => Ok(()),
        }
    }

    /// `Err` says what it lacks.
    pub async fn ready(&self) -> Result<(), String> {
        is_ready(self.admin).await.map_err(|lacks| format!("{}: {lacks}", self.name))
    }

    pub fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// Writes a line of the run's own into the process's log, so that faults can be seen there.
    pub fn note(&self, text: &str) {
        use std::io::Write as _;
        let log = OpenOptions::new().append(true).open(self.log());
        // A note that cannot be written is missed by nobody.
        let _ = log.and_then(|mut log: File| writeln!(log, "--- chaos: {text}"));
    }
}

/// Where a process is.
pub struct Place<'a> {
    pub name: String,
    pub role: &'static str,
    pub listen: SocketAddr,
    pub admin: SocketAddr,
    pub binary: &'a Path,
    /// The folder of all nodes.
    pub parts: &'a Path,
}

/// The start time of a process as `/proc` counts it, by which `stop.sh` knows it from a later one with
/// the same id.
fn started_at(pid: u32) -> io::Result<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may have spaces: fields are counted after it.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    Ok(fields.split_whitespace().nth(19).unwrap_or_default().to_owned())
}
