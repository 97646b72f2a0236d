//! Whose files are whose.

use std::os::unix::fs::{MetadataExt, chown};

use buildr_manifest::Outcome;

use crate::harness::{DerivedImage, Project};

fn owner(project: &Project, file: &str) -> (u32, u32) {
    let there = std::fs::symlink_metadata(project.folder.path().join(file)).unwrap();
    (there.uid(), there.gid())
}

#[tokio::test]
async fn stages_run_as_the_image_s_user_who_can_write_the_project() {
    for user in ["dev", "1000", "1000:1234"] {
        let image = DerivedImage::new(&[&format!("USER {user}")]);
        let project =
            Project::with_image(&image.name, &["id -u", "echo made > made; ls -ln made | cut -d' ' -f1"]);
        let (outcome, told) = project.outcome().await;
        assert_eq!(outcome, Outcome::Passed, "{}", told.story);
        assert!(told.text("test").starts_with("1000\n"), "{}", told.text("test"));
        assert_eq!(owner(&project, "made"), owner(&project, "."), "for {user}");
        assert_eq!(owner(&project, ".buildr.yml").0, 0);
    }
}

#[tokio::test]
async fn after_a_local_run_nothing_in_the_user_s_tree_belongs_to_root() {
    let project = Project::with_script(&["mkdir -p a/b; echo x > a/b/c; ln -s nowhere a/link"]);
    for file in [".", ".buildr.yml"] {
        chown(project.folder.path().join(file), Some(4321), Some(4322)).unwrap();
    }
    let (outcome, told) = project.outcome().await;
    assert_eq!(outcome, Outcome::Passed, "{}", told.story);
    for file in [".", ".buildr.yml", "a", "a/b", "a/b/c", "a/link"] {
        assert_eq!(owner(&project, file), (4321, 4322), "{file}");
    }
}

#[tokio::test]
async fn a_tree_is_given_back_also_after_a_kill() {
    let project = Project::with_script(&["echo x > made; echo begun; sleep 1000"]);
    chown(project.folder.path(), Some(4321), Some(4322)).unwrap();
    let mut going = project.start(project.request()).await;
    going.until("begun").await;
    going.kill();
    going.finish().await;
    assert_eq!(owner(&project, "made"), (4321, 4322));
}

#[tokio::test]
async fn a_tree_is_given_back_also_where_the_job_ends_before_its_first_stage() {
    let image = DerivedImage::new(&["USER 1000"]);
    let project = Project::with_image(&image.name, &["true"]);
    chown(project.folder.path(), Some(4321), Some(4322)).unwrap();
    for number in 0..20_000 {
        let path = project.folder.path().join(number.to_string());
        std::fs::write(&path, "").unwrap();
        chown(path, Some(4321), Some(4322)).unwrap();
    }
    let going = project.start(project.request()).await;
    // The files go over to the image's user before a stage can say anything.
    let taken = async {
        while owner(&project, ".") == (4321, 4322) {
            tokio::task::yield_now().await;
        }
    };
    let begun = tokio::time::timeout(std::time::Duration::from_secs(60), taken).await;
    going.cancel();
    going.finish().await;
    begun.expect("the image's user gets the project");
    let theirs = (0..20_000).filter(|number| owner(&project, &number.to_string()) != (4321, 4322));
    assert_eq!((owner(&project, "."), theirs.count()), ((4321, 4322), 0));
}
