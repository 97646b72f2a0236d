//! Stages that run side by side: what is told of each is in its order, and none holds another back.

use super::*;

/// What a stage does: its name, and its log by steps.
struct Told {
    name: &'static str,
    steps: &'static [&'static str],
}

const BUILD: Told = Told { name: "build", steps: &["one\ntwo\n", "three\n"] };
const LINT: Told = Told { name: "lint", steps: &["a\n", "b\nc\n", "d\n"] };
const LAST: Told = Told { name: "last", steps: &["end\n"] };

impl Told {
    fn stage(&self) -> StageName {
        StageName::new(self.name).unwrap()
    }

    fn log(&self, end: Option<u64>) -> (String, FakeLog) {
        (self.name.to_owned(), FakeLog { bytes: self.steps.concat().into_bytes(), end })
    }

    fn started(&self) -> EventKind {
        EventKind::StageStarted { stage: self.stage() }
    }

    fn step(&self, step: usize) -> EventKind {
        let offset = self.steps[..step].concat().len() as u64;
        EventKind::StepStarted { stage: self.stage(), step: step as u32, command: String::new(), offset }
    }

    fn ended(&self) -> EventKind {
        EventKind::StageFinished {
            stage: self.stage(),
            state: StageState::Passed,
            allowed: false,
            log_bytes: self.steps.concat().len() as u64,
            duration: Duration::ZERO,
            usage: Usage::default(),
        }
    }

    /// All that is to be told of it, in its order.
    fn whole(&self) -> String {
        let steps: String = (0..).zip(self.steps).map(|(step, text)| format!("{{{step}}}{text}")).collect();
        format!("{{start}}{steps}{{end}}")
    }
}

/// `build` and `lint` side by side, and `last` after both.
fn kinds() -> Vec<EventKind> {
    vec![
        BUILD.started(),
        LINT.started(),
        BUILD.step(0),
        LINT.step(0),
        LINT.step(1),
        BUILD.step(1),
        LINT.step(2),
        LINT.ended(),
        BUILD.ended(),
        LAST.started(),
        LAST.step(0),
        LAST.ended(),
    ]
}

fn world() -> World {
    let mut events: Vec<BuildEvent> = (1..).zip(kinds()).map(|(seq, kind)| job(seq, kind)).collect();
    events.push(farm(events.len() as u64 + 1, BuildEventKind::Finished(Outcome::Passed)));
    World { events, logs: [&BUILD, &LINT, &LAST].map(|told| told.log(Some(0))).into() }
}

/// What was told of each stage, and the order of the stages' begins and ends.
#[derive(Default)]
struct Heard {
    of: BTreeMap<String, String>,
    order: Vec<String>,
}

impl Heard {
    fn take(&mut self, entry: &Entry) {
        let name = match entry {
            Entry::Item(Item::Output(output)) => output.log.to_string(),
            Entry::Item(Item::Event(event)) => event.kind.position().unwrap().0.to_string(),
            _ => return,
        };
        let text = describe(entry);
        if ["{start}", "{end}"].contains(&&*text) {
            self.order.push(format!("{name} {text}"));
        }
        self.of.entry(name).or_default().push_str(&text);
    }

    async fn until(&mut self, follow: &mut Follow, mut enough: impl FnMut(&Self) -> bool) {
        let hear = async {
            while !enough(self) {
                let Some(entry) = follow.next().await.unwrap() else { break };
                self.take(&entry);
            }
        };
        tokio::time::timeout(Duration::from_secs(20), hear).await.expect("the stream goes on");
    }

    fn has(&self, told: &Told, text: &str) -> bool {
        self.of.get(told.name).is_some_and(|heard| heard.contains(text))
    }

    fn check_whole(&self) {
        for told in [&BUILD, &LINT, &LAST] {
            assert_eq!(self.of[told.name], told.whole(), "{}", told.name);
        }
        let place = |what: &str| self.order.iter().position(|told| told == what).unwrap();
        for before in ["build {end}", "lint {end}"] {
            assert!(place(before) < place("last {start}"), "{:?}", self.order);
        }
    }
}

#[tokio::test]
async fn a_late_viewer_sees_both_stages_whole_and_as_they_happened() {
    for piece in [1, 2, 5, 1000] {
        let fake = Fake { piece, ..Fake::new(world()) };
        let mut follow = Follow::new(fake.serve().await, &finished(), options());
        let (mut heard, mut told) = (Heard::default(), String::new());
        while let Some(entry) = follow.next().await.unwrap() {
            heard.take(&entry);
            told.push_str(&describe(&entry));
        }
        heard.check_whole();
        let expected = "{start}{start}{0}{0}a\n{1}one\ntwo\n{1}b\nc\n{2}d\n{end}three\n{end}";
        assert_eq!(told, format!("{expected}{}{{passed}}", LAST.whole()), "in pieces of {piece}");
    }
}

#[tokio::test]
async fn a_stage_whose_log_is_late_holds_back_no_other() {
    let mut begun = world();
    begun.events.truncate(8);
    begun.logs.remove("build");
    let fake = Fake::new(begun);
    let mut follow = Follow::new(fake.serve().await, &build(BuildState::Running), options());
    let mut heard = Heard::default();
    heard.until(&mut follow, |heard| heard.has(&LINT, "{end}")).await;
    assert_eq!(heard.of[LINT.name], LINT.whole());
    assert_eq!(heard.of[BUILD.name], "{start}{0}", "the next step waits for the output before it");
    fake.world.send_replace(world());
    heard.until(&mut follow, |_| false).await;
    heard.check_whole();
}

#[tokio::test]
async fn a_stage_does_not_begin_before_one_that_had_ended_whose_log_is_late() {
    let mut begun = world();
    begun.events.pop();
    begun.logs.get_mut("build").unwrap().bytes.truncate(3);
    begun.logs.get_mut("build").unwrap().end = None;
    let fake = Fake::new(begun);
    let mut follow = Follow::new(fake.serve().await, &build(BuildState::Running), options());
    let mut heard = Heard::default();
    heard.until(&mut follow, |heard| heard.has(&LINT, "{end}") && heard.has(&BUILD, "one")).await;
    assert!(!heard.of.contains_key(LAST.name), "{:?}", heard.order);
    fake.world.send_replace(world());
    heard.until(&mut follow, |_| false).await;
    heard.check_whole();
}

#[tokio::test]
async fn connections_that_break_in_the_middle_cost_neither_stage_anything() {
    for break_after in [1, 2, 3, 5] {
        for state in [BuildState::Running, BuildState::Finished(Outcome::Passed)] {
            let fake = Fake { break_after, piece: 2, ..Fake::new(world()) };
            let mut follow = Follow::new(fake.serve().await, &build(state), options());
            let mut heard = Heard::default();
            heard.until(&mut follow, |_| false).await;
            heard.check_whole();
            let watched = fake.watch_cursors.lock().unwrap().len();
            assert!(watched > 1, "the events were watched {watched} times");
        }
    }
}

#[tokio::test]
async fn a_viewer_that_comes_in_the_middle_sees_the_beginning_too() {
    for known in 0..kinds().len() {
        let mut begun = world();
        begun.events.truncate(known);
        begun.logs.values_mut().for_each(|log| log.end = None);
        let fake = Fake { piece: 3, ..Fake::new(begun) };
        let mut follow = Follow::new(fake.serve().await, &build(BuildState::Running), options());
        let mut heard = Heard::default();
        let count = |heard: &Heard| heard.of.values().map(|text| text.matches('{').count()).sum::<usize>();
        heard.until(&mut follow, |heard| count(heard) == known).await;
        fake.world.send_replace(world());
        heard.until(&mut follow, |_| false).await;
        for told in [&BUILD, &LINT, &LAST] {
            let whole = told.steps.concat();
            let text = ["{start}", "{0}", "{1}", "{2}", "{end}"]
                .into_iter()
                .fold(heard.of[told.name].clone(), |text, event| text.replace(event, ""));
            assert_eq!(text, whole, "{} after {known} events", told.name);
        }
    }
}

#[tokio::test]
async fn a_stage_that_never_runs_is_not_told_before_one_that_had_ended_whose_log_is_late() {
    let mut whole = world();
    let skipped = EventKind::StageFinished {
        stage: LAST.stage(),
        state: StageState::Skipped { why: String::new() },
        allowed: false,
        log_bytes: 0,
        duration: Duration::ZERO,
        usage: Usage::default(),
    };
    let kinds = [
        BUILD.started(),
        LINT.started(),
        BUILD.step(0),
        BUILD.step(1),
        BUILD.ended(),
        skipped,
        LINT.step(0),
        LINT.step(1),
        LINT.step(2),
        LINT.ended(),
    ];
    whole.events = (1..).zip(kinds).map(|(seq, kind)| job(seq, kind)).collect();
    let mut begun = world();
    begun.events = whole.events.clone();
    begun.logs.get_mut("build").unwrap().bytes.truncate(3);
    begun.logs.get_mut("build").unwrap().end = None;
    whole.events.push(farm(11, BuildEventKind::Finished(Outcome::Passed)));
    let fake = Fake::new(begun);
    let mut follow = Follow::new(fake.serve().await, &build(BuildState::Running), options());
    let mut heard = Heard::default();
    heard.until(&mut follow, |heard| heard.has(&LINT, "{end}")).await;
    assert!(!heard.of.contains_key(LAST.name), "{:?}", heard.order);
    fake.world.send_replace(whole);
    heard.until(&mut follow, |_| false).await;
    assert_eq!(heard.order.last().map(String::as_str), Some("last {end}"));
}
