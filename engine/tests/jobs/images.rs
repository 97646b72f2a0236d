//! What images can be like.

use buildr_manifest::Outcome;

use crate::harness::{DerivedImage, Project};

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
