//! `reedi token`: a token for a test, signed as the server with this configuration expects it.

use clap::ArgMatches;
use reedi::edge::authenticate::Signer;
use reedi::runtime::clock::LogClock;
use reedi::runtime::own_secrets;
use reedi_protocol::{AccountId, DeviceId};

pub fn run(matches: &ArgMatches) -> Result<(), String> {
    let mut auth = super::effective(matches)?.config.auth;
    if auth.hs256_secret.is_none() {
        if auth.jwks_url.is_some() {
            return Err(
                "tokens are signed by whoever stands behind REEDI_AUTH_JWKS_URL: get one there".into()
            );
        }
        let folder = super::effective(matches)?.config.process.data_dir;
        auth.hs256_secret = Some(own_secrets::existing_signing_secret(&folder).map_err(|e| e.to_string())?);
    }
    let signer = Signer::new(&auth, LogClock::from_system()).ok_or("there is no secret to sign with")?;
    let account =
        matches.get_one::<uuid::Uuid>("sub").copied().map(AccountId::new).ok_or("--sub is needed")?;
    let device =
        matches.get_one::<u8>("device").copied().map(DeviceId::new).transpose().map_err(|e| e.to_string())?;
    let (token, _) = signer.sign(account, device).map_err(|e| e.to_string())?;
    println!("{token}");
    Ok(())
}
