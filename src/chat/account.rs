//! Who the user is: an account is made when the name is new, and its password remembered.

use super::ChatError;
use rand::Rng;
use rand::distr::Alphanumeric;
use reedi_client::{Password, Rest, RestError, Token};
use reedi_protocol::ErrorCode;
use reedi_protocol::resource::Session;
use reedi_protocol::text::Username;
use serde::{Deserialize, Serialize};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Characters of a password that nobody has to type: 24 of 62 are 142 bits.
const PASSWORD_CHARS: usize = 24;

pub(super) struct SignedIn {
    pub(super) token: Token,
    pub(super) password: Password,
    pub(super) is_new: bool,
}

#[derive(Serialize, Deserialize)]
struct Remembered {
    server: String,
    username: String,
    password: String,
}

/// Logs in with the password that is given or remembered; makes the account where there is none.
pub(super) async fn sign_in(
    rest: &Rest,
    username: &Username,
    display_name: &str,
    given: Option<Password>,
    folder: &Path,
) -> Result<SignedIn, ChatError> {
    let file = remembered_file(rest, folder);
    let known = match given {
        Some(password) => Some(password),
        None => remembered(&file)?,
    };
    let name = username.as_str();
    if let Some(password) = &known {
        match rest.log_in(name, password).await {
            Ok(session) => return finish(rest, &file, name, password.clone(), &session, false),
            // The name may be new: the server does not tell.
            Err(e) if e.code() == Some(ErrorCode::WrongCredentials) => {}
            Err(e) => return Err(e.into()),
        }
    }
    let password = known.clone().unwrap_or_else(make_password);
    match rest.sign_up(name, &password, Some(display_name)).await {
        Ok(session) => finish(rest, &file, name, password, &session, true),
        Err(e) => Err(sign_up_failed(e, name, known.is_some())),
    }
}

fn sign_up_failed(error: RestError, name: &str, had_password: bool) -> ChatError {
    match error.code() {
        Some(ErrorCode::UsernameTaken) if had_password => ChatError::WrongPassword { name: name.to_owned() },
        Some(ErrorCode::UsernameTaken) => ChatError::NameTaken { name: name.to_owned() },
        _ => error.into(),
    }
}

fn finish(
    rest: &Rest,
    file: &Path,
    name: &str,
    password: Password,
    session: &Session,
    is_new: bool,
) -> Result<SignedIn, ChatError> {
    remember(rest, file, name, &password)
        .map_err(|source| ChatError::State { path: file.to_owned(), source })?;
    Ok(SignedIn { token: Token::new(&session.token), password, is_new })
}

fn make_password() -> Password {
    let text: String = rand::rng().sample_iter(Alphanumeric).take(PASSWORD_CHARS).map(char::from).collect();
    Password::new(&text)
}

/// One file per server: the same name may be somebody else's there.
fn remembered_file(rest: &Rest, folder: &Path) -> PathBuf {
    let url = rest.endpoint().as_url();
    let host = url.host_str().unwrap_or("server").replace([':', '[', ']'], "_");
    folder.join(format!("account-{host}-{}.json", url.port_or_known_default().unwrap_or(80)))
}

fn remembered(file: &Path) -> Result<Option<Password>, ChatError> {
    let failed = |source| ChatError::State { path: file.to_owned(), source };
    match std::fs::read(file) {
        Ok(bytes) => {
            let remembered: Remembered = serde_json::from_slice(&bytes).map_err(|e| failed(e.into()))?;
            Ok(Some(Password::new(&remembered.password)))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed(e)),
    }
}

fn remember(rest: &Rest, file: &Path, name: &str, password: &Password) -> std::io::Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let beside = file.with_extension("new");
    // Made anew, so that it cannot keep wider permissions of an earlier one.
    match std::fs::remove_file(&beside) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.create_new(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let remembered = Remembered {
        server: rest.endpoint().to_string(),
        username: name.to_owned(),
        password: password.expose().to_owned(),
    };
    options.open(&beside)?.write_all(&serde_json::to_vec_pretty(&remembered)?)?;
    std::fs::rename(&beside, file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use reedi_client::{Endpoint, RestOptions};

    #[test]
    fn a_password_is_remembered_for_its_owner_alone() {
        let folder = std::env::temp_dir().join(format!("reedi-chat-{}-account", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let rest = Rest::new(Endpoint::parse("http://[::1]:81").unwrap(), RestOptions::default()).unwrap();
        let file = remembered_file(&rest, &folder);
        assert_eq!(remembered(&file).unwrap(), None);
        let password = make_password();
        assert_eq!(password.expose().len(), PASSWORD_CHARS);
        for _ in 0..2 {
            remember(&rest, &file, "alice", &password).unwrap();
        }
        assert_eq!(remembered(&file).unwrap(), Some(password));
        #[cfg(unix)]
        {
            let mode = std::os::unix::fs::PermissionsExt::mode(&file.metadata().unwrap().permissions());
            assert_eq!(mode & 0o777, 0o600);
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
