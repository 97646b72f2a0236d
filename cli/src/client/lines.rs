//! Finds where the last lines of a log begin, without reading all of it.

use buildr_proto::{
    BuildId,
    build::{Job, Stage},
    pb,
};

use super::{Client, Which};
use crate::Error;

/// So much of the end of a log is looked at first; four times as much each further time.
const FIRST_WINDOW: u64 = 64 << 10;

/// The most that is looked at; who wants more lines than this holds gets these.
const LARGEST_WINDOW: u64 = 16 << 20;

impl Client {
    /// Where the last `lines` lines of a stage's stored log begin, and how many there are from there.
    pub async fn line_start(
        &self,
        build: BuildId,
        job: &Job,
        stage: &Stage,
        lines: usize,
    ) -> Result<(u64, usize), Error> {
        let mut window = FIRST_WINDOW;
        loop {
            let offset = stage.log_bytes.saturating_sub(window);
            let bytes = self.read_end(build, job, stage, offset).await?;
            let complete = offset == 0 || window >= LARGEST_WINDOW;
            if let Some((start, found)) = last_lines(&bytes, lines, complete) {
                return Ok((offset + start as u64, found));
            }
            window *= 4;
        }
    }

    async fn read_end(
        &self,
        build: BuildId,
        job: &Job,
        stage: &Stage,
        offset: u64,
    ) -> Result<Vec<u8>, Error> {
        let what = "read the log";
        let failed = |status| self.error(&status, what, Some(Which::Number(build)));
        let request = pb::ReadLogRequest {
            build: build.get(),
            job: job.index,
            attempt: job.attempt.as_ref().map(|attempt| attempt.id.to_string()).unwrap_or_default(),
            log: stage.name.to_string(),
            offset,
            follow: false,
            times: false,
        };
        let mut stream = self.service.clone().read_log(request).await.map_err(failed)?.into_inner();
        let wanted = usize::try_from(stage.log_bytes - offset).unwrap_or(usize::MAX);
        let mut bytes = Vec::new();
        while bytes.len() < wanted {
            let Some(part) = stream.message().await.map_err(failed)? else { break };
            bytes.extend_from_slice(&part.data);
            if part.end {
                break;
            }
        }
        bytes.truncate(wanted);
        Ok(bytes)
    }
}

/// Where the last lines begin in the end of a log, if it holds so many or is all there is.
fn last_lines(end: &[u8], lines: usize, complete: bool) -> Option<(usize, usize)> {
    let body = end.strip_suffix(b"\n").unwrap_or(end);
    let mut found = 0;
    for at in memchr::memrchr_iter(b'\n', body) {
        found += 1;
        if found == lines {
            return Some((at + 1, found));
        }
    }
    complete.then_some((0, found + usize::from(!end.is_empty())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_counted_from_the_end() {
        for (text, lines, complete, expected) in [
            ("a\nb\nc\n", 2, true, Some((2, 2))),
            ("a\nb\nc", 2, true, Some((2, 2))),
            ("a\nb\n", 2, true, Some((0, 2))),
            ("a\nb\n", 2, false, None),
            ("a\nb\n", 9, true, Some((0, 2))),
            ("\n\n\n", 2, true, Some((1, 2))),
            ("", 2, true, Some((0, 0))),
        ] {
            assert_eq!(last_lines(text.as_bytes(), lines, complete), expected, "{text:?} {lines}");
        }
    }
}
