//! `/api/auth`: own accounts.

use super::Api;
use super::body::{Answer, Json};
use crate::edge::client_address::ClientAddress;
use crate::edge::refused::{Outcome, Refused};
use crate::people::People;
use crate::people::own::{LogInError, OwnPeople, SignUpError};
use crate::people::password::Password;
use crate::store::Store;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use reedi_protocol::command::{Login, SignUp};
use reedi_protocol::resource::Session;
use reedi_protocol::text::{Name, TextError, Username};
use reedi_protocol::{AccountId, ErrorCode};

/// A try to sign up or log in that was counted, before its body is read.
pub struct SignInTry;

impl FromRequestParts<Api> for SignInTry {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Refused> {
        let from = ClientAddress::in_extensions(&parts.extensions);
        api.edge.admission.sign_in(from, api.edge.clock.now()).await?;
        Ok(Self)
    }
}

/// Makes an account of its own.
///
/// Only where accounts are this service's own (`REEDI_ACCOUNTS=own`, as with `reedi dev`); elsewhere
/// this path is 404. Needs no token; answers with one. The user name is taken as lower case. Without
/// `displayName` the user name is shown. Tries are counted by address, those of an IPv6 /64 together.
#[utoipa::path(
    post,
    path = "/api/auth/signup",
    operation_id = "signUp",
    tag = "accounts",
    security(()),
    request_body = SignUp,
    responses((status = 201, description = "The account, and a token for it.", body = Session)),
)]
pub async fn sign_up(
    State(api): State<Api>,
    _: SignInTry,
    Json(command): Json<SignUp>,
) -> Outcome<Answer<Session>> {
    let username = Username::parse(&command.username).map_err(|e| Refused::invalid("/username", e))?;
    let password = Password::parse(command.password).map_err(|e| Refused::invalid("/password", e))?;
    let display_name = command.display_name.as_deref().map(Name::parse).transpose();
    let display_name = display_name.map_err(|_| Refused::invalid("/displayName", TextError::DisplayName))?;
    let now = api.edge.clock.now();
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

/// Gets a token for an account of its own.
///
/// Only where accounts are this service's own. Which of name and password is wrong is told neither in
/// the answer nor by the time it takes.
#[utoipa::path(
    post,
    path = "/api/auth/login",
    operation_id = "logIn",
    tag = "accounts",
    security(()),
    request_body = Login,
    responses((status = 200, description = "A new token; earlier ones stay valid until they expire.", body = Session)),
)]
pub async fn log_in(
    State(api): State<Api>,
    _: SignInTry,
    Json(command): Json<Login>,
) -> Outcome<Answer<Session>> {
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
