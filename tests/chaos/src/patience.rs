//! Calls that a person would repeat: until they succeed, are refused for good, or take too long.

use reedi_client::RestError;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Between tries.
const AGAIN_AFTER: Duration = Duration::from_millis(300);

/// Repeats `call` while its failure may pass.
pub async fn patiently<T, F: Future<Output = Result<T, RestError>>>(
    within: Duration,
    mut call: impl FnMut() -> F,
) -> Result<T, RestError> {
    let until = Instant::now() + within;
    loop {
        match call().await {
            Err(error) if error.is_retryable() && Instant::now() < until => sleep(AGAIN_AFTER).await,
            answer => return answer,
        }
    }
}
