//! The line being written, in a terminal that does not edit it itself. Pure.

use reedi_protocol::limits;
use unicode_segmentation::UnicodeSegmentation;

/// Earlier lines that the arrow keys bring back.
const EARLIER: usize = 100;

#[derive(Debug, Default)]
pub(super) struct Editor {
    text: String,
    /// In bytes, at the border of a grapheme.
    cursor: usize,
    earlier: Vec<String>,
    /// Which of them is shown; its length: none.
    shown: usize,
}

impl Editor {
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Inserts what was typed or pasted, as far as a message may be long.
    pub(super) fn insert(&mut self, typed: &str) {
        if self.text.len() + typed.len() > limits::CONTENT_BYTES {
            return;
        }
        self.text.insert_str(self.cursor, typed);
        self.cursor += typed.len();
        // What is typed may join what follows: a modifier after an emoji, for example.
        self.cursor = self.border_at_or_after(self.cursor);
    }

    pub(super) fn backspace(&mut self) {
        let from = self.before();
        self.text.replace_range(from..self.cursor, "");
        self.cursor = from;
    }

    pub(super) fn delete(&mut self) {
        let to = self.after();
        self.text.replace_range(self.cursor..to, "");
    }

    pub(super) fn delete_word(&mut self) {
        let kept = self.text[..self.cursor].trim_end();
        let from = kept
            .rfind(char::is_whitespace)
            .map_or(0, |at| at + kept[at..].chars().next().map_or(0, char::len_utf8));
        self.text.replace_range(from..self.cursor, "");
        self.cursor = from;
    }

    pub(super) fn delete_to_start(&mut self) {
        self.text.replace_range(..self.cursor, "");
        self.cursor = 0;
    }

    pub(super) fn left(&mut self) {
        self.cursor = self.before();
    }

    pub(super) fn right(&mut self) {
        self.cursor = self.after();
    }

    pub(super) const fn home(&mut self) {
        self.cursor = 0;
    }

    pub(super) const fn end(&mut self) {
        self.cursor = self.text.len();
    }

    pub(super) fn up(&mut self) {
        self.show(self.shown.saturating_sub(1));
    }

    pub(super) fn down(&mut self) {
        self.show((self.shown + 1).min(self.earlier.len()));
    }

    /// The line is finished.
    pub(super) fn take(&mut self) -> String {
        let line = std::mem::take(&mut self.text);
        self.cursor = 0;
        if !line.trim().is_empty() && self.earlier.last() != Some(&line) {
            self.earlier.push(line.clone());
            if self.earlier.len() > EARLIER {
                self.earlier.remove(0);
            }
        }
        self.shown = self.earlier.len();
        line
    }

    /// The part around the cursor that fits into `columns`, and the cursor's column within it.
    pub(super) fn view(&self, columns: usize) -> (String, usize) {
        let mut shown = Vec::new();
        let mut before = 0;
        for grapheme in self.text[..self.cursor].graphemes(true).rev() {
            if before + width(grapheme) >= columns {
                break;
            }
            before += width(grapheme);
            shown.push(visible(grapheme));
        }
        shown.reverse();
        let mut all = before;
        for grapheme in self.text[self.cursor..].graphemes(true) {
            all += width(grapheme);
            if all >= columns {
                break;
            }
            shown.push(visible(grapheme));
        }
        (shown.concat(), before)
    }

    fn show(&mut self, index: usize) {
        if index != self.shown {
            self.shown = index;
            self.text = self.earlier.get(index).cloned().unwrap_or_default();
            self.cursor = self.text.len();
        }
    }

    fn before(&self) -> usize {
        self.text[..self.cursor].grapheme_indices(true).next_back().map_or(0, |(at, _)| at)
    }

    fn after(&self) -> usize {
        self.text[self.cursor..].graphemes(true).next().map_or(self.cursor, |g| self.cursor + g.len())
    }

    fn border_at_or_after(&self, at: usize) -> usize {
        let mut ends = self.text.grapheme_indices(true).map(|(start, g)| start + g.len());
        ends.find(|end| *end >= at).unwrap_or(self.text.len())
    }
}

/// A pasted line break would leave the line.
fn visible(grapheme: &str) -> &str {
    if grapheme.chars().any(char::is_control) { "␤" } else { grapheme }
}

/// Columns that a grapheme takes: two in the East Asian wide ranges and for emoji (UAX 11, roughly;
/// a mistake here moves the cursor, and nothing else).
pub(super) fn width(grapheme: &str) -> usize {
    match grapheme.chars().next().map_or(0, u32::from) {
        0x1100..=0x115f | 0x2e80..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff | 0xfe30..=0xfe6f => 2,
        0xff00..=0xff60 | 0x1f1e6..=0x1f1ff | 0x1f300..=0x1faff | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(text: &str) -> Editor {
        let mut editor = Editor::default();
        for c in text.chars() {
            editor.insert(c.encode_utf8(&mut [0; 4]));
        }
        editor
    }

    #[test]
    fn whole_characters_are_deleted() {
        let mut editor = typed("hé👍🏽");
        editor.backspace();
        assert_eq!(editor.text(), "hé");
        editor.left();
        editor.left();
        editor.left();
        editor.delete();
        assert_eq!(editor.text(), "é");
        editor.delete();
        editor.delete();
        editor.backspace();
        assert_eq!(editor.text(), "");
    }

    #[test]
    fn words_and_lines_are_deleted() {
        let mut editor = typed("one two\u{3000}three ");
        editor.delete_word();
        assert_eq!(editor.text(), "one two\u{3000}");
        editor.delete_word();
        editor.delete_word();
        editor.delete_word();
        assert_eq!(editor.text(), "");
        let mut editor = typed("abc");
        editor.left();
        editor.delete_to_start();
        assert_eq!(editor.text(), "c");
    }

    #[test]
    fn earlier_lines_come_back() {
        let mut editor = typed("first");
        assert_eq!(editor.take(), "first");
        editor.insert("second");
        editor.take();
        editor.up();
        editor.up();
        editor.up();
        assert_eq!(editor.text(), "first");
        editor.down();
        editor.down();
        assert_eq!(editor.text(), "");
    }

    #[test]
    fn the_view_keeps_the_cursor_in_sight() {
        let mut editor = typed("0123456789");
        assert_eq!(editor.view(20), ("0123456789".into(), 10));
        assert_eq!(editor.view(5), ("6789".into(), 4));
        editor.home();
        assert_eq!(editor.view(5), ("0123".into(), 0));
        let editor = typed("漢字");
        assert_eq!(editor.view(4), ("字".into(), 2));
        assert_eq!(typed("a\nb").view(9).0, "a␤b");
    }

    #[test]
    fn a_line_is_no_longer_than_a_message() {
        let mut editor = Editor::default();
        editor.insert(&"x".repeat(limits::CONTENT_BYTES));
        editor.insert("y");
        assert_eq!(editor.text().len(), limits::CONTENT_BYTES);
    }
}
