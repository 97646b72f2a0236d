//! What a stage sees of the world.

use buildr_engine::{DockerSocket, Identity};
use buildr_manifest::Outcome;

use crate::harness::{BUSYBOX, DerivedImage, Project, stage};

#[tokio::test]
async fn the_manifest_wins_over_the_image_and_buildr_over_both() {
    let image = DerivedImage::new(&["ENV KEPT=image", "ENV COLOR=image", "ENV BUILDR_TAG=image"]);
    let manifest = format!(
        "image: {}\nenvironment:\n  vars:\n    - COLOR=manifest\n    - ODD=a b=c $X\nstages: [test]\n{}",
        image.name,
        stage(
            "test",
            &[
                "echo $KEPT $COLOR $BUILDR $BUILDR_BUILD $BUILDR_STAGE $BUILDR_EVENT",
                "echo \"$ODD\"",
                "env | grep -c ^BUILDR_TAG= || true",
                "echo $BUILDR_WORKSPACE $CI"
            ]
        ),
    );
    let (outcome, told) = Project::new(&manifest).outcome().await;
    assert_eq!(outcome, Outcome::Passed);
    assert_eq!(told.text("test"), "image manifest true local test local\na b=c $X\n0\n/workspace true\n");
}

#[tokio::test]
async fn a_build_of_a_farm_knows_its_number_job_and_agent() {
    let project =
        Project::with_script(&["echo $BUILDR_BUILD $BUILDR_JOB $BUILDR_AGENT", "echo $COMPOSE_PROJECT_NAME"]);
    let mut request = project.request();
    request.identity = Identity { build: Some(42), job: Some("42.1".into()), agent: Some("farmer".into()) };
    let run = request.run.clone();
    let (_, told) = project.start(request).await.finish().await;
    assert_eq!(told.text("test"), format!("42 42.1 farmer\nbuildr-{run}\n"));
}

#[tokio::test]
async fn standard_input_is_empty_and_the_host_s_environment_is_not_there() {
    let (outcome, told) = Project::with_script(&["cat", "echo ${CARGO_MANIFEST_DIR:-unset}"]).outcome().await;
    assert_eq!((outcome, told.text("test").as_str()), (Outcome::Passed, "unset\n"));
}

#[tokio::test]
async fn the_docker_socket_is_there_as_the_operator_decides() {
    let script = ["if test -S /var/run/docker.sock; then echo yes; else echo no; fi"];
    let mut project = Project::with_script(&script);
    assert_eq!(project.run().await.text("test"), "yes\n");
    project.config.docker_socket = DockerSocket::None;
    assert_eq!(project.run().await.text("test"), "no\n");
}

#[tokio::test]
async fn stages_run_one_after_the_other_in_one_container() {
    let names: Vec<_> = (0..8).map(|n| format!("s{n}")).collect();
    let stages: String = names.iter().map(|name| stage(name, &["echo $BUILDR_STAGE >> /tmp/all"])).collect();
    let last = stage("last", &["cat /tmp/all"]);
    let manifest = format!("image: {BUSYBOX}\nstages: [{}, last]\n{stages}{last}", names.join(", "));
    let (_, told) = Project::new(&manifest).outcome().await;
    assert_eq!(told.text("last"), names.join("\n") + "\n");
}

#[tokio::test]
async fn a_variable_that_is_too_long_for_the_system_is_told_as_such() {
    let value = "x".repeat(200 << 10);
    let manifest = format!(
        "image: {BUSYBOX}\nenvironment: {{vars: ['BIG={value}']}}\nstages: [test]\n{}",
        stage("test", &["true"])
    );
    let (outcome, _) = Project::new(&manifest).outcome().await;
    assert!(outcome.to_string().contains("its environment is too large"), "{outcome}");
}
