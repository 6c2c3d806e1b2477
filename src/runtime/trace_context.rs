//! W3C Trace Context (the Recommendation of 2021, level 1): one request's way through edge, log,
//! delivery and writer under one id.

use super::random;
use rand::Rng;
use serde::{Serialize, Serializer};
use std::fmt;
use std::num::{NonZeroU64, NonZeroU128};
use std::str::FromStr;

/// The only flag of level 1: somebody upstream may have recorded the trace.
const SAMPLED: u8 = 1;
/// Length of a `traceparent` of version 00, and the least of any later one.
const LENGTH: usize = 55;

/// A `traceparent`: which trace something belongs to, and which step of it came before.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    trace_id: NonZeroU128,
    parent_id: NonZeroU64,
    sampled: bool,
}

tokio::task_local! {
    static CURRENT: TraceContext;
}

/// The text is no `traceparent`: start a new trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a traceparent")]
pub struct NotATraceparent;

/// A trace's id, as logs show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId(NonZeroU128);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl TraceContext {
    /// Begins a trace.
    #[must_use]
    pub fn start() -> Self {
        let mut random = random::rng();
        Self { trace_id: random.random(), parent_id: random.random(), sampled: true }
    }

    /// Goes on with what a request's header or a record says; begins a trace where it says nothing
    /// that can be read, as the Recommendation wants.
    #[must_use]
    pub fn from_header(header: Option<&str>) -> Self {
        header.and_then(|text| text.parse().ok()).map_or_else(Self::start, |parent: Self| parent.child())
    }

    /// Does `work` under this trace.
    pub fn scope<F: Future>(self, work: F) -> impl Future<Output = F::Output> {
        CURRENT.scope(self, work)
    }

    /// The trace that the caller works under; a new one where it works under none.
    #[must_use]
    pub fn current() -> Self {
        CURRENT.try_get().unwrap_or_else(|_| Self::start())
    }

    /// The next step of the same trace.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { parent_id: random::rng().random(), ..*self }
    }

    #[must_use]
    pub fn trace_id(&self) -> TraceId {
        TraceId(self.trace_id)
    }

    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.sampled
    }

    /// As it is written. By hand, since every record carries one, and `format!` was 1 % of all samples.
    #[must_use]
    pub fn text(&self) -> [u8; LENGTH] {
        let mut text = [b'-'; LENGTH];
        digits(0, &mut text[..2]);
        digits(self.trace_id.get(), &mut text[3..35]);
        digits(self.parent_id.get().into(), &mut text[36..52]);
        digits((u8::from(self.sampled) * SAMPLED).into(), &mut text[53..]);
        text
    }
}

/// The trace of a record, as a field of a log line.
#[must_use]
pub fn trace_id_of(traceparent: Option<TraceContext>) -> Option<tracing::field::DisplayValue<TraceId>> {
    traceparent.map(|trace| tracing::field::display(trace.trace_id()))
}

/// The number that `text` writes in lower-case hexadecimal digits, and nothing else.
fn hexadecimal(text: &str) -> Option<u128> {
    let clean = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    clean.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

fn parse(text: &str) -> Option<TraceContext> {
    let version = hexadecimal(text.get(..2)?)?;
    let known = text.get(..LENGTH)?;
    // A later version may have more, after another dash; of it, what level 1 knows is read.
    let rest = &text[LENGTH..];
    let fits = match version {
        0 => rest.is_empty(),
        0xff => false,
        _ => rest.is_empty() || rest.starts_with('-'),
    };
    let dashes = [2, 35, 52].iter().all(|&at| known.as_bytes()[at] == b'-');
    if !fits || !dashes {
        return None;
    }
    let parent_id = u64::try_from(hexadecimal(known.get(36..52)?)?).ok()?;
    let flags = u8::try_from(hexadecimal(known.get(53..55)?)?).ok()?;
    Some(TraceContext {
        trace_id: NonZeroU128::new(hexadecimal(known.get(3..35)?)?)?,
        parent_id: NonZeroU64::new(parent_id)?,
        sampled: flags & SAMPLED != 0,
    })
}

impl FromStr for TraceContext {
    type Err = NotATraceparent;

    fn from_str(text: &str) -> Result<Self, NotATraceparent> {
        parse(text).ok_or(NotATraceparent)
    }
}

impl TraceContext {
    /// `None` where the bytes are no `traceparent`.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        std::str::from_utf8(bytes).ok().and_then(parse)
    }
}

/// As text, whatever the format: what is on the wire between versions does not hang on the fields.
impl Serialize for TraceContext {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.text()).unwrap_or_default())
    }
}

/// The lower-case hexadecimal digits of `number`, as many as there is room for.
fn digits(mut number: u128, into: &mut [u8]) {
    for digit in into.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 0xf) as usize];
        number >>= 4;
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The example of the Recommendation, section 3.2.2.
    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    proptest! {
        #[test]
        fn what_is_written_is_read_again(trace in 1u128.., parent in 1u64.., sampled: bool) {
            let context = TraceContext {
                trace_id: NonZeroU128::new(trace).unwrap(), parent_id: NonZeroU64::new(parent).unwrap(), sampled,
            };
            let text = context.to_string();
            prop_assert_eq!(text.len(), LENGTH);
            prop_assert_eq!(text.parse(), Ok(context));
        }

        #[test]
        fn any_text_is_read_or_refused(text: String) {
            if let Ok(context) = text.parse::<TraceContext>() {
                prop_assert_eq!(&context.to_string()[3..52], &text[3..52]);
            }
        }

        #[test]
        fn one_character_changed_is_read_as_it_stands_or_refused(at in 0..LENGTH, to in any::<char>()) {
            let text: String = EXAMPLE.chars().enumerate().map(|(i, c)| if i == at { to } else { c }).collect();
            match text.parse::<TraceContext>() {
                Ok(context) => prop_assert_eq!(&context.to_string()[3..52], &text[3..52]),
                Err(NotATraceparent) => prop_assert_ne!(text, EXAMPLE),
            }
        }

        #[test]
        fn only_the_sampled_flag_goes_on(flags: u8) {
            let text = format!("{}{flags:02x}", &EXAMPLE[..53]);
            let context: TraceContext = text.parse().unwrap();
            prop_assert_eq!(context.is_sampled(), flags & 1 == 1);
            prop_assert_eq!(context.to_string(), format!("{}{:02x}", &EXAMPLE[..53], flags & 1));
        }
    }

    #[test]
    fn what_the_recommendation_forbids_is_refused() {
        for bad in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01more",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            " 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(bad.parse::<TraceContext>(), Err(NotATraceparent), "{bad}");
        }
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        let context: TraceContext =
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-the-future-has".parse().unwrap();
        assert_eq!(context.to_string(), EXAMPLE);
    }

    #[test]
    fn a_child_stays_in_the_trace_and_the_unreadable_begins_one() {
        let parent: TraceContext = EXAMPLE.parse().unwrap();
        let child = TraceContext::from_header(Some(EXAMPLE));
        assert_eq!(child.trace_id(), parent.trace_id());
        assert_eq!(child.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_ne!(child, parent);
        assert_ne!(
            TraceContext::from_header(Some("x")).trace_id(),
            TraceContext::from_header(None).trace_id()
        );
    }
}
