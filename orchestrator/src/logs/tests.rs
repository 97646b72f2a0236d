use super::*;

fn key(log: &str) -> LogKey {
    LogKey { attempt: AttemptId::new(), log: LogName::new(log).unwrap() }
}

fn chunk(key: &LogKey, offset: u64, data: &'static [u8]) -> Chunk {
    let times = vec![(offset, Timestamp::UNIX_EPOCH)];
    Chunk { key: key.clone(), offset, data: Bytes::from_static(data), times }
}

async fn durable(logs: &Logs, chunk: Chunk) {
    let end = chunk.offset + chunk.data.len() as u64;
    let mut appended = logs.append(chunk).await.unwrap();
    let reached = appended.durable.wait_for(|durable| *durable >= end);
    tokio::time::timeout(Duration::from_secs(10), reached).await.expect("in time").unwrap();
}

#[tokio::test]
async fn what_is_durable_is_there_after_another_start() {
    let folder = tempfile::tempdir().unwrap();
    let key = key("test");
    let (logs, task) = Logs::start(folder.path().to_owned());
    durable(&logs, chunk(&key, 0, b"0123456789")).await;
    drop(logs);
    task.await.unwrap();
    let (logs, _task) = Logs::start(folder.path().to_owned());
    let appended = logs.append(chunk(&key, 0, b"")).await.unwrap();
    assert_eq!(*appended.durable.borrow(), 10);
    durable(&logs, chunk(&key, 10, b"abc")).await;
    let claim = |crc32c| LogClaim { log: key.log.clone(), length: 13, crc32c, missing: 0 };
    let verdict = logs.verify(key.attempt, claim(crc32c::crc32c(b"0123456789abc"))).await.unwrap();
    assert_eq!((verdict.stored, verdict.missing, verdict.damage), (13, 0, None));
    assert!(logs.verify(key.attempt, claim(1)).await.unwrap().damage.is_some());
    assert_eq!(&logs.reader(&key).read(3, 13, 100).await.unwrap()[..], b"3456789abc");
}

#[tokio::test]
async fn a_sealed_log_takes_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let key = key("test");
    let (logs, _task) = Logs::start(folder.path().to_owned());
    durable(&logs, chunk(&key, 0, b"x")).await;
    let claim = LogClaim { log: key.log.clone(), length: 1, crc32c: crc32c::crc32c(b"x"), missing: 0 };
    logs.verify(key.attempt, claim).await.unwrap();
    assert!(matches!(logs.append(chunk(&key, 1, b"y")).await, Err(Error::Sealed(_))));
    assert!(logs.append(chunk(&key, 0, b"x")).await.is_ok(), "what it has is no news");
}

#[tokio::test]
async fn a_torn_index_loses_times_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let key = key("test");
    let (logs, task) = Logs::start(folder.path().to_owned());
    durable(&logs, chunk(&key, 0, b"0123456789")).await;
    drop(logs);
    task.await.unwrap();
    let index = index::path_of(&path(folder.path(), &key));
    let mut bytes = std::fs::read(&index).unwrap();
    // One entry beyond the log's end, and half of one.
    bytes.extend(99u64.to_le_bytes());
    bytes.extend([0; 8 + 5]);
    std::fs::write(&index, bytes).unwrap();
    let (logs, _task) = Logs::start(folder.path().to_owned());
    durable(&logs, chunk(&key, 10, b"a")).await;
    let times = logs.reader(&key).times(0, 1000).await.unwrap();
    assert_eq!(times, [(0, Timestamp::UNIX_EPOCH)]);
}

#[test]
fn no_name_of_a_log_leaves_its_folder_or_meets_another() {
    let root = Path::new("/logs");
    let attempt = AttemptId::new();
    let mut seen = std::collections::BTreeSet::new();
    let long = "ü".repeat(100);
    for name in [
        "test",
        "Test",
        "te st",
        "te_st",
        "..a",
        "a..",
        ".hidden",
        "-rf",
        "a\\b",
        "services_db",
        "services/db",
        "db",
        "日本",
        "日木",
        &long,
    ] {
        let path = path(root, &LogKey { attempt, log: LogName::new(name).unwrap() });
        let file = path.file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(path.parent().unwrap().file_name().unwrap().to_str(), Some(&*attempt.to_string()));
        assert!(file.len() < 100 && !file.starts_with('.'), "{file}");
        assert!(seen.insert(file.to_lowercase()), "{name}");
    }
}

#[tokio::test]
async fn logs_that_somebody_waits_for_hold_no_files_open_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let (logs, _task) = Logs::start(folder.path().to_owned());
    let keys: Vec<LogKey> = (0..200).map(|n| key(&format!("s{n}"))).collect();
    let mut waiting = Vec::new();
    for key in &keys {
        waiting.push(logs.append(chunk(key, 0, b"one ")).await.unwrap());
    }
    let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let of_logs =
        open.filter(|fd| std::fs::read_link(fd.path()).is_ok_and(|to| to.starts_with(folder.path())));
    assert!(of_logs.count() < 300, "two files for each of 200 logs would be 400");
    for key in &keys {
        logs.append(chunk(key, 4, b"two")).await.unwrap();
    }
    for (key, appended) in keys.iter().zip(&mut waiting) {
        let end = appended.durable.wait_for(|durable| *durable == 7);
        tokio::time::timeout(Duration::from_secs(10), end).await.expect("in time").unwrap();
        assert_eq!(&logs.reader(key).read(0, 7, 100).await.unwrap()[..], b"one two");
    }
}
