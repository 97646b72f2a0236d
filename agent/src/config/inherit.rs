//! Which variables of the agent's own environment a manifest may see: those that the operator
//! listed, and never buildr's own.

use std::collections::BTreeMap;

use wildmatch::WildMatch;

/// The operator's list.
#[derive(Clone, Debug)]
pub struct InheritRules(Vec<WildMatch>);

/// A glob that can match no variable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("--inherit-env `{0}` can match no variable: letters, digits, `_`, `*` and `?`")]
pub struct InvalidGlob(String);

impl InheritRules {
    /// Checks the globs.
    pub fn new(globs: &[String]) -> Result<Self, InvalidGlob> {
        globs.iter().map(|glob| rule(glob)).collect::<Result<_, _>>().map(Self)
    }

    /// What is left of an environment.
    pub fn narrow(&self, environment: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let allowed = |name: &str| !is_own(name) && self.0.iter().any(|rule| rule.matches(name));
        environment
            .iter()
            .filter(|(name, _)| allowed(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }
}

fn rule(glob: &str) -> Result<WildMatch, InvalidGlob> {
    let fits = !glob.is_empty()
        && glob.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'*' | b'?'));
    if fits { Ok(WildMatch::new(glob)) } else { Err(InvalidGlob(glob.to_owned())) }
}

/// Buildr's own settings, the token among them.
fn is_own(name: &str) -> bool {
    name == "BUILDR" || name.starts_with("BUILDR_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn narrowed(globs: &[&str]) -> Vec<String> {
        let names =
            ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "PATH", "BUILDR", "BUILDR_TOKEN", "MAVEN_OPTS"];
        let environment = names.iter().map(|name| ((*name).to_owned(), "x".to_owned())).collect();
        let globs: Vec<_> = globs.iter().map(|glob| (*glob).to_owned()).collect();
        InheritRules::new(&globs).unwrap().narrow(&environment).into_keys().collect()
    }

    #[test]
    fn nothing_is_inherited_unless_it_is_listed() {
        assert!(narrowed(&[]).is_empty());
        assert_eq!(narrowed(&["HTTP*_PROXY", "MAVEN_????"]), ["HTTPS_PROXY", "HTTP_PROXY", "MAVEN_OPTS"]);
        assert_eq!(narrowed(&["PATH"]), ["PATH"]);
    }

    #[test]
    fn a_glob_for_everything_leaves_out_buildrs_own() {
        let names = narrowed(&["*", "BUILDR*", "BUILDR_TOKEN"]);
        assert_eq!(names.len(), 5);
        assert!(!names.iter().any(|name| name.starts_with("BUILDR")));
    }

    #[test]
    fn a_glob_that_can_match_nothing_is_refused() {
        for glob in ["", "A=B", "A B", "[A]"] {
            assert!(InheritRules::new(&[glob.to_owned()]).is_err(), "{glob}");
        }
    }
}
