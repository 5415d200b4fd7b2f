//! Commands of this same program, as processes of their own: what they take of memory, and what they die of, is theirs.

use super::{Control, Progress};
use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// Set for a process that shall end when its standard input does.
const WITH_PARENT: &str = "ROXANNE_WITH_PARENT";
/// How one ends that waits for another (`ErrorClass::Busy`).
const BUSY: i32 = 7;
/// Between two looks at whether it shall stop.
const LOOK: Duration = Duration::from_millis(100);
/// For it to end when it is told to; then it is killed.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of what it says at last that are kept.
const LAST_WORDS: usize = 2000;

/// Runs `program` to its end, and gives what it printed where it ended well.
pub(super) fn run(program: &Path, arguments: &[String], control: &Control) -> Result<String, String> {
    run_for(program, arguments, control, &[0])
}

/// The same where it ended with one of `codes`.
pub(super) fn run_for(program: &Path, arguments: &[String], control: &Control, codes: &[i32]) -> Result<String, String> {
    let begin = Instant::now();
    loop {
        match run_once(program, arguments, control, codes) {
            // One that the end of another server left behind is on its way out.
            Err((Some(BUSY), _)) if begin.elapsed() < PATIENCE && !control.stopped() => thread::sleep(Duration::from_secs(1)),
            outcome => return outcome.map_err(|(_, error)| error),
        }
    }
}

fn run_once(program: &Path, arguments: &[String], control: &Control, codes: &[i32]) -> Result<String, (Option<i32>, String)> {
    let failed = |error: std::io::Error| (None, format!("{}: {error}", program.display()));
    let mut command = Command::new(program);
    // It ends when the pipe of its standard input does: with this process, however that ends.
    command.args(arguments).env(WITH_PARENT, "1").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    let (mut out, err) = (child.stdout.take(), child.stderr.take());
    let printed = thread::spawn(move || {
        let mut text = String::new();
        out.as_mut().map(|out| out.read_to_string(&mut text));
        text
    });
    let (events, told) = mpsc::channel();
    let said = thread::spawn(move || {
        let mut last = String::new();
        for line in err.into_iter().flat_map(|err| BufReader::new(err).lines()).map_while(Result::ok) {
            match serde_json::from_str::<Value>(&line).ok().filter(|event| event.get("phase").is_some()) {
                Some(event) => _ = events.send(progress_of(&event)),
                None => {
                    last = if last.is_empty() { line } else { format!("{last}\n{line}") };
                    let cut = (last.len().saturating_sub(LAST_WORDS)..last.len()).find(|&at| last.is_char_boundary(at)).unwrap_or(0);
                    last.drain(..cut);
                }
            }
        }
        last
    });
    let mut told_to_stop = None;
    let status = loop {
        while let Ok(progress) = told.try_recv() {
            control.say(progress);
        }
        if let Some(status) = child.try_wait().map_err(failed)? {
            break status;
        }
        match told_to_stop {
            None if control.stopped() => {
                told_to_stop = Some(Instant::now());
                // As Ctrl-C does: a build clears away, or keeps what it can go on with.
                let _ = rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM);
            }
            Some(since) if since.elapsed() > PATIENCE => _ = child.kill(),
            _ => {}
        }
        thread::sleep(LOOK);
    };
    let (printed, said) = (printed.join().unwrap_or_default(), said.join().unwrap_or_default());
    if status.code().is_some_and(|code| codes.contains(&code)) {
        return Ok(printed);
    }
    let last = said.lines().next_back().unwrap_or_default();
    Err((status.code(), if last.is_empty() { format!("it ended with {status}") } else { last.to_string() }))
}

fn progress_of(event: &Value) -> Progress {
    let text = |name: &str| event[name].as_str().unwrap_or_default().to_string();
    let number = |name: &str| event[name].as_u64().unwrap_or(0);
    Progress {
        phase: text("phase"),
        done: number("done"),
        total: number("total"),
        unit: text("unit"),
        eta_seconds: event["eta_seconds"].as_f64(),
    }
}
