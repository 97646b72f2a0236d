//! Bad input: each a short error that says what was wrong and what to do, with the right exit code.

use std::{io::Write, net::TcpListener, os::unix::net::UnixListener, thread};

use crate::harness::{BUSYBOX, Farm, Finished, Home, Project, manifest};

/// The error is short, readable, and holds these texts.
#[track_caller]
fn says(finished: &Finished, parts: &[&str]) {
    let text = &finished.stderr;
    for part in parts {
        assert!(text.contains(part), "'{part}' is missing in:\n{text}");
    }
    assert!(text.lines().count() <= 25, "too long:\n{text}");
    for wrong in ["panicked", "Error {", "Status {", "RUST_BACKTRACE", "Some("] {
        assert!(!text.contains(wrong), "'{wrong}' in:\n{text}");
    }
}

#[test]
fn no_manifest() {
    let finished = Home::new().run(&Project::folder(&[("README", "x")])).expect_code(2);
    says(&finished, &[".buildr.yml", "image:"]);
}

#[test]
fn a_broken_manifest_is_shown_with_all_its_problems() {
    let project = Project::with_manifest("image: x\nstages: [a, b]\na:\n  scirpt: [true]\nsecrets: {}\n");
    let finished = Home::new().run(&project).expect_code(2);
    says(&finished, &[".buildr.yml:4:3", "scirpt", "script", "5:1", "not supported yet", "`b`", "^"]);
}

#[test]
fn no_such_folder() {
    let finished = Home::new().call(&["run", "/no/such/folder"]).expect_code(2);
    says(&finished, &["/no/such/folder"]);
}

#[test]
fn an_image_that_does_not_exist() {
    let project = Project::with_script("buildr-test/no-such-image:9", &["true"]);
    let finished = Home::new().run(&project).expect_code(4);
    says(&finished, &["buildr-test/no-such-image:9"]);
}

#[test]
fn no_docker() {
    let mut home = Home::new();
    home.set("DOCKER_HOST", "unix:///no/such/docker.sock");
    let project = Project::with_script(BUSYBOX, &["true"]);
    says(&home.run(&project).expect_code(4), &["Docker", "/no/such/docker.sock"]);
    // A socket on which nobody answers as Docker does.
    let socket = home.path().join("odd.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            (&stream).write_all(b"this is not HTTP\r\n\r\n").ok();
        }
    });
    home.set("DOCKER_HOST", format!("unix://{}", socket.display()));
    says(&home.run(&project).expect_code(4), &["Docker"]);
}

#[test]
fn submit_outside_a_repository() {
    let farm = Farm::without_agents();
    says(&farm.home.call(&["submit"]).expect_code(2), &["--repo"]);
}

#[test]
fn an_orchestrator_that_is_not_there() {
    let mut home = Home::new();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    home.set("BUILDR_ORCHESTRATOR", free.to_string());
    says(&home.call(&["list"]).expect_code(4), &[&free.to_string(), "buildr up"]);
    home.set("BUILDR_ORCHESTRATOR", "not an address");
    says(&home.call(&["list"]).expect_code(2), &["not an address"]);
}

#[test]
fn an_address_where_something_else_answers() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").ok();
        }
    });
    let mut home = Home::new();
    home.set("BUILDR_ORCHESTRATOR", &address);
    says(&home.call(&["list"]).expect_code(4), &[&address]);
}

#[test]
fn an_unknown_build() {
    let farm = Farm::without_agents();
    for command in ["tail", "show", "cancel"] {
        says(&farm.home.call(&[command, "77"]).expect_code(2), &["77", "buildr list"]);
        says(&farm.home.call(&[command, "x7"]).expect_code(2), &["x7"]);
        says(&farm.home.call(&[command, "latest"]).expect_code(2), &["build"]);
    }
}

/// A build that cannot start has an outcome and a reason, in `tail` and in `show`.
#[track_caller]
fn cannot_start(args: &[&str], outcome: &str, code: i32, parts: &[&str]) {
    let farm = Farm::new();
    let build = farm.submit_with(args);
    says(&farm.tail(&build).expect_code(code), parts);
    let shown = farm.show(&build);
    assert_eq!(shown["outcome"], outcome);
    let human = farm.home.call(&["show", &build]).expect_code(0).out();
    for part in parts {
        assert!(human.contains(part), "'{part}' is missing in:\n{human}");
    }
}

#[test]
fn a_repository_that_is_none() {
    cannot_start(&["--repo", "file:///no/such/repository"], "source_error", 4, &["/no/such/repository"]);
}

#[test]
fn a_branch_that_does_not_exist() {
    let project = Project::with_script(BUSYBOX, &["true"]);
    cannot_start(&["--repo", &project.url(), "--branch", "nonesuch"], "source_error", 4, &["nonesuch"]);
}

#[test]
fn a_repository_without_a_manifest() {
    let project = Project::repository(&[("README", "x")]);
    cannot_start(&["--repo", &project.url()], "manifest_error", 2, &[".buildr.yml"]);
}

#[test]
fn a_repository_with_a_broken_manifest() {
    let project = Project::with_manifest("image: x\nstages: [a]\n");
    cannot_start(&["--repo", &project.url()], "manifest_error", 2, &[".buildr.yml:2:10", "`a`"]);
}

#[test]
fn a_farm_build_whose_image_does_not_exist() {
    let project = Project::with_manifest(&manifest("buildr-test/no-such-image:9", &[("a", &["true"])]));
    cannot_start(&["--repo", &project.url()], "image_error", 4, &["buildr-test/no-such-image:9"]);
}

#[test]
fn a_url_that_means_a_command() {
    for url in ["ext::sh -c touch% /tmp/pwned", "-oProxyCommand=touch", "ssh://-oProxyCommand=x/y"] {
        let farm = Farm::new();
        let finished = farm.home.call(&["submit", "--no-follow", &format!("--repo={url}")]);
        if finished.code == 0 {
            farm.tail(finished.out().trim()).expect_code(4);
        } else {
            finished.expect_code(2);
        }
    }
}
