//! Ctrl-C and SIGTERM. A command says once, when it begins, what they mean to it.

use crate::progress::say;
use roxanne_core::ErrorClass;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::{
    io, process,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// Set by a server for the commands that it runs: they end when their standard input does.
const WITH_PARENT: &str = "ROXANNE_WITH_PARENT";
/// The exit code of an interrupted command.
const CODE: i32 = 130;

/// For commands that have nothing to clear away: the first signal ends the process.
pub(crate) fn leaves_at_once() {
    on_signal(|| {
        say("error: interrupted; nothing was written");
        process::exit(CODE);
    });
}

/// For commands that must clear away what they began: the first signal sets the flag, the second ends the process.
pub(crate) fn stop_flag() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    on_signal(move || {
        if flag.swap(true, Ordering::Relaxed) {
            say("error: interrupted twice; left at once, temporary files may remain beside the output");
            process::exit(CODE);
        }
        say("stopping and clearing away; once more to leave at once");
    });
    stop
}

/// The failure of a command that was stopped by its flag.
pub(crate) fn interrupted(output: impl std::fmt::Display) -> crate::failure::Failure {
    crate::failure::Failure::new(ErrorClass::Interrupted, format!("interrupted; nothing was left at {output}"))
}

/// Calls `act` on a thread of its own, where everything is allowed that a signal handler must not do. Where signals cannot be had,
/// they keep their default: the process ends.
fn on_signal(mut act: impl FnMut() + Send + 'static) {
    if std::env::var_os(WITH_PARENT).is_some() {
        // The process that began this one holds the other end of the pipe.
        thread::spawn(|| {
            let _ = io::copy(&mut io::stdin(), &mut io::sink());
            let _ = signal_hook::low_level::raise(SIGTERM);
        });
    }
    if let Ok(mut signals) = Signals::new([SIGINT, SIGTERM]) {
        thread::spawn(move || signals.forever().for_each(|_| act()));
    }
}
