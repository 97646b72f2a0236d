//! Images: their names, what is known of one that is here, and how one gets here.

mod pull;

use std::time::{Duration, Instant};

use bollard::models::ImageInspect;
use serde::{Deserialize, Serialize};

use crate::{
    docker::{self, Daemon},
    engine::{Inner, Pull},
    error::chain,
    feed::Feed,
};

pub(crate) use pull::Pulls;

/// The registry of names that name none.
pub(crate) const DOCKER_HUB: &str = "docker.io";

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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Image {
    /// `sha256:...`
    pub(crate) id: String,
    /// `NAME=VALUE`, in order.
    pub(crate) environment: Vec<String>,
    /// As its `USER` has it; empty: root.
    pub(crate) user: String,
    /// What is unusual about it, for messages.
    pub(crate) oddity: Option<String>,
    /// How long it was pulled; zero where it was here.
    pub(crate) pull: Duration,
    /// What it runs where it is a service.
    #[serde(default)]
    pub(crate) program: Program,
}

/// What an image runs by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Program {
    /// Its `ENTRYPOINT`.
    pub(crate) entrypoint: Vec<String>,
    /// Its `CMD`.
    pub(crate) command: Vec<String>,
    /// Its `WORKDIR`; `/` where it names none.
    pub(crate) workdir: String,
    /// Its `HEALTHCHECK` as Docker has it: `CMD` or `CMD-SHELL`, then the words; or `NONE`, or nothing.
    pub(crate) health: Vec<String>,
    /// The TCP ports that it exposes, ascending.
    pub(crate) ports: Vec<u16>,
}

impl Program {
    /// All words of what is run, with another command where there is one.
    pub(crate) fn command(&self, other: Option<&[String]>) -> Vec<String> {
        self.entrypoint.iter().chain(other.unwrap_or(&self.command)).cloned().collect()
    }
}

/// Why an image cannot be had. Each says what to do.
#[derive(Clone, Debug, thiserror::Error)]
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
    #[error(
        "image {image} is not on this machine, and the pull policy is `never`: `docker pull {image}` there, or let buildr pull it"
    )]
    NotHere { image: String },
    #[error(
        "the pull of image {image} came to a standstill: nothing was heard of it for {} s; is the way to {host} open?",
        limit.as_secs_f64()
    )]
    Stalled { image: String, host: String, limit: Duration },
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

/// Gets an image from the daemon's own store or from its registry, as the operator has it. Dropping
/// the future ends a pull that nobody else waits for.
pub(crate) async fn get(engine: &Inner, name: &str, feed: &Feed) -> Result<Image, ImageError> {
    let reference = Reference::parse(name)?;
    let (daemon, policy) = (&engine.daemon, engine.config.pull);
    if policy != Pull::Always
        && let Some(image) = inspect(daemon, &reference).await?
    {
        return Ok(image);
    }
    if policy == Pull::Never {
        return Err(ImageError::NotHere { image: reference.text });
    }
    let begin = Instant::now();
    engine.pulls.pull(daemon, &reference, feed).await?;
    let image = inspect(daemon, &reference).await?.ok_or_else(|| ImageError::Other {
        image: reference.text.clone(),
        answer: "it was removed right after it was pulled".to_owned(),
    })?;
    Ok(Image { pull: begin.elapsed(), ..image })
}

/// A daemon that does not tell of an image within this time hangs.
const LOOK_LIMIT: Duration = Duration::from_secs(20);

async fn inspect(daemon: &Daemon, reference: &Reference) -> Result<Option<Image>, ImageError> {
    let found = docker::within("look at the image", LOOK_LIMIT, daemon.api.inspect_image(&reference.text));
    let failed =
        |error: crate::Error| ImageError::Other { image: reference.text.clone(), answer: error.chain() };
    match found.await.map_err(failed)? {
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
        pull: Duration::ZERO,
        program: Program {
            entrypoint: config.entrypoint.unwrap_or_default(),
            command: config.cmd.unwrap_or_default(),
            workdir: config
                .working_dir
                .filter(|path| path.starts_with('/'))
                .unwrap_or_else(|| "/".to_owned()),
            health: config.healthcheck.and_then(|health| health.test).unwrap_or_default(),
            ports: tcp_ports(config.exposed_ports.unwrap_or_default()),
        },
    })
}

/// Of `8080/tcp`, `53/udp` and the like.
fn tcp_ports(exposed: Vec<String>) -> Vec<u16> {
    let port = |text: &String| text.strip_suffix("/tcp").unwrap_or(text).parse().ok();
    let mut ports: Vec<u16> = exposed.iter().filter_map(port).collect();
    ports.sort_unstable();
    ports
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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn an_image_of_another_system_cannot_run() {
        let reference = Reference::parse("win").unwrap();
        let found = ImageInspect { os: Some("windows".into()), ..ImageInspect::default() };
        assert!(matches!(known(&reference, found), Err(ImageError::OtherSystem { .. })));
    }
}
