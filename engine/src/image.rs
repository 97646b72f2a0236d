//! Images: their names, what is known of one that is here, and how one gets here.

use std::{collections::HashMap, time::Duration};

use bollard::{
    models::{CreateImageInfo, ImageInspect, ProgressDetail},
    query_parameters::CreateImageOptionsBuilder,
};
use buildr_manifest::EventKind;
use futures_util::StreamExt;
use tokio::time::Instant;

use crate::{
    credentials,
    docker::{self, Daemon},
    error::chain,
    feed::Feed,
};

/// The registry of names that name none.
pub(crate) const DOCKER_HUB: &str = "docker.io";

/// Progress is for people's eyes.
const PROGRESS_PERIOD: Duration = Duration::from_millis(100);

/// A checked name of an image. What Docker makes a path of its API out of must be checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    text: String,
    /// Without tag and digest.
    name: String,
    /// The digest (`sha256:...`), or else the tag.
    version: String,
}

/// An image that is here.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    /// `sha256:...`
    pub(crate) id: String,
    /// `NAME=VALUE`, in order.
    pub(crate) environment: Vec<String>,
    /// As its `USER` has it; empty: root.
    pub(crate) user: String,
    /// What is unusual about it, for messages.
    pub(crate) oddity: Option<String>,
}

/// Why an image cannot be had. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImageError {
    #[error("`{0}` is not the name of an image")]
    BadName(String),
    #[error(
        "there is no image {image}: check its name and tag; if it is private, `docker login {host}` on the machine that runs the build ({answer})"
    )]
    NotFound { image: String, host: String, answer: String },
    #[error(
        "the registry {host} wants a login for image {image}: `docker login {host}` on the machine that runs the build ({answer})"
    )]
    Denied { image: String, host: String, answer: String },
    #[error("cannot reach the registry {host} for image {image}: {answer}")]
    Unreachable { image: String, host: String, answer: String },
    #[error("image {image} is for {os}, builds run on linux")]
    OtherSystem { image: String, os: String },
    #[error("cannot get image {image}: {answer}")]
    Other { image: String, answer: String },
}

impl Reference {
    /// Checks `[HOST[:PORT]/]PATH[:TAG][@DIGEST]`.
    pub(crate) fn parse(text: &str) -> Result<Self, ImageError> {
        let bad = || ImageError::BadName(text.to_owned());
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        let plain = |text: &str, extra: &str| {
            !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || extra.contains(c))
        };
        let fits = text.len() <= 512
            && plain(name, "._-/:")
            && name.split('/').all(|part| part.starts_with(|c: char| c.is_ascii_alphanumeric()))
            && tag.is_none_or(|tag| plain(tag, "._-"))
            && digest.is_none_or(|digest| plain(digest, ":+._-"));
        if !fits {
            return Err(bad());
        }
        let version = digest.or(tag).unwrap_or("latest").to_owned();
        let text = if digest.or(tag).is_some() { text.to_owned() } else { format!("{text}:latest") };
        Ok(Self { text, name: name.to_owned(), version })
    }

    /// The registry's host.
    pub(crate) fn host(&self) -> &str {
        match self.name.split_once('/') {
            Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
            _ => DOCKER_HUB,
        }
    }
}

/// Gets an image: from the daemon's own store, else from its registry. Dropping the future ends a
/// pull.
pub(crate) async fn get(daemon: &Daemon, name: &str, feed: &Feed) -> Result<Image, ImageError> {
    let reference = Reference::parse(name)?;
    match inspect(daemon, &reference).await? {
        Some(image) => Ok(image),
        None => {
            pull(daemon, &reference, feed).await?;
            inspect(daemon, &reference).await?.ok_or_else(|| ImageError::Other {
                image: reference.text.clone(),
                answer: "it was removed right after it was pulled".to_owned(),
            })
        }
    }
}

async fn inspect(daemon: &Daemon, reference: &Reference) -> Result<Option<Image>, ImageError> {
    match daemon.api.inspect_image(&reference.text).await {
        Ok(found) => known(reference, found).map(Some),
        Err(error) if docker::is_absent(&error) => Ok(None),
        Err(error) => Err(ImageError::Other { image: reference.text.clone(), answer: chain(&error) }),
    }
}

fn known(reference: &Reference, found: ImageInspect) -> Result<Image, ImageError> {
    let os = found.os.unwrap_or_default();
    if !os.is_empty() && os != "linux" {
        return Err(ImageError::OtherSystem { image: reference.text.clone(), os });
    }
    let config = found.config.unwrap_or_default();
    let id = found.id.unwrap_or_else(|| reference.text.clone());
    Ok(Image {
        id,
        environment: config.env.unwrap_or_default(),
        user: config.user.unwrap_or_default(),
        oddity: found.architecture.as_deref().and_then(other_architecture),
    })
}

/// The kernel may know how to run it, so it is no error by itself.
fn other_architecture(architecture: &str) -> Option<String> {
    let ours = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let differs = !architecture.is_empty() && architecture != ours;
    differs.then(|| format!("the image is for {architecture}, this machine is {ours}"))
}

async fn pull(daemon: &Daemon, reference: &Reference, feed: &Feed) -> Result<(), ImageError> {
    let (login, trouble) = credentials::login(reference.host()).await;
    if let Some(trouble) = trouble {
        feed.warning(trouble).await;
    }
    let options =
        CreateImageOptionsBuilder::new().from_image(&reference.name).tag(&reference.version).build();
    let mut news = std::pin::pin!(daemon.api.create_image(Some(options), None, login));
    let mut progress = Progress::default();
    let mut told: Option<Instant> = None;
    while let Some(message) = news.next().await {
        progress.take(message.map_err(|error| pull_error(reference, &error))?);
        if told.is_none_or(|told| told.elapsed() >= PROGRESS_PERIOD) {
            told = Some(Instant::now());
            feed.ephemeral(progress.event(&reference.text));
        }
    }
    feed.ephemeral(progress.event(&reference.text));
    Ok(())
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
    use super::*;

    fn refused(status_code: u16, message: &str) -> bollard::errors::Error {
        bollard::errors::Error::DockerResponseServerError { status_code, message: message.to_owned() }
    }

    #[test]
    fn a_name_falls_into_registry_name_and_version() {
        for (text, host, name, version) in [
            ("alpine", "docker.io", "alpine", "latest"),
            ("alpine:3.20", "docker.io", "alpine", "3.20"),
            ("me/app:1", "docker.io", "me/app", "1"),
            ("localhost/app", "localhost", "localhost/app", "latest"),
            ("host:5000/a/b:2", "host:5000", "host:5000/a/b", "2"),
            ("host:5000/a", "host:5000", "host:5000/a", "latest"),
            ("r.example/a:1@sha256:ab", "r.example", "r.example/a", "sha256:ab"),
        ] {
            let reference = Reference::parse(text).unwrap();
            assert_eq!((reference.host(), &*reference.name, &*reference.version), (host, name, version));
        }
        assert_eq!(Reference::parse("alpine").unwrap().text, "alpine:latest");
    }

    #[test]
    fn what_could_lead_elsewhere_in_the_api_is_no_name() {
        for text in ["", "a b", "../containers/x", "a/../b", "a?x=1", "a#b", "a//b", "-a", "a:", "a@", "a%2e"]
        {
            assert!(Reference::parse(text).is_err(), "{text}");
        }
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

    #[test]
    fn an_image_of_another_system_cannot_run() {
        let reference = Reference::parse("win").unwrap();
        let found = ImageInspect { os: Some("windows".into()), ..ImageInspect::default() };
        assert!(matches!(known(&reference, found), Err(ImageError::OtherSystem { .. })));
    }
}
