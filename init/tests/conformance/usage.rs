//! What init tells of what a stage used.

use buildr_init::wire::{EndCause, StageEnd, Traffic};

use crate::container::{BUSYBOX, Container, settings, stage};

const MIB: u64 = 1 << 20;

/// A shell that takes this many MiB of memory.
fn take(mib: u32) -> String {
    format!("x=$(head -c {}000000 /dev/zero | tr '\\0' x); echo took ${{#x}}", mib)
}

fn end(container: &mut Container, script: &str) -> StageEnd {
    container.run(stage(&[script])).end
}

#[test]
fn the_peak_of_memory_is_the_containers_so_far() {
    let mut container = Container::start(BUSYBOX, &settings(), &["--memory", "512m"]);
    let small = end(&mut container, "true").peak_memory.unwrap();
    let large = end(&mut container, &take(60)).peak_memory.unwrap();
    assert!(small < 50 * MIB && (60 * MIB..512 * MIB).contains(&large), "{small} {large}");
    assert_eq!(end(&mut container, "true").peak_memory, Some(large));
}

#[test]
fn processes_that_the_kernel_ended_for_want_of_memory_are_counted_for_their_stage_alone() {
    let mut container = Container::start(BUSYBOX, &settings(), &["--memory", "48m", "--memory-swap", "48m"]);
    let hungry = end(&mut container, &take(200));
    assert!(matches!(hungry.cause, EndCause::Signal(9) | EndCause::Exit(_)), "{hungry:?}");
    assert!(hungry.oom_kills > 0, "{hungry:?}");
    assert!(hungry.peak_memory.unwrap() <= 48 * MIB, "{hungry:?}");
    let after = end(&mut container, "true");
    assert_eq!((after.cause, after.oom_kills), (EndCause::Exit(0), 0));
}

#[test]
fn a_build_cannot_put_its_own_figures_in_the_place_of_the_kernels() {
    let options = ["--memory", "512m", "--cap-add", "SYS_ADMIN", "--security-opt", "apparmor=unconfined"];
    let mut container = Container::start(BUSYBOX, &settings(), &options);
    let before = end(&mut container, "true").peak_memory.unwrap();
    container.check(&[
        "mount -t tmpfs none /sys/fs/cgroup && mkdir /sys/fs/cgroup/memory && mkfifo /sys/fs/cgroup/memory.peak",
        "echo 1 > /sys/fs/cgroup/memory/memory.max_usage_in_bytes; mount -t tmpfs none /proc",
    ]);
    let after = end(&mut container, "true");
    assert!(after.peak_memory.unwrap() >= before);
    assert_eq!(after.network, Some(Traffic::default()));
}
