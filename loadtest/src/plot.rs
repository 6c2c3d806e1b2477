//! Line charts as SVG, written by hand: a few lines and some text need no library.

use std::fmt::Write as _;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 55.0;
/// Told apart also by those who see no red or no green (Okabe and Ito).
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
/// Ticks of a linear axis, about.
const TICKS: f64 = 6.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    Linear,
    Logarithmic,
}

pub struct Chart {
    pub title: String,
    pub x: (String, Scale),
    pub y: (String, Scale),
    pub lines: Vec<(String, Vec<(f64, f64)>)>,
}

struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
}

impl Axis {
    fn of(scale: Scale, values: impl Iterator<Item = f64>) -> Self {
        let usable = |v: &f64| v.is_finite() && (scale == Scale::Linear || *v > 0.0);
        let (low, high) = values
            .filter(usable)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
        let (low, high) = if low <= high { (low, high) } else { (1.0, 10.0) };
        match scale {
            Scale::Linear => {
                Self { scale, low: low.min(0.0), high: if high > 0.0 { high * 1.05 } else { 1.0 } }
            }
            Scale::Logarithmic => {
                let high = if high > low { high } else { low * 10.0 };
                Self { scale, low: 10f64.powf(low.log10().floor()), high: 10f64.powf(high.log10().ceil()) }
            }
        }
    }

    /// From 0 to 1.
    fn place(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Logarithmic => {
                (value.max(self.low).log10() - self.low.log10()) / (self.high.log10() - self.low.log10())
            }
        }
    }

    fn ticks(&self) -> Vec<f64> {
        if self.scale == Scale::Logarithmic {
            let (low, high) = (self.low.log10().round() as i32, self.high.log10().round() as i32);
            return (low..=high).map(|power| 10f64.powi(power)).collect();
        }
        let raw = (self.high - self.low) / TICKS;
        let power = 10f64.powf(raw.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= raw).unwrap_or(raw);
        let first = (self.low / step).ceil() as i64;
        (first..).map(|i| i as f64 * step).take_while(|v| *v <= self.high).collect()
    }
}

fn label(value: f64) -> String {
    match value.abs() {
        v if v >= 1e6 => format!("{}M", value / 1e6),
        v if v >= 1e3 => format!("{}k", value / 1e3),
        v if v >= 1.0 || v == 0.0 => format!("{}", (value * 100.0).round() / 100.0),
        _ => format!("{}", (value * 1e4).round() / 1e4),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

impl Chart {
    /// The picture, readable on a light and on a dark page.
    #[must_use]
    pub fn svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|(_, points)| points.iter().copied());
        let x = Axis::of(self.x.1, points().map(|(x, _)| x));
        let y = Axis::of(self.y.1, points().map(|(_, y)| y));
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        let px = |value: f64| LEFT + x.place(value) * (right - LEFT);
        let py = |value: f64| bottom - y.place(value) * (bottom - TOP);
        let mut out = String::new();
        // Writing to a String does not fail.
        let _ = writeln!(
            out,
            r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">
<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>
<text x="{LEFT}" y="22" font-size="15">{}</text>"##,
            escaped(&self.title)
        );
        for tick in x.ticks() {
            let (at, text) = (px(tick), label(tick));
            let _ = writeln!(
                out,
                r##"<line x1="{at:.1}" y1="{TOP}" x2="{at:.1}" y2="{bottom}" stroke="#e5e5e5"/><text x="{at:.1}" y="{}" text-anchor="middle">{text}</text>"##,
                bottom + 16.0
            );
        }
        for tick in y.ticks() {
            let (at, text) = (py(tick), label(tick));
            let _ = writeln!(
                out,
                r##"<line x1="{LEFT}" y1="{at:.1}" x2="{right}" y2="{at:.1}" stroke="#e5e5e5"/><text x="{}" y="{:.1}" text-anchor="end">{text}</text>"##,
                LEFT - 6.0,
                at + 4.0
            );
        }
        let _ = writeln!(
            out,
            r##"<text x="{}" y="{}" text-anchor="middle">{}</text><text transform="translate(16 {}) rotate(-90)" text-anchor="middle">{}</text>"##,
            f64::midpoint(LEFT, right),
            bottom + 40.0,
            escaped(&self.x.0),
            f64::midpoint(TOP, bottom),
            escaped(&self.y.0)
        );
        for (i, (name, points)) in self.lines.iter().enumerate() {
            let colour = COLOURS[i % COLOURS.len()];
            let places: Vec<String> =
                points.iter().map(|(x, y)| format!("{:.1},{:.1}", px(*x), py(*y))).collect();
            let _ = writeln!(
                out,
                r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2"/>"#,
                places.join(" ")
            );
            if points.len() <= 20 {
                let circles = points.iter().map(|(x, y)| circle(px(*x), py(*y), colour));
                out.extend(circles);
            }
            out.push_str(&legend(i, right, colour, name));
        }
        out.push_str("</svg>\n");
        out
    }
}

fn circle(x: f64, y: f64, colour: &str) -> String {
    format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>\n")
}

fn legend(line: usize, right: f64, colour: &str, name: &str) -> String {
    let row = TOP + 10.0 + 18.0 * line as f64;
    let (from, to, text, base) = (right + 12.0, right + 32.0, right + 38.0, row + 4.0);
    format!(
        "<line x1=\"{from}\" y1=\"{row}\" x2=\"{to}\" y2=\"{row}\" stroke=\"{colour}\" stroke-width=\"2\"/>\
         <text x=\"{text}\" y=\"{base}\">{}</text>\n",
        escaped(name)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_shows_its_points_within_its_frame() {
        let chart = Chart {
            title: "a < b".into(),
            x: ("rate".into(), Scale::Linear),
            y: ("ms".into(), Scale::Logarithmic),
            lines: vec![("p50".into(), vec![(500.0, 0.3), (20_000.0, 250.0)]), ("none".into(), Vec::new())],
        };
        let svg = chart.svg();
        assert!(
            svg.contains("a &lt; b")
                && svg.contains(">0.1<")
                && svg.contains(">1k<")
                && svg.contains(">20k<")
        );
        assert_eq!(svg.matches("<circle").count(), 2);
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn ticks_cover_an_axis() {
        let axis = Axis::of(Scale::Linear, [0.0, 97.0].into_iter());
        assert_eq!(axis.ticks(), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        let axis = Axis::of(Scale::Logarithmic, [0.3, 250.0].into_iter());
        assert_eq!(axis.ticks().len(), 5);
    }
}
