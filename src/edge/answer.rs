//! What a command on a socket is answered with: serialized once, whatever front door it goes out by.

use super::refused::Refused;
use reedi_protocol::frame::{Answer as Parsed, Refusal};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

/// `{ok: true, ...}` or `{ok: false, error: {...}}`.
#[derive(Debug)]
pub struct Answer {
    text: Box<RawValue>,
    refusal: Option<Refusal>,
}

/// Fields of an answer that says nothing but that the command was done.
#[derive(Serialize)]
struct Nothing {}

#[derive(Serialize)]
struct Done<T> {
    ok: bool,
    #[serde(flatten)]
    fields: T,
}

/// What is answered has text keys and finite numbers, and so is JSON.
fn written(answer: &impl Serialize) -> Box<RawValue> {
    to_raw_value(answer).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

impl Answer {
    /// Done, with the fields of `value`, a struct or a map.
    #[must_use]
    pub fn with(value: impl Serialize) -> Self {
        Self { text: written(&Done { ok: true, fields: value }), refusal: None }
    }

    /// Done.
    #[must_use]
    pub fn done() -> Self {
        Self::with(Nothing {})
    }

    #[must_use]
    pub fn text(&self) -> &RawValue {
        &self.text
    }

    /// Why it was not done.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        self.refusal.as_ref()
    }
}

impl From<&Refused> for Answer {
    fn from(refused: &Refused) -> Self {
        let refusal = refused.refusal();
        let fields = serde_json::Map::new();
        let text = written(&Parsed { ok: false, fields, error: Some(refusal.clone()) });
        Self { text, refusal: Some(refusal) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reedi_protocol::ErrorCode;

    fn read(answer: &Answer) -> Parsed {
        serde_json::from_str(answer.text().get()).unwrap()
    }

    #[test]
    fn clients_read_what_is_written() {
        assert_eq!(Answer::done().text().get(), r#"{"ok":true}"#);
        let told = Answer::with(serde_json::json!({ "position": 7 }));
        assert_eq!(told.text().get(), r#"{"ok":true,"position":7}"#);
        let Parsed { ok, fields, error } = read(&told);
        assert_eq!((ok, fields.get("position"), error), (true, Some(&7.into()), None));
    }

    #[test]
    fn a_refusal_is_told_and_known() {
        let refused = Refused::invalid("/content", "too long");
        let answer = Answer::from(&refused);
        let Parsed { ok, fields, error } = read(&answer);
        assert_eq!((ok, fields.len(), error.as_ref()), (false, 0, answer.refusal()));
        let refusal = answer.refusal().unwrap();
        assert_eq!((refusal.code, refusal.pointer.as_deref()), (ErrorCode::InvalidValue, Some("/content")));
    }
}
