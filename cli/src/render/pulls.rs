//! The images that are being pulled, of which there may be several at once.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{escape::sanitize, text};

/// What is known of each.
#[derive(Debug, Default)]
pub(super) struct Pulls(BTreeMap<String, Pull>);

#[derive(Debug)]
struct Pull {
    current: u64,
    total: u64,
    since: Timestamp,
}

impl Pulls {
    /// Takes in how far a pull is.
    pub(super) fn progress(&mut self, image: &str, current: u64, total: u64, at: Timestamp) {
        let pull = self.0.entry(image.to_owned()).or_insert(Pull { current, total, since: at });
        (pull.current, pull.total) = (current, total);
    }

    /// The image is here.
    pub(super) fn done(&mut self, image: &str) {
        self.0.remove(image);
    }

    /// What is being pulled, and since when; none where nothing is.
    pub(super) fn words(&self) -> Option<(String, Timestamp)> {
        let since = self.0.values().map(|pull| pull.since).min()?;
        let words = match self.0.iter().next() {
            Some((image, pull)) if self.0.len() == 1 => {
                let so_far = match pull.total {
                    0 => text::bytes(pull.current),
                    total => format!("{} of {}", text::bytes(pull.current), text::bytes(total)),
                };
                format!("pulling image {}, {so_far}", sanitize(image))
            }
            _ => format!("pulling {}", self.shortly()),
        };
        Some((words, since))
    }

    fn shortly(&self) -> String {
        let one = |(image, pull): (&String, &Pull)| match pull.total {
            0 => format!("{} {}", sanitize(image), text::bytes(pull.current)),
            total => {
                let percent = u128::from(pull.current.min(total)) * 100 / u128::from(total);
                format!("{} {percent}%", sanitize(image))
            }
        };
        self.0.iter().map(one).collect::<Vec<_>>().join(", ")
    }
}
