//! The built program, as processes of their own.

use parking_lot::Mutex;
use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Long enough for a machine that does much else, and a program without optimization.
pub const WITHIN: Duration = Duration::from_secs(60);
/// Between two looks at what is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A new folder, removed at the end.
pub struct Folder(PathBuf);

impl Folder {
    pub fn made() -> Self {
        let path = std::env::temp_dir().join(format!("reedi-process-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&path).expect("a folder of our own");
        Self(path)
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A process that does not outlive its test: dropped, it is killed and gone.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended by itself cannot be killed, and need not.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The program, with nothing set that the test does not set.
pub fn reedi() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reedi"));
    without_settings(&mut command);
    command
}

/// Keeps the settings of whoever runs the tests from a command.
pub fn without_settings(command: &mut Command) {
    command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
}

/// What processes write, as it comes.
#[derive(Clone, Default)]
pub struct Written(Arc<Mutex<Vec<u8>>>);

impl Written {
    /// Reads to the end, in a thread: who is not read from would stand still.
    pub fn read(&self, mut from: impl Read + Send + 'static) {
        let kept = Arc::clone(&self.0);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // A terminal that nobody has open any more reads as an error.
            while let Ok(count @ 1..) = from.read(&mut bytes) {
                kept.lock().extend_from_slice(&bytes[..count]);
            }
        });
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock()).into_owned()
    }
}

/// Waits until something is `done`, or fails with what is `shown`.
pub fn until(what: &str, mut done: impl FnMut() -> bool, shown: impl Fn() -> String) {
    let deadline = Instant::now() + WITHIN;
    while !done() {
        assert!(Instant::now() < deadline, "{what}: not within {WITHIN:?}; there is\n{}", shown());
        std::thread::sleep(LOOK_EVERY);
    }
}

/// `reedi dev`. Dropped, it is killed as `kill -9` would.
pub struct Server {
    pub address: SocketAddr,
    /// What it says on its first screen.
    pub told: String,
    _running: Running,
}

impl Server {
    /// Starts one on `listen` with its data in `folder`, and waits until it serves.
    pub fn start(folder: &Path, listen: &str) -> Self {
        // Beside the data, so that it is read only where something fails.
        let log = folder.with_extension("log");
        let to_log = File::options().create(true).append(true).open(&log).expect("a log");
        let mut command = reedi();
        command.args(["dev", "--listen", listen, "--admin-listen", "127.0.0.1:0", "--data-dir"]).arg(folder);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(to_log);
        let mut running = Running(command.spawn().expect("the program starts"));
        let written = Written::default();
        written.read(running.0.stdout.take().expect("it is a pipe"));
        let shown = || format!("{}\n{}", written.text(), std::fs::read_to_string(&log).unwrap_or_default());
        let serves = || {
            let ended = running.0.try_wait().expect("its state can be asked");
            assert!(ended.is_none(), "reedi dev ended ({ended:?}):\n{}", shown());
            written.text().contains("Stop with Ctrl-C.\n")
        };
        until("reedi dev starts", serves, shown);
        let told = written.text();
        let address = told.split("listens on http://").nth(1).and_then(|rest| rest.split(',').next());
        let address = address.and_then(|address| address.parse().ok()).expect("it says where it listens");
        Self { address, told, _running: running }
    }
}
