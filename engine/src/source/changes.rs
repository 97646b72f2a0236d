//! Which files of a folder of the user's were changed, as `paths` in a manifest asks. Reads only.

use std::{collections::BTreeSet, path::Path};

use git2::{DiffOptions, Oid, Repository};

use super::folder::discover;

/// Where so many files were changed nobody asks for a certain one: it is as if there were nothing to
/// compare with.
const MAX_PATHS: usize = 20_000;

/// Where the default branch may be, the best place first.
const DEFAULT_BRANCHES: [&str; 5] = [
    "refs/remotes/origin/HEAD",
    "refs/remotes/origin/main",
    "refs/remotes/origin/master",
    "refs/heads/main",
    "refs/heads/master",
];

/// The files that differ from where HEAD left the default branch: commits since then, what is
/// changed and not committed, and files that git does not know and does not ignore. From the root of
/// the repository, with `/` between the parts, sorted.
///
/// None where there is nothing to compare with: no repository, no commit, no default branch. Runs
/// nothing, writes nothing, and never fails: what cannot be read is none. Blocks.
pub fn changed_paths(folder: &Path) -> Option<Vec<String>> {
    let repository = discover(folder)?;
    let head = repository.head().ok()?.peel_to_commit().ok()?.id();
    let base = repository.merge_base(head, default_branch(&repository)?).ok()?;
    let tree = repository.find_commit(base).ok()?.tree().ok()?;
    let mut options = DiffOptions::new();
    options.include_untracked(true).recurse_untracked_dirs(true).ignore_submodules(true);
    let diff = repository.diff_tree_to_workdir_with_index(Some(&tree), Some(&mut options)).ok()?;
    if diff.deltas().len() > MAX_PATHS {
        return None;
    }
    let paths: BTreeSet<String> = diff
        .deltas()
        .flat_map(|delta| [delta.old_file(), delta.new_file()])
        .filter_map(|file| file.path_bytes().map(|path| String::from_utf8_lossy(path).into_owned()))
        .collect();
    Some(paths.into_iter().collect())
}

fn default_branch(repository: &Repository) -> Option<Oid> {
    let commit = |name: &&str| repository.find_reference(name).ok()?.peel_to_commit().ok();
    DEFAULT_BRANCHES.iter().find_map(commit).map(|commit| commit.id())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use git2::{Commit, IndexAddOption, Signature};
    use tempfile::TempDir;

    use super::*;

    struct Project {
        folder: TempDir,
        repository: Repository,
    }

    impl Project {
        /// A repository whose `main` has `a`, `b` and a `.gitignore`.
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let mut options = git2::RepositoryInitOptions::new();
            let repository =
                Repository::init_opts(folder.path(), options.initial_head("refs/heads/main")).unwrap();
            let project = Self { folder, repository };
            project.write(".gitignore", "target\n");
            project.write("a", "1");
            project.write("b", "1");
            project.commit();
            project
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn head(&self) -> Option<Commit<'_>> {
            self.repository.head().ok().and_then(|head| head.peel_to_commit().ok())
        }

        fn commit(&self) -> Oid {
            let mut index = self.repository.index().unwrap();
            index.add_all(["*"], IndexAddOption::DEFAULT, None).unwrap();
            index.update_all(["*"], None).unwrap();
            index.write().unwrap();
            let tree = self.repository.find_tree(index.write_tree().unwrap()).unwrap();
            let who = Signature::now("a", "a@example.com").unwrap();
            let parents: Vec<Commit<'_>> = self.head().into_iter().collect();
            let parents: Vec<&Commit<'_>> = parents.iter().collect();
            self.repository.commit(Some("HEAD"), &who, &who, "c", &tree, &parents).unwrap()
        }

        fn branch(&self, name: &str) {
            let head = self.head().unwrap();
            self.repository.branch(name, &head, false).unwrap();
            self.repository.set_head(&format!("refs/heads/{name}")).unwrap();
        }

        fn changes(&self) -> Option<Vec<String>> {
            changed_paths(self.folder.path())
        }
    }

    fn owned(paths: &[&str]) -> Option<Vec<String>> {
        Some(paths.iter().map(|path| (*path).to_owned()).collect())
    }

    #[test]
    fn a_clean_default_branch_has_no_changes() {
        assert_eq!(Project::new().changes(), owned(&[]));
    }

    #[test]
    fn the_dirty_tree_counts_and_ignored_files_do_not() {
        let project = Project::new();
        project.write("a", "2");
        fs::remove_file(project.folder.path().join("b")).unwrap();
        project.write("new/deep/file", "1");
        project.write("target/out", "1");
        assert_eq!(project.changes(), owned(&["a", "b", "new/deep/file"]));
    }

    #[test]
    fn commits_since_the_default_branch_count_and_its_own_do_not() {
        let project = Project::new();
        project.branch("feature");
        project.write("src/lib", "1");
        project.commit();
        project.repository.set_head("refs/heads/main").unwrap();
        fs::remove_dir_all(project.folder.path().join("src")).unwrap();
        project.write("b", "of main");
        project.commit();
        project.repository.set_head("refs/heads/feature").unwrap();
        project.repository.checkout_head(Some(git2::build::CheckoutBuilder::new().force())).unwrap();
        assert_eq!(project.changes(), owned(&["src/lib"]));
    }

    #[test]
    fn the_remotes_default_branch_comes_first() {
        let project = Project::new();
        let first = project.head().unwrap().id();
        project.repository.reference("refs/remotes/origin/trunk", first, true, "").unwrap();
        let (head, trunk) = ("refs/remotes/origin/HEAD", "refs/remotes/origin/trunk");
        project.repository.reference_symbolic(head, trunk, true, "").unwrap();
        project.write("a", "2");
        project.commit();
        assert_eq!(project.changes(), owned(&["a"]));
    }

    #[test]
    fn without_anything_to_compare_with_there_is_no_answer() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(changed_paths(folder.path()), None, "no repository");
        let repository = Repository::init(folder.path()).unwrap();
        assert_eq!(changed_paths(folder.path()), None, "no commit");
        drop(repository);
        let project = Project::new();
        project.branch("topic");
        project.repository.find_reference("refs/heads/main").unwrap().delete().unwrap();
        assert_eq!(project.changes(), None, "no default branch");
    }
}
