//! Bringing an image here from its registry, once for all jobs that want it at the same time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use bollard::{
    models::{CreateImageInfo, ProgressDetail},
    query_parameters::CreateImageOptionsBuilder,
};
use buildr_manifest::EventKind;
use futures_util::StreamExt;
use tokio::{
    sync::{Mutex as Turn, watch},
    time::{Instant, timeout},
};

use super::{ImageError, Reference};
use crate::{
    credentials,
    docker::{self, Daemon},
    error::chain,
    feed::Feed,
};

/// Progress is for people's eyes.
const PROGRESS_PERIOD: Duration = Duration::from_millis(100);

/// A pull of which nothing is heard for so long stands still. Docker tells of every piece; the longest
/// it is silent is while a large layer is unpacked to a slow disk.
const SILENCE: Duration = Duration::from_secs(300);

/// The pulls that go on. A job that wants what another one pulls waits for it, and takes over where
/// that job is ended in the middle.
#[derive(Debug)]
pub(crate) struct Pulls {
    going: Mutex<HashMap<String, Weak<Shared>>>,
    silence: Duration,
}

/// One pull, as all who wait for it see it.
#[derive(Debug)]
struct Shared {
    /// Held by whoever pulls.
    turn: Turn<()>,
    news: watch::Sender<News>,
}

/// How far a pull is.
#[derive(Clone, Debug, Default)]
struct News {
    progress: Option<EventKind>,
    end: Option<Result<(), ImageError>>,
}

impl Default for Pulls {
    fn default() -> Self {
        Self { going: Mutex::default(), silence: SILENCE }
    }
}

impl Pulls {
    /// Pulls an image, or waits for the pull of it that goes on.
    pub(super) async fn pull(
        &self,
        daemon: &Daemon,
        reference: &Reference,
        feed: &Feed,
    ) -> Result<(), ImageError> {
        let shared = self.join(&reference.text);
        let mut news = shared.news.subscribe();
        let _turn = tokio::select! {
            biased;
            turn = shared.turn.lock() => turn,
            () = show(&mut news, feed) => shared.turn.lock().await,
        };
        let end = news.borrow().end.clone();
        if let Some(end) = end {
            return end;
        }
        let end = self.pull_alone(daemon, reference, feed, &shared.news).await;
        shared.news.send_modify(|news| news.end = Some(end.clone()));
        end
    }

    /// The pull of an image that goes on, or a new one.
    fn join(&self, image: &str) -> Arc<Shared> {
        let mut going = self.going.lock().unwrap_or_else(PoisonError::into_inner);
        going.retain(|_, shared| shared.strong_count() > 0);
        let known = going.get(image).and_then(Weak::upgrade);
        if let Some(shared) = known.filter(|shared| shared.news.borrow().end.is_none()) {
            return shared;
        }
        let shared = Arc::new(Shared { turn: Turn::new(()), news: watch::Sender::default() });
        going.insert(image.to_owned(), Arc::downgrade(&shared));
        shared
    }

    async fn pull_alone(
        &self,
        daemon: &Daemon,
        reference: &Reference,
        feed: &Feed,
        shared: &watch::Sender<News>,
    ) -> Result<(), ImageError> {
        let (login, trouble) = credentials::login(reference.host()).await;
        if let Some(trouble) = trouble {
            feed.warning(trouble).await;
        }
        let options =
            CreateImageOptionsBuilder::new().from_image(&reference.name).tag(&reference.version).build();
        let mut answer = std::pin::pin!(daemon.api.create_image(Some(options), None, login));
        let mut progress = Progress::default();
        let mut told: Option<Instant> = None;
        let tell = |progress: &Progress| {
            let event = progress.event(&reference.text);
            shared.send_modify(|news| news.progress = Some(event.clone()));
            feed.ephemeral(event);
        };
        loop {
            let message = timeout(self.silence, answer.next()).await.map_err(|_| ImageError::Stalled {
                image: reference.text.clone(),
                host: reference.host().to_owned(),
                limit: self.silence,
            })?;
            let Some(message) = message else { break };
            progress.take(message.map_err(|error| pull_error(reference, &error))?);
            if told.is_none_or(|told| told.elapsed() >= PROGRESS_PERIOD) {
                told = Some(Instant::now());
                tell(&progress);
            }
        }
        tell(&progress);
        Ok(())
    }
}

/// Tells how far somebody else's pull is, until its end.
async fn show(news: &mut watch::Receiver<News>, feed: &Feed) {
    loop {
        let News { progress, end } = news.borrow_and_update().clone();
        progress.into_iter().for_each(|event| feed.ephemeral(event));
        if end.is_some() || news.changed().await.is_err() {
            return;
        }
    }
}

/// How far a pull is, layer by layer.
#[derive(Debug, Default)]
struct Progress {
    layers: HashMap<String, (u64, u64)>,
}

impl Progress {
    fn take(&mut self, message: CreateImageInfo) {
        let (Some(layer), Some(status)) = (message.id, message.status) else { return };
        match status.as_str() {
            "Downloading" => {
                let ProgressDetail { current, total, .. } = message.progress_detail.unwrap_or_default();
                let count = |number: Option<i64>| number.and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
                self.layers.insert(layer, (count(current), count(total)));
            }
            "Download complete" | "Pull complete" => {
                if let Some((current, total)) = self.layers.get_mut(&layer) {
                    *current = *total;
                }
            }
            _ => {}
        }
    }

    fn event(&self, image: &str) -> EventKind {
        let (current, total) =
            self.layers.values().fold((0, 0), |sum, layer| (sum.0 + layer.0, sum.1 + layer.1));
        EventKind::PullProgress { image: image.to_owned(), current, total }
    }
}

/// Docker passes the registry's answer on as text, with a status that says little.
fn pull_error(reference: &Reference, error: &bollard::errors::Error) -> ImageError {
    let (status, answer) = match (docker::refusal(error), error) {
        (Some((status, message)), _) => (status, message.to_owned()),
        (None, bollard::errors::Error::DockerStreamError { error }) => (0, error.clone()),
        (None, error) => (0, chain(error)),
    };
    let (image, host) = (reference.text.clone(), reference.host().to_owned());
    let says = |words: &[&str]| {
        let answer = answer.to_lowercase();
        words.iter().any(|word| answer.contains(word))
    };
    if status == 404 || says(&["manifest unknown", "not found", "does not exist"]) {
        ImageError::NotFound { image, host, answer }
    } else if matches!(status, 401 | 403)
        || says(&["unauthorized", "denied", "no basic auth", "authentication required", "incorrect username"])
    {
        ImageError::Denied { image, host, answer }
    } else if says(&[
        "dial tcp",
        "lookup ",
        "no such host",
        "connection refused",
        "connection reset",
        "timeout",
        "deadline exceeded",
        "canceled while waiting",
        "tls:",
        "x509",
        "http: server gave http response",
        "eof",
    ]) {
        ImageError::Unreachable { image, host, answer }
    } else {
        ImageError::Other { image, answer }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        sync::mpsc,
    };

    use super::*;

    fn refused(status_code: u16, message: &str) -> bollard::errors::Error {
        bollard::errors::Error::DockerResponseServerError { status_code, message: message.to_owned() }
    }

    #[test]
    fn each_way_to_miss_an_image_says_what_to_do() {
        let reference = Reference::parse("r.example/app:1").unwrap();
        for (error, expected) in [
            (refused(404, "manifest unknown"), "there is no image r.example/app:1"),
            (refused(500, "unauthorized: authentication required"), "`docker login r.example`"),
            (refused(500, "dial tcp: lookup r.example: no such host"), "cannot reach the registry r.example"),
            (refused(500, "no space left on device"), "cannot get image r.example/app:1: no space left"),
        ] {
            let text = pull_error(&reference, &error).to_string();
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn progress_adds_the_layers_up() {
        let message = |id: &str, status: &str, current, total| CreateImageInfo {
            id: Some(id.to_owned()),
            status: Some(status.to_owned()),
            progress_detail: Some(ProgressDetail { current, total }),
            ..CreateImageInfo::default()
        };
        let mut progress = Progress::default();
        progress.take(message("a", "Downloading", Some(5), Some(10)));
        progress.take(message("b", "Downloading", Some(1), Some(30)));
        progress.take(message("b", "Download complete", None, None));
        progress.take(message("c", "Pulling fs layer", None, None));
        let EventKind::PullProgress { current, total, .. } = progress.event("x") else { panic!() };
        assert_eq!((current, total), (35, 40));
    }

    /// A daemon that does no more than begin to pull; tells how often.
    async fn silent_daemon() -> (tempfile::TempDir, Daemon, Arc<AtomicUsize>) {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("docker.sock");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let begun = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&begun);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, Arc::clone(&counted)));
            }
        });
        let daemon = Daemon::connect(Some(&format!("unix://{}", socket.display()))).await.unwrap();
        (folder, daemon, begun)
    }

    async fn answer(mut stream: tokio::net::UnixStream, begun: Arc<AtomicUsize>) {
        let mut request = vec![0; 4096];
        let length = stream.read(&mut request).await.unwrap_or(0);
        if !request[..length].starts_with(b"POST") {
            let body = r#"{"ApiVersion":"1.41","Version":"20"}"#;
            let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\n";
            let text = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
            let _gone = stream.write_all(text.as_bytes()).await;
        } else if length > 0 {
            begun.fetch_add(1, Ordering::Relaxed);
            let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
            let _open_until_the_end = stream.read(&mut [0; 1]).await;
        }
    }

    fn bench() -> (Pulls, Feed, Reference) {
        let pulls = Pulls { silence: Duration::from_millis(300), ..Pulls::default() };
        (pulls, Feed::new(mpsc::channel(1).0, None), Reference::parse("r.example/app:1").unwrap())
    }

    #[tokio::test]
    async fn a_pull_that_stands_still_ends_once_for_all_who_wait_for_it() {
        let (_folder, daemon, begun) = silent_daemon().await;
        let (pulls, feed, reference) = bench();
        let pull = || pulls.pull(&daemon, &reference, &feed);
        let (first, second) = tokio::join!(pull(), pull());
        for end in [first, second] {
            assert!(matches!(end, Err(ImageError::Stalled { .. })), "{end:?}");
        }
        assert_eq!(begun.load(Ordering::Relaxed), 1);
        pull().await.unwrap_err();
        assert_eq!(begun.load(Ordering::Relaxed), 2, "a later job tries again");
    }

    #[tokio::test]
    async fn who_waits_for_a_pull_takes_over_where_the_other_job_is_ended() {
        let (_folder, daemon, begun) = silent_daemon().await;
        let (pulls, feed, reference) = bench();
        let pull = || pulls.pull(&daemon, &reference, &feed);
        let (first, second) = tokio::join!(timeout(Duration::from_millis(100), pull()), pull());
        first.unwrap_err();
        assert!(matches!(second, Err(ImageError::Stalled { .. })), "{second:?}");
        assert_eq!(begun.load(Ordering::Relaxed), 2);
    }
}
