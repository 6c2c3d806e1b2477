//! Bytes of clients that speak no WebSocket, or one of their own.

use super::tests::{frame, ours, reference, said};
use crate::fuzz::{Edit, edited};
use futures_util::FutureExt;

const FIN: u8 = 0x80;

/// However a stream is cut, it says the same; and the same as another implementation hears in it.
#[test]
fn frames_of_a_web_socket() {
    let good = [
        frame(FIN | 1, br#"{"event":"typing_start"}"#),
        frame(1, "half é".as_bytes()),
        frame(FIN | 9, b"ping"),
        frame(FIN, "and half 😀".as_bytes()),
        frame(FIN | 1, &[b'x'; 200]),
    ]
    .concat();
    let words: &[&[u8]] = &[
        &[FIN | 1, 0xfe],
        &[FIN | 1, 0xff, 0, 0],
        &[FIN | 8, 0x82],
        &[FIN | 10, 0x80, 0, 0, 0, 0],
        &[0xff; 8],
    ];
    bolero::check!().with_type::<(Vec<Edit>, u8)>().for_each(|(edits, step)| {
        let bytes = edited(&good, edits, words);
        let step = usize::from(*step).max(1);
        assert_eq!(said(&bytes, step), said(&bytes, usize::MAX));
        let (theirs, ended) = reference(&bytes).now_or_never().expect("all of it is there");
        let (ours, we_ended) = ours(&bytes, step);
        assert_eq!(ours, theirs);
        // A frame that is wrong may be refused before all of it has come.
        assert!(we_ended || !ended);
    });
}
