//! What images can be like.

use buildr_engine::Pull;
use buildr_manifest::Outcome;
use serde_json::json;

use crate::harness::{DerivedImage, Project, await_no_containers, containers, docker};

/// As Docker calls this machine's architecture.
const OURS: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

fn image_error(outcome: Outcome) -> String {
    match outcome {
        Outcome::ImageError { message } => message,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_image_that_is_nowhere_is_named_with_what_to_do() {
    let project = Project::with_image("localhost:1/no/such:image", &["true"]);
    let (outcome, told) = project.outcome().await;
    let message = image_error(outcome);
    assert!(message.contains("localhost:1/no/such:image"), "{message}");
    assert!(message.contains("cannot reach the registry localhost:1"), "{message}");
    assert_eq!(told.state("test").word(), "not_reached");
}

#[tokio::test]
async fn an_image_without_a_shell_says_so() {
    let image = DerivedImage::empty();
    let (outcome, _) = Project::with_image(&image.name, &["true"]).outcome().await;
    let message = image_error(outcome);
    assert!(message.contains("has no /bin/sh"), "{message}");
}

#[tokio::test]
async fn entrypoint_command_and_health_check_of_an_image_do_not_run() {
    let image = DerivedImage::new(&[
        r#"ENTRYPOINT ["/bin/sh", "-c", "echo entry > /ran"]"#,
        r#"CMD ["echo", "command"]"#,
        "HEALTHCHECK --interval=1s CMD touch /ran",
        "WORKDIR /elsewhere",
    ]);
    let (outcome, told) = Project::with_image(&image.name, &["pwd", "test ! -e /ran", "ps"]).outcome().await;
    assert_eq!(outcome, Outcome::Passed, "{}", told.story);
    assert!(told.text("test").starts_with("/workspace\n"), "{}", told.text("test"));
}

#[tokio::test]
async fn an_image_whose_user_is_unknown_cannot_run_stages() {
    let image = DerivedImage::new(&["USER nobody-knows"]);
    let (outcome, _) = Project::with_image(&image.name, &["true"]).outcome().await;
    let message = image_error(outcome);
    assert!(message.contains("nobody-knows"), "{message}");
}

#[tokio::test]
async fn where_images_are_never_pulled_one_that_is_not_here_is_an_error() {
    let mut project = Project::with_image("localhost:1/no/such:image", &["true"]);
    project.config.pull = Pull::Never;
    let message = image_error(project.outcome().await.0);
    assert!(message.contains("localhost:1/no/such:image is not on this machine"), "{message}");
    let mut project = Project::with_script(&["true"]);
    project.config.pull = Pull::Never;
    assert_eq!(project.outcome().await.0, Outcome::Passed);
}

#[tokio::test]
async fn where_images_are_always_pulled_one_that_is_here_does_not_do() {
    let image = DerivedImage::named("localhost:1/engine/always:1", &[]);
    let mut project = Project::with_image(&image.name, &["true"]);
    assert_eq!(project.outcome().await.0, Outcome::Passed);
    project.config.pull = Pull::Always;
    let message = image_error(project.outcome().await.0);
    assert!(message.contains("cannot reach the registry localhost:1"), "{message}");
}

#[tokio::test]
async fn volumes_of_an_image_go_with_the_container_and_hide_no_project() {
    let image = DerivedImage::new(&["VOLUME /workspace", "VOLUME /data"]);
    let script = ["test -e /workspace/.buildr.yml", "echo x > /data/buildr-test-volume", "test -d /data"];
    let project = Project::with_image(&image.name, &script);
    let volumes = || docker(&["volume", "ls", "-q"]);
    let mut going = project.start(project.request()).await;
    going.until("[test started]").await;
    let mine = containers(&project.config.owner, &going.run);
    let of_container = match mine.first() {
        Some(id) => {
            let template = "{{range .Mounts}}{{if eq .Type \"volume\"}}{{.Name}} {{end}}{{end}}";
            docker(&["inspect", "--format", template, id])
        }
        None => panic!("the container is there while the stage runs"),
    };
    let names: Vec<_> = of_container.split_whitespace().map(str::to_owned).collect();
    assert_eq!(names.len(), 1, "/data alone: {of_container}");
    let run = going.run.clone();
    let (finished, told) = going.finish().await;
    assert_eq!(finished.outcome, Outcome::Passed, "{}", told.story);
    await_no_containers(&project.config.owner, &run).await;
    assert!(!volumes().lines().any(|volume| volume == names[0]), "{names:?} is left");
}

#[tokio::test]
async fn an_image_may_have_its_own_workspace_and_control_folder() {
    let theirs = "mkdir -p /workspace /buildr && echo theirs > /workspace/theirs && echo x > /buildr/init";
    let image = DerivedImage::by_script(theirs, &[]);
    let script = ["test -e .buildr.yml", "test ! -e theirs", "echo mine > made"];
    let project = Project::with_image(&image.name, &script);
    let (outcome, told) = project.outcome().await;
    assert_eq!(outcome, Outcome::Passed, "{}", told.story);
    assert!(project.folder.path().join("made").exists());
}

#[tokio::test]
async fn an_image_whose_control_folder_is_a_file_is_refused_by_docker_with_its_words() {
    let image = DerivedImage::by_script("rm -rf /buildr && echo file > /buildr", &[]);
    let (outcome, told) = Project::with_image(&image.name, &["true"]).outcome().await;
    assert!(!matches!(outcome, Outcome::Passed | Outcome::Failed { .. }), "{outcome:?}");
    assert!(outcome.to_string().contains("not a directory"), "{outcome} {}", told.story);
}

#[tokio::test]
async fn an_image_may_have_any_temporary_folder_or_none() {
    for (trap, makes) in [
        ("rm -rf /tmp", "test ! -e /tmp"),
        ("rm -rf /tmp && echo file > /tmp", "test -f /tmp"),
        ("rm -rf /tmp && mkdir -m 1777 /elsewhere && ln -s /elsewhere /tmp", "echo x > /tmp/x"),
        ("rm -rf /tmp && ln -s /nowhere /tmp", "test -L /tmp"),
        ("chmod 0555 /tmp", "test -d /tmp"),
    ] {
        let image = DerivedImage::by_script(trap, &["USER dev"]);
        let (outcome, told) = Project::with_image(&image.name, &[makes, "echo made > out"]).outcome().await;
        assert_eq!(outcome, Outcome::Passed, "{trap}: {}", told.story);
    }
}

#[tokio::test]
async fn an_image_without_a_table_of_users_runs_as_the_number_that_it_names() {
    let image = DerivedImage::by_script("rm -rf /etc/passwd /etc/group", &["USER 4711:4712"]);
    let (outcome, told) = Project::with_image(&image.name, &["id -u; id -g", "touch out"]).outcome().await;
    assert_eq!(outcome, Outcome::Passed, "{}", told.story);
    assert!(told.text("test").starts_with("4711\n4712\n"), "{}", told.text("test"));
}

#[tokio::test]
async fn a_large_environment_and_build_triggers_of_an_image_do_no_harm() {
    let config = json!({
        "Env": ["PATH=/bin", format!("A={}", "x".repeat(100_000)), format!("B={}", "x".repeat(100_000))],
        "OnBuild": ["RUN false"], "StopSignal": "SIGINT", "WorkingDir": "/made/by/docker",
        "Healthcheck": {"Test": ["NONE"]},
    });
    let image = DerivedImage::described(OURS, "true", &config);
    let (outcome, told) = Project::with_image(&image.name, &["echo $((${#A} + ${#B}))"]).outcome().await;
    assert_eq!(outcome, Outcome::Passed, "{}", told.story);
    assert_eq!(told.text("test"), "200000\n");
}

#[tokio::test]
async fn a_program_of_another_architecture_is_told_with_both() {
    // An ELF file for s390x that is nothing but its header.
    let header = r"\177ELF\002\002\001\000\000\000\000\000\000\000\000\000\000\002\000\026\000\000\000\001";
    let script = format!("rm /bin/sh; printf '{header}%040d' 0 > /bin/sh; chmod 755 /bin/sh");
    let image = DerivedImage::described("s390x", &script, &json!({"Env": ["PATH=/bin"]}));
    let (outcome, told) = Project::with_image(&image.name, &["true"]).outcome().await;
    let message = image_error(outcome);
    assert!(message.contains("the image is for s390x, this machine is "), "{message}\n{}", told.story);
}

#[tokio::test]
async fn an_image_for_another_architecture_runs_where_its_programs_do() {
    let image = DerivedImage::described("s390x", "true", &json!({"Env": ["PATH=/bin"]}));
    let (outcome, told) = Project::with_image(&image.name, &["echo runs"]).outcome().await;
    assert_eq!(outcome, Outcome::Passed, "{}", told.story);
}
