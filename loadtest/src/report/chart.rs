//! Outcomes as pictures.

use super::Outcome;
use crate::latency::Quantiles;
use crate::plot::{Chart, Scale};

type Line = (String, Vec<(f64, f64)>);

fn quantile_lines<'a>(points: impl Iterator<Item = (f64, &'a Quantiles)> + Clone) -> Vec<Line> {
    let line = |name: &str, of: fn(&Quantiles) -> f64| {
        (name.to_owned(), points.clone().map(|(x, quantiles)| (x, of(quantiles))).collect())
    };
    vec![line("p50", |q| q.p50_ms), line("p90", |q| q.p90_ms), line("p99", |q| q.p99_ms)]
}

/// The picture of one scenario.
#[must_use]
pub fn of(name: &str, outcome: &Outcome) -> Chart {
    let axis = |text: &str, scale| (text.to_owned(), scale);
    let chart = |title: &str, x, y, lines| Chart { title: format!("{name}: {title}"), x, y, lines };
    match outcome {
        Outcome::Direct(outcome) => chart(
            "send to delivered, from when it was due",
            axis("messages a second", Scale::Linear),
            axis("ms", Scale::Logarithmic),
            quantile_lines(outcome.steps.iter().map(|step| (step.rate, &step.to_delivered))),
        ),
        Outcome::Group(outcome) => chart(
            "send to delivered, from when it was due",
            axis("members of the group", Scale::Logarithmic),
            axis("ms", Scale::Logarithmic),
            quantile_lines(outcome.groups.iter().map(|g| (g.members as f64, &g.step.to_delivered))),
        ),
        Outcome::History(outcome) => chart(
            "a page of 50, from when it was due",
            axis("pages a second", Scale::Linear),
            axis("ms", Scale::Logarithmic),
            quantile_lines(outcome.steps.iter().map(|step| (step.rate, &step.latency))),
        ),
        Outcome::Idle(outcome) => {
            let points =
                outcome.growth.iter().map(|(sockets, bytes)| (*sockets as f64, *bytes as f64 / 1_048_576.0));
            chart(
                "memory as sockets connect",
                axis("sockets", Scale::Linear),
                axis("anonymous MiB", Scale::Linear),
                vec![("server".to_owned(), points.collect())],
            )
        }
        Outcome::Strangers(outcome) => chart(
            "sockets that do not say whose they are",
            axis("seconds after the first came", Scale::Linear),
            axis("sockets", Scale::Linear),
            vec![(
                "waiting".to_owned(),
                outcome.waiting.iter().map(|(at, count)| (*at, *count as f64)).collect(),
            )],
        ),
        Outcome::Storm(outcome) => {
            let points = outcome.resumed.iter().map(|(at, count)| (*at, *count as f64));
            chart(
                "clients that have resumed",
                axis("seconds after the first came back", Scale::Linear),
                axis("clients", Scale::Linear),
                vec![("resumed".to_owned(), points.collect())],
            )
        }
    }
}
