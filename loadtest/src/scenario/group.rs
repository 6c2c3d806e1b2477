//! `group`: one message to many.

use super::check_history;
use crate::checker::Verdict;
use crate::client::{self, Failure, FrameMaker};
use crate::pace::Pace;
use crate::server::Server;
use crate::traffic::{Sender, Step, Traffic};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Plan {
    /// Members of each group, one group and one step for each number.
    pub members: Vec<usize>,
    /// Deliveries a second that each step aims at: messages a second times members.
    pub deliveries_per_second: f64,
    pub warm_up: Duration,
    pub measure: Duration,
    pub content_bytes: usize,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    pub groups: Vec<Group>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    pub members: usize,
    pub step: Step,
    pub verdict: Verdict,
    pub history: Verdict,
}

impl Outcome {
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.groups.iter().all(|g| g.verdict.is_clean() && g.history.is_clean())
    }
}

/// Runs it: every member has one session, and a tenth of them send in turn.
///
/// # Errors
/// It could not be set up.
pub async fn run(server: &Server, plan: &Plan) -> Result<Outcome, Failure> {
    let mut groups = Vec::new();
    for members in &plan.members {
        groups.push(run_group(server, plan, (*members).max(2)).await?);
    }
    Ok(Outcome { groups })
}

async fn run_group(server: &Server, plan: &Plan, members: usize) -> Result<Group, Failure> {
    let people = client::people(members, &server.secret)?;
    let rest = client::rest(&server.edges[0])?.for_token(people[0].token.clone());
    let others: Vec<_> = people[1..].iter().map(|person| person.account).collect();
    let conversation = rest.create_group("load test", &others).await?.conversation_id;
    let rate = plan.deliveries_per_second / members as f64;
    let pace = Pace { rate, warm_up: plan.warm_up, measure: plan.measure };
    let traffic = Traffic::new(pace.messages(), members as u32)?;
    let connections = client::connect(server, &people, |i| traffic.session(i, &people[i], conversation));
    let connections = Arc::new(connections.await?);
    let frames = FrameMaker::new(conversation, plan.content_bytes);
    let senders = (0..members.div_ceil(10)).map(|i| Sender { connection: i * 10, frames: frames.clone() });
    let senders: Arc<Vec<Sender>> = Arc::new(senders.collect());
    let step = traffic.step(server, &connections, &senders, pace, 0).await?;
    eprintln!("  to {members:>4}: {}", crate::report::step_line(&step));
    let verdict = traffic.verdict(&connections);
    let acknowledged = traffic.checker.acknowledged_in(conversation);
    let history = check_history(server, &people[1], conversation, &acknowledged).await?;
    Ok(Group { members, step, verdict, history })
}
