use clap::Parser;

use super::*;

fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn config(arguments: &[&str]) -> Result<Config, Error> {
    let mut all = vec!["buildr-agent", "--orchestrator", "here:1", "--name", "a", "--data", "/d"];
    all.extend(arguments);
    Config::new(Args::try_parse_from(all).expect("clap takes it"), &environment(&[]))
}

#[test]
fn an_address_becomes_a_url() {
    for text in ["ci:50051", "http://ci:50051", "http://ci:50051/", " ci:50051 "] {
        assert_eq!(endpoint(text).unwrap(), "http://ci:50051", "{text}");
    }
    assert_eq!(endpoint("[::1]:50051").unwrap(), "http://[::1]:50051");
}

#[test]
fn what_is_no_address_is_refused_in_words() {
    for text in ["", "ci", "ci:0", "ci:99999", ":50051", "ftp://ci:1", "ci:1/path", "me@ci:1"] {
        assert!(matches!(endpoint(text), Err(Error::Orchestrator(_))), "{text}");
    }
    assert!(endpoint("https://ci:50051").unwrap_err().to_string().contains("TLS"));
}

#[test]
fn labels_have_a_key_and_a_value_and_say_what_the_machine_is() {
    let config = config(&["--label", "gpu=true", "--label", "zone=a=b"]).unwrap();
    assert_eq!(config.labels["gpu"], "true");
    assert_eq!(config.labels["zone"], "a=b");
    assert_eq!(config.labels["os"], "linux");
    assert_eq!(config.labels["arch"], env::consts::ARCH);
}

#[test]
fn what_is_no_label_is_refused() {
    for label in ["gpu", "=x", "a b=c", "a=\u{1b}"] {
        assert!(matches!(config(&["--label", label]), Err(Error::Label(_))), "{label}");
    }
    assert!(matches!(config(&["--label", "a=1", "--label", "a=2"]), Err(Error::LabelTwice(_))));
}

#[test]
fn defaults_are_those_of_the_help() {
    let config = config(&[]).unwrap();
    assert_eq!(config.log_limit, 1 << 30);
    assert_eq!(config.pids_limit, 16_384);
    assert_eq!(config.min_free, 1 << 30);
    assert_eq!(config.job_timeout, Duration::from_secs(24 * 3600));
    assert_eq!(config.slots, cores());
    assert_eq!(config.docker_socket, DockerSocket::Raw);
    assert_eq!(config.pull, Pull::Missing);
    assert!(config.token.is_none() && config.inheritable.is_empty() && !config.allow_file_urls);
}

#[test]
fn the_data_folder_is_where_the_desktop_standard_says() {
    let data = |pairs: &[(&str, &str)]| default_data(&environment(pairs));
    assert_eq!(data(&[("XDG_DATA_HOME", "/x"), ("HOME", "/h")]), Some("/x/buildr/agent".into()));
    assert_eq!(data(&[("HOME", "/h")]), Some("/h/.local/share/buildr/agent".into()));
    assert_eq!(data(&[("XDG_DATA_HOME", "relative"), ("HOME", "/h")]), data(&[("HOME", "/h")]));
    assert_eq!(data(&[]), None);
}

#[test]
fn a_token_comes_from_a_file_without_its_line_end_and_is_never_printed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, "s3cret\n").unwrap();
    let config = config(&["--token-file", file.to_str().unwrap()]).unwrap();
    assert_eq!(config.token.as_ref().unwrap().expose(), "s3cret");
    assert!(!format!("{config:?}").contains("s3cret"));
}

#[test]
fn a_token_that_is_none_is_refused() {
    assert!(matches!(config(&["--token", " "]), Err(Error::Token(_))));
    assert!(matches!(config(&["--token", "a b"]), Err(Error::Token(_))));
    assert!(matches!(config(&["--token-file", "/does/not/exist"]), Err(Error::TokenFile { .. })));
}

#[test]
fn slots_are_at_least_one() {
    assert!(matches!(config(&["--slots", "0"]), Err(Error::Slots(0))));
    assert!(matches!(config(&["--slots", "1001"]), Err(Error::Slots(1001))));
    assert_eq!(config(&["--slots", "3"]).unwrap().slots, 3);
}

#[test]
fn sizes_and_times_are_written_as_people_write_them() {
    let config = config(&["--log-limit", "5MiB", "--min-free", "2GB", "--job-timeout", "90m"]).unwrap();
    assert_eq!(config.log_limit, 5 << 20);
    assert_eq!(config.min_free, 2_000_000_000);
    assert_eq!(config.job_timeout, Duration::from_secs(5400));
    for wrong in ["0s", "-1h", "soon", "90"] {
        assert!(wrong.parse::<args::Span>().is_err(), "{wrong}");
    }
}

#[test]
fn the_arguments_are_what_clap_wants_them_to_be() {
    use clap::CommandFactory;
    Args::command().debug_assert();
}

#[test]
fn metrics_stay_on_this_machine_unless_a_host_is_given() {
    assert_eq!(config(&[]).unwrap().metrics, None);
    assert_eq!(config(&["--metrics", "9100"]).unwrap().metrics, Some("127.0.0.1:9100".parse().unwrap()));
    assert_eq!(config(&["--metrics", "0.0.0.0:1"]).unwrap().metrics, Some("0.0.0.0:1".parse().unwrap()));
    assert!(matches!(config(&["--metrics", "99999"]), Err(Error::Metrics(_))));
}
