//! The fault suite in its short form: a few episodes of a seed against real processes. `standfast torture --minutes 60` is the
//! long one.

mod support;
use support::{Ran, STANDFAST};

fn standfast(arguments: &[&str]) -> Ran {
    std::process::Command::new(STANDFAST).args(arguments).output().expect("the program runs").into()
}

#[test]
fn a_few_episodes_of_a_seed_find_nothing() {
    let dir = std::env::temp_dir().join(format!("standfast-test-torture-{}", std::process::id()));
    let port = (12_000 + std::process::id() % 180 * 100).to_string();
    let ran = standfast(&[
        "torture",
        "--dir",
        dir.to_str().expect("a temporary folder has a plain name"),
        "--base-port",
        &port,
        "--seed",
        "1",
        "--episodes",
        "3",
        "--kinds",
        "site,disaster,split,switch,damage",
    ]);
    let judged = ran.stdout.lines().filter(|line| line.starts_with("episode ")).count();
    let said = ran.all();
    if ran.code != Some(0) {
        // What the lab left is not of use to anybody here; the episodes are in the output.
        let _ = standfast(&["--dir", dir.to_str().unwrap_or_default(), "lab", "down", "--delete"]);
    }
    assert_eq!((ran.code, judged), (Some(0), 3), "{said}");
    assert!(ran.last_line().contains("findings 0"), "{said}");
    assert!(!dir.exists(), "the lab is gone");
}

#[test]
fn a_schedule_is_shown_and_is_the_same_every_time() {
    let show = || standfast(&["torture", "--what-if", "--seed", "7", "--episodes", "20"]);
    let (once, again) = (show(), show());
    assert_eq!(once.code, Some(0), "{}", once.all());
    assert_eq!(once.stdout, again.stdout);
    assert!(once.stdout.contains("everything runs again"), "{}", once.stdout);
    let other = standfast(&["torture", "--what-if", "--seed", "8", "--episodes", "20"]);
    assert_ne!(once.stdout, other.stdout);
    let wrong = standfast(&["torture", "--kinds", "earthquake"]);
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.all().contains("the kinds are site, disaster"), "{}", wrong.all());
}
