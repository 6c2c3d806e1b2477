//! `direct`: one-to-one messages at fixed rates, up to the knee.

use super::{check_history, pair_up};
use crate::checker::Verdict;
use crate::client::{self, Failure, FrameMaker};
use crate::pace::Pace;
use crate::server::Server;
use crate::traffic::{Sender, Step, Traffic};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

/// Conversations whose whole history is compared with what was acknowledged.
const HISTORIES: usize = 10;

/// What is asked of the server.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Two connections each.
    pub pairs: usize,
    /// Messages a second, one step each.
    pub rates: Vec<f64>,
    pub warm_up: Duration,
    pub measure: Duration,
    pub content_bytes: usize,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    pub connections: usize,
    pub content_bytes: usize,
    pub steps: Vec<Step>,
    /// The highest rate that the server kept up with.
    pub knee: Option<f64>,
    pub verdict: Verdict,
    pub histories: Vec<Verdict>,
}

impl Outcome {
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.verdict.is_clean() && self.histories.iter().all(Verdict::is_clean)
    }
}

/// Runs it.
///
/// # Errors
/// It could not be set up.
pub async fn run(server: &Server, plan: &Plan) -> Result<Outcome, Failure> {
    let people = client::people(2 * plan.pairs, &server.secret)?;
    let conversations = pair_up(server, &people).await?;
    let paces: Vec<Pace> = plan
        .rates
        .iter()
        .map(|rate| Pace { rate: *rate, warm_up: plan.warm_up, measure: plan.measure })
        .collect();
    let traffic = Traffic::new(paces.iter().map(Pace::messages).sum(), 2)?;
    let connections =
        client::connect(server, &people, |i| traffic.session(i, &people[i], conversations[i / 2]));
    let connections = Arc::new(connections.await?);
    let sender = |connection: usize| Sender {
        connection,
        frames: FrameMaker::new(conversations[connection / 2], plan.content_bytes),
    };
    let senders: Arc<Vec<Sender>> = Arc::new((0..connections.len()).map(sender).collect());
    let (mut steps, mut first) = (Vec::<Step>::new(), 0);
    for pace in paces {
        let step = traffic.step(server, &connections, &senders, pace, first).await?;
        first += pace.messages();
        let kept_up = step.kept_up;
        eprintln!("  {}", crate::report::step_line(&step));
        steps.push(step);
        if !kept_up {
            break;
        }
    }
    let verdict = traffic.verdict(&connections);
    let mut histories = Vec::new();
    for (pair, conversation) in conversations.iter().enumerate().take(HISTORIES) {
        let acknowledged = traffic.checker.acknowledged_in(*conversation);
        histories.push(check_history(server, &people[2 * pair + 1], *conversation, &acknowledged).await?);
    }
    let knee = steps.iter().filter(|step| step.kept_up).map(|step| step.rate).next_back();
    Ok(Outcome {
        connections: connections.len(),
        content_bytes: plan.content_bytes,
        steps,
        knee,
        verdict,
        histories,
    })
}
