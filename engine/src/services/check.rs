//! How a service is known to be ready.

use buildr_init::wire::INIT_PATH;

use crate::image::Image;

/// How a service is known to be ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// A program succeeds in its container.
    Program {
        /// With all its arguments.
        command: Vec<String>,
        /// What it is called in messages.
        title: String,
    },
    /// One of these TCP ports is listened on.
    Ports(Vec<u16>),
    /// It goes on running: nothing better is known of it.
    Running,
}

impl Check {
    /// What the manifest says, else what the image does.
    pub(super) fn of(ready: Option<&str>, image: &Image) -> Self {
        let shell = |text: &str| ["/bin/sh", "-c", text].map(str::to_owned).to_vec();
        if let Some(ready) = ready {
            return Self::Program { command: shell(ready), title: format!("`{ready}`") };
        }
        let title = "the image's own health check".to_owned();
        match image.program.health.split_first() {
            Some((kind, rest)) if kind == "CMD-SHELL" && !rest.is_empty() => {
                Self::Program { command: shell(&rest.join(" ")), title }
            }
            Some((kind, rest)) if kind == "CMD" && !rest.is_empty() => {
                Self::Program { command: rest.to_vec(), title }
            }
            _ if image.program.ports.is_empty() => Self::Running,
            _ => Self::Ports(image.program.ports.clone()),
        }
    }

    /// What is run in the service's container to see it; nothing where time alone tells.
    pub(super) fn command(&self) -> Option<Vec<String>> {
        match self {
            Self::Program { command, .. } => Some(command.clone()),
            Self::Ports(ports) => {
                let ports = ports.iter().map(u16::to_string);
                Some([INIT_PATH, "listening"].map(str::to_owned).into_iter().chain(ports).collect())
            }
            Self::Running => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Program;

    #[test]
    fn what_says_most_of_a_services_readiness_is_taken() {
        let image = |health: &[&str], ports: &[u16]| Image {
            program: Program {
                health: health.iter().map(|word| (*word).to_owned()).collect(),
                ports: ports.to_vec(),
                ..Program::default()
            },
            ..Image::default()
        };
        for (ready, health, ports, expected) in [
            (Some("pg_isready"), &["CMD", "x"][..], &[5432][..], "/bin/sh -c pg_isready"),
            (None, &["CMD-SHELL", "curl x"], &[80], "/bin/sh -c curl x"),
            (None, &["CMD", "check", "-a"], &[80], "check -a"),
            (None, &["NONE"], &[80, 443], "/buildr/init listening 80 443"),
            (None, &["CMD-SHELL"], &[], ""),
            (None, &[], &[], ""),
        ] {
            let command = Check::of(ready, &image(health, ports)).command();
            assert_eq!(command.unwrap_or_default().join(" "), expected);
        }
    }
}
