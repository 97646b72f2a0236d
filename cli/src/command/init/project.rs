//! What kind of project a folder is, and the manifest to begin with. What is written can be carried
//! out as it is, and has no warning.

use std::{fmt::Write, fs, io::Read, path::Path};

/// More than this of a file is not looked at.
const MAX_READ: u64 = 1 << 20;

/// A kind of project, by the file that tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Rust,
    Node,
    Maven,
    Go,
    Python,
    Make,
    Docker,
    Unknown,
}

/// A stage to be written.
struct Stage {
    name: &'static str,
    comment: &'static str,
    script: Vec<String>,
}

impl Kind {
    /// The files that tell the kinds, the most telling first.
    const SIGNS: [(&'static str, Self); 7] = [
        ("Cargo.toml", Self::Rust),
        ("package.json", Self::Node),
        ("pom.xml", Self::Maven),
        ("go.mod", Self::Go),
        ("pyproject.toml", Self::Python),
        ("Makefile", Self::Make),
        ("Dockerfile", Self::Docker),
    ];

    /// Looks at a folder.
    pub(super) fn of(folder: &Path) -> Self {
        let sign = Self::SIGNS.iter().find(|(name, _)| folder.join(name).is_file());
        sign.map_or(Self::Unknown, |(_, kind)| *kind)
    }

    /// What it is, in words.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Rust => "a Rust project",
            Self::Node => "a Node project",
            Self::Maven => "a Maven project",
            Self::Go => "a Go project",
            Self::Python => "a Python project",
            Self::Make => "a project with a Makefile",
            Self::Docker => "a project with a Dockerfile",
            Self::Unknown => "a project of no kind that is known",
        }
    }

    fn image(self) -> &'static str {
        match self {
            Self::Rust => "rust:1",
            Self::Node => "node:22",
            Self::Maven => "maven:3-eclipse-temurin-21",
            Self::Go => "golang:1",
            Self::Python => "python:3.13",
            Self::Make => "gcc:14",
            Self::Docker => "docker:cli",
            Self::Unknown => "alpine:3.20",
        }
    }

    fn stages(self, folder: &Path) -> Vec<Stage> {
        match self {
            Self::Rust => vec![
                stage("prepare", "", &["rustup component add clippy rustfmt"]),
                stage("lint", "", &["cargo fmt --all --check", "cargo clippy --all-targets -- -D warnings"]),
                stage("test", "", &["cargo test --workspace"]),
            ],
            Self::Node => node(folder),
            Self::Maven => {
                let maven = if folder.join("mvnw").is_file() { "sh ./mvnw" } else { "mvn" };
                vec![stage("build", "Compiles, runs the tests, packages.", &[&format!("{maven} -B verify")])]
            }
            Self::Go => vec![
                stage("lint", "", &["go vet ./..."]),
                stage("test", "", &["go test ./..."]),
                stage("build", "", &["go build ./..."]),
            ],
            Self::Python => python(folder),
            Self::Make => make(folder),
            Self::Docker => {
                let comment = "The Docker of the machine is there: it builds the image.";
                vec![stage("build", comment, &["docker build --tag \"app:$BUILDR_BUILD\" ."])]
            }
            Self::Unknown => vec![stage("test", "Put the commands of your build here.", &["echo hello"])],
        }
    }
}

/// The manifest for a folder.
pub(super) fn manifest(folder: &Path, kind: Kind) -> String {
    let stages = kind.stages(folder);
    let listed = stages.iter().map(|stage| stage.name).filter(|name| *name != "prepare");
    let listed: Vec<&str> = listed.collect();
    let mut text = format!(
        "# How this project is built. `buildr run` builds it here, `buildr submit` on the farm,\n\
         # `buildr lint` checks this file.\n\n\
         # The container in which all stages run. The project is in it, at /workspace.\n\
         image: {}\n\n\
         # The stages, in the order in which they run. The first failure ends the build.\n\
         stages: [{}]\n",
        kind.image(),
        listed.join(", ")
    );
    for stage in stages {
        text.push('\n');
        let comment = match (stage.name, stage.comment) {
            ("prepare", "") => "Runs before all stages. What it installs is there for them.",
            (_, comment) => comment,
        };
        if !comment.is_empty() {
            let _ = writeln!(text, "# {comment}");
        }
        let _ = writeln!(text, "{}:\n  script:", stage.name);
        for command in stage.script {
            let _ = writeln!(text, "    - {command}");
        }
    }
    text
}

fn stage(name: &'static str, comment: &'static str, script: &[&str]) -> Stage {
    Stage { name, comment, script: script.iter().map(|command| (*command).to_owned()).collect() }
}

/// By the lock file, which tells who manages the packages; and the scripts that there are.
fn node(folder: &Path) -> Vec<Stage> {
    let has = |name: &str| folder.join(name).is_file();
    let (install, run): (&[&str], _) = if has("pnpm-lock.yaml") {
        (&["corepack enable", "pnpm install --frozen-lockfile"], "pnpm run")
    } else if has("yarn.lock") {
        (&["corepack enable", "yarn install --immutable"], "yarn run")
    } else if has("package-lock.json") {
        (&["npm ci"], "npm run")
    } else {
        (&["npm install"], "npm run")
    };
    let package: serde_json::Value =
        serde_json::from_str(&read(&folder.join("package.json"))).unwrap_or_default();
    let scripts = ["lint", "test", "build"].into_iter().filter(|name| package["scripts"][name].is_string());
    let mut stages = vec![stage("prepare", "", install)];
    stages.extend(scripts.map(|name| stage(name, "", &[&format!("{run} {name}")])));
    if stages.len() == 1 {
        let comment = "package.json has no script `test`, `lint` or `build`: put your own commands here.";
        stages.push(stage("test", comment, &["node --test"]));
    }
    stages
}

fn python(folder: &Path) -> Vec<Stage> {
    let has = |name: &str| folder.join(name).is_file();
    let (install, test): (&[&str], _) = if has("uv.lock") {
        (&["pip install uv", "uv sync --frozen"], "uv run pytest")
    } else if has("poetry.lock") {
        (&["pip install poetry", "poetry install"], "poetry run pytest")
    } else {
        (&["pip install --editable . pytest"], "python -m pytest")
    };
    vec![stage("prepare", "", install), stage("test", "", &[test])]
}

/// The targets that there are, of those that people build with.
fn make(folder: &Path) -> Vec<Stage> {
    let text = read(&folder.join("Makefile"));
    let has = |target: &str| {
        text.lines().any(|line| {
            let rest = line.strip_prefix(target).map(str::trim_start);
            rest.is_some_and(|rest| rest.starts_with(':') && !rest.starts_with(":="))
        })
    };
    let targets =
        [("lint", "make lint"), ("build", "make build"), ("test", "make test"), ("check", "make check")];
    let mut stages: Vec<Stage> = targets
        .iter()
        .filter(|(name, _)| has(name))
        .map(|(name, command)| stage(name, "", &[command]))
        .collect();
    if !stages.iter().any(|stage| stage.name == "build") {
        stages.insert(0, stage("build", "", &["make"]));
    }
    stages
}

/// The beginning of a file, or nothing.
fn read(path: &Path) -> String {
    let mut bytes = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(MAX_READ).read_to_end(&mut bytes));
    if read.is_err() {
        return String::new();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use buildr_manifest::{Context, Manifest};
    use tempfile::TempDir;

    use super::*;

    fn project(files: &[(&str, &str)]) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    /// The manifest of a project, checked: no warning, and today's engine carries it out.
    fn written(files: &[(&str, &str)]) -> (Kind, String) {
        let folder = project(files);
        let kind = Kind::of(folder.path());
        let text = manifest(folder.path(), kind);
        let (manifest, warnings) = Manifest::parse(text.as_bytes(), ".buildr.yml").unwrap();
        assert!(warnings.is_empty(), "{warnings:?}\n{text}");
        let plan = manifest.plan(&Context::default()).unwrap();
        assert!(plan.warnings.is_empty(), "{:?}", plan.warnings);
        plan.supported().unwrap();
        (kind, text)
    }

    fn check(files: &[(&str, &str)], kind: Kind, parts: &[&str]) {
        let (found, text) = written(files);
        assert_eq!(found, kind);
        for part in parts {
            assert!(text.contains(part), "no {part:?} in:\n{text}");
        }
    }

    #[test]
    fn a_rust_project_is_linted_and_tested() {
        let (kind, text) = written(&[("Cargo.toml", ""), ("Makefile", ""), ("Dockerfile", "")]);
        assert_eq!(kind, Kind::Rust);
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_node_project_is_built_by_its_lock_file_and_scripts() {
        let scripts = r#"{"scripts": {"test": "vitest", "build": "vite build", "start": "vite"}}"#;
        let package = ("package.json", scripts);
        let npm = ["npm ci", "stages: [test, build]", "npm run test"];
        check(&[package, ("package-lock.json", "")], Kind::Node, &npm);
        check(&[package, ("pnpm-lock.yaml", "")], Kind::Node, &["pnpm install --frozen-lockfile"]);
        check(&[package, ("yarn.lock", "")], Kind::Node, &["yarn run build"]);
        check(&[("package.json", "no json")], Kind::Node, &["npm install", "node --test"]);
    }

    #[test]
    fn a_maven_project_is_built_by_its_wrapper_where_it_has_one() {
        check(&[("pom.xml", "")], Kind::Maven, &["- mvn -B verify"]);
        check(&[("pom.xml", ""), ("mvnw", "")], Kind::Maven, &["./mvnw -B verify"]);
    }

    #[test]
    fn a_go_project_is_vetted_tested_and_built() {
        check(&[("go.mod", "")], Kind::Go, &["go vet ./...", "stages: [lint, test, build]"]);
    }

    #[test]
    fn a_python_project_is_tested_by_its_manager() {
        check(&[("pyproject.toml", "")], Kind::Python, &["python -m pytest"]);
        check(&[("pyproject.toml", ""), ("uv.lock", "")], Kind::Python, &["uv sync", "uv run pytest"]);
        check(&[("pyproject.toml", ""), ("poetry.lock", "")], Kind::Python, &["poetry run pytest"]);
    }

    #[test]
    fn a_makefile_gives_the_targets_that_it_has() {
        let text = "test := no target\nbuild:\n\tcc a.c\nlint : build\n\ttrue\n";
        check(&[("Makefile", text)], Kind::Make, &["stages: [lint, build]"]);
        check(&[("Makefile", "all:\n\ntest:\n")], Kind::Make, &["stages: [build, test]", "- make\n"]);
    }

    #[test]
    fn a_dockerfile_alone_is_built() {
        check(
            &[("Dockerfile", "FROM scratch")],
            Kind::Docker,
            &["docker build --tag \"app:$BUILDR_BUILD\" ."],
        );
    }

    #[test]
    fn any_other_project_gets_a_place_to_begin() {
        check(&[], Kind::Unknown, &["image: alpine:3.20", "- echo hello"]);
    }
}
