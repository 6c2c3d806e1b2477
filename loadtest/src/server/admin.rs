//! What a process says of itself on its admin listener.

use std::io::{Error, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long `/metrics` may take. Under load it waits for a core like everything else.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

/// The value of a gauge without labels on `/metrics` at `admin`.
pub async fn gauge(admin: SocketAddr, name: &str) -> std::io::Result<u64> {
    let page = tokio::time::timeout(ANSWERED_WITHIN, metrics(admin)).await;
    let page = page.map_err(|_| Error::from(ErrorKind::TimedOut))??;
    value(&page, name).ok_or_else(|| Error::new(ErrorKind::InvalidData, format!("no {name}")))
}

async fn metrics(admin: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(admin).await?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
    let mut page = String::new();
    stream.read_to_string(&mut page).await?;
    Ok(page)
}

fn value(page: &str, name: &str) -> Option<u64> {
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_is_found_among_others() {
        let page = "HTTP/1.1 200 OK\r\n\r\n# HELP reedi_ready 7 of them\n# TYPE reedi_ready gauge\n\
                    reedi_ready_not 3\nreedi_ready 1\n# EOF\n";
        assert_eq!(value(page, "reedi_ready"), Some(1));
        assert_eq!(value(page, "reedi_connections"), None);
    }
}
