//! Writes the script that a stage's shell runs.
//!
//! Three things around each entry are ours, and none of them may be noticed:
//!
//! - the **mark** tells init through the FIFO `step` which entry begins and waits for the answer on
//!   the FIFO `go`. The FIFOs are opened by name and for the mark only, so that no descriptor of
//!   ours is there for a build to close, reuse or pass on to what it starts;
//! - the **head** of the `eval` brings back what the mark had to put aside: `set -x` and `$?`;
//! - the **tail** of the `eval` ends it with 0, since a shell under `-e` would end at an `eval`
//!   that does not, although the entry (`[ -f x ] && y`) is none to end at.
//!
//! Their standard error is the FIFO, so whatever `set -x` says of them goes there, and init drops
//! it. Without `-e`, `$?` carries over from entry to entry and is the stage's exit code, as in any
//! script. The whole is one group: a shell has read it all before an entry can change how it reads.

use std::fmt::Write;

/// What a mark looks like on the FIFO: `@` and the entry's number.
pub(crate) const MARK: u8 = b'@';

/// The script for `entries`; `step` and `go` are the paths of the two FIFOs.
pub(crate) fn generate(entries: &[String], step: &str, go: &str) -> String {
    let status = r#"case $-,${_buildr:-0} in *e*,*|*,0) ;; *) (exit "$_buildr");; esac"#;
    let (step, go) = (quote(step), quote(go));
    let mut script = String::from("{\n");
    for (number, entry) in entries.iter().enumerate() {
        let body = format!(
            "{{ case ${{_buildr-0}} in x*) _buildr=${{_buildr#x}}; command set -x;; esac; {status}; }} 2<>{step}\n\
             {entry}\n\n{{ _buildr=$?; }} 2<>{step} || :"
        );
        let result = write!(
            script,
            "{{ command printf '@%s\\n' {number} && command read -r _ || :; \
             case $- in *x*) command set +x; _buildr=x${{_buildr-0}};; esac; }} 1<>{step} 0<>{go} 2>&1 || :\n\
             eval {}\n",
            quote(&body)
        );
        result.expect("writing to a string cannot fail");
    }
    script.push_str(&format!("{{ {status}; }} 2<>{step}\n}}\n"));
    script
}

/// The number in a line that came through the FIFO, if it is a mark.
pub(crate) fn parse_mark(line: &[u8]) -> Option<usize> {
    let digits = line.strip_prefix(&[MARK])?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// As one word of a shell's, whatever is in it.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_quote_in_an_entry_stays_one_word() {
        assert_eq!(quote("it's"), r"'it'\''s'");
    }

    #[test]
    fn each_entry_has_its_mark() {
        let script = generate(&["a".into(), "b".into()], "/c/0.step", "/c/0.go");
        assert_eq!(script.matches("command printf").count(), 2);
        assert!(script.contains("'@%s\\n' 1 "));
    }

    #[test]
    fn a_script_without_entries_is_still_a_script() {
        assert!(generate(&[], "/s", "/g").starts_with("{\n{ case"));
    }

    #[test]
    fn only_an_exact_mark_is_one() {
        assert_eq!(parse_mark(b"@12"), Some(12));
        for line in [&b"12"[..], b"@", b"@x", b"+ command printf @%s\\n @1", b" @1", b"@1 ", b""] {
            assert_eq!(parse_mark(line), None, "{line:?}");
        }
    }
}
