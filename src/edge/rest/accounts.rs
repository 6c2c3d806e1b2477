//! `/api/auth`: own accounts.

use super::Api;
use super::body::{Answer, Json};
use crate::edge::refused::{Outcome, Refused};
use crate::people::People;
use crate::people::own::{LogInError, OwnPeople, SignUpError};
use crate::people::password::Password;
use crate::store::Store;
use axum::extract::{ConnectInfo, State};
use reedi_protocol::command::{Login, SignUp};
use reedi_protocol::resource::Session;
use reedi_protocol::text::{Name, TextError, Username};
use reedi_protocol::{AccountId, ErrorCode};
use std::net::SocketAddr;

pub async fn sign_up(
    State(api): State<Api>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    Json(command): Json<SignUp>,
) -> Outcome<Answer<Session>> {
    let username = Username::parse(&command.username).map_err(|e| Refused::invalid("/username", e))?;
    let password = Password::parse(command.password).map_err(|e| Refused::invalid("/password", e))?;
    let display_name = command.display_name.as_deref().map(Name::parse).transpose();
    let display_name = display_name.map_err(|_| Refused::invalid("/displayName", TextError::DisplayName))?;
    let now = api.edge.clock.now();
    api.edge.admission.sign_in(from.ip(), now).await?;
    let account =
        own(&api)?.sign_up(username, password, display_name, now).await.map_err(|error| match error {
            SignUpError::Taken => {
                Refused::new(ErrorCode::UsernameTaken, "This user name is taken. Choose another.")
            }
            SignUpError::Store(error) => error.into(),
            SignUpError::Busy(error) => Refused::new(ErrorCode::Unavailable, error.to_string()),
        })?;
    Ok(Answer(201, session(&api, account)?))
}

pub async fn log_in(
    State(api): State<Api>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    Json(command): Json<Login>,
) -> Outcome<Answer<Session>> {
    api.edge.admission.sign_in(from.ip(), api.edge.clock.now()).await?;
    let account =
        own(&api)?.log_in(&command.username, command.password).await.map_err(|error| match error {
            LogInError::WrongCredentials => {
                Refused::new(ErrorCode::WrongCredentials, "Wrong user name or password.")
            }
            LogInError::Store(error) => error.into(),
            LogInError::Busy(error) => Refused::new(ErrorCode::Unavailable, error.to_string()),
        })?;
    Ok(Answer(200, session(&api, account)?))
}

fn own(api: &Api) -> Outcome<&OwnPeople<Store>> {
    match &api.edge.people {
        People::Own(own) => Ok(own),
        People::Platform(_) => Err(Refused::not_found()),
    }
}

fn session(api: &Api, account: AccountId) -> Outcome<Session> {
    let signer = api.signer.as_ref().ok_or_else(Refused::not_found)?;
    let (token, expires_at) = signer.sign(account, None)?;
    Ok(Session { user_id: account, token, expires_at })
}
