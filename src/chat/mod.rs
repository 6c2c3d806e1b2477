//! `reedi chat`: two people who try the thing, each in a terminal.

mod account;
mod command;
mod editor;
mod people;
mod talk;
mod terminal;
mod wording;

use reedi_client::{
    Client, ConnectError, Ended, Endpoint, NotAnEndpoint, Password, Rest, RestError, RestOptions,
};
use reedi_protocol::text::{TextError, Username};
use std::path::PathBuf;

/// The server of a chat that is told none: where `reedi dev` listens unless it is told otherwise.
pub const SERVER: &str = "http://127.0.0.1:8080";

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: `reedi chat --as alice` here and `reedi chat --as bob` in another terminal; then \
                        type `/to bob`, and what you want to say."
)]
pub struct ChatArgs {
    /// Your user name; an account is made when the name is new
    #[arg(long = "as", value_name = "NAME")]
    name: String,

    /// The server
    #[arg(long, value_name = "URL", default_value = SERVER)]
    server: String,

    /// The account's password; by default one is made, and remembered in the state folder
    #[arg(long)]
    password: Option<Password>,

    /// Where password, unsent messages and progress are kept, in a folder per name
    #[arg(long, value_name = "FOLDER", default_value = "./reedi-data/chat")]
    state: PathBuf,
}

/// Why the chat could not begin, or had to end. The texts are for people.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    #[error(transparent)]
    Server(#[from] NotAnEndpoint),
    #[error("{name:?} cannot be a user name: {source}")]
    Name { name: String, source: TextError },
    #[error("{}", wording::explain(.0))]
    Rest(#[from] RestError),
    #[error(
        "the name {name} is taken on this server: choose another one, or give its password with --password"
    )]
    NameTaken { name: String },
    #[error("this is not the password of {name} on this server")]
    WrongPassword { name: String },
    #[error("{path}: {source}")]
    State { path: PathBuf, source: std::io::Error },
    #[error(
        "another `reedi chat` of this name runs here already; two of one name need different --state folders"
    )]
    RunsAlready,
    #[error("{0}")]
    Connect(ConnectError),
    #[error("the terminal cannot be used: {0}")]
    Terminal(std::io::Error),
    #[error("{0}")]
    Ended(Ended),
}

impl From<ConnectError> for ChatError {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::LogIn(error) => Self::Rest(error),
            ConnectError::Outbox(reedi_client::JournalError::InUse { .. }) => Self::RunsAlready,
            error => Self::Connect(error),
        }
    }
}

/// Signs in, and talks until the user has enough.
///
/// # Errors
/// See [`ChatError`].
pub async fn run(args: ChatArgs) -> Result<(), ChatError> {
    let refused = |source| ChatError::Name { name: args.name.clone(), source };
    let username = Username::parse(&args.name).map_err(refused)?;
    let rest = Rest::new(Endpoint::parse(&args.server)?, RestOptions::default())?;
    let folder = args.state.join(username.as_str());
    let signed_in = account::sign_in(&rest, &username, &args.name, args.password, &folder).await?;
    let (client, updates) = Client::builder(&args.server)
        .rest(rest)
        .token(signed_in.token)
        .credentials(username.as_str(), signed_in.password.expose())
        .state_dir(Some(folder))
        .connect()
        .await?;
    let terminal = terminal::Terminal::open().map_err(ChatError::Terminal)?;
    talk::Talk::new(client, terminal, signed_in.is_new).run(updates).await
}
