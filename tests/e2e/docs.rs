//! What the documents tell people to type works.

use std::{fs, net::TcpListener, path::Path};

use crate::harness::{BUSYBOX, Home, Process, Project};

/// The first block of this language in a document.
fn block(document: &str, language: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
    let text = fs::read_to_string(path).unwrap();
    let (_, rest) = text.split_once(&format!("```{language}\n")).unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

#[test]
fn the_manifest_of_the_tour_has_no_warnings() {
    let tour = block("README.md", "sh");
    let (_, rest) = tour.split_once("<<'END'\n").unwrap();
    let project = Project::folder(&[(".buildr.yml", rest.split_once("END\n").unwrap().0)]);
    Home::new().call(&["lint", "--strict", project.path().to_str().unwrap()]).expect_code(0);
}

#[test]
fn the_tour_of_the_readme_works_when_pasted() {
    let tour = block("README.md", "sh");
    assert!(tour.lines().count() <= 22, "it is meant to be short");
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    // The image that is here in place of the one that would be pulled, and a port of the test's own.
    let script = tour
        .replace("image: busybox\n", &format!("image: {BUSYBOX}\n"))
        .replace("buildr up &", &format!("buildr up --listen {address} &"));
    assert!(script.contains(BUSYBOX) && script.contains(&address));
    let mut home = Home::new();
    let programs = Path::new(env!("CARGO_BIN_EXE_buildr")).parent().unwrap().display().to_string();
    home.set("PATH", format!("{programs}:{}", std::env::var("PATH").unwrap()));
    home.set("BUILDR_ORCHESTRATOR", &address);
    home.set("GIT_AUTHOR_NAME", "someone");
    home.set("GIT_AUTHOR_EMAIL", "someone@example.com");
    home.set("GIT_COMMITTER_NAME", "someone");
    home.set("GIT_COMMITTER_EMAIL", "someone@example.com");
    let finished = Process::start(home.program("bash", &["-c", &script])).wait().expect_code(0);
    let out = finished.out();
    assert_eq!(
        out.matches("[test] Hello, world!").count(),
        3,
        "run, submit and tail: {out}\n{}",
        finished.stderr
    );
    assert!(out.contains("passed"), "{out}");
}
