//! Keeps a build's control sequences away from the reader's terminal. Colours may stay; whatever
//! moves the cursor, sets titles, writes the clipboard, switches character sets or rings is
//! dropped. Text and line breaks pass byte for byte: it must never lose or add a line break.

use anstyle_parse::state::{Action, State, state_change};

/// The longest colour sequence that is passed on, and the most that is remembered of those in force.
const MAX_SEQUENCE: usize = 128;

/// So many bytes are looked at in one go; the compiler makes vector code of it.
const BLOCK: usize = 64;

const ESC: u8 = 0x1b;
/// The first byte of U+0080 to U+00BF in UTF-8, of which the first half are control characters.
const C1_LEAD: u8 = 0xc2;
const RESET: &[u8] = b"\x1b[0m";

/// What is done with colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colours {
    /// They pass, and never reach beyond their line: off before each line break, on again after it.
    Keep,
    /// They are dropped too.
    Drop,
}

/// The filter of one stream of bytes, which may be cut anywhere.
#[derive(Debug)]
pub struct Filter {
    colours: Colours,
    state: State,
    /// The unfinished sequence; empty once it is too long to be a colour.
    sequence: Vec<u8>,
    /// The colours in force, as sequences.
    active: Vec<u8>,
    /// `active` is to be written again before the next text.
    resume: bool,
    /// The last byte was [`C1_LEAD`], held back until the next one tells what it begins.
    held_lead: bool,
}

impl Filter {
    /// A filter at the beginning of a stream.
    pub fn new(colours: Colours) -> Self {
        Self {
            colours,
            state: State::Ground,
            sequence: Vec::new(),
            active: Vec::new(),
            resume: false,
            held_lead: false,
        }
    }

    /// Gives what may be shown of the next bytes: the bytes themselves where nothing is to be
    /// done, otherwise a copy in `scratch`, whose old content is lost.
    pub fn push<'a>(&mut self, bytes: &'a [u8], scratch: &'a mut Vec<u8>) -> &'a [u8] {
        let fresh = self.state == State::Ground && self.active.is_empty() && !self.held_lead;
        if fresh && first_special(bytes).is_none() {
            return bytes;
        }
        scratch.clear();
        let mut rest = bytes;
        while !rest.is_empty() {
            let taken = match self.state {
                State::Ground => self.take_text(rest, scratch),
                _ => self.take_sequence(rest, scratch),
            };
            rest = &rest[taken..];
        }
        scratch
    }

    /// Ends the stream: what is to be shown after its last byte, so that no colour stays on.
    pub fn finish(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        if std::mem::take(&mut self.held_lead) {
            self.write_text(&[C1_LEAD], &mut out);
        }
        if !self.active.is_empty() && !self.resume {
            out.extend_from_slice(RESET);
        }
        *self = Self::new(self.colours);
        out
    }

    /// Takes a run of text, or one special byte.
    fn take_text(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> usize {
        if std::mem::take(&mut self.held_lead) {
            if matches!(bytes[0], 0x80..=0x9f) {
                return 1;
            }
            self.write_text(&[C1_LEAD], out);
        }
        let special = first_special(bytes).unwrap_or(bytes.len());
        let line = if self.active.is_empty() { None } else { memchr::memchr(b'\n', &bytes[..special]) };
        let end = line.unwrap_or(special);
        if end > 0 {
            self.write_text(&bytes[..end], out);
            return end;
        }
        match bytes[0] {
            b'\n' => {
                if !std::mem::replace(&mut self.resume, true) {
                    out.extend_from_slice(RESET);
                }
                out.push(b'\n');
            }
            ESC => self.begin_sequence(),
            C1_LEAD => self.held_lead = true,
            _ => {}
        }
        1
    }

    fn begin_sequence(&mut self) {
        self.state = State::Escape;
        self.sequence.clear();
        self.sequence.push(ESC);
    }

    /// Takes bytes up to the end of a sequence. A line break ends an unfinished one, so that a
    /// broken or hostile one cannot swallow the rest of a log.
    fn take_sequence(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> usize {
        for (at, &byte) in bytes.iter().enumerate() {
            if byte == b'\n' {
                self.state = State::Ground;
                return at;
            }
            let (next, action) = state_change(self.state, byte);
            if byte == ESC {
                self.begin_sequence();
                continue;
            }
            if (1..MAX_SEQUENCE).contains(&self.sequence.len()) {
                self.sequence.push(byte);
            } else {
                self.sequence.clear();
            }
            if next == State::Ground {
                self.state = State::Ground;
                if action == Action::CsiDispatch && self.colours == Colours::Keep {
                    self.pass_colour(out);
                }
                return at + 1;
            }
            if next != State::Anywhere {
                self.state = next;
            }
        }
        bytes.len()
    }

    /// Writes the finished sequence if it is a colour, and remembers what is in force.
    fn pass_colour(&mut self, out: &mut Vec<u8>) {
        let sequence = std::mem::take(&mut self.sequence);
        let Some(parameters) = sequence
            .strip_prefix(b"\x1b[")
            .and_then(|rest| rest.strip_suffix(b"m"))
            .filter(|parameters| parameters.iter().all(|byte| matches!(byte, b'0'..=b'9' | b';' | b':')))
        else {
            return;
        };
        if parameters.iter().all(|byte| matches!(byte, b'0' | b';')) {
            if !self.active.is_empty() && !self.resume {
                out.extend_from_slice(RESET);
            }
            self.active.clear();
            self.resume = false;
            return;
        }
        self.write_text(&sequence, out);
        if self.active.len() + sequence.len() > MAX_SEQUENCE {
            self.active.clear();
        }
        self.active.extend_from_slice(&sequence);
    }

    fn write_text(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if std::mem::take(&mut self.resume) {
            out.extend_from_slice(&self.active);
        }
        out.extend_from_slice(bytes);
    }
}

/// One line of text without any control sequence or line break: for names and commands that a
/// manifest or a server chose.
pub fn sanitize(text: &str) -> String {
    let mut scratch = Vec::new();
    let clean = Filter::new(Colours::Drop).push(text.as_bytes(), &mut scratch).to_vec();
    String::from_utf8_lossy(&clean).replace(['\n', '\r', '\t'], " ")
}

/// As [`sanitize`], line by line.
pub fn sanitize_lines(text: &str) -> String {
    text.lines().map(sanitize).collect::<Vec<_>>().join("\n")
}

fn is_special(byte: u8) -> bool {
    (byte < 0x20 && byte != b'\n' && byte != b'\t' && byte != b'\r') || byte == 0x7f || byte == C1_LEAD
}

/// Where the first byte is that text does not have.
fn first_special(bytes: &[u8]) -> Option<usize> {
    bytes
        .chunks(BLOCK)
        .enumerate()
        .filter(|(_, block)| block.iter().fold(false, |any, &byte| any | is_special(byte)))
        .find_map(|(index, block)| {
            block.iter().position(|&byte| is_special(byte)).map(|at| index * BLOCK + at)
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filter(colours: Colours, pieces: &[&[u8]]) -> Vec<u8> {
        let mut filter = Filter::new(colours);
        let mut out = Vec::new();
        let mut scratch = Vec::new();
        for piece in pieces {
            out.extend_from_slice(filter.push(piece, &mut scratch));
        }
        out.extend(filter.finish());
        out
    }

    #[track_caller]
    fn check(input: &str, kept: &str, dropped: &str) {
        let show = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        assert_eq!(show(filter(Colours::Keep, &[input.as_bytes()])), kept, "colours kept");
        assert_eq!(show(filter(Colours::Drop, &[input.as_bytes()])), dropped, "colours dropped");
    }

    #[test]
    fn colours_pass_and_end_with_their_line() {
        check("\x1b[31mred\x1b[0m plain\n", "\x1b[31mred\x1b[0m plain\n", "red plain\n");
        check("\x1b[1mone\ntwo\x1b[m\n", "\x1b[1mone\x1b[0m\n\x1b[1mtwo\x1b[0m\n", "one\ntwo\n");
        check("\x1b[38;5;9mnever ended", "\x1b[38;5;9mnever ended\x1b[0m", "never ended");
        check("\x1b[32mok\n\x1b[0m", "\x1b[32mok\x1b[0m\n", "ok\n");
        check("\x1b[32mok\n\n\n", "\x1b[32mok\x1b[0m\n\n\n", "ok\n\n\n");
    }

    #[test]
    fn whatever_is_no_colour_is_dropped() {
        for sequence in [
            "\x1b[2J",
            "\x1b[H",
            "\x1b[1A",
            "\x1b[?1049h",
            "\x1b]0;title\x07",
            "\x1b]52;c;cm0gLXJmCg==\x07",
            "\x1b]8;;http://example.com\x1b\\",
            "\x1bP+q544e\x1b\\",
            "\x1b_apc\x1b\\",
            "\x1bc",
            "\x1b(0",
            "\x1b[>0m",
            "\x1b[31\x08m",
            "\x07",
            "\x08",
            "\x0e",
            "\x7f",
            "\u{9b}",
            "\u{85}",
        ] {
            check(&format!("a{sequence}b\n"), "ab\n", "ab\n");
        }
    }

    #[test]
    fn text_of_any_language_passes() {
        check("naïve ° 中文 🦀 £\tx\r\n", "naïve ° 中文 🦀 £\tx\r\n", "naïve ° 中文 🦀 £\tx\r\n");
    }

    #[test]
    fn a_sequence_without_an_end_swallows_no_further_line() {
        check("a\x1b]0;title\nb\x1b[12\nc\n", "a\nb\nc\n", "a\nb\nc\n");
    }

    #[test]
    fn a_colour_of_absurd_length_is_dropped() {
        let long = format!("a\x1b[{}mb", "1;".repeat(1000));
        check(&long, "ab", "ab");
    }

    #[test]
    fn names_become_one_clean_line() {
        assert_eq!(sanitize("\x1b]0;x\x07cargo\ntest\x1b[31m"), "cargo test");
    }

    proptest! {
        #[test]
        fn cuts_make_no_difference(
            bytes in proptest::collection::vec(
                prop_oneof![
                    Just(ESC), Just(b'['), Just(b']'), Just(b'm'), Just(b'3'), Just(b';'), Just(b'\n'),
                    Just(7u8), Just(C1_LEAD), Just(0x9b), Just(b'P'), Just(b'\\'), any::<u8>()
                ],
                0..200,
            ),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..8),
        ) {
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
            for colours in [Colours::Keep, Colours::Drop] {
                let whole = filter(colours, &[&bytes]);
                prop_assert_eq!(filter(colours, &pieces), &whole[..]);
                prop_assert_eq!(
                    memchr::memchr_iter(b'\n', &whole).count(),
                    memchr::memchr_iter(b'\n', &bytes).count()
                );
                prop_assert!(!filter(Colours::Drop, &[&bytes]).contains(&ESC));
            }
        }

        #[test]
        fn nothing_but_colours_ever_passes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let out = filter(Colours::Keep, &[&bytes]);
            for piece in out.split(|&byte| byte == ESC).skip(1) {
                let end = piece.iter().position(|&byte| byte == b'm');
                prop_assert!(piece[0] == b'[' && end.is_some());
            }
        }
    }
}
