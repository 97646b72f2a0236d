//! Any bytes at all: they are read, checked, planned for several events and shown, and nothing panics.
//!
//! `cargo +nightly fuzz run manifest` in the folder `manifest`.
#![no_main]

use buildr_manifest::{Context, Diagnostics, Manifest, Trigger};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match Manifest::parse(bytes, "fuzz.yml") {
        Ok((manifest, warnings)) => {
            let _shown = Diagnostics::from(warnings).render(true);
            for trigger in Trigger::ALL {
                plan(&manifest, trigger);
            }
        }
        Err(problems) => {
            assert!(!problems.render(true).is_empty());
        }
    }
});

fn plan(manifest: &Manifest, trigger: Trigger) {
    let context = Context {
        trigger,
        branch: Some("main".to_owned()),
        tag: Some("v1".to_owned()),
        target: Some("main".to_owned()),
        changed_paths: Some(vec!["src/a.rs".to_owned(), "docs/b.md".to_owned()]),
        ..Context::default()
    };
    let Ok(plan) = manifest.plan(&context) else { return };
    let rounds = manifest.order.rounds();
    assert_eq!(rounds.iter().map(Vec::len).sum::<usize>(), manifest.stages.len());
    for job in &plan.jobs {
        for stage in 0..job.stages.len() {
            assert!(!job.waits_for(&manifest.order, stage).contains(&stage));
        }
    }
    if let Err(problems) = plan.supported() {
        assert!(!problems.items.is_empty());
    }
}
