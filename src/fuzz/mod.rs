//! Fuzz targets: valid inputs with a few things changed, into everything that reads what others wrote.
//! They run with random inputs as tests, a second each; `tests/steps/20-fuzz.sh` runs them for longer, and
//! any of them runs under a fuzzing engine by `cargo bolero test`. Targets of what is private to a module
//! stand in a module `fuzz` there.

mod clients;
mod records;

/// What JSON gives meaning to, and what trips its readers.
pub const JSON: &[&[u8]] = &[
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"\\",
    b",",
    b":",
    b"null",
    b"true",
    b"-1",
    b"1e999",
    b"18446744073709551616",
    br"\ud800",
    br"\udc00",
    br"\u0000",
    b"\0",
    b"\xff",
    b"\xf0\x9f\x91\x8d",
    b"\xed\xa0\x80",
    b"{\"a\":",
    b"[[[[[[[[",
    b"\"event\":",
    b"\"data\":",
    b"\"ack\":",
    b"\"content\":",
    b" ",
    b"\n",
];

/// One change to an input: what to do, where, and with what.
pub type Edit = (u8, u16, u8);

/// `input` with `edits` done to it, one after another. `words` are what this kind of input gives meaning to.
pub fn edited(input: &[u8], edits: &[Edit], words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for (kind, at, value) in edits {
        let at = usize::from(*at) % (bytes.len() + 1);
        let until = (at + usize::from(*value)).min(bytes.len());
        match kind % 8 {
            0 => bytes.insert(at, *value),
            1 => drop(bytes.drain(at..until)),
            2 => bytes.truncate(at),
            3 => {
                let again = bytes[at..until].to_vec();
                bytes.splice(at..at, again);
            }
            4 => bytes[..at].rotate_left(at.min(usize::from(*value))),
            5 | 6 if !words.is_empty() => {
                let word = words[usize::from(*value) % words.len()];
                bytes.splice(at..at, word.iter().copied());
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= (*value).max(1);
                }
            }
        }
    }
    bytes
}
