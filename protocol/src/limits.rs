//! Every limit of the contract, in one place. Where a number has no source named, it is the
//! contract's own choice.

/// Content of one message, in bytes of UTF-8.
pub const CONTENT_BYTES: usize = 65_536;
/// What a WebSocket takes before it is known whose it is, in bytes: a token and its frame.
pub const FIRST_FRAME_BYTES: usize = 16 * 1024;
/// A request body or a WebSocket frame, in bytes.
pub const FRAME_BYTES: usize = 256 * 1024;
/// A conversation's name, in characters.
pub const NAME_CHARS: usize = 255;
/// An avatar's URL, in characters.
pub const AVATAR_URL_CHARS: usize = 500;
/// A reaction, in bytes of UTF-8; one grapheme of emoji.
pub const REACTION_BYTES: usize = 64;
/// A client's own key for a message, in bytes of UTF-8.
pub const CLIENT_MESSAGE_ID_BYTES: usize = 255;
/// A page of a list, in entries: the default and the most.
pub const PAGE_DEFAULT: usize = 50;
pub const PAGE_MOST: usize = 100;
/// Distinct reactions kept per message, over all accounts.
pub const REACTIONS_PER_MESSAGE: usize = 200;
/// The unread count is exact up to this; one more stands for "more".
pub const UNREAD_EXACT: u32 = 99;
/// Objects and arrays within each other in a body or frame, before it is refused. serde_json itself
/// stops at 128; commands need four.
pub const JSON_DEPTH: usize = 32;
/// Shortest and longest life of a disappearing message, in seconds: an hour and a year.
pub const EXPIRES_AFTER_S: std::ops::RangeInclusive<u64> = 3_600..=31_536_000;
/// Conversations named in the cursors of one `resume`.
pub const RESUME_CURSORS: usize = 1_000;
/// A user name of an own account, in characters.
pub const USERNAME_CHARS: std::ops::RangeInclusive<usize> = 3..=32;
/// A password of an own account, in bytes. The lower bound is NIST SP 800-63B's.
pub const PASSWORD_BYTES: std::ops::RangeInclusive<usize> = 8..=256;
/// Time a socket may stay unauthenticated, in milliseconds.
pub const AUTHENTICATE_WITHIN_MS: u64 = 10_000;
