//! One process that this load test started. It is ended by its id, also when the test fails.

use super::ServerError;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How often a process that starts or ends is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long a process may take to leave by itself before it is killed.
const LEAVE_WITHIN: Duration = Duration::from_secs(10);
/// What is shown of the log of a process that failed, in bytes.
const LOG_SHOWN: usize = 2_000;

pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program argument` with these settings and no others of ours.
    pub fn spawn(
        program: &Path,
        argument: &str,
        settings: &[(String, String)],
        log: &Path,
    ) -> Result<Self, ServerError> {
        let name = format!("{} {argument}", program.display());
        let file = std::fs::File::create(log).map_err(ServerError::io(log.display().to_string()))?;
        let again = file.try_clone().map_err(ServerError::io(log.display().to_string()))?;
        let mut command = Command::new(program);
        // What the shell around has set is not for this server.
        for (inherited, _) in std::env::vars().filter(|(name, _)| name.starts_with("REEDI_")) {
            command.env_remove(inherited);
        }
        command.arg(argument).envs(settings.iter().cloned());
        command.stdin(Stdio::null()).stdout(file).stderr(again);
        let child = command.spawn().map_err(ServerError::io(format!("{name} cannot be started")))?;
        Ok(Self { name, child, log: log.to_owned() })
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn has_ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    fn not_ready(&self, within: Duration) -> ServerError {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let shown = &log[log.len().saturating_sub(LOG_SHOWN)..];
        let log = String::from_utf8_lossy(shown).into_owned();
        ServerError::NotReady { what: self.name.clone(), within, log }
    }

    /// Waits until `/readyz` at `admin` says yes.
    pub async fn ready(&mut self, admin: SocketAddr, within: Duration) -> Result<(), ServerError> {
        let until = Instant::now() + within;
        while Instant::now() < until && self.has_ended().is_none() {
            if is_ready(admin) {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Err(self.not_ready(within))
    }

    /// Waits for the end of a process that ends by itself.
    pub async fn ended_well(mut self, within: Duration) -> Result<(), ServerError> {
        let until = Instant::now() + within;
        while Instant::now() < until {
            match self.has_ended() {
                Some(status) if status.success() => return Ok(()),
                Some(_) => break,
                None => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
        Err(self.not_ready(within))
    }

    /// Asks it to leave; kills it if it does not.
    pub async fn stop(mut self) {
        let asked = Command::new("kill").args(["-TERM", &self.pid().to_string()]).status();
        let until = Instant::now() + if asked.is_ok() { LEAVE_WITHIN } else { Duration::ZERO };
        while Instant::now() < until && self.has_ended().is_none() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.has_ended().is_none() {
            // It may have ended in between, which is what is wanted.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn is_ready(admin: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&admin, LOOK_EVERY)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok(&status == b"HTTP/1.1 200")
    };
    ask().unwrap_or(false)
}
