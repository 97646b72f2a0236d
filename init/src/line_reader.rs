//! Lines from a FIFO or pipe that a build can write to, or that closes in the middle of one.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;

/// A line is cut off here; none of ours is longer.
const MAX_WORD: usize = 8 << 10;

/// Cuts what comes through a descriptor into lines.
pub(crate) struct LineReader {
    /// To wait for.
    pub(crate) descriptor: OwnedFd,
    line: Vec<u8>,
}

impl LineReader {
    /// Reads a descriptor that does not wait.
    pub(crate) fn new(descriptor: OwnedFd) -> Self {
        Self { descriptor, line: Vec::new() }
    }

    /// The lines that are complete by now, and whether more can come.
    pub(crate) fn read(&mut self) -> (Vec<Vec<u8>>, bool) {
        const MOST: usize = 64 << 10;
        let (mut lines, mut buffer, mut total) = (Vec::new(), [0; 4096], 0);
        while total < MOST {
            match rustix::io::read(self.descriptor.as_fd(), &mut buffer) {
                Ok(0) => return (lines, false),
                Ok(length) => {
                    total += length;
                    self.take(&buffer[..length], &mut lines);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => return (lines, false),
            }
        }
        (lines, true)
    }

    fn take(&mut self, piece: &[u8], lines: &mut Vec<Vec<u8>>) {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            match part.strip_suffix(b"\n") {
                Some(end) => {
                    self.line.extend_from_slice(end);
                    lines.push(std::mem::take(&mut self.line));
                }
                None => self.line.extend_from_slice(part),
            }
            self.line.truncate(MAX_WORD);
        }
    }
}
