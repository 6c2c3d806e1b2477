//! Looks through everything that was written to disk: no process may have panicked, and nothing that is
//! a person's own or a secret may stand in a log or in a component's data (invariant
//! `content_stays_private`).

use crate::cluster::Cluster;
use std::io;
use std::path::Path;
use tokio::process::Command;

/// Begins every token: `{"` in base64, and the word after it.
const TOKEN: &str = "eyJ0eXAi";
const PANIC: &str = "panicked at";

/// Gives what was found, one line each. `parts` is the folder of all nodes.
pub async fn run(cluster: &Cluster, mark: &str, parts: &Path) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for role in &cluster.roles {
        for line in lines_with(PANIC, &role.log()).await? {
            found.push(format!("{} panicked: {line}", role.name));
        }
    }
    let secrets = &cluster.secrets;
    let forbidden = [
        ("the text of a message", mark),
        ("the secret that signs tokens", &secrets.token_secret),
        ("the key that seals content", &secrets.seal_key),
        ("a password", &secrets.password),
        ("a token", TOKEN),
    ];
    // What finds nothing must be able to find: a file that has it all.
    let control = parts.join("control");
    std::fs::write(&control, forbidden.map(|(_, text)| text).join("\n"))?;
    for (what, text) in forbidden {
        let files = files_with(text, parts).await?;
        if !files.iter().any(|file| Path::new(file) == control) {
            return Err(io::Error::other(format!("the search for {what} does not work")));
        }
        let others = files.iter().filter(|file| Path::new(file) != control);
        found.extend(others.map(|file| format!("{what} stands in {file}")));
    }
    std::fs::remove_file(control)?;
    Ok(found)
}

async fn files_with(text: &str, folder: &Path) -> io::Result<Vec<String>> {
    grep(&["-r", "-a", "-l", "-F", "-e", text, "--"], folder).await
}

async fn lines_with(text: &str, file: &Path) -> io::Result<Vec<String>> {
    grep(&["-a", "-F", "-e", text, "--"], file).await
}

async fn grep(arguments: &[&str], place: &Path) -> io::Result<Vec<String>> {
    let output = Command::new("grep").args(arguments).arg(place).output().await?;
    // 1: nothing found; 2: a file went away while it was looked for.
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().map(str::to_owned).collect())
}
