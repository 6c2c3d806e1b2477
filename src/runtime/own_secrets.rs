//! The secrets that `reedi dev` makes for itself where none are configured: files that only their
//! owner can read, in the data folder, made once.

use super::config::{SealKeys, SigningSecret, Value};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rand::Rng;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

const SIGNING_FILE: &str = "signing-secret";
const SEAL_FILE: &str = "seal-keys";
/// As long as the hash that signs, and as a key of AES-256.
const SECRET_BYTES: usize = 32;

#[derive(Debug, thiserror::Error)]
pub enum OwnSecretError {
    #[error("{}: {source}", .path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error(
        "{} is not there: give the folder of a server that has run (--data-dir), or its secret (--auth-hs256-secret)",
        .path.display()
    )]
    Absent { path: PathBuf },
    #[error("{} holds no such secret; it wants {accepted}", .path.display())]
    Content { path: PathBuf, accepted: String },
}

/// The secret that signs own accounts' tokens.
///
/// # Errors
/// The file cannot be made or read, or holds something else.
pub fn signing_secret(data_dir: &Path) -> Result<SigningSecret, OwnSecretError> {
    load_or_make(data_dir, SIGNING_FILE, || random_base64().to_string())
}

/// The secret that signs own accounts' tokens, of a server that has made it; makes none.
///
/// # Errors
/// There is none, the file cannot be read, or it holds something else.
pub fn existing_signing_secret(data_dir: &Path) -> Result<SigningSecret, OwnSecretError> {
    load(data_dir.join(SIGNING_FILE))
}

/// The key ring that seals content in the clear.
///
/// # Errors
/// The file cannot be made or read, or holds something else.
pub fn seal_keys(data_dir: &Path) -> Result<SealKeys, OwnSecretError> {
    load_or_make(data_dir, SEAL_FILE, || format!("dev-1:{}", *random_base64()))
}

fn random_base64() -> Zeroizing<String> {
    let bytes = Zeroizing::new(rand::rng().random::<[u8; SECRET_BYTES]>());
    Zeroizing::new(STANDARD.encode(*bytes))
}

fn load_or_make<T: Value>(
    dir: &Path,
    name: &str,
    make: impl FnOnce() -> String,
) -> Result<T, OwnSecretError> {
    let path = dir.join(name);
    if let Err(error) = std::fs::metadata(&path)
        && error.kind() == ErrorKind::NotFound
    {
        let placed = place(dir, &path, &Zeroizing::new(make()));
        placed.map_err(|source| OwnSecretError::File { path: path.clone(), source })?;
    }
    load(path)
}

fn load<T: Value>(path: PathBuf) -> Result<T, OwnSecretError> {
    let text = match read_private(&path) {
        Ok(text) => Zeroizing::new(text),
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(OwnSecretError::Absent { path }),
        Err(source) => return Err(OwnSecretError::File { path, source }),
    };
    T::parse(text.trim()).ok_or_else(|| OwnSecretError::Content { path, accepted: T::accepted() })
}

/// Reads it, after taking from others the right to.
fn read_private(path: &Path) -> std::io::Result<String> {
    let file = File::open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(PermissionsExt::from_mode(0o600))?;
    }
    std::io::read_to_string(file)
}

/// Puts it there whole or not at all, and never over one that somebody else has just put there.
fn place(dir: &Path, path: &Path, text: &str) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let draft = path.with_extension(format!("{:016x}", rand::rng().random::<u64>()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    let linked = written.and_then(|()| std::fs::hard_link(&draft, path));
    std::fs::remove_file(&draft)?;
    match linked {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(()) => File::open(dir)?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            Self(std::env::temp_dir().join(format!("reedi-{name}-{:016x}", rand::rng().random::<u64>())))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_secret_is_made_once_and_for_its_owner_alone() {
        let folder = Folder::new("own-secrets");
        let secret = signing_secret(&folder.0).unwrap();
        assert!(!secret.is_short());
        let path = folder.0.join(SIGNING_FILE);
        let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o600);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        assert_eq!(signing_secret(&folder.0).unwrap(), secret);
        assert_eq!(mode(), 0o600);
        let keys = seal_keys(&folder.0).unwrap();
        assert_eq!(seal_keys(&folder.0).unwrap(), keys);
        assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 2, "no draft is left");
    }

    #[test]
    fn who_only_looks_for_a_secret_makes_none() {
        let folder = Folder::new("own-secrets-looked-for");
        let error = existing_signing_secret(&folder.0).unwrap_err();
        assert!(error.to_string().contains("signing-secret is not there: give the folder"), "{error}");
        assert!(!folder.0.exists());
        let made = signing_secret(&folder.0).unwrap();
        assert_eq!(existing_signing_secret(&folder.0).unwrap(), made);
    }

    #[test]
    fn all_who_start_at_once_get_the_same() {
        let folder = Folder::new("own-secrets-race");
        let made: Vec<_> = std::thread::scope(|scope| {
            let all: Vec<_> = (0..8).map(|_| scope.spawn(|| signing_secret(&folder.0).unwrap())).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert!(made.iter().all(|secret| *secret == made[0]));
    }

    #[test]
    fn what_is_no_secret_is_told_and_not_replaced() {
        let folder = Folder::new("own-secrets-empty");
        std::fs::create_dir_all(&folder.0).unwrap();
        std::fs::write(folder.0.join(SEAL_FILE), "").unwrap();
        let error = seal_keys(&folder.0).unwrap_err();
        assert!(error.to_string().contains("seal-keys holds no such secret"), "{error}");
    }
}
