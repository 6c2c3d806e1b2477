//! Own accounts, people, settings and blocks.

use super::Rest;
use crate::credentials::{Password, Token};
use crate::error::RestError;
use reedi_protocol::command::{Login, SignUp};
use reedi_protocol::resource::{Profile, Profiles, Session, Settings};
use reedi_protocol::{AccountId, ErrorCode};
use reqwest::Method;

impl Rest {
    /// Makes an account, and calls as that account from now on.
    ///
    /// # Errors
    /// `username_taken`, `invalid_value`, or no answer.
    pub async fn sign_up(
        &self,
        username: &str,
        password: &Password,
        display_name: Option<&str>,
    ) -> Result<Session, RestError> {
        let body = SignUp {
            username: username.to_owned(),
            password: password.expose().to_owned(),
            display_name: display_name.map(str::to_owned),
        };
        let session: Session = self.at(Method::POST, &["api", "auth", "signup"]).body(&body).json().await?;
        self.set_token(Token::new(&session.token));
        Ok(session)
    }

    /// Gets a new token, and calls with it from now on.
    ///
    /// # Errors
    /// `wrong_credentials`, or no answer.
    pub async fn log_in(&self, username: &str, password: &Password) -> Result<Session, RestError> {
        let body = Login { username: username.to_owned(), password: password.expose().to_owned() };
        let session: Session = self.at(Method::POST, &["api", "auth", "login"]).body(&body).json().await?;
        self.set_token(Token::new(&session.token));
        Ok(session)
    }

    /// People whose user name or display name fits.
    ///
    /// # Errors
    /// Refused, or no answer.
    pub async fn people(&self, query: &str) -> Result<Vec<Profile>, RestError> {
        let call = self.at(Method::GET, &["api", "users"]).query(&[("query", query)]);
        Ok(call.json::<Profiles>().await?.users)
    }

    /// # Errors
    /// `not_found`, or no answer.
    pub async fn person(&self, account: AccountId) -> Result<Profile, RestError> {
        self.at(Method::GET, &["api", "users", &account.to_string()]).json().await
    }

    /// # Errors
    /// Refused, or no answer.
    pub async fn settings(&self) -> Result<Settings, RestError> {
        self.messages(Method::GET, &["settings"]).json().await
    }

    /// # Errors
    /// Refused, or no answer.
    pub async fn set_settings(&self, settings: &Settings) -> Result<(), RestError> {
        self.messages(Method::PUT, &["settings"]).body(settings).done().await
    }

    /// # Errors
    /// Refused, or no answer.
    pub async fn is_blocked(&self, account: AccountId) -> Result<bool, RestError> {
        match self.messages(Method::GET, &["blocks", &account.to_string()]).done().await {
            Ok(()) => Ok(true),
            Err(e) if e.code() == Some(ErrorCode::NotFound) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// # Errors
    /// Refused, or no answer.
    pub async fn block(&self, account: AccountId) -> Result<(), RestError> {
        self.messages(Method::PUT, &["blocks", &account.to_string()]).done().await
    }

    /// # Errors
    /// Refused, or no answer.
    pub async fn unblock(&self, account: AccountId) -> Result<(), RestError> {
        self.messages(Method::DELETE, &["blocks", &account.to_string()]).done().await
    }
}
