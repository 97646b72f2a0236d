//! Real projects, from Debian's source packages, built by their own build systems: locally and on
//! the farm, with the same outcome and the same log text in every stage.

use std::{fs, path::PathBuf, process::Command, thread};

use crate::{
    harness::{DEBIAN, Farm, Home, Project, must},
    shells::lines_of,
};

/// A repository with a project's upstream sources and this manifest.
fn repository(project: &str, manifest: &str) -> Project {
    let sources = PathBuf::from(must(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/test-sources"), &[]));
    let tarball = fs::read_dir(&sources)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            name.starts_with(&format!("{project}_")) && name.contains(".orig.tar.")
        })
        .unwrap_or_else(|| panic!("no sources of {project} in {}", sources.display()));
    let repository = Project::folder(&[(".buildr.yml", manifest)]);
    must(
        "tar",
        &[
            "-C",
            repository.path().to_str().unwrap(),
            "--strip-components=1",
            "-xf",
            tarball.to_str().unwrap(),
        ],
    );
    repository.git(&["init", "-q", "-b", "main"]);
    repository.commit("upstream sources");
    repository
}

/// Builds it in both ways and compares; the lines of each stage.
fn both_ways(project: &Project, stages: &[&str]) -> Vec<Vec<String>> {
    let farm = Farm::new();
    // The local run builds in a clone: each way needs sources that nobody has built before.
    let clone = farm.home.path().join("clone");
    must("git", &["clone", "-q", &project.url(), clone.to_str().unwrap()]);
    let (local, remote) = thread::scope(|scope| {
        let remote = scope.spawn(|| farm.tail(&farm.submit(project)));
        let local = Home::new().call(&["run", clone.to_str().unwrap()]);
        (local, remote.join().unwrap())
    });
    let (local, remote) = (local.expect_code(0), remote.expect_code(0));
    stages
        .iter()
        .map(|stage| {
            let lines = lines_of(&local.out(), stage);
            assert!(!lines.is_empty(), "stage {stage} printed nothing");
            assert_eq!(lines, lines_of(&remote.out(), stage), "stage {stage}");
            lines
        })
        .collect()
}

#[test]
fn lua_is_built_and_runs() {
    let manifest = format!(
        "image: {DEBIAN}\nstages: [build, test]\nprepare:\n  script:\n    - gcc --version | head -n 1\n    - git describe --always\n\
         build:\n  script:\n    - make linux\ntest:\n  script:\n    - make test\n    - src/lua -e 'print(\"two and two:\", 2 + 2)'\n"
    );
    let project = repository("lua5.4", &manifest);
    let commit = project.git(&["describe", "--always"]);
    let stages = both_ways(&project, &["prepare", "build", "test"]);
    assert!(stages[0].contains(&commit), "{:?}", stages[0]);
    assert!(stages[1].iter().any(|line| line.contains("lua.o")), "{:?}", stages[1]);
    assert_eq!(stages[2].last().unwrap(), "two and two:\t4");
}

#[test]
fn zlib_is_built_and_passes_its_own_tests() {
    let manifest = format!(
        "image: {DEBIAN}\nstages:\n  - build\n  - test\nprepare:\n  script: [./configure]\n\
         build:\n  script: [make]\ntest:\n  script:\n    - make test\n    - echo text | ./minigzip | ./minigzip -d\n"
    );
    let project = repository("zlib", &manifest);
    let stages = both_ways(&project, &["prepare", "build", "test"]);
    let tests = stages[2].join("\n");
    assert!(tests.contains("zlib test OK"), "{tests}");
    assert_eq!(stages[2].last().unwrap(), "text");
}

#[test]
fn a_built_binary_is_in_the_folder_after_a_local_run() {
    let project = Project::repository(&[
        ("hello.c", "#include <stdio.h>\nint main(void) { puts(\"built\"); return 0; }\n"),
        (
            ".buildr.yml",
            &format!("image: {DEBIAN}\nstages: [build]\nbuild:\n  script: [gcc -static -o hello hello.c]\n"),
        ),
    ]);
    Home::new().run(&project).expect_code(0);
    let output = Command::new(project.path().join("hello")).output().unwrap();
    assert_eq!(output.stdout, b"built\n");
}
