//! Cuts what comes out of a container into lines; a build can write there whatever it likes.

use buildr_init::wire::MAX_LINE;

/// Cuts a stream of bytes into lines. A line that is too long is dropped as a whole.
#[derive(Debug, Default)]
pub(super) struct Lines {
    begun: Vec<u8>,
    too_long: bool,
}

impl Lines {
    /// Takes a piece of the stream and passes on the lines that it completes.
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut line: impl FnMut(&[u8])) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.extend(&bytes[..end]);
            if !self.too_long {
                line(&self.begun);
            }
            self.begun.clear();
            self.too_long = false;
            bytes = &bytes[end + 1..];
        }
        self.extend(bytes);
    }

    fn extend(&mut self, bytes: &[u8]) {
        if self.too_long || self.begun.len() + bytes.len() > MAX_LINE {
            self.too_long = true;
            self.begun = Vec::new();
        } else {
            self.begun.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_wherever_the_stream_was_cut() {
        let text = b"one\n\ntwo\nthree";
        for cut in 0..text.len() {
            let mut lines = Lines::default();
            let mut seen = Vec::new();
            for part in [&text[..cut], &text[cut..]] {
                lines.feed(part, |line| seen.push(String::from_utf8(line.to_vec()).unwrap()));
            }
            assert_eq!(seen, ["one", "", "two"]);
        }
    }

    #[test]
    fn a_line_without_end_is_dropped_and_takes_no_memory() {
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        let chunk = vec![b'x'; 1 << 20];
        for _ in 0..20 {
            lines.feed(&chunk, |_| panic!("no line yet"));
        }
        assert!(lines.begun.capacity() < MAX_LINE);
        lines.feed(b"tail\nnext\n", |line| seen.push(line.to_vec()));
        assert_eq!(seen, [b"next".to_vec()]);
    }
}
