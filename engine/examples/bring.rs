//! Brings the default branch of a repository here, for `bench/source`: `bring MIRRORS URL WORKSPACE`.

use std::error::Error;

use buildr_engine::{
    job::{GitReference, GitSource},
    source::{Sources, UrlPolicy},
};
use buildr_manifest::CloneOptions;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [mirrors, url, workspace] = &arguments[..] else {
        return Err("usage: bring MIRRORS URL WORKSPACE".into());
    };
    let sources = Sources::new(mirrors.into(), UrlPolicy { allow_file: true });
    let source = GitSource { url: url.clone(), reference: GitReference::Default, commit: None };
    let cancel = CancellationToken::new();
    let pinned = sources.pin(&source, &cancel).await?;
    pinned.check_out(workspace.as_ref(), &CloneOptions::default(), &cancel).await?;
    Ok(())
}
