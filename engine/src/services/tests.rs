use std::time::Duration;

use buildr_manifest::{Context, Manifest, Outcome, plan::PlannedService};
use tokio::{sync::mpsc, time::timeout};

use super::*;
use crate::{
    engine::{Config, Lifetime},
    job::Item,
    labels,
    testing::{DerivedImage, Fixture, docker},
};

/// Far more than any of these services takes.
const LIMIT: Duration = Duration::from_secs(60);

/// An engine with a run that has services.
struct Bench {
    fixture: Fixture,
    engine: Inner,
    services: Vec<PlannedService>,
    feed: Feed,
    items: mpsc::Receiver<Item>,
    /// Events that came while output was waited for.
    told: Vec<EventKind>,
}

impl Bench {
    /// The services as a manifest has them, where `IMAGE` stands for busybox.
    async fn new(services: &str) -> Self {
        let fixture = Fixture::new().await;
        let lifetime = Lifetime::Detached { dead_man: Some(Duration::from_secs(60)) };
        let config = Config { lifetime, ..Config::new(fixture.folder.path(), &fixture.owner) };
        let text = format!(
            "image: a\nstages: [s]\ns: {{script: a}}\nenvironment: {{OF_THE_BUILD: x}}\nservices: {}\n",
            services.replace("IMAGE", Fixture::BUSYBOX)
        );
        let (manifest, _) = Manifest::parse(text.as_bytes(), "m").unwrap();
        let plan = manifest.plan(&Context::default()).unwrap();
        let (items_in, items) = mpsc::channel(1000);
        Self {
            engine: Inner::connect(config).await.unwrap(),
            fixture,
            services: plan.jobs[0].services.clone(),
            feed: Feed::new(items_in, None),
            items,
            told: Vec::new(),
        }
    }

    async fn start(&self, heard: &BTreeMap<ServiceName, Heard>) -> Result<Services, ServiceError> {
        let place = Place {
            engine: &self.engine,
            run: &self.fixture.run,
            lifetime: self.engine.config.lifetime,
            folder: self.fixture.folder.path(),
            feed: &self.feed,
        };
        let wanted = |planned: &PlannedService| planned.image.known().unwrap().to_owned();
        let images: Vec<_> = self.services.iter().map(wanted).collect();
        let wanted: Vec<_> =
            self.services.iter().zip(&images).map(|(planned, image)| Wanted { planned, image }).collect();
        timeout(LIMIT, Services::start(&place, &wanted, heard)).await.expect("it ends in time")
    }

    async fn started(&self) -> Services {
        self.start(&BTreeMap::new()).await.unwrap_or_else(|error| panic!("{:?}", error.outcome()))
    }

    async fn failed(&self) -> String {
        match self.start(&BTreeMap::new()).await.unwrap_err().outcome() {
            Outcome::ServiceError { message } => message,
            other => panic!("{other:?}"),
        }
    }

    /// Events so far.
    fn events(&mut self) -> Vec<EventKind> {
        while let Ok(item) = self.items.try_recv() {
            if let Item::Event(event) = item {
                self.told.push(event.kind);
            }
        }
        std::mem::take(&mut self.told)
    }

    /// How long the only service took to get ready.
    fn took(&mut self) -> Duration {
        match &self.events()[..] {
            [EventKind::ServiceReady { took, .. }] => *took,
            other => panic!("{other:?}"),
        }
    }

    /// What the services have printed from `from` on, once it has this text.
    async fn printed(&mut self, text: &str, from: u64) -> String {
        let mut all = Vec::new();
        let wait = async {
            while !String::from_utf8_lossy(&all).contains(text) {
                match self.items.recv().await.expect("the service goes on") {
                    Item::Event(event) => self.told.push(event.kind),
                    Item::Output(piece) => {
                        assert!(piece.log.service().is_some(), "{:?}", piece.log);
                        assert_eq!(piece.offset, from + all.len() as u64);
                        assert!(piece.offset > 0 || piece.times.first().is_some_and(|(at, _)| *at == 0));
                        all.extend_from_slice(&piece.data);
                    }
                }
            }
        };
        timeout(LIMIT, wait).await.expect("it is printed in time");
        String::from_utf8(all).unwrap()
    }

    /// The next warning, and how much was printed until then.
    async fn warning(&mut self) -> (String, u64) {
        let mut printed = 0;
        let wait = async {
            loop {
                match self.items.recv().await.expect("the service goes on") {
                    Item::Output(piece) => printed += piece.data.len() as u64,
                    Item::Event(event) => match event.kind {
                        EventKind::Warning { message } => break message,
                        other => self.told.push(other),
                    },
                }
            }
        };
        (timeout(LIMIT, wait).await.expect("it is told in time"), printed)
    }

    async fn containers(&self) -> Vec<labels::Found> {
        labels::containers(&self.fixture.daemon, &self.fixture.owner, None).await.unwrap()
    }

    async fn remove(&self) -> u32 {
        let Fixture { daemon, owner, run, .. } = &self.fixture;
        labels::remove_all(daemon, owner, run).await.unwrap()
    }
}

#[tokio::test]
async fn services_reach_each_other_by_name_and_see_their_own_variables_alone() {
    let mut bench = Bench::new(
        "{db: {image: IMAGE, command: [sleep, '1000']}, web: {image: IMAGE, ready: nslookup db, \
         environment: {OWN: mine}, command: [sh, -c, 'env; hostname; exec sleep 1000']}}",
    )
    .await;
    let services = bench.started().await;
    let printed = bench.printed("\nweb\n", 0).await;
    assert!(printed.contains("OWN=mine\n"), "{printed}");
    assert!(!printed.contains("OF_THE_BUILD") && !printed.contains("BUILDR"), "{printed}");
    let mut ready = Vec::new();
    for event in bench.events() {
        let EventKind::ServiceReady { service, image, .. } = event else { panic!("{event:?}") };
        assert_eq!(image, Fixture::BUSYBOX);
        ready.push(service.to_string());
    }
    ready.sort();
    assert_eq!(ready, ["db", "web"]);
    services.stop().await;
    assert_eq!(bench.remove().await, 2);
}

#[tokio::test]
async fn a_service_that_exits_is_told_with_its_code_and_its_last_words() {
    let bench = Bench::new(
        "{db: {image: IMAGE, command: [sh, -c, 'seq 30; echo no license >&2; exit 7'], ready: 'false'}}",
    )
    .await;
    let message = bench.failed().await;
    let begin = "service db (buildr-test/busybox:1) exited with code 7 before it was ready";
    assert!(message.starts_with(begin), "{message}");
    assert!(message.ends_with("\n  29\n  30\n  no license"), "{message}");
    assert!(!message.contains("\n  20\n"), "ten lines are enough: {message}");
}

#[tokio::test]
async fn a_service_that_is_not_ready_in_time_is_told_with_what_was_tried() {
    let bench = Bench::new(
        "{db: {image: IMAGE, command: [sh, -c, 'echo recovering; sleep 1000'], \
         ready: 'echo no answer; exit 3', timeout: 1s}}",
    )
    .await;
    let message = bench.failed().await;
    for part in [
        "did not get ready within 1 s: `echo no answer; exit 3` exited with code 3",
        "the check said:\n  no answer",
        "the end of its log:\n  recovering",
    ] {
        assert!(message.contains(part), "{message}");
    }
}

#[tokio::test]
async fn a_command_that_the_image_does_not_have_is_told() {
    let message = Bench::new("{db: {image: IMAGE, command: [no-such-program]}}").await.failed().await;
    assert!(message.contains("could not be started (no no-such-program in the image)"), "{message}");
}

#[tokio::test]
async fn an_image_that_cannot_be_had_is_an_error_of_the_image() {
    let bench = Bench::new("{db: 'localhost:1/no/such:1'}").await;
    let outcome = bench.start(&BTreeMap::new()).await.unwrap_err().outcome();
    let Outcome::ImageError { message } = outcome else { panic!("{outcome:?}") };
    assert!(message.starts_with("service db: cannot reach the registry localhost:1"), "{message}");
}

#[tokio::test]
async fn a_health_check_of_the_image_decides_where_the_manifest_says_nothing() {
    let image = DerivedImage::new(&[
        "ENTRYPOINT [\"/bin/sh\", \"-c\", \"sleep 0.3; touch /tmp/up; sleep 1000\"]",
        "HEALTHCHECK CMD test -e /tmp/up",
        "USER dev",
    ]);
    let mut bench = Bench::new(&format!("{{db: '{}'}}", image.name)).await;
    let _services = bench.started().await;
    assert!(bench.took() >= Duration::from_millis(300));
    let sick = DerivedImage::new(&["CMD [\"sleep\", \"1000\"]", "HEALTHCHECK CMD echo sick; false"]);
    let message =
        Bench::new(&format!("{{db: {{image: '{}', timeout: 1s}}}}", sick.name)).await.failed().await;
    let expected = "the image's own health check exited with code 1\nthe check said:\n  sick";
    assert!(message.contains(expected), "{message}");
}

#[tokio::test]
async fn exposed_ports_decide_where_there_is_no_other_check() {
    let command = "CMD [\"sh\", \"-c\", \"sleep 0.3; nc -l -p 7777\"]";
    let image = DerivedImage::new(&["EXPOSE 7777", "USER dev", command]);
    let mut bench = Bench::new(&format!("{{db: '{}'}}", image.name)).await;
    let _services = bench.started().await;
    assert!(bench.took() >= Duration::from_millis(300));
    let mute = format!("{{db: {{image: '{}', command: [sleep, '1000'], timeout: 1s}}}}", image.name);
    let message = Bench::new(&mute).await.failed().await;
    assert!(message.contains("nobody listens on the ports that its image exposes (7777)"), "{message}");
}

#[tokio::test]
async fn a_service_that_ends_later_is_warned_about() {
    let mut bench = Bench::new(
        "{db: {image: IMAGE, command: [sh, -c, 'until [ -e /end ]; do sleep 0.05; done; exit 4'], ready: 'true'}}",
    )
    .await;
    let services = bench.started().await;
    bench.events();
    docker(&["exec", &bench.containers().await[0].id, "touch", "/end"]);
    let (message, _) = bench.warning().await;
    assert_eq!(message, "service db exited with code 4 while the job went on");
    services.stop().await;
}

#[tokio::test]
async fn an_engine_that_comes_back_goes_on_with_the_services_that_run() {
    let script = "echo one; until [ -e /go ]; do sleep 0.05; done; echo two; sleep 1000";
    let services = format!("{{db: {{image: IMAGE, command: [sh, -c, '{script}'], ready: 'true'}}}}");
    let mut bench = Bench::new(&services).await;
    let services = bench.started().await;
    bench.printed("one\n", 0).await;
    bench.events();
    let before = bench.containers().await;
    drop(services);
    docker(&["exec", &before[0].id, "touch", "/go"]);
    let heard = BTreeMap::from([(ServiceName::new("db").unwrap(), Heard { log: 4, ready: true })]);
    let again = bench.start(&heard).await.unwrap();
    assert_eq!(bench.printed("two\n", 4).await, "two\n");
    assert_eq!(bench.containers().await, before);
    assert_eq!(bench.events(), []);
    again.stop().await;
    // One that died before it had told that the service is ready finds that out by itself.
    let unsure = bench.started().await;
    assert_eq!(bench.printed("two\n", 0).await, "one\ntwo\n");
    bench.took();
    unsure.stop().await;
}

#[tokio::test]
async fn a_service_that_prints_without_end_is_cut_and_goes_on() {
    let script = "yes | head -c 70000000; sleep 1000";
    let services = format!("{{db: {{image: IMAGE, command: [sh, -c, '{script}'], ready: 'true'}}}}");
    let mut bench = Bench::new(&services).await;
    let services = bench.started().await;
    let (warning, printed) = bench.warning().await;
    assert_eq!(warning, "service db has printed more than 64 MiB: the rest is not kept");
    assert_eq!(printed, 64 << 20);
    assert_eq!(bench.containers().await[0].state, labels::State::Running);
    services.stop().await;
}

#[tokio::test]
async fn the_services_of_an_attached_engine_end_with_it() {
    let mut bench = Bench::new("{db: {image: IMAGE, command: [sleep, '1000'], ready: 'true'}}").await;
    bench.engine.config.lifetime = Lifetime::Attached;
    let services = bench.started().await;
    assert_eq!(bench.containers().await.len(), 1);
    drop(services);
    let gone = async {
        while !bench.containers().await.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LIMIT, gone).await.expect("it goes away by itself");
}

#[tokio::test]
async fn starting_can_be_given_up() {
    let bench = Bench::new("{db: {image: IMAGE, command: [sleep, '1000'], ready: 'sleep 1000'}}").await;
    let none = BTreeMap::new();
    let up = async {
        while bench.containers().await.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        _ready = bench.start(&none) => panic!("it cannot get ready"),
        () = up => {}
    }
    assert_eq!(bench.remove().await, 1);
}
