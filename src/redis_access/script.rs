//! Scripts. A server is told a script's hash; only when it does not know it, the script.

use super::key::Key;
use redis::Cmd;

/// A script in Lua on one key, with numbers as arguments. Lua has them as doubles, exact up to 2^53.
pub struct Script {
    body: &'static str,
    hash: String,
}

impl Script {
    #[must_use]
    pub fn new(body: &'static str) -> Self {
        Self { body, hash: redis::Script::new(body).get_hash().to_owned() }
    }

    pub(super) fn by_hash(&self, key: &Key, args: &[u64]) -> Cmd {
        command("EVALSHA", &self.hash, key, args)
    }

    pub(super) fn by_body(&self, key: &Key, args: &[u64]) -> Cmd {
        command("EVAL", self.body, key, args)
    }
}

fn command(name: &str, script: &str, key: &Key, args: &[u64]) -> Cmd {
    let mut cmd = redis::cmd(name);
    cmd.arg(script).arg(1).arg(key).arg(args);
    cmd
}
