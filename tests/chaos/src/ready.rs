//! Asks a process whether it is ready.

use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// As long as a probe of Kubernetes waits by default.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// `Err` says what is missing.
pub async fn is_ready(admin: SocketAddr) -> Result<(), String> {
    let answer = timeout(ANSWER_WITHIN, get(admin, "/readyz")).await.map_err(|_| "no answer in 1 s")?;
    let answer = answer.map_err(|error| error.to_string())?;
    if answer.starts_with("HTTP/1.1 200") {
        return Ok(());
    }
    Err(answer.split_once("\r\n\r\n").map_or(answer.as_str(), |(_, body)| body).to_owned())
}

async fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
